"""A private module in git beside public ones, by the real `go` over TLS: a remote repository asks git itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts import golang
from tests.parts.githost import LOGIN, GitHost, seeing
from tests.parts.golang import Client

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="host names need root and unshare"),
]

HOST = "git.corp.example"
LIBRARY = 'package lib\n\nfunc Name() string { return "the private library" }\n'
MAIN = 'package main\n\nimport "git.corp.example/team/lib/v2"\n\nfunc main() { println(lib.Name()) }\n'


@pytest.fixture(scope="module")
def git(tmp_path_factory) -> Iterator[GitHost]:
    host = GitHost(tmp_path_factory.mktemp("git"), [HOST])
    host.private.add("team/lib")
    host.repository("team/lib").commit({"go.mod": f"module {HOST}/team/lib/v2\n\ngo 1.21\n", "lib.go": LIBRARY}, "v2.1.0")
    yield host
    host.stop()


@pytest.fixture(scope="module")
def registry(server, relay, git):
    here = server(prefix=seeing(git.hosts_file()), ENTREPOT_TLS="self", PATH=golang.on_path())
    here.environment["GIT_PASSWORD"] = LOGIN[1]
    upstreams = [
        {"url": f"https://{HOST}", "vcs": "git", "ca": git.ca, "match": [HOST, f"{HOST}/**"],
         "username": LOGIN[0], "password": {"env": "GIT_PASSWORD"}},
        {"url": relay.url},
    ]  # fmt: skip
    here.apply(
        {
            "repositories": [
                {"key": "modules", "format": "go", "kind": "remote", "upstreams": upstreams},
                {"key": "all", "format": "go", "kind": "virtual", "members": ["go-local", "modules"]},
            ],
            "users": [{"name": "dev", "password": "of-the-developer"}],
            "grants": [{"role": "reader", "users": ["dev"], "repositories": ["go-local", "modules", "all"]}],
        }
    )
    return here


def developer(registry, home: Path) -> Client:
    one = Client(
        home,
        GOPROXY=f"{registry.url}/go/all",
        GONOSUMDB=f"{HOST}/*",
        SSL_CERT_FILE=str(registry.data / "tls" / "cert.pem"),
    )
    machine = registry.url.removeprefix("https://")
    (one.home / ".netrc").write_text(f"machine {machine} login dev password of-the-developer\n")
    one.write(go_mod="module example.com/program\n\ngo 1.21\n", main_go=MAIN)
    return one


def test_a_private_module_in_git_is_required_next_to_public_ones(registry, relay, git, tmp_path):
    one = developer(registry, tmp_path / "one")
    said = one.run("get", f"{HOST}/team/lib/v2@latest", "github.com/google/uuid@v1.6.0").stderr
    for line in (f"go: downloading {HOST}/team/lib/v2 v2.1.0", f"go: added {HOST}/team/lib/v2 v2.1.0"):
        assert line in said
    said = one.run("run", ".").stderr
    assert "the private library" in said
    assert "all modules verified" in one.run("mod", "verify").stdout
    assert one.run("list", "-m", "-versions", f"{HOST}/team/lib/v2").stdout.split()[1:] == ["v2.1.0"]
    assert not [path for path in relay.seen if HOST in path], "nobody outside hears of private names"

    cloned = len(git.seen)
    two = developer(registry, tmp_path / "two")
    two.write(go_mod=(one.work / "go.mod").read_text(), go_sum=(one.work / "go.sum").read_text())
    two.run("mod", "download")
    assert len(git.seen) == cloned, "a version is fetched from git once for all developers"
    assert registry.manage("fsck").stdout.strip() == "clean"
    assert LOGIN[1] not in registry.log()
