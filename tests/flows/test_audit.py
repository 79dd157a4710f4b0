"""The audit: what was done and refused, by whom, from where, in which request; by real servers."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import psycopg
import pytest

from tests.flows.test_hot import AGAIN, Client
from tests.parts.api import ADMIN, PASSWORD, Api, rule
from tests.parts.images import image
from tests.parts.registryclient import RegistryClient
from tests.parts.server import Answer, Server

DEADLINE = 60.0
OUR_PROXY = "127.0.0.2"
REPOSITORIES = [
    {"key": "here", "format": "raw", "kind": "local", "immutable": ["fixed/**"]},
    {"key": "secret", "format": "raw", "kind": "local"},
    {"key": "images", "format": "oci", "kind": "local"},
    {"key": "logged", "format": "raw", "kind": "local", "log_downloads": True},
    {"key": "other", "format": "raw", "kind": "local"},
    {"key": "through", "format": "raw", "kind": "virtual", "members": ["logged", "other"]},
    {"key": "gate", "format": "raw", "kind": "virtual", "members": ["other"], "log_downloads": True},
]


@pytest.fixture(scope="module")
def world(server) -> Server:
    one = server(ENTREPOT_PROXIES=f"{OUR_PROXY}/32")
    one.apply(
        {
            "repositories": REPOSITORIES,
            "roles": [{"name": "auditor", "permissions": ["audit:read"]}],
            "users": [
                *({"name": name, "password": PASSWORD} for name in ("owner", "reader", "outsider", "auditor")),
                {"name": "robot", "robot": True},
            ],
            "grants": [
                {"role": "owner", "users": ["owner"], "repositories": ["here", "images"]},
                {"role": "reader", "users": ["reader", "robot"], "repositories": ["here", "logged", "other", "through", "gate"]},
                {"role": "auditor", "users": ["auditor"]},
            ],
        }
    )
    return one


def token_of(world: Server, name: str) -> tuple[int, str]:
    """A token of a user's own: its id and its secret."""
    answer = Api(world, (name, PASSWORD)).post("tokens/", {})
    assert answer.status == 201, answer
    made = json.loads(answer.body)
    return made["id"], made["secret"]


def lines(world: Server, **filters: str) -> list[dict]:
    """The newest first."""
    return Api(world).items(f"audit/?{urlencode({'limit': '1000', **filters})}")


def noticed(world: Server, count: int = 1, **filters: str) -> list[dict]:
    """Lines of what is written before long: so many at least, or that tell of so many."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        found = lines(world, **filters)
        if sum(line["count"] for line in found) >= count:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{filters}: {lines(world, **filters)}")


def ask_from(world: Server, source: str, method: str, path: str, **headers: str) -> Answer:
    """A request from another address of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=60, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, answer.reason, dict(answer.getheaders()), answer.read())


# What is recorded

GRANT = {"role": "reader", "users": ["outsider"], "repositories": ["other"]}
DONE: dict[str, tuple[str, str, object, dict]] = {
    "artifact.publish": ("PUT", "/raw/here/a/file", b"content", {"repository": "here", "subject": "a/file"}),
    "artifact.delete": ("DELETE", "/raw/here/a/file", None, {"repository": "here", "subject": "a/file"}),
    "configuration.create": ("PUT", "/api/v1/users/newcomer/", {}, {"subject": "users newcomer"}),
    "configuration.change": (
        "PUT", "/api/v1/users/newcomer/", {"email": "new@example.org"},
        {"subject": "users newcomer", "detail": {"after": {"email": "new@example.org"}}}),
    "configuration.remove": (
        "DELETE", "/api/v1/users/newcomer/", None,
        {"subject": "users newcomer", "detail": {"before": {"name": "newcomer", "email": "new@example.org"}}}),
    "job.ask": ("POST", "/api/v1/jobs/", {"kind": "audit"}, {"detail": {"kind": "audit"}}),
}  # fmt: skip


@pytest.mark.parametrize("action", DONE)
def test_what_is_done_is_told_with_who_did_it_by_which_token_from_where_in_which_request(world, action):
    method, path, body, told = DONE[action]
    number, secret = token_of_admin(world)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}", "X-Request-Id": "mine"}
    answer = world.request(method, path, body, headers)
    assert answer.status < 300, answer
    line = lines(world, action=action)[0]
    assert {name: line[name] for name in told} == told
    assert (line["actor"], line["token"], line["address"]) == ("admin", number, "127.0.0.1")
    assert line["request"] == answer.headers["X-Request-Id"] != "mine"
    assert (line["refused"], line["count"]) == (False, 1)


def token_of_admin(world: Server) -> tuple[int, str]:
    made = json.loads(Api(world).post("tokens/", {}).body)
    return made["id"], made["secret"]


def test_a_grant_is_told_in_the_words_of_the_configuration_and_by_its_name(world):
    Api(world).post("grants/", GRANT)
    line = lines(world, action="configuration.create", subject="grants ")[0]
    assert (line["subject"], line["detail"]) == ("grants reader to user outsider on other", {"after": GRANT})


def test_a_repository_that_changes_is_told_with_what_was_and_is(world):
    Api(world).put("repositories/other/", {"format": "raw", "kind": "local", "description": "one"})
    Api(world).put("repositories/other/", {"format": "raw", "kind": "local", "description": "two"})
    line = lines(world, repository="other", action="configuration.change")[0]
    assert line["detail"] == {"before": {"description": "one"}, "after": {"description": "two"}}


def test_what_changes_nothing_is_told_of_by_nobody(world):
    assert Api(world).put("roles/auditor/", {"permissions": ["audit:read"]}).status == 200
    before = lines(world)
    assert Api(world).put("roles/auditor/", {"permissions": ["audit:read"]}).status == 200
    assert [line for line in lines(world) if line not in before and line["action"] != "sign-in"] == []


def test_a_push_of_an_image_is_one_line_and_not_one_for_each_layer(world):
    one, client = image("audited", sizes=(100,) * 5), RegistryClient(world, "images").of("team/app").by("owner")
    client.push(one, "v1")
    found = lines(world, repository="images", action="artifact.publish")
    assert [line["subject"] for line in found] == ["team/app/manifests/v1"]
    assert found[0]["detail"]["also"] == [f"team/app/manifests/{one.digest}"]
    assert (found[0]["detail"]["sha256"], found[0]["actor"]) == (one.digest.removeprefix("sha256:"), "owner")


def test_what_replaces_something_says_so(world):
    for content in (b"one", b"two"):
        assert world.request("PUT", "/raw/here/replaced", content, user=("owner", PASSWORD)).status == 201
    first, second = lines(world, subject="replaced", action="artifact.publish")[::-1]
    assert "replaces" not in first["detail"]
    assert second["detail"]["replaces"] == ["replaced"]


def test_commands_and_the_first_start_are_told_with_who_runs_them(world):
    first = lines(world, action="user.create", subject="admin")[0]
    assert (first["request"], first["address"]) == ("serve", "")
    assert first["actor"].startswith("command:")
    made = lines(world, action="configuration.create", subject="repositories here")[0]
    assert (made["actor"], made["request"], made["address"]) == (first["actor"], "apply", "")


def test_what_a_job_does_is_told_with_who_asked_for_it_and_its_number(world):
    insert_old(world, 10)
    world.apply({"audit": {"keep": "1d"}})
    number = json.loads(Api(world).post("jobs/", {"kind": "audit"}).body)["id"]
    line = noticed(world, action="audit.trim")[0]
    world.apply({"audit": {}})
    assert (line["actor"], line["request"], line["address"]) == ("admin", f"job {number}", "")


def test_a_job_that_is_cancelled_and_retried_is_told_of(world):
    api = Api(world)
    number = json.loads(api.post("jobs/", {"kind": "expire"}).body)["id"]
    wait_for(lambda: api.read(f"jobs/{number}/")["ended_at"])
    assert api.post(f"jobs/{number}/retry/").status == 202
    assert lines(world, action="job.retry")[0]["subject"] == f"job {number}"


def wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Refusals

REFUSED = {
    "a write without the right": ("reader", "PUT", "/raw/here/x", "artifact.write", "artifact:write", "here", "x", 403),
    "a deletion": ("reader", "DELETE", "/raw/here/x", "artifact.delete", "artifact:delete", "here", "x", 403),
    "reading what is hidden": ("outsider", "GET", "/raw/secret/y", "artifact.read", "artifact:read", "secret", "y", 404),
    "what never changes": ("owner", "PUT", "/raw/here/fixed/z", "artifact.write", "immutable", "here", "fixed/z", 409),
    "the configuration": ("owner", "PUT", "/api/v1/history/", "api", "system:manage", "", "/api/v1/history/", 403),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_told_with_the_rule_and_who_it_was(world, what):
    name, method, path, action, rule, repository, subject, status = REFUSED[what]
    if rule == "immutable":
        assert world.request("PUT", path, b"first", user=("owner", PASSWORD)).status == 201
    number, secret = token_of(world, name)
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    answer = world.request(method, path, b"{}" if method == "PUT" else None, headers)
    assert answer.status == status
    line = next(one for one in noticed(world, action=action, refused="true", subject=subject) if one["token"] == number)
    assert (line["actor"], line["address"], line["repository"], line["subject"]) == (name, "127.0.0.1", repository, subject)
    assert line["detail"] == {"rule": rule, "method": method}
    assert line["request"] == answer.headers["X-Request-Id"]


def test_a_push_that_no_pass_would_allow_is_told_of(world):
    asked = urlencode({"scope": "repository:images/team/app:pull,push"})
    answer = world.request("GET", f"/v2/token?{asked}", user=("outsider", PASSWORD))
    client = RegistryClient(world, "images/team/app").showing(json.loads(answer.body)["token"])
    assert client.begin().status == 401
    line = noticed(world, action="artifact.write", refused="true", repository="images")[0]
    assert (line["actor"], line["detail"]["rule"]) == ("outsider", "artifact:read")


def test_signing_in_and_failing_to_is_told_of(world):
    assert world.request("GET", "/raw/here/", user=("reader", PASSWORD)).status in (200, 404)
    assert noticed(world, action="sign-in", refused="false", actor="reader")[0]["detail"] == {"by": "password"}
    answer = world.request("GET", "/raw/here/x", user=("reader", "wrong"))
    assert answer.status == 401
    line = noticed(world, action="sign-in", refused="true", subject="reader")[0]
    assert (line["actor"], line["address"], line["detail"]) == ("", "127.0.0.1", {"by": "password"})
    assert line["request"] == answer.headers["X-Request-Id"]


def test_who_has_not_said_yet_who_they_are_is_refused_without_a_line(world):
    """Clients ask so first, to learn how to sign in. A refusal that comes after it is there, so it would be too."""
    assert world.request("GET", "/raw/secret/unknown").status == 401
    assert world.request("PUT", "/raw/here/unknown", b"x").status == 401
    world.request("GET", "/raw/secret/after", user=("outsider", PASSWORD))
    noticed(world, subject="after")
    assert lines(world, subject="unknown") == []


def test_what_is_not_there_is_no_refusal(world):
    assert world.request("GET", "/raw/here/nothing", user=("reader", PASSWORD)).status == 404
    assert world.request("GET", "/raw/secret/behind", user=("outsider", PASSWORD)).status == 404
    noticed(world, subject="behind")
    assert lines(world, subject="nothing") == []


# Where requests come from


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        ("127.0.0.1", {"X_Forwarded_For": "192.0.2.7"}, "127.0.0.1"),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.7", "X_Real_IP": "192.0.2.7"}, "127.0.0.1"),
        (OUR_PROXY, {"X_Forwarded_For": "198.51.100.1, 192.0.2.7"}, "192.0.2.7"),
        (OUR_PROXY, {"Forwarded": "for=192.0.2.7"}, OUR_PROXY),
    ],
)
def test_an_address_is_the_peers_or_what_a_proxy_of_ours_says_whatever_a_client_sends(world, peer, headers, address):
    path = f"/raw/here/from-{random.randbytes(6).hex()}"
    assert ask_from(world, peer, "PUT", path, **headers, **Server.authorization(("reader", PASSWORD))).status == 403
    assert noticed(world, subject=path.rpartition("/")[2])[0]["address"] == address


def test_a_header_that_names_a_user_is_inert(world):
    inert = {"Remote_User": "admin", "X_Remote_User": "admin", "X_Forwarded_User": "admin"}
    for peer in ("127.0.0.1", OUR_PROXY):
        assert ask_from(world, peer, "GET", "/api/v1/me/", **inert).status == 401


# Downloads


def test_downloads_are_logged_where_a_repository_asks_for_it_and_nowhere_else(world):
    for key in ("logged", "other"):
        assert world.request("PUT", f"/raw/{key}/{key}-file", b"0123456789", user=ADMIN).status == 201
    reader = ("reader", PASSWORD)
    for path, headers in (
        ("logged/logged-file", {}), ("logged/logged-file", {"Range": "bytes=5-"}), ("through/logged-file", {}),
        ("gate/other-file", {}), ("through/other-file", {}), ("other/other-file", {}),
    ):  # fmt: skip
        assert world.request("GET", f"/raw/{path}", headers=headers, user=reader).status in (200, 206)
        assert world.request("HEAD", f"/raw/{path}", user=reader).status == 200
    found = noticed(world, 4, action="artifact.download")
    told = {(line["repository"], line["subject"], line["detail"].get("member", "")) for line in found}
    expected = {("logged", "logged-file", ""), ("through", "logged-file", "logged"), ("gate", "other-file", "other")}
    assert told == expected
    assert sum(line["count"] for line in found) == 4, "a part is a download too, and HEAD is none"
    assert {line["actor"] for line in found} == {"reader"}
    assert all(line["detail"]["digest"].startswith("sha256:84d89877") for line in found)


def test_answers_that_could_be_given_again_do_not_escape_the_log_of_downloads(world):
    for key in ("logged", "other"):
        assert world.request("PUT", f"/raw/{key}/hot", b"hot", user=ADMIN).status == 201
    secret = world.manage("token", "create", "robot").stdout.split()[-1]
    Client(world, secret).until_again("/raw/other/hot")
    answers = [Client(world, secret).ask(path) for path in ("/raw/logged/hot", "/raw/through/hot", "/raw/gate/hot") * 5]
    assert {answer.status for answer in answers} == {200}
    assert AGAIN not in {answer.headers["Server"] for answer in answers}
    assert sum(line["count"] for line in lines_when_counted(world, 15, subject="hot", action="artifact.download")) == 15


def lines_when_counted(world: Server, count: int, **filters: str) -> list[dict]:
    """What came again in a minute is counted at its end."""
    deadline = time.monotonic() + 2 * DEADLINE
    while time.monotonic() < deadline:
        if sum(line["count"] for line in lines(world, **filters)) >= count:
            break
        time.sleep(1)
    return lines(world, **filters)


# Append-only, and kept


def insert_old(world: Server, count: int, *, days: int = 2, refused: bool = False, action: str = "old") -> None:
    sqlite = world.database_url.startswith("sqlite")
    at = f"datetime('now', '-{days} days')" if sqlite else f"now() - interval '{days} days'"
    row = f"({at}, '{action}', {'true' if refused else 'false'}, '', '', '', '', '', '{{}}', 1)"
    for start in range(0, count, 5000):
        world.execute(
            "INSERT INTO accounts_event (at, action, refused, actor, address, request, repository, subject, detail, count)"
            f" VALUES {', '.join([row] * min(5000, count - start))}"
        )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accounts_event SET actor = 'somebody else'",
        "UPDATE accounts_event SET at = at WHERE action = 'old'",
        "DELETE FROM accounts_event",
        "DELETE FROM accounts_event WHERE actor = 'admin'",
        "TRUNCATE accounts_event",
        "TRUNCATE accounts_event CASCADE",
        "INSERT OR REPLACE INTO accounts_event SELECT * FROM accounts_event WHERE id = 1",
    ],
)
def test_the_database_refuses_to_change_or_remove_lines(world, statement):
    insert_old(world, 1)
    before = world.query("SELECT count(*), min(id), max(id) FROM accounts_event")
    with pytest.raises(Exception, match=r"append-only|syntax error"):
        world.execute(statement)
    assert world.query("SELECT count(*), min(id), max(id) FROM accounts_event")[:2] == before[:2]


def test_what_is_older_than_a_day_may_go(world):
    insert_old(world, 3, action="may-go")
    world.execute("DELETE FROM accounts_event WHERE action = 'may-go'")
    assert lines(world, action="may-go") == []


def test_what_is_too_old_goes_and_of_too_many_the_oldest_refusals_first(server):
    one = server()
    insert_old(one, 30, days=500, action="expired")
    insert_old(one, 12_000, days=3, refused=True, action="refused")
    insert_old(one, 50, days=4, action="other")
    one.apply({"audit": {"most": 10_000}})
    assert one.manage("job", "run", "audit", "--here").returncode == 0
    left = dict(one.rows("SELECT action, count(*) FROM accounts_event GROUP BY action"))
    told = lines(one, action="audit.trim")[0]
    assert "expired" not in left
    assert left["other"] == 50
    assert told["detail"]["expired"] == 30
    assert told["detail"]["refusals"] == 12_000 - left["refused"] > 2000
    assert sum(left.values()) - left["audit.trim"] == 10_000


def test_less_than_a_day_cannot_be_configured(world):
    for wrong in ({"keep": "23h"}, {"most": 1}, {"keep": "0s"}):
        assert Api(world).put("audit/settings/", wrong).status == 400


# Exports


def exported(answer: Answer) -> list[dict]:
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.decode().splitlines()]


def test_an_export_has_every_line_in_order_and_goes_on_behind_any(world):
    insert_old(world, 1200, action="many")
    everything = lines(world, order="at", until=soon(world))
    got = exported(Api(world).get("audit/export/"))
    wait_for(lambda: len(exported(Api(world).get("audit/export/"))) >= len(everything))
    got = exported(Api(world).get("audit/export/"))
    assert got[: len(everything)] == everything
    assert [line["place"] for line in got] == sorted((line["place"] for line in got), key=by_place)
    half = got[len(got) // 2]["place"]
    again = exported(Api(world).get(f"audit/export/?{urlencode({'after': half})}"))
    assert again[: len(got) - len(got) // 2 - 1] == got[len(got) // 2 + 1 :]
    by_command = world.manage("audit", "--after", half).stdout.splitlines()
    assert [json.loads(line) for line in by_command][: len(got) - len(got) // 2 - 1] == got[len(got) // 2 + 1 :]


def soon(world: Server) -> str:
    return "2999-01-01T00:00:00Z"


def by_place(place: str) -> tuple[str, int]:
    at, _, number = place.rpartition("/")
    return at, int(number)


def test_an_export_that_is_gone_on_with_misses_nothing_while_many_write(server):
    one = server()
    one.apply({"repositories": [{"key": "here", "format": "raw", "kind": "local"}]})
    api, seen, done = Api(one), [], threading.Event()

    def follow() -> None:
        after = {}
        while True:
            last = done.is_set()
            new = exported(api.get(f"audit/export/?{urlencode(after)}"))
            seen.extend(new)
            after = {"after": new[-1]["place"]} if new else after
            if last and len(lines(one, action="artifact.publish")) == len([x for x in seen if x["action"] == "artifact.publish"]):
                return

    def publish(n: int) -> None:
        assert one.request("PUT", f"/raw/here/{n}", b"%d" % n, user=ADMIN).status == 201

    reader = threading.Thread(target=follow)
    reader.start()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(publish, range(300)))
    done.set()
    reader.join(DEADLINE)
    assert not reader.is_alive(), "lines were missed"
    published = [line["subject"] for line in seen if line["action"] == "artifact.publish"]
    assert sorted(published) == sorted(str(n) for n in range(300)), "each once"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("actor=owner", lambda line: line["actor"] == "owner"),
        ("refused=true", lambda line: line["refused"]),
        ("repository=here", lambda line: line["repository"] == "here"),
        ("subject=users%20", lambda line: line["subject"].startswith("users ")),
        ("action=artifact.publish&actor=owner", lambda line: (line["action"], line["actor"]) == ("artifact.publish", "owner")),
    ],
)
def test_filters_give_what_they_say_and_all_of_it(world, query, expected):
    everything = Api(world).items("audit/?limit=1000")
    found = Api(world).items(f"audit/?limit=7&{query}")
    assert found[-len([line for line in everything if expected(line)]) :] == [line for line in everything if expected(line)]
    assert found


@pytest.mark.parametrize(
    "query", ["token=1", "detail=x", "order=actor", "actor__startswith=a", "refused=1", "since=yesterday", "actor=a&actor=b"]
)
def test_other_filters_and_orders_are_refused(world, query):
    for path in ("audit/", "audit/export/"):
        assert Api(world).get(f"{path}?{query}").status == 400


@pytest.mark.parametrize(
    "place",
    ["x", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z/-1", "2026-01-01T00:00:00/1", "/1", "0001-01-01T00:00:00+23:59/1"],
)
def test_a_place_that_is_none_is_refused(world, place):
    answer = Api(world).get(f"audit/export/?{urlencode({'after': place})}")
    assert (answer.status, rule(answer)) == (400, "audit.place")


def test_an_auditor_reads_the_audit_and_nothing_else(world):
    api = Api(world, ("auditor", PASSWORD))
    assert api.get("audit/").status == api.get("audit/export/").status == 200
    assert api.get("configuration/").status == 403
    assert api.put("audit/settings/", {"keep": "1d"}).status == 403
    assert api.ask("DELETE", "audit/").status == 405


# Whatever happens


def test_a_server_that_is_killed_has_a_line_for_each_change_and_no_other(server):
    one = server()
    one.apply({"repositories": [{"key": "here", "format": "raw", "kind": "local"}]})
    acknowledged: list[str] = []

    def publish(worker: int) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            for n in range(10_000):
                if one.request("PUT", f"/raw/here/{worker}-{n}", b"x%d" % n, user=ADMIN).status == 201:
                    acknowledged.append(f"{worker}-{n}")

    threads = [threading.Thread(target=publish, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(acknowledged) > 40)
    one.kill()
    for thread in threads:
        thread.join(DEADLINE)
    one.start()
    changes = {number for (number,) in one.rows("SELECT number FROM repos_change WHERE action = 'publish'")}
    told = {line["detail"]["change"]: line["subject"] for line in lines(one, action="artifact.publish")}
    assert set(told) == changes
    assert set(acknowledged) <= set(told.values())


def test_commits_that_are_one_transaction_keep_who_made_each_apart(world):
    tokens = [token_of(world, "owner") for _ in range(50)]
    barrier = threading.Barrier(50)

    def publish(n: int) -> tuple[str, int, str]:
        number, secret = tokens[n]
        barrier.wait(DEADLINE)
        answer = world.request("PUT", f"/raw/here/apart/{n}", b"%d" % n, {"Authorization": f"Bearer {secret}"})
        assert answer.status == 201
        return f"apart/{n}", number, answer.headers["X-Request-Id"]

    with ThreadPoolExecutor(50) as pool:
        expected = sorted(pool.map(publish, range(50)))
    found = lines(world, subject="apart/", action="artifact.publish")
    assert sorted((line["subject"], line["token"], line["request"]) for line in found) == expected
    assert len({request for _, _, request in expected}) == 50


@pytest.fixture
def broken(server) -> Iterator[Server]:
    """A server whose database takes no line of the audit any more."""
    one = server(ENTREPOT_WORKERS="1")
    one.apply(
        {
            "repositories": [{"key": "here", "format": "raw", "kind": "local", "log_downloads": True}],
            "users": [{"name": "reader", "password": PASSWORD}],
            "grants": [{"role": "reader", "users": ["reader"], "repositories": ["here"]}],
        }
    )
    assert one.request("PUT", "/raw/here/stands", b"stands", user=ADMIN).status == 201
    if one.database_url.startswith("sqlite"):
        one.execute("CREATE TRIGGER full BEFORE INSERT ON accounts_event BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    else:
        with psycopg.connect(one.database_url) as connection:
            connection.execute("ALTER TABLE accounts_event ADD CONSTRAINT full_disk CHECK (false) NOT VALID")
    return one


def test_what_cannot_be_recorded_is_not_done_and_reading_goes_on(broken):
    before = broken.counts()
    assert broken.request("PUT", "/raw/here/new", b"new", user=ADMIN).status >= 500
    assert broken.request("DELETE", "/raw/here/stands", user=ADMIN).status >= 500
    assert Api(broken).put("users/new/", {}).status >= 500
    assert broken.counts()[:2] == before[:2]
    assert Api(broken).get("users/new/").status == 404
    for _ in range(3):
        assert broken.request("GET", "/raw/here/stands", user=("reader", PASSWORD)).body == b"stands"
        assert broken.request("PUT", "/raw/here/x", b"x", user=("reader", PASSWORD)).status == 403
        assert broken.request("GET", "/raw/here/stands", user=("reader", "wrong")).status == 401
    wait_for(lambda: "could not be written" in broken.log())
    assert broken.request("GET", "/raw/here/stands", user=("reader", PASSWORD)).status == 200


def test_what_was_noticed_is_written_when_a_server_stops(server):
    """Also how often it came again in its last minute."""
    one = server(ENTREPOT_WORKERS="1")
    one.apply({"users": [{"name": "reader", "password": PASSWORD}]})
    for _ in range(7):
        assert Api(one, ("reader", PASSWORD)).get("audit/").status == 403
    one.stop()
    counts = one.rows("SELECT count FROM accounts_event WHERE actor = 'reader' AND refused AND action = 'api'")
    assert sum(count for (count,) in counts) == 7


# Floods and secrets


def test_a_flood_of_refusals_gives_few_lines_and_the_rest_is_counted(server):
    one = server(ENTREPOT_WORKERS="1")
    one.apply(
        {
            "repositories": [{"key": "here", "format": "raw", "kind": "local"}],
            "users": [{"name": "reader", "password": PASSWORD}],
            "grants": [{"role": "reader", "users": ["reader"], "repositories": ["here"]}],
        }
    )
    secret = token_of(one, "reader")[1]

    def refused(n: int) -> None:
        answer = one.request("PUT", f"/raw/here/{n}", b"x", {"Authorization": f"Bearer {secret}"})
        assert answer.status == 403

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(refused, range(1000)))
    one.stop()
    rows = one.rows("SELECT subject, count, detail FROM accounts_event WHERE refused AND action = 'artifact.write'")
    assert sum(count for _, count, _ in rows) == 1000
    minutes = 3
    assert len(rows) <= minutes * 102
    assert any("more than 100 different ones" in str(detail) for subject, _, detail in rows if not subject)


SECRETS = {name: f"secret-{name}-{random.randbytes(8).hex()}" for name in ("password", "changed", "upstream", "token", "tried")}


def test_no_secret_is_in_any_line_or_in_an_export(world):
    api = Api(world)
    assert api.put("users/keeper/", {"password": SECRETS["password"]}).status == 201
    assert api.put("users/keeper/", {"password": SECRETS["changed"], "email": "k@example.org"}).status == 200
    upstream = {"url": "https://example.org", "username": "us", "password": SECRETS["upstream"]}
    remote = {"format": "raw", "kind": "remote", "upstreams": [upstream]}
    assert api.put("repositories/far/", remote).status == 201
    remote["upstreams"] = [{"url": "https://example.org", "token": SECRETS["token"]}]
    assert api.put("repositories/far/", remote).status == 200
    assert api.delete("repositories/far/").status == 204
    secrets = [*SECRETS.values(), token_of(world, "owner")[1], world.manage("token", "create", "robot").stdout.split()[-1]]
    for secret in secrets:
        for login in ((secret, ""), ("owner", secret), (secret, "wrong"), (secret, secret)):
            world.request("PUT", "/raw/here/x", b"x", user=login)
        world.request("PUT", "/raw/here/x", b"x", {"Authorization": f"Bearer {secret}"})
        world.request("PUT", "/raw/here/x", b"x", {"Authorization": f"Bearer {secret}x"})
    noticed(world, 10, action="sign-in", refused="true")
    told = lines(world, subject="repositories far")[1]["detail"]
    assert told["secrets"] == ["upstreams.0.token"], "that there was one is told"
    assert lines(world, subject="users keeper", action="configuration.change")[0]["detail"]["secrets"] == ["password"]
    columns = "action, actor, address, request, repository, subject, detail"
    stored = "\n".join(map(str, world.rows(f"SELECT {columns} FROM accounts_event")))
    export = Api(world).get("audit/export/").body.decode()
    for secret in secrets:
        assert secret not in stored
        assert secret not in export
        assert secret[-16:] not in stored
        assert secret[-16:] not in export
