"""What is committed to a repository together: the rules by which it may be, and its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from accounts import audit
from problems import Conflict, Forbidden, Malformed, NotFound, Problem, Unavailable
from repos import database, usage
from repos.catalogue import Repo
from repos.format import Described
from repos.models import Asset, Change, Freshness, Lease
from repos.publish import standing
from repos.publish.changes import Locked, lock_repository
from repos.publish.contents import Bytes, lock_blobs
from repos.publish.standing import Standing

BATCH = 1000
"""Rows that one statement names or inserts."""


@dataclass
class New:
    """One asset to be: where it goes, its bytes, and what `Format.describe` said of them."""

    path: str
    bytes: Bytes
    described: Described


@dataclass(frozen=True)
class Outcome:
    """What a put came to: the change's number, and whether anything is new."""

    number: int
    created: bool


@dataclass
class Commit:
    """What is to be committed together to one repository, or refused together.

    `needs`: what has to stand there when it is, by path, with the size in bytes that it is said to have. `ends`: ends
    what led to it, in the same transaction, or raises a Problem where it may not be ended so. `origin`: who acts, also
    where another thread commits it.
    """

    repo: Repo
    news: Sequence[New]
    actor: str
    may_overwrite: bool = False
    needs: Mapping[str, int] = field(default_factory=dict)
    ends: Callable[[], object] | None = None
    freshness: Freshness | None = None
    fence: str = ""
    origin: audit.Origin = field(default_factory=audit.here)
    future: Future[Outcome] = field(default_factory=Future)

    @property
    def keys(self) -> list[str]:
        return [self.repo.format.path_key(new.path) for new in self.news]


def write(commits: list[Commit], action: str) -> dict[int, Outcome | Problem]:
    """The Changes of all `commits` that the rules allow; repositories by ascending id. Fills of one are one Change.

    What need not wait for a repository's lock goes before it: others wait for what is done under it.
    """
    blobs = lock_blobs([new.bytes for commit in commits for new in commit.news])
    outcomes: dict[int, Outcome | Problem] = {id(commit): problem for commit in commits if (problem := _end(commit))}
    commits = [commit for commit in commits if id(commit) not in outcomes]
    for repo in sorted({commit.repo.id: commit.repo for commit in commits}.values(), key=lambda repo: repo.id):
        mine = [commit for commit in commits if commit.repo.id == repo.id]
        paths = {key: new.path for commit in mine for key, new in zip(commit.keys, commit.news, strict=True)}
        try:
            row, answers = lock_repository(repo.id, repo.key, *standing.ask_for(repo, paths))
        except NotFound as gone:
            outcomes |= {id(commit): gone for commit in mine}
            continue
        outcomes |= _insert_into(row, standing.read(answers), repo, mine, blobs, action)
    return outcomes


def _insert_into(
    row: Locked, there: dict[str, Standing], repo: Repo, commits: list[Commit], blobs: dict[str, int], action: str
) -> dict[int, Outcome | Problem]:
    """What the rules allow of it, each commit held against what those before it leave; then all rows at once."""
    outcomes: dict[int, Outcome | Problem] = {}
    added: list[tuple[New, dict[str, Any]]] = []
    closed: dict[int, list[int]] = {}
    kept: list[int] = []
    lines: list[audit.Line] = []
    for commit in commits:
        try:
            _check_fence(commit)
            _check_needs(commit)
            news = _what_is_new(commit, there)
            if action == Change.Action.FILL and any(key in there and there[key].row for key in news):
                raise Unavailable("the same path is being filled with other bytes; try again")
        except Problem as problem:
            outcomes[id(commit)] = problem
            continue
        if news and not (action == Change.Action.FILL and row.changes):
            row.new_change(commit.actor, action)
        if action == Change.Action.PUBLISH:
            lines += _told(commit, row.head, news, there)
        for key, new in news.items():
            if (now := there.get(key)) is not None and now.until is None:
                now.close(row.head, closed)
            asset = _asset(repo, new, blobs, row.head)
            there[key] = Standing(0, None, new.described.media_type, new.bytes.sha256, asset)
            added.append((new, asset))
        kept += [there[key].id for key in commit.keys if key not in news and there[key].row is None]
        outcomes[id(commit)] = Outcome(row.head, bool(news))
    with database.sent_together():
        row.write()
        close_assets(closed)
        database.insert("repos_asset", [asset for _, asset in added])
        database.insert("repos_description", _descriptions(repo, (new for new, _ in added), blobs), or_nothing=True)
        database.insert("repos_reference", _references((new for new, _ in added), blobs), or_nothing=True)
        audit.write(lines)
    if kept and action == Change.Action.PUBLISH:
        usage.wanted(kept)
    _remember_freshness([commit for commit in commits if isinstance(outcomes[id(commit)], Outcome)])
    return outcomes


def _told(commit: Commit, number: int, news: Mapping[str, New], there: Mapping[str, Standing]) -> list[audit.Line]:
    """The line that the audit keeps of a publication: of what is one by itself, and not of its parts, which came before."""
    whole = [new for new in news.values() if not new.described.part]
    if not whole:
        return []
    replaced = [new.path for key, new in news.items() if key in there and there[key].until is None]
    paths = [new.path for new in whole]
    detail = {"change": number, "sha256": whole[0].bytes.sha256, "also": paths[1:], "replaces": replaced}
    told = {word: value for word, value in detail.items() if value}
    return [audit.line("artifact.publish", repository=commit.repo.key, subject=paths[0], detail=told, origin=commit.origin)]


def _end(commit: Commit) -> Problem | None:
    """End what led to a commit; the problem where it may not be ended."""
    try:
        if commit.ends:
            commit.ends()
    except Problem as problem:
        return problem
    return None


def close_assets(closed: Mapping[int, Sequence[int]]) -> None:
    """Let assets end, by the numbers of the changes that they end with."""
    for number, ids in closed.items():
        for start in range(0, len(ids), BATCH):
            clause, values = database.among("id", ids[start : start + BATCH])
            database.run(f"UPDATE repos_asset SET until = %s WHERE {clause}", [number, *values])


def _check_fence(commit: Commit) -> None:
    """A fetch whose lease was taken over may be older than what its successor recorded."""
    if not commit.fence:
        return
    held = Lease.objects.filter(repository_id=commit.repo.id, path_key__in=commit.keys, fence=commit.fence)
    if not held.exists():
        raise Unavailable("this fetch took longer than its lease and another replaced it; try again", rule="proxy.lease")


def _check_needs(commit: Commit) -> None:
    """Under the repository's lock, so that nothing of it can be closed before the commit."""
    keys = {commit.repo.format.path_key(path): path for path in commit.needs}
    names = sorted(keys)
    sizes = {key: new.bytes.size for key, new in zip(commit.keys, commit.news, strict=True) if key in keys}
    for start in range(0, len(names), BATCH):
        here = Asset.objects.filter(repository_id=commit.repo.id, path_key__in=names[start : start + BATCH], until=None)
        sizes |= dict(here.values_list("path_key", "blob__size"))
    missing = [keys[name] for name in names if name not in sizes]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Malformed(f"{missing[0]}{more} is named and not here; push what is named first", rule="reference.missing")
    for name, size in sizes.items():
        if size != commit.needs[keys[name]]:
            raise Malformed(
                f"{keys[name]} has {size} bytes, not {commit.needs[keys[name]]} as is said where it is named",
                rule="reference.size",
            )


def _what_is_new(commit: Commit, there: dict[str, Standing]) -> dict[str, New]:
    """Those of a commit's assets that do not stand already, by path key. Raises what the rules refuse."""
    news: dict[str, New] = {}
    for key, new in zip(commit.keys, commit.news, strict=True):
        now = there.get(key)
        same = now is not None and now.sha256 == new.bytes.sha256
        if now is not None and not same:
            _check_replaceable(commit, now, new)
        if not (same and now is not None and now.until is None and now.media_type == new.described.media_type):
            news[key] = new
    return news


def _check_replaceable(commit: Commit, now: Standing, new: New) -> None:
    if commit.repo.never_changes(new.path):
        stands = "stands" if now.until is None else "stood"
        raise Conflict(
            f"{new.path} {stands} with other bytes (sha256 {now.sha256}) and can never change; publish a new version",
            rule="immutable",
        )
    if now.until is None and not commit.may_overwrite:
        raise Forbidden(
            f"{new.path} stands with other bytes and replacing it needs artifact:overwrite; ask for that role or use a new name",
            rule="artifact:overwrite",
        )


def _asset(repo: Repo, new: New, blobs: dict[str, int], number: int) -> dict[str, Any]:
    return {
        "repository_id": repo.id, "path": new.path, "path_key": repo.format.path_key(new.path),
        "blob_id": blobs[new.bytes.sha256], "media_type": new.described.media_type,
        "package": new.described.package, "version": new.described.version, "labels": database.document({}),
        "since": number, "until": None,
    }  # fmt: skip


def _descriptions(repo: Repo, news: Iterable[New], blobs: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "blob_id": blobs[new.bytes.sha256], "format": repo.format.key, "path_class": new.described.path_class,
            "data": database.document(new.described.data),
        }
        for new in news
        if new.described.data
    ]  # fmt: skip


def _references(news: Iterable[New], blobs: dict[str, int]) -> list[dict[str, Any]]:
    found = {(blobs[new.bytes.sha256], *one) for new in news for one in new.described.references}
    return [{"blob_id": number, "digest": digest, "kind": kind} for number, digest, kind in sorted(found)]


def _remember_freshness(commits: list[Commit]) -> None:
    """Also ends the leases under which the fetches were made."""
    fences = [commit.fence for commit in commits if commit.fence]
    if fences:
        Lease.objects.filter(fence__in=fences).delete()
    newest = {commit.freshness.path_key: commit.freshness for commit in commits if commit.freshness}
    if newest:
        write_freshness([newest[key] for key in sorted(newest)])


def write_freshness(freshness: list[Freshness]) -> None:
    Freshness.objects.bulk_create(
        freshness,
        update_conflicts=True,
        unique_fields=["repository", "path_key"],
        update_fields=["etag", "last_modified", "checked_at", "expires_at", "missing"],
    )
