"""The kinds of jobs. The room that does the work registers its kind where it is imported:

@jobs.kind("gc", permission="system:manage", every=timedelta(days=1))
def run(job: Running) -> dict: ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from accounts.access import Rights
from accounts.permissions import GLOBAL_PERMISSIONS, REPOSITORY_PERMISSIONS
from problems import Malformed

if TYPE_CHECKING:
    from repos.catalogue import Repo
    from repos.jobs.runner import Running

Work = Callable[["Running"], dict[str, Any]]
Check = Callable[[dict[str, Any], Any], dict[str, Any]]

KEEP = timedelta(days=30)


@dataclass(frozen=True)
class Kind:
    """One kind of work.

    `work` does it and returns the job's result. `check` takes the arguments that were asked for, and the repository where the
    kind is one of repositories, and gives the arguments as they are stored, or raises Malformed. `permission` is what somebody
    needs to ask for it, on its repository where it is one of repositories; empty: nobody may, the installation makes such jobs
    itself. `every` makes it periodic.
    """

    name: str
    work: Work
    check: Check
    permission: str
    every: timedelta | None
    attempts: int
    keep: timedelta

    @property
    def of_repositories(self) -> bool:
        """Whether what somebody asks for is of a repository."""
        return self.permission in REPOSITORY_PERMISSIONS

    def check_repository(self, repository: Repo | None) -> None:
        """Raises Malformed where one is missing, or is given and would be ignored. What nobody may ask for is left alone."""
        if self.of_repositories and repository is None:
            raise Malformed(f"a job of kind {self.name} is for a repository; say which", rule="job.repository")
        if self.permission and not self.of_repositories and repository is not None:
            raise Malformed(f"a job of kind {self.name} is for no repository; leave it out", rule="job.repository")

    def may_be_asked_by(self, rights: Rights, repository: str) -> bool:
        """Whether somebody with these rights may have such a job, for the repository of this key (empty: for none)."""
        if self.permission in GLOBAL_PERMISSIONS:
            return rights.allows_globally(self.permission)
        return bool(self.permission) and rights.allows(self.permission, repository)


_kinds: dict[str, Kind] = {}


def kind(
    name: str,
    *,
    check: Check | None = None,
    permission: str = "",
    every: timedelta | None = None,
    attempts: int = 5,
    keep: timedelta = KEEP,
) -> Callable[[Work], Work]:
    """Registers the function below it as the work of a kind. `keep`: how long an ended job is remembered."""

    def register(work: Work) -> Work:
        _kinds[name] = Kind(name, work, check or _nothing, permission, every, attempts, keep)
        return work

    return register


def find_kind(name: str) -> Kind:
    """Raises Malformed where there is no such kind."""
    found = _kinds.get(name)
    if found is None:
        raise Malformed(f"{name[:40]!r} is no kind of job; there are {', '.join(sorted(_kinds))}", rule="job.kind")
    return found


def all_kinds() -> list[Kind]:
    return [_kinds[name] for name in sorted(_kinds)]


def _nothing(arguments: dict[str, Any], repo: Repo | None) -> dict[str, Any]:
    if arguments:
        raise Malformed(f"this kind of job takes no arguments, such as {min(arguments)[:40]!r}", rule="job.arguments")
    return {}
