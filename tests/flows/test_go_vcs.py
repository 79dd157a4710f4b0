"""Go modules straight from git, by way of a remote repository whose upstream is version control."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from repos.catalogue import Upstream as Source
from repos.formats.go import vcs
from repos.formats.go.sandbox import Scratch
from tests.gomodules import make_zip
from tests.parts import golang
from tests.parts.githost import LOGIN, GitHost, seeing
from tests.parts.server import ADMIN_PASSWORD, basic
from tests.parts.upstream import Upstream

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="host names need root and unshare")

ADMIN = ("admin", ADMIN_PASSWORD)
HOST, OTHER = "git.corp.example", "git.other.example"
SECONDS = 60
PLACES = {"page": "rest", "repository": "rest.git/info/refs"}
"""Where a git host may say that it is busy: when asked for a module's page, or for its repository."""


@pytest.fixture(scope="module")
def git(tmp_path_factory) -> Iterator[GitHost]:
    host = GitHost(tmp_path_factory.mktemp("git"), [HOST, OTHER])
    yield host
    host.stop()


@pytest.fixture(scope="module")
def public(upstream) -> Upstream:
    one = upstream()
    one.routes["/public.example/m/@v/list"] = b"v1.0.0\n"
    for suffix, content in (
        ("info", b'{"Version":"v1.0.0","Time":"2024-05-06T07:08:09Z"}'),
        ("mod", b"module public.example/m\n"),
        ("zip", make_zip("public.example/m", "v1.0.0", {"m.go": b"package m\n"})),
    ):
        one.routes[f"/public.example/m/@v/v1.0.0.{suffix}"] = content
    return one


@pytest.fixture(scope="module")
def world(server, git, public):
    here = server(prefix=seeing(git.hosts_file()), PATH=golang.on_path())
    at_once = {"lifetime": "0s", "missing": "0s"}
    corp = {"url": f"https://{HOST}", "vcs": "git", "ca": git.ca}
    login = {"username": LOGIN[0], "password": LOGIN[1]}
    here.apply(
        {
            "repositories": [
                {"key": "go-local", "format": "go", "kind": "local"},
                {"key": "git", "format": "go", "kind": "remote", "cache": at_once,
                 "upstreams": [{**corp, **login, "match": [HOST, f"{HOST}/**"]}, {"url": public.url}]},
                {"key": "no-login", "format": "go", "kind": "remote", "cache": at_once, "upstreams": [corp]},
                {"key": "hosts", "format": "go", "kind": "remote", "cache": at_once,
                 "upstreams": [{**corp, **login, "match": [HOST, f"{HOST}/**", f"{OTHER}/**", "127.0.0.1/**"]}]},
                {"key": "hasty", "format": "go", "kind": "remote", "cache": at_once, "upstreams": [{**corp, "timeout": "1s"}]},
                {"key": "lasting", "format": "go", "kind": "remote", "cache": {"missing": "1s"}, "upstreams": [corp]},
                *({"key": f"busy-{place}", "format": "go", "kind": "remote", "cache": at_once,
                   "upstreams": [{**corp, "username": place, "password": "x"}]} for place in PLACES),
                {"key": "part", "format": "go", "kind": "remote", "cache": at_once, "upstreams": [{"url": public.url,
                 "match": ["public.example/**"]}]},
                {"key": "all", "format": "go", "kind": "virtual", "members": ["go-local", "git"], "deploy_to": "go-local"},
            ]
        }
    )  # fmt: skip
    return here


@pytest.fixture
def go(world):
    return lambda path, repository="git": world.request("GET", f"/go/{repository}/{path}", user=ADMIN)


def module(name: str) -> dict[str, str]:
    return {"go.mod": f"module {HOST}/{name}\n\ngo 1.21\n", "lib.go": "package lib\n"}


def scratch(world) -> list[Path]:
    folder = world.data / "scratch"
    return list(folder.iterdir()) if folder.exists() else []


def test_tags_branches_commits_and_pseudo_versions_are_what_git_has(git, go):
    one = git.repository("team/lib")
    first = one.commit(module("team/lib"), "v1.0.0", "v1.1.0-rc.1", "not-a-version")
    second = one.commit({"lib.go": "package lib // 2\n"}, branch="main")
    branch = one.commit({"lib.go": "package lib // 3\n"}, branch="feature/x")
    base = f"{HOST}/team/lib"
    assert go(f"{base}/@v/list").body == b"v1.0.0\nv1.1.0-rc.1\n"
    assert json.loads(go(f"{base}/@latest").body)["Version"] == "v1.0.0"
    pseudo = f"v1.1.0-rc.1.0.20240506070809-{second[:12]}"
    for question in ("main", second, second[:12]):
        assert json.loads(go(f"{base}/@v/{question}.info").body) == {"Version": pseudo, "Time": "2024-05-06T07:08:09Z"}
    assert branch[:12] in json.loads(go(f"{base}/@v/feature/x.info").body)["Version"]
    assert json.loads(go(f"{base}/@v/{first[:10]}.info").body)["Version"] == "v1.1.0-rc.1"
    assert json.loads(go(f"{base}/@v/v1.info").body)["Version"] == "v1.0.0"
    for version in ("v1.0.0", pseudo):
        assert json.loads(go(f"{base}/@v/{version}.info").body)["Version"] == version
        assert go(f"{base}/@v/{version}.mod").body == module("team/lib")["go.mod"].encode()
        assert go(f"{base}/@v/{version}.zip").body[:2] == b"PK"


def test_major_versions_and_modules_in_folders_are_found(git, go):
    one = git.repository("team/many")
    one.commit(
        {**module("team/many"), "sub/go.mod": f"module {HOST}/team/many/sub\n", "sub/s.go": "package s\n"}, "v1.0.0", "sub/v0.1.0"
    )
    one.commit({"go.mod": f"module {HOST}/team/many/v2\n"}, "v2.0.0")
    assert go(f"{HOST}/team/many/@v/list").body == b"v1.0.0\n"
    assert go(f"{HOST}/team/many/v2/@v/list").body == b"v2.0.0\n"
    assert go(f"{HOST}/team/many/v2/@v/v2.0.0.zip").status == 200
    assert go(f"{HOST}/team/many/sub/@v/list").body == b"v0.1.0\n"
    assert go(f"{HOST}/team/many/sub/@v/v0.1.0.mod").status == 200


@pytest.mark.parametrize(
    "path", ["none/@v/list", "@latest", "team/none/@latest", "here/@v/v9.9.9.info", "here/@v/no-branch.info", "here/sub/@latest",
             "here/@v/v0.0.0-20240506070809-abcdefabcdef.zip", "here/v3/@latest", "here/@v/v2.0.0+incompatible.mod"]
)  # fmt: skip
def test_what_git_does_not_have_is_not_found(git, go, path):
    if not (git.root / "work" / "here").exists():
        git.repository("here").commit(module("here"), "v1.0.0")
    assert go(f"{HOST}/{path}").status == 404


def test_a_versions_three_files_are_one_clone_and_one_change(world, git, go):
    git.repository("once").commit(module("once"), "v1.0.0")
    (before, _, _) = world.counts()
    for suffix in ("info", "mod", "zip"):
        assert go(f"{HOST}/once/@v/v1.0.0.{suffix}").status == 200
    fetches = git.fetches("once")
    for suffix in ("zip", "mod", "info"):
        assert go(f"{HOST}/once/@v/v1.0.0.{suffix}").headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert git.fetches("once") == fetches
    assert world.counts()[0] == before + 1
    assert scratch(world) == []


def test_twenty_clients_of_one_version_cause_one_clone(git, go):
    git.repository("alone").commit({**module("alone"), "data": "x" * 100_000}, "v1.0.0")
    git.repository("crowd").commit({**module("crowd"), "data": "x" * 100_000}, "v1.0.0")
    go(f"{HOST}/alone/@v/v1.0.0.zip")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: go(f"{HOST}/crowd/@v/v1.0.0.zip"), range(20)))
    assert {answer.status for answer in answers} == {200} and len({answer.body for answer in answers}) == 1
    assert git.clones("crowd") == git.clones("alone")


def test_info_and_mod_are_served_where_no_zip_can_be_made(git, go):
    one = git.repository("odd")
    one.commit({**module("odd"), "a.go": "package a\n", "A.go": "package a\n"}, "v1.0.0")
    answer = go(f"{HOST}/odd/@v/v1.0.0.zip")
    assert answer.status == 502 and "case-insensitive" in answer.reason
    assert go(f"{HOST}/odd/@v/v1.0.0.info").status == 200
    assert go(f"{HOST}/odd/@v/v1.0.0.mod").status == 200


def test_a_zip_that_cannot_be_made_is_never_missing_to_who_asks_while_another_gets_the_info(git, go):
    held = threading.Event()
    one = git.repository("both")
    one.commit({**module("both"), "a.go": "package a\n", "A.go": "package a\n"}, "v1.0.0")
    git.routes[f"{HOST}/both"] = lambda handler: (held.wait(SECONDS), page(f"{HOST}/both git https://{HOST}/both.git")(handler))
    with ThreadPoolExecutor(2) as pool:
        info = pool.submit(go, f"{HOST}/both/@v/v1.0.0.info")
        until(lambda: [path for _, path, _ in git.seen if path.startswith("/both?")])
        made = pool.submit(go, f"{HOST}/both/@v/v1.0.0.zip")
        wait([made], 1)  # it finds the other's command
        held.set()
    assert info.result().status == 200
    assert made.result().status == 502 and "case-insensitive" in made.result().reason


def test_a_version_that_was_not_there_before_its_tag_is_there_once_any_of_its_files_was_asked_for(git, go):
    one = git.repository("tagged")
    one.commit(module("tagged"))
    for suffix in ("info", "mod", "zip"):
        assert go(f"{HOST}/tagged/@v/v1.0.0.{suffix}", "lasting").status == 404
    one.commit({"lib.go": "package lib // tagged\n"}, "v1.0.0")
    assert go(f"{HOST}/tagged/@v/v1.0.0.mod").status == 200
    until(lambda: go(f"{HOST}/tagged/@v/v1.0.0.zip", "lasting").status == 200)
    for suffix in ("info", "mod"):
        assert go(f"{HOST}/tagged/@v/v1.0.0.{suffix}", "lasting").status == 200


def test_private_names_go_to_git_alone_and_public_ones_to_the_proxy(git, public, go):
    git.repository("mine").commit(module("mine"), "v1.0.0")
    for repository in ("git", "all"):
        assert go(f"{HOST}/mine/@v/list", repository).body == b"v1.0.0\n"
        assert go("public.example/m/@v/v1.0.0.zip", repository).status == 200
        assert go(f"{HOST}/not-mine/@v/list", repository).status == 404
    asked = len(git.seen)
    assert go("public.example/m/@v/list", "no-login").status == 404, "without match it has what is under its host"
    assert go("elsewhere.example/m/@v/list", "part").status == 404, "no upstream has this name"
    assert len(git.seen) == asked
    assert not [path for path, _ in public.seen if HOST in path or "elsewhere" in path]


def test_a_failing_git_host_does_not_send_private_names_to_the_proxy(git, public, go):
    git.routes[f"{HOST}/broken"] = lambda handler: handler.answer(500, b"oops")
    answer = go(f"{HOST}/broken/@v/list")
    assert answer.status == 502 and "500" in answer.reason
    assert not [path for path, _ in public.seen if HOST in path]


def test_a_checksum_of_a_name_that_git_has_is_looked_up_nowhere(public, go):
    assert go(f"sumdb/sums.example/lookup/{HOST}/mine@v1.0.0").status == 404
    assert not [path for path, _ in public.seen if "lookup" in path]


def test_a_repository_that_needs_a_password_is_read_with_it_and_no_other_host_sees_it(git, go):
    git.private.add("secret")
    git.repository("secret").commit(module("secret"), "v1.0.0")
    git.repository("moved").commit(module("moved"), "v1.0.0")
    assert go(f"{HOST}/secret/@v/v1.0.0.zip").status == 200
    answer = go(f"{HOST}/secret/@v/v1.0.0.zip", "no-login")
    assert answer.status == 502 and "credentials" in answer.reason
    git.routes[f"{HOST}/away"] = page(f"{HOST}/away git https://{OTHER}/moved.git")
    go(f"{HOST}/away/@v/list", "hosts")
    go(f"{OTHER}/moved/@v/list", "hosts")
    assert basic(LOGIN) in {authorization for host, _, authorization in git.seen if host == HOST}
    assert not [seen for seen in git.seen if seen[0] != HOST and seen[2]]


def page(content: str):
    return lambda handler: handler.answer(200, f'<html><head><meta name="go-import" content="{content}"></head></html>'.encode())


def redirect(location: str):
    return lambda handler: handler.answer(302, b"", {"Location": location})


@contextlib.contextmanager
def listening(address: str) -> Iterator[tuple[int, list]]:
    """Something inside that must not be connected to: its port, and who came."""
    came: list = []
    with socket.create_server((address, 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    came.append(client)
                    client.close()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], came
        listener.shutdown(socket.SHUT_RDWR)


HOSTILE = {
    "a repository on loopback": lambda port: page(f"{HOST}/evil git https://127.0.0.1:{port}/evil.git"),
    "a repository on localhost": lambda port: page(f"{HOST}/evil git https://localhost:{port}/evil.git"),
    "a repository on loopback, written in octal": lambda port: page(f"{HOST}/evil git https://0177.0.0.1:{port}/evil.git"),
    "a repository on loopback, mapped": lambda port: page(f"{HOST}/evil git https://[::ffff:127.0.0.1]:{port}/evil.git"),
    "a repository at a link-local address": lambda port: page(f"{HOST}/evil git https://169.254.169.254/evil.git"),
    "a repository at another port of its own host": lambda port: page(f"{HOST}/evil git https://{HOST}:{port}/evil.git"),
    "a repository without TLS": lambda port: page(f"{HOST}/evil git http://127.0.0.1:{port}/evil.git"),
    "a repository by ssh": lambda port: page(f"{HOST}/evil git ssh://git@127.0.0.1:{port}/evil.git"),
    "a file": lambda port: page(f"{HOST}/evil git file:///etc"),
    "an option": lambda port: page(f"{HOST}/evil git --upload-pack=/bin/true"),
    "a module proxy on loopback": lambda port: page(f"{HOST}/evil mod https://127.0.0.1:{port}"),
    "another kind of version control": lambda port: page(f"{HOST}/evil hg https://127.0.0.1:{port}/evil"),
    "a redirect to loopback": lambda port: redirect(f"https://127.0.0.1:{port}/"),
    "a redirect to plain http": lambda port: redirect(f"http://127.0.0.1:{port}/"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_page_names_is_asked_only_where_egress_may_go(world, git, go, name):
    address = git.address if "own host" in name else "127.0.0.1"
    with listening(address) as (port, came):
        git.routes[f"{HOST}/evil"] = HOSTILE[name](port)
        answer = go(f"{HOST}/evil/@v/v1.0.0.info")
        assert answer.status == 502, answer.reason
        assert came == []
    assert str(world.data) not in answer.body.decode() and LOGIN[1] not in answer.body.decode()


def test_a_module_whose_host_is_a_loopback_address_is_asked_of_nobody(go):
    with listening("127.0.0.1") as (_, came):
        assert go("127.0.0.1/m/@v/list", "hosts").status == 404
        assert came == []


def test_a_repository_that_redirects_is_not_followed(git, go):
    git.repository("target").commit(module("target"), "v1.0.0")
    git.routes[f"{HOST}/turned"] = page(f"{HOST}/turned git https://{HOST}/turned.git")
    git.routes[f"{HOST}/turned.git/info/refs"] = redirect(f"https://{OTHER}/target.git/info/refs?service=git-upload-pack")
    assert go(f"{HOST}/turned/@v/list").status == 502
    assert not git.clones("target")


def test_a_silent_git_host_is_a_timeout(world, git, go):
    held = threading.Event()
    git.repository("silent").commit(module("silent"), "v1.0.0")
    git.routes[f"{HOST}/silent.git/info/refs"] = lambda handler: held.wait(SECONDS)
    try:
        answer = go(f"{HOST}/silent/@v/v1.0.0.zip", "hasty")
        assert answer.status == 504, answer.reason
    finally:
        held.set()
    assert scratch(world) == []
    del git.routes[f"{HOST}/silent.git/info/refs"]


def test_a_git_host_that_breaks_off_or_lies_is_its_failure(world, git, go):
    git.repository("liar").commit(module("liar"), "v1.0.0")
    path = f"{HOST}/liar.git/git-upload-pack"
    for n, route in enumerate((
        lambda handler: handler.answer(500, b""),
        lambda handler: handler.answer(200, b"000cPACKrubbish", {"Content-Type": "application/x-git-upload-pack-result"}),
        lambda handler: handler.connection.shutdown(socket.SHUT_RDWR),
    )):  # fmt: skip
        git.routes[path] = route
        assert go(f"{HOST}/liar/@v/v1.0.0.zip").status == 502, n
    del git.routes[path]
    assert go(f"{HOST}/liar/@v/v1.0.0.zip").status == 200
    assert scratch(world) == []


@pytest.fixture(scope="module")
def small(server, git):
    """One process of few threads, and two git hosts."""
    here = server(prefix=seeing(git.hosts_file()), PATH=golang.on_path(), ENTREPOT_WORKERS="1", ENTREPOT_THREADS="8")
    login = {place: {"username": place, "password": "x"} for place in PLACES}
    upstreams = {"one": (HOST, {}), "two": (OTHER, {}), **{f"down-{place}": (HOST, login[place]) for place in PLACES}}
    at_once = {"lifetime": "0s", "missing": "0s"}
    here.apply(
        {
            "repositories": [
                {"key": key, "format": "go", "kind": "remote", "cache": at_once,
                 "upstreams": [{"url": f"https://{host}", "vcs": "git", "ca": git.ca, **one}]}
                for key, (host, one) in upstreams.items()
            ]
        }
    )  # fmt: skip
    return here


@pytest.fixture
def answering(git):
    """What the git host says for its page of a module, or for its repository."""
    if not (git.root / "work" / "rest").exists():
        git.repository("rest").commit(module("rest"), "v1.0.0")

    @contextlib.contextmanager
    def answering(place: str, status: int, headers: dict[str, str]) -> Iterator[None]:
        git.routes[f"{HOST}/{PLACES[place]}"] = lambda handler: handler.answer(status, b"busy", headers)
        yield
        del git.routes[f"{HOST}/{PLACES[place]}"]

    return answering


@pytest.mark.parametrize("place", PLACES)
def test_a_git_host_that_wants_to_be_left_alone_is(git, go, answering, place):
    with answering(place, 429, {"Retry-After": "50"}):
        for _ in range(3):
            answer = go(f"{HOST}/rest/@v/list", f"busy-{place}")
            assert answer.status == 503 and "upstream.rest" in answer.headers["X-Entrepot-Reason"]
            assert 1 <= int(answer.headers["Retry-After"]) <= 50
    asked = len(git.seen)
    assert go(f"{HOST}/rest/@v/list", f"busy-{place}").status == 503
    assert len(git.seen) == asked


@pytest.mark.parametrize("place", PLACES)
def test_a_git_host_that_is_down_is_left_alone(small, answering, place):
    with answering(place, 503, {}):
        answers = [small.request("GET", f"/go/down-{place}/{HOST}/rest/@v/list", user=ADMIN) for _ in range(4)]
    assert [answer.status for answer in answers] == [502, 502, 502, 503]
    assert "upstream.out" in answers[3].headers["X-Entrepot-Reason"]


def test_a_git_host_that_drips_is_silent_to_all_who_wait_and_keeps_no_other_waiting(small, git):
    """Of eight threads two wait for it on; what another host has is answered meanwhile."""
    done = threading.Event()

    def drip(handler) -> None:
        handler.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not done.wait(0.2):
            handler.connection.sendall(b"0")

    for n in range(6):
        git.repository(f"drips{n}").commit(module(f"drips{n}"), "v1.0.0")
        git.routes[f"{HOST}/drips{n}.git/info/refs"] = drip
    git.routes[f"{OTHER}/quick"] = page(f"{OTHER}/quick git https://{OTHER}/quick.git")
    git.repository("quick").commit({"go.mod": f"module {OTHER}/quick\n"}, "v1.0.0")

    def get(repository: str, path: str):
        return small.request("GET", f"/go/{repository}/{path}", user=ADMIN)

    paths = ["@v/list", "@v/main.info", "@latest", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip"]
    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(get, "one", f"{HOST}/drips{n // 3}/{path}") for n, path in enumerate(paths)]
        try:
            refused = [one.result() for one in islice(as_completed(asking, SECONDS), 4)]
            assert {answer.status for answer in refused} == {503}
            assert {"upstream.waiting" in answer.headers["X-Entrepot-Reason"] for answer in refused} == {True}
            assert get("two", f"{OTHER}/quick/@v/list").body == b"v1.0.0\n"
        finally:
            done.set()


def test_go_gathers_no_telemetry_for_which_it_would_start_a_process_of_its_own(settings, tmp_path):
    settings.ENTREPOT = replace(settings.ENTREPOT, data=tmp_path)
    with Scratch() as folder:
        done, failure = vcs._go(Source(url=f"https://{HOST}", vcs="git"), folder, lambda: None, "telemetry")
    assert (done.code, done.stdout.strip(), failure) == (0, "off", None)


def test_with_the_git_host_down_the_newest_answer_is_served_and_marked_stale(git, go):
    git.repository("stale").commit(module("stale"), "v1.0.0")
    assert go(f"{HOST}/stale/@v/list").status == 200
    git.routes[f"{HOST}/stale"] = lambda handler: handler.answer(503, b"")
    answer = go(f"{HOST}/stale/@v/list")
    assert (answer.status, answer.body) == (200, b"v1.0.0\n") and "Stale" in answer.headers["Warning"]
    del git.routes[f"{HOST}/stale"]


def test_a_server_without_git_says_what_to_install(server, git, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "go").symlink_to(golang.program())
    here = server(PATH=str(tools))
    here.apply(
        {
            "repositories": [
                {"key": "git", "format": "go", "kind": "remote", "upstreams": [{"url": f"https://{HOST}", "vcs": "git"}]}
            ]
        }
    )
    answer = here.request("GET", f"/go/git/{HOST}/m/@v/list", user=ADMIN)
    assert answer.status == 503 and "must install git" in answer.reason


def processes_below(folder: Path) -> list[int]:
    """The processes whose environment or working directory is in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(folder).encode() in (entry / "environ").read_bytes().split(b"HOME=", 1)[-1][:200]:
                found.append(int(entry.name))
    return found


def until(condition) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_server_leaves_no_process_and_its_folder_goes_with_the_next_use(server, git):
    here = server(prefix=seeing(git.hosts_file()), PATH=golang.on_path())
    here.apply({"repositories": [{"key": "git", "format": "go", "kind": "remote",
                                  "upstreams": [{"url": f"https://{HOST}", "vcs": "git", "ca": git.ca}]}]})  # fmt: skip
    held = threading.Event()
    git.repository("killed").commit(module("killed"), "v1.0.0")
    git.routes[f"{HOST}/killed.git/info/refs"] = lambda handler: held.wait(SECONDS)

    def ask() -> None:
        with contextlib.suppress(Exception):
            here.request("GET", f"/go/git/{HOST}/killed/@v/v1.0.0.zip", user=ADMIN)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: git.clones("killed"))
    assert processes_below(here.data / "scratch")
    here.kill()
    asking.join()
    until(lambda: not processes_below(here.data / "scratch"))
    held.set()
    assert scratch(here)
    del git.routes[f"{HOST}/killed.git/info/refs"]
    here.start()
    assert here.request("GET", f"/go/git/{HOST}/killed/@v/v1.0.0.zip", user=ADMIN).status == 200
    assert scratch(here) == []
