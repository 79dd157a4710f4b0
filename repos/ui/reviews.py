"""Permission reviews: the list of them, and one, item by item, with what to decide."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.models import Review, ReviewItem
from problems import NotFound, Problem
from repos import reviews
from repos.ui.door import caller_of, page, refused, show, to

SHOWN = 100
"""Reviews, and items of one, on a page."""
PEOPLE = 10


@page("GET", "POST")
def overview(request: HttpRequest) -> HttpResponseBase:
    """The newest reviews that one may see; and have new ones made."""
    if request.method == "POST":
        try:
            reviews.asked_by(caller_of(request), None)
        except Problem as problem:
            return refused(request, problem, "reviews.html", _all(request))
        return to("reviews")
    return show(request, "reviews.html", _all(request))


def _all(request: HttpRequest) -> dict[str, Any]:
    found = reviews.seen_by(caller_of(request))[:SHOWN]
    return {"reviews": [{"review": review, "overdue": reviews.overdue(review)} for review in found]}


@page("GET")
def review(request: HttpRequest, number: int) -> HttpResponseBase:
    """One review, a page of its items."""
    return show(request, "review.html", _one(request, _found(request, number)))


@page("POST")
def decide(request: HttpRequest, number: int, item: int) -> HttpResponseBase:
    """Approve or revoke an item, and see the page on which it stands again."""
    found = _found(request, number)
    try:
        comment = request.POST.get("comment", "").strip()
        reviews.decide(caller_of(request), found, min(item, 2**31 - 1), request.POST.get("decision", ""), comment)
    except Problem as problem:
        return refused(request, problem, "review.html", _one(request, found))
    response = to("review", number=number)
    response.headers["Location"] = f"{reverse('ui:review', kwargs={'number': number})}?after={_after(request)}#item-{item}"
    return response


def _found(request: HttpRequest, number: int) -> Review:
    found = reviews.seen_by(caller_of(request)).filter(pk=number).first() if number < 2**63 else None
    if found is None:
        raise NotFound(_("there is no such review, or not for you to see"))
    return found


def _one(request: HttpRequest, found: Review) -> dict[str, Any]:
    after, undecided = _after(request), request.GET.get("undecided") == "1"
    rows = ReviewItem.objects.filter(review=found, number__gt=after).order_by("number")
    items = list((rows.filter(decision="") if undecided else rows)[: SHOWN + 1])
    now = reviews.Now(items)
    return {
        "review": found,
        "overdue": reviews.overdue(found),
        "items": [_item(found, item, now) for item in items[:SHOWN]],
        "after": after,
        "next": items[SHOWN - 1].number if len(items) > SHOWN else None,
        "undecided_only": undecided,
    }


def _item(found: Review, item: ReviewItem, now: reviews.Now) -> dict[str, Any]:
    people = reviews.people(found, item) if item.kind == ReviewItem.Kind.GRANT else []
    state = now.state(item)
    return {
        "item": item,
        "title": reviews.title(item),
        "people": people[:PEOPLE],
        "more": max(0, len(people) - PEOPLE),
        "state": state,
        "open": item.decision != ReviewItem.Decision.REVOKE,
        "approvable": state == "there" and not item.decision,
    }


def _after(request: HttpRequest) -> int:
    """The number of the item behind which a page begins."""
    text = request.POST.get("after", request.GET.get("after", "0"))
    return min(int(text), 2**31 - 1) if text.isascii() and text.isdecimal() else 0
