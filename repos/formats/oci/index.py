"""What is made from rows: lists of tags, of images and of referrers, and what nothing refers to any more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from heapq import merge
from itertools import accumulate, groupby, islice
from operator import itemgetter
from typing import Any
from urllib.parse import urlencode

from django.db import connection
from django.db.models import BigIntegerField, Exists, F, FilteredRelation, OuterRef, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast, Concat
from django.http import HttpRequest, HttpResponse

from accounts.globs import OPERATORS, expression
from problems import Forbidden, MethodRefused, NotFound, Unauthenticated, absent
from repos import caller, resolve, rows, serve
from repos.blobs.stores import store
from repos.call import Call
from repos.caller import READ, Caller
from repos.catalogue import Repo
from repos.format import Described
from repos.formats.oci import JSON, described, parse
from repos.formats.oci.remote import json_object
from repos.models import Asset, Blob, Change
from repos.publish import Bytes, New
from repos.rows import Found, Known

MOST_TAGS = 10_000
MOST_IMAGES = 1000
MOST_REFERRERS = 1000
"""Entries on one page, whatever the client asks for."""
PLACES = 100
"""Repositories of which one query lists images: each name that it passes costs a look at all of them."""
MANY = 1000
"""Paths that one query asks for."""
LARGEST_LIST = 4 * 1024 * 1024
"""Bytes of one page of referrers: clients take it for a manifest, and none larger."""


# Tags


def tags(call: Call, wanted: int | None, last: str) -> HttpResponse:
    """`tags/list`: those of all repositories that may answer, by the order of their bytes, `wanted` of them after `last`.

    As many queries whatever the image holds. Raises NotFound where nobody has the image, and a remote's failure.
    """
    image = _image(call)
    count = min(MOST_TAGS if wanted is None else wanted, MOST_TAGS)
    lists: list[list[str]] = []
    known = resolve.look(call)
    answering = resolve.answering(call, known)
    here = [repo for repo in answering if repo.is_local]
    if here and Asset.objects.filter(repository_id__in=[repo.id for repo in here], package=image, until=None).exists():
        lists.append(_local_tags(here, image, last, count + 1))
    documents, stale_since = _documents(call, known, [repo for repo in answering if repo.is_remote])
    lists += [sorted(tag for tag in _texts(document, "tags") if tag > last) for document in documents]
    if not lists:
        raise absent(call.path)
    found = list(islice((tag for tag, _ in groupby(merge(*lists))), count + 1))
    name = call.root.removeprefix("/v2/") + image
    content = json.dumps({"name": name, "tags": found[:count]}).encode()
    answer = serve.body(call, content, JSON, stale_since=stale_since)
    if count and len(found) > count:
        answer.headers["Link"] = _next(f"{call.root}{call.path}", n=count, last=found[count - 1])
    return answer


def _image(call: Call) -> str:
    return call.repo.format.package(call.path)


def _documents(call: Call, known: Known, remotes: Sequence[Repo]) -> tuple[list[dict[str, Any]], datetime | None]:
    """What the remotes have at the call's path, and since when the oldest is stale."""
    found: list[dict[str, Any]] = []
    stale_since = None
    refusal: Forbidden | None = None
    for repo in remotes:
        try:
            content, since = serve.part(call, repo, known)
        except NotFound:
            continue
        except Forbidden as error:
            refusal = refusal or error
            continue
        found.append(json_object(content))
        stale_since = min(filter(None, (stale_since, since)), default=None)
    if refusal and not found:
        raise refusal
    return found, stale_since


def _texts(document: dict[str, Any], key: str) -> list[str]:
    """A list of texts; null stands for an empty one with some registries."""
    values = document.get(key) or []
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


DIGESTS = ("sha256", "sha512")
"""What the references begin with that are no tags, followed by a colon, in the order of their bytes."""


def _local_tags(repos: Sequence[Repo], image: str, last: str, count: int) -> list[str]:
    """Tags of an image in their order, each once: the ranges of paths between those of digests, so that these are not read."""
    folder = f"{image}/manifests/"
    starts = [folder, *(f"{folder}{name};" for name in DIGESTS)]  # ; and 0 follow : and /
    ends = [*(f"{folder}{name}:" for name in DIGESTS), f"{image}/manifests0"]
    ranges = [(max(start, folder + last), end) for start, end in zip(starts, ends, strict=True)]
    one = (
        "SELECT * FROM (SELECT path_key FROM repos_asset WHERE repository_id = %s AND until IS NULL"
        " AND path_key > %s AND path_key < %s ORDER BY path_key LIMIT %s) part"
    )
    values = [value for repo in repos for start, end in ranges for value in (repo.id, start, end, count)]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join([one] * (len(repos) * len(ranges))), values)
        return sorted({path.removeprefix(folder) for (path,) in cursor.fetchall()})[:count]


# Images


def catalogue(request: HttpRequest, wanted: int | None, last: str) -> HttpResponse:
    """`_catalog`: the images that the caller may read, by the names that they are pulled by, `wanted` of them after `last`.

    As many queries whatever the repositories hold, and however little of it the caller may read: one for all repositories,
    where there are no more than PLACES.
    """
    if "Authorization" not in request.headers:
        raise Unauthenticated("sign in to list images", rule="credentials")
    who = caller.recognise(request)
    count = min(MOST_IMAGES if wanted is None else wanted, MOST_IMAGES)
    found = _names(who, _places(who, request), last, count + 1)
    answer = HttpResponse(json.dumps({"repositories": found[:count]}).encode(), content_type=JSON)
    answer.headers["Cache-Control"] = "private, no-store"
    if count and len(found) > count:
        answer.headers["Link"] = _next("/v2/_catalog", n=count, last=found[count - 1])
    return answer


def _places(who: Caller, request: HttpRequest) -> dict[str, Repo]:
    """The repositories that the caller may know of, by what the names of their images begin with."""
    by_host = who.catalogue.behind(request.META.get("HTTP_HOST", ""), "oci")
    keys = {f"{key}/": repo for (form, key), repo in who.repositories.items() if form == "oci"}
    places = keys if by_host is None else {"": by_host}
    return {prefix: repo for prefix, repo in places.items() if who.rights.allows(READ, repo.key)}


def _names(who: Caller, places: Mapping[str, Repo], last: str, count: int) -> list[str]:
    """Names after `last` in the order of their bytes, which is that of the keys with their slash, and then of the images."""
    left = [prefix for prefix in sorted(places) if prefix > last or last.startswith(prefix)]
    found: list[str] = []
    while left and len(found) < count:
        some, left = left[:PLACES], left[PLACES:]
        found += _standing(who, [(prefix, places[prefix]) for prefix in some], last, count - len(found))
    return found


def _standing(who: Caller, places: Sequence[tuple[str, Repo]], last: str, count: int) -> list[str]:
    """Names after `last` of what stands in these places for the caller to read: by a place's key, and by that of who has it."""
    members = [
        (place, repo.id, _within(prefix, last), _readable(who, whole, repo))
        for place, (prefix, whole) in enumerate(places)
        for repo in whole.answering
        if who.rights.allows(READ, repo.key)
    ]
    if not members:  # those of a virtual repository may all be hidden
        return []
    statement = IMAGES.format(members=", ".join(["(%s, %s, %s, %s)"] * len(members)), finds=OPERATORS[connection.vendor])
    with connection.cursor() as cursor:
        cursor.execute(statement, [*(value for member in members for value in member), len(places), count])
        found = cursor.fetchall()
    keys = {repo.id: repo.key for _, whole in places for repo in whole.answering}
    return [
        f"{places[place][0]}{image}"
        for place, image, holder in found
        if all(who.rights.allows(READ, key, image) for key in (places[place][1].key, keys[holder]))  # should they disagree
    ]


def _within(prefix: str, last: str) -> str:
    """After which image those begin of a place whose names are not all before `last`."""
    return last.removeprefix(prefix) if last.startswith(prefix) else ""


def _readable(who: Caller, place: Repo, holder: Repo) -> str:
    """What the database finds in the names of the images that the caller may read by both keys."""
    both = who.rights.paths(READ, place.key) + who.rights.paths(READ, holder.key)
    return expression(dict.fromkeys(both), connection.vendor)


IMAGES = """
WITH RECURSIVE member(place, repository, start, readable) AS (VALUES {members}),
image(place, name) AS (
    SELECT -1, (SELECT min(package) FROM repos_asset WHERE 1 = 0)
    UNION ALL
    SELECT place + CASE WHEN name IS NULL THEN 1 ELSE 0 END, (
        SELECT min((SELECT min(package) FROM repos_asset
                     WHERE repository_id = member.repository AND until IS NULL AND version <> ''
                       AND package > COALESCE(image.name, member.start)))
          FROM member WHERE member.place = image.place + CASE WHEN image.name IS NULL THEN 1 ELSE 0 END
    ) FROM image WHERE place < %s
)
SELECT place, name, holder FROM (
    SELECT place, name, (
        SELECT min(member.repository) FROM member
         WHERE member.place = image.place
           AND CASE WHEN member.place = image.place THEN image.name {finds} member.readable END
           AND EXISTS (SELECT 1 FROM repos_asset WHERE repository_id = member.repository AND until IS NULL AND version <> ''
                          AND package = image.name)
    ) AS holder FROM image WHERE name IS NOT NULL
) told WHERE holder IS NOT NULL LIMIT %s
"""
"""From one name to the next by the index, so that it costs nothing how much an image holds, and after a place's last name (which
null follows) to the next place's first; in this order, and only as far as it takes to find enough that may be read.

The case is for PostgreSQL, which keeps few expressions: it is not to try those of other places. An upstream's lists have no
version: that somebody asked who refers to an image does not make it one that is here.
"""


def _next(path: str, **values: Any) -> str:
    """A link to the next page (RFC 8288)."""
    return f'<{path}?{urlencode(values)}>; rel="next"'


# Referrers


def referrers(call: Call, artifact_type: str, last: str) -> HttpResponse:
    """`referrers/<digest>`: an index of the manifests whose subject it is, in all repositories that may answer; never absent."""
    known = resolve.look(call)
    answering = resolve.answering(call, known)
    here = [repo for repo in answering if repo.is_local]
    found = {one["digest"]: one for one in (_local_referrers(here, call.path, artifact_type, last) if here else ())}
    documents, stale_since = _documents(call, known, [repo for repo in answering if repo.is_remote])
    for document in documents:
        found = {one["digest"]: one for one in _descriptors(document)} | found
    matching = [one for digest, one in sorted(found.items()) if digest > last and artifact_type in ("", one.get("artifactType"))]
    page = matching[: _how_many(matching)]
    content = json.dumps({"schemaVersion": 2, "mediaType": parse.OCI_INDEX, "manifests": page}).encode()
    answer = serve.body(call, content, parse.OCI_INDEX, stale_since=stale_since)
    asked = {"artifactType": artifact_type} if artifact_type else {}
    if asked:
        answer.headers["OCI-Filters-Applied"] = "artifactType"
    if len(matching) > len(page):
        answer.headers["Link"] = _next(f"{call.root}{call.path}", **asked, last=page[-1]["digest"])
    return answer


def _local_referrers(repos: Sequence[Repo], path: str, artifact_type: str, last: str) -> Iterator[dict[str, Any]]:
    """Enough of those after `last` for a page and to tell that there are more; what stands in several of `repos` is told once."""
    image, _, subject = path.rpartition("/referrers/")
    here = _naming(subject, ["subject"], *(repo.id for repo in repos)).filter(package=image, until=None, version__gt=last)
    described = Q(blob__descriptions__format="oci", blob__descriptions__path_class="manifest")
    here = here.annotate(said=FilteredRelation("blob__descriptions", condition=described))  # of some there is nothing to say
    if artifact_type:
        here = here.filter(said__data__artifactType=artifact_type)
    columns = here.order_by("version").values_list("version", "media_type", "blob__size", "said__data")
    told = size = 0
    for digest, same in groupby(columns.iterator(chunk_size=100), key=itemgetter(0)):
        _, media_type, length, facts = next(same)
        more = {name: facts[name] for name in ("artifactType", "annotations") if name in (facts or {})}
        one = {"mediaType": media_type, "digest": digest, "size": length, **more}
        yield one
        told, size = told + 1, size + len(json.dumps(one))
        if told > MOST_REFERRERS or size > LARGEST_LIST:
            return


def _how_many(found: Sequence[dict[str, Any]]) -> int:
    """How many of the first make a page; one at least."""
    sizes = accumulate(len(json.dumps(one)) for one in found[:MOST_REFERRERS])
    return max(1, sum(size <= LARGEST_LIST for size in sizes))


def _descriptors(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those of an upstream's index that are descriptors."""
    manifests = document.get("manifests") or []
    for one in manifests if isinstance(manifests, list) else []:
        if isinstance(one, dict) and isinstance(one.get("digest"), str):
            yield one


# Blobs and what refers to them


def blob_elsewhere(call: Call, digest: str, source: tuple[Repo, str] | None) -> Found | None:
    """A blob that stands, for the caller to read, in the image `source`; without one in any of the same repository's."""
    if source is not None:
        repo, image = source
        path = f"{image}/blobs/{digest}"
        query = replace(call, repo=repo, path=path)
        known = resolve.look(query)
        return next((known.assets[one.id] for one in resolve.answering(query, known) if one.id in known.assets), None)
    algorithm, _, digits = digest.partition(":")
    if algorithm != "sha256":
        return None
    bytes_ = {"blob__sha256": digits, "blob__state": Blob.State.LIVE}
    here = _by_blobs(call.repo.id).filter(**bytes_, until=None, path__contains="/blobs/")
    for path, image in here.values_list("path", "package")[:50]:
        if call.may(READ, call.repo, image):
            return rows.look([call.repo], path).assets.get(call.repo.id)
    return None


def from_members(call: Call, wanted: Mapping[str, int]) -> list[New]:
    """Of the paths that a manifest needs those that only other members of the virtual repository have, as news of this one.

    Its client was told that they are here. With a manifest comes what that needs in turn.
    """
    others = [repo.id for repo in replace(call, repo=call.through).readable if repo.id != call.repo.id]
    news: list[New] = []
    left, seen = list(wanted), set(wanted)
    while left and others:
        needed: set[str] = set()
        here = {asset.path for asset in _standing_at([call.repo.id], left)}
        for asset in _standing_at(others, [path for path in left if path not in here]):
            told, needs = _told(asset)
            news.append(New(asset.path, Bytes(None, asset.blob.sha256, asset.blob.size, asset.blob.digests), told))
            needed |= set(needs)
        left = sorted(needed - seen)
        seen |= needed
    return news


def _standing_at(repos: Sequence[int], paths: Sequence[str]) -> list[Asset]:
    """What stands at these paths, of each the first repository's."""
    found: dict[str, Asset] = {}
    for start in range(0, len(paths), MANY):
        part = Asset.objects.filter(repository_id__in=repos, path_key__in=paths[start : start + MANY], until=None)
        for asset in sorted(part.select_related("blob"), key=lambda asset: repos.index(asset.repository_id)):
            found.setdefault(asset.path, asset)
    return list(found.values())


def _told(asset: Asset) -> tuple[Described, Mapping[str, int]]:
    """What is told of a blob or a manifest that stands elsewhere, and the paths that it needs."""
    parts = parse.split(asset.path)
    if parts is None or parts.kind != "manifests":
        return Described(asset.package, asset.version, asset.media_type), {}
    with store().open(asset.blob.key) as file:
        manifest = parse.parse_manifest(file.read(parse.LARGEST_MANIFEST), asset.media_type)
    return described(parts, manifest), manifest.needed(parts.image)


def to_delete(assets: QuerySet[Asset], path: str, parts: parse.Path) -> QuerySet[Asset]:
    """Of a repository's open assets a blob or a tag; or a manifest by its digest, with every tag of the image that leads to it.

    Raises MethodRefused where a manifest that stands needs it.
    """
    named = assets.filter(path_key=path)
    found = named.first() if parts.by_digest else None
    if found is None:
        return named
    repository = found.repository_id
    for holder in _naming(parts.reference, HOLDING, repository).filter(package=parts.image, until=None)[:1]:
        raise MethodRefused(f"{holder.version} needs {parts.reference}; delete that first", rule="reference.held")
    if parts.kind == "blobs":
        return named
    leading = _by_blobs(repository).filter(blob_id=found.blob_id, package=parts.image, until=None)
    return named.union(leading.exclude(version__contains=":"))


HOLDING = tuple(parse.FOLDERS)


def unheld(assets: QuerySet[Asset], before: datetime) -> QuerySet[Asset]:
    """Blobs to which no manifest of their image refers, and manifests that came with an index which is gone.

    Not what came, was asked for, or lost what held it since `before`. A manifest that no index ever held stands by itself.
    """
    came = Change.objects.filter(repository_id=OuterRef("repository_id"), number=OuterRef("since"), at__lt=before)
    old = assets.filter(Exists(came)).exclude(usage__last_used__gte=before)
    tag = (
        _by_blobs(OuterRef("repository_id"))
        .filter(blob_id=OuterRef("blob_id"), package=OuterRef("package"), until=None)
        .exclude(version__contains=":")
    )
    blobs = Q(path=_joined("/blobs/")) & ~Exists(_referring(before))
    children = (
        Q(path=_joined("/manifests/"), version__contains=":")
        & ~Exists(_referring(before)) & Exists(_referring(None)) & ~Exists(tag)
    )  # fmt: skip
    return old.filter(blobs | children)


def _joined(folder: str) -> Concat:
    """The path of an asset that is known by its digest."""
    return Concat(F("package"), Value(folder), F("version"), output_field=TextField())


def _referring(before: datetime | None) -> QuerySet[Asset]:
    """The manifests of the same image that refer to an asset; those that stand or did since a moment, None: or ever did."""
    here = _naming(OuterRef("version"), HOLDING, OuterRef("repository_id")).filter(package=OuterRef("package"))
    if before is None:
        return here
    closed = Change.objects.filter(repository_id=OuterRef("repository_id"), number=OuterRef("until"), at__gte=before)
    return here.filter(Q(until=None) | Exists(closed))


def _naming(digest: str | OuterRef, kinds: Sequence[str], *repositories: int | OuterRef) -> QuerySet[Asset]:
    """Manifests by their own digests, each that stands or did, in whose content a digest is named so."""
    return _by_blobs(*repositories).filter(
        path=_joined("/manifests/"), version__contains=":",
        blob__references__digest=digest, blob__references__kind__in=kinds,
    )  # fmt: skip


def _by_blobs(*repositories: int | OuterRef) -> QuerySet[Asset]:
    """Assets of these repositories, to be found by their blobs, of which few have the same.

    SQLite has no statistics, and would rather read all of an image by an index that begins with its repository: from those
    the cast keeps it. PostgreSQL sees through it, and chooses for itself.
    """
    return Asset.objects.alias(repo=Cast("repository_id", BigIntegerField())).filter(repo__in=repositories)
