"""A virtual repository that is open to all serves nobody what they may not read of its members: endpoint x identity x member."""

from __future__ import annotations

import itertools
import json

import pytest

from repos.format import installed
from tests.contract.samples import SAMPLES, url
from tests.gomodules import make_zip
from tests.parts import cast, oci
from tests.parts.api import ADMIN
from tests.parts.cast import BLOB, BLOBS, CAST, FORMATS, LOCALS

PEOPLE = tuple(name for name in CAST if name != "expired")
READ_BY = {
    "shared": {"admin", "owner", "developer", "reader", "robot"},
    "hush": {"admin", "owner"},
    "open": set(PEOPLE) - {"robot"},
    "far": {"admin", "owner"},
}
"""Members by who may read them; the robot's token says nothing of `open-*` and `all-*`, so by it nothing is read there.

`far` is a remote; it is a member of a virtual repository of its own."""

ENDPOINTS = {
    "raw": ["only-{}/lib"],
    "go": [
        "only-{}.example/lib/@v/list", "only-{}.example/lib/@latest", "only-{}.example/lib/@v/v1.0.0.info",
        "only-{}.example/lib/@v/v1.0.0.mod", "only-{}.example/lib/@v/v1.0.0.zip",
        "sumdb/sum.example.org/lookup/only-{}.example/lib@v1.0.0",
    ],
    "oci": ["only-{}/manifests/v1", "only-{}/manifests/{digest}", "only-{}/blobs/{blob}", "only-{}/tags/list",
            "only-{}/referrers/{digest}"],
}  # fmt: skip
"""All that reads in a format, of a name that one member alone has."""
NOT_OF_A_NAME = {"go": ["", "sumdb/sum.example.org/supported"], "oci": ["", "corp/blobs/uploads/1"]}
NOT_HERE = ("sumdb/",)
"""What only an upstream has, and none has it here."""
OF_ANY_NAME = ("/referrers/",)
"""What is answered of any name, by an empty list where there is nothing."""
OF_EACH = ("Date", "Server", "X-Request-Id", "Content-Length")
"""Headers that say nothing of what was asked, or are of another length for another name."""


def published(form: str, member: str) -> tuple[str, bytes, dict[str, str]]:
    name = f"only-{member}"
    return {
        "raw": (f"{name}/lib", name.encode(), {}),
        "go": (
            f"{name}.example/lib/@v/v1.0.0.zip",
            make_zip(f"{name}.example/lib", "v1.0.0", {"lib.go": b"package lib // " + name.encode()}),
            {},
        ),
        "oci": (f"{name}/manifests/v1", oci.index(text=name), {"Content-Type": oci.INDEX}),
    }[form]


def blob(member: str) -> bytes:
    return BLOB + member.encode()


def asked(form: str, endpoint: str, member: str) -> str:
    digests = {"digest": oci.digest(oci.index(text=f"only-{member}")), "blob": oci.digest(blob(member))}
    return endpoint.format(member, **digests)


@pytest.fixture(scope="module")
def world(server, upstream):
    up = upstream()
    here = cast.build(server(), up)
    far = [
        item
        for form in FORMATS
        for item in (
            {"key": f"hush-far-{form}", "format": form, "kind": "remote", "upstreams": [{"url": up.url}]},
            {"key": f"far-{form}", "format": form, "kind": "virtual", "members": [f"open-{form}", f"hush-far-{form}"]},
        )
    ]
    here.server.apply(
        {"repositories": far, "grants": [{"role": "reader", "anonymous": True, "repositories": ["far-*"]}]},
    )
    for form, member in itertools.product(FORMATS, LOCALS):
        if form in BLOBS:
            content = blob(member)
            path = url(form, f"{member}-{form}", f"only-{member}/blobs/uploads/?digest={oci.digest(content)}")
            assert here.server.request("POST", path, content, user=ADMIN).status == 201
        path, content, headers = published(form, member)
        assert here.server.request("PUT", url(form, f"{member}-{form}", path), content, headers, ADMIN).status == 201
    for form in FORMATS:
        path, content, _ = published(form, "far")
        up.routes[SAMPLES[form].at_upstream(path)] = content
    return here


def through(form: str, member: str) -> str:
    return f"{'far' if member == 'far' else 'all'}-{form}"


def test_every_endpoint_that_reads_is_in_the_matrix():
    for form in installed().values():
        there = [asked(form.key, one, "shared") for one in ENDPOINTS[form.key]] + NOT_OF_A_NAME.get(form.key, [])
        for route in form.routes():
            assert route.method != "GET" or any(map(route.pattern.fullmatch, there)), route
        assert all(any(route.pattern.fullmatch(one) for route in form.routes()) for one in there)


MATRIX = [
    (form, endpoint, member)
    for form in FORMATS
    for endpoint in ENDPOINTS[form]
    for member in (*LOCALS, *(["far"] if endpoint == ENDPOINTS[form][0] and form != "go" else []))
]


@pytest.mark.parametrize(("form", "endpoint", "member"), MATRIX)
def test_a_public_virtual_serves_no_private_member(world, form, endpoint, member):
    """GET and HEAD, by every endpoint: what the member says to who may read it, and to others what is said of an absent name."""
    path, absent = (asked(form, endpoint, one) for one in (member, "void"))
    for who in sorted(PEOPLE, key=lambda name: name not in ("owner", "admin")):  # so that what is far is cached before others ask
        by_virtual = world.ask(who, "GET", url(form, through(form, member), path))
        head = world.ask(who, "HEAD", url(form, through(form, member), path))
        assert (head.status, head.body) == (by_virtual.status, b""), who
        assert head.headers.get("Content-Length") == by_virtual.headers.get("Content-Length"), who
        if who in READ_BY[member] and not path.startswith(NOT_HERE):
            assert by_virtual.status == (404 if who == "robot" else 200), who
            continue
        nothing = world.ask(who, "GET", url(form, through(form, member), absent))
        if not any(part in path for part in OF_ANY_NAME):
            assert nothing.status == 404, who
        assert told(by_virtual, path, member) == told(nothing, absent, "void"), who


def told(answer, path, member) -> tuple:
    def plain(text: str) -> str:
        return text.replace(path, "PATH").replace(f"only-{member}", "NAME")

    headers = {name: plain(value) for name, value in answer.headers.items() if name not in OF_EACH}
    return answer.status, plain(answer.reason), headers, plain(answer.body.decode())


@pytest.mark.parametrize("form", FORMATS)
def test_nobody_has_an_upstream_asked_for_what_a_private_member_has(world, form):
    """Else the name of what is private would be told to another server."""
    for member, who in itertools.product(("shared", "hush"), PEOPLE):
        path = published(form, member)[0]
        world.ask(who, "GET", url(form, through(form, member), path))
        assert world.upstream.asked(SAMPLES[form].at_upstream(path)) == 0


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize("query", ["", "?prefix=only-", "?limit=1", "?package={}"])
@pytest.mark.parametrize("form", FORMATS)
def test_the_assets_of_a_public_virtual_are_those_of_the_members_that_one_reads(world, form, query, who):
    packages = {member: installed()[form].package(published(form, member)[0]) for member in LOCALS}
    found: set[str] = set()
    for package in packages.values() if "{}" in query else [""]:
        path = f"/api/v1/repositories/all-{form}/assets/{query.format(package)}"
        while path:
            answer = world.ask(who, "GET", path)
            if who == "robot":
                assert answer.status == 404
                return
            assert answer.status == 200, answer
            page = json.loads(answer.body)
            found |= {item["repository"] for item in page["items"]}
            path = (page["next"] or "").removeprefix(world.server.url)
    assert found == {f"{member}-{form}" for member in LOCALS if who in READ_BY[member]}


@pytest.mark.parametrize("who", PEOPLE)
def test_the_catalogue_names_only_what_one_may_read(world, who):
    answer = world.ask(who, "GET", "/v2/_catalog")
    if answer.status == 401:
        assert who == "anonymous"
        return
    names = set(json.loads(answer.body)["repositories"])
    for member in LOCALS:
        for place in (f"{member}-oci", "all-oci"):
            may = who in READ_BY[member] and not (who == "robot" and place == "all-oci")
            assert (f"{place}/only-{member}" in names) is may, (place, member)
