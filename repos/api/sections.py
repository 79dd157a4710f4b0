"""The configuration: each section as a collection of items, and the whole as the document of `apply`.

An item is put as a document that holds this item alone, and so by the same checks. What `apply` may and the API may not is to
read the server's environment: a variable's name stands for what is stored under it, and a new secret is sent itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, ClassVar
from urllib.parse import quote

import yaml
from django.http import HttpResponse
from django.utils.encoding import escape_uri_path
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from accounts.permissions import REPOSITORY_PERMISSIONS
from problems import Conflict, Forbidden, Malformed
from repos.api.permissions import EachItem, SystemManager, exercised, hidden, refused
from repos.api.resource import JSON, YAML, Page, Query, Resource
from repos.api.shapes import LinesShape, document_of, item_of, page_of
from repos.caller import READ, Caller
from repos.configuration import documents, engine
from repos.configuration.accounts import grant_document
from repos.configuration.engine import Step
from repos.configuration.fields import TextField
from repos.configuration.kept import origin
from repos.configuration.section import Document, Section, shown
from repos.configuration.singles import Single
from repos.configuration.sources import Sources
from repos.format import find, installed
from repos.models import Repository
from repos.serve import base_url

PUBLIC = ("key", "format", "kind", "description", "owner")
"""What who may read a repository sees of its configuration."""


class SectionPage(Page):
    prefix = TextField(required=False, help_text="only names that begin so")


class Shelf:
    """A section as the API shows it: who sees and edits which items, at which names, in which form."""

    page: ClassVar[type[Page]] = SectionPage
    read_only: ClassVar[tuple[str, ...]] = ()
    """Keys that answers have besides the document's; sent back, they say nothing."""

    def __init__(self, section: Section):
        self.section = section

    def edits(self, caller: Caller, identity: str) -> bool:
        permission = self.section.permission
        if caller.rights.allows_globally(permission):
            return True
        return permission in REPOSITORY_PERMISSIONS and caller.rights.allows_everywhere(permission, identity)

    def sees(self, caller: Caller, identity: str) -> bool:
        return self.edits(caller, identity)

    def lists(self, caller: Caller) -> bool:
        """Whether there may be items for the caller to see."""
        return self.edits(caller, "")

    def name(self, identity: str) -> str:
        """An item's name in its address."""
        return identity

    def found(self, name: str) -> tuple[str, Document] | None:
        """The stored item at a name, with its identity."""
        if "\0" in name:  # which PostgreSQL takes in no text
            return None
        return next(iter(self.section.stored(name).items()), None)

    def items(self, caller: Caller) -> dict[str, Document]:
        """The stored items that the caller may see."""
        return {key: item for key, item in self.section.stored().items() if self.sees(caller, key)}

    def chosen(self, items: dict[str, Document], asked: dict[str, Any]) -> dict[str, Document]:
        """The items that a list's parameters ask for."""
        return {key: item for key, item in items.items() if key.startswith(asked.get("prefix", ""))}

    def document(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        """A body as an item of a document: named by its address."""
        if isinstance(self.section, Single):
            return data
        item = {key: value for key, value in data.items() if key not in self.read_only}
        return {self.section.identity_key: name, **item}

    def shown(self, caller: Caller, identity: str, item: Document, server: str) -> dict[str, Any]:
        """An item as the caller may see it; `server` is this server's address."""
        return shown(item)

    def check(self, caller: Caller, steps: Iterable[Step]) -> None:
        """What the caller may not do though they may edit the items. Raises Forbidden, Malformed."""
        for step in steps:
            if not self.edits(caller, step.identity):
                raise Forbidden(
                    f"{caller.actor.name} may not change {self.section.name} {step.identity}", rule=self.section.permission
                )
            self.exercise(caller, step.identity)

    def exercise(self, caller: Caller, identity: str = "") -> None:
        """They were told, or changed, what takes the section's permission: the global one or, for a repository, its own."""
        permission = self.section.permission
        own = permission in REPOSITORY_PERMISSIONS and not caller.rights.allows_globally(permission)
        exercised(caller, permission, identity if own else "")


class RepositoryPage(SectionPage):
    format = TextField(required=False)
    kind = serializers.ChoiceField(choices=Repository.Kind.values, required=False)


class Repositories(Shelf):
    """Readers see what a repository is; its upstreams, patterns and members only who manages it.

    Where this server connects to is not for who manages a single repository to say: by an upstream they could ask what only this
    server can reach. Nor can they name as members what they may not see.
    """

    page = RepositoryPage
    read_only = ("url",)

    def lists(self, caller: Caller) -> bool:
        return True

    def sees(self, caller: Caller, identity: str) -> bool:
        return caller.rights.allows(READ, identity) or self.edits(caller, identity)

    def chosen(self, items: dict[str, Document], asked: dict[str, Any]) -> dict[str, Document]:
        form = find(asked["format"]) if "format" in asked else None
        wanted = {"format": form.key if form else asked.get("format"), "kind": asked.get("kind")}
        return {
            key: item
            for key, item in super().chosen(items, asked).items()
            if all(value is None or item[word] == value for word, value in wanted.items())
        }

    def shown(self, caller: Caller, identity: str, item: Document, server: str) -> dict[str, Any]:
        told = shown(item)
        if not self.edits(caller, identity):
            told = {key: value for key, value in told.items() if key in PUBLIC}
        form = find(item["format"])
        return {**told, "url": f"{server}/{form.mount}{identity}/"} if form else told

    def check(self, caller: Caller, steps: Iterable[Step]) -> None:
        steps = list(steps)
        super().check(caller, steps)
        for step in steps:
            if step.after is None:
                self._check_unused(caller, step.identity, {step.identity for step in steps if step.after is None})
            else:
                self._check_reach(caller, step.identity, step.before or {}, step.after)

    def _check_unused(self, caller: Caller, key: str, removed: set[str]) -> None:
        virtuals = Repository.objects.filter(kind=Repository.Kind.VIRTUAL).exclude(key__in=removed).order_by("key")
        for row in virtuals:
            if key in row.settings.get("members", ()):
                where = row.key if self.sees(caller, row.key) else "a virtual repository that you may not see"
                raise Conflict(f"{key} is a member of {where}; take it out there first", rule="repository.members")

    def _check_reach(self, caller: Caller, key: str, before: Document, after: Document) -> None:
        old, new = before.get("upstreams", ()), after.get("upstreams", ())
        if {origin(one["url"]) for one in new} - {origin(one["url"]) for one in old} and not self.edits(caller, ""):
            raise Forbidden(
                f"{key}: to name another host as upstream takes repository:manage for all repositories",
                rule="repository.upstream",
            )
        files = {one.get("ca", "") for one in new} - {one.get("ca", "") for one in old} - {""}
        if files and not caller.rights.allows_globally("system:manage"):
            raise Forbidden(f"{key}: to name a file on the server as ca takes system:manage", rule="repository.ca")
        for member in after.get("members", ()):
            if member not in before.get("members", ()) and not self.sees(caller, member):
                raise Malformed(f"{key}: its member {member} does not exist", rule="repository.members")


class OfSources(Shelf):
    """Directories, providers and trusts."""

    section: Sources

    def check(self, caller: Caller, steps: Iterable[Step]) -> None:
        """Which files of the server are read is for who manages the server to say."""
        steps = list(steps)
        super().check(caller, steps)
        for step in steps:
            ca = (step.after or {}).get("ca", "")
            if ca and ca != (step.before or {}).get("ca") and not caller.rights.allows_globally("system:manage"):
                raise Forbidden(
                    f"{step.identity}: to name a file on the server as ca takes system:manage", rule=f"{self.section.kind}.ca"
                )


class Users(Shelf):
    """A user sees themself. A password is never told."""

    def lists(self, caller: Caller) -> bool:
        return not caller.actor.anonymous

    def sees(self, caller: Caller, identity: str) -> bool:
        own = not caller.actor.anonymous and identity == caller.actor.name
        return own or self.edits(caller, identity)

    def items(self, caller: Caller) -> dict[str, Document]:
        return super().items(caller) if self.edits(caller, "") else self.section.stored(caller.actor.name)

    def shown(self, caller: Caller, identity: str, item: Document, server: str) -> dict[str, Any]:
        return {key: value for key, value in shown(item).items() if key != "password"}


class Grants(Shelf):
    """A stored grant has no name of its own; its address is a hash of what it says."""

    read_only = ("id",)
    page = Page

    def found(self, name: str) -> tuple[str, Document] | None:
        return next(((key, item) for key, item in self.section.stored().items() if self.name(key) == name), None)

    def name(self, identity: str) -> str:
        return hashlib.sha256(identity.encode()).hexdigest()[:24]

    def document(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in data.items() if key not in self.read_only}

    def chosen(self, items: dict[str, Document], asked: dict[str, Any]) -> dict[str, Document]:
        return items

    def shown(self, caller: Caller, identity: str, item: Document, server: str) -> dict[str, Any]:
        return {"id": self.name(identity), **grant_document(item["entry"])}


class Trusts(OfSources):
    """One without a name of its own is known by the one that was made for it."""

    def shown(self, caller: Caller, identity: str, item: Document, server: str) -> dict[str, Any]:
        return {"name": identity, **shown(item)}


SPECIAL: dict[str, type[Shelf]] = {
    "repositories": Repositories, "directories": OfSources, "providers": OfSources, "users": Users, "grants": Grants,
    "trusts": Trusts,
}  # fmt: skip
SHELVES = {section.name: SPECIAL.get(section.name, Shelf)(section) for section in engine.SECTIONS}


class OfSection(Resource):
    """What the addresses of a section have in common."""

    permission_classes: Any = (EachItem,)
    shelf: ClassVar[Shelf]

    def shown(self, identity: str, item: Document) -> dict[str, Any]:
        return self.shelf.shown(self.caller, identity, item, base_url(self.request._request))

    def put_item(self, name: str, data: dict[str, Any]) -> HttpResponse:
        """Make or change the one item at an address."""
        document = self.shelf.document(name, data)
        wanted = self.section.check(document if isinstance(self.section, Single) else [document], {})
        if [self.shelf.name(identity) for identity in wanted] != [name]:
            raise Malformed(f"the body is not of {name}, at whose address it is put; put it at its own", rule="name")
        (identity,) = wanted
        new: list[bool] = []

        def guard(steps: list[Step]) -> None:
            stored = self.section.stored(identity).get(identity)
            self.require(None if stored is None else self.shown(identity, stored))
            self.shelf.check(self.caller, steps)
            new.append(stored is None)

        self.write(document, guard)
        headers = {"Location": self._address(name)} if new[-1] else {}
        told = self.shown(identity, wanted[identity])
        return self.answer(told, 201 if new[-1] else 200, headers)

    def _address(self, name: str) -> str:
        """This request's address, which ends with an item's name: a slash of the name is no slash of the address."""
        return f"{escape_uri_path(self.request.path.removesuffix(f'{name}/'))}{quote(name, safe='')}/"

    @property
    def section(self) -> Section:
        return self.shelf.section

    def write(self, document: dict[str, Any], guard: engine.Guard) -> list[str]:
        value = document if isinstance(self.section, Single) else [document]
        return engine.apply({self.section.name: value}, actor=self.caller.actor.name, variables={}, guard=guard)

    def refuse_unless_managed(self) -> None:
        if not self.shelf.edits(self.caller, ""):
            raise refused(self.caller, self.section.permission)
        self.shelf.exercise(self.caller)


class Collection(OfSection):
    def get(self, request: Request) -> HttpResponse:
        """All items of the section that you may see, in the order of their names."""
        if not self.shelf.lists(self.caller):
            raise refused(self.caller, self.section.permission)
        if self.shelf.edits(self.caller, ""):
            self.shelf.exercise(self.caller)
        after = self.after(str)
        items = self.shelf.chosen(self.shelf.items(self.caller), self.asked)
        rows = ((self.shelf.name(identity), identity, item) for identity, item in items.items())
        behind = sorted((row for row in rows if after is None or row[0] > after[0]), key=lambda row: row[0])
        return self.page(behind, lambda row: self.shown(row[1], row[2]), lambda row: [row[0]])


class GrantCollection(Collection):
    def post(self, request: Request) -> HttpResponse:
        """Add all the grants that one item stands for."""
        self.refuse_unless_managed()
        document = self.shelf.document("", self.body())
        wanted = self.section.check([document], {})
        lines = self.write(document, lambda steps: self.shelf.check(self.caller, steps))
        items = [self.shown(identity, item) for identity, item in sorted(wanted.items())]
        return self.answer({"items": items, "next": None}, 201 if lines else 200)


class Element(OfSection):
    tagged = True

    def get(self, request: Request, name: str) -> HttpResponse:
        """One item, in the form in which it may be put."""
        found = self.shelf.found(name) if self.shelf.sees(self.caller, name) else None
        if found is None:
            raise hidden(self.caller, name)
        if self.shelf.edits(self.caller, name):
            self.shelf.exercise(self.caller, name)
        return self.answer(self.shown(*found))

    def put(self, request: Request, name: str) -> HttpResponse:
        """Make or replace it: it becomes what the body says, and what that leaves out has its default."""
        self._may_edit(name)
        return self.put_item(name, self.body())

    def delete(self, request: Request, name: str) -> HttpResponse:
        """Remove it."""
        self._may_edit(name)
        found = self.shelf.found(name)
        if found is None:
            self.require(None)
            raise hidden(self.caller, name)
        identity = found[0]

        def guard(steps: list[Step]) -> None:
            stored = self.section.stored(identity).get(identity)
            self.require(None if stored is None else self.shown(identity, stored))
            self.shelf.check(self.caller, steps)

        engine.remove(self.section, identity, actor=self.caller.actor.name, guard=guard)
        return self.nothing()

    def _may_edit(self, name: str) -> None:
        if not self.shelf.edits(self.caller, name):
            raise (
                refused(self.caller, self.section.permission) if self.shelf.sees(self.caller, name) else hidden(self.caller, name)
            )


class One(OfSection):
    tagged = True

    def get(self, request: Request) -> HttpResponse:
        """The section, in the form in which it may be put."""
        self.refuse_unless_managed()
        return self.answer(self.section.stored()[self.section.name])

    def put(self, request: Request) -> HttpResponse:
        """Replace it: what the body leaves out has its default."""
        self.refuse_unless_managed()
        return self.put_item(self.section.name, self.body())


EXAMPLES: dict[str, dict[str, Any]] = {
    "repositories": {"format": min(installed()), "kind": "local", "description": "what we build"},
    "roles": {"permissions": ["artifact:read", "artifact:write"]},
    "directories": {"url": "ldaps://ldap.example.org", "users": {"base": "ou=people,dc=example,dc=org"}},
    "groups": {"external": ["sso:team-a"]},
    "users": {"robot": True},
    "providers": {"issuer": "https://sso.example.org", "client_id": "entrepot", "groups_claim": "groups"},
    "grants": {"role": "reader", "authenticated": True, "repositories": ["go-*"]},
    "trusts": {"issuer": "https://ci.example.org", "audience": "entrepot", "claims": {"repository": "corp/*"}, "robot": "ci"},
    "history": {"keep": "90d"},
    "audit": {"keep": "400d", "most": 5_000_000},
    "egress": {"allow": ["10.1.0.0/16"]},
    "hosts": {"docker.example.org": "images"},
    "reviews": {"every": "90d", "unused": "90d", "stale": "180d"},
}
BESIDE: dict[str, dict[str, serializers.Field]] = {
    "repositories": {"url": serializers.CharField(read_only=True, help_text="where its clients find it")},
    "grants": {"id": serializers.CharField(read_only=True, help_text="its name in its address")},
}


def views_of(shelf: Shelf) -> dict[str, type[Resource]]:
    """A section's resources, by their addresses below its own."""
    section = shelf.section
    shape = item_of(section, **BESIDE.get(section.name, {}))
    example, public = EXAMPLES.get(section.name), isinstance(shelf, Repositories)
    both = {"shelf": shelf, "open": public, "takes": {"PUT": shape}, "examples": {"PUT": example}}
    if isinstance(section, Single):
        return {"": type(section.name, (One,), {**both, "gives": {"GET": {200: shape}, "PUT": {200: shape}}})}
    page = page_of(shape)
    listed: dict[str, Any] = {"shelf": shelf, "open": public, "queries": {"GET": shelf.page}, "gives": {"GET": {200: page}}}
    collection: type[Collection] = Collection
    if isinstance(shelf, Grants):
        collection = GrantCollection
        listed["gives"]["POST"] = {200: page, 201: page}
        listed |= {"takes": {"POST": shape}, "examples": {"POST": example}}
    gives = {"GET": {200: shape}, "PUT": {200: shape, 201: shape}, "DELETE": {204: None}}
    return {
        "": type(f"all-{section.name}", (collection,), listed),
        "<path:name>/": type(f"one-{section.name}", (Element,), {**both, "gives": gives}),
    }


class Yaml(BaseRenderer):
    media_type = YAML
    format = "yaml"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120).encode()


class ApplyQuery(Query):
    prune = serializers.ChoiceField(choices=["true", "false"], required=False, default="false",
                                    help_text="remove what the sections that are present do not name")  # fmt: skip
    dry_run = serializers.ChoiceField(choices=["true", "false"], required=False, default="false",
                                      help_text="tell what would be changed, and change nothing")  # fmt: skip


WHOLE = document_of(engine.SECTIONS)


class Configuration(Resource):
    permission_classes: Any = (SystemManager,)
    renderer_classes = (JSONRenderer, Yaml)
    body_types = (JSON, YAML)
    queries = {"PUT": ApplyQuery}
    takes = {"PUT": WHOLE}
    gives = {"GET": {200: WHOLE}, "PUT": {200: LinesShape}}
    examples = {"PUT": {"history": {"keep": "90d"}}}
    tagged = True

    def get(self, request: Request) -> HttpResponse:
        """All of it, as `export` writes it."""
        for shelf in SHELVES.values():
            if not shelf.edits(self.caller, ""):
                raise refused(self.caller, shelf.section.permission)
        return self.answer(engine.export())

    def put(self, request: Request) -> HttpResponse:
        """Make the server what the body says, as `apply` does: all of it or nothing, and what it does not name is left alone."""
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        document = documents.read(self.text(), "the body", json_only=kind == JSON)
        for name in document.keys() & SHELVES.keys():  # also where it would change nothing: that would tell what is stored
            if not SHELVES[name].edits(self.caller, ""):
                raise refused(self.caller, SHELVES[name].section.permission)
        options: dict[str, Any] = {"prune": self.asked["prune"] == "true", "variables": {}, "guard": self._guard}
        if self.asked["dry_run"] == "true":
            lines = engine.diff(document, **options)
        else:
            lines = engine.apply(document, actor=self.caller.actor.name, **options)
        return self.answer({"changes": lines}, tagged=False)

    def _guard(self, steps: list[Step]) -> None:
        if self.request.headers.keys() & {"If-Match", "If-None-Match"}:
            self.require(engine.export())
        for shelf in SHELVES.values():
            shelf.check(self.caller, [step for step in steps if step.section is shelf.section])
