"""Everything that a text names is fetched before a build asks for it: a go.sum, or a list, as the format reads it.

It goes the way of a request (`repos.resolve`) with the rights of whoever asked for it, so it gets what they would get.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from problems import Malformed, NotFound, Problem, StorageFull, TooLarge, Unavailable, UpstreamFailed, absent
from repos import jobs, paths, resolve, serve
from repos.ahead import is_everywhere, several
from repos.call import Query
from repos.catalogue import Repo
from repos.fill import Fill
from repos.format import LINE_END, Wanted
from repos.jobs.runner import Failed
from repos.rows import Found

LARGEST = 4 << 20
"""Characters of a text."""
MOST_LINES = 20_000
RIGHTS_FOR = 5.0
"""Seconds after which it is asked again what the job may."""


def check(arguments: dict[str, Any], repo: Repo) -> dict[str, Any]:
    """The text of a prefetch, every line of which the repository's format can read."""
    text = arguments.get("text")
    if not isinstance(text, str) or len(arguments) != 1:
        raise Malformed("a prefetch takes one argument, text: a lock file, or a list with one name a line", rule="job.arguments")
    if len(text) > LARGEST:
        raise TooLarge(f"the text has more than {LARGEST} characters; ask in parts", rule="prefetch.size")
    if text.count(LINE_END) > MOST_LINES:
        raise TooLarge(f"the text has more than {MOST_LINES} lines; ask in parts", rule="prefetch.size")
    if "\0" in text:
        raise Malformed("the text holds a NUL", rule="prefetch.line")
    wanted = list(repo.format.wanted(text))
    if not wanted:
        raise Malformed("the text names nothing", rule="prefetch.empty")
    for item in wanted:
        for path in (*item.paths, *item.asked):
            paths.check(path)
    return {"text": text}


@dataclass
class Sum:
    """What a prefetch came to: lines that are there now, that were refused or failed; files that came, and their bytes."""

    lines: int = 0
    failed: int = 0
    files: int = 0
    fetched: int = 0
    bytes: int = 0


@jobs.kind("prefetch", check=check, permission="artifact:read")
def run(job: jobs.Running) -> dict[str, Any]:
    """Tries each line, and fails in the end where some could not be had: the log tells which, and why.

    It is begun again where some failed for what may pass. A full disk ends an attempt at once.
    """
    repo = job.repository()
    wanted = list(repo.format.wanted(job.arguments["text"]))
    asker, total, may_pass = _Asker(job), Sum(), False
    for item, outcome in several(job, wanted, asker.get):
        if isinstance(outcome, Problem) and not isinstance(outcome, StorageFull):
            total.failed += 1
            may_pass = may_pass or is_everywhere(outcome) or isinstance(outcome, Unavailable)
            job.log(f"{item.name}: {outcome.reason}")
        elif isinstance(outcome, Exception):
            raise outcome
        else:
            total.lines += 1
            came = [found for found in outcome if found.at >= job.job.created_at]
            total.files += len(outcome)
            total.fetched += len(came)
            total.bytes += sum(found.size for found in came)
        job.progress(total.lines + total.failed, len(wanted))
    if total.failed:
        told = f"{total.failed} of {len(wanted)} lines could not be had; the log tells which"
        raise Failed(told, asdict(total), passes=may_pass)
    return asdict(total)


class _Asker:
    """Asks as whoever the job is for, with the rights that they have at the time."""

    def __init__(self, job: jobs.Running):
        self._job = job
        self._until = 0.0
        self._query: Query

    def get(self, wanted: Wanted) -> list[Found]:
        """What stands at the paths of a line, fetched where it has to be. Raises what a client would be answered."""
        names = self._named_in(wanted) if wanted.asked else wanted.paths
        found = [self._find(path) for path in names]
        if wanted.digest and (digest := self._query.repo.format.locked_digest(names[-1], found[-1].sha256)) != wanted.digest:
            raise UpstreamFailed(
                f"the bytes here have the digest {digest}, the text says {wanted.digest}: one of the two is wrong",
                rule="prefetch.digest",
            )
        return found

    def _find(self, path: str) -> Found:
        found = resolve.find(self._at(path))
        return found.outcome() if isinstance(found, Fill) else found

    def _named_in(self, wanted: Wanted) -> tuple[str, ...]:
        for path in wanted.asked:
            query = self._at(path)
            try:
                documents = serve.parts(query)[0] if wanted.merged else [serve.read_document(resolve.find(query))]
            except NotFound:
                continue
            if names := query.repo.format.named_in(path, documents):
                return names
        raise absent(wanted.name)

    def _at(self, path: str) -> Query:
        """The door that a request comes in by (`repos.gate`), for a job."""
        if time.monotonic() >= self._until:
            actor, rights = self._job.rights()
            self._query = Query(repo=self._job.repository(), path="", actor=actor, rights=rights)
            self._until = time.monotonic() + RIGHTS_FOR
        query = replace(self._query, path=paths.check(path))
        if not query.may("artifact:read", query.repo, query.repo.format.package(path) or None):
            raise absent(path)
        return query
