"""`manage.py token create|list|revoke`."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

import problems
from accounts import permissions, tokens
from accounts.models import Token, User

SCOPES = f"""
A token may what its user may. Scopes narrow it, they never add anything:
  PERMISSION@REPOSITORY-GLOB             in these repositories
  PERMISSION@REPOSITORY-GLOB:PATH-GLOB   and only these packages: the module, the image, the chart, the raw path
  PERMISSION                             for the whole installation
In globs `*` stops at a slash, `**` does not, `?` is one character. Quote them for the shell.

Permissions with repositories: {", ".join(sorted(permissions.REPOSITORY_PERMISSIONS))}.
Permissions alone: {", ".join(sorted(permissions.GLOBAL_PERMISSIONS))}.

Examples:
  manage.py token create ci --name build --expires 90d --scope 'artifact:read@go*'
  manage.py token create ci --scope 'artifact:write@go-local:corp.example/a/**' --scope 'artifact:read@*'
"""


class Command(BaseCommand):
    help = "Create, list and revoke the tokens that users and robots sign in with."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="create|list|revoke")

        create = actions.add_parser(
            "create",
            help="make a token; its secret is the last line of the output",
            description="Make a token. The secret is shown once, alone on the last line of the output.",
            epilog=SCOPES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        create.add_argument("user", metavar="USER", help="who signs in with it")
        create.add_argument("--name", default="", help="what it is for, up to 100 characters")
        create.add_argument("--expires", metavar="LIFETIME", help="such as 90d (m, h, d, w); without it: never")
        create.add_argument(
            "--scope", action="append", metavar="SCOPE", help="narrow the token; may be given several times (see below)"
        )

        listing = actions.add_parser("list", help="show tokens", description="Show all tokens, or those of one user.")
        listing.add_argument("user", metavar="USER", nargs="?", help="only this user's")
        listing.add_argument("--expiring", action="store_true", help="only those that sign in and expire soon")

        revoke = actions.add_parser(
            "revoke",
            help="end a token at once",
            description="End a token at once and for good. Name it by its id or by its prefix, both as `token list` "
            "shows them, or by the secret itself.",
        )
        revoke.add_argument("token", metavar="ID|PREFIX", help="such as 7 or ent_Ab3dEf")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['action']}")(options)
        except problems.Problem as problem:
            raise CommandError(problem.detail) from problem

    def _create(self, options: dict[str, Any]) -> None:
        user = self._user(options["user"])
        expires_at = timezone.now() + tokens.lifetime(options["expires"]) if options["expires"] else None
        token, secret = tokens.create(user, options["name"], expires_at, options["scope"])
        self.stdout.write(f"Token {token.pk} of {user.get_username()}: {_scopes(token)}; {_expiry(token)}.")
        self.stdout.write("Send it as a Bearer token, or as the password of Basic with any user name.")
        self.stdout.write("It is shown this once:")
        self.stdout.write(secret)

    def _list(self, options: dict[str, Any]) -> None:
        found = Token.objects.select_related("user").order_by("user__username", "pk")
        if options["user"]:
            found = found.filter(user=self._user(options["user"]))
        if options["expiring"]:
            found = tokens.expiring(found)
        rows = [("ID", "PREFIX", "USER", "NAME", "STATE", "LAST USED", "MAY"), *map(_row, found)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def _revoke(self, options: dict[str, Any]) -> None:
        token = tokens.find(options["token"])
        tokens.revoke(token)
        self.stdout.write(f"Token {token.pk} ({token.prefix}) of {token.user.get_username()} is revoked.")

    def _user(self, name: str) -> User:
        user = User.objects.filter(username=name).first()
        if user is None:
            raise CommandError(f"There is no user {name}.")
        return user


def _row(token: Token) -> tuple[str, ...]:
    used = f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never"
    return (str(token.pk), token.prefix, token.user.get_username(), token.name, _state(token), used, _scopes(token))


def _state(token: Token) -> str:
    if token.revoked_at:
        return f"revoked {token.revoked_at:%Y-%m-%d}"
    if not token.user.is_active:
        return "its user is disabled"
    if token.expires_at and token.expires_at <= timezone.now():
        return "expired"
    return f"{_expiry(token)}, soon" if tokens.expires_soon(token) else _expiry(token)


def _expiry(token: Token) -> str:
    return f"expires {token.expires_at:%Y-%m-%d %H:%M} UTC" if token.expires_at else "never expires"


def _scopes(token: Token) -> str:
    return "all that its user may" if token.scopes is None else " ".join(token.scopes)
