"""Which addresses may be reached: every spelling of an inside one is refused, and what was checked is what is connected to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from basics import egress
from problems import UpstreamFailed, UpstreamTimeout
from tests.parts.upstream import full

PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8", "64:ff9b::808:808"]
INSIDE = {
    "loopback": "127.0.0.1",
    "loopback elsewhere": "127.255.255.254",
    "loopback of IPv6": "::1",
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "unspecified of IPv6": "::",
    "private 10": "10.0.0.1",
    "private 172": "172.16.0.1",
    "private 192": "192.168.1.1",
    "carrier-grade NAT": "100.64.0.1",
    "link-local, where clouds keep metadata": "169.254.169.254",
    "metadata of IPv6": "fd00:ec2::254",
    "unique local": "fc00::1",
    "link-local of IPv6": "fe80::1",
    "link-local with a scope": "fe80::1%eth0",
    "loopback with a scope": "::1%lo",
    "site-local": "fec0::1",
    "multicast": "224.0.0.1",
    "multicast, global": "239.1.2.3",
    "multicast of IPv6": "ff02::1",
    "multicast of IPv6, global": "ff0e::1",
    "broadcast": "255.255.255.255",
    "reserved": "240.0.0.1",
    "benchmarks": "198.18.0.1",
    "documentation": "192.0.2.1",
    "documentation of IPv6": "2001:db8::1",
    "protocol assignments": "192.0.0.1",
    "discard": "100::1",
    "loopback, mapped": "::ffff:127.0.0.1",
    "loopback, mapped, in hex": "::ffff:7f00:1",
    "private, mapped": "::ffff:10.0.0.1",
    "metadata, mapped": "::ffff:169.254.169.254",
    "loopback, compatible": "::127.0.0.1",
    "private, compatible": "::a00:1",
    "loopback by NAT64": "64:ff9b::127.0.0.1",
    "metadata by NAT64": "64:ff9b::a9fe:a9fe",
    "private by a local NAT64": "64:ff9b:1::a00:1",
    "loopback, translated": "::ffff:0:127.0.0.1",
    "private by 6to4": "2002:0a00:0001::1",
    "loopback by 6to4": "2002:7f00:1::",
    "loopback by Teredo": "2001:0:7f00:1::1",
    "loopback behind Teredo": "2001:0:4136:e378:8000:63bf:80ff:fffe",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_reached(address):
    assert egress.may_reach(address, ())


@pytest.mark.parametrize("name", INSIDE)
def test_an_address_inside_may_not_be_reached(name):
    assert not egress.may_reach(INSIDE[name], ())


@pytest.mark.parametrize(
    ("address", "allowed", "expected"),
    [
        ("10.1.2.3", "10.1.0.0/16", True),
        ("10.2.2.3", "10.1.0.0/16", False),
        ("::ffff:10.1.2.3", "10.1.0.0/16", True),
        ("::ffff:10.2.2.3", "10.1.0.0/16", False),
        ("64:ff9b::10.1.2.3", "10.1.0.0/16", False),
        ("2002:0a01:0203::1", "10.1.0.0/16", False),
        ("fd12::1", "fd12::/16", True),
        ("fd13::1", "fd12::/16", False),
        ("127.0.0.1", "127.0.0.1/32", True),
        ("127.0.0.2", "127.0.0.1/32", False),
        ("::1", "127.0.0.0/8", False),
        ("fe80::1%eth0", "fe80::/10", True),
        ("8.8.8.8", "10.1.0.0/16", True),
    ],
)
def test_a_network_that_is_allowed_may_be_reached_and_no_other_is(address, allowed, expected):
    assert egress.may_reach(address, (allowed,)) is expected


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        one.settimeout(10)
        yield one


def connections(listener: socket.socket) -> int:
    """How many have come."""
    listener.setblocking(False)
    found = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            found += 1
    return found


SPELLINGS = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.0.01",
    "0", "0.0.0.0", "localhost", "LOCALHOST", "localhost.", "[::ffff:127.0.0.1]", "::ffff:7f00:1", "[::ffff:0:0]",
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_loopback_is_connected_to(listener, host):
    with pytest.raises(UpstreamFailed) as refused:
        egress.connect(host, listener.getsockname()[1], allowed=(), timeout=5)
    assert refused.value.rule in ("egress.address", "upstream.failed"), "the system does not know every spelling"
    assert connections(listener) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "localhost", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("allowed", [None, ("127.0.0.0/8", "::1/128")])
def test_what_is_configured_or_allowed_is_connected_to(listener, host, allowed):
    egress.connect(host, listener.getsockname()[1], allowed=allowed, timeout=5).close()
    assert connections(listener) == 1


class Names:
    """Stands in for the resolver: each name's answers in turn, the last again and again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[list[str]]]):
        self.asked: list[str] = []
        self._answers = answers
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host, port, *arguments, **named):
        if host not in self._answers:
            return self._real(host, port, *arguments, **named)
        self.asked.append(host)
        answers = self._answers[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [found for address in addresses for found in self._real(address, port, type=socket.SOCK_STREAM)]


def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to(monkeypatch, listener):
    """DNS rebinding: the second answer, which is never asked for, leads to the address that the test allows nobody to reach."""
    names = Names(monkeypatch, {"rebinding.example": [["127.0.0.1"], ["127.0.0.2"]]})
    connection = egress.connect("rebinding.example", listener.getsockname()[1], allowed=("127.0.0.1/32",), timeout=5)
    with connection:
        assert connection.getpeername()[0] == "127.0.0.1"
    assert names.asked == ["rebinding.example"]


@pytest.mark.parametrize("addresses", [["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["8.8.8.8", "::1"]])
def test_a_name_with_one_address_inside_is_refused_before_any_is_connected_to(monkeypatch, listener, addresses):
    """Else it were a matter of which answers first, and whoever owns the name decides that."""
    tried: list[tuple] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: tried.append(address))
    Names(monkeypatch, {"mixed.example": [addresses]})
    with pytest.raises(UpstreamFailed) as refused:
        egress.connect("mixed.example", listener.getsockname()[1], allowed=(), timeout=5)
    assert refused.value.rule == "egress.address"
    assert tried == []


def test_the_next_address_is_tried_where_one_does_not_answer(monkeypatch, listener):
    Names(monkeypatch, {"two.example": [["127.0.0.2", "127.0.0.1"]]})
    egress.connect("two.example", listener.getsockname()[1], allowed=("127.0.0.0/8",), timeout=5).close()
    assert connections(listener) == 1


def test_the_many_addresses_of_a_name_share_one_time(monkeypatch):
    """Else whoever owns the name decides how long a fetch lasts."""
    tried: list[float] = []

    def connected(family: int, address: tuple, timeout: float) -> socket.socket:
        tried.append(timeout)
        raise TimeoutError

    Names(monkeypatch, {"many.example": [[f"8.8.{n // 250}.{n % 250 + 1}" for n in range(1000)]]})
    monkeypatch.setattr(egress, "_connected", connected)
    with pytest.raises(UpstreamTimeout):
        egress.connect("many.example", 80, allowed=(), timeout=8)
    assert 1 < len(tried) < 20 and tried[0] <= 4, "the next address has its turn before the time is over"


@pytest.mark.parametrize("host", ["", "nowhere.invalid", "a..b", "x" * 300, "\udcff.example", "[", "127.0.0.1:80", "a b", "\0"])
def test_what_is_no_host_is_an_upstreams_failure(host):
    with pytest.raises(UpstreamFailed) as refused:
        egress.connect(host, 80, allowed=(), timeout=5)
    assert refused.value.status == 502


def test_an_address_where_nobody_accepts_is_a_timeout():
    with full() as url, pytest.raises(UpstreamTimeout):
        egress.connect("127.0.0.1", int(url.rpartition(":")[2]), allowed=None, timeout=0.2)


def test_an_address_where_nobody_listens_is_a_failure_and_no_timeout():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(UpstreamFailed) as refused:
        egress.connect("127.0.0.1", port, allowed=None, timeout=5)
    assert refused.value.rule == "upstream.failed" and not isinstance(refused.value, UpstreamTimeout)


def test_many_at_once_keep_their_own_answers(listener):
    """What is allowed to one is not lent to another."""
    port = listener.getsockname()[1]
    outcomes: list[bool] = []

    def attempt(allowed: tuple[str, ...]) -> None:
        try:
            egress.connect("127.0.0.1", port, allowed=allowed, timeout=5).close()
            outcomes.append(bool(allowed))
        except UpstreamFailed:
            outcomes.append(not allowed)

    threads = [threading.Thread(target=attempt, args=(("127.0.0.0/8",) if n % 2 else (),)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 20
