"""The section `history`: one item, and no list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from problems import Malformed
from repos.configuration.fields import DurationField, Item
from repos.configuration.section import Document, Section
from repos.models import Setting


class HistoryItem(Item):
    keep = DurationField(required=False)


class History(Section):
    name = "history"
    item = HistoryItem

    def check(self, value: Any, variables: Mapping[str, str]) -> dict[str, Document]:
        if not isinstance(value, dict):
            raise Malformed("history: keys with values are expected, such as {keep: 30d}", rule="configuration.form")
        return {self.name: self.checked(value, self.name, variables)}

    def stored(self) -> dict[str, Document]:
        row = Setting.objects.filter(name=self.name).first()
        return {self.name: row.value if row else {}}

    def write(self, item: Document, before: Document | None, actor: str) -> None:
        Setting.objects.update_or_create(name=self.name, defaults={"value": item})

    def built_in(self) -> frozenset[str]:
        return frozenset({self.name})

    def export(self) -> Any:
        return self.stored()[self.name]
