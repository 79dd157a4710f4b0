"""That `./dev bench` runs and tells the truth about whom it measures. Nothing is measured here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import corpus
from tests.gomodules import make_zip
from tests.parts.server import ROOT
from tests.parts.upstream import Upstream

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
    assert all(name in said for name in ("go", "files", "black-hole", "slow-clients"))


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
