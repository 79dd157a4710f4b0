"""For tests with the packages and the clients of real registries."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.parts import golang, programs
from tests.parts.clients import CLIENTS, Client, Ctr, Helm, Regctl
from tests.parts.daemons import Daemon, Distribution
from tests.parts.relay import Relay
from tests.parts.server import Answer, Server


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    """Stands before the module proxy that this machine is configured with."""
    relay = Relay(golang.upstream())
    yield relay
    relay.stop()


@pytest.fixture(scope="session")
def need() -> Callable[[str], str]:
    """The path of a program; where there is none and cannot be, the test is left out, but with CI=true it fails."""

    def need(name: str) -> str:
        try:
            return programs.program(name)
        except (OSError, subprocess.SubprocessError) as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(error))

    return need


@pytest.fixture(scope="module")
def daemons(need, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons: `daemons(Dockerd)`. Without settings one of a kind is enough."""
    running: list[Daemon] = []

    def start(kind: type[Daemon], **settings: object) -> Daemon:
        found = next((one for one in running if type(one) is kind and not settings), None)
        if found is None:
            need(kind.program)
            found = kind(tmp_path_factory.mktemp(kind.program), **settings)
            running.append(found)
        return found

    yield start
    for one in running:
        one.stop()


@dataclass
class Registry:
    """An Entrepot: the virtual repository `oci` of the local `oci-local` and the remote `elsewhere`, and a local one, `team`."""

    server: Server
    elsewhere: Distribution
    _tokens: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.server.url.removeprefix("http://")

    def digest(self, name: str) -> str:
        """Of what a name with its host leads to, as HEAD tells."""
        return self._manifest("HEAD", name).headers["Docker-Content-Digest"]

    def read(self, name: str) -> Any:
        """The manifest or the index that a name with its host leads to."""
        return json.loads(self._manifest("GET", name).body)

    def _manifest(self, method: str, name: str) -> Answer:
        image, _, tag = name.removeprefix(f"{self.host}/").rpartition(":")
        answer = self.server.request(method, f"/v2/{image}/manifests/{tag}")
        assert answer.status == 200, answer
        return answer

    def token(self, user: str) -> str:
        if user not in self._tokens:
            self._tokens[user] = self.server.manage("token", "create", user).stdout.split()[-1]
        return self._tokens[user]


DEVELOPER = ("dev", "the developer's, with : and é")


def guest(client: str) -> str:
    """Who signs in with a client, with the developer's password or a wrong one: who guesses is made to wait for a while."""
    return f"guest-{client}"


@pytest.fixture(scope="module")
def registry(server, daemons) -> Registry:
    elsewhere = daemons(Distribution)
    here = server()
    here.apply(
        {
            "repositories": [
                {"key": "team", "format": "oci", "kind": "local"},
                {"key": "elsewhere", "format": "oci", "kind": "remote", "upstreams": [{"url": elsewhere.url}]},
                {
                    "key": "oci",
                    "format": "oci",
                    "kind": "virtual",
                    "members": ["oci-local", "elsewhere"],
                    "deploy_to": "oci-local",
                },
            ],
            "hosts": {f"localhost:{here.port}": "oci"},
            "users": [
                *({"name": name, "password": DEVELOPER[1]} for name in (DEVELOPER[0], *map(guest, CLIENTS))),
                {"name": "robot", "robot": True},
            ],
            "grants": [
                {"role": "owner", "users": [DEVELOPER[0]], "repositories": ["oci", "oci-local", "team"]},
                {"role": "reader", "users": list(map(guest, CLIENTS)), "repositories": ["team"]},
                {"role": "reader", "users": ["robot"], "repositories": ["oci", "oci-local", "team"]},
                {"role": "reader", "anonymous": True, "repositories": ["oci", "oci-local", "elsewhere"]},
            ],
        }
    )
    return Registry(here, elsewhere)


@pytest.fixture(scope="module")
def stranger(registry, need, daemons, tmp_path_factory) -> Callable[..., Client]:
    """Makes clients of nobody in particular: `stranger("skopeo")`, each with a home of its own."""

    def stranger(name: str) -> Client:
        kind = Helm if name == Helm.name else CLIENTS[name]
        need(name)
        home = Path(tmp_path_factory.mktemp(name))
        one = kind(home, daemons(kind.daemon)) if kind.daemon else kind(home)
        if isinstance(one, Regctl):
            one.plain(registry.host)
            one.plain(registry.elsewhere.host)
        if isinstance(one, Ctr):
            one.host(registry.host, registry.server.url)
        return one

    return stranger


@pytest.fixture(scope="module")
def developer(registry, stranger) -> Callable[..., Client]:
    """The developer with a client, signed in by the password: one of each is enough."""
    known: dict[str, Client] = {}

    def developer(name: str) -> Client:
        if name not in known:
            known[name] = stranger(name)
            known[name].login(registry.host, *DEVELOPER)
        return known[name]

    return developer
