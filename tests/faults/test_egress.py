"""What an upstream names is asked only where it is public or allowed: nobody outside makes the server ask something inside."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.conf import settings

from registry.server import certificate_files
from tests.parts.lanes import ADMIN
from tests.parts.upstream import Upstream

SECRET = b"what only this network may see"
SPELLINGS = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.2", "0", "0.0.0.0", "localhost", "localhost.",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
]  # fmt: skip
ELSEWHERE = [
    "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/latest/meta-data/", "http://10.0.0.1/", "http://192.168.0.1/",
    "http://172.16.0.1:8080/", "http://100.64.0.1/", "http://[fe80::1]/", "http://[fc00::1]/", "http://224.0.0.1/",
    "http://255.255.255.255/",
]  # fmt: skip


@pytest.fixture(scope="module")
def up(upstream) -> Upstream:
    return upstream()


@pytest.fixture(scope="module")
def document(up) -> dict:
    return {
        "repositories": [
            {"key": "cache", "format": "raw", "kind": "remote", "upstreams": [{"url": up.url, "timeout": "5s"}],
             "cache": {"lifetime": "0s", "missing": "0s"}},
            {"key": "all", "format": "raw", "kind": "virtual", "members": ["cache"]},
        ],
        "egress": {"allow": []},
    }  # fmt: skip


@pytest.fixture(scope="module")
def world(server, document):
    here = server(ENTREPOT_WORKERS="1")
    here.apply(document)
    return here


@pytest.fixture
def stranger() -> Iterator[Upstream]:
    """Something inside that the upstream would like to have asked."""
    one = Upstream()
    one.default = SECRET
    yield one
    one.stop()


@pytest.fixture
def get(world):
    return lambda path, repository="cache": world.request("GET", f"/raw/{repository}/{path}", user=ADMIN)


@pytest.fixture
def allowing(world, document):
    """With these networks under `egress.allow`, within the block."""

    @contextlib.contextmanager
    def allowing(*networks: str) -> Iterator[None]:
        world.apply({**document, "egress": {"allow": list(networks)}})
        try:
            yield
        finally:
            world.apply(document)

    return allowing


def test_an_upstream_that_is_configured_may_be_inside(up, get):
    up.routes["/plain"] = b"plain"
    assert get("plain").body == b"plain"


@pytest.mark.parametrize("host", SPELLINGS)
def test_a_redirect_to_this_machine_is_refused_in_every_spelling(world, up, get, stranger, host):
    up.routes |= {"/there": Upstream.redirect(f"http://{host}:{stranger.port}/secret"), "/hop": Upstream.redirect("/there")}
    before = world.counts()
    for path, repository in (("there", "cache"), ("hop", "all")):
        answer = get(path, repository)
        assert answer.status == 502 and SECRET not in answer.body
        assert any(
            rule in answer.headers["X-Entrepot-Reason"] for rule in ("egress.address", "upstream.redirect", "redirect.failed")
        )
    assert stranger.connections == 0
    assert world.counts() == before


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "localhost", "[::ffff:127.0.0.1]"])
def test_the_refusal_names_its_rule_and_not_what_is_there(up, get, stranger, host):
    """Whether somebody listens there must not show: it would make a scanner of the server."""
    nobody = Upstream()
    nobody.stop()
    reasons = []
    for port in (stranger.port, nobody.port):
        up.routes["/there"] = Upstream.redirect(f"http://{host}:{port}/secret")
        reasons.append(get("there").headers["X-Entrepot-Reason"])
    assert "egress.address" in reasons[0] and reasons[0] == reasons[1]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_redirect_to_an_address_inside_is_refused(up, get, target):
    up.routes["/there"] = Upstream.redirect(target)
    answer = get("there")
    assert answer.status == 502 and "egress.address" in answer.headers["X-Entrepot-Reason"]


def test_what_is_cached_is_served_though_the_upstream_now_leads_inside(up, get, stranger):
    up.routes["/known"] = b"known"
    assert get("known").body == b"known"
    up.routes["/known"] = Upstream.redirect(f"{stranger.url}/secret")
    answer = get("known")
    assert (answer.status, answer.body) == (200, b"known") and answer.headers["Warning"].startswith("110")
    assert stranger.connections == 0


def test_a_network_that_is_allowed_may_be_named_and_no_longer_when_it_is_taken_back(up, get, stranger, allowing):
    """Also while a connection to it is still open."""
    for n, host in enumerate(("127.0.0.1", "127.1", "[::ffff:127.0.0.1]")):
        up.routes[f"/allowed{n}"] = Upstream.redirect(f"http://{host}:{stranger.port}/secret")
    with allowing("127.0.0.0/8"):
        assert [get(f"allowed{n}").body for n in range(3)] == [SECRET] * 3
    up.routes["/later"] = up.routes["/allowed0"]
    asked = len(stranger.seen)
    assert get("later").status == 502
    with allowing("10.0.0.0/8", "127.0.0.2/32", "::1/128"):
        assert get("later").status == 502
    assert len(stranger.seen) == asked


def test_what_one_repository_is_configured_with_no_other_may_be_led_to(world, up, get, stranger, document):
    """Though the server has a connection open to it."""
    configured = {"key": "inside", "format": "raw", "kind": "remote", "upstreams": [{"url": stranger.url}]}
    world.apply({"repositories": [configured]})
    assert get("anything", "inside").body == SECRET
    asked = len(stranger.seen)
    up.routes["/led"] = Upstream.redirect(f"{stranger.url}/secret")
    assert get("led").status == 502
    assert len(stranger.seen) == asked


def test_a_redirect_from_https_to_plain_http_is_refused(world, upstream, get, stranger, allowing, tmp_path):
    certificate, key = certificate_files(replace(settings.ENTREPOT, tls="self", data=tmp_path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    secure = upstream(context)
    remote = {"key": "secure", "format": "raw", "kind": "remote", "upstreams": [{"url": secure.url, "ca": str(certificate)}]}
    secure.routes |= {"/plain": b"plain", "/down": Upstream.redirect(f"{stranger.url}/secret")}
    with allowing("127.0.0.0/8"):
        world.apply({"repositories": [remote]})
        assert get("plain", "secure").body == b"plain"
        answer = get("down", "secure")
        assert answer.status == 502 and "upstream.redirect" in answer.headers["X-Entrepot-Reason"]
    assert stranger.connections == 0
