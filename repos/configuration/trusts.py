"""The section `trusts`: whose jobs may exchange a token of their own for one of which robot (see `accounts.trusts`)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from rest_framework import serializers

from accounts import globs, scopes, tokens
from accounts.models import Source, User
from accounts.openid.issuer import checked_keys
from basics.durations import duration
from problems import Conflict, Malformed
from repos.configuration.fields import ONE_LINE, DurationField, Item, TextField
from repos.configuration.section import Document
from repos.configuration.sources import Sources

LONGEST = timedelta(days=1)
MOST_PATTERNS = 100
DEEPEST = 5
SAID_ANYWAY = ("iss", "aud", "exp", "nbf", "iat", "jti")
"""Claims that tell nothing of who somebody is (RFC 7519 section 4.1), or that a trust says by keys of its own."""
WHOM = ("issuer", "audience", "claims", "robot")
"""What makes one trust another than the next, where it has no name."""
PRIVATE = ("d", "k", "p", "q")
"""Members of a JSON Web Key that nobody else may have (RFC 7518 section 6)."""


class ClaimsField(serializers.Field):
    """Claims with patterns, in the shape that the claims have: text, a number, true or false, a list of these, or keys again."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        try:
            leaves = list(_leaves(data))
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None
        if strange := [name for name in data if name in SAID_ANYWAY]:
            raise serializers.ValidationError(
                f"{strange[0]} is no claim by which jobs differ; issuer and audience have keys of their own"
            )
        if not any(_says_something(leaf) for leaf in leaves):
            raise serializers.ValidationError(
                "they let in every job of the issuer, which may serve others too; name what is yours, such as a repository"
            )
        if len(leaves) > MOST_PATTERNS:
            raise serializers.ValidationError(f"{MOST_PATTERNS} patterns are the most")
        return data


def _leaves(value: Any, depth: int = 1) -> Iterator[list[str]]:
    """The patterns, each as the globs of which one must match. Raises ValueError."""
    if not isinstance(value, dict) or not value or depth > DEEPEST:
        raise ValueError("claims with patterns are expected, such as {repository: corp/*}")
    for name, pattern in value.items():
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 200:
            raise ValueError("the name of a claim is text in one line; put quotes around a number")
        if isinstance(pattern, dict):
            yield from _leaves(pattern, depth + 1)
        else:
            yield [_glob(name, one) for one in (pattern if isinstance(pattern, list) else [pattern])]


def _glob(name: str, pattern: Any) -> str:
    if isinstance(pattern, bool | int):
        return json.dumps(pattern)
    if not isinstance(pattern, str) or not pattern:
        raise ValueError(f"{name}: text, a whole number, true, false, or a list of them is expected")
    try:
        return globs.checked(pattern)
    except Malformed as problem:
        raise ValueError(f"{name}: {problem.detail}") from None


def _says_something(globs_of_one: list[str]) -> bool:
    """Whether none of the globs is of wildcards and punctuation alone."""
    return bool(globs_of_one) and all(re.search(r"\w", glob) for glob in globs_of_one)


class KeysField(serializers.Field):
    """A JSON Web Key Set with public keys."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        try:
            checked_keys(data)
            told = json.dumps(data, allow_nan=False)
        except Malformed as problem:
            raise serializers.ValidationError(problem.detail) from None
        except (TypeError, ValueError):
            raise serializers.ValidationError("a JSON Web Key Set is expected") from None
        if "\\u0000" in told or "\\ud" in told:  # what no database takes, and no key has
            raise serializers.ValidationError("a JSON Web Key Set is expected")
        if any(word in key for key in data["keys"] if isinstance(key, dict) for word in PRIVATE):
            raise serializers.ValidationError("a key is private; leave it with the issuer, and write its public part alone")
        return data


class TrustItem(Item):
    name = TextField(required=False, max_length=100, validators=[ONE_LINE])
    issuer = TextField(max_length=500, validators=[ONE_LINE])
    audience = TextField(max_length=500, validators=[ONE_LINE])
    claims = ClaimsField()
    robot = TextField(max_length=150, validators=[ONE_LINE])
    lifetime = DurationField(required=False)
    scopes = serializers.ListField(child=TextField(max_length=3000), required=False, allow_empty=False)
    ca = TextField(required=False, max_length=1000, validators=[ONE_LINE])
    keys = KeysField(required=False)

    def validate_lifetime(self, text: str) -> str:
        if not timedelta() < duration(text) <= LONGEST:
            raise serializers.ValidationError(f"a token of a trust lives for 1s to {LONGEST.days}d")
        return text

    def validate_scopes(self, given: list[str]) -> list[str] | None:
        try:
            return scopes.checked(given)
        except Malformed as problem:
            raise serializers.ValidationError(problem.detail) from None

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "keys" not in attrs and not _is_address(attrs["issuer"]):
            raise serializers.ValidationError(
                {"issuer": ["it is https://…, as tokens have it in iss; where it is no address, write its keys"]}
            )
        return attrs


def _is_address(issuer: str) -> bool:
    """Whether it can be asked for its keys (OpenID Connect Discovery 1.0 section 3)."""
    try:
        parts = urlsplit(issuer)
        told = parts.hostname and parts.port != 0 and not re.search(r"[\s\x00-\x1f]", issuer)
    except ValueError:
        return False
    return bool(told) and parts.scheme == "https" and not (parts.query or parts.fragment or "@" in parts.netloc)


class Trusts(Sources):
    """A trust has the name that it is given, or one that is made of whom it trusts in what."""

    name = "trusts"
    kind = Source.Kind.TRUST
    item = TrustItem
    place = "issuer"
    rests_on = frozenset({"users"})

    def identity(self, item: Document) -> str:
        return item.get("name") or _derived(item)

    def expand(self, item: Document) -> list[Document]:
        """The name that it would have anyway is none that was given."""
        return [_unnamed(item) if item.get("name") == _derived(item) else item]

    def stored(self, identity: str | None = None) -> dict[str, Document]:
        found = super().stored(identity)
        return {name: _unnamed(item) if name == _derived(item) else item for name, item in found.items()}

    def write(self, item: Document, before: Document | None, actor: str) -> None:
        super().write(item, before, actor)
        if before and any(before.get(word) != item.get(word) for word in (*WHOM, "scopes")):
            tokens.revoke_given(self.identity(item))

    def remove(self, item: Document) -> None:
        """What it gave ends with it."""
        Source.objects.filter(kind=self.kind, name=self.identity(item)).delete()
        tokens.revoke_given(self.identity(item))

    def check_whole(self) -> None:
        robots = set(User.objects.filter(robot=True).values_list("username", flat=True))
        for name, item in self.stored().items():
            if item["robot"] not in robots:
                raise Conflict(
                    f"trusts: {name}: there is no robot {item['robot']}; list it under users with robot: true,"
                    " or remove the trust",
                    rule="trusts.robot",
                )


def _derived(item: Mapping[str, Any]) -> str:
    text = json.dumps({word: item[word] for word in WHOM}, sort_keys=True)
    host = urlsplit(item["issuer"]).hostname or "issuer"
    return f"{item['robot'][:40]}@{host[:40]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _unnamed(item: Document) -> Document:
    return {word: value for word, value in item.items() if word != "name"}
