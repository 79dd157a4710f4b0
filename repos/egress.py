"""Which addresses this server may connect to: every one is checked, and the one that was checked is connected to.

What an administrator configured as an upstream may be anywhere, also inside. What a redirect, an index or a client names may
be a public address, or one that the configuration's `egress.allow` holds; so nobody outside makes this server ask something
inside (CWE-918). A name is resolved once, here: what it resolves to later (DNS rebinding) is of no interest.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache

from problems import UpstreamFailed, UpstreamTimeout

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
COMPATIBLE = ipaddress.IPv6Network("::/96")


def connect(host: str, port: int, *, allowed: tuple[str, ...] | None, timeout: float) -> socket.socket:
    """A TCP connection to `host`, a name or a literal address in any spelling, within `timeout` seconds for each address.

    `allowed`: the networks (as `10.1.0.0/16`) that may be reached besides public addresses; None: wherever the name leads, which
    is for what an administrator configured. Raises UpstreamFailed, UpstreamTimeout.
    """
    failure: UpstreamFailed | None = None
    for family, address in _resolve(host, port):
        if allowed is not None and not may_reach(address[0], allowed):
            raise UpstreamFailed(
                f"{host} is at {address[0]}, an address that is not public; an administrator can allow it under egress.allow",
                rule="egress.address",
            )
        try:
            return _connected(family, address, timeout)
        except TimeoutError:
            failure = UpstreamTimeout(f"{host} did not answer in time; try again later", rule="upstream.timeout")
        except OSError as error:
            failure = UpstreamFailed(f"{host} could not be reached ({error.strerror or error})", rule="upstream.failed")
    raise failure or UpstreamFailed(f"{host} has no address", rule="upstream.failed")


def may_reach(address: str, allowed: tuple[str, ...]) -> bool:
    """Whether a literal address is public, or in one of the networks `allowed`."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if any(_plain(found) in network for network in _networks(allowed)):
        return True
    return all(_is_public(one) for one in (found, *_embedded(found)))


def _resolve(host: str, port: int) -> list[tuple[int, tuple]]:
    """All of a name's addresses. The system reads literals in every spelling (octal, one number), so none is mistaken."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UpstreamFailed(f"{host} cannot be resolved", rule="upstream.failed") from error
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
    return address.is_global and not address.is_multicast


def _embedded(address: Address) -> list[Address]:
    """The addresses that one carries in itself, to which a gateway may lead (RFC 4291, 3056, 4380, 6052)."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    inside: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in NAT64 or address in COMPATIBLE:
        inside.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in inside if one is not None]


def _plain(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one, as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=64)
def _networks(allowed: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in allowed)
