"""The sections that are one item with keys, and no list: `history`, `audit`, `egress`, `hosts` and `reviews`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from rest_framework import serializers

from accounts import appendonly
from basics.durations import duration
from problems import Malformed
from repos.configuration.fields import DurationField, Item, SetField, TextField
from repos.configuration.section import Document, Section
from repos.models import Repository, Setting


class Single(Section):
    """One item, known by the section's own name."""

    listed = False
    example: ClassVar[str]

    def identity(self, item: Document) -> str:
        return self.name

    def check(self, value: Any, variables: Mapping[str, str]) -> dict[str, Document]:
        if not isinstance(value, dict):
            raise Malformed(f"{self.name}: keys with values are expected, such as {self.example}", rule="configuration.form")
        return {self.name: self.checked(value, self.name, variables)}

    def stored(self, identity: str | None = None) -> dict[str, Document]:
        row = Setting.objects.filter(name=self.name).first()
        return {self.name: row.value if row else {}}

    def write(self, item: Document, before: Document | None, actor: str) -> None:
        Setting.objects.update_or_create(name=self.name, defaults={"value": item})

    def built_in(self) -> frozenset[str]:
        return frozenset({self.name})

    def export(self) -> Any:
        return self.stored()[self.name]


class HistoryItem(Item):
    keep = DurationField(required=False)


class History(Single):
    name = "history"
    item = HistoryItem
    example = "{keep: 30d}"


class AuditItem(Item):
    keep = DurationField(required=False)
    most = serializers.IntegerField(required=False, min_value=10_000, max_value=10**12)

    def validate_keep(self, keep: str) -> str:
        if duration(keep) < appendonly.KEPT:
            raise serializers.ValidationError("what was done is kept for a day at least; write 1d or more")
        return keep


class Audit(Single):
    name = "audit"
    address = "audit/settings"
    item = AuditItem
    example = "{keep: 400d}"


class NetworkField(TextField):
    """An address or a network, in its one form: `10.1.0.0/16`, `192.0.2.7/32`."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            return str(ipaddress.ip_network(text))
        except ValueError:
            raise serializers.ValidationError(f"{text!r} is no network; write it as 10.1.0.0/16, without bits after it") from None


class EgressItem(Item):
    allow = SetField(child=NetworkField(max_length=50), required=False)


class Egress(Single):
    name = "egress"
    item = EgressItem
    example = "{allow: [10.1.0.0/16]}"


LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
HOST = re.compile(rf"(?:{LABEL}(?:\.{LABEL})*|\[[0-9a-f:.]+\])?(?::[1-9][0-9]{{0,4}})?")
"""A host's name or address, with a port or without, or a port alone, as a Host header has it (RFC 9110 section 7.2)."""


class HostsItem(Item):
    """The keys are hosts: of each, the key of the repository that it leads to."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict):
            raise serializers.ValidationError("hosts with the keys of repositories are expected")
        found: dict[str, str] = {}
        for name, key in data.items():
            host = str(name).lower()
            if host.isdecimal():  # no client has a server of such a name, and who writes it means a port
                raise serializers.ValidationError({"non_field_errors": [f"{host}: no host; write :{host} for a port alone"]})
            if not host or len(host) > 260 or not HOST.fullmatch(host):
                raise serializers.ValidationError({str(name): ["no host; write a name, name:port, or :port alone"]})
            if not isinstance(key, str) or not key:
                raise serializers.ValidationError({str(name): ["the key of a repository is expected"]})
            if host in found:
                raise serializers.ValidationError({str(name): ["named twice"]})
            found[host] = key
        return found

    def to_representation(self, instance: Any) -> Any:
        return instance


class Hosts(Single):
    name = "hosts"
    item = HostsItem
    example = "{docker.example.org: images}"

    def check_whole(self) -> None:
        check_hosts()


def check_hosts() -> None:
    """Whether every host leads to a repository that there is."""
    row = Setting.objects.filter(name=Hosts.name).first()
    wanted = row.value if row else {}
    there = set(Repository.objects.filter(key__in=set(wanted.values())).values_list("key", flat=True))
    for host, key in sorted(wanted.items()):
        if key not in there:
            raise Malformed(f"hosts: {host} leads to {key}, which does not exist", rule="hosts.repository")


class ReviewsItem(Item):
    every = DurationField(required=False)
    unused = DurationField(required=False)
    stale = DurationField(required=False)

    def validate(self, attrs: dict[str, str]) -> dict[str, str]:
        for word, text in attrs.items():
            if not duration(text):
                raise serializers.ValidationError({word: ["at least 1s is expected"]})
        return attrs


class Reviews(Single):
    """How often grants, tokens and accounts are to be looked at; without `every` only when somebody asks for it."""

    name = "reviews"
    address = "reviews/settings"
    permission = "user:manage"
    item = ReviewsItem
    example = "{every: 90d}"
