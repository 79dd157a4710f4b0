"""Go modules by way of a remote repository: what is believed for how long, what is never asked, and what an outage looks like."""

from __future__ import annotations

import hashlib
import json
import threading

import pytest

from tests.gomodules import make_zip
from tests.parts.server import ADMIN_PASSWORD, named
from tests.parts.upstream import Handler, Upstream

ADMIN = ("admin", ADMIN_PASSWORD)
SOURCE = {"lib.go": b"package lib\n"}
INFO = b'{"Version":"v1.0.0","Time":"2024-05-06T07:08:09Z"}'


@pytest.fixture(scope="module")
def up(upstream) -> Upstream:
    return upstream()


@pytest.fixture(scope="module")
def second(upstream) -> Upstream:
    return upstream()


@pytest.fixture(scope="module")
def world(server, up, second):
    here = server(ENTREPOT_WORKERS="1")
    one = [{"url": up.url, "timeout": "2s"}]
    at_once = {"lifetime": "0s", "missing": "0s"}
    here.apply(
        {
            "repositories": [
                {"key": "corp", "format": "go", "kind": "local"},
                {"key": "public", "format": "go", "kind": "remote", "upstreams": one, "cache": at_once},
                {"key": "second", "format": "go", "kind": "remote", "upstreams": [{"url": second.url}], "cache": at_once},
                {"key": "offline", "format": "go", "kind": "remote", "upstreams": one, "offline": True},
                {"key": "chosen", "format": "go", "kind": "remote", "upstreams": one,
                 "include": ["good.example/**"], "exclude": ["good.example/bad", "good.example/bad/**"]},
                {"key": "with-login", "format": "go", "kind": "remote",
                 "upstreams": [{"url": up.url, "username": "us", "password": "upstream-secret"}]},
                {"key": "forgetful", "format": "go", "kind": "remote", "upstreams": one,
                 "cache": {**at_once, "stale_on_error": "0s"}},
                {"key": "all", "format": "go", "kind": "virtual", "members": ["public", "second", "corp"],
                 "private": ["secret.example", "secret.example/**"]},
            ],
            "egress": {"allow": ["127.0.0.0/8"]},
        }
    )  # fmt: skip
    return here


@pytest.fixture
def go(world):
    def go(path: str, repository: str = "public", **headers: str):
        return world.request("GET", f"/go/{repository}/{path}", headers=named(headers), user=ADMIN)

    return go


@pytest.fixture(autouse=True)
def _asked_again(up, go):
    """What one test's upstream failed in is over when the next begins."""
    yield
    up.asked_again(lambda: go("asked.example/again/@v/list"))


def has(upstream: Upstream, module: str, *versions: str) -> None:
    for version in versions:
        info = json.dumps({"Version": version, "Time": "2024-05-06T07:08:09Z"}).encode()
        upstream.routes[f"/{module}/@v/{version}.info"] = info
        upstream.routes[f"/{module}/@v/{version}.mod"] = f"module {module}\n\ngo 1.21\n".encode()
        upstream.routes[f"/{module}/@v/{version}.zip"] = make_zip(module, version, SOURCE)
        upstream.routes[f"/{module}/@latest"] = info
    upstream.routes[f"/{module}/@v/list"] = "".join(f"{version}\n" for version in versions).encode()


@pytest.mark.parametrize("question", ["@v/list", "@latest", "@v/main.info", "@v/feature/x.info"])
def test_with_the_upstream_down_the_newest_answer_is_served_and_marked_stale(up, go, question):
    path = f"stale.example/{question[-6:].strip('@/').replace('/', '')}/{question}"
    up.routes[f"/{path}"] = b"v1.0.0\n" if question == "@v/list" else INFO
    fresh = go(path)
    assert fresh.status == 200 and "Warning" not in fresh.headers
    with up.down():
        stale = go(path)
    assert (stale.status, stale.body) == (200, fresh.body)
    assert stale.headers["Warning"].startswith("110") and int(stale.headers["Age"]) >= 0


@pytest.mark.parametrize("file", ["@v/list", "@latest", "@v/main.info", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip"])
def test_an_outage_without_a_cached_answer_is_a_bad_gateway_and_not_a_404(up, go, file):
    with up.down():
        assert go(f"never.example/seen/{file}").status in (502, 503)
        assert go(f"never.example/seen/{file}", "all").status in (502, 503)


def test_an_upstream_that_is_silent_is_a_gateway_timeout(up, go):
    up.routes["/slow.example/m/@v/list"] = up.slowly(b"v1.0.0\n", seconds=4)
    assert go("slow.example/m/@v/list").status == 504


def test_an_answer_older_than_stale_on_error_is_not_served(up, go):
    has(up, "old.example/m", "v1.0.0")
    assert go("old.example/m/@v/list", "forgetful").status == 200
    with up.down():
        assert go("old.example/m/@v/list", "forgetful").status in (502, 503)


def test_what_cannot_change_is_asked_for_once_whatever_its_lifetime(up, go):
    has(up, "once.example/m", "v1.0.0")
    for _ in range(3):
        for file in ("info", "mod", "zip"):
            assert go(f"once.example/m/@v/v1.0.0.{file}").headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert [up.hits(f"/once.example/m/@v/v1.0.0.{file}") for file in ("info", "mod", "zip")] == [1, 1, 1]


def test_info_and_mod_are_served_though_the_zip_is_gone_upstream(up, go):
    has(up, "half.example/m", "v1.0.0")
    up.routes["/half.example/m/@v/v1.0.0.zip"] = 410
    assert go("half.example/m/@v/v1.0.0.info").status == 200
    assert go("half.example/m/@v/v1.0.0.mod").status == 200
    assert go("half.example/m/@v/v1.0.0.zip").status == 404


def test_disable_module_fetch_answers_from_the_cache_alone(up, go):
    has(up, "cached.example/m", "v1.0.0", "v1.1.0")
    go("cached.example/m/@v/v1.0.0.zip")
    asked = len(up.seen)
    assert go("cached.example/m/@v/v1.0.0.zip", Disable_Module_Fetch="true").status == 200
    assert go("cached.example/m/@v/v1.1.0.zip", Disable_Module_Fetch="true").status == 404
    assert go("cached.example/m/@v/list", Disable_Module_Fetch="true").status == 404
    assert go("cached.example/m/@v/v1.1.0.zip", "all", Disable_Module_Fetch="true").status == 404
    assert len(up.seen) == asked


def test_an_offline_repository_asks_nobody_and_does_not_say_that_it_is_not_there(world, up, go):
    has(up, "offline.example/m", "v1.0.0")
    asked = len(up.seen)
    answer = go("offline.example/m/@v/v1.0.0.zip", "offline")
    assert answer.status == 503 and "offline" in answer.reason
    assert len(up.seen) == asked


def test_include_and_exclude_say_what_may_be_asked(up, go):
    for module in ("good.example/m", "good.example/bad", "good.example/bad/worse", "other.example/m"):
        has(up, module, "v1.0.0")
    assert go("good.example/m/@v/list", "chosen").status == 200
    for module in ("good.example/bad", "good.example/bad/worse", "other.example/m"):
        answer = go(f"{module}/@v/list", "chosen")
        assert answer.status == 403 and "include-exclude" in answer.headers["X-Entrepot-Reason"]
        assert up.hits(f"/{module}/@v/list") == 0


def test_private_names_are_asked_of_nobody(up, second, go):
    for path in ("secret.example/m/@v/list", "secret.example/@v/list", "sumdb/sums.example/lookup/secret.example/m@v1.0.0"):
        assert go(path, "all").status == 404
        assert up.hits(f"/{path}") == second.hits(f"/{path}") == 0


def test_the_checksum_database_is_relayed_and_its_records_kept(up, go):
    base = "sumdb/sums.example"
    up.routes |= {
        f"/{base}/supported": b"",
        f"/{base}/latest": b"go.sum database tree\n1\nhash\n",
        f"/{base}/lookup/public.example/m@v1.0.0": b"1\npublic.example/m v1.0.0 h1:...\n",
        f"/{base}/tile/8/0/x001/234.p/5": b"\0" * 160,
        f"/{base}/tile/8/data/000": b"public.example/m v1.0.0 h1:abc=\npublic.example/m v1.0.0/go.mod h1:def=\n\n",
    }
    for path in ("supported", "latest", "lookup/public.example/m@v1.0.0", "tile/8/0/x001/234.p/5", "tile/8/data/000"):
        assert go(f"{base}/{path}").body == go(f"{base}/{path}", "all").body == up.routes[f"/{base}/{path}"]
    assert up.hits(f"/{base}/lookup/public.example/m@v1.0.0") == 1
    with up.down():
        assert go(f"{base}/latest").status == 200
        assert go(f"{base}/lookup/public.example/m@v1.0.0", "all").status == 200
        assert go(f"{base}/lookup/public.example/m@v2.0.0").status in (400, 404, 502)
        assert go(f"{base}/lookup/public.example/m@v1.9.0").status in (502, 503)


def test_a_checksum_of_a_name_that_a_local_repository_owns_is_looked_up_nowhere(world, up, go):
    module = "owned.example/m"
    world.request("PUT", f"/go/corp/{module}/@v/v1.0.0.zip", make_zip(module, "v1.0.0", SOURCE), user=ADMIN)
    path = f"sumdb/sums.example/lookup/{module}@v1.0.0"
    up.routes[f"/{path}"] = b"1\nowned\n"
    assert go(path, "all").status == 404
    assert up.hits(f"/{path}") == 0


def test_two_upstream_members_make_one_list_and_each_version_comes_from_the_first_that_has_it(up, second, go):
    has(up, "two.example/m", "v1.0.0", "v1.1.0")
    has(second, "two.example/m", "v1.1.0", "v1.2.0")
    assert go("two.example/m/@v/list", "all").body == b"v1.0.0\nv1.1.0\nv1.2.0\n"
    assert json.loads(go("two.example/m/@latest", "all").body)["Version"] == "v1.2.0"
    assert go("two.example/m/@v/v1.2.0.zip", "all").status == 200
    assert go("two.example/m/@v/v1.1.0.zip", "all").status == 200
    assert second.hits("/two.example/m/@v/v1.1.0.zip") == 0


def test_a_failing_member_fails_the_list_rather_than_shorten_it(up, second, go):
    has(up, "gap.example/m", "v1.0.0")
    second.routes["/gap.example/m/@v/list"] = 500
    assert go("gap.example/m/@v/list", "all").status == 502


def test_a_module_with_commits_alone_has_a_latest(up, go):
    commit = "v0.0.0-20240102030405-abcdefabcdef"
    has(up, "commits.example/m", commit)
    up.routes["/commits.example/m/@v/list"] = b""
    assert go("commits.example/m/@v/list", "all").body == b""
    assert json.loads(go("commits.example/m/@latest", "all").body)["Version"] == commit


def test_capitals_and_toolchains_are_asked_for_as_go_writes_them(up, go):
    for path in ("up.example/!azure/!s!d!k/@v/v1.0.0-!r!c1.mod", "golang.org/toolchain/@v/v0.0.1-go1.22.0.linux-amd64.mod"):
        up.routes[f"/{path}"] = b"module anything\n"
        assert go(path).status == 200
        assert up.hits(f"/{path}") == 1


WRONG = {
    "a zip of another module": ("v1.0.0.zip", make_zip("evil.example/m", "v1.0.0", SOURCE)),
    "a page of HTML": ("v1.0.0.zip", b"<html>please sign in</html>"),
    "an .info of another version": ("v1.0.0.info", b'{"Version":"v1.0.1"}'),
    "an .info that is HTML": ("main.info", b"<html>"),
    "a list that is binary": ("list", b"\xff\xfe\x00"),
    "a list that is HTML": ("list", b"<html>please sign in</html>"),
    "a go.mod that is HTML": ("v1.0.0.mod", b"<html>please sign in</html>"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_bytes_of_an_upstream_are_its_failure_and_are_not_kept(world, up, go, name):
    file, body = WRONG[name]
    path = f"wrong.example/m{list(WRONG).index(name)}/@v/{file}"
    up.routes[f"/{path}"] = body
    before = world.counts()
    answer = go(path)
    assert answer.status == 502 and "upstream" in answer.reason
    assert world.counts() == before


def test_credentials_go_to_the_upstream_and_to_no_host_that_it_names(world, up, go):
    stranger = Upstream()
    try:
        body = make_zip("moved.example/m", "v1.0.0", SOURCE)
        stranger.routes["/elsewhere.zip"] = body

        def redirect(handler: Handler) -> None:
            handler.answer(302, b"", {"Location": f"{stranger.url}/elsewhere.zip"})

        up.routes["/moved.example/m/@v/v1.0.0.zip"] = redirect
        assert go("moved.example/m/@v/v1.0.0.zip", "with-login").body == body
        (_, to_upstream) = next(seen for seen in up.seen if seen[0].startswith("/moved.example"))
        (_, to_stranger) = stranger.seen[0]
        assert to_upstream["Authorization"].startswith("Basic ")
        assert "authorization" not in {name.lower() for name in to_stranger} and "upstream-secret" not in str(to_stranger)
    finally:
        stranger.stop()


def test_a_secret_is_neither_in_the_log_nor_in_what_is_exported(world):
    assert "upstream-secret" not in world.log() + world.manage("export").stdout


def test_a_second_mirror_answers_when_the_first_fails_and_its_404_is_final(world, up, second, go):
    world.apply(
        {
            "repositories": [
                {"key": "mirrored", "format": "go", "kind": "remote", "upstreams": [{"url": up.url}, {"url": second.url}]},
            ]
        }
    )
    has(second, "mirror.example/m", "v1.0.0")
    up.routes["/mirror.example/m/@v/v1.0.0.mod"] = 503
    assert go("mirror.example/m/@v/v1.0.0.mod", "mirrored").status == 200
    up.routes.pop("/mirror.example/m/@v/v1.0.0.info", None)
    assert go("mirror.example/m/@v/v1.0.0.info", "mirrored").status == 404
    assert second.hits("/mirror.example/m/@v/v1.0.0.info") == 0


def test_many_mixed_questions_at_once_each_get_their_own_answer(up, go):
    modules = [f"mixed.example/m{n}" for n in range(30)]
    for module in modules:
        has(up, module, "v1.0.0")
    answers: dict[str, bytes] = {}

    def ask(module: str) -> None:
        answers[module] = go(f"{module}/@v/v1.0.0.mod", "all").body

    threads = [threading.Thread(target=ask, args=(module,)) for module in modules]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {module: f"module {module}\n\ngo 1.21\n".encode() for module in modules}


def test_a_lost_secret_key_closes_only_the_repositories_that_need_it_and_applying_again_mends_it(server, up, tmp_path):
    here = server(ENTREPOT_SECRET_KEY="k" * 40)
    secret = {"url": up.url, "username": "us", "password": {"env": "OUR_SECRET"}}
    here.environment["OUR_SECRET"] = "upstream-secret"
    document = {
        "repositories": [
            {"key": "with-login", "format": "go", "kind": "remote", "upstreams": [secret]},
            {"key": "without", "format": "go", "kind": "remote", "upstreams": [{"url": up.url}]},
        ]
    }
    here.apply(document)
    has(up, "sealed.example/m", "v1.0.0")
    here.stop()
    here.environment["ENTREPOT_SECRET_KEY"] = "another" * 10
    here.start()
    ask = lambda key: here.request("GET", f"/go/{key}/sealed.example/m/@v/v1.0.0.mod", user=ADMIN)  # noqa: E731
    assert ask("without").status == 200
    assert ask("with-login").status == 503 and "ENTREPOT_SECRET_KEY" in ask("with-login").reason
    here.apply(document)
    assert ask("with-login").status == 200


def test_a_members_patterns_refuse_for_that_member_alone(world, up, second, go):
    world.apply(
        {
            "repositories": [
                {"key": "some", "format": "go", "kind": "remote", "upstreams": [{"url": up.url}], "include": ["only.example/**"]},
                {"key": "mixed", "format": "go", "kind": "virtual", "members": ["some", "second"]},
            ]
        }
    )
    has(second, "elsewhere.example/m", "v1.0.0")
    for file in ("@v/list", "@latest", "@v/v1.0.0.info", "@v/v1.0.0.zip"):
        assert go(f"elsewhere.example/m/{file}", "mixed").status == 200, file
        assert up.hits(f"/elsewhere.example/m/{file}") == 0
    assert go("elsewhere.example/m/@v/list", "some").status == 403


def test_a_version_cached_from_a_second_member_survives_an_outage_of_the_first(up, second, go):
    has(second, "outage.example/m", "v1.0.0")
    assert go("outage.example/m/@v/v1.0.0.zip", "all").status == 200
    with up.down():
        assert go("outage.example/m/@v/v1.0.0.zip", "all").status == 200
        assert go("outage.example/m/@v/v1.1.0.zip", "all").status in (502, 503)


def test_an_over_long_version_is_refused_here_and_is_the_upstreams_failure(world, up, go):
    long = "v1.0.0-" + "a" * 300
    body = make_zip("long.example/m", long, SOURCE)
    assert world.request("PUT", f"/go/corp/long.example/m/@v/{long}.zip", body, user=ADMIN).status == 400
    up.routes["/long.example/m/@latest"] = json.dumps({"Version": long}).encode()
    assert go("long.example/m/@latest").status == 502


def test_an_unused_list_that_gc_dropped_is_asked_for_again(world, up, go):
    world.apply(
        {
            "repositories": [
                {"key": "brief", "format": "go", "kind": "remote", "upstreams": [{"url": up.url}],
                 "cache": {"lifetime": "1d", "unused": "0s"}},
            ]
        }
    )  # fmt: skip
    has(up, "unused.example/m", "v1.0.0")
    assert go("unused.example/m/@v/list", "brief").status == 200
    world.manage("gc")
    assert go("unused.example/m/@v/list", "brief").status == 200
    assert up.hits("/unused.example/m/@v/list") == 2


@pytest.mark.parametrize("asked", ["latest", "lookup/html.example/m@v1.0.0", "tile/8/0/000", "tile/8/data/000"])
def test_a_page_of_html_is_no_checksum_database(world, up, go, asked):
    path = f"sumdb/html.example/{asked}"
    up.routes[f"/{path}"] = b"<html>please sign in</html>"
    before = world.counts()
    assert go(path).status == 502
    assert world.counts() == before


ODD_LOCATIONS = ["http://{0}\\@{1}/x", "http://{1}@{0}/x", "http://{0}/x y", "file:///etc/passwd", "http://[::/x"]


@pytest.mark.parametrize("location", ODD_LOCATIONS)
def test_a_redirect_that_can_be_read_in_two_ways_is_not_followed(up, go, location):
    stranger = Upstream()
    try:
        there, here = stranger.url.removeprefix("http://"), up.url.removeprefix("http://")
        module = f"odd{ODD_LOCATIONS.index(location)}.example/m"
        up.routes[f"/{module}/@v/v1.0.0.mod"] = lambda handler: handler.answer(
            302, b"", {"Location": location.format(there, here)}
        )
        assert go(f"{module}/@v/v1.0.0.mod", "with-login").status == 502
        assert stranger.seen == []
    finally:
        stranger.stop()


LYING_HEADS = {
    "chunked and with a length": {"Transfer-Encoding": "chunked", "Content-Length": "10000000"},
    "a length that is no number": {"Content-Length": "abc"},
    "a negative length": {"Content-Length": "-5"},
    "a length of other digits": {"Content-Length": "\xb2"},
}


@pytest.mark.parametrize("name", LYING_HEADS)
@pytest.mark.parametrize("stated", [True, False])
def test_a_head_that_lies_about_the_body_never_makes_a_wrong_200(world, up, go, name, stated):
    body = b"module lying.example/m\n" + b"// x\n" * 200_000
    module = f"lying{list(LYING_HEADS).index(name)}{stated}.example/m".lower()

    def lie(handler: Handler) -> None:
        handler.close_connection = True
        handler.send_response(200)
        for header, value in LYING_HEADS[name].items():
            handler.send_header(header, value)
        if stated:
            handler.send_header("X-Checksum-Sha256", hashlib.sha256(body).hexdigest())
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if "chunked" in name else body)

    up.routes[f"/{module}/@v/v1.0.0.mod"] = lie
    answer = go(f"{module}/@v/v1.0.0.mod")
    assert (answer.status, answer.body) == (200, body) or answer.status == 502


def test_what_was_cached_wrongly_can_be_evicted_and_is_fetched_anew(world, up, go):
    path = "evict.example/m/@v/v1.0.0.mod"
    up.routes[f"/{path}"] = b"module wrong.example\n"
    assert go(path).body == b"module wrong.example\n"
    up.routes[f"/{path}"] = b"module evict.example/m\n"
    assert go(path).body == b"module wrong.example\n", "it can never change by itself"
    assert world.manage("evict", "public", "evict.example/**").stdout.split() == [path]
    assert go(path).body == b"module evict.example/m\n"
    assert world.manage("evict", "corp", "**", check=False).returncode != 0
