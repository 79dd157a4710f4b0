"""What it takes to do something at an artefact's path: the rule of `repos.gate` and of the reads behind a virtual repository,
as steps, so that `explain` takes the same ones."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.access import Rights
from problems import MethodRefused
from repos.catalogue import Repo

READ = "artifact:read"


@dataclass(frozen=True, slots=True)
class Need:
    """A permission for a package of a repository; None: for some package of it."""

    permission: str
    repo: Repo
    package: str | None

    def met_by(self, rights: Rights) -> bool:
        return rights.allows(self.permission, self.repo.key, self.package)


def to_see(repo: Repo, package: str) -> Need:
    """What it takes to know that there is such a repository, and such a path in it."""
    return Need(READ, repo, package or None)


def to_do(repo: Repo, action: str, package: str) -> Need:
    """What an action takes besides, where it is done. `action`: as a format's routes have it.

    Raises MethodRefused for a write that nothing takes.
    """
    return to_see(repo, package) if action == "read" else Need(f"artifact:{action}", taker(repo), package)


def behind(repo: Repo, package: str) -> list[Need]:
    """To read through a repository, at least one of these: each member of a virtual one answers who may read there."""
    return [Need(READ, member, package or None) for member in repo.answering]


def taker(repo: Repo) -> Repo:
    """The local repository that a write to `repo` goes to."""
    if repo.is_local:
        return repo
    if repo.is_virtual and repo.deploy_to is not None:
        return repo.deploy_to
    why = "is a virtual repository without deploy_to" if repo.is_virtual else "is a remote repository"
    raise MethodRefused(
        f"{repo.key} {why} and takes no uploads; use a local one", rule="repository.kind", headers={"Allow": "GET, HEAD"}
    )
