"""The places that every page leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from repos.caller import Caller


def _signed_in(caller: Caller) -> bool:
    return not caller.actor.anonymous


@dataclass(frozen=True)
class Place:
    """A page of the navigation: the name of its address, its title, and for whom it is shown."""

    name: str
    title: Any
    to: Callable[[Caller], bool] = _signed_in


PLACES = (
    Place("account", _("My account")),
    Place("tokens", _("Tokens")),
    Place("sessions", _("Sessions")),
    Place("explain", _("Who may what")),
    Place("reviews", _("Reviews")),
)
"""In the order in which they are shown."""


def places(caller: Caller, path: str) -> list[dict[str, Any]]:
    """What is shown to the caller: title, address, and whether it is the page at `path`."""
    found = [(place, reverse(f"ui:{place.name}")) for place in PLACES if place.to(caller)]
    return [{"title": place.title, "url": url, "here": url == path} for place, url in found]
