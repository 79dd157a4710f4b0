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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO

from problems import Malformed, Problem

if TYPE_CHECKING:
    from repos.catalogue import Repo, Upstream
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


OpenBlob = Callable[[], BinaryIO]
"""Opens the bytes anew, seekable; the caller closes them."""


@dataclass(frozen=True)
class Described:
    """What `Format.describe` found. `data` is kept once a blob; the rest stands on the asset."""

    package: str
    version: str
    media_type: str
    path_class: str = ""
    data: dict[str, Any] = field(default_factory=dict)


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


class Format:
    """The rules of one package format. Methods are pure unless they say otherwise; `path` is always a checked artefact path."""

    key = ""
    aliases: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    """Digests to compute on arrival besides SHA-256, as hashlib names."""
    largest: int | None = None
    """The most bytes that one artefact may have; None: no limit of the format's."""
    vcs: tuple[str, ...] = ()
    """Kinds of version control that an upstream may be, for which there is `ask_vcs`."""

    @property
    def mount(self) -> str:
        """Where the format's repositories are under the server's root."""
        return f"{self.key}/"

    def routes(self) -> list[Route]:
        """What its `views.py` answers, the first match wins."""
        return importlib.import_module(f"{type(self).__module__}.views").ROUTES

    def path_key(self, path: str) -> str:
        """`path` by the format's case rule: two paths with one key are the same place."""
        return path

    def lifetime(self, path: str, default: timedelta) -> timedelta | None:
        """How long an upstream's document stays fresh; None: what stands there can never change."""
        return default

    def package(self, path: str) -> str:
        """The name that `path` belongs to, by which it is owned, granted and searched; empty where it belongs to none."""
        return path

    def describe(self, path: str, open_blob: OpenBlob, *, published: bool) -> Described:
        """Read what was put at `path`; raises Malformed or TooLarge, with the reason, for what the format refuses.

        `published` tells what is hosted here, which must follow every rule, from what an upstream sent, which must be whole and
        be what was asked for.
        """
        guess, encoding = mimetypes.guess_type(path, strict=False)
        return Described(self.package(path), "", guess if guess and not encoding else "application/octet-stream")

    def upstream_url(self, upstream: str, path: str) -> str:
        """The URL of `path` at an upstream whose own URL is `upstream`."""
        from urllib.parse import quote

        return f"{upstream.rstrip('/')}/{quote(path, safe='/!@:+,~$&()*;=')}"

    def ask_vcs(self, upstream: Upstream, path: str, heard: Callable[[], None]) -> Answer:
        """What an upstream that is version control has at `path` (runs commands). Raises UpstreamFailed, Unavailable.

        Calls `heard` as often as something comes.
        """
        raise NotImplementedError

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

    def error(self, problem: Problem) -> tuple[str, bytes]:
        """Media type and body that tell `problem` to the format's clients."""
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
