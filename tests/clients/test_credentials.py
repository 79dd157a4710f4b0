"""docker, go and helm sign in with each kind of credential; what has ended lets nobody in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.gomodules import make_zip
from tests.parts.api import Api
from tests.parts.clients import Crane, Docker, Helm, Refused
from tests.parts.golang import Client
from tests.parts.images import image
from tests.parts.issuer import GITHUB, Issuer
from tests.parts.server import ADMIN_PASSWORD, Server
from tests.parts.slapd import GROUPS, PEOPLE, SERVICE, SERVICE_PASSWORD, Slapd
from tests.parts.slapd import program as slapd_program

pytestmark = pytest.mark.network

ADMIN = ("admin", ADMIN_PASSWORD)
PASSWORD = "the developer's, with : and é"
MODULE = "corp.example/lib"
Login = tuple[str, str]


@dataclass
class World:
    """One installation by two nodes: `plain` for clients that have no CA of ours, `tls` for `go`, which needs it."""

    plain: Server
    tls: Server
    issuer: Issuer
    known: dict[str, Login] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.plain.url.removeprefix("http://")

    def token(self, user: str, *options: str) -> str:
        return self.plain.manage("token", "create", user, *options).stdout.split()[-1]

    def login(self, kind: str) -> Login:
        if kind not in self.known:
            self.known[kind] = CREDENTIALS[kind](self)
        return self.known[kind]


def exchanged(world: World) -> Login:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "subject_token": world.issuer.token(GITHUB),
    }
    sent = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = world.plain.request("POST", "/api/v1/exchange/", urlencode(form).encode(), sent)
    assert answer.status == 200, answer
    return "ci", json.loads(answer.body)["access_token"]


def expired(world: World) -> Login:
    secret = world.token("ci", "--expires", "1s")
    deadline = time.monotonic() + 60
    while world.plain.request("GET", "/api/v1/me/", user=("ci", secret)).status != 401:
        assert time.monotonic() < deadline
    return "ci", secret


def revoked(world: World) -> Login:
    secret = world.token("ci")
    world.plain.manage("token", "revoke", secret)
    return "ci", secret


CREDENTIALS: dict[str, Callable[[World], Login]] = {
    "a password": lambda _: ("dev", PASSWORD),
    "a directory's password": lambda _: ("dora", PASSWORD),
    "a personal token": lambda world: ("dev", world.token("dev")),
    "a robot's token": lambda world: ("ci", world.token("ci")),
    "an exchanged token": exchanged,
    "an expired token": expired,
    "a revoked token": revoked,
}
GOOD = [kind for kind in CREDENTIALS if "expired" not in kind and "revoked" not in kind]
ENDED = [kind for kind in CREDENTIALS if kind not in GOOD]


@pytest.fixture(scope="module")
def slapd() -> Iterator[Slapd]:
    """A directory in which dora is one of the developers."""
    try:
        slapd_program()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    one = Slapd()
    one.group("developers", one.person("dora", PASSWORD))
    yield one
    one.end()


@pytest.fixture(scope="module")
def world(server, slapd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    plain = server()
    issuer = Issuer(tmp_path_factory.mktemp("issuer"))
    both = {"role": "developer", "repositories": ["images", "modules"]}
    trust = {"issuer": issuer.url, "audience": "entrepot", "ca": issuer.ca, "robot": "ci", "claims": {"repository": "corp/*"}}
    plain.apply(
        {
            "repositories": [
                {"key": "images", "format": "oci", "kind": "local"},
                {"key": "modules", "format": "go", "kind": "local"},
            ],
            "directories": [
                {
                    "name": "corp",
                    "url": slapd.url,
                    "ca": slapd.ca,
                    "bind_dn": SERVICE,
                    "bind_password": SERVICE_PASSWORD,
                    "users": {"base": PEOPLE},
                    "groups": {"base": GROUPS},
                },
            ],
            "groups": [{"name": "developers", "external": [f"corp:cn=developers,{GROUPS}"]}],
            "users": [{"name": "dev", "password": PASSWORD}, {"name": "ci", "robot": True}],
            "grants": [{**both, "users": ["dev", "ci"], "groups": ["developers"]}],
            "trusts": [trust],
        }
    )
    tls = Server(plain.data, plain.database_url, {"ENTREPOT_TLS": "self"}).start()
    sent = make_zip(MODULE, "v1.0.0", {"lib.go": b"package lib\n"})
    assert plain.request("PUT", f"/go/modules/{MODULE}/@v/v1.0.0.zip", sent, user=ADMIN).status == 201
    yield World(plain, tls, issuer)
    tls.stop()
    issuer.stop()


def go(world: World, home: Path, login: Login) -> Client:
    """One that signs in by GOAUTH: in ~/.netrc a password is one word."""
    one = Client(
        home,
        GOPROXY=f"{world.tls.url}/go/modules",
        GONOSUMDB="corp.example/*",
        SSL_CERT_FILE=str(world.tls.data / "tls/cert.pem"),
    )
    command = home / "sign-in"
    command.write_text(f"#!/bin/sh\nprintf '%s\\n\\nAuthorization: %s\\n\\n' '{world.tls.url}' '{basic(login)}'\n")
    command.chmod(0o700)
    one.environment["GOAUTH"] = str(command)
    one.write(go_mod="module example.com/program\n\ngo 1.21\n")
    return one


def basic(login: Login) -> str:
    return Server.authorization(login)["Authorization"]


@pytest.mark.parametrize("kind", GOOD)
def test_go_gets_a_private_module(world, tmp_path, kind):
    one = go(world, tmp_path / "home", world.login(kind))
    one.run("get", f"{MODULE}@v1.0.0")
    assert f"{MODULE} v1.0.0 h1:" in (one.work / "go.sum").read_text()


@pytest.mark.parametrize("kind", ENDED)
def test_go_gets_nothing_with_what_has_ended(world, tmp_path, kind):
    done = go(world, tmp_path / "home", world.login(kind)).run("get", f"{MODULE}@v1.0.0", check=False)
    assert done.returncode and "401" in done.stderr


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("client", [Crane, Docker])
def test_an_image_is_pushed_and_pulled(world, need, daemons, tmp_path, client, kind):
    one = made(client, need, daemons, tmp_path / "home")
    one.login(world.host, *world.login(kind))
    name = f"{world.host}/images/{client.name}:{kind.replace(' ', '-').replace(chr(39), '')}"
    pushed = one.push(image(f"{client.name} {kind}"), name)
    assert one.pull(name) == pushed


@pytest.mark.parametrize("kind", ENDED)
@pytest.mark.parametrize("client", [Crane, Docker])
def test_no_image_is_pushed_or_pulled_with_what_has_ended(world, need, daemons, tmp_path, client, kind):
    one = made(client, need, daemons, tmp_path / "home")
    with pytest.raises(Refused):
        one.login(world.host, *world.login(kind))
    with pytest.raises(Refused):
        one.push(image("refused"), f"{world.host}/images/refused:1")
    assert world.plain.request("GET", "/v2/images/refused/tags/list", user=ADMIN).status == 404


@pytest.mark.parametrize("kind", GOOD)
def test_helm_signs_in_pushes_a_chart_and_pulls_it(world, need, tmp_path, kind):
    need(Helm.name)
    helm = Helm(new(tmp_path / "home"))
    helm.login(world.host, *world.login(kind))
    name = f"chart-{GOOD.index(kind)}"
    chart, folder = new(helm.home / "chart"), new(helm.home / "pulled")
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: {name}\nversion: 1.0.0\n")
    helm.run("package", chart)
    helm.run("push", "--plain-http", f"{name}-1.0.0.tgz", f"oci://{world.host}/images/charts")
    helm.run("pull", "--plain-http", "--version=1.0.0", f"--destination={folder}", f"oci://{world.host}/images/charts/{name}")
    assert (folder / f"{name}-1.0.0.tgz").read_bytes() == (helm.home / f"{name}-1.0.0.tgz").read_bytes()


@pytest.mark.parametrize("kind", ENDED)
def test_helm_does_not_sign_in_with_what_has_ended(world, need, tmp_path, kind):
    need(Helm.name)
    with pytest.raises(Refused, match="401"):
        Helm(new(tmp_path / "home")).login(world.host, *world.login(kind))


def test_each_kind_is_known_as_who_it_is(world):
    names = {kind: Api(world.plain, world.login(kind)).read("me/")["name"] for kind in GOOD}
    assert names == {kind: world.login(kind)[0] for kind in GOOD}


def made(client, need, daemons, home: Path):
    need(client.name)
    return client(new(home), daemons(client.daemon)) if client.daemon else client(new(home))


def new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
