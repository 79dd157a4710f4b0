"""What the sections of sources have in common: directories, providers and trusts."""

from __future__ import annotations

from typing import ClassVar

from accounts import people
from accounts.models import ExternalIdentity, Source
from problems import Malformed
from repos.configuration.fields import Secret
from repos.configuration.kept import Receiver, opened, origin, sealed, stored, variable
from repos.configuration.section import Document, Section, named, without_defaults


class Sources(Section):
    """Sources of one kind. Of their secrets, which stand at the top of an item, `secrets` has the keys."""

    permission = "user:manage"
    kind: ClassVar[Source.Kind]
    secrets: ClassVar[tuple[str, ...]] = ()
    place: ClassVar[str]
    """The key of an item that says where its secrets are sent."""

    def expand(self, item: Document) -> list[Document]:
        """Secrets that are written out get the name of a variable, by which they are exported."""
        return [{**item, **{word: self._named(item, word) for word in self.secrets if word in item}}]

    def stored(self, identity: str | None = None) -> dict[str, Document]:
        rows = named(Source.objects, name=identity).filter(kind=self.kind).order_by("name")
        return {row.name: self._document(row) for row in rows}

    def secret_differs(self, before: Document, after: Document) -> bool:
        return any(
            after[word].value and after[word].value != opened(before[word])
            for word in self.secrets
            if word in before and word in after
        )

    def write(self, item: Document, before: Document | None, actor: str) -> None:
        known = [(self.receiver(before), before[word]) for word in self.secrets if before and word in before]
        where = f"{self.name}: {self.identity(item)}"
        settings = {
            word: sealed(value, self.receiver(item), known, where) if isinstance(value, Secret) else value
            for word, value in item.items()
            if word != self.identity_key
        }
        Source.objects.update_or_create(kind=self.kind, name=self.identity(item), defaults={"settings": settings})

    def remove(self, item: Document) -> None:
        """Whom it vouched for nobody vouches for now."""
        Source.objects.filter(kind=self.kind, name=self.identity(item)).delete()
        for identity in ExternalIdentity.objects.filter(source=self.identity(item)):
            people.suspend(identity)

    def check_names(self) -> None:
        """A group's external name begins with its source's: two of one name would vouch for each other's groups."""
        others = Source.objects.filter(kind__in=(Source.Kind.DIRECTORY, Source.Kind.PROVIDER)).exclude(kind=self.kind)
        own = Source.objects.filter(kind=self.kind).values("name")
        if twice := others.filter(name__in=own).order_by("name").first():
            raise Malformed(
                f"{self.name}: {twice.name} is the name of a {twice.kind} too; take another", rule=f"{self.kind}.name"
            )

    def receiver(self, item: Document) -> Receiver:
        """To whom an item's secrets are sent."""
        return origin(item[self.place])

    def _named(self, item: Document, word: str) -> Secret:
        secret: Secret = item[word]
        if secret.env:
            return secret
        taken = {item[other].env for other in self.secrets if other in item}
        return Secret(variable((self.identity(item), word), taken), secret.value)

    def _document(self, row: Source) -> Document:
        settings = {word: stored(value) if word in self.secrets else value for word, value in row.settings.items()}
        return without_defaults({self.identity_key: row.name, **settings})
