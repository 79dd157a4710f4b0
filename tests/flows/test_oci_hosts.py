"""A host that leads to one repository: bare names of images, as by `dockerd --registry-mirror` and containerd's hosts.toml."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.parts import oci
from tests.parts.api import ADMIN, PASSWORD
from tests.parts.registry import Registry
from tests.parts.registryclient import code
from tests.parts.remotes import CONFIG, LAYER, image, tags
from tests.parts.server import Answer, Server, named

HOST = "images.corp.example"
"""Leads to `images`, but with the port 5000 to `mirror`, as does the port 5001 of a host that leads nowhere else."""


@pytest.fixture(scope="module")
def registry():
    one = Registry()
    one.push("library/debian", "12", image(), CONFIG, LAYER)
    yield one
    one.stop()


@pytest.fixture(scope="module")
def world(server, registry) -> Server:
    here = server()
    cache = {"lifetime": "0s", "missing": "0s"}
    here.apply(
        {
            "repositories": [
                {"key": "images", "format": "oci", "kind": "local"},
                {"key": "other", "format": "oci", "kind": "local"},
                {"key": "mirror", "format": "oci", "kind": "remote", "upstreams": [{"url": registry.url}], "cache": cache},
                {"key": "all", "format": "oci", "kind": "virtual", "members": ["images", "mirror"], "deploy_to": "images"},
                {"key": "files", "format": "raw", "kind": "local"},
            ],
            "hosts": {
                HOST: "images", f"{HOST}:5000": "mirror", ":5001": "mirror",
                "all.corp.example": "all", "files.corp.example": "files",
            },
            "users": [{"name": "pusher", "password": PASSWORD}],
            "grants": [
                {"role": "developer", "users": ["pusher"], "repositories": ["images"]},
                {"role": "reader", "anonymous": True, "repositories": ["mirror"]},
            ],
        }
    )  # fmt: skip
    return here


@pytest.fixture
def ask(world):
    """`ask("GET", "/v2/...", host)`: as whoever comes by that host."""

    def ask(method: str, path: str, host: str = HOST, body: bytes | None = None, user=ADMIN, **headers: str) -> Answer:
        return ask_raw(world, method, path, body, {"Host": host, **named(headers)}, user)

    return ask


def ask_raw(world: Server, method: str, path: str, body: bytes | None, headers: dict[str, str], user) -> Answer:
    connection = world.connect()
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        length = {} if body is None else {"Content-Length": str(len(body))}
        for name, value in {**length, **world.authorization(user), **headers}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return Answer(answer.status, answer.reason, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


def push(ask, name: str, tag: str, host: str = HOST, **headers: Any) -> None:
    """As a client does: the blobs by sessions whose addresses it is told, then the manifest."""
    for blob in (CONFIG, LAYER):
        session = ask("POST", f"/v2/{name}/blobs/uploads/", host, b"", **headers)
        assert session.status == 202
        assert session.headers["Location"].startswith(f"/v2/{name}/blobs/uploads/")
        patched = ask("PATCH", session.headers["Location"], host, blob, **headers)
        assert patched.status == 202
        done = ask("PUT", f"{patched.headers['Location']}?digest={oci.digest(blob)}", host, b"", **headers)
        assert (done.status, done.headers["Location"]) == (201, f"/v2/{name}/blobs/{oci.digest(blob)}")
    put = ask("PUT", f"/v2/{name}/manifests/{tag}", host, image(), Content_Type=oci.MANIFEST, **headers)
    assert (put.status, put.headers["Location"]) == (201, f"/v2/{name}/manifests/{oci.digest(image())}")


def test_what_is_pushed_by_a_host_is_pulled_by_it_and_by_the_repositorys_path(world, ask):
    push(ask, "team/app", "v1")
    for path, content in {"manifests/v1": image(), f"blobs/{oci.digest(LAYER)}": LAYER}.items():
        assert ask("GET", f"/v2/team/app/{path}").body == content
        assert world.request("GET", f"/v2/images/team/app/{path}", user=ADMIN).body == content
        assert ask("HEAD", f"/v2/team/app/{path}").status == 200


def test_a_host_is_the_same_in_capitals_and_with_any_port_that_leads_nowhere_else(ask):
    push(ask, "team/app", "v1")
    for host in (HOST.upper(), f"{HOST}:443", f"{HOST}:8080"):
        assert ask("GET", "/v2/team/app/manifests/v1", host).body == image()


def test_a_host_with_a_port_may_lead_elsewhere_and_a_port_of_any_other_host_too(ask):
    for host in (f"{HOST}:5000", "whatever.example:5001"):
        assert ask("GET", "/v2/debian/manifests/12", host).body == image()
        assert ask("GET", "/v2/library/debian/manifests/12", host).body == image()
    assert ask("GET", "/v2/debian/manifests/12").status == 404


def test_the_mirror_of_a_docker_daemon_or_of_containerd_is_pulled_from_by_bare_names(ask, registry):
    """Whatever `ns` it sends along: the host says already which registry is meant."""
    host = f"{HOST}:5000"
    for query in ("", "?ns=docker.io", "?ns=registry.corp.example:5000"):
        given = ask("GET", "/v2/token?scope=repository%3Alibrary%2Fdebian%3Apull", host, user=None)
        for signed in ({}, {"Authorization": f"Bearer {json.loads(given.body)['token']}"}):
            answer = ask("GET", f"/v2/library/debian/manifests/12{query}", host, user=None, **signed)
            assert answer.body == image() and answer.headers["Docker-Content-Digest"] == oci.digest(image())
            blob = ask("GET", f"/v2/library/debian/blobs/{oci.digest(LAYER)}{query}", host, user=None, **signed)
            assert blob.body == LAYER


def test_a_challenge_by_a_host_names_that_host_and_the_image_without_the_repository(ask):
    for host in (HOST, f"{HOST}:8080"):
        answer = ask("GET", "/v2/team/app/manifests/v1", host, user=None)
        assert answer.status == 401
        challenge = answer.headers["WWW-Authenticate"]
        assert f'realm="http://{host}/v2/token"' in challenge and f'service="{host}"' in challenge
        assert 'scope="repository:team/app:pull"' in challenge
        ping = ask("GET", "/v2/", host, user=None)
        assert ping.status == 401 and f'realm="http://{host}/v2/token"' in ping.headers["WWW-Authenticate"]


def test_a_token_by_a_host_is_for_the_image_that_it_names_there(world, ask):
    """Which is the same as by the path, and no other host's."""
    pusher = ("pusher", PASSWORD)
    query = urlencode({"service": HOST, "scope": "repository:team/app:pull,push"})
    token = json.loads(ask("GET", f"/v2/token?{query}", user=pusher).body)["token"]
    bearer: dict[str, Any] = {"user": None, "Authorization": f"Bearer {token}"}
    push(ask, "team/app", "by-token", **bearer)
    assert ask("GET", "/v2/team/app/manifests/by-token", **bearer).body == image()
    by_path = world.request("GET", "/v2/images/team/app/manifests/by-token", headers={"Authorization": bearer["Authorization"]})
    assert by_path.body == image()
    assert ask("GET", "/v2/team/other/manifests/v1", **bearer).status == 401
    assert ask("GET", "/v2/team/app/manifests/by-token", f"{HOST}:5000", **bearer).status in (401, 404)


def test_lists_by_a_host_have_its_names_and_links_that_lead_back_to_it(ask):
    for name, tag in (("list/a", "v1"), ("list/a", "v2"), ("list/b", "v1")):
        push(ask, name, tag)
    answer = ask("GET", "/v2/list/a/tags/list?n=1")
    assert json.loads(answer.body) == {"name": "list/a", "tags": ["v1"]}
    assert answer.headers["Link"] == '</v2/list/a/tags/list?n=1&last=v1>; rel="next"'
    assert tags(ask("GET", "/v2/list/a/tags/list?n=1&last=v1")) == ["v2"]
    listed = ask("GET", "/v2/_catalog?n=1&last=list")
    assert json.loads(listed.body)["repositories"] == ["list/a"]
    assert json.loads(ask("GET", "/v2/_catalog?n=5&last=list/a").body)["repositories"][0] == "list/b"
    assert listed.headers["Link"] == '</v2/_catalog?n=1&last=list%2Fa>; rel="next"'


def test_a_mount_by_a_host_names_its_source_as_the_host_does(ask):
    push(ask, "mount/source", "v1")
    query = urlencode({"mount": oci.digest(LAYER), "from": "mount/source"})
    answer = ask("POST", f"/v2/mount/target/blobs/uploads/?{query}", HOST, b"")
    assert (answer.status, answer.headers["Location"]) == (201, f"/v2/mount/target/blobs/{oci.digest(LAYER)}")
    assert ask("GET", f"/v2/mount/target/blobs/{oci.digest(LAYER)}").body == LAYER
    by_key = urlencode({"mount": oci.digest(CONFIG), "from": "images/mount/source"})
    assert ask("POST", f"/v2/mount/target/blobs/uploads/?{by_key}", HOST, b"").status == 202


def test_a_host_that_leads_to_a_virtual_repository_takes_what_goes_to_its_local_one(ask):
    push(ask, "deployed/app", "v1", "all.corp.example")
    assert ask("GET", "/v2/deployed/app/manifests/v1").body == image()
    assert ask("GET", "/v2/library/debian/manifests/12", "all.corp.example").body == image()


def test_a_host_that_leads_to_a_remote_takes_nothing(ask):
    answer = ask("PUT", "/v2/team/app/manifests/v1", f"{HOST}:5000", image(), Content_Type=oci.MANIFEST)
    assert answer.status == 405 and code(answer) == "UNSUPPORTED"


def test_other_hosts_are_as_they_were(world, ask):
    """Those that lead nowhere, and one that leads to a repository of another format."""
    push(ask, "plain/app", "v1")
    own = world.url.removeprefix("http://")
    for host in (own, "localhost", "files.corp.example"):
        assert ask("GET", "/v2/images/plain/app/manifests/v1", host).body == image()
        assert ask("GET", "/v2/plain/app/manifests/v1", host).status == 404
    answer = ask("GET", "/v2/images/plain/app/manifests/v1", own, user=None)
    assert 'scope="repository:images/plain/app:pull"' in answer.headers["WWW-Authenticate"]


def test_by_a_host_the_repositorys_own_key_is_no_part_of_a_name_and_no_other_repository_is_had(ask):
    push(ask, "own/app", "v1")
    for name in ("images/own/app", "other/own/app", "mirror/library/debian", "../mirror/library/debian"):
        assert ask("GET", f"/v2/{name}/manifests/v1").status in (400, 404), name


ODD_HOSTS = ["", " ", "a b", f"{HOST}:", f"{HOST}:x", f"user@{HOST}", f"{HOST}\\@x", "[::1", '"', "x" * 5000, f"{HOST}.", "\xe4"]


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_a_host_that_is_none_leads_nowhere_and_is_no_error_of_ours(ask, host):
    answer = ask("GET", "/v2/odd/app/manifests/v1", host, user=None)
    assert 400 <= answer.status < 500
    assert answer.headers.get("WWW-Authenticate", "").count('"') % 2 == 0


def test_sign_in_by_a_host_is_by_name_and_password_or_token_there_too(ask):
    pusher = ("pusher", PASSWORD)
    assert ask("GET", "/v2/", user=pusher).status == 200
    wrong = base64.b64encode(b"pusher:wrong").decode()
    assert ask("GET", "/v2/", user=None, Authorization=f"Basic {wrong}").status == 401
