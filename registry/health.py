"""Whether the server is alive, and whether its parts answer."""

from __future__ import annotations

import logging

from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from repos.blobs.stores import store
from repos.serve import base_url

log = logging.getLogger("entrepot.health")
TEXT = "text/plain; charset=utf-8"


def alive(request: HttpRequest) -> HttpResponse:
    """The process answers; nothing is said of its parts."""
    return _text("ok")


def ready(request: HttpRequest) -> HttpResponse:
    """The database and the store answer, else 503 with what does not; the cause is in the log and not for strangers."""
    failed = [name for name, probe in (("database", _probe_database), ("store", _probe_store)) if not _answers(name, probe)]
    return _text(f"not answering: {', '.join(failed)}", 503) if failed else _text("ok")


def welcome(request: HttpRequest) -> HttpResponse:
    """Lead a browser to the pages for people; tell others in a line where they are."""
    if "text/html" in request.headers.get("Accept", ""):
        return HttpResponseRedirect(reverse("ui:home"), headers={"Cache-Control": "no-store", "Vary": "Accept"})
    return _text(f"Entrepot, an artifact registry. How to use a repository: GET {base_url(request)}/<format>/<repository>/")


def nothing(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Nothing is mounted there, or the request cannot be read."""
    return _text("there is nothing at this address; a repository is at /<format>/<repository>/", 404)


def broken(request: HttpRequest) -> HttpResponse:
    return _text("an error here, not in the request; the server's log tells more", 500)


def _answers(name: str, probe) -> bool:
    try:
        probe()
    except Exception:
        log.exception("the %s does not answer", name)
        return False
    return True


def _probe_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM accounts_epoch")
        if cursor.fetchone() is None:
            raise RuntimeError("the database is not migrated")


def _probe_store() -> None:
    with store().receive() as incoming:
        incoming.write(b"ready?")


def _text(line: str, status: int = 200) -> HttpResponse:
    return HttpResponse(f"{line}\n".encode(), status=status, content_type=TEXT, headers={"Cache-Control": "no-store"})
