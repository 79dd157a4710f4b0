"""What is asked, once it is known by whom: what the rooms below the gate work with.

Query   who asks for which path of which repository; also what a job asks, for whom there is no request
Call    a query that came as a request which `repos.gate` has let in; what a format's handlers work with
"""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest

from accounts import uses
from accounts.access import Rights
from accounts.authenticate import Actor
from repos.catalogue import Repo
from repos.needs import READ, behind


@dataclass(frozen=True, kw_only=True)
class Query:
    """Who asks for what. `path` is the checked artefact path after the repository's key, `accept` the media types they take."""

    repo: Repo
    path: str
    actor: Actor
    rights: Rights
    accept: str = ""

    def may(self, permission: str, repo: Repo, package: str | None) -> bool:
        return self.rights.allows(permission, repo.key, package)

    @property
    def readable(self) -> list[Repo]:
        """The local and remote repositories behind this one that may answer the caller for this path, in order."""
        package = self.repo.format.package(self.path)
        return [need.repo for need in behind(self.repo, package) if need.met_by(self.rights)]

    def logs(self, holder: int) -> bool:
        """Whether downloads of what the repository with this id holds are logged: that asks for it, or the one that was asked."""
        return self.repo.log_downloads or any(repo.log_downloads for repo in self.repo.answering if repo.id == holder)


@dataclass(frozen=True, kw_only=True)
class Call(Query):
    """A query and the request that it came by."""

    request: HttpRequest
    through: Repo
    """The repository that was asked; a virtual one where `repo` is what takes its uploads."""
    epoch: int
    """The epoch of the rights and of the configuration by which it was let in."""
    used: tuple[tuple[str, str], ...] = ()
    """The rights by which it was: permission and repository's key."""
    root: str = ""
    """What stands before the path in the URL, as the client wrote it."""

    def used_of(self, repository: int) -> tuple[tuple[str, str], ...]:
        """The right that was used besides where a member of the repository answered, known by its id."""
        return tuple((READ, repo.key) for repo in self.repo.answering if repo.id == repository and repo is not self.repo)

    def may(self, permission: str, repo: Repo, package: str | None) -> bool:
        """Whoever might have replaced what they publish is taken to need that right."""
        allowed = super().may(permission, repo, package)
        if allowed and permission == "artifact:overwrite":
            uses.used(self.actor.user_id, repo.key, permission)
        return allowed
