"""The only writer of Changes and Assets.

One transaction is one commit point. The bytes are durable first; then, in this order so that writers never wait for each
other in a circle: blob rows are locked (shared) and seen to be live, the repository's row is locked, what stands there is
compared, the Change is inserted, old assets are closed, new ones inserted. Only then the client hears of success.

    publish.put       what a client sends: one Change for the assets that belong together
    publish.fill      what a remote fetched: one Change for all fills that wait at that moment
    publish.close     closes assets, chosen under the lock; their bytes are kept as long as history keeps them
    publish.delete    closes the assets at given paths
    publish.configured   a Change that tells of a new configuration
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import QuerySet

from problems import Conflict, Forbidden, Malformed, NotFound, Problem, Unavailable
from repos import database, usage
from repos.blobs import Incoming
from repos.blobs.stores import store
from repos.catalogue import Repo
from repos.format import Described
from repos.models import Aside, Asset, Blob, Change, Freshness, Lease, Repository
from repos.rows import Found

log = logging.getLogger("entrepot.publish")

ATTEMPTS = 5
BATCH = 1000
"""Rows that one statement names or inserts."""


@dataclass
class Bytes:
    """Bytes and, once they are durable, their key in the store. `incoming` None: they are stored already."""

    incoming: Incoming | None
    sha256: str
    size: int
    digests: dict[str, str]
    key: str = ""
    taken: bool = False
    """Whether the last transaction's row of these bytes has this key; another writer's may have made it needless."""

    @classmethod
    def of(cls, incoming: Incoming) -> Bytes:
        return cls(incoming, incoming.sha256, incoming.size, incoming.digests)

    @classmethod
    def stored(cls, found: Found) -> Bytes:
        """The bytes of an asset that stands somewhere."""
        return cls(None, found.sha256, found.size, found.digests)

    def make_durable(self) -> None:
        """Raises Unavailable where they were stored already and are so no more."""
        if self.incoming is None:
            raise Unavailable("the bytes were removed meanwhile; send them anew", rule="blob.live")
        if not self.key:
            self.key = self.incoming.keep()


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
    what led to it, in the same transaction, or raises a Problem where it may not be ended so.
    """

    repo: Repo
    news: Sequence[New]
    actor: str
    may_overwrite: bool = False
    needs: Mapping[str, int] = field(default_factory=dict)
    ends: Callable[[], object] | None = None
    freshness: Freshness | None = None
    fence: str = ""
    future: Future[Outcome] = field(default_factory=Future)

    @property
    def keys(self) -> list[str]:
        return [self.repo.format.path_key(new.path) for new in self.news]


class _Refused(Exception):
    """Some of a group's commits are refused, so the transaction is undone: what is refused leaves no row."""

    def __init__(self, problems: dict[int, Problem]):
        super().__init__(len(problems))
        self.problems = problems


class _Gone(Exception):
    """A blob that was live stopped being so; its bytes are stored anew."""


def put(
    repo: Repo, news: Sequence[New], actor: str, *,
    may_overwrite: bool, needs: Mapping[str, int] | None = None, ends: Callable[[], object] | None = None,
) -> Outcome:  # fmt: skip
    """Publish `news` as one Change, for which there must stand what it `needs`, and with which something `ends` (see Commit).

    Raises Conflict where what can never change stands with other bytes, or stood; Forbidden where something would be
    replaced without `may_overwrite`; Malformed where something that is needed is missing or of another size. The same bytes
    again change nothing, and count as a use of what stands.
    """
    return _commit(Commit(repo, news, actor, may_overwrite, needs or {}, ends), Change.Action.PUBLISH)


def fill(repo: Repo, news: Sequence[New], freshness: Freshness, fence: str) -> Outcome:
    """Record what was fetched from an upstream. `fence` is the lease under which it was; a lease that was lost records nothing.

    Raises Conflict where an upstream changed what can never change.
    """
    return _commit(Commit(repo, news, "", True, freshness=freshness, fence=fence), Change.Action.FILL)


def delete(repo: Repo, paths: Sequence[str], actor: str) -> int:
    """Close the assets that are open at `paths`, as one Change; NotFound where there is none. Returns the change's number."""
    keys = [repo.format.path_key(path) for path in paths]
    number = close(repo, lambda open_assets: open_assets.filter(path_key__in=keys), actor)
    if number is None:
        raise NotFound(f"nothing stands at {' or '.join(paths)}")
    return number


def close(repo: Repo, choose: Callable[[QuerySet[Asset]], QuerySet[Asset]], actor: str) -> int | None:
    """Close those of the repository's open assets that `choose` gives, as one Change, whose number is returned; None: none.

    They are chosen while nobody else can publish to the repository, so that what `choose` sees is so when they are closed.
    """
    with transaction.atomic():
        row = _lock_repository(repo.id, repo.key)
        chosen = dict(choose(Asset.objects.filter(repository_id=repo.id, until=None)).values_list("pk", "path"))
        if not chosen:
            return None
        number = row.new_change(actor, Change.Action.DELETE, {"paths": sorted(chosen.values())})
        row.write()
        ids = list(chosen)
        for start in range(0, len(ids), BATCH):
            Asset.objects.filter(pk__in=ids[start : start + BATCH]).update(until=number)
    return number


def configured(repository: Repository, detail: dict[str, Any], actor: str) -> None:
    """Record that a repository's configuration is now `detail` (without secrets). To be called in the caller's transaction."""
    row = _lock_repository(repository.pk, repository.key)
    row.new_change(actor, Change.Action.CONFIGURE, detail)
    repository.changed_at = row.write()
    repository.head = row.head


def put_aside(repo: Repo, path: str, content: Bytes, actor: str, expires_at: datetime) -> None:
    """Keep bytes for the rest of their publication; they are no asset yet."""

    def insert() -> None:
        with transaction.atomic():
            blob_id = _lock_blobs([content])[content.sha256]
            Aside.objects.update_or_create(
                repository_id=repo.id,
                path_key=repo.format.path_key(path),
                defaults={"blob_id": blob_id, "actor": actor, "expires_at": expires_at},
            )

    _store_what_is_missing([content])
    _with_durable_bytes([content], insert)


def _commit(commit: Commit, action: str) -> Outcome:
    """Commit with whatever else waits to be committed to the repository."""
    _store_what_is_missing(_contents([commit]))  # here and not in the group, so that many sync at once
    return _group_of(commit.repo, action).commit(commit)


def _commit_all(commits: list[Commit], action: str) -> None:
    """Commit what may be committed and put each one's outcome, or its problem, into its future."""

    def insert() -> dict[int, Outcome | Problem]:
        with transaction.atomic():
            outcomes = _insert(commits, action)
            if problems := {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, Problem)}:
                raise _Refused(problems)
            return outcomes

    try:
        outcomes = _with_durable_bytes(_contents(commits), insert)
    except _Refused as refused:
        _end([commit for commit in commits if id(commit) in refused.problems], refused.problems)
        if rest := [commit for commit in commits if id(commit) not in refused.problems]:
            _commit_all(rest, action)
    except Exception as error:
        if len(commits) == 1:
            if isinstance(error, Problem):
                _delete_unused(_contents(commits))
            commits[0].future.set_exception(error)
            return
        for commit in commits:  # one of them may be to blame, and the others are not to suffer for it
            _commit_all([commit], action)
    else:
        for commit in commits:
            commit.future.set_result(outcomes[id(commit)])


def _contents(commits: list[Commit]) -> list[Bytes]:
    return [new.bytes for commit in commits for new in commit.news]


def _end(commits: list[Commit], problems: dict[int, Problem]) -> None:
    for commit in commits:
        commit.future.set_exception(problems[id(commit)])
    _delete_unused(_contents(commits))


def _with_durable_bytes(contents: list[Bytes], insert: Any) -> Any:
    """`insert` what was made durable; again, and durable anew, where a sweep took a stored blob in between.

    Keys that no row took are deleted, since another writer stored the same digest first. After an error they stay, for another
    attempt or, where it is not known whether the commit happened, for gc, which decides by the rows.
    """
    for _ in range(ATTEMPTS):
        try:
            result = insert()
        except _Gone:
            _store_what_is_missing(contents)
            continue
        _delete_unused([content for content in contents if not content.taken])
        _add_digests(contents)
        return result
    raise Unavailable("the same bytes were being removed again and again; try again", rule="blob.live")


def _store_what_is_missing(contents: list[Bytes]) -> None:
    wanted = {content.sha256: content for content in contents}
    clause, digests = database.among("sha256", list(wanted))
    live = {sha256 for (sha256,) in database.rows(f"SELECT sha256 FROM repos_blob WHERE state = 'live' AND {clause}", digests)}
    database.release()
    for sha256, content in wanted.items():
        if sha256 not in live:
            content.make_durable()


def _delete_unused(contents: list[Bytes]) -> None:
    """What cannot be deleted is left to gc: the commit has happened, or has been refused, all the same."""
    keys = [content.key for content in contents if content.key]
    if not keys:
        return
    try:
        for key in set(keys) - set(Blob.objects.filter(key__in=keys).values_list("key", flat=True)):
            store().delete(key)
    except (OSError, DatabaseError):
        log.exception("bytes that no row names could not be deleted")


def _lock_blobs(contents: Sequence[Bytes]) -> dict[str, int]:
    """The live blob rows of `contents`, by digest their ids; made where missing, locked against a sweep in that order."""
    durable = {content.sha256: content for content in contents if content.key}
    rows = [_blob(durable[sha256]) for sha256 in sorted(durable)]
    found = database.insert("repos_blob", rows, or_nothing=True, returning=("sha256", "id", "key"))
    wanted = sorted({content.sha256 for content in contents})
    if len(found) < len(wanted):
        clause, digests = database.among("sha256", wanted)
        live = f"SELECT sha256, id, key FROM repos_blob WHERE state = 'live' AND {clause} ORDER BY id {database.share_lock()}"
        found = database.rows(live, digests)
    if len(found) < len(wanted):
        raise _Gone
    keys = {sha256: key for sha256, _, key in found}
    for content in contents:
        content.taken = content.key == keys[content.sha256]
    return {sha256: number for sha256, number, _ in found}


def _blob(content: Bytes) -> dict[str, Any]:
    return {
        "sha256": content.sha256, "size": content.size, "key": content.key, "state": Blob.State.LIVE,
        "digests": database.document(content.digests), "created_at": database.NOW,
    }  # fmt: skip


def _add_digests(contents: Iterable[Bytes]) -> None:
    """A format may declare digests that an earlier one, storing the same bytes, did not.

    After the commit and one row at a time: the commit's shared lock cannot be raised without deadlocks.
    """
    wanted = {content.sha256: content.digests for content in contents if content.digests and not content.key}
    for blob in Blob.objects.filter(sha256__in=wanted, state=Blob.State.LIVE) if wanted else ():
        if wanted[blob.sha256].keys() - blob.digests.keys():
            with transaction.atomic():
                row = Blob.objects.select_for_update().get(pk=blob.pk)
                row.digests = {**row.digests, **wanted[blob.sha256]}
                row.save(update_fields=["digests"])


def _insert(commits: list[Commit], action: str) -> dict[int, Outcome | Problem]:
    """The Changes of all `commits` that the rules allow; repositories by ascending id. Fills of one are one Change."""
    blobs = _lock_blobs([new.bytes for commit in commits for new in commit.news])
    outcomes: dict[int, Outcome | Problem] = {}
    for repo in sorted({commit.repo.id: commit.repo for commit in commits}.values(), key=lambda repo: repo.id):
        mine = [commit for commit in commits if commit.repo.id == repo.id]
        try:
            row = _lock_repository(repo.id, repo.key)
        except NotFound as gone:
            outcomes |= {id(commit): gone for commit in mine}
            continue
        outcomes |= _insert_into(row, repo, mine, blobs, action)
    return outcomes


def _insert_into(
    row: _Locked, repo: Repo, commits: list[Commit], blobs: dict[str, int], action: str
) -> dict[int, Outcome | Problem]:
    """What the rules allow of it, each commit held against what those before it leave; then all rows at once."""
    standing = _standing(repo, commits)
    outcomes: dict[int, Outcome | Problem] = {}
    added: list[tuple[New, dict[str, Any]]] = []
    closed: dict[int, list[int]] = {}
    kept: list[int] = []
    for commit in commits:
        try:
            _check_fence(commit)
            _check_needs(commit)
            news = _what_is_new(commit, standing)
            if commit.ends:
                commit.ends()
            if action == Change.Action.FILL and any(key in standing and standing[key].row for key in news):
                raise Unavailable("the same path is being filled with other bytes; try again")
        except Problem as problem:
            outcomes[id(commit)] = problem
            continue
        if news and not (action == Change.Action.FILL and row.changes):
            row.new_change(commit.actor, action)
        for key, new in news.items():
            if (now := standing.get(key)) is not None and now.until is None:
                now.close(row.head, closed)
            asset = _asset(repo, new, blobs, row.head)
            standing[key] = _Standing(0, None, new.described.media_type, new.bytes.sha256, asset)
            added.append((new, asset))
        kept += [standing[key].id for key in commit.keys if key not in news and standing[key].row is None]
        outcomes[id(commit)] = Outcome(row.head, bool(news))
    row.write()
    for number, ids in closed.items():
        Asset.objects.filter(pk__in=ids).update(until=number)
    database.insert("repos_asset", [asset for _, asset in added])
    database.insert("repos_description", _descriptions(repo, (new for new, _ in added), blobs), or_nothing=True)
    database.insert("repos_reference", _references((new for new, _ in added), blobs), or_nothing=True)
    if kept and action == Change.Action.PUBLISH:
        usage.wanted(kept)
    _remember_freshness([commit for commit in commits if isinstance(outcomes[id(commit)], Outcome)])
    return outcomes


def _check_fence(commit: Commit) -> None:
    """A fetch whose lease was taken over may be older than what its successor recorded."""
    if not commit.fence:
        return
    held = Lease.objects.filter(repository_id=commit.repo.id, path_key__in=commit.keys, fence=commit.fence)
    if not held.exists():
        raise Unavailable("this fetch took longer than its lease and another replaced it; try again", rule="proxy.lease")


@dataclass(slots=True)
class _Standing:
    """What stands at a path key, or, with `until`, what stood there last; `row` where it is not written yet."""

    id: int
    until: int | None
    media_type: str
    sha256: str
    row: dict[str, Any] | None = None

    def close(self, number: int, closed: dict[int, list[int]]) -> None:
        """Let it end with this change; `closed` has the ids of those that are to be told so, by change."""
        if self.row is None:
            closed.setdefault(number, []).append(self.id)
        else:
            self.row["until"] = number


STANDING = """
SELECT a.path_key, a.id, a.until, a.media_type, b.sha256 FROM repos_asset a JOIN repos_blob b ON b.id = a.blob_id
 WHERE a.repository_id = %s AND a.until IS NULL AND {keys}
"""
LAST = """
SELECT a.path_key, a.id, a.until, a.media_type, b.sha256 FROM repos_asset a JOIN repos_blob b ON b.id = a.blob_id
 WHERE a.id IN (SELECT max(a.id) FROM repos_asset a WHERE a.repository_id = %s AND {keys} GROUP BY a.path_key)
"""
"""One row a path, however often it came and went: rows of a path are inserted in the order of its history."""


def _standing(repo: Repo, commits: Sequence[Commit]) -> dict[str, _Standing]:
    """What stands, by path key; where a local repository lets nothing change, also what stood last."""
    paths = {key: new.path for commit in commits for key, new in zip(commit.keys, commit.news, strict=True)}
    fixed = [key for key, path in paths.items() if repo.is_local and repo.never_changes(path)]
    found: dict[str, _Standing] = {}
    for sql, keys in ((LAST, fixed), (STANDING, [*(paths.keys() - fixed)])):
        if keys:
            clause, values = database.among("a.path_key", keys)
            found |= {key: _Standing(*row) for key, *row in database.rows(sql.format(keys=clause), [repo.id, *values])}
    return found


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


def _what_is_new(commit: Commit, standing: dict[str, _Standing]) -> dict[str, New]:
    """Those of a commit's assets that do not stand already, by path key. Raises what the rules refuse."""
    news: dict[str, New] = {}
    for key, new in zip(commit.keys, commit.news, strict=True):
        now = standing.get(key)
        same = now is not None and now.sha256 == new.bytes.sha256
        if now is not None and not same:
            _check_replaceable(commit, now, new)
        if not (same and now is not None and now.until is None and now.media_type == new.described.media_type):
            news[key] = new
    return news


def _check_replaceable(commit: Commit, now: _Standing, new: New) -> None:
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


def remember_freshness(freshness: Freshness, fence: str) -> None:
    """Write what is known of an upstream's document; no Change, since nothing that is served changed.

    Nothing is written when the lease of `fence` was lost meanwhile: its successor knows better.
    """
    with transaction.atomic():
        if not fence or Lease.objects.select_for_update().filter(fence=fence).exists():
            _write_freshness([freshness])


def _write_freshness(freshness: list[Freshness]) -> None:
    Freshness.objects.bulk_create(
        freshness,
        update_conflicts=True,
        unique_fields=["repository", "path_key"],
        update_fields=["etag", "last_modified", "checked_at", "expires_at", "missing"],
    )


def _remember_freshness(commits: list[Commit]) -> None:
    """Also ends the leases under which the fetches were made."""
    fences = [commit.fence for commit in commits if commit.fence]
    if fences:
        Lease.objects.filter(fence__in=fences).delete()
    newest = {commit.freshness.path_key: commit.freshness for commit in commits if commit.freshness}
    if newest:
        _write_freshness([newest[key] for key in sorted(newest)])


@dataclass(slots=True)
class _Locked:
    """A repository's row, locked: the number of its newest change, and what is new until `write`."""

    id: int
    head: int
    changes: list[dict[str, Any]] = field(default_factory=list)

    def new_change(self, actor: str, action: str, detail: dict[str, Any] | None = None) -> int:
        """Raise the head by one, for a Change of this number, which is returned."""
        self.head += 1
        self.changes.append(
            {
                "repository_id": self.id, "number": self.head, "at": None, "actor": actor, "origin": "",
                "action": action, "detail": database.document(detail or {}),
            }
        )  # fmt: skip
        return self.head

    def write(self) -> datetime | None:
        """When the changes were, if there are any: not before those that came before them."""
        if not self.changes:
            return None
        now, values = database.clock(not_before="changed_at")
        sql = f"UPDATE repos_repository SET head = %s, changed_at = {now} WHERE id = %s RETURNING changed_at"
        ((moment,),) = database.rows(sql, [self.head, *values, self.id])
        at = database.moment(moment)
        database.insert("repos_change", [{**change, "at": database.parameter(at)} for change in self.changes])
        self.changes = []
        return at


def _lock_repository(number: int, key: str) -> _Locked:
    rows = database.rows(f"SELECT head FROM repos_repository WHERE id = %s {database.exclusive_lock()}", [number])
    if not rows:
        raise NotFound(f"repository {key} is no more")
    ((head,),) = rows
    return _Locked(number, head)


class _Group:
    """Commits that wait for one another anyhow: whoever's turn it is commits for all who have come meanwhile, in one transaction.

    A commit waits for the disk, and the next to the same repository for that one; together they wait once.
    """

    LARGEST = 200

    def __init__(self, action: str) -> None:
        self._action = action
        self._waiting: list[Commit] = []
        self._committing = False
        self._changed = threading.Condition()

    def commit(self, commit: Commit) -> Outcome:
        """The outcome of a commit, whose bytes are durable. Raises its problem."""
        with self._changed:
            self._waiting.append(commit)
        while group := self._turn_of(commit):
            try:
                self._commit(group)
            finally:
                with self._changed:
                    self._committing = False
                    self._changed.notify_all()
        return commit.future.result()

    def _turn_of(self, commit: Commit) -> list[Commit]:
        """Wait until the commit is done or nobody else commits; then those that the caller is to commit."""
        with self._changed:
            self._changed.wait_for(lambda: commit.future.done() or not self._committing)
            if commit.future.done():
                return []
            self._committing = True
            group, self._waiting = self._waiting[: self.LARGEST], self._waiting[self.LARGEST :]
            return group

    def _commit(self, commits: list[Commit]) -> None:
        try:
            _commit_all(commits, self._action)
        except BaseException as error:
            log.exception("a group of %d commits failed", len(commits))
            for commit in commits:  # whoever waits has no other way to hear of it
                if not commit.future.done():
                    commit.future.set_exception(error)


_groups: dict[tuple[int, str], _Group] = {}


def _group_of(repo: Repo, action: str) -> _Group:
    """Those who wait for the same lock: the repository's row, or, where a database has one writer, that one."""
    return _groups.setdefault((0 if database.has_one_writer() else repo.id, action), _Group(action))
