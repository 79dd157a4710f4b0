"""Whether the server is alive, and whether its parts answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps

from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from repos.blobs.stores import store
from repos.caller import finish
from repos.serve import base_url

log = logging.getLogger("entrepot.health")
TEXT = "text/plain; charset=utf-8"


def read_only(view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponseBase]:
    """A view that answers GET and HEAD, and says so to who asks by another method."""

    @wraps(view)
    def answer(request: HttpRequest) -> HttpResponseBase:
        if request.method in ("GET", "HEAD"):
            return finish(request, view(request))
        refused = _text("this method is not for this address; GET and HEAD are", 405)
        refused.headers["Allow"] = "GET, HEAD"
        return finish(request, refused)

    return answer


@read_only
def alive(request: HttpRequest) -> HttpResponse:
    """The process answers; nothing is said of its parts."""
    return _text("ok")


@read_only
def ready(request: HttpRequest) -> HttpResponse:
    """The database and the store answer, else 503 with what does not; the cause is in the log and not for strangers."""
    failed = [name for name, probe in (("database", _probe_database), ("store", _probe_store)) if not _answers(name, probe)]
    return _text(f"not answering: {', '.join(failed)}", 503) if failed else _text("ok")


@read_only
def welcome(request: HttpRequest) -> HttpResponse:
    """Lead a browser to the pages for people; tell others in a line where they are."""
    if "text/html" in request.headers.get("Accept", ""):
        return HttpResponseRedirect(reverse("ui:home"), headers={"Cache-Control": "no-store", "Vary": "Accept"})
    return _text(f"Entrepot, an artifact registry. How to use a repository: GET {base_url(request)}/<format>/<repository>/")


def nothing(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Nothing is mounted there, or the request cannot be read."""
    return finish(request, _text("there is nothing at this address; a repository is at /<format>/<repository>/", 404))


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
