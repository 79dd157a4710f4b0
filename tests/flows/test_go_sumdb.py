"""Several checksum databases: relayed by different upstreams, or asked directly."""

from __future__ import annotations

import pytest

from tests.parts.server import ADMIN_PASSWORD
from tests.parts.upstream import Upstream

ADMIN = ("admin", ADMIN_PASSWORD)
TREE = b"go.sum database tree\n%d\nhash\n"


def record(module: str) -> bytes:
    return f"1\n{module} v1.0.0 h1:aaaa=\n{module} v1.0.0/go.mod h1:bbbb=\n".encode()


def is_database(upstream: Upstream, prefix: str, number: int, *modules: str) -> None:
    upstream.routes[f"{prefix}/latest"] = TREE % number
    upstream.routes[f"{prefix}/tile/8/0/000.p/{number}"] = b"\0" * 32 * number
    for module in modules:
        upstream.routes[f"{prefix}/lookup/{module}@v1.0.0"] = record(module)


@pytest.fixture(scope="module")
def first(upstream) -> Upstream:
    """A proxy that relays one database."""
    one = upstream()
    one.routes["/sumdb/sum.first.example/supported"] = b""
    is_database(one, "/sumdb/sum.first.example", 1, "one.example/m")
    return one


@pytest.fixture(scope="module")
def second(upstream) -> Upstream:
    """A proxy that relays another, and knows nothing of the first."""
    one = upstream()
    one.routes["/sumdb/sum.second.example/supported"] = b""
    is_database(one, "/sumdb/sum.second.example", 2, "two.example/m")
    return one


@pytest.fixture(scope="module")
def direct(upstream) -> Upstream:
    """A database itself, and another that has a longer name."""
    one = upstream()
    is_database(one, "", 3, "corp.example/m", "public.example/m")
    is_database(one, "/team", 4, "public.example/m")
    return one


@pytest.fixture(scope="module")
def world(server, first, second, direct):
    here = server()
    at_once = {"lifetime": "0s", "missing": "0s"}
    here.apply(
        {
            "repositories": [
                {"key": "corp", "format": "go", "kind": "local"},
                {"key": "sums", "format": "go", "kind": "remote", "cache": at_once,
                 "upstreams": [
                     {"url": first.url}, {"url": second.url},
                     {"url": direct.url, "folder": "sumdb/sum.corp.example", "match": ["corp.example/**", "public.example/**"]},
                     {"url": f"{direct.url}/team", "folder": "sumdb/sum.corp.example/team"},
                 ]},
                {"key": "open", "format": "go", "kind": "remote", "cache": at_once,
                 "upstreams": [{"url": first.url},
                               {"url": second.url, "match": ["corp.example/**"]}]},
                {"key": "all", "format": "go", "kind": "virtual", "members": ["corp", "sums"]},
            ]
        }
    )  # fmt: skip
    return here


@pytest.fixture
def sumdb(world):
    return lambda path, repository="sums": world.request("GET", f"/go/{repository}/sumdb/{path}", user=ADMIN)


@pytest.mark.parametrize("repository", ["sums", "all"])
def test_each_database_is_relayed_by_the_upstream_that_has_it(sumdb, repository):
    for name, number, module in (("sum.first.example", 1, "one.example/m"), ("sum.second.example", 2, "two.example/m")):
        assert sumdb(f"{name}/supported", repository).status == 200
        assert sumdb(f"{name}/latest", repository).body == TREE % number
        assert sumdb(f"{name}/lookup/{module}@v1.0.0", repository).body == record(module)
        assert sumdb(f"{name}/tile/8/0/000.p/{number}", repository).status == 200
    assert sumdb("sum.third.example/supported", repository).status == 404


@pytest.mark.parametrize("repository", ["sums", "all"])
def test_a_database_that_is_configured_is_asked_directly(sumdb, first, second, direct, repository):
    name = "sum.corp.example"
    assert sumdb(f"{name}/supported", repository).status == 200
    assert sumdb(f"{name}/latest", repository).body == TREE % 3
    assert sumdb(f"{name}/lookup/corp.example/m@v1.0.0", repository).body == record("corp.example/m")
    assert sumdb(f"{name}/tile/8/0/000.p/3", repository).status == 200
    assert sumdb(f"{name}/lookup/corp.example/none@v1.0.0", repository).status == 404
    assert not [path for path, _ in first.seen + second.seen if name in path]


def test_the_longest_configured_name_wins(sumdb):
    assert sumdb("sum.corp.example/team/supported").status == 200
    assert sumdb("sum.corp.example/team/latest").body == TREE % 4
    assert sumdb("sum.corp.example/latest").body == TREE % 3


def test_names_that_one_database_is_for_are_looked_up_in_no_other(sumdb, first, second):
    assert sumdb("sum.first.example/lookup/corp.example/m@v1.0.0").status == 404
    assert sumdb("sum.first.example/lookup/corp.example/m@v1.0.0", "open").status == 404
    assert not [path for path, _ in first.seen if "corp.example" in path]


def test_a_database_that_fails_is_not_taken_for_one_that_is_not_there(sumdb, first):
    with first.down():
        assert sumdb("sum.first.example/lookup/one.example/new@v1.0.0").status == 502
        assert sumdb("sum.second.example/supported").status == 200
