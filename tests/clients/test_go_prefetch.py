"""A go.sum is prefetched, and then the real `go` builds with the upstream cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parts.golang import Client

pytestmark = pytest.mark.network

MAIN = 'package main\n\nimport "rsc.io/quote"\n\nfunc main() { println(quote.Hello()) }\n'
GO_MOD = "module example.com/program\n\ngo 1.21\n\nrequire rsc.io/quote v1.5.2\n"


def test_a_build_needs_no_upstream_once_its_go_sum_was_prefetched(server, relay, tmp_path: Path):
    elsewhere = Client(tmp_path / "elsewhere", GOPROXY=relay.url)
    elsewhere.write(go_mod=GO_MOD, main_go=MAIN)
    elsewhere.run("mod", "tidy")
    files = {name: (elsewhere.work / name.replace("_", ".")).read_text() for name in ("go_mod", "go_sum")}
    assert "rsc.io/sampler" in files["go_sum"]

    registry = server()
    registry.apply(
        {
            "repositories": [
                {"key": "go-proxy", "format": "go", "kind": "remote", "upstreams": [{"url": relay.url}]},
                {"key": "go", "format": "go", "kind": "virtual", "members": ["go-local", "go-proxy"], "deploy_to": "go-local"},
            ],
            "grants": [{"role": "reader", "anonymous": True, "repositories": ["go", "go-*"]}],
        }
    )
    run = ("job", "run", "prefetch", "--repository", "go", "--file", "-", "--wait")
    first = registry.manage(*run, input=files["go_sum"])
    assert "prefetch done" in first.stdout and "failed 0" in first.stdout
    asked = sum(relay.seen.values())
    again = registry.manage(*run, input=files["go_sum"])
    assert "fetched 0" in again.stdout and sum(relay.seen.values()) == asked, "what is here is asked of nobody"

    wrong = files["go_sum"].replace("rsc.io/quote v1.5.2 h1:", "rsc.io/quote v1.5.2 h1:AAAA")
    refused = registry.manage(*run, input=wrong, check=False)
    assert refused.returncode == 1 and "rsc.io/quote v1.5.2: the bytes here have the digest h1:" in refused.stdout

    relay.stop()
    # the checksum database is what a go.sum stands for: with one, `go` asks it nothing
    builder = Client(tmp_path / "builder", GOPROXY=f"{registry.url}/go/go", GOFLAGS="-mod=readonly -modcacherw")
    builder.write(**files, main_go=MAIN)
    builder.run("mod", "download")
    builder.run("build", "-o", "program", ".")
    assert "all modules verified" in builder.run("mod", "verify").stdout
    assert sum(relay.seen.values()) == asked
