"""Another version of Go itself, fetched through the registry as `GOTOOLCHAIN` has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.parts import golang
from tests.parts.golang import Client

pytestmark = pytest.mark.network

LARGEST_GROWTH = 64 << 20
"""Bytes that checking a zip of 70 MB may add to the most memory that the server has had."""


@pytest.fixture(scope="module")
def registry(server, relay):
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
    return here


def another(tmp_path: Path) -> str:
    """A version for this machine that its own upstream has, and that is not the one installed."""
    client = Client(tmp_path / "looking", GOPROXY=golang.upstream())
    platform = "-".join(client.run("env", "GOOS", "GOARCH").stdout.split())
    mine = client.run("env", "GOVERSION").stdout.strip()
    listed = client.run("list", "-m", "-versions", "golang.org/toolchain").stdout.split()
    found = re.findall(rf"v0\.0\.1-(go1\.2[45]\.\d+)\.{platform}(?= |$)", " ".join(listed))
    return next(version for version in reversed(found) if version != mine)


def test_a_toolchain_is_fetched_verified_and_run(registry, relay, tmp_path):
    version = another(tmp_path)
    before = registry.memory_peak()
    client = Client(tmp_path / "one", GOPROXY=f"{registry.url}/go/all", GOTOOLCHAIN=version, GOSUMDB="sum.golang.org")
    done = client.run("version")
    assert done.stdout.split()[2] == version
    assert f"go: downloading {version} (" in done.stderr
    assert [path for path in relay.seen if "/lookup/golang.org/toolchain@" in path], "verified by the checksum database"
    assert sum(count for path, count in relay.seen.items() if path.endswith(".zip")) == 1
    assert registry.memory_peak() - before < LARGEST_GROWTH
    client.discard()
