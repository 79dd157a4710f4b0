"""What a package format is, and how the installed ones are found.

A format is one folder under `repos/formats/`: its `__init__.py` holds `FORMAT`, an instance of a Format, its `views.py` the
routes. Nothing outside that folder names it. The base class is the behaviour of a plain tree of files; a format overrides
what differs.
"""

from __future__ import annotations

import contextlib
import importlib
import mimetypes
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO

from accounts.authenticate import CHALLENGE
from problems import Malformed, Problem

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

    from repos.catalogue import Repo, Upstream
    from repos.models import Asset
    from repos.upstream import Answer


@dataclass(frozen=True)
class Wanted:
    """What one line of a text asks to be there. `digest`: what the last of `paths` must have, by `Format.locked_digest`.

    `asked`: documents of which the first that is there tells what is wanted (`Format.named_in`); `merged`: each repository may
    have a part of them.
    """

    name: str
    paths: tuple[str, ...] = ()
    digest: str = ""
    asked: tuple[str, ...] = ()
    merged: bool = False


@dataclass(frozen=True)
class Question:
    """What a remote repository asks one of its upstreams.

    `conditions`: headers under which "not changed" (304) is an answer. `standing`: the SHA-256 of what is cached; empty:
    nothing is. `accept`: the media types that a client takes. `heard` is to be called as often as something comes.
    """

    repo: Repo
    path: str
    conditions: Mapping[str, str]
    standing: str
    accept: str
    heard: Callable[[], None]


OpenBlob = Callable[[], BinaryIO]
"""Opens the bytes anew, seekable; the caller closes them."""


@dataclass(frozen=True)
class Described:
    """What `Format.describe` found. `data` and `references` (digest and kind) are kept once a blob, the rest on the asset.

    `part`: it is published for what will refer to it, and that is what the audit tells of.
    """

    package: str
    version: str
    media_type: str
    path_class: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    references: tuple[tuple[str, str], ...] = ()
    part: bool = False


@dataclass(frozen=True)
class Route:
    """One thing that a format answers: `pattern` is matched against the whole path after the repository's key.

    `action` is what the caller must be allowed: read, write or delete. HEAD is answered by the route of GET.
    """

    method: str
    pattern: re.Pattern[str]
    action: str
    handler: Callable[..., Any]


def route(method: str, pattern: str, action: str, handler: Callable[..., Any]) -> Route:
    return Route(method, re.compile(pattern), action, handler)


@dataclass(frozen=True)
class Page:
    """What a format answers under its mount that is in no repository. The handler is given the request, and sees to rights."""

    method: str
    name: str
    handler: Callable[[HttpRequest], Any]


class Format:
    """The rules of one package format. Methods are pure unless they say otherwise; `path` is always a checked artefact path."""

    key = ""
    aliases: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    """Digests to compute on arrival besides SHA-256, as hashlib names."""
    largest: int | None = None
    """The most bytes that one artefact may have; None: no limit of the format's."""
    part: str = ""
    """What stands between a package and a version at paths that are only parts of it: to hold one is not to hold the name."""
    vcs: tuple[str, ...] = ()
    """Kinds of version control that an upstream may be, which `ask` then asks."""

    @property
    def mount(self) -> str:
        """Where the format's repositories are under the server's root."""
        return f"{self.key}/"

    def routes(self) -> list[Route]:
        """What its `views.py` answers, the first match wins."""
        return importlib.import_module(f"{type(self).__module__}.views").ROUTES

    def pages(self) -> list[Page]:
        """What is answered under the mount beside the repositories."""
        return getattr(importlib.import_module(f"{type(self).__module__}.views"), "PAGES", [])

    def path_key(self, path: str) -> str:
        """`path` by the format's case rule: two paths with one key are the same place."""
        return path

    def lifetime(self, path: str, default: timedelta) -> timedelta | None:
        """How long an upstream's document stays fresh; None: what stands there can never change."""
        return default

    def package(self, path: str) -> str:
        """The name that `path` belongs to, by which it is owned, granted and searched; empty where it belongs to none."""
        return path

    def names(self, path: str) -> tuple[str, ...]:
        """What patterns of paths, such as those of what can never change, are held against."""
        return (path, self.package(path))

    def digest(self, path: str) -> str:
        """The digest, as ALGORITHM:HEX, of what can stand at `path`, where the path says it; else empty."""
        return ""

    def stands_also_at(self, path: str, sha256: str) -> tuple[str, ...]:
        """Where the same bytes stand too, recorded in the same change."""
        return ()

    def limit(self, path: str) -> int | None:
        """The most bytes that an upstream's artefact may have at `path`; None: no limit of the format's."""
        return self.largest

    def sent_at_once(self, path: str) -> bool:
        """Whether bytes of a large artefact may be sent on as they come: not where it takes all of them to tell what it is."""
        return True

    def describe(self, path: str, open_blob: OpenBlob, *, published: bool, media_type: str = "") -> Described:
        """Read what was put at `path`; raises Malformed or TooLarge, with the reason, for what the format refuses.

        `media_type` is what the sender calls it. `published` tells what is hosted here, which must follow every rule, from what
        an upstream sent, which must be whole and be what was asked for.
        """
        guess, encoding = mimetypes.guess_type(path, strict=False)
        return Described(self.package(path), "", guess if guess and not encoding else "application/octet-stream")

    def upstream_url(self, upstream: str, path: str) -> str:
        """The URL of `path` at an upstream whose own URL is `upstream`."""
        from urllib.parse import quote

        return f"{upstream.rstrip('/')}/{quote(path, safe='/!@:+,~$&()*;=')}"

    def ask(self, upstream: Upstream, question: Question) -> Answer | None:
        """An upstream's answer, where it takes more than one GET of `upstream_url` (does network, runs commands).

        None: it does not. Raises UpstreamFailed, Unavailable.
        """
        return None

    def one_of_many(self, path: str) -> bool:
        """Whether each upstream has a part of what is at such paths, so that what one lacks is asked of the next."""
        return False

    def render(self, repo: Repo, path: str) -> bytes:
        """The document at `path` made from a local repository's rows (reads the database). Raises NotFound."""
        raise NotImplementedError

    def merge(self, path: str, parts: list[bytes]) -> bytes:
        """A virtual repository's document made from its members' documents, in their order."""
        raise NotImplementedError

    def wanted(self, text: str) -> Iterator[Wanted]:
        """What a text asks to be fetched ahead: here a path a line. Raises Malformed, with the line that it cannot read."""
        from repos import paths

        for number, line in lines_of(text):
            with told_of_line(number):
                path = paths.check(line.removeprefix("/"))
                if path.endswith("/"):
                    raise Malformed(f"{path} is a folder; name the files", rule="path.folder")
            yield Wanted(path, (path,))

    def named_in(self, path: str, documents: list[bytes]) -> tuple[str, ...]:
        """The paths that the documents at `path`, one of each repository that has one, lead to; none where they name nothing."""
        raise NotImplementedError

    def locked_digest(self, path: str, sha256: str) -> str:
        """The digest by which the format's lock files know these bytes (reads the database)."""
        raise NotImplementedError

    def referred_to(self, path: str, digest: str, kind: str) -> str:
        """The path at which what the content at `path` refers to has to stand; empty where it need not be here."""
        return ""

    def unheld(self, assets: QuerySet[Asset], before: datetime) -> QuerySet[Asset]:
        """Those of a local repository's open `assets` that stood for what referred to them, which nothing does since `before`."""
        return assets.none()

    def asked_for(self, repo: Repo, path: str, query: Mapping[str, str]) -> str:
        """The path in `repo` that a request is for, where its query says more of it than the URL's own path."""
        return path

    def challenge(self, request: HttpRequest, target: str, *, insufficient: bool) -> str:
        """What a 401 says of how to sign in (RFC 9110 section 11.6.1) to who asked for `target`, under the mount.

        `insufficient`: they have, and what they showed does not go so far. Raises Malformed for a host that is not ours.
        """
        return CHALLENGE

    def error(self, problem: Problem, target: str) -> tuple[str, bytes]:
        """Media type and body that tell the format's clients of a `problem` with what they asked for, under the mount."""
        return "text/plain; charset=utf-8", f"{problem.reason}\n".encode()

    def setup(self, repo: Repo, base_url: str, *, signed_in: bool) -> str:
        """What a person pastes to use the repository, as plain text. `base_url` ends without a slash."""
        return f"curl -O {base_url}/{self.mount}{repo.key}/PATH\n"

    def default_upstream(self) -> str | None:
        """The upstream that this machine's own client is configured with; None where no client answers (runs a command)."""
        return None


LINE_END = "\n"
"""The one thing that ends a line of a list, for who reads lines and who counts them; a carriage return before it is space."""


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a list with their numbers, without what follows a `#` and without empty ones."""
    for number, line in enumerate(text.split(LINE_END), 1):
        if line := line.partition("#")[0].strip():
            yield number, line


@contextlib.contextmanager
def told_of_line(number: int) -> Iterator[None]:
    """What is malformed is told with the number of its line."""
    try:
        yield
    except Malformed as problem:
        raise Malformed(f"line {number}: {problem.detail}", rule=problem.rule) from problem


@cache
def installed() -> dict[str, Format]:
    """Every format that has a folder, by key."""
    package = importlib.import_module("repos.formats")
    found = (importlib.import_module(f"repos.formats.{module.name}").FORMAT for module in pkgutil.iter_modules(package.__path__))
    return {item.key: item for item in sorted(found, key=lambda item: item.key)}


def find(name: str) -> Format | None:
    """The installed format with this key or alias."""
    return next((item for item in installed().values() if name == item.key or name in item.aliases), None)
