"""Where a request comes from, by what may be believed of it."""

from __future__ import annotations

import dataclasses

import pytest
from django.conf import settings
from django.test import RequestFactory

from registry import environment
from repos.caller import address_of


@pytest.fixture
def proxies(monkeypatch, tmp_path):
    def configure(text: str) -> None:
        read = environment.read({"ENTREPOT_DATA": str(tmp_path), "ENTREPOT_SECRET_KEY": "s" * 32, "ENTREPOT_PROXIES": text})
        monkeypatch.setattr(settings, "ENTREPOT", dataclasses.replace(settings.ENTREPOT, proxies=read.proxies))

    return configure


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "198.51.100.9, 192.0.2.7", "192.0.2.7"),  # the first is what the client wrote
        ("10.0.0.1", "192.0.2.7, 10.0.0.2", "192.0.2.7"),  # through two of ours
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),  # from within
        ("10.0.0.1", "nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7:4711", "192.0.2.7"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:10.0.0.1", "2001:DB8::1", "2001:db8::1"),
        ("203.0.113.5", "192.0.2.7", "203.0.113.5"),  # no proxy of ours: a header from anybody is ignored
        ("", "192.0.2.7", ""),
    ],
)
def test_of_who_passed_a_request_on_our_own_proxies_are_believed_and_nobody_else(proxies, peer, forwarded, address):
    proxies("10.0.0.0/24")
    request = RequestFactory().get("/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=forwarded)
    assert address_of(request) == address


@pytest.mark.parametrize("header", ["HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_REMOTE_USER", "HTTP_X_FORWARDED_HOST"])
def test_no_other_header_says_where_a_request_comes_from(proxies, header):
    proxies("10.0.0.0/24")
    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", **{header: "for=192.0.2.7"})
    assert address_of(request) == "10.0.0.1"


def test_without_proxies_of_our_own_nobody_is_believed(proxies):
    proxies("")
    assert address_of(RequestFactory().get("/", REMOTE_ADDR="127.0.0.1", HTTP_X_FORWARDED_FOR="192.0.2.7")) == "127.0.0.1"


def test_networks_that_cannot_be_read_are_refused_with_what_they_should_be(tmp_path):
    with pytest.raises(environment.EnvironmentProblem, match="networks separated by commas"):
        environment.read({"ENTREPOT_DATA": str(tmp_path), "ENTREPOT_PROXIES": "10.1.0.1/16"})
