"""The section `directories`: LDAP and Active Directory."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from itertools import accumulate
from typing import Any
from urllib.parse import urlsplit

from django.core.validators import RegexValidator
from rest_framework import serializers

from accounts.directories import settings
from accounts.directories.link import LOCAL
from accounts.models import DirectoryWatch, Source
from basics.durations import duration
from problems import Malformed
from repos.configuration.fields import DurationField, FlagField, Item, SecretField, TextField
from repos.configuration.kept import Receiver, origin
from repos.configuration.section import Document
from repos.configuration.sources import Sources

LONGEST_TIMEOUT = "30s"
NAME = RegexValidator(r"\A[a-z0-9]([a-z0-9._-]*[a-z0-9])?\Z", "a directory's name has lower-case letters, digits and . - _")


class FilterField(TextField):
    """A filter of RFC 4515, in its parentheses."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        open_after = list(accumulate((character == "(") - (character == ")") for character in text))
        if not text.startswith("(") or 0 in open_after[:-1] or open_after[-1]:
            raise serializers.ValidationError(f"{text[:80]!r} is no filter; write it in parentheses, such as (objectClass=group)")
        return text


class AddressField(TextField):
    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            parts = urlsplit(text)
            whole = parts.scheme in ("ldap", "ldaps") and parts.hostname and (parts.port or 1)
        except ValueError:
            whole = False
        if not whole or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
            raise serializers.ValidationError(f"{text[:200]!r} is no address of a directory, such as ldaps://ldap.example.org")
        return text


class DirectoryUsers(Item):
    base = TextField(max_length=1000)
    filter = FilterField(required=False, max_length=2000)
    name = TextField(required=False, max_length=100)
    email = TextField(required=False, max_length=100)
    id = TextField(required=False, max_length=100)
    disabled = FilterField(required=False, max_length=2000)

    def validate_filter(self, text: str) -> str:
        if settings.USER not in text:
            raise serializers.ValidationError(f"the name that somebody signs in by stands in it as {settings.USER}")
        return text


class DirectoryGroups(Item):
    base = TextField(max_length=1000)
    filter = FilterField(required=False, max_length=2000)
    member = TextField(required=False, max_length=100)
    nested = FlagField(required=False)


class DirectoryItem(Item):
    name = TextField(max_length=50, validators=[NAME])
    url = AddressField(max_length=500)
    replicas = serializers.ListField(child=AddressField(max_length=500), required=False, max_length=10)
    start_tls = FlagField(required=False)
    ca = TextField(required=False, max_length=1000)
    timeout = DurationField(required=False)
    bind_dn = TextField(required=False, max_length=1000)
    bind_password = SecretField(required=False)
    users = DirectoryUsers()
    groups = DirectoryGroups(required=False)

    def validate_timeout(self, text: str) -> str:
        if not duration("1s") <= duration(text) <= duration(LONGEST_TIMEOUT):
            raise serializers.ValidationError(f"1s to {LONGEST_TIMEOUT}")
        return text

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("bind_dn" in attrs) != ("bind_password" in attrs):
            raise serializers.ValidationError("bind_dn and bind_password are given together, or neither")
        for url in (attrs["url"], *attrs.get("replicas", ())):
            parts = urlsplit(url)
            if attrs.get("start_tls") and parts.scheme == "ldaps":
                raise serializers.ValidationError(f"{url} is TLS from the start; start_tls is for ldap://")
            if parts.scheme == "ldap" and not attrs.get("start_tls") and parts.hostname not in LOCAL:
                raise serializers.ValidationError(
                    f"passwords would be sent to {url} for all to read; say start_tls: true, or ldaps://"
                )
        return attrs


class Directories(Sources):
    name = "directories"
    item = DirectoryItem
    kind = Source.Kind.DIRECTORY
    secrets = ("bind_password",)
    place = "url"

    def check(self, value: Any, variables: Mapping[str, str]) -> dict[str, Document]:
        found = super().check(value, variables)
        if found:
            self._check_library()
        return found

    def check_whole(self) -> None:
        self.check_names()

    def remove(self, item: Document) -> None:
        super().remove(item)
        DirectoryWatch.objects.filter(name=item["name"]).delete()

    def receiver(self, item: Document) -> Receiver:
        """All replicas are sent the password."""
        return sorted({origin(url) for url in (item["url"], *item.get("replicas", ()))}, key=str)

    def _check_library(self) -> None:
        try:
            importlib.import_module("ldap")
        except ImportError:
            raise Malformed(
                "directories: python-ldap is not installed here: install libldap2-dev, libsasl2-dev, python3-dev and a C compiler"
                " (Debian's names) and start ./dev again, or pip install -r requirements-ldap.lock",
                rule="directory.library",
            ) from None
