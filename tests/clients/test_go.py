"""The real `go` against the real server, with modules of the upstream that this machine is configured with."""

from __future__ import annotations

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.parts.golang import Client

pytestmark = pytest.mark.network

PROGRAM = "github.com/goreleaser/goreleaser/v2@v2.4.8"


@pytest.fixture(scope="module")
def registry(server, relay):
    here = server()
    here.apply(
        {
            "repositories": [
                {"key": "go-proxy", "format": "go", "kind": "remote", "upstreams": [{"url": relay.url}]},
                {"key": "go", "format": "go", "kind": "virtual", "members": ["go-local", "go-proxy"], "deploy_to": "go-local"},
            ],
            "grants": [{"role": "reader", "anonymous": True, "repositories": ["go", "go-*"]}],
        }
    )
    return here


@pytest.fixture
def client(tmp_path: Path, registry):
    return lambda name: Client(tmp_path / name, GOPROXY=f"{registry.url}/go/go")


def program_files(registry) -> dict[str, str]:
    """The go.mod of a real program; its go.sum is left out, so that `go` asks the checksum database for each module."""
    module, _, version = PROGRAM.partition("@")
    answer = registry.request("GET", f"/go/go/{module}/@v/{version}.zip")
    assert answer.status == 200, answer.reason
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        return {"go_mod": archive.read(f"{module}@{version}/go.mod").decode()}


def test_a_real_program_is_downloaded_cold_and_warm_and_with_the_upstream_cut_off(registry, relay, client):
    files = program_files(registry)
    cold = client("cold")
    cold.write(**files)
    cold.run("mod", "download")
    zips = cold.zips()
    assert len(zips) >= 300
    assert "all modules verified" in cold.run("mod", "verify").stdout
    lookups = [path for path in relay.seen if "/lookup/" in path]
    assert len(lookups) >= 300, "the checksum database was asked by way of the registry"
    assert {path: count for path, count in relay.seen.items() if count > 1 and path.endswith((".zip", ".mod"))} == {}

    fetched = sum(relay.seen.values())
    files_of_modules = [path for path in relay.seen if path.endswith((".info", ".mod", ".zip"))]
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda path: registry.request("HEAD", f"/go/go{path}").status, files_of_modules)) == {200}
    assert sum(relay.seen.values()) == fetched, "what is here already is asked of nobody"

    cold_sums = (cold.work / "go.sum").read_text()
    cold.discard()
    relay.stop()
    cut_off = client("cut-off")
    cut_off.write(**files)
    cut_off.run("mod", "download")
    assert cut_off.zips() == zips
    assert sum(relay.seen.values()) == fetched
    assert (cut_off.work / "go.sum").read_text() == cold_sums
    cut_off.discard()
    assert registry.manage("fsck").stdout.strip() == "clean"
