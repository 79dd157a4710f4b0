"""Who may what, and why: the questions of `repos.explain` as a form."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext_lazy as _

from accounts.permissions import GLOBAL_PERMISSIONS
from problems import Problem
from repos import explain
from repos.caller import open_on_loopback
from repos.ui.door import caller_of, page, refused, show

ACTIONS = {
    "read": _("read"), "write": _("write"), "overwrite": _("overwrite"), "delete": _("delete"),
    "manage": _("manage the repository"),
}  # fmt: skip
WORDS = ("user", "action", "repository", "path", "token", "scope")


@page("GET")
def ask(request: HttpRequest) -> HttpResponseBase:
    """A form and, once it was sent, the answer."""
    caller = caller_of(request)
    said = {word: request.GET.get(word, "").strip() for word in WORDS}
    told = {"said": said, "actions": ACTIONS, "globals": sorted(GLOBAL_PERMISSIONS)}
    if not said["action"]:
        return show(request, "explain.html", told)
    try:
        found = explain.asked(caller, open_on_loopback(request, caller.repositories), **said)
    except Problem as problem:
        return refused(request, problem, "explain.html", told)
    return show(request, "explain.html", {**told, "found": found})
