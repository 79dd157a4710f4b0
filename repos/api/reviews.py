"""Permission reviews: an owner's own, and to who manages users all."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request

from accounts.models import Review, ReviewItem
from repos import reviews
from repos.api.permissions import SignedIn, exercised, hidden
from repos.api.resource import Page, Resource, moment
from repos.api.shapes import FullReviewItemShape, MadeReviewsShape, ReviewItemShape, ReviewShape, page_of
from repos.configuration.fields import Item, TextField

SHOWN = 20
"""People of a group that a list tells; one item by itself tells all."""


class ReviewPage(Page):
    owner = TextField(required=False, allow_blank=True, max_length=150, help_text="only this owner's; empty: the installation's")
    undecided = serializers.ChoiceField(choices=["true", "false"], required=False, help_text="only those with, or without")


class ItemPage(Page):
    undecided = serializers.ChoiceField(choices=["true", "false"], required=False)
    kind = serializers.ChoiceField(choices=ReviewItem.Kind.values, required=False)
    unused = serializers.ChoiceField(choices=["true"], required=False, help_text="only what is unused")


class NewReview(Item):
    owner = TextField(required=False, allow_blank=True, max_length=150, help_text="without it all that you may ask for")


class Decision(Item):
    decision = serializers.ChoiceField(choices=ReviewItem.Decision.values)
    comment = TextField(required=False, allow_blank=True, max_length=reviews.COMMENT, help_text="why")


class OfReviews(Resource):
    permission_classes: Any = (SignedIn,)

    def found(self, number: int) -> Review:
        review = reviews.seen_by(self.caller).filter(pk=number).first() if number < 2**63 else None
        if review is None:
            raise hidden(self.caller, str(number))
        self.note()
        return review

    def note(self) -> None:
        if self.caller.rights.allows_globally(reviews.MANAGE):
            exercised(self.caller, reviews.MANAGE)


class Reviews(OfReviews):
    queries = {"GET": ReviewPage}
    takes = {"POST": NewReview}
    gives = {"GET": {200: page_of(ReviewShape)}, "POST": {201: MadeReviewsShape}}
    examples = {"POST": {"owner": "maintainers"}}

    def get(self, request: Request) -> HttpResponse:
        """The newest first."""
        after = self.after(int)
        found = reviews.seen_by(self.caller)
        if "owner" in self.asked:
            found = found.filter(owner=self.asked["owner"])
        if "undecided" in self.asked:
            found = found.filter(**({"undecided__gt": 0} if self.asked["undecided"] == "true" else {"undecided": 0}))
        if after is not None:
            found = found.filter(pk__lt=after[0])
        self.note()
        return self.page(found[: self.asked["limit"] + 1], review_document, lambda review: [review.pk])

    def post(self, request: Request) -> HttpResponse:
        """Have reports made now, a new one for each owner."""
        asked = self.checked(NewReview, self.body())
        self.note()
        made = {review.pk for review in reviews.asked_by(self.caller, asked.get("owner"))}
        items = [review_document(review) for review in reviews.seen_by(self.caller).filter(pk__in=made)]
        return self.answer({"items": items}, 201)


class OneReview(OfReviews):
    queries = {"GET": ItemPage}
    gives = {"GET": {200: page_of(ReviewItemShape, review=ReviewShape())}}

    def get(self, request: Request, number: int) -> HttpResponse:
        """Who had what: its items, in order, each with what was decided."""
        review = self.found(number)
        after = self.after(int)
        found = chosen(ReviewItem.objects.filter(review_id=number, number__gt=after[0] if after else 0), self.asked)
        items = list(found.order_by("number")[: self.asked["limit"] + 1])
        now = reviews.Now(items)
        return self.page(
            items, lambda item: item_document(review, item, now), lambda item: [item.number], review=review_document(review)
        )


def chosen(items: Any, asked: dict[str, Any]) -> Any:
    if asked.get("undecided") == "true":
        items = items.filter(decision="")
    elif asked.get("undecided") == "false":
        items = items.exclude(decision="")
    if "kind" in asked:
        items = items.filter(kind=asked["kind"])
    return items.filter(unused=True) if "unused" in asked else items


class OneItem(OfReviews):
    """An item with all the people whom it lets do something."""

    gives = {"GET": {200: FullReviewItemShape}}

    def get(self, request: Request, number: int, item: int) -> HttpResponse:
        review = self.found(number)
        found = ReviewItem.objects.filter(review=review, number=item).first() if item < 2**31 else None
        if found is None:
            raise hidden(self.caller, str(item))
        return self.answer(full_document(review, found))


class Decide(OfReviews):
    """Approve it, or revoke it: the grant or the token goes at once, the account becomes inactive."""

    takes = {"PUT": Decision}
    gives = {"PUT": {200: FullReviewItemShape}}
    examples = {"PUT": {"decision": "approve", "comment": "still in the team"}}

    def put(self, request: Request, number: int, item: int) -> HttpResponse:
        review = self.found(number)
        asked = self.checked(Decision, self.body())
        if item >= 2**31:
            raise hidden(self.caller, str(item))
        found = reviews.decide(self.caller, review, item, asked["decision"], asked.get("comment", ""))
        return self.answer(full_document(review, found))


def review_document(review: Review) -> dict[str, Any]:
    return {
        "id": review.pk,
        "owner": review.owner,
        "made_at": moment(review.made_at),
        "made_by": review.made_by,
        "unused": review.unused,
        "stale": review.stale,
        "count": review.count,  # type: ignore[attr-defined]
        "undecided": review.undecided,  # type: ignore[attr-defined]
        "overdue": reviews.overdue(review),
    }


def item_document(review: Review, item: ReviewItem, now: reviews.Now) -> dict[str, Any]:
    people = reviews.people(review, item)
    return {
        "number": item.number,
        "kind": item.kind,
        "text": reviews.title(item),
        "about": item.about,
        "people": people[:SHOWN],
        "people_count": len(people),
        "last_used_at": moment(item.last_used_at),
        "why": item.why,
        "state": now.state(item),
        "decision": item.decision,
        "decided_by": item.decided_by,
        "decided_at": moment(item.decided_at),
        "comment": item.comment,
    }


def full_document(review: Review, item: ReviewItem) -> dict[str, Any]:
    return {**item_document(review, item, reviews.Now([item])), "people": reviews.people(review, item)}
