"""The API keeps to its schema, whatever is sent: no answer that it does not describe, and none that is an error here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.parts.api import ADMIN, Api
from tests.parts.server import ROOT, Server

PASSWORD = "the password of the fuzzer"
MADE_UP, SYSTEMATIC = "examples,fuzzing", "examples,coverage,fuzzing"
IDENTITIES = {"anonymous": MADE_UP, "reader": MADE_UP, "robot": MADE_UP, "developer": MADE_UP, "admin": SYSTEMATIC}
"""With how each asks. Who may everything gets furthest, so they alone go through every bound of the schema, which takes thousands
of requests; and they come last, for what they change is nothing to those before."""
WITHOUT_CREDENTIALS = "[generation]\nwith-security-parameters = false\n"
"""Else it makes up names and passwords, each of which takes the server as long as a true one."""
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
          "response_schema_conformance", "unsupported_method"]  # fmt: skip


@pytest.fixture(scope="module")
def world(server):
    here = server()
    here.apply(
        {
            "repositories": [{"key": key, "format": "raw", "kind": "local"} for key in ("0", "private")],
            "users": [*({"name": name, "password": PASSWORD} for name in ("fuzzer", "developer", "reader")),
                      {"name": "robot", "robot": True}],
            "grants": [
                {"role": "administrator", "users": ["fuzzer"]},
                {"role": "administrator", "users": ["fuzzer"], "repositories": ["**"]},
                {"role": "developer", "users": ["developer", "robot"], "repositories": ["0"]},
                {"role": "reader", "users": ["reader"], "repositories": ["0"]},
            ],
        }
    )  # fmt: skip
    for key in ("0", "private"):
        assert here.request("PUT", f"/raw/{key}/0", b"0", user=ADMIN).status == 201
    for name in ("admin", "developer", "reader"):
        Api(here, ("fuzzer" if name == "admin" else name, PASSWORD)).post("tokens/")
    Api(here).post("jobs/", {"kind": "gc"})
    made = Api(here).post("tokens/", {"user": "robot", "scopes": ["artifact:read@0", "artifact:write@0"]})
    here.robot = json.loads(made.body)["secret"]
    return here


def authorization(world: Server, who: str) -> dict[str, str]:
    logins = {"anonymous": None, "robot": ("x", world.robot), "admin": ("fuzzer", PASSWORD)}
    return world.authorization(logins.get(who, (who, PASSWORD)))


@pytest.mark.parametrize("who", IDENTITIES)
def test_every_answer_is_one_that_the_schema_describes(world: Server, tmp_path: Path, who: str):
    """To everybody, whatever they may: examples, what the schema says is and is not taken, and what is made up."""
    assert world.request("GET", "/api/v1/me/", headers=authorization(world, who)).status == (401 if who == "anonymous" else 200)
    (tmp_path / "schemathesis.toml").write_text(WITHOUT_CREDENTIALS)
    headers = [f"{name}: {value}" for name, value in authorization(world, who).items()]
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", f"{world.url}/api/v1/schema/",
        "--phases", IDENTITIES[who],
        "--max-examples", "6", "--seed", "1", "--workers", "2", "--checks", ",".join(CHECKS), "--suppress-health-check", "all",
        "--no-color", *(argument for header in headers for argument in ("-H", header)),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Traceback" not in world.log()


def test_the_schema_is_what_the_command_writes_and_has_no_gaps(world: Server, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "manage.py", "spectacular", "--fail-on-warn", "--validate", "--file", str(tmp_path / "schema.yaml")],
        cwd=ROOT, env=world.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load((tmp_path / "schema.yaml").read_text())
    api = Api(world, None)
    assert written == yaml.safe_load(api.get("schema/").body) == api.read("schema/?format=json")
    assert written == yaml.safe_load(api.get("schema/", Accept="application/yaml").body)
    assert written["openapi"].startswith("3.1")
    assert set(written["components"]["securitySchemes"]) == {"basic", "bearer"}
    for path, operations in written["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (path, method)
            assert {"400", "401", "403", "404", "406", "500", "503"} <= set(operation["responses"]), (path, method)
            if "requestBody" in operation:
                assert "examples" in next(iter(operation["requestBody"]["content"].values())), (path, method)
