"""The conformance programme of the distribution specification, and what it leaves out by default: cancelling, digest headers."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from tests.parts.server import ADMIN_PASSWORD, Server

LEAST = 692
"""What the pinned version runs; fewer means that it left parts out."""
UNANSWERED = {"OCI Conformance Test/sha512 blobs/mount anonymous/blob-mount-anonymous"}
"""A mount that does not say from where may be answered by beginning an upload (202), which the programme then finishes, and tells
as skipped: blobs of other images are found by SHA-256 only."""


@pytest.fixture(scope="module")
def here(server) -> Server:
    return server()


def test_the_specification_is_met_whole_on_an_empty_server_and_on_a_used_one(here, need, tmp_path):
    check(run(need("conformance"), here, "oci-local", tmp_path / "empty"))
    check(run(need("conformance"), here, "oci-local", tmp_path / "used"))
    assert here.manage("fsck").stdout.strip() == "clean"


def test_the_specification_is_met_whole_by_a_virtual_repository(here, need, tmp_path):
    check(run(need("conformance"), here, "oci", tmp_path / "virtual"))


def check(cases: list[tuple[str, str]]) -> None:
    assert {name: status for name, status in cases if status != "passed"} == dict.fromkeys(UNANSWERED, "skipped")
    assert Counter(status for _, status in cases)["passed"] >= LEAST


def run(program: str, server: Server, repository: str, folder: Path) -> list[tuple[str, str]]:
    """Every case's name and status. The programme itself ends well whatever the outcome."""
    folder.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}
    settings = {
        "OCI_VERSION": "1.1",
        "OCI_REGISTRY": server.url.removeprefix("http://"),
        "OCI_TLS": "disabled",
        "OCI_REPO1": f"{repository}/conformance/repo1",
        "OCI_REPO2": f"{repository}/conformance/repo2",
        "OCI_USERNAME": "admin",
        "OCI_PASSWORD": ADMIN_PASSWORD,
        "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
        "OCI_API_BLOBS_DIGEST_HEADER": "true",
        "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
        "OCI_RESULTS_DIR": str(folder),
    }
    subprocess.run([program], cwd=folder, env={**clean, **settings}, capture_output=True, timeout=600)
    tree = ET.parse(folder / "junit.xml")
    return [(case.get("name", ""), case.get("status", "")) for case in tree.iter("testcase")]
