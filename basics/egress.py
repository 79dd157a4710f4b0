"""Which addresses this server may connect to: every one is checked, and the one that was checked is connected to.

What an administrator configured as an upstream may be anywhere, also inside. What a redirect, an index or a client names may
be a public address, or one that the configuration's `egress.allow` holds; so nobody outside makes this server ask something
inside (CWE-918). A name is resolved once, here: what it resolves to later (DNS rebinding) is of no interest.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from functools import lru_cache

from problems import UpstreamFailed, silent

log = logging.getLogger("entrepot.egress")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is given out for the public; the rest has a meaning of its own, such as translation inside."""
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
SHORTEST = 0.1
"""Seconds that an address is tried at least."""
MOST_TRIED = 8
"""How many of a name's addresses are tried, of the many that somebody may have given it."""


def connect(host: str, port: int, *, allowed: tuple[str, ...] | None, timeout: float) -> socket.socket:
    """A TCP connection to `host`, a name or a literal address in any spelling, within `timeout` seconds for all of its addresses.

    `allowed`: the networks (as `10.1.0.0/16`) that may be reached besides public addresses; None: wherever the name leads, which
    is for what an administrator configured. Raises UpstreamFailed, UpstreamTimeout. The time that the system's resolver takes
    comes on top.
    """
    addresses = _resolve(host, port)
    for _, address in addresses if allowed is not None else ():
        if not may_reach(address[0], allowed or ()):
            log.warning("%s is at %s, which is not public and not under egress.allow; it was not asked", host, address[0])
            raise UpstreamFailed(
                "what the upstream names is not at a public address; whoever runs this registry can allow it under egress.allow",
                rule="egress.address",
            )
    failure: OSError | None = None
    deadline = time.monotonic() + timeout
    tried = addresses[:MOST_TRIED]
    for left, (family, address) in zip(range(len(tried), 0, -1), tried, strict=True):
        try:
            return _connected(family, address, max(SHORTEST, (deadline - time.monotonic()) / left))
        except OSError as error:
            failure = error
    if isinstance(failure, TimeoutError):
        raise silent() from failure
    raise UpstreamFailed("the upstream could not be reached; try again later", rule="upstream.failed") from failure


def may_reach(address: str, allowed: tuple[str, ...]) -> bool:
    """Whether a literal address is public, or in one of the networks `allowed`."""
    found = _plain(ipaddress.ip_address(address.partition("%")[0]))
    if any(found in network for network in _networks(allowed)):
        return True
    return all(_is_public(one) for one in _led_to(found))


def _resolve(host: str, port: int) -> list[tuple[int, tuple]]:
    """All of a name's addresses. The system reads literals in every spelling (octal, one number), so none is mistaken."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UpstreamFailed("the upstream's name cannot be resolved; try again later", rule="upstream.failed") from error
    return [(family, address) for family, _, _, _, address in found]


def _connected(family: int, address: tuple, timeout: float) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.settimeout(timeout)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.connect(address)
    except BaseException:
        one.close()
        raise
    return one


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast


def _plain(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one, as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _led_to(address: Address) -> list[Address]:
    """Where a connection to an address may end: there, or where a gateway leads that reads it (RFC 3056, 4380, 6052)."""
    if not isinstance(address, ipaddress.IPv6Address):
        return [address]
    if address in NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address, *([address.sixtofour] if address.sixtofour else ()), *(address.teredo or ())]


@lru_cache(maxsize=64)
def _networks(allowed: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in allowed)
