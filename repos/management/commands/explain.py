from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from accounts import epoch, tokens
from accounts.explain import Verdict
from repos import catalogue, explain
from repos.caller import open_to
from repos.explain import Asker, Explained
from repos.management.told import told


class Command(BaseCommand):
    help = (
        "Tell whether somebody may do something, by which grants and scopes, or what is missing. Ends with 0 where they may and"
        " with 1 where they may not."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", metavar="USER", help="a user or robot; anonymous for everybody")
        parser.add_argument(
            "action", metavar="ACTION", help=f"{', '.join(explain.ACTIONS)}, or a permission, such as user:manage"
        )
        parser.add_argument("repository", metavar="REPOSITORY", nargs="?", default="", help="without it a global permission")
        parser.add_argument("path", metavar="PATH", nargs="?", default="", help="of an artefact, or a package; without it any")
        parser.add_argument("--token", metavar="ID", help="with this token of theirs")
        parser.add_argument("--scope", action="append", metavar="SCOPE", help="with a token of theirs that had these scopes")
        parser.add_argument("--format", choices=["text", "json"], default="text")

    def handle(self, *args: Any, **options: Any) -> str | None:
        with told(returncode=2):
            found = self._found(**{name: options[name] for name in ("user", "action", "repository", "path", "token", "scope")})
        if options["format"] == "json":
            self.stdout.write(json.dumps(explain.document(found), indent=2))
        else:
            self.stdout.write("\n".join(lines(found)))
        if not found.allowed:
            raise SystemExit(1)
        return None

    def _found(self, user: str, action: str, repository: str, path: str, token: str | None, scope: list[str] | None) -> Explained:
        now = epoch.current()
        there = catalogue.repositories(now)
        one = tokens.find(token) if token is not None else None
        who = explain.somebody(user, now, open_to("localhost", there), one, scope)
        return explain.ask(Asker(), who, action, repository, path, there.values())


def lines(found: Explained) -> list[str]:
    """An answer as text."""
    told = [("may" if found.allowed else "may not") + ("" if found.allowed else f": {found.why}")]
    if found.path:
        told.append(
            f"  {found.path} is " + (f"of the package {found.package}" if found.of_path else "taken for a package's name")
        )
    for step in found.steps:
        told += _step(step)
    if found.members:
        told.append("  its members, of which one is needed:")
        told += [f"  {line}" for member in found.members for line in _step(member)]
    return told


def _step(verdict: Verdict) -> list[str]:
    where = f" on {verdict.repository}" if verdict.repository else ""
    told = [f"  {verdict.permission}{where}: {'yes' if verdict.allowed else 'no'}"]
    told += [f"    by {reason}" for reason in verdict.grants]
    told += [f"    elsewhere: {reason}" for reason in verdict.near]
    if verdict.scopes is not None:
        told += [f"    the scope {scope} lets it pass" for scope in verdict.scopes] or ["    no scope of the token has it"]
    return told
