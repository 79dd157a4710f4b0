"""Private modules next to public ones, by the real `go`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.gomodules import make_zip
from tests.parts.golang import Client
from tests.parts.server import ADMIN_PASSWORD

pytestmark = pytest.mark.network

ADMIN = ("admin", ADMIN_PASSWORD)
LIBRARY = 'package lib\n\nfunc Name() string { return "the private library" }\n'
MAIN = 'package main\n\nimport ("corp.example/Lib"; "rsc.io/quote")\n\nfunc main() { println(lib.Name(), quote.Hello()) }\n'


@pytest.fixture(scope="module")
def registry(server, relay):
    """A server over TLS, since `go` sends no credentials otherwise: public modules by way of the relay, and private ones."""
    here = server(ENTREPOT_TLS="self")
    here.apply(
        {
            "repositories": [
                {"key": "corp", "format": "go", "kind": "local"},
                {"key": "public", "format": "go", "kind": "remote", "upstreams": [{"url": relay.url}]},
                {
                    "key": "all",
                    "format": "go",
                    "kind": "virtual",
                    "members": ["corp", "public"],
                    "deploy_to": "corp",
                    "private": ["corp.example", "corp.example/**"],
                },
            ],
            "users": [{"name": "dev", "password": "of-the-developer"}],
            "grants": [{"role": "reader", "users": ["dev"], "repositories": ["corp", "public", "all"]}],
        }
    )
    published = here.request(
        "PUT",
        "/go/all/corp.example/!lib/@v/v1.2.0.zip",
        make_zip("corp.example/Lib", "v1.2.0", {"lib.go": LIBRARY.encode()}),
        user=ADMIN,
    )
    assert published.status == 201
    return here


@pytest.fixture
def developer(tmp_path: Path, registry):
    """Makes developers; those with a token have it in ~/.netrc, as the documentation says."""

    def developer(name: str, *, login: str = "", **settings: str) -> Client:
        one = Client(
            tmp_path / name,
            GOPROXY=f"{registry.url}/go/all",
            SSL_CERT_FILE=str(registry.data / "tls" / "cert.pem"),
            **settings,
        )
        if login:
            machine = registry.url.removeprefix("https://")
            (one.home / ".netrc").write_text(f"machine {machine} {login}\n")
        one.write(go_mod="module example.com/program\n\ngo 1.21\n", main_go=MAIN)
        return one

    return developer


def test_a_private_module_is_required_next_to_public_ones_and_verified(registry, relay, developer):
    token = registry.manage("token", "create", "dev").stdout.split()[-1]
    one = developer("one", login=f"login dev password {token}", GONOSUMDB="corp.example/*")
    one.run("get", "corp.example/Lib@latest", "rsc.io/quote@v1.5.2")
    said = one.run("run", ".").stderr
    assert "the private library" in said and "world" in said
    assert "all modules verified" in one.run("mod", "verify").stdout
    assert "corp.example/Lib v1.2.0 h1:" in (one.work / "go.sum").read_text()
    assert one.run("list", "-m", "-versions", "corp.example/Lib").stdout.split() == ["corp.example/Lib", "v1.2.0"]
    assert not [path for path in relay.seen if "corp.example" in path], "nobody outside hears of private names"


def test_a_private_name_does_not_leave_even_when_gonosumdb_was_forgotten(relay, developer):
    one = developer("forgetful", login="login dev password of-the-developer")
    done = one.run("get", "corp.example/Lib@v1.2.0", check=False)
    assert done.returncode != 0
    assert "corp.example" in done.stderr
    assert not [path for path in relay.seen if "corp.example" in path]


def test_goauth_names_a_command_that_signs_in(registry, developer, tmp_path):
    command = tmp_path / "sign-in"
    command.write_text(
        f"#!/bin/sh\nprintf '{registry.url}\\n\\nAuthorization: Basic %s\\n\\n' \"$(printf dev:of-the-developer | base64)\"\n"
    )
    os.chmod(command, 0o755)
    one = developer("goauth", GONOSUMDB="corp.example/*", GOAUTH=str(command))
    one.run("get", "corp.example/Lib@v1.2.0")


def test_who_is_not_signed_in_is_told_to_sign_in(developer):
    done = developer("stranger", GONOSUMDB="corp.example/*").run("get", "corp.example/Lib@v1.2.0", check=False)
    assert done.returncode != 0
    assert "401" in done.stderr and "sign in" in done.stderr


def test_a_version_that_is_not_there_is_told_apart_from_an_outage(developer):
    one = developer("hopeful", login="login dev password of-the-developer", GONOSUMDB="corp.example/*")
    done = one.run("get", "corp.example/Lib@v9.9.9", check=False)
    assert "404" in done.stderr
