"""gc frees what history no longer keeps and nothing else; fsck finds whatever is wrong."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from repos import database, publish
from repos.blobs.stores import store
from repos.configuration import engine
from repos.models import Asset, Blob, Change, Freshness, Repository
from repos.upkeep import fsck, gc
from tests.flows.test_commit import put

pytestmark = pytest.mark.django_db(transaction=True)

NOW = timedelta(seconds=0)


def kinds() -> list[str]:
    return sorted({finding.kind for finding in fsck.check(scrub=True, grace=NOW)})


@pytest.fixture
def repo(repository):
    repo = repository("raw")
    put(repo, {"kept": b"kept", "gone": b"gone"})
    return repo


def test_bytes_of_what_was_deleted_are_kept_as_long_as_history_says(repo):
    publish.delete(repo, ["gone"], "tester")
    gc.sweep(grace=NOW)
    assert len(list(store().objects())) == 2, "history.keep is 30 days"
    engine.apply({"history": {"keep": "0s"}})
    freed = gc.sweep(grace=NOW)
    assert (freed.blobs, freed.size) == (1, 4)
    assert len(list(store().objects())) == 1
    assert Asset.objects.get(path="gone").blob.state == Blob.State.FREED, "history still tells its digest"
    assert kinds() == []


def test_freed_bytes_can_be_published_again(repo):
    engine.apply({"history": {"keep": "0s"}})
    publish.delete(repo, ["gone"], "tester")
    gc.sweep(grace=NOW)
    put(repo, {"gone": b"gone"})
    with store().open(Asset.objects.get(path="gone", until=None).blob.key) as file:
        assert file.read() == b"gone"
    assert kinds() == []


def test_what_is_younger_than_the_grace_is_left_alone(repo):
    engine.apply({"history": {"keep": "0s"}})
    publish.delete(repo, ["gone"], "tester")
    assert gc.sweep(grace=timedelta(hours=1)).blobs == 0


def test_a_dry_run_counts_and_frees_nothing(repo):
    engine.apply({"history": {"keep": "0s"}})
    publish.delete(repo, ["gone"], "tester")
    assert gc.sweep(grace=NOW, dry_run=True).blobs == 1
    assert len(list(store().objects())) == 2


def test_a_sweep_that_was_killed_after_marking_is_finished_by_the_next(repo, monkeypatch):
    engine.apply({"history": {"keep": "0s"}})
    publish.delete(repo, ["gone"], "tester")
    with monkeypatch.context() as patch:
        patch.setattr(gc, "_finish_marked", lambda: None)
        gc.sweep(grace=NOW)
    assert Blob.objects.filter(state=Blob.State.DELETING).count() == 1
    put(repo, {"gone": b"gone"})
    gc.sweep(grace=NOW)
    assert kinds() == []
    with store().open(Asset.objects.get(path="gone", until=None).blob.key) as file:
        assert file.read() == b"gone"


def test_bytes_that_no_row_names_are_found_and_removed(repo):
    with store().receive() as incoming:
        incoming.write(b"an orphan")
        incoming.keep()
    (store().incoming / "0123456789abcdef").write_bytes(b"of a crashed upload")
    assert kinds() == ["leftover", "orphan"]
    assert gc.sweep(grace=NOW).orphans == 0, "it may be an upload whose commit is still to come"
    freed = gc.sweep(grace=NOW, stray=NOW)
    assert (freed.orphans, freed.leftovers) == (1, 1)
    assert kinds() == []


def test_what_an_upstream_did_not_have_is_forgotten_when_it_has_expired(repository):
    remote = repository("raw", "cache", "remote", upstreams=[{"url": "http://127.0.0.1:9"}])
    now = database.now()
    for key, missing, expires_at in (
        ("expired", True, now - timedelta(seconds=1)),
        ("fresh", True, now + timedelta(hours=1)),
        ("there", False, now - timedelta(seconds=1)),
    ):
        Freshness.objects.create(repository_id=remote.id, path_key=key, missing=missing, checked_at=now, expires_at=expires_at)
    gc.sweep()
    assert set(Freshness.objects.values_list("path_key", flat=True)) == {"fresh", "there"}


def damage_missing(repo) -> None:
    blob = Asset.objects.get(path="kept").blob
    os.unlink(store().root / blob.key)


def damage_short(repo) -> None:
    (store().root / Asset.objects.get(path="kept").blob.key).write_bytes(b"k")


def damage_bytes(repo) -> None:
    (store().root / Asset.objects.get(path="kept").blob.key).write_bytes(b"Kept")


def damage_gap(repo) -> None:
    put(repo, {"kept": b"newer"})
    Change.objects.filter(repository_id=repo.id, number=2).delete()


def damage_head(repo) -> None:
    Repository.objects.filter(pk=repo.id).update(head=99)


def damage_time(repo) -> None:
    first = Change.objects.get(repository_id=repo.id, number=1)
    Change.objects.filter(repository_id=repo.id, number=2).update(at=first.at - timedelta(days=1))


DAMAGES = {
    "bytes that are gone": (damage_missing, "bytes"),
    "bytes that are cut": (damage_short, "bytes"),
    "bytes that rotted": (damage_bytes, "digest"),
    "a change that is gone": (damage_gap, "history"),
    "a head past the changes": (damage_head, "history"),
    "a time that goes back": (damage_time, "history"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_fsck_finds(repo, what):
    damage, kind = DAMAGES[what]
    assert kinds() == []
    damage(repo)
    assert kind in kinds()


def test_what_a_remote_has_not_been_asked_for_is_dropped_and_comes_back(repository):
    from repos.models import Usage

    remote = repository("raw", "cache", "remote", upstreams=[{"url": "http://127.0.0.1:9"}], cache={"unused": "1d"})
    put(remote, {"used": b"used", "unused": b"unused", "new": b"new"})
    long_ago = Change.objects.get(repository_id=remote.id, number=2).at - timedelta(days=3)
    Change.objects.filter(repository_id=remote.id).update(at=long_ago)
    put(remote, {"new": b"newer"})
    Usage.objects.create(asset=Asset.objects.get(path="used"), downloads=1, last_used=long_ago + timedelta(days=3))
    Usage.objects.create(asset=Asset.objects.get(path="unused"), downloads=1, last_used=long_ago)
    gc.sweep(grace=NOW)
    assert set(Asset.objects.filter(repository_id=remote.id, until=None).values_list("path", flat=True)) == {"used", "new"}
