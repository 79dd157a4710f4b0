"""That `./dev bench` runs and tells the truth about whom it measures. Nothing is measured here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from bench import corpus
from tests.gomodules import make_zip
from tests.parts.server import ADMIN_PASSWORD, ROOT, Server
from tests.parts.upstream import Handler, Upstream
from tests.parts.upstream import Server as Listener

TIME = "2024-01-02T03:04:05Z"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)


def modules() -> dict[str, bytes]:
    """What a proxy that has the modules of the bench answers, @latest apart."""
    routes = {}
    for module, version in corpus.MODULES.items():
        name = module.replace("!burnt!sushi", "BurntSushi")
        place = f"/{module}/@v"
        routes[f"{place}/{version}.mod"] = f"module {name}\n".encode()
        routes[f"{place}/{version}.info"] = json.dumps({"Version": version, "Time": TIME}).encode()
        routes[f"{place}/{version}.zip"] = make_zip(name, version, {"a.go": b"package a\n"})
        routes[f"{place}/list"] = f"{version}\n".encode()
    return routes


@pytest.fixture
def proxy(upstream) -> Upstream:
    """Stands for the module proxy of this machine, and for a peer that answers as it does."""
    one = upstream()
    one.routes.update(modules())
    return one


needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


def test_the_help_tells_every_scenario():
    said = bench("--help").stdout
    assert all(name in said for name in ("go", "files", "oci", "black-hole", "slow-clients"))


@needs_wrk
def test_every_kind_of_request_is_set_beside_a_peer(proxy, tmp_path: Path):
    figures = tmp_path / "figures.json"
    short = ["--rounds", "1", "--seconds", "1", "--connections", "2", "--json", str(figures)]
    done = bench("go", "--upstream", proxy.url, "--peer", f"scripted={proxy.url}", "--only", "@v/list", *short)
    assert done.returncode == 0, done.stderr
    assert "x scripted" in done.stdout and "processor" in done.stdout
    results = json.loads(figures.read_text())["results"]
    assert [one["target"] for one in results] == ["sqlite remote", "sqlite virtual", "scripted"]
    assert all(one["rounds"][0]["rate"] > 0 and one["rounds"][0]["failed"] == 0 for one in results)


@needs_wrk
def test_a_peer_that_answers_something_else_is_not_measured(proxy, upstream):
    other = upstream()
    other.routes.update(modules())
    path = next(path for path in other.routes if path.endswith(".mod"))
    other.routes[path] = b"module other\n"
    done = bench("go", "--upstream", proxy.url, "--peer", f"other={other.url}", "--only", ".mod")
    assert done.returncode == 1
    assert done.stderr.startswith(f"bench: other answers something else for {path.removeprefix('/')}")


SHORT = ("--rounds", "1", "--seconds", "1", "--connections", "2", "--images", "10")


@pytest.fixture(scope="module")
def registry(server: Callable[..., Server]) -> str:
    """A registry that is given as a peer, by a URL with a name and password for it."""
    other = server()
    other.apply({"repositories": [{"key": "images", "format": "oci", "kind": "local"}]})
    return other.url.replace("://", f"://admin:{quote(ADMIN_PASSWORD)}@") + "/images"


@needs_wrk
def test_pulls_and_pushes_of_images_are_set_beside_another_registry(registry: str, tmp_path: Path):
    figures = tmp_path / "figures.json"
    done = bench("oci", "--peer", f"other={registry}", "--only", "64 KiB", *SHORT, "--json", str(figures))
    assert done.returncode == 0, done.stderr
    assert "x other" in done.stdout
    results = json.loads(figures.read_text())["results"]
    kinds = ["blob of 64 KiB", "blob of 64 KiB, one", "push of 64 KiB"]
    assert [(one["kind"], one["target"]) for one in results] == [
        (kind, name) for kind in kinds for name in ("sqlite local", "other")
    ]
    assert all(one["rounds"][0]["requests"] > 0 and one["rounds"][0]["failed"] == 0 for one in results)


@needs_wrk
def test_what_wrk_cannot_ask_is_measured_too():
    done = bench("oci", "--only", "HEAD of a manifest by tag, one", *SHORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("HEAD of a manifest by tag, one")


@needs_wrk
def test_registries_are_signed_in_to_by_their_token_services(registry: str):
    done = bench("oci", "--bearer", "--only", "in chunks", "--peer", f"other={registry}", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "x other" in done.stdout
    done = bench("oci", "--bearer", "--only", "in chunks", "--peer", f"other={registry.replace('admin:', 'nobody:')}", *SHORT)
    assert done.returncode == 1
    assert done.stderr.startswith("bench: the token service of other answers 401")


class Forger(Handler):
    """Takes whatever is pushed, and has other bytes for it."""

    def do_POST(self) -> None:
        self.answer(202, b"", {"Location": f"{self.path}1"})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201, b"")

    def do_GET(self) -> None:
        self.answer(200, b"other bytes")


@pytest.fixture
def forger() -> Iterator[str]:
    listener = Listener(("127.0.0.1", 0), Forger)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listener.server_address[1]}"
    listener.end()


@needs_wrk
def test_a_registry_that_has_other_bytes_than_were_pushed_is_not_measured(forger: str):
    done = bench("oci", "--peer", f"forger={forger}", "--only", "manifest by tag", *SHORT)
    assert done.returncode == 1
    assert done.stderr.startswith("bench: forger answers something else for manifests/v0")
