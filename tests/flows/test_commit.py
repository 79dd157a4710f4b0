"""A commit is whole or not at all: each of its stages is made to fail, and a retry works."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import resource
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, connection

from problems import Problem, StorageFull
from repos import database, publish
from repos.blobs import filesystem
from repos.blobs.stores import store
from repos.configuration import engine
from repos.format import Described
from repos.models import Asset, Blob, Change, Repository
from repos.publish import Bytes, New
from repos.upkeep import fsck, gc
from repos.upkeep.gc import timedelta
from tests.parts.server import ADMIN_PASSWORD

pytestmark = pytest.mark.django_db(transaction=True)

NOW = timedelta(seconds=0)


class Broken(Exception):
    """What the fault injected raises."""


def put(repo, contents: dict[str, bytes]) -> publish.Outcome:
    news, open_ = [], []
    try:
        for path, content in contents.items():
            incoming = store().receive()
            open_.append(incoming)
            incoming.write(content)
            news.append(New(path, Bytes.of(incoming), repo.format.describe(path, incoming.open, published=False)))
        return publish.put(repo, news, "tester", may_overwrite=True)
    finally:
        for incoming in open_:
            incoming.__exit__(None, None, None)


def once(function: Callable, *, after: bool = False) -> Callable:
    """The function, which fails the first time: instead of doing its work, or after it."""
    failed = []

    def wrapped(*arguments, **options):
        if not failed and not after:
            failed.append(True)
            raise Broken
        result = function(*arguments, **options)
        if not failed:
            failed.append(True)
            raise Broken
        return result

    return wrapped


STAGES = {
    "before the bytes are durable": (publish.groups, "store_what_is_missing", False),
    "after the bytes are durable": (publish.groups, "store_what_is_missing", True),
    "at the rename": (filesystem, "_sync_folder", False),
    "after the rename": (filesystem, "_sync_folder", True),
    "at the blob's row": (publish.commits, "lock_blobs", False),
    "after the blob's row": (publish.commits, "lock_blobs", True),
    "at the repository's lock": (publish.commits, "lock_repository", False),
    "at the comparison": (publish.standing, "read", True),
    "at the change": (publish.changes.Locked, "write", False),
    "after the change": (publish.changes.Locked, "write", True),
    "at the assets": (publish.commits, "_descriptions", False),
    "at the end of the transaction": (publish.commits, "_remember_freshness", True),
    "after the commit": (publish.contents, "delete_unused", False),
}


@pytest.mark.parametrize("stage", STAGES)
def test_whatever_stage_fails_a_retry_works_and_rows_and_bytes_agree(repository, monkeypatch, stage):
    repo = repository("raw")
    put(repo, {"a": b"before", "b": b"before too"})
    place, name, after = STAGES[stage]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, once(getattr(place, name), after=after))
        with pytest.raises(Broken):
            put(repo, {"a": b"new a", "b": b"new b"})
    standing = {asset.path: asset.blob.sha256 for asset in Asset.objects.filter(until=None).select_related("blob")}
    assert len({Asset.objects.get(path=path, until=None).since for path in standing}) == 1, "both or neither"
    put(repo, {"a": b"new a", "b": b"new b"})
    for path in ("a", "b"):
        with store().open(Asset.objects.get(path=path, until=None).blob.key) as file:
            assert file.read() == f"new {path}".encode()
    assert list(fsck.check(scrub=True)) == []
    gc.sweep(grace=NOW, stray=NOW)
    assert list(fsck.check(scrub=True, grace=NOW)) == []


def test_a_connection_that_is_lost_at_the_commit_leaves_what_a_retry_finds(repository, monkeypatch):
    """It is not known then whether the commit happened; here it did."""
    repo = repository("raw")
    with monkeypatch.context() as patch:
        commit = connection.commit

        def commit_and_lose() -> None:
            commit()
            raise OperationalError("the connection was lost")

        patch.setattr(connection, "commit", commit_and_lose)
        with pytest.raises(OperationalError):
            put(repo, {"a": b"new a"})
    assert not put(repo, {"a": b"new a"}).created
    assert list(fsck.check(scrub=True)) == []


def nothing_left() -> bool:
    rows = Asset.objects.exists() or Blob.objects.exists()
    return not rows and not list(store().leftovers()) and not list(store().objects())


def test_no_room_while_bytes_arrive_is_told_as_such_and_leaves_nothing(repository):
    repo = repository("raw")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(StorageFull):
            put(repo, {"a": bytes(2 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert nothing_left()
    assert put(repo, {"a": bytes(2 << 20)}).created


def test_no_room_found_at_the_sync_is_told_as_such_and_leaves_nothing(repository, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    repo = repository("raw")
    with monkeypatch.context() as patch:
        patch.setattr(filesystem.os, "fsync", full)
        with pytest.raises(StorageFull):
            put(repo, {"a": b"content"})
    assert nothing_left()
    assert put(repo, {"a": b"content"}).created


def test_a_refused_asset_refuses_all_that_were_to_come_with_it(repository):
    repo = repository("raw", immutable=["fixed/**"])
    put(repo, {"fixed/a": b"first"})
    changes = Change.objects.count()
    with pytest.raises(Problem, match="can never change"):
        put(repo, {"free": b"x", "fixed/a": b"second"})
    assert Change.objects.count() == changes and not Asset.objects.filter(path="free").exists()


@pytest.mark.parametrize("immutable", [[], ["a"]])
def test_a_commit_reads_as_much_however_long_the_history_of_its_path(repository, monkeypatch, immutable):
    repo = repository("raw")
    read: list[tuple] = []
    ask = database.rows_of

    def asked(queries) -> list[list[tuple]]:
        answers = ask(queries)
        for (sql, _), found in zip(queries, answers, strict=True):
            read.extend(found if "repos_asset" in sql else ())
        return answers

    monkeypatch.setattr(database, "rows_of", asked)

    def rows_of_a_push_after_a_delete(content: bytes) -> int:
        publish.delete(repo, ["a"], "tester")
        read.clear()
        assert put(repo, {"a": content}).created
        return len(read)

    put(repo, {"a": b"0"})
    for n in range(1, 30):
        put(repo, {"a": f"{n}".encode()})
    repo = repository("raw", immutable=immutable)
    assert rows_of_a_push_after_a_delete(b"29") == len(immutable), "one row, where it must be held against what stood"
    assert rows_of_a_push_after_a_delete(b"29") == len(immutable)


def test_what_never_changes_is_held_against_what_stood_last(repository):
    repo = repository("raw")
    for content in (b"first", b"second"):
        put(repo, {"a": content})
    publish.delete(repo, ["a"], "tester")
    repo = repository("raw", immutable=["a"])
    with pytest.raises(Problem, match="stood with other bytes"):
        put(repo, {"a": b"first"})
    assert put(repo, {"a": b"second"}).created


def test_the_same_bytes_in_two_repositories_are_stored_once_and_outlive_either(repository, own_store):
    one, two = repository("raw", "one"), repository("raw", "two")
    for repo in (one, two):
        put(repo, {"a": b"shared"})
    assert len(list(own_store.objects())) == 1
    publish.delete(one, ["a"], "tester")
    engine.apply({"history": {"keep": "0s"}})
    gc.sweep(grace=NOW)
    with own_store.open(Asset.objects.get(repository_id=two.id, until=None).blob.key) as file:
        assert file.read() == b"shared"


def test_change_numbers_have_no_gap_and_times_never_go_back(repository):
    """Not even where the clock that told the last one was ahead."""
    repo, ahead = repository("raw"), database.now() + timedelta(hours=1)
    put(repo, {"a": b"before"})
    Repository.objects.filter(pk=repo.id).update(changed_at=ahead)
    Change.objects.filter(repository_id=repo.id).update(at=ahead)
    for n in range(5):
        put(repo, {"a": f"{n}".encode()})
    assert Repository.objects.get(pk=repo.id).changed_at >= ahead
    changes = list(Change.objects.filter(repository_id=repo.id).order_by("number"))
    assert [change.number for change in changes] == list(range(1, len(changes) + 1))
    assert [change.at for change in changes] == sorted(change.at for change in changes)


def test_what_is_refused_leaves_neither_a_row_nor_an_object(repository, own_store):
    repo = repository("raw", immutable=["fixed/**"])
    put(repo, {"fixed/a": b"first"})
    with pytest.raises(Problem, match="can never change"):
        put(repo, {"fixed/a": b"second"})
    assert Blob.objects.count() == 1 and len(list(own_store.objects())) == 1


def test_one_commit_that_fails_does_not_take_its_group_with_it(repository):
    """Fills wait together for one transaction; what is wrong with one of them is that one's failure."""
    repo = repository("raw", "cache", "remote", upstreams=[{"url": "http://127.0.0.1:9"}])
    commits = []
    with contextlib.ExitStack() as stack:
        for path, content in (("good", b"good"), ("bad", b"bad"), ("fine", b"fine")):
            incoming = stack.enter_context(store().receive())
            incoming.write(content)
            described = Described("p", "v" * (999 if path == "bad" else 1), "text/plain")
            fence = "a lease that is not held" if path == "fine" else ""
            commits.append(publish.Commit(repo, [New(path, Bytes.of(incoming), described)], "", True, fence=fence))
        publish.groups.commit_all(commits, Change.Action.FILL)
    assert commits[0].future.result().created
    assert isinstance(commits[2].future.exception(), Problem)
    if connection.vendor == "postgresql":  # SQLite does not count characters
        assert commits[1].future.exception() is not None
    standing = set(Asset.objects.filter(repository_id=repo.id).values_list("path", flat=True))
    assert standing - {"bad"} == {"good"}
    gc.sweep(grace=NOW, stray=NOW)
    assert list(fsck.check(scrub=True, grace=NOW)) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), OperationalError("the connection is closed"), Broken()]
)
def test_bytes_that_cannot_be_deleted_leave_nobody_waiting_for_the_commit(repository, monkeypatch, error):
    repo = repository("raw", "cache", "remote", upstreams=[{"url": "http://127.0.0.1:9"}])
    group = publish.groups.Group(Change.Action.FILL)

    def commit(stack: contextlib.ExitStack, path: str, fence: str = "") -> publish.Commit:
        incoming = stack.enter_context(store().receive())
        incoming.write(path.encode())
        return publish.Commit(repo, [New(path, Bytes.of(incoming), Described("p", "v", "text/plain"))], "", True, fence=fence)

    def broken(*_) -> None:
        raise error

    with contextlib.ExitStack() as stack:
        refused = commit(stack, "refused", "a lease that is not held")
        with_it, after, later = (commit(stack, path) for path in ("with it", "after", "later"))
        with monkeypatch.context() as patch:
            patch.setattr(filesystem.FilesystemStore, "delete", broken)
            group._waiting = [refused, with_it]  # they are there before, so they are one group
            with contextlib.suppress(BaseException):
                group.commit(after)
            assert isinstance(refused.future.exception(0), Problem)
            assert with_it.future.exception(0) is (error if isinstance(error, Broken) else None)
        assert group.commit(later).created
    gc.sweep(grace=NOW, stray=NOW)
    assert list(fsck.check(scrub=True, grace=NOW)) == []


def test_publications_that_wait_together_are_one_transaction_and_each_its_own_change(repository):
    repo = repository("raw", immutable=["fixed"])
    group = publish.groups.Group(Change.Action.PUBLISH)
    ended: list[str] = []

    def commit(stack: contextlib.ExitStack, actor: str, overwrite: bool, **contents: bytes) -> publish.Commit:
        news = []
        for path, content in contents.items():
            incoming = stack.enter_context(store().receive())
            incoming.write(content)
            news.append(New(path, Bytes.of(incoming), repo.format.describe(path, incoming.open, published=True)))
        one = publish.Commit(repo, news, actor, overwrite, ends=lambda: ended.append(actor))
        publish.contents.store_what_is_missing(publish.groups.contents_of([one]))
        return one

    with contextlib.ExitStack() as stack:
        first = commit(stack, "first", True, tag=b"1", fixed=b"1")
        again = commit(stack, "again", True, tag=b"1")
        moves = commit(stack, "moves", True, tag=b"2")
        refused = commit(stack, "refused", True, fixed=b"2", other=b"2")
        creates = commit(stack, "creates", False, tag=b"3")
        last = commit(stack, "last", True, tag=b"1", own=b"4")
        group._waiting = [first, again, moves, refused, creates]
        group.commit(last)
    outcomes = {one.actor: one.future.exception() or one.future.result() for one in (first, again, moves, refused, creates, last)}
    assert [name for name, outcome in outcomes.items() if isinstance(outcome, Problem)] == ["refused", "creates"]
    assert ended[-4:] == ["first", "again", "moves", "last"]
    made = Change.objects.filter(repository_id=repo.id, action="publish").order_by("number")
    assert list(made.values_list("actor", flat=True)) == ["first", "moves", "last"]
    numbers = list(made.values_list("number", flat=True))
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert outcomes["again"] == publish.Outcome(numbers[0], False)
    history = Asset.objects.filter(repository_id=repo.id, path="tag").order_by("since").values_list("since", "until")
    assert list(history) == [(numbers[0], numbers[1]), (numbers[1], numbers[2]), (numbers[2], None)]
    assert set(Asset.objects.filter(repository_id=repo.id).values_list("path", flat=True)) == {"tag", "fixed", "own"}
    gc.sweep(grace=NOW, stray=NOW)
    assert list(fsck.check(scrub=True, grace=NOW)) == []


def test_who_publishes_to_one_repository_at_once_waits_for_few_transactions(repository, monkeypatch):
    repo = repository("raw")
    begun, at_once, commit_all = [], threading.Event(), publish.groups.commit_all

    def counted(commits, action) -> None:
        begun.append(len(commits))
        assert at_once.wait(60)  # the first holds its turn until all others wait for theirs
        commit_all(commits, action)

    monkeypatch.setattr(publish.groups, "commit_all", counted)
    group = publish.groups.group_of(repo, Change.Action.PUBLISH)
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(put_and_leave, repo, f"file{n}") for n in range(20)]
        deadline = time.monotonic() + 60
        while len(begun) + len(group._waiting) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        at_once.set()
        assert len({future.result().number for future in waiting}) == 20
    assert begun == [1, 19]


def put_and_leave(repo, path: str) -> publish.Outcome:
    try:
        return put(repo, {path: path.encode()})
    finally:
        connection.close()


def test_many_who_declare_new_digests_of_stored_bytes_do_not_stop_each_other(server):
    here = server()
    here.apply({"repositories": [{"key": "files", "format": "raw", "kind": "local"}]})
    user = ("admin", ADMIN_PASSWORD)
    for n in range(5):
        body = f"stored {n}".encode()
        here.request("PUT", f"/raw/files/{n}", body, user=user)
        declared = {"X-Checksum-Sha512": hashlib.sha512(body).hexdigest()}
        with ThreadPoolExecutor(6) as pool:
            put_again = lambda k: here.request("PUT", f"/raw/files/{n}-{k}", body, declared, user).status  # noqa: E731, B023
            assert set(pool.map(put_again, range(6))) == {201}
        assert here.request("GET", f"/raw/files/{n}", user=user).headers["X-Checksum-Sha512"] == declared["X-Checksum-Sha512"]
