"""A document with everything in it, and what the database holds."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.models import Group

from accounts import epoch, grants
from accounts.models import ExternalName, Role, Source, Token, User
from accounts.permissions import ANONYMOUS_USER, AUTHENTICATED_GROUP, BUILTIN_ROLES
from repos.configuration import engine
from repos.models import Asset, Blob, Change, Repository, Setting

SECRETS = {
    "MIRROR_PASSWORD": "mirror-hunter2",
    "MIRROR_TOKEN": "token-hunter3",
    "ALICE_PASSWORD": "alice-hunter4",
}

WHOLE: dict[str, Any] = {
    "version": 1,
    "repositories": [
        {"key": "go-local", "format": "go", "kind": "local", "description": "ours: “A”", "owner": "team-a", "immutable": ["**"]},
        {
            "key": "go-proxy",
            "format": "go",
            "kind": "remote",
            "upstreams": [
                {
                    "url": "https://mirror.example.org/go",
                    "username": "entrepot",
                    "password": {"env": "MIRROR_PASSWORD"},
                    "timeout": "20s",
                },
                {"url": "https://second.example.org:8443", "token": {"env": "MIRROR_TOKEN"}, "ca": "corp.pem"},
            ],
            "cache": {"lifetime": "5m", "missing": "30s", "stale_on_error": "7d"},
            "private": ["corp.example/**"],
            "include": ["**"],
            "exclude": ["bad.example/*"],
            "offline": True,
        },
        {
            "key": "go",
            "format": "go",
            "kind": "virtual",
            "members": ["go-proxy", "go-local"],
            "deploy_to": "go-local",
            "private": ["corp.example/**"],
        },
        {"key": "files", "format": "raw", "kind": "local"},
    ],
    "history": {"keep": "90d"},
    "roles": [
        {"name": "releaser", "permissions": ["artifact:write", "artifact:read"]},
        {"name": "clerk", "permissions": ["user:manage"]},
        {"name": "nothing", "permissions": []},
    ],
    "groups": [{"name": "team-a", "external": ["sso:team-a", "ldap:cn=a"]}, {"name": "team b"}],
    "users": [
        {"name": "alice", "email": "alice@example.org", "groups": ["team-a", "team b"], "password": {"env": "ALICE_PASSWORD"}},
        {"name": "ci", "robot": True},
        {"name": "gone", "inactive": True},
    ],
    "grants": [
        {"role": "clerk", "users": ["alice"]},
        {"role": "releaser", "groups": ["team-a"], "users": ["ci"], "repositories": ["go-*"], "paths": ["corp.example/**"]},
        {"role": "reader", "authenticated": True, "anonymous": True, "repositories": ["**"]},
    ],
    "trusts": [
        {
            "name": "pipelines",
            "issuer": "https://ci.example.org",
            "audience": "entrepot",
            "claims": {"repository": ["corp/*", "tools/a"], "ref_protected": True, "kubernetes.io": {"namespace": "ci"}},
            "robot": "ci",
            "lifetime": "10m",
            "scopes": ["artifact:read@go*"],
            "ca": "corp.pem",
        },
    ],
}


def document(**sections: Any) -> dict[str, Any]:
    return {"version": 1, **sections}


def whole() -> dict[str, Any]:
    return deepcopy(WHOLE)


def local(key: str, form: str = "raw", **more: Any) -> dict[str, Any]:
    return {"key": key, "format": form, "kind": "local", **more}


def remote(key: str, form: str = "raw", *, upstream: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    upstreams = [{"url": "https://mirror.example.org", **(upstream or {})}]
    return {"key": key, "format": form, "kind": "remote", "upstreams": upstreams, **more}


def virtual(key: str, *members: str, form: str = "raw", **more: Any) -> dict[str, Any]:
    return {"key": key, "format": form, "kind": "virtual", "members": list(members), **more}


def everything() -> dict[str, Any]:
    """All that `apply` may change, as values."""
    models = (Repository, Change, Asset, Setting, Role, Group, ExternalName, User, Token, Source, User.groups.through)
    rows: dict[str, Any] = {model.__name__: list(model.objects.order_by("pk").values()) for model in models}
    return {**rows, "grants": grants.entries(), "epoch": epoch.current()}


def empty() -> None:
    """What a fresh database has, and no more."""
    Repository.objects.all().delete()
    Setting.objects.all().delete()
    Source.objects.all().delete()
    User.objects.exclude(username=ANONYMOUS_USER).delete()
    Group.objects.exclude(name=AUTHENTICATED_GROUP).delete()
    Role.objects.exclude(name__in=BUILTIN_ROLES).delete()
    for entry in grants.entries():
        grants.remove(entry)


def manager() -> None:
    """Somebody who has user:manage, so that the rule about the last one holds."""
    engine.apply(document(users=[{"name": "root"}], grants=[{"role": "administrator", "users": ["root"]}]))


def hold(key: str, path: str = "a/file") -> Asset:
    """An artefact in a repository."""
    now = datetime.now(UTC)
    blob = Blob.objects.create(sha256="0" * 64, size=1, key=f"{key}/{path}", created_at=now)
    row = Repository.objects.get(key=key)
    return Asset.objects.create(repository=row, path=path, path_key=path, blob=blob, media_type="text/plain", since=1)
