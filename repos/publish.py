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
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import F, QuerySet

from problems import Conflict, Forbidden, Malformed, NotFound, Problem, Unavailable
from repos import database, usage
from repos.blobs import Incoming
from repos.blobs.stores import store
from repos.catalogue import Repo
from repos.format import Described
from repos.models import Aside, Asset, Blob, Change, Description, Freshness, Lease, Reference, Repository
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

    `needs`: what has to stand there when it is, by path, with the size in bytes that it is said to have.
    """

    repo: Repo
    news: Sequence[New]
    actor: str
    may_overwrite: bool = False
    needs: Mapping[str, int] = field(default_factory=dict)
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


def put(repo: Repo, news: Sequence[New], actor: str, *, may_overwrite: bool, needs: Mapping[str, int] | None = None) -> Outcome:
    """Publish `news` as one Change, for which there must stand what it `needs` (see Commit).

    Raises Conflict where what can never change stands with other bytes, or stood; Forbidden where something would be
    replaced without `may_overwrite`; Malformed where something that is needed is missing or of another size. The same bytes
    again change nothing, and count as a use of what stands.
    """
    commit = Commit(repo, news, actor, may_overwrite, needs or {})
    _commit_all([commit], Change.Action.PUBLISH)
    return commit.future.result()


def fill(repo: Repo, news: Sequence[New], freshness: Freshness, fence: str) -> Outcome:
    """Record what was fetched from an upstream. `fence` is the lease under which it was; a lease that was lost records nothing.

    Waits for the group commit. Raises Conflict where an upstream changed what can never change.
    """
    commit = Commit(repo, news, "", True, freshness=freshness, fence=fence)
    _store_what_is_missing([new.bytes for new in news])  # here and not in the group, so that many sync at once
    _committer.submit(commit)
    return commit.future.result()


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
        row = _lock_repository(repo)
        chosen = dict(choose(Asset.objects.filter(repository_id=repo.id, until=None)).values_list("pk", "path"))
        if not chosen:
            return None
        number = _new_change(row, actor, Change.Action.DELETE, {"paths": sorted(chosen.values())}).number
        Asset.objects.filter(pk__in=chosen).update(until=number)
    return number


def configured(repository: Repository, detail: dict[str, Any], actor: str) -> None:
    """Record that a repository's configuration is now `detail` (without secrets). To be called in the caller's transaction."""
    row = Repository.objects.select_for_update().get(pk=repository.pk)
    _new_change(row, actor, Change.Action.CONFIGURE, detail)
    repository.head, repository.changed_at = row.head, row.changed_at


def put_aside(repo: Repo, path: str, content: Bytes, actor: str, expires_at: datetime) -> None:
    """Keep bytes for the rest of their publication; they are no asset yet."""

    def insert() -> None:
        with transaction.atomic():
            blob = _lock_blobs([content])[content.sha256]
            Aside.objects.update_or_create(
                repository_id=repo.id,
                path_key=repo.format.path_key(path),
                defaults={"blob": blob, "actor": actor, "expires_at": expires_at},
            )

    _with_durable_bytes([content], insert)


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
    """Make what is not stored yet durable, then `insert`; again where a sweep took a stored blob in between.

    Keys that no row took are deleted: another writer stored the same digest first, or a rule refused. After any other error
    it is not known whether the commit happened, so the key stays and gc decides by the rows.
    """
    for _ in range(ATTEMPTS):
        _store_what_is_missing(contents)
        try:
            result = insert()
        except _Gone:
            continue
        except Problem:
            _delete_unused(contents)
            raise
        _delete_unused(contents)
        _add_digests(contents)
        return result
    raise Unavailable("the same bytes were being removed again and again; try again", rule="blob.live")


def _store_what_is_missing(contents: list[Bytes]) -> None:
    wanted = {content.sha256: content for content in contents}
    live = set(Blob.objects.filter(sha256__in=wanted, state=Blob.State.LIVE).values_list("sha256", flat=True))
    database.release()
    for sha256, content in wanted.items():
        if sha256 not in live:
            content.make_durable()


def _delete_unused(contents: list[Bytes]) -> None:
    """What cannot be deleted is left to gc: the commit has happened, or has been refused, all the same."""
    keys = {content.key for content in contents if content.key}
    if not keys:
        return
    try:
        for key in keys - set(Blob.objects.filter(key__in=keys).values_list("key", flat=True)):
            store().delete(key)
    except (OSError, DatabaseError):
        log.exception("bytes that no row names could not be deleted")


def _lock_blobs(contents: Sequence[Bytes]) -> dict[str, Blob]:
    """The live blob rows of `contents` by digest, made where missing, locked against a sweep in the order of their ids."""
    durable = {content.sha256: content for content in contents if content.key}
    moment = database.now()
    Blob.objects.bulk_create(
        [
            Blob(sha256=sha256, size=content.size, key=content.key, digests=content.digests, created_at=moment)
            for sha256, content in sorted(durable.items())
        ],
        ignore_conflicts=True,
    )
    digests = sorted({content.sha256 for content in contents})
    rows = Blob.objects.raw(
        f"SELECT * FROM repos_blob WHERE state = 'live' AND sha256 IN ({', '.join(['%s'] * len(digests))}) "
        f"ORDER BY id {database.share_lock()}",
        digests,
    )
    blobs = {blob.sha256: blob for blob in rows}
    if len(blobs) < len(digests):
        raise _Gone
    return blobs


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
    """One Change a repository for all `commits` that the rules allow; repositories by ascending id."""
    blobs = _lock_blobs([new.bytes for commit in commits for new in commit.news])
    outcomes: dict[int, Outcome | Problem] = {}
    for repo in sorted({commit.repo.id: commit.repo for commit in commits}.values(), key=lambda repo: repo.id):
        mine = [commit for commit in commits if commit.repo.id == repo.id]
        try:
            row = _lock_repository(repo)
        except NotFound as gone:
            outcomes |= {id(commit): gone for commit in mine}
            continue
        outcomes |= _insert_into(row, repo, mine, blobs, action)
    return outcomes


def _insert_into(
    row: Repository, repo: Repo, commits: list[Commit], blobs: dict[str, Blob], action: str
) -> dict[int, Outcome | Problem]:
    standing = _standing(repo, [key for commit in commits for key in commit.keys])
    outcomes: dict[int, Outcome | Problem] = {}
    replaced: list[Asset] = []
    kept: list[Asset] = []
    added: dict[str, New] = {}
    actor = ""
    for commit in commits:
        try:
            _check_fence(commit)
            _check_needs(commit)
            news = _what_is_new(commit, standing)
        except Problem as problem:
            outcomes[id(commit)] = problem
            continue
        if any(key in added and added[key].bytes.sha256 != new.bytes.sha256 for key, new in news.items()):
            outcomes[id(commit)] = Unavailable("the same path is being filled with other bytes; try again")
            continue
        replaced += [standing[key] for key in news if key in standing and standing[key].until is None and key not in added]
        kept += [standing[key] for key in commit.keys if key not in news]
        added |= news
        actor = commit.actor
        outcomes[id(commit)] = Outcome(row.head + bool(added), bool(news))
    if added:
        change = _new_change(row, actor, action, {})
        Asset.objects.filter(pk__in=[asset.pk for asset in replaced]).update(until=change.number)
        Asset.objects.bulk_create([_asset(repo, new, blobs, change.number) for new in added.values()])
        Description.objects.bulk_create(_descriptions(repo, added.values(), blobs), ignore_conflicts=True)
        Reference.objects.bulk_create(_references(added.values(), blobs), ignore_conflicts=True, batch_size=BATCH)
    if kept and action == Change.Action.PUBLISH:
        usage.wanted(asset.pk for asset in kept)
    _remember_freshness([commit for commit in commits if isinstance(outcomes[id(commit)], Outcome)])
    return outcomes


def _check_fence(commit: Commit) -> None:
    """A fetch whose lease was taken over may be older than what its successor recorded."""
    if not commit.fence:
        return
    held = Lease.objects.filter(repository_id=commit.repo.id, path_key__in=commit.keys, fence=commit.fence)
    if not held.exists():
        raise Unavailable("this fetch took longer than its lease and another replaced it; try again", rule="proxy.lease")


def _standing(repo: Repo, keys: list[str]) -> dict[str, Asset]:
    """For each path key the open asset, else the one that stood there last."""
    rows = Asset.objects.filter(repository_id=repo.id, path_key__in=keys).select_related("blob")
    found = {asset.path_key: asset for asset in rows.filter(until=None)}
    closed = rows.filter(path_key__in=[key for key in keys if key not in found]).order_by("since")
    return {asset.path_key: asset for asset in closed} | found


def _check_needs(commit: Commit) -> None:
    """Under the repository's lock, so that nothing of it can be closed before the commit."""
    keys = {commit.repo.format.path_key(path): path for path in commit.needs}
    names = sorted(keys)
    sizes: dict[str, int] = {}
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


def _what_is_new(commit: Commit, standing: dict[str, Asset]) -> dict[str, New]:
    """Those of a commit's assets that do not stand already, by path key. Raises what the rules refuse."""
    news: dict[str, New] = {}
    for key, new in zip(commit.keys, commit.news, strict=True):
        now = standing.get(key)
        same = now is not None and now.blob.sha256 == new.bytes.sha256
        if now is not None and not same:
            _check_replaceable(commit, now, new)
        if not (same and now is not None and now.until is None and now.media_type == new.described.media_type):
            news[key] = new
    return news


def _check_replaceable(commit: Commit, now: Asset, new: New) -> None:
    evicted = commit.repo.is_remote and now.until is not None
    if commit.repo.never_changes(new.path) and not evicted:
        stands = "stands" if now.until is None else "stood"
        raise Conflict(
            f"{new.path} {stands} with other bytes (sha256 {now.blob.sha256}) and can never change; publish a new version",
            rule="immutable",
        )
    if now.until is None and not commit.may_overwrite:
        raise Forbidden(
            f"{new.path} stands with other bytes and replacing it needs artifact:overwrite; ask for that role or use a new name",
            rule="artifact:overwrite",
        )


def _asset(repo: Repo, new: New, blobs: dict[str, Blob], number: int) -> Asset:
    return Asset(
        repository_id=repo.id,
        path=new.path,
        path_key=repo.format.path_key(new.path),
        blob=blobs[new.bytes.sha256],
        media_type=new.described.media_type,
        package=new.described.package,
        version=new.described.version,
        since=number,
    )


def _descriptions(repo: Repo, news: Iterable[New], blobs: dict[str, Blob]) -> list[Description]:
    return [
        Description(
            blob=blobs[new.bytes.sha256], format=repo.format.key, path_class=new.described.path_class, data=new.described.data
        )
        for new in news
        if new.described.data
    ]


def _references(news: Iterable[New], blobs: dict[str, Blob]) -> list[Reference]:
    found = {
        (new.bytes.sha256, digest, kind): Reference(blob=blobs[new.bytes.sha256], digest=digest, kind=kind)
        for new in news
        for digest, kind in new.described.references
    }
    return list(found.values())


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


def _lock_repository(repo: Repo) -> Repository:
    row = Repository.objects.select_for_update().filter(pk=repo.id).first()
    if row is None:
        raise NotFound(f"repository {repo.key} is no more")
    return row


def _new_change(row: Repository, actor: str, action: str, detail: dict[str, Any]) -> Change:
    """Raise the head of the locked `row` by one and insert the Change that has this number."""
    moment = database.now()
    row.head += 1
    row.changed_at = max(moment, row.changed_at) if row.changed_at else moment
    Repository.objects.filter(pk=row.pk).update(head=F("head") + 1, changed_at=row.changed_at)
    return Change.objects.create(
        repository_id=row.pk, number=row.head, at=row.changed_at, actor=actor, action=action, detail=detail
    )


class _Committer:
    """Commits fills in groups: while one commit runs, those that come meanwhile wait together for the next."""

    LARGEST_GROUP = 200

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Commit] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, commit: Commit) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # also after a fork
                self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
                self._thread.start()
        self._waiting.put(commit)

    def _run(self) -> None:
        while True:
            group = [self._waiting.get()]
            while len(group) < self.LARGEST_GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            try:
                self._commit(group)
            except BaseException as error:
                log.exception("a group of %d commits failed", len(group))
                for commit in group:  # whoever waits has no other way to hear of it
                    if not commit.future.done():
                        commit.future.set_exception(error)

    @staticmethod
    def _commit(group: list[Commit]) -> None:
        try:
            _commit_all(group, Change.Action.FILL)
        finally:
            database.release()


_committer = _Committer()
