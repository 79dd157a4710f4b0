"""apply, diff and export: the same for every section."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from accounts import audit, epoch
from problems import Conflict, Malformed
from repos.configuration import documents
from repos.configuration.accounts import Grants, Groups, Roles, Users, somebody_manages_users
from repos.configuration.directories import Directories
from repos.configuration.fields import unknown
from repos.configuration.providers import Providers
from repos.configuration.repositories import Repositories
from repos.configuration.section import Document, Section, secrets_in, shown
from repos.configuration.singles import Audit, Egress, History, Hosts, Reviews
from repos.configuration.trusts import Trusts

SECTIONS: tuple[Section, ...] = (
    Roles(), Directories(), Providers(), Groups(), Users(), Repositories(), History(), Audit(), Egress(), Hosts(), Reviews(),
    Grants(), Trusts(),
)  # fmt: skip
"""In the order in which they are written, so that what is named is there already. They are removed from the other way round."""


@dataclass(frozen=True)
class Step:
    """One item to be made (no `before`), changed, or removed (no `after`)."""

    section: Section
    identity: str
    before: Document | None
    after: Document | None
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        sign = "+" if self.before is None else "-" if self.after is None else "~"
        return f"{sign} {self.section.name} {self.identity}" + (f": {'; '.join(self._changes())}" if self.keys else "")

    def _changes(self) -> Iterator[str]:
        for key in self.keys:
            before, after = (_json(item.get(key)) for item in (self.before or {}, self.after or {}))
            yield f"{key} {before} -> {after}" if before != after else f"{key} has another value"

    def line(self) -> audit.Line:
        """What the audit keeps of it: what was and what is, of what differs; secrets by their names alone."""
        verb = "create" if self.before is None else "remove" if self.after is None else "change"
        before, after = (self.section.told(item) if item else {} for item in (self.before, self.after))
        if verb == "change":
            before, after = ({key: item[key] for key in self.keys if key in item} for item in (before, after))
        told = {"before": before, "after": after, "secrets": secrets_in(self.after or {})}
        repository = self.identity if self.section.name == Repositories.name else ""
        return audit.line(
            f"configuration.{verb}", repository=repository, subject=f"{self.section.name} {self.identity}",
            detail={word: value for word, value in told.items() if value},
        )  # fmt: skip


Guard = Callable[[list[Step]], None]
"""Looks at the steps before the first is taken, while nobody else can write; what it raises undoes all."""


def load(files: Iterable[str]) -> dict[str, Any]:
    """One document from files, see `documents.load`."""
    return documents.load(files)


def apply(
    document: dict[str, Any],
    *,
    prune: bool = False,
    actor: str = "apply",
    variables: Mapping[str, str] = os.environ,
    guard: Guard | None = None,
) -> list[str]:
    """Make it so, wholly or not at all. Returns a line for each thing that was changed; none the second time.

    With `prune` what the document's sections do not name is removed. `variables` are those by which the document may name
    secrets. Raises Malformed or Conflict with what stands against it.
    """
    steps = _carry_out(
        lambda secrets: _plan(document, prune=prune, secrets=secrets, variables=variables), actor=actor, guard=guard
    )
    return [str(step) for step in steps]


def remove(section: Section, identity: str, *, actor: str = "apply", guard: Guard | None = None) -> list[str]:
    """Remove one item; where there is none, nothing. Raises as `apply` does."""

    def plan(secrets: bool) -> list[Step]:
        before = section.stored(identity).get(identity)
        return [] if before is None else [Step(section, identity, before, None)]

    return [str(step) for step in _carry_out(plan, actor=actor, guard=guard)]


def diff(
    document: dict[str, Any],
    *,
    prune: bool = False,
    variables: Mapping[str, str] = os.environ,
    guard: Guard | None = None,
) -> list[str]:
    """What `apply` would change, a line each; values of secrets aside."""
    steps = _plan(document, prune=prune, secrets=False, variables=variables)
    if guard:
        guard(steps)
    return [str(step) for step in steps]


def _carry_out(plan: Callable[[bool], list[Step]], *, actor: str, guard: Guard | None) -> list[Step]:
    """Take the steps of a plan, which is made when nobody else can write, and again to see that nothing is left to do."""
    with transaction.atomic():
        epoch.lock()
        managed = somebody_manages_users()
        steps = plan(True)
        if guard:
            guard(steps)
        for section in SECTIONS:
            section.lock([step.identity for step in steps if step.section is section])
        for step in steps:
            if step.after is not None:
                step.section.write(step.after, step.before, actor)
            elif step.before is not None:
                step.section.remove(step.before)
        audit.write([step.line() for step in steps])
        if steps:
            epoch.bump()
            _check_whole(steps, managed=managed)
            _check_done(plan(False))
    return steps


def export() -> dict[str, Any]:
    """The document that `apply` takes, of all that is stored. Secrets are the names of environment variables."""
    sections = {section.name: section.export() for section in SECTIONS}
    order = (
        "repositories", "history", "audit", "egress", "hosts", "reviews", "directories", "providers", "roles", "groups", "users",
        "grants", "trusts",
    )  # fmt: skip
    return {"version": documents.VERSION, **{name: sections[name] for name in order if sections[name]}}


def _plan(document: dict[str, Any], *, prune: bool, secrets: bool, variables: Mapping[str, str]) -> list[Step]:
    given = {name: value for name, value in document.items() if name != "version"}
    _check_names(given)
    written: list[Step] = []
    removed: list[Step] = []
    for section in SECTIONS:
        if section.name not in given:
            continue
        wanted, stored = section.check(given[section.name], variables), section.stored()
        written += [step for identity, item in wanted.items() if (step := _step(section, identity, item, stored, secrets))]
        if prune:
            gone = sorted(stored.keys() - wanted.keys() - section.built_in())
            removed = [Step(section, identity, stored[identity], None) for identity in gone] + removed
    return written + removed


def _step(section: Section, identity: str, item: Document, stored: dict[str, Document], secrets: bool) -> Step | None:
    before = stored.get(identity)
    if before is None:
        return Step(section, identity, None, item)
    keys = section.differs(before, item)
    if not keys and secrets and section.secret_differs(before, item):
        keys = ["a secret"]
    return Step(section, identity, before, item, tuple(keys)) if keys else None


def _check_names(given: dict[str, Any]) -> None:
    known = [section.name for section in SECTIONS]
    for name in given:
        if name not in known:
            told = unknown("section", str(name), known, others="this version takes")
            raise Malformed(f"{name}: {told}", rule="configuration.section")


def _check_whole(steps: list[Step], *, managed: bool) -> None:
    """Whether all that was written fits together, and somebody is left who can put things right, if somebody was before."""
    touched = {step.section.name for step in steps}
    for section in SECTIONS:
        if touched & {section.name, *section.rests_on}:
            section.check_whole()
    if managed and not somebody_manages_users():
        raise Conflict(
            "nobody who can sign in would be left with user:manage; first grant a role that has it, without repositories",
            rule="users.manager",
        )


def _check_done(left: list[Step]) -> None:
    """Prune may take what stays along: a removed group its grants."""
    if left:
        raise Conflict(
            f"{left[0].section.name} {left[0].identity}: the same files remove what it needs; name that in its section too",
            rule="configuration.prune",
        )


def _json(value: Any) -> str:
    return json.dumps(shown(value), ensure_ascii=False, default=str)
