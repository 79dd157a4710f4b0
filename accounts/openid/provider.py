"""The OpenID Connect providers that are configured, as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from django.utils import timezone

from accounts import people
from accounts.models import ExternalIdentity, Source
from accounts.openid.issuer import Issuer
from accounts.sources import Settings, configured
from basics.durations import duration
from basics.sealing import unseal
from problems import NotFound

SCOPES = ("openid", "profile", "email")
NAME_CLAIM, EMAIL_CLAIM, GROUPS_CLAIM = "preferred_username", "email", "groups"


@dataclass(frozen=True)
class Provider:
    """Where people sign in. `title` is shown; `stale`: how long its word of somebody counts, None: until it says otherwise."""

    name: str
    title: str
    issuer: Issuer
    client_id: str
    scopes: str
    name_claim: str
    email_claim: str
    groups_claim: str
    required_groups: frozenset[str]
    stale: timedelta | None
    sealed_secret: str = field(repr=False)

    def client_secret(self) -> str:
        """Empty: a public client, which has none. Raises Unavailable where it was sealed under another key."""
        return unseal(self.sealed_secret) if self.sealed_secret else ""


def providers(epoch: int, allowed: Iterable[str] = ()) -> list[Provider]:
    """All of them, in the order of their names. `allowed`: see `Issuer`."""
    found = configured(Source.Kind.PROVIDER, epoch)
    return [_provider(name, settings, tuple(allowed)) for name, settings in found.items()]


def find(name: str, epoch: int, allowed: Iterable[str] = ()) -> Provider:
    """Raises NotFound."""
    settings = configured(Source.Kind.PROVIDER, epoch).get(name)
    if settings is None:
        raise NotFound("there is no such provider to sign in at")
    return _provider(name, settings, tuple(allowed))


def suspend_stale(epoch: int) -> int:
    """Suspend whom a provider has not vouched for within its `stale`; signing in there undoes it. Returns how many.

    A provider cannot be asked later who has left. When somebody was vouched for is known to `people.SEEN`.
    """
    count = 0
    for provider in providers(epoch):
        if provider.stale is None:
            continue
        long_ago = timezone.now() - provider.stale
        stale = ExternalIdentity.objects.filter(issuer=provider.issuer.url, seen_at__lt=long_ago, user__is_active=True)
        for identity in stale.order_by("pk"):
            people.suspend(identity)
            count += 1
    return count


def _provider(name: str, settings: Settings, allowed: tuple[str, ...]) -> Provider:
    return Provider(
        name=name,
        title=settings.get("title", name),
        issuer=Issuer(settings["issuer"], ca=settings.get("ca", ""), allowed=allowed),
        client_id=settings["client_id"],
        scopes=" ".join(settings.get("scopes", SCOPES)),
        name_claim=settings.get("name_claim", NAME_CLAIM),
        email_claim=settings.get("email_claim", EMAIL_CLAIM),
        groups_claim=settings.get("groups_claim", GROUPS_CLAIM),
        required_groups=frozenset(settings.get("required_groups", ())),
        stale=duration(settings["stale"]) if "stale" in settings else None,
        sealed_secret=settings.get("client_secret", {}).get("sealed", ""),
    )
