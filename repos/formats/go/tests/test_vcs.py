"""Asking version control: the limits of its tools, their one way out, and what is made of what they say."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from problems import UpstreamFailed, UpstreamTimeout
from repos.catalogue import Upstream
from repos.formats.go import gateway, sandbox, vcs
from repos.formats.go.gateway import Gateway, imports, is_loopback_literal
from repos.formats.go.sandbox import Scratch, run

SOURCE = Upstream("https://git.corp.example", vcs="git", timeout=5)
ENVIRONMENT = {"PATH": os.environ["PATH"]}


@pytest.fixture(autouse=True)
def own_data(settings, tmp_path: Path) -> Path:
    settings.ENTREPOT = replace(settings.ENTREPOT, data=tmp_path)
    return tmp_path


def shell(scratch: Scratch, script: str) -> sandbox.Done:
    return run(scratch, ["sh", "-c", script], ENVIRONMENT, cwd=scratch.folder, heard=lambda: None)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, as far as it can: a zombie that nobody reaps does nothing any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_command_sees_no_other_environment_and_its_output_is_kept(monkeypatch):
    monkeypatch.setenv("ENTREPOT_SECRET_KEY", "nobody's business")
    with Scratch() as scratch:
        done = shell(scratch, "env; echo said >&2; exit 3")
    assert (done.code, done.stderr) == (3, "said\n")
    assert "business" not in done.stdout and "HOME" not in done.stdout


def test_no_process_is_left_when_a_command_ends(own_data):
    with Scratch() as scratch:
        pid = int(shell(scratch, "sleep 600 & echo $!").stdout)
        until(lambda: is_gone(pid))
    assert list((own_data / "scratch").iterdir()) == []


def test_a_command_that_takes_too_long_is_ended_with_all_its_processes(monkeypatch, own_data):
    monkeypatch.setattr(sandbox, "SECONDS", 0.5)
    monkeypatch.setattr(sandbox, "LOOK", 0.05)
    with Scratch() as scratch:
        with pytest.raises(UpstreamTimeout):
            shell(scratch, "sleep 600 & echo $!; wait")
        pid = int((scratch.folder / "stdout").read_text())
        until(lambda: is_gone(pid))
    assert list((own_data / "scratch").iterdir()) == []


def test_a_command_that_writes_too_much_is_ended(monkeypatch, own_data):
    monkeypatch.setattr(sandbox, "LARGEST_SCRATCH", 4 << 20)
    monkeypatch.setattr(sandbox, "LOOK", 0.05)
    with Scratch() as scratch, pytest.raises(UpstreamFailed, match="more than"):
        shell(scratch, "n=0; while :; do n=$((n+1)); head -c 1000000 /dev/zero > $n; done")
    assert list((own_data / "scratch").iterdir()) == []


def test_a_command_cannot_write_a_file_larger_than_it_may(monkeypatch):
    monkeypatch.setattr(sandbox, "LARGEST_FILE", 1 << 20)
    with Scratch() as scratch:
        assert shell(scratch, "head -c 3000000 /dev/zero > file").code != 0
        assert (scratch.folder / "file").stat().st_size <= 1 << 20


def test_a_command_dies_with_the_server_that_started_it(own_data):
    script = (
        "import os, subprocess, sys, time\n"
        f"command = [sys.executable, {str(sandbox.SUPERVISOR)!r}, '1000000', 'out', 'err', 'sh', '-c', 'echo $$; sleep 600']\n"
        "subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)\n"
        "while not os.path.exists('out') or not open('out').read().endswith('\\n'): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=own_data, timeout=30)
    pid = int((own_data / "out").read_text())
    until(lambda: is_gone(pid))


def test_a_folder_that_a_killed_server_left_is_removed_and_one_in_use_is_not(own_data):
    left = own_data / "scratch" / "left"
    left.mkdir(parents=True)
    (left / "read-only").mkdir(mode=0o500)
    with Scratch() as one, Scratch() as two:
        assert not left.exists()
        assert one.folder.exists() and two.folder.exists()


# The gateway


@contextlib.contextmanager
def through(one: Gateway, request: str, who: str = "") -> Iterator[socket.socket]:
    """A connection to the gateway, on which a request was sent."""
    secret, port = re.search(r"git:(.+)@127\.0\.0\.1:(\d+)", one.address_for("git")).groups()  # type: ignore[union-attr]
    login = f"Proxy-Authorization: Basic {base64.b64encode(f'{who}:{secret}'.encode()).decode()}\r\n" if who else ""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as client:
        client.sendall(f"{request}\r\n{login}\r\n".encode())
        yield client


@contextlib.contextmanager
def tunnel(source: Upstream, place: str) -> Iterator[tuple[Gateway, socket.socket]]:
    """A gateway and git's tunnel through it to a place."""
    with Gateway(source, lambda: None) as one, through(one, f"CONNECT {place} HTTP/1.1", "git") as client:
        assert status(client) == 200
        yield one, client


@contextlib.contextmanager
def host(content: bytes = b"") -> Iterator[tuple[int, list[bytes]]]:
    """A server that sends `content` to who comes, and keeps what they send first."""
    came: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        came.append(client.recv(65536))
                        client.sendall(content)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], came
        listener.shutdown(socket.SHUT_RDWR)


def status(client: socket.socket) -> int:
    return int(client.recv(65536).split()[1])


@pytest.mark.parametrize(
    ("who", "request_line", "code"),
    [
        ("", "CONNECT {} HTTP/1.1", 407),
        ("stranger", "CONNECT {} HTTP/1.1", 407),
        ("go", "CONNECT {} HTTP/1.1", 403),
        ("go", "GET http://{}/x HTTP/1.1", 403),
        ("go", "POST http://{}/x?go-get=1 HTTP/1.1", 403),
        ("git", "CONNECT {} HTTP/1.1", 502),
        ("git", "GET http://{}/x HTTP/1.1", 502),
    ],
)
def test_nobody_else_gets_through_and_git_not_to_what_is_inside(who, request_line, code):
    with host() as (port, came), Gateway(SOURCE, lambda: None) as one:
        with through(one, request_line.format(f"127.0.0.1:{port}"), who) as client:
            assert status(client) == code
        assert came == []
    assert (one.failure is not None) == (code == 502)


def test_git_reaches_the_configured_origin_and_the_networks_that_are_allowed():
    with host(b"hello") as (port, _):
        inside = f"127.0.0.1:{port}"
        for source in (Upstream(f"https://{inside}", vcs="git"), replace(SOURCE, egress=("127.0.0.0/8",))):
            with tunnel(source, inside) as (_, client):
                client.sendall(b"x")
                assert client.recv(5) == b"hello"


def test_an_upstream_without_tls_is_asked_plainly_and_without_what_is_for_the_gateway():
    with host(b"HTTP/1.1 200 OK\r\n\r\nbody") as (port, came):
        url = f"http://127.0.0.1:{port}"
        with (
            Gateway(Upstream(url, vcs="git"), lambda: None) as one,
            through(one, f"GET {url}/a?b HTTP/1.1\r\nHost: h", "git") as client,
        ):
            assert status(client) == 200
        assert came[0].startswith(b"GET /a?b HTTP/1.1\r\nHost: h\r\n") and b"roxy" not in came[0]


def test_a_host_that_sends_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(gateway, "LARGEST", 1 << 20)
    with host(b"x" * (4 << 20)) as (port, _), tunnel(Upstream(f"https://127.0.0.1:{port}"), f"127.0.0.1:{port}") as (one, client):
        client.sendall(b"x")
        with contextlib.suppress(ConnectionResetError):
            while client.recv(65536):
                pass
        until(lambda: one.failure is not None)
    assert isinstance(one.failure, UpstreamFailed) and one.failure.rule == "vcs.size"


def test_a_silent_host_is_a_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        with tunnel(Upstream(f"https://{place}", timeout=0.2), place) as (one, client):
            assert client.recv(1) == b""
    assert isinstance(one.failure, UpstreamTimeout)


@pytest.mark.parametrize(("host", "own"), [("127.0.0.1", True), ("[::1]", True), ("127.0.0.1", False)])
def test_a_silence_is_held_against_the_configured_host_and_port_alone(host, own):
    with socket.create_server((host.strip("[]"), 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as silent:
        port = silent.getsockname()[1]
        source = Upstream(f"https://{host}:{port if own else port - 1}", timeout=0.2, egress=("127.0.0.0/8",))
        with tunnel(source, f"{host}:{port}") as (one, client):
            assert client.recv(1) == b""
    assert one.failure is not None and one.failure.rule == ("upstream.timeout" if own else "vcs.upstream.timeout")


def test_nothing_listens_once_the_command_is_over():
    with Gateway(SOURCE, lambda: None) as one:
        port = int(one.address_for("go").rpartition(":")[2])
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_page_is_read_as_go_reads_it():
    page = (
        '<html><head><META content="a.example git https://a.example/a.git" name="go-import">'
        '<meta name="go-import" content="b.example git https://b.example/b sub"><meta name="go-source" content="a b c d">'
        '<meta name="go-import" content="too short"></head>'
        '<body><meta name="go-import" content="c.example git https://c.example"></body></html>'
    )
    assert imports(page) == [["a.example", "git", "https://a.example/a.git"], ["b.example", "git", "https://b.example/b", "sub"]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True), ("[::ffff:127.0.0.1]", True),
     ("127.0.0.1.example", False), ("10.0.0.1", False), ("0177.0.0.1", False), ("git.corp.example", False)],
)  # fmt: skip
def test_hosts_for_which_go_would_pass_the_gateway_by(name, expected):
    assert is_loopback_literal(name) is expected


# What the tools say

SAID = {
    "m@v9.9.9: invalid version: unknown revision v9.9.9": 404,
    'go: module m: no matching versions for query "v9"': 404,
    'unrecognized import path "h/m": parse http://h/m?go-get=1: no go-import meta tags ()': 404,
    "invalid version: git ls-remote -q --end-of-options origin in {0}/vcs/x: exit status 128:\n"
    "\tfatal: repository 'https://h/m.git/' not found": 404,
    "m@v1.0.0: invalid pseudo-version: does not match version-control timestamp": 404,
    "m@v2.0.0: invalid version: module contains a go.mod file, so module path must match major version": 404,
    "invalid version: git ls-remote -q https://ci:hunter2@h/m in {0}: exit status 128:\n"
    "\tfatal: unable to access 'https://ci:hunter2@h/m/': The requested URL returned error: 500": 502,
    "git ls-remote: exit status 128:\n\tfatal: could not read Username for 'https://h': terminal prompts disabled": 502,
    "git fetch: exit status 128:\n\tfatal: Authentication failed for 'https://h/m.git/'": 502,
    "invalid version: git fetch -f in {0}: signal: killed": 502,
    "create zip from {0}/x: case-insensitive file name collision": 502,
    "something nobody has seen before": 502,
    "": 502,
}


@pytest.mark.parametrize("said", SAID)
def test_only_what_is_known_to_mean_so_is_taken_for_not_there(said):
    with Scratch() as scratch:
        text = vcs._without_folder(said.format(scratch.folder), scratch)
    if SAID[said] == 404:
        vcs._check_nothing_there(SOURCE, text, None)
    else:
        with pytest.raises(UpstreamFailed) as caught:
            vcs._check_nothing_there(SOURCE, text, None)
        assert str(scratch.folder) not in caught.value.reason and "hunter2" not in caught.value.reason


def test_what_the_gateway_saw_goes_before_what_the_tools_say():
    with pytest.raises(UpstreamTimeout):
        vcs._check_nothing_there(SOURCE, "unknown revision v1", UpstreamTimeout("silent"))
