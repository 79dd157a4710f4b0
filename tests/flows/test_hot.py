"""The same request again is answered without a view, and not a moment longer than a view would answer it so."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import time

import pytest

from tests.parts.server import ADMIN_PASSWORD, Answer, Server
from tests.parts.upstream import Upstream

ADMIN = ("admin", ADMIN_PASSWORD)
AGAIN = "entrepot"
"""The Server header of an answer that no view was asked for; others have gunicorn's."""
SMALL, LARGE = random.Random(1).randbytes(5000), random.Random(2).randbytes(4 << 20)


class Client:
    """One connection that is kept alive, on which everything is asked for in the same words."""

    def __init__(self, server: Server, secret: str = "", headers: dict[str, str] | None = None):
        self.connection = server.connect()
        self.headers = {**(server.authorization(("robot", secret)) if secret else {}), **(headers or {})}

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> Answer:
        self.connection.request(method, path, body, self.headers)
        answer = self.connection.getresponse()
        return Answer(answer.status, answer.reason, dict(answer.getheaders()), answer.read())

    def until_again(self, path: str, method: str = "GET") -> tuple[Answer, Answer]:
        """The last answer of a view and the first that was given again."""
        before = self.ask(path, method)
        for _ in range(5):
            answer = self.ask(path, method)
            if answer.headers["Server"] == AGAIN:
                return before, answer
            before = answer
        raise AssertionError(f"{path} was answered by a view each time: {before.status}")


@pytest.fixture(scope="module")
def up(upstream) -> Upstream:
    return upstream()


@pytest.fixture(scope="module")
def here(server, up) -> Server:
    one = server(ENTREPOT_WORKERS="1", ENTREPOT_THREADS="4")
    one.apply(
        {
            "repositories": [
                {"key": "first", "format": "raw", "kind": "local"},
                {"key": "second", "format": "raw", "kind": "local"},
                {"key": "all", "format": "raw", "kind": "virtual", "members": ["first", "second"]},
                {"key": "images", "format": "oci", "kind": "local"},
                {"key": "cache", "format": "raw", "kind": "remote", "upstreams": [{"url": up.url}], "cache": {"lifetime": "1h"}},
            ],
            "groups": [{"name": "readers"}],
            "users": [{"name": name, "robot": True, "groups": ["readers"]} for name in ("robot", "member", "locked")],
            "grants": [
                {"role": "reader", "groups": ["readers"], "repositories": ["first", "second", "all", "cache"]},
                {"role": "developer", "groups": ["readers"], "repositories": ["images"]},
            ],
        }
    )
    return one


def put(server: Server, name: str, content: bytes = SMALL, to: str = "first") -> str:
    path = f"/raw/{to}/{name}"
    assert server.request("PUT", path, content, user=ADMIN).status == 201
    return path


def token_of(server: Server, user: str, *options: str) -> str:
    return server.manage("token", "create", user, *options).stdout.split()[-1]


@pytest.fixture(scope="module")
def secret(here) -> str:
    return token_of(here, "robot")


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_same_request_is_answered_with_the_same_bytes_and_headers(here, secret, content, method):
    path = put(here, f"{method}-{len(content)}", content)
    seen, again = Client(here, secret).until_again(path, method)
    assert again.body == seen.body == (content if method == "GET" else b"")
    own = ("Server", "Date")
    assert {k: v for k, v in again.headers.items() if k not in own} == {k: v for k, v in seen.headers.items() if k not in own}
    assert again.headers["Date"]


def test_through_a_virtual_repository_too(here, secret):
    put(here, "through", to="second")
    assert Client(here, secret).until_again("/raw/all/through")[1].body == SMALL


def test_to_who_is_not_signed_in_where_anybody_may_read(here):
    here.apply({"grants": [{"role": "reader", "anonymous": True, "repositories": ["first"], "paths": ["open/**"]}]})
    path = put(here, "open/file")
    assert Client(here).until_again(path)[1].body == SMALL


def test_a_password_is_checked_each_time(here):
    path, client = put(here, "by-password"), Client(here, headers=Server.authorization(ADMIN))
    assert {client.ask(path).headers["Server"] for _ in range(5)} == {"gunicorn"}


def test_what_an_upstream_may_change_is_never_answered_again(here, up, secret):
    up.routes["/changing"] = b"x"
    client = Client(here, secret)
    assert {client.ask("/raw/cache/changing").headers["Server"] for _ in range(5)} == {"gunicorn"}


def test_the_first_request_of_a_connection_too(here, secret):
    path = put(here, "first")
    Client(here, secret).until_again(path)
    assert Client(here, secret).ask(path).headers["Server"] == AGAIN


def test_what_another_member_might_have_some_day_is_looked_for_each_time(here, up, upstream, secret):
    """The member that goes first has none today, and need not have the same when it has."""
    up.routes["/example.org/m/@v/v1.0.0.mod"] = b"module example.org/m\n"
    remotes = [
        {"key": key, "format": "go", "kind": "remote", "upstreams": [{"url": url}], "cache": {"missing": "0s"}}
        for key, url in (("one", upstream().url), ("two", up.url))
    ]
    both = {"key": "both", "format": "go", "kind": "virtual", "members": ["one", "two"]}
    here.apply(
        {
            "repositories": [*remotes, both],
            "grants": [{"role": "reader", "groups": ["readers"], "repositories": ["one", "two", "both"]}],
        }
    )
    answers = [Client(here, secret).ask("/go/both/example.org/m/@v/v1.0.0.mod") for _ in range(4)]
    assert {(answer.status, answer.headers["Server"]) for answer in answers} == {(200, "gunicorn")}
    Client(here, secret).until_again("/go/two/example.org/m/@v/v1.0.0.mod")


def test_what_is_published_beside_it_changes_nothing(here, secret):
    put(here, "beside")
    client = Client(here, secret)
    client.until_again("/raw/all/beside")
    put(here, "other-beside")
    put(here, "other-beside", to="second")
    assert client.ask("/raw/all/beside").headers["Server"] == AGAIN


# What ends it, at once


def test_a_deletion(here, secret):
    path, client = put(here, "deleted"), Client(here, secret)
    client.until_again(path)
    assert here.request("DELETE", path, user=ADMIN).status == 204
    assert client.ask(path).status == 404


def test_another_content(here, secret):
    path, client = put(here, "replaced"), Client(here, secret)
    client.until_again(path)
    put(here, "replaced", b"new")
    assert client.ask(path).body == b"new"
    assert client.until_again(path)[1].body == b"new"


def test_the_same_name_in_a_member_that_goes_first(here, secret):
    put(here, "hidden", b"second's", to="second")
    client = Client(here, secret)
    assert client.until_again("/raw/all/hidden")[1].body == b"second's"
    put(here, "hidden", b"first's")
    assert client.ask("/raw/all/hidden").body == b"first's"


def test_a_revoked_token(here):
    secret = token_of(here, "robot")
    path, client = put(here, "revoked"), Client(here, secret)
    client.until_again(path)
    here.manage("token", "revoke", secret)
    assert client.ask(path).status == 401


def test_a_token_that_has_expired(here):
    secret = token_of(here, "robot", "--expires", "1h")
    path, client = put(here, "expired"), Client(here, secret)
    client.until_again(path)
    past = "2020-01-01 00:00:00+00:00" if not here.database_url.startswith("sqlite") else "2020-01-01 00:00:00"
    here.execute(f"UPDATE accounts_token SET expires_at = '{past}' WHERE prefix = '{secret[:10]}'")
    assert client.ask(path).status == 401


def test_rights_that_are_taken_away(here):
    path, client = put(here, "taken"), Client(here, token_of(here, "member"))
    client.until_again(path)
    here.apply({"users": [{"name": "member", "robot": True, "groups": []}]})
    assert client.ask(path).status == 404


def test_a_user_who_was_locked(here):
    path, client = put(here, "locked"), Client(here, token_of(here, "locked"))
    client.until_again(path)
    here.execute("UPDATE accounts_user SET is_active = false WHERE username = 'locked'")
    assert client.ask(path).status == 401


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_bytes_that_are_gone_or_short_are_told_of_and_nobody_waits_for_the_rest(here, secret, content):
    """A small body is in memory, and right all the same."""
    name = f"damaged {len(content)}"
    path, client = put(here, name.replace(" ", "%20"), content + b"!"), Client(here, secret)
    client.until_again(path)
    (key,) = here.query(f"SELECT b.key FROM repos_blob b JOIN repos_asset a ON a.blob_id = b.id WHERE a.path = '{name}'")
    file = here.data / "blobs" / key
    os.truncate(file, 100)
    fresh = Client(here, secret, {"X-Other": "words"})
    for _ in range(3):
        assert fresh.ask(path).status == 500
    file.unlink()
    assert client.ask(path).status == (200 if content is SMALL else 500)
    assert fresh.ask(path).status == 500


# Who asks otherwise


def test_other_credentials_are_not_answered_for(here, secret):
    path = put(here, "others")
    Client(here, secret).until_again(path)
    assert Client(here).ask(path).status == 401
    assert Client(here, secret[:-1] + ("A" if secret[-1] != "A" else "B")).ask(path).status == 401


def test_requests_that_come_together_are_each_answered_in_their_order(here, secret):
    one, other = put(here, "one", b"one"), put(here, "other", b"other")
    client = Client(here, secret)
    for path in (one, other):
        client.until_again(path)
    head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "127.0.0.1", **client.headers}.items())
    client.connection.sock.sendall(b"".join(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode() for path in (one, other, one, one)))
    bodies = []
    for _ in range(4):
        answer = http.client.HTTPResponse(client.connection.sock, method="GET")
        answer.fp = client.connection.sock.makefile("rb", 0)  # unbuffered: the next answer is the next reader's
        answer.begin()
        bodies.append(answer.read())
    assert bodies == [b"one", b"other", b"one", b"one"]


def test_a_request_with_a_body_keeps_the_connection_in_order(here, secret):
    path, client = put(here, "with-body"), Client(here, secret)
    client.until_again(path)
    for _ in range(3):
        client.connection.request("GET", path, b"GET /raw/first/other HTTP/1.1\r\n\r\n", client.headers)
        answer = client.connection.getresponse()
        assert (answer.status, answer.read()) == (200, SMALL)


def test_clients_that_do_not_read_keep_nobody_waiting(here, secret):
    more_than_sockets_hold = LARGE * 8
    path, small = put(here, "unread", more_than_sockets_hold), put(here, "read")
    client = Client(here, secret)
    client.until_again(path)
    client.until_again(small)
    stuck = [Client(here, secret) for _ in range(3)]  # of four threads
    for one in stuck:
        one.until_again(small)
        one.connection.request("GET", path, headers=one.headers)
    assert client.until_again(small)[1].body == SMALL
    for one in stuck:
        body = one.connection.getresponse().read()
        assert hashlib.sha256(body).digest() == hashlib.sha256(more_than_sockets_hold).digest()


def test_clients_that_leave_leave_nothing_behind(here, secret):
    path = put(here, "left", LARGE)
    for _ in range(6):  # more than there are threads
        client = Client(here, secret)
        client.until_again(path)
        client.connection.request("GET", path, headers=client.headers)
        client.connection.close()
    assert Client(here, secret).until_again(path)[1].body == LARGE


def test_what_was_answered_again_is_counted(here, secret):
    path, client = put(here, "counted"), Client(here, secret)
    client.until_again(path)
    for _ in range(20):
        client.ask(path)
    count = "SELECT u.downloads FROM repos_usage u JOIN repos_asset a ON a.id = u.asset_id WHERE a.path = 'counted'"
    deadline = time.monotonic() + 60
    while (here.rows(count) or [(0,)])[0][0] < 22:
        assert time.monotonic() < deadline, "the downloads were not counted"
        time.sleep(0.1)
    assert here.query(f"SELECT last_used_at FROM accounts_token WHERE prefix = '{secret[:10]}'")[0]


def test_a_server_that_stops_lets_those_who_wait_have_their_answers(server):
    one = server(ENTREPOT_WORKERS="1")
    one.apply({"repositories": [{"key": "first", "format": "raw", "kind": "local"}]})
    secret = token_of(one, "admin")
    path = put(one, "stopping", LARGE)
    client = Client(one, secret)
    client.until_again(path)
    client.connection.request("GET", path, headers=client.headers)
    answer = client.connection.getresponse()
    one.stop()
    assert answer.read() == LARGE


# A new upload's name, which is another each time

UPLOADS = "/v2/images/app/blobs/uploads/"


def test_each_upload_that_is_begun_has_a_name_of_its_own_and_can_be_gone_on_with(here, secret):
    client = Client(here, secret)
    client.until_again(UPLOADS, "POST")
    begun = [client.ask(UPLOADS, "POST") for _ in range(3)]
    assert {(answer.status, answer.headers["Server"]) for answer in begun} == {(202, AGAIN)}
    places = [answer.headers["Location"] for answer in begun]
    assert len(set(places)) == 3 and all(answer.headers["Docker-Upload-UUID"] in answer.headers["Location"] for answer in begun)
    for n, place in enumerate(places):
        content = f"content {n}".encode()
        assert client.ask(place, "PATCH", content).status == 202
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert client.ask(f"{place}?digest={digest}", "PUT", b"").status == 201
        assert client.ask(f"/v2/images/app/blobs/{digest}").body == content


def test_an_answer_to_a_new_upload_has_all_that_a_view_gives(here, secret):
    seen, again = Client(here, secret).until_again(UPLOADS, "POST")
    own = {"Server", "Date", "Location", "Docker-Upload-UUID"}
    assert {k: v for k, v in again.headers.items() if k not in own} == {k: v for k, v in seen.headers.items() if k not in own}
    assert set(again.headers) == set(seen.headers)


@pytest.mark.parametrize(
    "target", [f"{UPLOADS}?mount=sha256:{'0' * 64}", f"{UPLOADS}?digest=sha256:{hashlib.sha256(b'').hexdigest()}"]
)
def test_what_is_more_than_to_begin_is_asked_of_a_view_each_time(here, secret, target):
    client = Client(here, secret)
    assert {client.ask(target, "POST").headers["Server"] for _ in range(5)} == {"gunicorn"}


def test_bytes_that_come_with_the_beginning_are_not_taken_for_the_next_request(here, secret):
    """Nobody waits for them, so that each time the head is all that the server has of the request when it answers."""
    content = b"GET /raw/first/x HTTP/1.1"
    for _ in range(5):
        client = Client(here, secret)
        client.connection.putrequest("POST", UPLOADS)
        for name, value in {**client.headers, "Content-Length": str(len(content))}.items():
            client.connection.putheader(name, value)
        client.connection.endheaders()
        answer = client.connection.getresponse()
        assert (answer.status, answer.headers["Server"], answer.read()) == (202, "gunicorn", b"")
        client.connection.send(content)
        assert client.ask(UPLOADS, "POST").status == 202


def test_no_upload_is_begun_any_more_by_who_may_not_write_any_more(here):
    leaver = {"name": "leaver", "robot": True}
    here.apply(
        {
            "groups": [{"name": "writers"}],
            "users": [{**leaver, "groups": ["writers"]}],
            "grants": [
                {"role": "developer", "groups": ["writers"], "repositories": ["images"]},
                {"role": "reader", "users": ["leaver"], "repositories": ["images"]},
            ],
        }
    )
    client = Client(here, token_of(here, "leaver"))
    client.until_again(UPLOADS, "POST")
    here.apply({"users": [{**leaver, "groups": []}]})
    assert client.ask(UPLOADS, "POST").status == 403


def test_nor_with_a_token_that_was_revoked(here):
    secret = token_of(here, "robot")
    client = Client(here, secret)
    client.until_again(UPLOADS, "POST")
    here.manage("token", "revoke", secret)
    assert client.ask(UPLOADS, "POST").status == 401
