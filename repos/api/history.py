"""A repository's assets and changes, as far as the caller may read them.

Assets are listed in the order of their paths, as they stand or as they stood after a change; changes in that of their numbers. A
reader that lists the assets once, and from then on the changes after the `head` that came with them, misses nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import chain, groupby, islice
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery
from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request

from problems import Malformed, absent
from repos import paths
from repos.api.permissions import EachItem, exercised, hidden
from repos.api.resource import LARGEST_PAGE, Page, Query, Resource, cursor, moment
from repos.api.sections import SHELVES
from repos.api.shapes import WHEREABOUTS, AssetShape, ChangeShape, page_of
from repos.caller import READ
from repos.catalogue import Repo
from repos.configuration.fields import TextField
from repos.models import Asset, Change, Repository

LAST = "\U0010ffff"
"""Sorts behind whatever a name goes on with."""
LARGEST_NUMBER = 2**63 - 1
MOST_PATHS = 5000
MOST_CHANGES = 100
"""How many paths and changes a page looks at, however few of them the caller may read."""
SMALLEST_CHUNK = 100
"""Rows that are read at a time, however short the page."""


ASSETS = page_of(AssetShape, **WHEREABOUTS)


class AssetPage(Page):
    prefix = TextField(required=False, max_length=paths.LONGEST, help_text="only paths that begin so")
    package = TextField(required=False, max_length=paths.LONGEST, help_text="only this module, image, path")
    at = serializers.IntegerField(required=False, min_value=0, max_value=LARGEST_NUMBER,
                                  help_text="as it stood after the change of this number")  # fmt: skip


class ChangePage(Query):
    after = serializers.IntegerField(required=False, min_value=0, max_value=LARGEST_NUMBER,
                                     help_text="only changes with a higher number")  # fmt: skip
    before = serializers.IntegerField(required=False, min_value=0, max_value=LARGEST_NUMBER,
                                      help_text="only changes with a lower number")  # fmt: skip
    order = serializers.ChoiceField(choices=["number", "-number"], required=False, default="number",
                                    help_text="-number: the newest first")  # fmt: skip
    limit = serializers.IntegerField(required=False, default=100, min_value=1, max_value=LARGEST_PAGE)


class OfRepository(Resource):
    """What the addresses under a repository have in common."""

    permission_classes: Any = (EachItem,)

    def repository(self, key: str) -> Repo:
        """Raises what also answers for one that is not there."""
        found = next((repo for repo in self.caller.repositories.values() if repo.key == key), None)
        if found is None or not self.caller.rights.allows(READ, key):
            raise hidden(self.caller, key)
        exercised(self.caller, READ, key)
        return found

    def may_read(self, repo: Repo, package: str) -> bool:
        return self.caller.rights.allows(READ, repo.key, package or None)

    def manages(self, repo: Repo) -> bool:
        return SHELVES["repositories"].edits(self.caller, repo.key)

    def shown(self, repo: Repo, change: Change) -> dict[str, Any]:
        """A change: who made it is for who is signed in, what its detail tells of the configuration for who manages that."""
        actor = "" if self.caller.actor.anonymous else change.actor
        told = {"number": change.number, "at": moment(change.at), "actor": actor, "action": change.action}
        if change.action == Change.Action.CONFIGURE and self.manages(repo):
            told["detail"] = change.detail
        return told

    def row(self, repo: Repo) -> Repository:
        row = Repository.objects.filter(pk=repo.id).first()
        if row is None:
            raise hidden(self.caller, repo.key)
        return row


class Assets(OfRepository):
    """What stands in a repository; in a virtual one what its members have for the caller.

    To who may read some paths alone a page may be short, or empty, before the last.
    """

    queries = {"GET": AssetPage}
    gives = {"GET": {200: ASSETS}}
    open = True

    def get(self, request: Request, key: str) -> HttpResponse:
        repo = self.repository(key)
        after = self.after(str)
        row = self.row(repo)
        at = self._number(repo, row)
        with transaction.atomic():  # in which a cursor of PostgreSQL lives
            begin = after[0] if after else ""
            streams = [self._held(repo, member, at, begin) for member in repo.answering]
            here, last = self._chosen(repo, heapq.merge(*streams, key=_place))
        behind = None if last is None else {"cursor": cursor([last])}
        return self.listed([_asset(*found) for found in here], behind, **_whereabouts(row))

    def _number(self, repo: Repo, row: Repository) -> int | None:
        """The change as of which is asked; None: now."""
        at = self.asked.get("at")
        if at is None:
            return None
        if repo.is_virtual:
            names = ", ".join(member.key for member in repo.answering if self.caller.rights.allows(READ, member.key))
            raise Malformed(
                f"{repo.key} is virtual, and each member has numbers of its own; ask one of {names or 'them'}", rule="assets.at"
            )
        if not row.floor <= at <= row.head:
            raise Malformed(f"{repo.key} knows of its changes from {row.floor} to {row.head}", rule="assets.at")
        return at

    def _held(self, asked: Repo, repo: Repo, at: int | None, after: str) -> Iterator[tuple[Repo, Asset]]:
        """What one repository has behind a path, in the order of paths, read as far as it is wanted."""
        rows = standing(repo, at, after)
        if prefix := self.asked.get("prefix"):
            begin = repo.format.path_key(prefix)
            rows = rows.filter(path_key__gte=begin, path_key__lt=begin + LAST)
        if "package" in self.asked:
            rows = rows.filter(package=self.asked["package"])
        if asked.is_virtual and repo.is_remote:
            locals_ = [member.id for member in asked.answering if member.is_local]
            owners = Asset.objects.filter(repository_id__in=locals_, package=OuterRef("package"))
            rows = rows.filter(Q(package="") | ~Exists(owners))
        for asset in rows.iterator(chunk_size=max(self.asked["limit"], SMALLEST_CHUNK) + 1):
            yield repo, asset

    def _chosen(self, asked: Repo, found: Iterable[tuple[Repo, Asset]]) -> tuple[list[tuple[Repo, Asset]], str | None]:
        """What the page holds, and the path behind which there may be more for the caller; None: there is none."""
        here: list[tuple[Repo, Asset]] = []
        readable, last, places = self._reader(asked), "", groupby(found, key=_place)
        for place, same in islice(places, MOST_PATHS):
            if first := next(filter(readable, same), None):
                if len(here) == self.asked["limit"]:
                    return here, _place(here[-1])
                here.append(first)
            last = place
        return here, last if next(places, None) else None

    def _reader(self, asked: Repo) -> Callable[[tuple[Repo, Asset]], bool]:
        """Whether the caller may read what was found in a repository when they asked for another; each package is asked once."""
        known: dict[tuple[int, str], bool] = {}

        def readable(found: tuple[Repo, Asset]) -> bool:
            repo, asset = found
            place = (repo.id, asset.package)
            if place not in known:
                private = repo.is_remote and (asked.private.match(asset.package) or repo.private.match(asset.package))
                known[place] = not private and self.may_read(asked, asset.package) and self.may_read(repo, asset.package)
            return known[place]

        return readable


class PathHistory(OfRepository):
    """All that stood at one path, the newest first; what stands there now has no `until`."""

    queries = {"GET": Page}
    gives = {"GET": {200: ASSETS}}
    open = True

    def get(self, request: Request, key: str, path: str) -> HttpResponse:
        repo = self.repository(key)
        path = paths.check(path)
        if not self.may_read(repo, repo.format.package(path)):
            raise hidden(self.caller, path)
        if repo.is_virtual:
            raise Malformed(f"{repo.key} is virtual, and history is its members'; list its assets to see whose", rule="assets.at")
        after = self.after(int)
        row = self.row(repo)
        rows = Asset.objects.filter(repository_id=repo.id, path_key=repo.format.path_key(path))
        if after is not None:
            rows = rows.filter(since__lt=after[0])
        found = list(_dated(rows).order_by("-since")[: self.asked["limit"] + 1])
        if not found and after is None:
            raise absent(path)
        return self.page(found, lambda asset: _asset(repo, asset), lambda asset: [asset.since], **_whereabouts(row))


class Changes(OfRepository):
    """A repository's changes. Who may read some packages alone sees those that touched one of them.

    To them a page may be short, or empty, before the last.
    """

    queries = {"GET": ChangePage}
    gives = {"GET": {200: page_of(ChangeShape, **WHEREABOUTS)}}
    open = True

    def get(self, request: Request, key: str) -> HttpResponse:
        repo = self.repository(key)
        row = self.row(repo)
        after, before = self.asked.get("after", row.floor), self.asked.get("before")
        if after < row.floor:
            raise Malformed(
                f"{repo.key} has forgotten its changes up to {row.floor}; list the assets anew and go on from their head",
                rule="history.floor",
            )
        chosen = Change.objects.filter(repository_id=repo.id, number__gt=after)
        if before is not None:
            chosen = chosen.filter(number__lt=before)
        everything = self.caller.rights.allows_everywhere(READ, repo.key)
        limit = self.asked["limit"] if everything else min(self.asked["limit"], MOST_CHANGES)
        found = list(chosen.order_by(self.asked["order"])[: limit + 1])
        here = found[:limit]
        seen = here if everything else self._seen(repo, here)
        behind = None
        if len(found) > len(here):
            behind = {"after" if self.asked["order"] == "number" else "before": here[-1].number}
        return self.listed([self.shown(repo, change) for change in seen], behind, **_whereabouts(row))

    def _seen(self, repo: Repo, changes: list[Change]) -> list[Change]:
        """Those of the changes that touched what the caller may read."""
        numbers = [change.number for change in changes]
        touched = Asset.objects.filter(Q(since__in=numbers) | Q(until__in=numbers), repository_id=repo.id)
        readable = cache(partial(self.may_read, repo))
        seen = {
            number
            for package, *span in touched.values_list("package", "since", "until").iterator()
            if readable(package)
            for number in span
        }
        return [change for change in changes if change.number in seen]


class OneChange(OfRepository):
    """A change, with the assets that it opened (`since` is its number) and closed (`until` is)."""

    queries = {"GET": Page}
    gives = {"GET": {200: type("ChangeAssetPageShape", (ASSETS, ChangeShape), {})}}
    open = True

    def get(self, request: Request, key: str, number: int) -> HttpResponse:
        repo = self.repository(key)
        after = self.after(str, int)
        row = self.row(repo)
        change = Change.objects.filter(repository_id=repo.id, number=number).first() if number <= LARGEST_NUMBER else None
        if change is None:
            raise hidden(self.caller, f"{key} {number}")
        rows = Asset.objects.filter(Q(since=number) | Q(until=number), repository_id=repo.id)
        if after is not None:
            rows = rows.filter(Q(path_key__gt=after[0]) | Q(path_key=after[0], since__gt=after[1]))
        everything = self.caller.rights.allows_everywhere(READ, repo.key)
        with transaction.atomic():
            touched = (
                asset
                for asset in _dated(rows).order_by("path_key", "since").iterator(chunk_size=self.asked["limit"] + 1)
                if everything or self.may_read(repo, asset.package)
            )
            first = list(islice(touched, 1))
            if not first and not everything:
                raise hidden(self.caller, f"{key} {number}")
            return self.page(
                chain(first, touched),
                lambda asset: _asset(repo, asset),
                lambda asset: [asset.path_key, asset.since],
                **self.shown(repo, change),
                **_whereabouts(row),
            )


def standing(repo: Repo, at: int | None, after: str) -> QuerySet[Asset]:
    """What stands behind a path, or stood after the change `at`, in the order of paths, which an index has."""
    rows = Asset.objects.filter(repository_id=repo.id, path_key__gt=after)
    rows = rows.filter(until=None) if at is None else rows.filter(Q(until=None) | Q(until__gt=at), since__lte=at)
    return _dated(rows).order_by("path_key")


def _dated(rows: QuerySet[Asset]) -> QuerySet[Asset]:
    """With their bytes' digests, and when each came."""
    came = Change.objects.filter(repository_id=OuterRef("repository_id"), number=OuterRef("since")).values("at")[:1]
    return rows.select_related("blob").annotate(came=Subquery(came))


def _place(found: tuple[Repo, Asset]) -> str:
    return found[1].path_key


def _asset(repo: Repo, asset: Any) -> dict[str, Any]:
    return {
        "path": asset.path,
        "repository": repo.key,
        "package": asset.package,
        "version": asset.version,
        "media_type": asset.media_type,
        "size": asset.blob.size,
        "digests": {"sha256": asset.blob.sha256, **asset.blob.digests},
        "since": asset.since,
        "until": asset.until,
        "at": moment(asset.came),
    }


def _whereabouts(row: Repository) -> dict[str, Any]:
    """What a reader needs to go on from here: a number means something within an epoch, and above the floor."""
    return {"head": row.head, "floor": row.floor, "epoch": row.epoch}
