"""The section `providers`: where people sign in by OpenID Connect."""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from urllib.parse import urlsplit

from django.core.validators import RegexValidator
from rest_framework import serializers

from accounts import people
from accounts.models import ExternalIdentity, Source
from basics.durations import duration
from problems import Conflict
from repos.configuration.fields import ONE_LINE, DurationField, Item, SecretField, TextField, names
from repos.configuration.section import Document
from repos.configuration.sources import Sources

NAME = RegexValidator(r"\A[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?\Z", "a name has 1 to 64 lower-case letters, digits and dashes")
SCOPE = re.compile(r"[!#-\[\]-~]+")
"""RFC 6749 section 3.3."""
SHORTEST_STALE = timedelta(hours=1)


class ProviderItem(Item):
    name = TextField(max_length=64, validators=[NAME])
    issuer = TextField(max_length=500)
    client_id = TextField(max_length=255, validators=[ONE_LINE])
    client_secret = SecretField(required=False)
    title = TextField(max_length=100, required=False, validators=[ONE_LINE])
    scopes = names(required=False, max_length=20)
    groups_claim = TextField(max_length=200, required=False, validators=[ONE_LINE])
    name_claim = TextField(max_length=200, required=False, validators=[ONE_LINE])
    email_claim = TextField(max_length=200, required=False, validators=[ONE_LINE])
    required_groups = names(required=False, max_length=100)
    stale = DurationField(required=False)
    ca = TextField(required=False)

    def validate_issuer(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, usable = parts.hostname or "", bool(parts.hostname) and parts.port != 0 and not re.search(r"[^!-~]", url)
        except ValueError:
            host, usable = "", False
        if not usable or parts.scheme not in ("https", "http") or parts.query or parts.fragment or "@" in parts.netloc:
            raise serializers.ValidationError("an issuer is https://host, with port and path if need be, as the provider says it")
        if parts.scheme == "http" and not _is_loopback(host):
            raise serializers.ValidationError("an issuer's address begins with https://, unless it is on this machine itself")
        return url

    def validate_scopes(self, scopes: list[str]) -> list[str]:
        if wrong := [scope for scope in scopes if not SCOPE.fullmatch(scope)]:
            raise serializers.ValidationError(f"{wrong[0]!r} is no scope; it has no spaces and no quotes")
        if scopes and "openid" not in scopes:
            raise serializers.ValidationError("openid is among the scopes, or there is no OpenID Connect")
        return scopes

    def validate_stale(self, text: str) -> str:
        if duration(text) < SHORTEST_STALE:
            raise serializers.ValidationError("it is at least 1h")
        return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Providers(Sources):
    name = "providers"
    item = ProviderItem
    kind = Source.Kind.PROVIDER
    secrets = ("client_secret",)
    place = "issuer"

    def write(self, item: Document, before: Document | None, actor: str) -> None:
        """Of another issuer others come: for whom the one before vouched nobody vouches for now."""
        super().write(item, before, actor)
        for identity in ExternalIdentity.objects.filter(source=item["name"]).exclude(issuer=item["issuer"]):
            people.suspend(identity)

    def check_whole(self) -> None:
        """Each issuer once: it says for whom a provider speaks."""
        self.check_names()
        taken: dict[str, str] = {}
        for row in Source.objects.filter(kind=self.kind).order_by("name"):
            other = taken.setdefault(row.settings["issuer"], row.name)
            if other != row.name:
                raise Conflict(f"providers: {other} and {row.name} have one issuer; keep one of them", rule="provider.issuer")
