"""The section `repositories`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from rest_framework import serializers

from accounts.models import RightUse
from basics.durations import duration
from problems import Conflict, Malformed
from repos import paths, publish
from repos.configuration.fields import DurationField, FlagField, Item, Secret, SecretField, TextField, patterns
from repos.configuration.kept import opened, origin, sealed, stored, variable
from repos.configuration.section import Document, Section, named, shown, without_defaults
from repos.configuration.singles import check_hosts
from repos.format import find, installed
from repos.models import Asset, Repository

KEY = r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9])?"
SECRETS = ("password", "token")
KINDS = Repository.Kind
BELONGS_TO = {
    "upstreams": KINDS.REMOTE, "cache": KINDS.REMOTE, "include": KINDS.REMOTE, "exclude": KINDS.REMOTE, "offline": KINDS.REMOTE,
    "members": KINDS.VIRTUAL, "deploy_to": KINDS.VIRTUAL, "immutable": KINDS.LOCAL,
}  # fmt: skip
"""Keys that only one kind of repository has."""


class UpstreamItem(Item):
    url = TextField()
    username = TextField(required=False)
    password = SecretField(required=False)
    token = SecretField(required=False)
    ca = TextField(required=False)
    auth = TextField(required=False)
    timeout = DurationField(required=False)
    vcs = TextField(required=False)
    match = patterns()
    folder = TextField(required=False)

    def validate_folder(self, folder: str) -> str:
        try:
            return paths.check(folder.rstrip("/"))
        except Malformed as problem:
            raise serializers.ValidationError(problem.detail) from None

    def validate_timeout(self, timeout: str) -> str:
        if not duration(timeout):
            raise serializers.ValidationError("a timeout is at least 1s")
        return timeout

    def validate_token(self, token: Secret) -> Secret:
        if any(character < " " or character == "\x7f" for character in token.value):
            raise serializers.ValidationError(f"{token.env or 'the token'} holds a line break or another control character")
        return token

    def validate_auth(self, url: str) -> str:
        return self.validate_url(url)

    def validate_url(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            usable = (
                parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"[\s\x00-\x1f]", url)
            )
        except ValueError:
            usable = False
        if not usable:
            raise serializers.ValidationError(
                "an upstream's address is http://host or https://host, with port and path if need be"
            )
        if "@" in parts.netloc:
            raise serializers.ValidationError("an address holds no credentials; write username and password beside it")
        if parts.query or parts.fragment:
            raise serializers.ValidationError("an upstream's address has no ? and no #")
        return url.rstrip("/")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "token" in attrs and ("password" in attrs or "username" in attrs):
            raise serializers.ValidationError("an upstream takes a token, or a username and password, not both")
        if ("password" in attrs) != ("username" in attrs):
            raise serializers.ValidationError("username and password go together")
        if "vcs" in attrs and "folder" in attrs:
            raise serializers.ValidationError("version control stands for no folder; say by match what it is asked for")
        return attrs


class CacheItem(Item):
    lifetime = DurationField(required=False)
    missing = DurationField(required=False)
    stale_on_error = DurationField(required=False)
    unused = DurationField(required=False)


class RepositoryItem(Item):
    key = TextField()
    format = TextField()
    kind = serializers.ChoiceField(choices=Repository.Kind.values)
    description = TextField(required=False, allow_blank=True)
    owner = TextField(required=False, allow_blank=True)
    upstreams = UpstreamItem(many=True, required=False)
    cache = CacheItem(required=False)
    members = serializers.ListField(child=TextField(), required=False)
    deploy_to = TextField(required=False)
    private = patterns()
    immutable = patterns()
    include = patterns()
    exclude = patterns()
    offline = FlagField(required=False)
    log_downloads = FlagField(required=False)

    def validate_key(self, key: str) -> str:
        if not re.fullmatch(KEY, key):
            raise serializers.ValidationError("a key has 1 to 100 lower-case letters, digits, dots, dashes and underscores")
        return key

    def validate_format(self, name: str) -> str:
        format = find(name)
        if format is None:
            raise serializers.ValidationError(f"there is no format {name}; there are {', '.join(installed())}")
        return format.key

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        kind = attrs["kind"]
        for key, belongs_to in BELONGS_TO.items():
            if attrs.get(key) and belongs_to != kind:
                raise serializers.ValidationError({key: [f"only a {belongs_to} repository has this, and this one is {kind}"]})
        if kind == KINDS.LOCAL and attrs.get("private"):
            raise serializers.ValidationError(
                {"private": ["a local repository asks nobody; say it on the remote or the virtual one"]}
            )
        if kind == KINDS.REMOTE and not attrs.get("upstreams"):
            raise serializers.ValidationError({"upstreams": ["a remote repository needs an upstream"]})
        for n, upstream in enumerate(attrs.get("upstreams") or ()):
            _check_vcs(upstream.get("vcs", ""), attrs["format"], n)
        if kind == KINDS.VIRTUAL:
            _check_members(attrs)
        return attrs


def _check_vcs(vcs: str, name: str, n: int) -> None:
    kinds = installed()[name].vcs
    if vcs and vcs not in kinds:
        known = f"can be {' or '.join(kinds)}" if kinds else "cannot be version control"
        raise serializers.ValidationError({"upstreams": {str(n): {"vcs": [f"an upstream of {name} {known}"]}}})


def _check_members(attrs: dict[str, Any]) -> None:
    members = attrs.get("members") or []
    if not members:
        raise serializers.ValidationError({"members": ["a virtual repository needs members"]})
    if len(set(members)) < len(members):
        raise serializers.ValidationError({"members": ["a member is named twice"]})
    if attrs.get("deploy_to") and attrs["deploy_to"] not in members:
        raise serializers.ValidationError({"deploy_to": [f"{attrs['deploy_to']} is not among the members"]})


class Repositories(Section):
    name = "repositories"
    permission = "repository:manage"
    item = RepositoryItem
    identity_key = "key"

    def expand(self, item: Document) -> list[Document]:
        """Secrets that are written out get the name of a variable, by which they are exported."""
        taken = {secret.env for secret in _secrets(item).values()}
        upstreams = [
            {word: _named(value, item["key"], word, n, taken) for word, value in upstream.items()}
            for n, upstream in enumerate(item.get("upstreams", ()), start=1)
        ]
        return [{**item, "upstreams": upstreams} if upstreams else item]

    def stored(self, identity: str | None = None) -> dict[str, Document]:
        return {row.key: _document(row) for row in named(Repository.objects, key=identity).order_by("key")}

    def secret_differs(self, before: Document, after: Document) -> bool:
        """Also where the stored value cannot be read any more and the document has it."""
        old, new = _secrets(before), _secrets(after)
        return any(secret.value and secret.value != opened(old[place]) for place, secret in new.items() if place in old)

    def lock(self, identities: Iterable[str]) -> None:
        """In the order in which `publish` locks several."""
        list(Repository.objects.select_for_update().filter(key__in=identities).order_by("pk"))

    def write(self, item: Document, before: Document | None, actor: str) -> None:
        if before is not None and (before["format"], before["kind"]) != (item["format"], item["kind"]):
            raise Conflict(
                f"{item['key']} is a {before['kind']} repository of {before['format']} and cannot become a {item['kind']} one of"
                f" {item['format']}; give the new one another key",
                rule="repository.kind",
            )
        row = Repository.objects.filter(key=item["key"]).first()
        known = row is not None
        row = row or Repository(key=item["key"], format=item["format"], kind=item["kind"])
        row.settings = {word: value for word, value in item.items() if word not in ("key", "format", "kind", "upstreams")}
        if "upstreams" in item:
            row.settings["upstreams"] = [_sealed(upstream, before or {}, item["key"]) for upstream in item["upstreams"]]
        row.save(update_fields=["settings"] if known else None)
        publish.configured(row, shown(item), actor)

    def remove(self, item: Document) -> None:
        row = Repository.objects.get(key=item["key"])
        standing = Asset.objects.filter(repository=row, until=None)
        if row.kind == Repository.Kind.LOCAL and standing.exists():
            raise Conflict(
                f"{row.key} holds artefacts that stand nowhere else; delete them before the repository", rule="repository.holds"
            )
        row.delete()
        RightUse.objects.filter(repository=item["key"]).delete()  # another of its name would seem to have been used

    def check_whole(self) -> None:
        rows = {row.key: row for row in Repository.objects.all()}
        for virtual in rows.values():
            for key in virtual.settings.get("members", ()):
                _check_member(virtual, rows.get(key), key)
            if (deploy_to := virtual.settings.get("deploy_to")) and rows[deploy_to].kind != Repository.Kind.LOCAL:
                raise Malformed(f"{virtual.key}: deploy_to {deploy_to} is not a local repository", rule="repository.deploy_to")
        check_hosts()


def _check_member(virtual: Repository, member: Repository | None, key: str) -> None:
    problem = ""
    if member is None:
        problem = "does not exist"
    elif member.format != virtual.format:
        problem = f"is of format {member.format} and not {virtual.format}"
    elif member.kind == Repository.Kind.VIRTUAL:
        problem = "is virtual itself; name its members"
    if problem:
        raise Malformed(f"{virtual.key}: its member {key} {problem}", rule="repository.members")


def _document(row: Repository) -> Document:
    upstreams = [
        {word: stored(value) if word in SECRETS else value for word, value in upstream.items()}
        for upstream in row.settings.get("upstreams", ())
    ]
    settings = {**row.settings, "upstreams": upstreams} if upstreams else row.settings
    return without_defaults({"key": row.key, "format": row.format, "kind": row.kind, **settings})


def _named(value: Any, key: str, word: str, n: int, taken: set[str]) -> Any:
    """A secret that was written out, with a name that no other has; numbered by its upstream's place."""
    if not isinstance(value, Secret) or value.env:
        return value
    name = variable((key, word), taken, first=n)
    taken.add(name)
    return Secret(name, value.value)


def _secrets(item: Document) -> dict[tuple[int, str], Secret]:
    """An item's secrets by their place."""
    return {
        (n, word): value
        for n, upstream in enumerate(item.get("upstreams", ()))
        for word, value in upstream.items()
        if isinstance(value, Secret)
    }


def _sealed(upstream: Document, before: Document, key: str) -> Document:
    """An upstream as it is stored."""
    others = before.get("upstreams", ())
    known = [(_receivers(other), value) for other in others for value in other.values() if isinstance(value, Secret)]
    return {
        word: sealed(value, _receivers(upstream), known, key) if isinstance(value, Secret) else value
        for word, value in upstream.items()
    }


def _receivers(upstream: Document) -> list[tuple[str, str | None, int | None]]:
    """The hosts that are sent an upstream's secrets."""
    return [origin(upstream[word]) for word in ("url", "auth") if word in upstream]
