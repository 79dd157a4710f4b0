"""Assets and changes through the API: what stands, what stood, and what a reader needs to follow."""

from __future__ import annotations

import base64
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from django.db import OperationalError, ProgrammingError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts import tokens
from accounts.models import User
from repos import catalogue, publish
from repos.api import history
from repos.api.history import standing
from repos.configuration import engine
from repos.configuration.singles import History
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
    names = ["ä" * 512, "b", "a/z", "a/a", "A", "ä", "a.b", "a", "😀", "\uffff", "c" * 1000]
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


@pytest.mark.parametrize("name", ["日本", "a#b", "a?b=c", "100%", "%41", "a&b", "a b", "v@1+2"])
def test_a_history_goes_on_at_the_next_page_whatever_the_path(here, reader, name):
    for n in range(3):
        put(here, {f"a/{name}": b"x" * n})
    answer = reader.answer(f"/api/v1/repositories/local/assets/a/{quote(name)}?limit=2")
    following = answer.json()["next"]
    assert following.isascii() and answer.headers["Link"] == f'<{following}>; rel="next"'
    assert [item["size"] for item in answer.json()["items"] + reader.read(following)["items"]] == [2, 1, 0]


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


def test_a_page_looks_at_so_much_and_no_more_however_little_the_caller_may_read(here, reader, monkeypatch):
    monkeypatch.setattr(history, "MOST_PATHS", 10)
    monkeypatch.setattr(history, "MOST_CHANGES", 10)
    put(here, {f"hidden/{n:02}": b"x" for n in range(25)} | {"mine/a": b"x", "mine/b": b"x"})
    for n in range(25):
        put(here, {"hidden/00": f"{n}".encode()})
    put(here, {"mine/c": b"x"})
    part = Reader("part")
    page = part.read("local/assets/?limit=1")
    assert page["items"] == [] and "hidden" not in opened(page["next"]), "where it ended is not for them to know"
    assert part.paths("local/assets/?limit=1") == part.paths("local/assets/") == ["mine/a", "mine/b", "mine/c"]
    assert part.read("local/assets/?prefix=mine/&limit=3")["next"] is None
    page = part.read("local/changes/?after=2&limit=1000")
    assert page["items"] == [] and page["next"]
    for order in ("number", "-number"):
        assert {change["number"] for change in part.items(f"local/changes/?order={order}&limit=1000")} == {2, 28}
    assert len(reader.read("local/changes/?limit=20")["items"]) == 20


def opened(address: str) -> str:
    """What somebody could read in a page's cursor."""
    (text,) = parse_qs(urlsplit(address).query)["cursor"]
    return base64.urlsafe_b64decode(text + "==").decode(errors="replace")


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


@pytest.mark.parametrize("at", [None, 40])
def test_a_listing_reads_no_more_than_its_page(here, reader, at):
    """By the database's plan: an index gives the order, and nothing is sorted. Half of the rows are closed ones."""
    put(here, {"file": b"x"})
    blob = Asset.objects.get(repository_id=here.id).blob_id
    Asset.objects.bulk_create(
        Asset(
            repository_id=here.id, path=f"file-{n:05}", path_key=f"file-{n:05}", blob_id=blob, media_type="text/plain",
            since=n % 50 + 1, until=n % 50 + 2 if n % 2 else None,
        )
        for n in range(10_000)
    )  # fmt: skip
    sql, values = standing(here, at, "file-03000").query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        if connection.vendor == "postgresql":
            cursor.execute(f"EXPLAIN DECLARE rows CURSOR FOR {sql}", values)
        else:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", values)
        plan = "\n".join(str(row) for row in cursor.fetchall())
    assert "Sort" not in plan, plan
    assert "TEMP B-TREE" not in plan, plan


def test_a_host_that_is_not_ours_is_told_as_a_problem(here):
    answer = Client().get("/api/v1/", headers={"host": "evil.example"})
    assert (answer.status_code, answer.json()["rule"]) == (400, "host")


@pytest.mark.parametrize(("error", "status"), [(OperationalError, 503), (ProgrammingError, 500)])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_what_the_database_says_is_for_the_log_alone(here, monkeypatch, caplog, method, error, status):
    def fail(*_):
        raise error('connection to server at "10.9.8.7" failed: FATAL: password authentication failed for user "entrepot"')

    engine.apply({"users": [{"name": "root"}], "grants": [{"role": "administrator", "users": ["root"]}]})
    root = Reader("root")
    monkeypatch.setattr(History, "stored", fail)
    headers = {"authorization": root.login, "host": "localhost"}
    answer = root.client.generic(method, "/api/v1/configuration/", b'{"history": {}}', "application/json", headers=headers)
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, "5" if status == 503 else None)
    assert b"10.9.8.7" not in answer.content and b"migrate" not in answer.content
    assert "10.9.8.7" in caplog.text
