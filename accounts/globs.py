"""Globs over names that may hold slashes: `*` stops at `/`, `**` does not, `?` is one character other than `/`.

All else is literal, and a glob matches the whole text. `a/**` therefore matches `a/b` and `a/b/c` but not `a`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from itertools import pairwise

import problems

LENGTH = 1024
"""The longest glob, in bytes of UTF-8."""

OPERATORS = {"sqlite": "REGEXP", "postgresql": "~"}
"""By what a database, named as Django does, asks whether an `expression` is found in a text."""

_STARS = re.compile(r"(\*+)")
_WILD = re.compile(r"[*?]")


@lru_cache(maxsize=4096)
def compile_glob(glob: str) -> re.Pattern[str]:
    """The glob as a pattern for `fullmatch`, in time at most quadratic in the text's length whatever the glob.

    Globs come from people who may make tokens and paths come from anybody, so backtracking is bounded: every part but
    the last is an atomic group that takes its earliest end. That loses no match. After `**` anything may follow, so the
    earliest end is the best; after `*` the rest must come before the next slash, and from an earlier place that slash
    is the same one.
    """
    pieces = _STARS.split(glob)
    literals = [_literal(piece) for piece in pieces[::2]]
    stars = [".*?" if len(run) > 1 else "[^/]*?" for run in pieces[1::2]]
    if not stars:
        return re.compile(literals[0], re.DOTALL)
    return re.compile(literals[0] + _parts(stars, literals[1:]), re.DOTALL)


def matches(glob: str, text: str) -> bool:
    """Whether the glob matches the whole text."""
    return compile_glob(glob).fullmatch(text) is not None


def expression(every: Iterable[Collection[str]], database: str) -> str:
    """A regular expression that a database finds in the texts that of each of these sets a glob matches.

    SQLite is given Python's matcher by Django. PostgreSQL's keeps to a bound by itself and knows no atomic groups; they lose
    no match, so that without them it finds the same texts.
    """
    found = r"(?s)\A" + "".join(rf"(?=(?:{_any(globs)})\Z)" for globs in every if "**" not in globs)
    return found.replace("(?>", "(?:") if database == "postgresql" else found  # in a literal the parenthesis is escaped


def within(inner: str, outer: str) -> bool:
    """Whether every text that `inner` matches is matched by `outer` too, where that is plain to see; else no.

    Plain are the same glob, a text without wildcards, and an outer glob whose only wildcard is a star at its end.
    """
    if inner == outer:
        return True
    if not _WILD.search(inner):
        return matches(outer, inner)
    head = outer.rstrip("*")
    if head == outer or _WILD.search(head) or not inner.startswith(head):
        return False
    rest = inner.removeprefix(head)
    return outer.endswith("**") or not ("/" in rest or "**" in rest)


def checked(glob: str) -> str:
    """The glob, when it can stand in a grant or a scope. Raises problems.Malformed otherwise."""
    if not isinstance(glob, str):
        raise problems.Malformed(f"A glob is text, not {type(glob).__name__}.")
    if len(glob.encode(errors="replace")) > LENGTH:
        raise problems.Malformed(f"A glob has at most {LENGTH} bytes.")
    if any(ord(character) < 32 or ord(character) == 127 for character in glob):
        raise problems.Malformed("A glob holds no control characters.")
    if any("\ud800" <= character <= "\udfff" for character in glob):
        raise problems.Malformed("A glob is Unicode text.")
    return glob


def _any(globs: Collection[str]) -> str:
    """The globs as one; of none, what no text has: something after its end."""
    patterns = [compile_glob(glob).pattern for glob in sorted(globs)]
    return "|".join(patterns) if patterns else r"\Z."


def _parts(stars: list[str], literals: list[str]) -> str:
    """What follows the first literal: each `**` with the `*`s up to the next one is one atomic search."""
    starts = [0, *(n for n, star in enumerate(stars) if n and star == ".*?"), len(stars)]
    runs = [list(zip(stars[a:b], literals[a:b], strict=True)) for a, b in pairwise(starts)]
    return "".join(f"(?>{_run(run)})" for run in runs[:-1]) + _last(runs[-1])


def _run(run: list[tuple[str, str]]) -> str:
    (star, literal), *rest = run
    return star + literal + "".join(f"(?>{inner}{text})" for inner, text in rest)


def _last(run: list[tuple[str, str]]) -> str:
    """The last run ends at the end of the text, so its last star alone may be tried at every length."""
    *head, (star, literal) = run
    return (_run(head) if head else "") + star + literal


def _literal(text: str) -> str:
    return "".join("[^/]" if character == "?" else re.escape(character) for character in text)
