"""The repositories as the read path sees them: parsed once for each configuration epoch, not for each request."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from datetime import timedelta

from accounts.globs import compile_glob
from repos import models
from repos.format import Format, installed
from repos.secrets import unseal

DURATION = re.compile(r"(\d+)(s|m|h|d)")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """`90s`, `10m`, `12h` or `30d` as a timedelta; ValueError for anything else."""
    match = DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no duration; write a number and s, m, h or d, such as 10m")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


@dataclass(frozen=True)
class Upstream:
    """One place to fetch from. Credentials go to the origin of `url` only; they stay sealed until they are used."""

    url: str
    username: str = ""
    sealed_password: str = field(default="", repr=False)
    sealed_token: str = field(default="", repr=False)
    ca: str = ""
    timeout: float = 30.0
    egress: tuple[str, ...] = ()
    """Networks in which what this upstream names may be, besides public addresses."""

    @property
    def password(self) -> str:
        """Raises Unavailable where it cannot be unsealed."""
        return unseal(self.sealed_password) if self.sealed_password else ""

    @property
    def token(self) -> str:
        """Raises Unavailable where it cannot be unsealed."""
        return unseal(self.sealed_token) if self.sealed_token else ""


@dataclass(frozen=True)
class CacheRules:
    """How long what an upstream said is believed."""

    lifetime: timedelta = timedelta(minutes=10)
    missing: timedelta = timedelta(minutes=1)
    stale_on_error: timedelta = timedelta(days=30)


@dataclass(frozen=True)
class Patterns:
    """Name patterns; an empty one matches nothing."""

    globs: tuple[re.Pattern[str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.globs)

    def match(self, *names: str) -> bool:
        return any(glob.fullmatch(name) for glob in self.globs for name in names)


@dataclass(frozen=True)
class Repo:
    """One repository's configuration, ready to use."""

    id: int
    key: str
    format: Format
    kind: str
    seeded: bool
    members: tuple[Repo, ...] = ()
    deploy_to: Repo | None = None
    upstreams: tuple[Upstream, ...] = ()
    cache: CacheRules = CacheRules()
    private: Patterns = Patterns()
    immutable: Patterns = Patterns()
    include: Patterns = Patterns()
    exclude: Patterns = Patterns()
    offline: bool = False

    @property
    def is_local(self) -> bool:
        return self.kind == models.Repository.Kind.LOCAL

    @property
    def is_remote(self) -> bool:
        return self.kind == models.Repository.Kind.REMOTE

    @property
    def is_virtual(self) -> bool:
        return self.kind == models.Repository.Kind.VIRTUAL

    @property
    def answering(self) -> tuple[Repo, ...]:
        """The local and remote repositories that may answer for this one: itself, or a virtual's members, locals first."""
        if not self.is_virtual:
            return (self,)
        return tuple(sorted(self.members, key=lambda member: not member.is_local))

    def never_changes(self, path: str) -> bool:
        """Whether what stands at `path` can never be replaced: by the format's rule or this repository's patterns."""
        return self.format.lifetime(path, self.cache.lifetime) is None or self.immutable.match(path, self.format.package(path))


_lock = threading.Lock()
_known: tuple[int, dict[tuple[str, str], Repo]] = (-1, {})


def repositories(epoch: int) -> dict[tuple[str, str], Repo]:
    """Every usable repository by (format key, key), as of a configuration epoch; one query when the epoch has moved."""
    global _known
    known = _known
    if known[0] != epoch:
        with _lock:
            if _known[0] != epoch:
                _known = (epoch, _load())
            known = _known
    return known[1]


def forget() -> None:
    """Drop what is known, for a database that was replaced under the process."""
    global _known
    _known = (-1, {})


def _load() -> dict[tuple[str, str], Repo]:
    rows = [row for row in models.Repository.objects.order_by("key") if row.format in installed()]
    egress = _egress()
    plain = {row.key: _repo(row, {}, egress) for row in rows if row.kind != models.Repository.Kind.VIRTUAL}
    virtual = {row.key: _repo(row, plain, egress) for row in rows if row.kind == models.Repository.Kind.VIRTUAL}
    return {(repo.format.key, repo.key): repo for repo in (plain | virtual).values()}


def load_one(row: models.Repository) -> Repo:
    """A local or remote repository straight from its row."""
    return _repo(row, {}, _egress())


def _egress() -> tuple[str, ...]:
    """The networks of `egress.allow`."""
    row = models.Setting.objects.filter(name="egress").first()
    return tuple(row.value.get("allow", ())) if row else ()


def _repo(row: models.Repository, others: dict[str, Repo], egress: tuple[str, ...]) -> Repo:
    settings = row.settings
    members = [others[key] for key in settings.get("members", ()) if key in others]
    return Repo(
        id=row.pk,
        key=row.key,
        format=installed()[row.format],
        kind=row.kind,
        seeded=row.seeded,
        members=tuple(members),
        deploy_to=others.get(settings.get("deploy_to", "")),
        upstreams=tuple(_upstream(item, egress) for item in settings.get("upstreams", ())),
        cache=CacheRules(
            **{
                name: duration(text)
                for name, text in settings.get("cache", {}).items()
                if name in CacheRules.__dataclass_fields__
            }
        ),
        offline=bool(settings.get("offline", False)),
        **{name: _patterns(settings.get(name, ())) for name in ("private", "immutable", "include", "exclude")},
    )


def _upstream(item: dict, egress: tuple[str, ...]) -> Upstream:
    return Upstream(
        url=item["url"].rstrip("/"),
        username=item.get("username", ""),
        sealed_password=item.get("password", {}).get("sealed", ""),
        sealed_token=item.get("token", {}).get("sealed", ""),
        ca=item.get("ca", ""),
        timeout=duration(item["timeout"]).total_seconds() if "timeout" in item else Upstream.timeout,
        egress=egress,
    )


def _patterns(globs: list[str]) -> Patterns:
    return Patterns(tuple(compile_glob(glob) for glob in globs))
