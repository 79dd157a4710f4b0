"""What a section of the configuration is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from django.db.models import Manager, Model, QuerySet

from problems import Malformed
from repos.configuration.fields import Item, Secret, lines

Document = dict[str, Any]
"""One item in its one form: checked, without what is at its default, secrets as `Secret`."""
Row = TypeVar("Row", bound=Model)


class Section:
    """A list of items in the document, each with a name. A section is written by `write` and `remove` alone."""

    name: ClassVar[str]
    item: ClassVar[type[Item]]
    identity_key: ClassVar[str] = "name"
    permission: ClassVar[str] = "system:manage"
    """What it takes to change it."""

    rests_on: ClassVar[frozenset[str]] = frozenset()
    """Sections whose changes it has to fit to too, see `check_whole`."""

    address: ClassVar[str] = ""
    """Its address in the API, where that is not its name."""

    listed: ClassVar[bool] = True
    """Whether it is a list of items, and not one."""

    def identity(self, item: Document) -> str:
        """The name by which an item is known again."""
        return item[self.identity_key]

    def check(self, value: Any, variables: Mapping[str, str]) -> dict[str, Document]:
        """The items of a document by identity; `variables` are those by which it may name secrets.

        Raises Malformed, with the place, for what is wrong.
        """
        if not isinstance(value, list):
            raise Malformed(f"{self.name}: a list is expected", rule="configuration.form")
        found: dict[str, Document] = {}
        for n, data in enumerate(value):
            known = data.get(self.identity_key) if isinstance(data, dict) else None
            where = f"{self.name}[{n}]" + (f" {known}" if isinstance(known, str) else "")
            for item in self.expand(self.checked(data, where, variables)):
                identity = self.identity(item)
                if identity in found:
                    self.repeated(identity)
                found[identity] = item
        return found

    def repeated(self, identity: str) -> None:
        raise Malformed(f"{self.name}: {identity} is named twice", rule="configuration.twice")

    def checked(self, data: Any, where: str, variables: Mapping[str, str]) -> Document:
        """One item. Raises Malformed, beginning with the place `where`."""
        serializer = self.item(data=data, context={"variables": variables})
        if not serializer.is_valid():
            raise Malformed(f"{where}: {'; '.join(lines(serializer.errors))}", rule="configuration.form")
        return without_defaults(dict(serializer.validated_data))

    def expand(self, item: Document) -> list[Document]:
        """What one item of a document stands for."""
        return [item]

    def stored(self, identity: str | None = None) -> dict[str, Document]:
        """All that is stored, by identity, in the form of `check`; or that of one identity alone."""
        raise NotImplementedError

    def built_in(self) -> frozenset[str]:
        """Identities that every installation has: neither exported nor removed."""
        return frozenset()

    def differs(self, before: Document, after: Document) -> list[str]:
        """The keys of an item that differ, values of secrets aside."""
        return [key for key in sorted({**before, **after}) if before.get(key) != after.get(key)]

    def secret_differs(self, before: Document, after: Document) -> bool:
        """Whether a secret's value is another than the stored."""
        return False

    def lock(self, identities: Iterable[str]) -> None:
        """Hold what will be written against other writers, before any of it is."""

    def write(self, item: Document, before: Document | None, actor: str) -> None:
        """Make or change one item. In the caller's transaction."""
        raise NotImplementedError

    def remove(self, item: Document) -> None:
        """Remove one item, given as it is stored. In the caller's transaction."""
        raise NotImplementedError

    def check_whole(self) -> None:
        """Whether all that is stored fits together; called in the transaction, after all was written."""

    def told(self, item: Document) -> Document:
        """An item as the audit tells of it."""
        return dict(shown(item))

    def export(self) -> Any:
        """What `check` takes, for everything that is stored."""
        built_in = self.built_in()
        return [shown(item) for identity, item in sorted(self.stored().items()) if identity not in built_in]


def named(rows: Manager[Row], **name: str | None) -> QuerySet[Row]:
    """The row with a name; all rows where that is None."""
    return rows.filter(**{field: value for field, value in name.items() if value is not None})


def without_defaults(item: Document) -> Document:
    """An item without what says nothing: empty texts, lists and mappings, and false."""
    return {key: value for key, value in item.items() if value not in ("", [], {}, None, False)}


def shown(value: Any) -> Any:
    """A value as a document writes it: secrets by the name of their variable."""
    if isinstance(value, Secret):
        return value.shown()
    if isinstance(value, dict):
        return {key: shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    return value


def secrets_in(value: Any, place: str = "") -> list[str]:
    """The places of the secrets in an item that were given with their value."""
    if isinstance(value, Secret):
        return [place] if value.value else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, one in inner for found in secrets_in(one, f"{place}.{key}" if place else str(key))]
