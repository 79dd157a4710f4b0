from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db.models import Count, Q

from accounts.models import Review, ReviewItem
from problems import absent
from repos import reviews
from repos.management.told import told


class Command(BaseCommand):
    help = (
        "Have reports made of who has what, one for each owner of repositories and one of the installation, or show one. They are"
        " decided on in the pages or by the API."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--owner", metavar="NAME", help="only for this owner; an empty name: only the installation's")
        what.add_argument("--list", action="store_true", help="list the reports that there are, the newest first")
        what.add_argument("--show", type=int, metavar="NUMBER", help="show what one says")

    def handle(self, *args: Any, **options: Any) -> None:
        with told():
            if options["show"] is not None:
                self._show(options["show"])
            else:
                made = None if options["list"] else [review.pk for review in reviews.make(options["owner"])]
                self._list(made)

    def _list(self, only: list[int] | None) -> None:
        rows = Review.objects.defer("groups").order_by("-pk").annotate(
            count=Count("items"), undecided=Count("items", filter=Q(items__decision="")),
            idle=Count("items", filter=Q(items__unused=True)),
        )  # fmt: skip
        for review in rows if only is None else rows.filter(pk__in=only):
            late = ", overdue" if reviews.overdue(review) else ""
            self.stdout.write(
                f"review {review.pk} of {review.owner or 'the installation'} at {review.made_at:%Y-%m-%dT%H:%MZ}:"
                f" {review.count} items, {review.idle} unused, {review.undecided} undecided{late}"
            )

    def _show(self, number: int) -> None:
        review = Review.objects.filter(pk=number).first()
        if review is None:
            raise absent(str(number))
        for item in ReviewItem.objects.filter(review=review).order_by("number").iterator():
            used = f"last used {item.last_used_at:%Y-%m-%d}" if item.last_used_at else "never used"
            people = f", {len(reviews.people(review, item))} people" if item.about.get("kind") == "group" else ""
            why = f" [{', '.join(item.why)}]" if item.why else ""
            decided = f": {item.decision} by {item.decided_by}" if item.decision else ""
            self.stdout.write(f"{item.number}  {reviews.title(item)}{people}, {used}{why}{decided}")
