"""The directories, providers and trusts that are configured, read once an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accounts.epoch import Cache
from accounts.models import Source

Settings = Mapping[str, Any]

_known: Cache[Mapping[str, Settings]] = Cache(len(Source.Kind))


def issuers() -> dict[str, str]:
    """By the name of each directory and provider, under which `issuer` those stand whom it vouches for (`ExternalIdentity`)."""
    rows = Source.objects.filter(kind__in=(Source.Kind.DIRECTORY, Source.Kind.PROVIDER))
    return {row.name: of_directory(row.name) if row.kind == Source.Kind.DIRECTORY else row.settings["issuer"] for row in rows}


def of_directory(name: str) -> str:
    """A directory's `issuer`."""
    return f"directory:{name}"


def configured(kind: Source.Kind, epoch: int) -> Mapping[str, Settings]:
    """The documents of one kind by name, in the order of the names; secrets as `{"env": NAME, "sealed": …}`."""
    found = _known.get(epoch, kind)
    if found is None:
        rows = Source.objects.filter(kind=kind).order_by("name")
        found = _known.put(epoch, kind, {row.name: row.settings for row in rows})
    return found
