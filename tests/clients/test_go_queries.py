"""Every form of version query by the real `go`: through the registry it gives what it gives against the upstream itself."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.parts import golang
from tests.parts.githost import GitHost, seeing
from tests.parts.golang import Client

HOST = "git.corp.example"
LIB, OLD = f"{HOST}/Team/Lib", f"{HOST}/team/old"
MACHINE_DEPENDENT = ("Dir", "GoMod", "Origin", "Info", "Zip")
Ask = Callable[..., Any]


def asker(client: Client) -> Ask:
    """Asks `go list -m -json`: what it lists; where it fails, what it says, without addresses and the server's own words."""

    def ask(*arguments: str) -> Any:
        done = client.run("list", "-m", "-json", *arguments, check=False)
        if done.returncode:
            said = re.sub(r"https?://\S+?/(?=[a-zA-Z0-9.!-]+\.[a-z]+/)", "", done.stderr)
            return [line for line in said.splitlines() if "server response" not in line and "downloading" not in line]
        decoder, text, found = json.JSONDecoder(), done.stdout.strip(), []
        while text:
            value, end = decoder.raw_decode(text)
            found.append(without_machine(value))
            text = text[end:].strip()
        return found

    return ask


def without_machine(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: without_machine(inner) for key, inner in value.items() if key not in MACHINE_DEPENDENT}


# Against a git host


needs_names = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="host names need root and unshare")


@pytest.fixture(scope="module")
def git(tmp_path_factory) -> Iterator[GitHost]:
    host = GitHost(tmp_path_factory.mktemp("git"), [HOST])
    lib = host.repository("Team/Lib")
    for version in ("v1.0.0", "v1.0.1", "v1.1.0", "v1.2.0", "v1.2.1-rc.1", "v1.3.0"):
        lib.commit({"go.mod": f"module {LIB}\n\ngo 1.21\n", "lib.go": f"package lib // {version}\n"}, version)
    retracting = f"// Deprecated: use {LIB}/v2 instead.\nmodule {LIB}\n\ngo 1.21\n\nretract v1.3.0 // went wrong\n"
    lib.commit({"go.mod": retracting}, "v1.3.1")
    host.main = lib.commit({"lib.go": "package lib // main\n"})  # type: ignore[attr-defined]
    host.branch = lib.commit({"lib.go": "package lib // branch\n"}, branch="work")  # type: ignore[attr-defined]
    lib.commit({"sub/go.mod": f"module {LIB}/sub\n", "sub/s.go": "package sub\n"}, "sub/v0.1.0", branch="subs")
    lib.commit({"go.mod": f"module {LIB}/v2\n\ngo 1.21\n"}, "v2.0.0", branch="two")
    old = host.repository("team/old")
    old.commit({"old.go": "package old\n"}, "v1.0.0")
    old.commit({"old.go": "package old // 2\n"}, "v2.0.0", "v3.1.0")
    host.repository("team/untagged").commit({"go.mod": f"module {HOST}/team/untagged\n", "u.go": "package u\n"})
    yield host
    host.stop()


@pytest.fixture(scope="module")
def ways(git, server, tmp_path_factory) -> dict[str, Ask]:
    """How the same is asked: of the git host itself, and by way of a remote and of a virtual repository."""
    here = server(prefix=seeing(git.hosts_file()), PATH=golang.on_path())
    here.apply(
        {
            "repositories": [
                {"key": "git", "format": "go", "kind": "remote",
                 "upstreams": [{"url": f"https://{HOST}", "vcs": "git", "ca": git.ca}]},
                {"key": "all", "format": "go", "kind": "virtual", "members": ["go-local", "git"]},
            ],
            "grants": [{"role": "reader", "anonymous": True, "repositories": ["*"]}],
        }
    )  # fmt: skip
    home = tmp_path_factory.mktemp("clients")
    asked = {}
    for name in ("direct", "git", "all"):
        settings = {"GOPROXY": f"{here.url}/go/{name}"}
        if name == "direct":
            settings = {"GOPROXY": "direct", "GOVCS": "*:git", "SSL_CERT_FILE": git.ca, "GIT_SSL_CAINFO": git.ca}
        client = Client(home / name, prefix=seeing(git.hosts_file()), GOSUMDB="off", **settings)
        client.write(go_mod=f"module program.example\n\ngo 1.21\n\nrequire {LIB} v1.0.0\n")
        asked[name] = asker(client)
    return asked


QUERIES = [
    "latest", "upgrade", "patch", "v1", "v1.0", "v1.1", "v1.2", "<v1.2.0", "<=v1.2.0", ">v1.0.0", ">=v1.1.0", "v1.0.1",
    "v1.2.1-rc.1", "v1.3.0", "main", "work",
]  # fmt: skip


@needs_names
@pytest.mark.parametrize("query", QUERIES)
def test_a_query_gives_what_git_itself_gives(ways, query):
    expected = ways["direct"](f"{LIB}@{query}")
    assert expected[0]["Version"]
    assert ways["git"](f"{LIB}@{query}") == ways["all"](f"{LIB}@{query}") == expected


@needs_names
def test_commits_give_what_git_itself_gives(git, ways):
    for commit in (git.main, git.branch, git.main[:12], git.branch[:8]):
        expected = ways["direct"](f"{LIB}@{commit}")
        assert expected[0]["Version"].endswith(commit[:8]) or commit[:8] in expected[0]["Version"]
        assert ways["git"](f"{LIB}@{commit}") == ways["all"](f"{LIB}@{commit}") == expected
        pseudo = f"{LIB}@{expected[0]['Version']}"
        assert ways["git"](pseudo) == ways["all"](pseudo) == ways["direct"](pseudo)


@needs_names
@pytest.mark.parametrize(
    "arguments",
    [("-versions", LIB), ("-versions", "-retracted", LIB), ("-u", LIB), ("-u", "-retracted", "all"),
     ("-retracted", f"{LIB}@v1.3.0"), (f"{LIB}/v2@latest",),
     (f"{LIB}/sub@latest",), (f"{OLD}@latest",), (f"{OLD}@v2",), (f"{OLD}@v3.1.0+incompatible",),
     ("-versions", OLD), (f"{HOST}/team/untagged@latest",), ("-versions", f"{HOST}/team/untagged")],
    ids=" ".join,
)  # fmt: skip
def test_lists_updates_retractions_and_majors_are_what_git_itself_gives(ways, arguments):
    expected = ways["direct"](*arguments)
    assert isinstance(expected[0], dict), expected
    assert ways["git"](*arguments) == ways["all"](*arguments) == expected


@needs_names
def test_a_deprecation_and_a_retraction_are_told(ways):
    for way in ways.values():
        assert "Deprecated" in way("-u", f"{LIB}@latest")[0]
        assert way("-retracted", f"{LIB}@v1.3.0")[0]["Retracted"] == ["went wrong"]
        assert "v1.3.0" not in way("-versions", LIB)[0]["Versions"]


@needs_names
@pytest.mark.parametrize("argument", [f"{LIB}@v9.9.9", f"{LIB}@v9", f"{LIB}@nothing", f"{LIB}@abcdefabcdef", f"{LIB}/v3@latest",
                                      f"{LIB}/none@latest", f"{HOST}/none@latest", f"{LIB}@v2.0.0"])  # fmt: skip
def test_what_git_does_not_have_is_not_there_through_us_either(ways, argument):
    for name, way in ways.items():
        said = " ".join(map(str, way(argument)))
        assert "go: " in said, "it fails"
        if name != "direct":
            assert "404" in said or "no matching versions" in said, said


# Against a module proxy


@pytest.fixture(scope="module")
def proxied(server, relay, tmp_path_factory) -> dict[str, Ask]:
    here = server()
    here.apply(
        {
            "repositories": [
                {"key": "public", "format": "go", "kind": "remote", "upstreams": [{"url": relay.url}]},
                {"key": "all", "format": "go", "kind": "virtual", "members": ["go-local", "public"]},
            ],
            "grants": [{"role": "reader", "anonymous": True, "repositories": ["*"]}],
        }
    )
    home = tmp_path_factory.mktemp("clients")
    proxies = {"upstream": golang.upstream(), "remote": f"{here.url}/go/public", "virtual": f"{here.url}/go/all"}
    asked = {}
    for name, url in proxies.items():
        client = Client(home / name, GOPROXY=url)
        client.write(go_mod="module program.example\n\ngo 1.21\n\nrequire github.com/google/uuid v1.1.1\n")
        asked[name] = asker(client)
    return asked


UUID = "github.com/google/uuid"
PUBLIC = [
    *((f"{UUID}@{query}",) for query in ("latest", "upgrade", "patch", "v1", "v1.2", "<v1.2.0", ">=v1.1.3", "<=v1.1.0")),
    (f"{UUID}@v1.3.1",),
    ("-versions", UUID), ("-versions", "-retracted", UUID), ("-u", UUID), ("-u", "-retracted", "all"),
    ("-retracted", "github.com/mattn/go-sqlite3@v2.0.3+incompatible"), ("-versions", "github.com/mattn/go-sqlite3"),
    ("-u", "github.com/golang/protobuf@v1.4.0"), ("github.com/russross/blackfriday@v2",), ("gopkg.in/yaml.v3@latest",),
    ("-versions", "gopkg.in/yaml.v2"), ("github.com/BurntSushi/toml@latest",), ("-versions", "github.com/BurntSushi/toml"),
    ("github.com/Masterminds/semver/v3@latest",), ("golang.org/x/mod@v0.1.1-0.20191105210325-c90efee705ee",),
]  # fmt: skip


@pytest.mark.network
@pytest.mark.parametrize("arguments", PUBLIC, ids=" ".join)
def test_a_query_gives_what_the_module_proxy_gives(proxied, arguments):
    expected = proxied["upstream"](*arguments)
    assert isinstance(expected[0], dict), expected
    assert proxied["remote"](*arguments) == proxied["virtual"](*arguments) == expected


@pytest.mark.network
@pytest.mark.parametrize("argument", [f"{UUID}@v1.99", f"{UUID}@<v0.0.1", f"{UUID}@v9.9.9", f"{UUID}@no-branch",
                                      f"{UUID}/none@latest",
                                      "corp.example/none@latest", f"{UUID}@feature/x"])  # fmt: skip
def test_a_query_that_fails_fails_in_the_same_way(proxied, argument):
    """Not there stays not there, in the same words; another refusal is a failure of the upstream and never "not there"."""
    expected = proxied["upstream"](argument)
    assert not isinstance(expected[0], dict)
    status = re.search(r"\b(4\d\d|5\d\d) [A-Z]", " ".join(expected))
    for name in ("remote", "virtual"):
        found = proxied[name](argument)
        if status and status[1] not in ("404", "410"):
            assert "502" in " ".join(found), found
        else:
            gone = [re.sub(r"\b(404|410) .*", "not there", line) for line in expected]
            assert gone == [re.sub(r"\b404 .*", "not there", line) for line in found]
