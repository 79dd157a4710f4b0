"""Secrets that are kept for others, such as an upstream's password: named, sealed, and sent only to whom they were given for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from basics.sealing import seal, unseal
from problems import Malformed, Problem
from repos.configuration.fields import Secret

PORTS = {"http": 80, "https": 443, "ldap": 389, "ldaps": 636}
Receiver = Any
"""To whom a secret is sent, in a form that can be compared."""


def variable(place: tuple[str, str], taken: Collection[str], first: int = 1) -> str:
    """The name of the variable for a secret that was written out: of what it is (a key, a word), and that no other has.

    a-b, a.b and a_b are three repositories. Names are numbered, and those that are `taken` left out: they stand for others.
    """
    key, word = place
    stem = re.sub(r"[^A-Z0-9]", "_", key.upper())
    if "_" in key or "." in key:
        stem += f"_{hashlib.sha256(key.encode()).hexdigest()[:6].upper()}"
    stem = f"ENTREPOT_SECRET_{stem}_{word.upper()}"
    numbered = (f"{stem}_{number}" if number > 1 else stem for number in count(first))
    return next(name for name in numbered if name not in taken)


def stored(value: dict[str, str]) -> Secret:
    """A secret from the form in which it is stored."""
    return Secret(value["env"], sealed=value["sealed"])


def opened(secret: Secret) -> str:
    """The value of a stored secret; empty where it is unknown."""
    try:
        return unseal(secret.sealed)
    except Problem:  # sealed under another key: as good as unknown, and applying the value again mends it
        return ""


def sealed(secret: Secret, receiver: Receiver, known: Sequence[tuple[Receiver, Secret]], place: str) -> dict[str, str]:
    """A secret as it is stored: as it was given, else as it is `known` under the same name for the same receiver.

    For another receiver it must be given anew: who may change an address must not so learn a secret that is sent there.
    """
    return {"env": secret.env, "sealed": seal(secret.value or _known(secret, receiver, known, place))}


def _known(secret: Secret, receiver: Receiver, known: Sequence[tuple[Receiver, Secret]], place: str) -> str:
    values = [(other, value) for other, one in known if one == secret and (value := opened(one))]
    for other, value in values:
        if other == receiver:
            return value
    if values:
        raise Malformed(
            f"{place}: {secret.env} is kept for the host it was given for; for another, give the secret itself anew",
            rule="secret.origin",
        )
    raise Malformed(
        f"{place}: there is no value for {secret.env}; set this environment variable where `apply` runs,"
        " or send the secret itself",
        rule="secret.unset",
    )


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)
