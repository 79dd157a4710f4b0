"""What a start finds or makes: the administrator, and once for each format its local, proxy and virtual repositories."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from django.conf import settings
from django.db import transaction

from accounts import audit, grants
from accounts.models import User
from repos.configuration import engine
from repos.format import Format, installed
from repos.models import Installation, Repository

ADMINISTRATOR = "admin"


def administrator() -> str | None:
    """Make the administrator, or give them the password of ENTREPOT_ADMIN_PASSWORD. Returns a line to show, if there is one."""
    given = settings.ENTREPOT.admin_password
    user = User.objects.filter(username=ADMINISTRATOR).first()
    if user is not None:
        if given and not user.check_password(given):
            user.set_password(given)
            with transaction.atomic():
                user.save()
                audit.record("user.password", subject=ADMINISTRATOR)
            return f"the password of {ADMINISTRATOR} is now that of ENTREPOT_ADMIN_PASSWORD"
        return None
    password = given or secrets.token_urlsafe(18)
    with transaction.atomic():
        user = User(username=ADMINISTRATOR)
        user.set_password(password)
        user.save()
        for repository in ("", "*"):
            grants.add(("administrator", grants.Kind.USER, ADMINISTRATOR, repository, ""))
        audit.record("user.create", subject=ADMINISTRATOR, detail={"role": "administrator", "repositories": ["", "*"]})
        return None if given else _hand_over(password)


def _hand_over(password: str) -> str:
    """The line that tells the password made: on a terminal itself, else the file that holds it."""
    if sys.stdout.isatty():
        return f"administrator {ADMINISTRATOR}, password {password} (shown once; change it by ENTREPOT_ADMIN_PASSWORD)"
    file = Path(settings.ENTREPOT.data) / "admin-password"
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(password + "\n")
    return f"administrator {ADMINISTRATOR}, password in {file} (remove the file when you have read it)"


def repositories() -> list[str]:
    """Make the repositories of each format that has not been seen before. Returns lines to show.

    Only while the server is bound to loopback: they are readable by all.
    """
    if not settings.ENTREPOT.open_on_loopback:
        return []
    known = set(Installation.objects.values_list("format", flat=True))
    return [line for form in installed().values() if form.key not in known for line in _repositories_of(form)]


def _repositories_of(form: Format) -> list[str]:
    url = form.default_upstream()
    upstream = _upstream(url) if url else None
    documents = _documents(form, upstream)
    taken = set(Repository.objects.filter(key__in=[item["key"] for item in documents]).values_list("key", flat=True))
    with transaction.atomic():
        Installation.objects.create(format=form.key)
        if taken:
            return [f"{form.key}: {', '.join(sorted(taken))} stood already, so none was made"]
        engine.apply({"version": 1, "repositories": documents}, actor="entrepot")
        Repository.objects.filter(key__in=[item["key"] for item in documents]).update(seeded=True)
    lines = [f"{form.key}: made {', '.join(item['key'] for item in documents)}"]
    if upstream is None:
        lines.append(f"{form.key}: no client here names an upstream; `./dev manage apply` a remote repository to have one")
    return lines


def _upstream(url: str) -> dict:
    """An upstream at `url`, whose credentials may stand in it, as clients take them."""
    parts = urlsplit(url)
    plain = {"url": urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))}
    if not parts.username:
        return plain
    return {**plain, "username": unquote(parts.username), "password": unquote(parts.password or "")}


def _documents(form: Format, upstream: dict | None) -> list[dict]:
    local, proxy = f"{form.key}-local", f"{form.key}-proxy"
    remote = {"key": proxy, "format": form.key, "kind": "remote", "upstreams": [upstream]}
    return [
        {"key": local, "format": form.key, "kind": "local"},
        *([remote] if upstream else []),
        {
            "key": form.key,
            "format": form.key,
            "kind": "virtual",
            "members": [local, proxy] if upstream else [local],
            "deploy_to": local,
        },
    ]
