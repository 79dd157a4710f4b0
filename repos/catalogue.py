"""The repositories as the read path sees them: parsed once for each configuration epoch, not for each request."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

from accounts.globs import compile_glob
from basics.durations import duration
from basics.sealing import unseal
from repos import models
from repos.format import Format, installed

PORT = re.compile(r":[0-9]+$")


@dataclass(frozen=True)
class Patterns:
    """Name patterns; an empty one matches nothing."""

    globs: tuple[re.Pattern[str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.globs)

    def match(self, *names: str) -> bool:
        return any(glob.fullmatch(name) for glob in self.globs for name in names)


@dataclass(frozen=True)
class Upstream:
    """One place to fetch from. Credentials go to the origin of `url` only; they stay sealed until they are used."""

    url: str
    username: str = ""
    sealed_password: str = field(default="", repr=False)
    sealed_token: str = field(default="", repr=False)
    ca: str = ""
    auth: str = ""
    """The address of its token service, which gets its credentials too; empty: only its own may."""
    timeout: float = 30.0
    vcs: str = ""
    match: Patterns = Patterns()
    folder: str = ""
    egress: tuple[str, ...] = ()
    """Networks in which what this upstream names may be, besides public addresses."""

    def claims(self, package: str) -> bool:
        """Whether this is the place for a name: by its patterns; without these version control has what is under its address."""
        if self.match or not self.vcs:
            return self.match.match(package)
        parts = urlsplit(self.url)
        own = f"{parts.hostname}{parts.path}"
        return package == own or package.startswith(f"{own}/")

    def holds(self, path: str) -> bool:
        """Whether a path is in the folder that this upstream stands for."""
        return not self.folder or path.startswith(f"{self.folder}/")

    def within(self, path: str) -> str:
        """A path as it is in that folder."""
        return path.removeprefix(f"{self.folder}/") if self.folder else path

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
    log_downloads: bool = False
    """Whether the audit tells of each download."""

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

    def sources(self, path: str) -> list[Upstream]:
        """The upstreams that may be asked for `path`, in their order.

        Of those that stand for a folder the longest that holds the path decides. A name that some upstream claims is asked of
        those that claim it alone, so that a private one does not go to a public proxy, also not when its own upstream fails.
        """
        package = self.format.package(path)
        folder = max((source.folder for source in self.upstreams if source.holds(path)), key=len, default="")
        here = [source for source in self.upstreams if source.folder == folder]
        if not package:
            return [source for source in here if not source.vcs]
        if any(source.claims(package) for source in self.upstreams):
            return [source for source in here if source.claims(package)]
        return [source for source in here if not source.match and not source.vcs]

    def never_changes(self, path: str) -> bool:
        """Whether what stands at `path` can never be replaced: by the format's rule or this repository's patterns."""
        return self.format.lifetime(path, self.cache.lifetime) is None or self.immutable.match(*self.format.names(path))


@dataclass(frozen=True)
class Catalogue:
    """Every usable repository by (format key, key), and the hosts that lead to one each: by name, name and port, or `:port`.

    `egress`: networks in which what is named by parts outside may be, besides public addresses.
    """

    repositories: Mapping[tuple[str, str], Repo] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    egress: tuple[str, ...] = ()

    def behind(self, host: str, format: str) -> Repo | None:
        """The repository of a format to which the host of a request, as its Host header says it, leads by itself."""
        key = next((self.hosts[name] for name in _names_of(host) if name in self.hosts), None)
        return self.repositories.get((format, key)) if key else None

    def place(self, host: str, format: str, name: str) -> tuple[str, Repo | None, str]:
        """The key and the repository that a name under a format's mount begins with, unless the host says it, and the rest."""
        repo = self.behind(host, format)
        if repo is not None:
            return repo.key, repo, name
        key, _, rest = name.partition("/")
        return key, self.repositories.get((format, key)), rest


def _names_of(host: str) -> tuple[str, ...]:
    """By what a host can be named, the most telling first."""
    whole = host.lower()
    name = PORT.sub("", whole)
    return whole, name, whole.removeprefix(name)


def leads_somewhere(host: str) -> bool:
    """Whether the host of a request leads to a repository, as last loaded."""
    return any(name in _known[1].hosts for name in _names_of(host))


_lock = threading.Lock()
_known: tuple[int, Catalogue] = (-1, Catalogue())


def load(epoch: int) -> Catalogue:
    """All there is, as of a configuration epoch; a few queries when the epoch has moved, else none."""
    global _known
    known = _known
    if known[0] != epoch:
        with _lock:
            if _known[0] != epoch:
                _known = (epoch, _load())
            known = _known
    return known[1]


def repositories(epoch: int) -> Mapping[tuple[str, str], Repo]:
    """Every usable repository by (format key, key), as of a configuration epoch."""
    return load(epoch).repositories


def forget() -> None:
    """Drop what is known, for a database that was replaced under the process."""
    global _known
    _known = (-1, Catalogue())


def _load() -> Catalogue:
    rows = [row for row in models.Repository.objects.order_by("key") if row.format in installed()]
    egress = _setting("egress").get("allow", ())
    plain = {row.key: _repo(row, {}, egress) for row in rows if row.kind != models.Repository.Kind.VIRTUAL}
    virtual = {row.key: _repo(row, plain, egress) for row in rows if row.kind == models.Repository.Kind.VIRTUAL}
    found = {(repo.format.key, repo.key): repo for repo in (plain | virtual).values()}
    return Catalogue(found, _setting("hosts"), tuple(egress))


def load_one(row: models.Repository) -> Repo:
    """A local or remote repository straight from its row."""
    return _repo(row, {}, _setting("egress").get("allow", ()))


def _setting(name: str) -> dict:
    """A section of the configuration that belongs to no repository."""
    row = models.Setting.objects.filter(name=name).first()
    return row.value if row else {}


def _repo(row: models.Repository, others: dict[str, Repo], egress: Sequence[str]) -> Repo:
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
        log_downloads=bool(settings.get("log_downloads", False)),
        **{name: _patterns(settings.get(name, ())) for name in ("private", "immutable", "include", "exclude")},
    )


def _upstream(item: dict, egress: Sequence[str]) -> Upstream:
    return Upstream(
        url=item["url"].rstrip("/"),
        username=item.get("username", ""),
        sealed_password=item.get("password", {}).get("sealed", ""),
        sealed_token=item.get("token", {}).get("sealed", ""),
        ca=item.get("ca", ""),
        auth=item.get("auth", ""),
        timeout=duration(item["timeout"]).total_seconds() if "timeout" in item else Upstream.timeout,
        egress=tuple(egress),
        vcs=item.get("vcs", ""),
        match=_patterns(item.get("match", ())),
        folder=item.get("folder", ""),
    )


def _patterns(globs: list[str]) -> Patterns:
    return Patterns(tuple(compile_glob(glob) for glob in globs))
