"""Why somebody may do something in a repository, or may not: the steps of `repos.needs`, each explained.

What is told is for who asks to know: of a repository that they may not see there is nothing but what grants say of its name, as
there is of one that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from django.utils import timezone

import problems
from accounts import explain, scopes
from accounts.access import Rights, rights_of
from accounts.actors import ANONYMOUS, Actor
from accounts.explain import Reason, Verdict
from accounts.models import Token, User
from accounts.permissions import ANONYMOUS_USER, GLOBAL_PERMISSIONS, PERMISSIONS, REPOSITORY_PERMISSIONS
from problems import Forbidden, Malformed, MethodRefused
from repos import paths, usage
from repos.caller import Caller
from repos.catalogue import Repo
from repos.needs import READ, Need, behind, to_do, to_see

MANAGE, OVERWRITE = "repository:manage", "artifact:overwrite"
ACTIONS = ("read", "write", "overwrite", "delete", "manage")
"""Words for what is done in a repository, besides permissions themselves."""

Implied = Iterable[tuple[Iterable[str], str, str]]


@dataclass(frozen=True)
class Somebody:
    """About whom is asked: who they are, what they may, and why they cannot sign in (empty: they can)."""

    actor: Actor
    rights: Rights
    barred: str = ""


@dataclass(frozen=True)
class Asker:
    """Who wants to know, by what they may themselves; None: they run the server. `own`: it is about themselves."""

    rights: Rights | None = None
    own: bool = False

    def manages(self, key: str) -> bool:
        if self.rights is None or self.rights.allows_globally(MANAGE):
            return True
        return self.rights.allows_everywhere(MANAGE, key)

    def sees(self, key: str) -> bool:
        """Whether they may know that there is such a repository, or would if there were."""
        return self.rights is None or self.rights.allows(READ, key) or self.manages(key)

    def told(self, key: str) -> str:
        """How much they are told of the grants that bear on a repository."""
        if self.rights is None or self.own or self.rights.allows_globally("user:manage"):
            return explain.ALL
        return explain.HERE if self.manages(key) else explain.NOTHING


@dataclass(frozen=True)
class Explained:
    """An answer. `steps`: all of them are needed. `members`: of a virtual repository that is read, of which one is needed.

    `why`: one line. `package`: by what name paths of grants are held against; `of_path`: whether it was found by an artefact's
    path.
    """

    actor: Actor
    action: str
    repository: str
    path: str
    package: str
    allowed: bool
    why: str
    of_path: bool = False
    steps: tuple[Verdict, ...] = ()
    members: tuple[Verdict, ...] = field(default=())


def somebody(
    name: str, epoch: int, implied: Implied = (), token: Token | None = None, narrowed: list[str] | None = None
) -> Somebody:
    """A user by name, or `anonymous`; with a token of theirs, or as one with the scopes `narrowed` would be.

    Raises NotFound where there is no such user, Malformed for a token of another, and for scopes that are none.
    """
    if name == ANONYMOUS_USER:
        if token is not None or narrowed is not None:
            raise Malformed("anonymous has no token and no scopes", rule="explain.token")
        return Somebody(ANONYMOUS, rights_of(ANONYMOUS, epoch).plus(implied))
    if token is not None and narrowed is not None:
        raise Malformed("say either a token or scopes", rule="explain.token")
    user = User.objects.filter(username=name.replace("\0", "?")).first()  # a NUL is in no name, and PostgreSQL takes none
    if user is None:
        raise problems.absent(name)
    if token is not None and token.user_id != user.pk:
        raise Malformed(f"token {token.pk} is not of {name}", rule="explain.token")
    wide = token.scopes if token is not None else scopes.checked(narrowed)
    actor = Actor(user.pk, name, token.pk if token else None, None if wide is None else tuple(wide))
    barred = explain.whose(user, token, timezone.now())
    return Somebody(actor, rights_of(actor, epoch).plus(implied), barred)


def permission_of(action: str) -> str:
    """The permission that an action takes: `write` and `artifact:write` are the same. Raises Malformed."""
    word = {"manage": MANAGE}.get(action, f"artifact:{action}" if action in ACTIONS else action)
    if word not in PERMISSIONS:
        known = ", ".join((*ACTIONS, *sorted(GLOBAL_PERMISSIONS)))
        raise Malformed(f"{action[:40]!r} is no action; there are {known}", rule="explain.action")
    return word


def ask(asker: Asker, who: Somebody, action: str, key: str, path: str, repositories: Iterable[Repo]) -> Explained:
    """May they? In a few queries, however much is configured.

    `key` empty: a global permission. `path` empty: any. Raises Malformed for what is no question.
    """
    permission = permission_of(action)
    path = paths.check(path.removeprefix("/")) if path else ""
    if bool(key) and permission not in REPOSITORY_PERMISSIONS:
        raise Malformed(f"{permission} is of no repository; leave it out", rule="explain.repository")
    if not key and (permission not in GLOBAL_PERMISSIONS or path):
        raise Malformed(f"{action} is done in a repository; say in which", rule="explain.repository")
    question = _Question(asker, who, permission, key, path)
    if not key:
        return question.answer("", [question.verdict(permission, "", None)])
    repo = next((repo for repo in repositories if repo.key == key), None)
    if not asker.sees(key):
        return question.by_name()
    return question.missing() if repo is None else question.inside(repo)


def asked(
    caller: Caller, implied: Implied, *, user: str, action: str, repository: str, path: str, token: str, scope: str
) -> Explained:
    """To a question of the caller's. `implied`: what is open to who asks as they do. Raises NotFound, Forbidden, Malformed."""
    asker = Asker(caller.rights, own=user in ("", caller.actor.name, ANONYMOUS_USER))
    if not asker.own:
        _check_may_ask(caller, asker, repository)
    who = _about(caller, implied, user or caller.actor.name, token, scope)
    return ask(asker, who, action, repository, path, caller.repositories.values())


def _check_may_ask(caller: Caller, asker: Asker, repository: str) -> None:
    if caller.rights.allows_globally("user:manage"):
        usage.exercised(caller.actor, [("user:manage", "")])
    elif repository and asker.manages(repository):
        usage.exercised(caller.actor, [(MANAGE, repository)])
    else:
        raise Forbidden(
            f"{caller.actor.name} may ask about themselves; about others it takes user:manage, or repository:manage on the"
            " repository that is asked about",
            rule="user:manage",
        )


def _about(caller: Caller, implied: Implied, name: str, token: str, scope: str) -> Somebody:
    """Who asks about themselves with a narrowed token is told what that may, and no more."""
    own = name == caller.actor.name
    narrowed = scopes.checked(scope.split()) if scope else None
    if own and not token and narrowed is None:
        return Somebody(caller.actor, caller.rights)
    found = _token(caller, token) if token else None
    if own and caller.actor.scopes is not None and (found is None or found.pk != caller.actor.token_id):
        raise Forbidden("a token with scopes asks about itself alone; sign in otherwise to ask more", rule="token.scopes")
    return somebody(name, caller.epoch, implied, found, narrowed)


def _token(caller: Caller, number: str) -> Token:
    """One of the caller's; of who manages users anybody's. Any other is as absent."""
    found = Token.objects.filter(pk=int(number)).first() if re.fullmatch("[0-9]{1,18}", number) else None
    seen = found is not None and (found.user_id == caller.actor.user_id or caller.rights.allows_globally("user:manage"))
    if found is None or not seen:
        raise problems.absent(number)
    return found


@dataclass(frozen=True)
class _Question:
    asker: Asker
    who: Somebody
    permission: str
    key: str
    path: str

    def by_name(self) -> Explained:
        """What grants say of a name, whatever is behind it."""
        steps = [self._named(word) for word in dict.fromkeys((READ, self.permission))]
        found = self.answer(self.path, steps)
        unseen = f"allowed, by grants on this name; whether there is a repository {self.key} is not for you to see"
        return replace(found, why=unseen) if found.allowed else found

    def missing(self) -> Explained:
        return self.answer(self.path, [self._named(self.permission)], f"there is no repository {self.key}")

    def inside(self, repo: Repo) -> Explained:
        package, of_path = package_of(repo, self.path)
        if self.permission == MANAGE:
            return self.answer(package, [self._named(MANAGE)], of_path=of_path)
        steps, against = [self._step(repo, to_see(repo, package))], ""
        try:
            steps += [self._step(repo, need) for need in _needs(repo, self.permission, package, whole=not self.path)]
        except MethodRefused as refusal:
            against = refusal.reason
        members: list[Verdict] = []
        if repo.is_virtual and self.permission == READ:
            every = [self._step(repo, need) for need in behind(repo, package)]
            against = "" if any(member.allowed for member in every) else f"no member of {repo.key} lets them read there"
            members = [member for member in every if self.asker.manages(repo.key) or self.asker.sees(member.repository)]
        return self.answer(package, steps, against, of_path=of_path, members=tuple(members))

    def verdict(self, permission: str, key: str, package: str | None) -> Verdict:
        return explain.explain(self.who.actor, self.who.rights, permission, key, package, told=self.asker.told(key))

    def answer(self, package: str, steps: list[Verdict], against: str = "", **more: Any) -> Explained:
        missing = next((step.missing for step in steps if not step.allowed), "")
        why = self.who.barred or missing or against
        return Explained(
            self.who.actor, self.permission, self.key, self.path, package, not why, why or "allowed", steps=tuple(steps), **more
        )

    def _named(self, permission: str) -> Verdict:
        """Of managing, by a grant on the repository as a whole or a global one; as `Rights.manages` decides."""
        if permission != MANAGE:
            return self.verdict(permission, self.key, self.path or None)
        everywhere = self.verdict(MANAGE, "", None)
        if everywhere.allowed:
            return everywhere
        return explain.explain(self.who.actor, self.who.rights.without_paths(), MANAGE, self.key, told=self.asker.told(self.key))

    def _step(self, repo: Repo, need: Need) -> Verdict:
        """A repository behind one that they see, which they may not see itself, is not told by its name."""
        found = self.verdict(need.permission, need.repo.key, need.package)
        if self.asker.manages(repo.key) or self.asker.sees(need.repo.key):
            return found
        behind = f"what takes the uploads of {repo.key}"
        return replace(found, repository=behind, missing=found.missing.replace(f" on {need.repo.key}", f" on {behind}"))


def _needs(repo: Repo, permission: str, package: str, *, whole: bool) -> Iterator[Need]:
    """What it takes besides reading. `whole`: of no path, so whether there is any where it holds."""
    actions = {READ: (), OVERWRITE: ("write", "overwrite")}.get(permission, (permission.removeprefix("artifact:"),))
    for action in actions:
        need = to_do(repo, action, package)
        yield Need(need.permission, need.repo, None) if whole else need


def package_of(repo: Repo, path: str) -> tuple[str, bool]:
    """The package of an artefact's path, or what is a package's name already; and whether it was a path."""
    package = repo.format.package(path) if path else ""
    if package:
        return package, package != path
    if any(route.pattern.fullmatch(path) for route in repo.format.routes()):
        return "", bool(path)
    return path, False


# As a document


def document(found: Explained) -> dict[str, Any]:
    return {
        "user": found.actor.name,
        "token": found.actor.token_id,
        "action": found.action,
        "repository": found.repository,
        "path": found.path,
        "package": found.package,
        "path_is": "" if not found.path else "artefact" if found.of_path else "package",
        "allowed": found.allowed,
        "why": found.why,
        "steps": [_verdict(step) for step in found.steps],
        "members": [_verdict(member) for member in found.members],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "permission": verdict.permission,
        "repository": verdict.repository,
        "allowed": verdict.allowed,
        "missing": verdict.missing,
        "grants": [_reason(reason) for reason in verdict.grants],
        "near": [_reason(reason) for reason in verdict.near],
        "scopes": None if verdict.scopes is None else list(verdict.scopes),
    }


def _reason(reason: Reason) -> dict[str, Any]:
    return {
        "text": str(reason),
        "role": reason.role,
        "to": reason.kind,
        "name": reason.name,
        "repositories": reason.repository,
        "paths": reason.path,
        "through": [{"external": one.external, "source": one.source} for one in reason.through],
    }
