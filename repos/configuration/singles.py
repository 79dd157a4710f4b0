"""The sections that are one item with keys, and no list: `history` and `egress`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, ClassVar

from rest_framework import serializers

from problems import Malformed
from repos.configuration.fields import DurationField, Item, SetField, TextField
from repos.configuration.section import Document, Section
from repos.models import Setting


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
