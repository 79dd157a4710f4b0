"""Assets and changes through the API: what stands, what stood, and what a reader needs to follow."""

from __future__ import annotations

import base64

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts import tokens
from accounts.models import User
from repos import catalogue, publish
from repos.configuration import engine
from repos.models import Asset, Repository
from tests.flows.test_commit import put

pytestmark = pytest.mark.django_db(transaction=True)


class Reader:
    """GETs as a user, with their token."""

    def __init__(self, name: str = "reader"):
        _, secret = tokens.create(User.objects.get(username=name))
        self.login = "Basic " + base64.b64encode(f"x:{secret}".encode()).decode()
        self.client = Client()

    def answer(self, path: str):
        return self.client.get(path.removeprefix("http://testserver"), headers={"authorization": self.login, "host": "localhost"})

    def read(self, path: str) -> dict:
        path = path.removeprefix("http://localhost").removeprefix("/api/v1/")
        answer = self.answer(f"/api/v1/repositories/{path}" if path[0] != "r" else f"/api/v1/{path}")
        assert answer.status_code == 200, answer.content
        return answer.json()

    def items(self, path: str) -> list[dict]:
        page = self.read(path)
        found = page["items"]
        while page["next"]:
            page = self.read(page["next"])
            found += page["items"]
        return found

    def paths(self, path: str) -> list[str]:
        return [item["path"] for item in self.items(path)]


@pytest.fixture
def here(repository):
    return repository("raw", "local")


@pytest.fixture
def reader(here) -> Reader:
    engine.apply(
        {
            "users": [{"name": "reader"}, {"name": "part"}],
            "grants": [
                {"role": "reader", "users": ["reader"], "repositories": ["*"]},
                {"role": "reader", "users": ["part"], "repositories": ["*"], "paths": ["mine/**"]},
            ],
        }
    )
    return Reader()


def test_what_stands_is_listed_in_the_order_of_bytes_whatever_the_page(here, reader):
    names = ["b", "a/z", "a/a", "A", "ä", "a.b", "a", "😀", "\uffff", "c" * 1000]
    put(here, {name: name.encode() for name in names})
    expected = sorted(names, key=lambda name: name.encode())
    for limit in (1, 3, 1000):
        assert reader.paths(f"local/assets/?limit={limit}") == expected
    assert reader.paths("local/assets/?prefix=a") == [name for name in expected if name.startswith("a")]
    assert reader.paths("local/assets/?prefix=a/") == ["a/a", "a/z"]
    assert reader.paths("local/assets/?package=a/z") == ["a/z"]


def test_every_past_moment_is_listed_as_it_was(here, reader):
    """Compared with what was published, at each number; and a reader that follows the changes sees the same."""
    expected = {1: {}}
    for n in range(1, 12):
        standing = dict(expected[max(expected)])
        if n % 4 == 0:
            number = publish.delete(here, [min(standing)], "tester")
            del standing[min(standing)]
        else:
            new = {f"file-{n % 3}": f"{n}".encode(), f"other-{n}": b"x"}
            number = put(here, new).number
            standing |= new
        expected[number] = standing
    for number, standing in expected.items():
        found = reader.items(f"local/assets/?at={number}&limit=2")
        assert {item["path"]: item["size"] for item in found} == {name: len(content) for name, content in standing.items()}
    followed: dict[str, str] = {}
    for change in reader.items("local/changes/?limit=3"):
        for item in reader.items(f"local/changes/{change['number']}/?limit=1"):
            if item["since"] == change["number"]:
                followed[item["path"]] = item["digests"]["sha256"]
            elif followed[item["path"]] == item["digests"]["sha256"]:
                del followed[item["path"]]
    assert followed == {item["path"]: item["digests"]["sha256"] for item in reader.items("local/assets/")}


def test_a_path_tells_its_history_the_newest_first(here, reader):
    for n in range(3):
        put(here, {"a/file": b"x" * n})
    publish.delete(here, ["a/file"], "tester")
    found = reader.items("local/assets/a/file?limit=1")
    assert [(item["size"], item["since"], item["until"]) for item in found] == [(2, 4, 5), (1, 3, 4), (0, 2, 3)]
    assert reader.answer("/api/v1/repositories/local/assets/a/none").status_code == 404
    assert reader.paths("local/assets/") == []


def test_changes_are_listed_both_ways_and_from_a_number_on(here, reader):
    for n in range(5):
        put(here, {f"file-{n}": b"x"})
    page = reader.read("local/changes/?after=2&limit=2")
    assert [change["number"] for change in page["items"]] == [3, 4]
    assert (page["head"], page["floor"], page["epoch"]) == (6, 0, Repository.objects.get(key="local").epoch)
    assert [change["number"] for change in reader.items("local/changes/?order=-number&limit=2")] == [6, 5, 4, 3, 2, 1]
    assert {change["actor"] for change in reader.items("local/changes/?after=1")} == {"tester"}
    assert all("detail" not in change for change in reader.items("local/changes/"))


def test_below_the_floor_a_reader_is_told_to_begin_anew(here, reader):
    put(here, {"file": b"x"})
    Repository.objects.filter(key="local").update(floor=1)
    answer = reader.answer("/api/v1/repositories/local/changes/?after=0")
    assert (answer.status_code, answer.json()["rule"]) == (400, "history.floor")
    assert [change["number"] for change in reader.items("local/changes/")] == [2]
    assert reader.answer("/api/v1/repositories/local/assets/?at=0").json()["rule"] == "assets.at"
    assert reader.answer("/api/v1/repositories/local/assets/?at=3").json()["rule"] == "assets.at"


def test_who_may_read_some_paths_sees_no_trace_of_others(here, reader):
    put(here, {"mine/a": b"1", "other/a": b"2"})
    put(here, {"other/b": b"3"})
    put(here, {"mine/b": b"4"})
    publish.delete(here, ["other/a"], "tester")
    part = Reader("part")
    assert part.paths("local/assets/?limit=1") == ["mine/a", "mine/b"]
    assert part.read("local/assets/?limit=2")["next"] is None
    assert [change["number"] for change in part.items("local/changes/?limit=1")] == [2, 4]
    assert part.paths("local/changes/2/") == ["mine/a"]
    assert part.answer("/api/v1/repositories/local/changes/3/").status_code == 404
    assert part.answer("/api/v1/repositories/local/assets/other/a").status_code == 404


def test_a_virtual_lists_what_it_serves(repository, reader, here):
    """Locals first, a name that a local owns from no remote, what is private from none, and each as its reader may."""
    far = repository("raw", "far", "remote", upstreams=[{"url": "http://127.0.0.1:9"}])
    second = repository("raw", "second")
    repository("raw", "all", "virtual", members=["far", "second", "local"], private=["private/**"])
    put(far, {"mine/a": b"from far", "mine/far": b"x", "private/x": b"x", "other/far": b"x"})
    put(second, {"mine/a": b"second's", "mine/second": b"x"})
    put(here, {"mine/a": b"from here", "other/here": b"x"})
    publish.delete(second, ["mine/second"], "tester")
    put(far, {"mine/second": b"a name that a local once held"})
    found = reader.items("all/assets/?limit=2")
    assert [(item["path"], item["repository"]) for item in found] == [
        ("mine/a", "second"), ("mine/far", "far"), ("other/far", "far"), ("other/here", "local")]  # fmt: skip
    assert Reader("part").paths("all/assets/") == ["mine/a", "mine/far"]
    answer = reader.answer("/api/v1/repositories/all/assets/?at=1")
    assert (answer.status_code, answer.json()["rule"]) == (400, "assets.at")
    assert "second, local, far" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["local/assets/?limit=1000", "local/changes/", "local/changes/2/", "all/assets/", "local/assets/file-1", ""]
)
@pytest.mark.parametrize("name", ["reader", "part"])
def test_a_page_takes_the_same_number_of_queries_whatever_it_holds(repository, here, reader, path, name):
    repository("raw", "all", "virtual", members=["local"])
    put(here, {"mine/1": b"x", "file-1": b"x"})
    one = Reader(name)

    def queries() -> int:
        address = f"/api/v1/repositories/{path}"
        one.answer(address)  # what is kept by epoch is loaded by the first
        with CaptureQueriesContext(connection) as captured:
            answer = one.answer(address)
        assert answer.status_code == (404 if (name, path) == ("part", "local/assets/file-1") else 200)
        return len(captured)

    few = queries()
    put(here, {f"mine/{n}": b"x" for n in range(300)} | {f"file-{n}": b"y" for n in range(300)})
    for n in range(20):
        put(here, {"mine/1": f"{n}".encode()})
        repository("raw", f"another-{n}")
    catalogue.forget()
    assert queries() == few <= 9


def test_a_listing_reads_no_more_than_its_page(here, reader):
    """By the plan of the database: the index gives the order, and nothing is sorted."""
    put(here, {f"file-{n:03}": b"x" for n in range(50)})
    open_ = Asset.objects.filter(repository_id=here.id, path_key__gt="file-010", until=None).order_by("path_key")[:10]
    as_of = Asset.objects.filter(repository_id=here.id, path_key__gt="file-010", since__lte=2).order_by("path_key")[:10]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        for rows in (open_, as_of):
            plan = rows.explain()
            assert "Sort" not in plan, plan
            assert "TEMP B-TREE" not in plan, plan
