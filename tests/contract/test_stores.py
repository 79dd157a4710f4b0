"""What every store of blobs promises, one suite for all of them."""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from problems import StorageFull, TooLarge, Unavailable
from repos.blobs import CHUNK, KEY, Store
from repos.blobs.filesystem import FilesystemStore

STORES = {"filesystem": FilesystemStore}


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return STORES[request.param](tmp_path / "blobs")


def kept(store: Store, content: bytes) -> str:
    with store.receive() as incoming:
        incoming.write(content)
        return incoming.keep()


def test_what_is_kept_is_read_back_byte_for_byte(store):
    content = bytes(range(256)) * (CHUNK // 100)
    key = kept(store, content)
    with store.open(key) as file:
        assert file.read() == content
    assert store.size(key) == len(content)


def test_a_reader_can_seek(store):
    with store.open(kept(store, b"0123456789")) as file:
        file.seek(4)
        assert file.read(3) == b"456"


def test_no_bytes_at_all_can_be_kept(store):
    key = kept(store, b"")
    assert store.size(key) == 0
    assert hashlib.sha256(b"").hexdigest() in key


def test_the_digests_are_those_of_the_bytes(store):
    with store.receive(digests=("md5", "sha1")) as incoming:
        incoming.write(b"hel")
        incoming.write(b"lo")
        assert incoming.size == 5
        assert incoming.sha256 == hashlib.sha256(b"hello").hexdigest()
        assert incoming.digests == {"md5": hashlib.md5(b"hello").hexdigest(), "sha1": hashlib.sha1(b"hello").hexdigest()}


def test_what_has_been_written_can_be_read_before_it_is_kept(store):
    with store.receive() as incoming:
        incoming.write(b"so far")
        with incoming.open() as file:
            assert file.read() == b"so far"
            incoming.write(b", and on")
            assert file.read() == b", and on"


def test_what_is_not_kept_leaves_nothing(store):
    with store.receive() as incoming:
        incoming.write(b"gone")
    assert list(store.objects()) == []
    assert list(store.leftovers()) == []


def test_an_error_while_receiving_leaves_nothing(store):
    def fail() -> None:
        with store.receive() as incoming:
            incoming.write(b"gone")
            raise RuntimeError("the client went away")

    with pytest.raises(RuntimeError):
        fail()
    assert list(store.objects()) == []
    assert list(store.leftovers()) == []


def test_more_than_the_limit_is_refused(store):
    with store.receive(limit=10) as incoming:
        incoming.write(b"0123456789")
        with pytest.raises(TooLarge, match="more than 10 bytes"):
            incoming.write(b"!")


@pytest.mark.parametrize("failing", ["file", "folder"])
def test_bytes_that_cannot_be_synced_are_not_kept(tmp_path, monkeypatch, failing):
    store, sync = FilesystemStore(tmp_path / "blobs"), os.fsync

    def fail(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_dir() == (failing == "folder"):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with store.receive() as incoming:
        incoming.write(b"nearly")
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StorageFull):
            incoming.keep()
    assert [*store.objects(), *store.leftovers()] == []


def test_a_store_whose_folders_were_lost_makes_them_anew(tmp_path):
    """As one that was restored by a program that leaves out what is empty, or whose maker was killed."""
    for name in ("incoming", "parts"):
        (tmp_path / "blobs" / name).mkdir(parents=True)
    store = FilesystemStore(tmp_path / "blobs")
    with store.open(kept(store, b"content")) as file:
        assert file.read() == b"content"


def test_bytes_that_were_taken_away_while_they_came_are_not_kept_and_can_be_sent_again(store):
    with store.receive() as incoming:
        incoming.write(b"stalled")
        for leftover in store.leftovers():
            store.discard(leftover)
        with pytest.raises(Unavailable, match="send them again"):
            incoming.keep()
    assert [*store.objects(), *store.leftovers()] == []


def test_a_key_is_never_used_twice(store):
    first, second = kept(store, b"same"), kept(store, b"same")
    assert first != second
    assert KEY.fullmatch(first)
    store.delete(first)
    with store.open(second) as file:
        assert file.read() == b"same"


def test_a_deleted_object_is_gone_and_deleting_again_is_harmless(store):
    key = kept(store, b"x")
    store.delete(key)
    store.delete(key)
    with pytest.raises(FileNotFoundError):
        store.open(key)
    with pytest.raises(FileNotFoundError):
        store.size(key)
    assert list(store.objects()) == []


def test_a_reader_that_is_open_goes_on_when_the_object_is_deleted(store):
    key = kept(store, b"x" * CHUNK)
    with store.open(key) as file:
        store.delete(key)
        assert len(file.read()) == CHUNK


def test_the_objects_are_all_listed_with_their_size(store):
    sizes = {kept(store, b"x" * n): n for n in (1, 10, 100)}
    assert {item.key: item.size for item in store.objects()} == sizes
    assert all(0 <= item.age < 3600 for item in store.objects())


def test_what_is_being_received_is_listed_as_left_over_and_can_be_discarded(store):
    with store.receive() as incoming:
        incoming.write(b"half")
        (leftover,) = store.leftovers()
        assert leftover.size == 4
        store.discard(leftover)
        assert list(store.leftovers()) == []


@pytest.mark.parametrize("key", ["../../etc/passwd", "ab/../../x", "", "incoming/x", "ab/" + "a" * 64 + "/../x"])
def test_a_key_that_is_none_reaches_no_other_file(store, key):
    with pytest.raises(ValueError, match="not a blob's key"):
        store.open(key)


def test_keeping_and_deleting_one_digest_at_once_loses_nothing(store):
    """A delete takes the last object's folder away while another puts the same bytes there."""

    def keep_and_delete() -> None:
        for _ in range(50):
            key = kept(store, b"contended")
            with store.open(key) as file:
                assert file.read() == b"contended"
            store.delete(key)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(keep_and_delete) for _ in range(4)]:
            done.result(60)
    assert list(store.objects()) == []


# Parts


def part(store: Store, content: bytes, *, durable: bool = True, hashed: bool = True) -> str:
    with store.receive(hashed=hashed) as incoming:
        incoming.write(content)
        return incoming.set_aside(durable=durable)


@pytest.mark.parametrize("durable", [True, False])
def test_a_part_is_closed_before_anybody_is_told_of_it(tmp_path, durable):
    """A shared filesystem says of what was written only then whether there is room for it."""
    with FilesystemStore(tmp_path / "blobs").receive(hashed=False) as incoming:
        incoming.write(b"some")
        incoming.set_aside(durable=durable)
        mine = [file.resolve() for file in Path("/proc/self/fd").iterdir()]
        assert not any(file.is_relative_to(tmp_path) for file in mine)


@pytest.mark.parametrize("contents", [(b"whole",), (b"first ", b"second ", b"third"), (b"a" * CHUNK + b"b", b"c" * CHUNK * 2)])
@pytest.mark.parametrize("digests", [(), ("sha512",)])
@pytest.mark.parametrize("options", [{}, {"durable": False, "hashed": False}], ids=["durable", "light"])
def test_parts_are_joined_in_their_order_and_stay(store, contents, digests, options):
    names, content = [part(store, one, **options) for one in contents], b"".join(contents)
    for known in ("", hashlib.sha256(content).hexdigest()) if len(contents) == 1 else ("",):
        with store.join(names, digests, known) as incoming:
            assert (incoming.size, incoming.sha256) == (len(content), hashlib.sha256(content).hexdigest())
            assert incoming.digests == {name: hashlib.new(name, content).hexdigest() for name in digests}
            key = incoming.keep()
        with store.open(key) as file:
            assert file.read() == content
    assert {item.key for item in store.parts()} == set(names)
    assert list(store.leftovers()) == []


def test_a_part_that_is_discarded_is_gone_and_what_was_made_of_it_stays(store):
    name = part(store, b"content")
    with store.join([name]) as incoming:
        key = incoming.keep()
    store.discard_part(name)
    store.discard_part(name)
    assert list(store.parts()) == []
    with store.open(key) as file:
        assert file.read() == b"content"
    with pytest.raises(FileNotFoundError):
        store.join([name])


def test_what_is_made_of_an_old_part_is_as_young_as_its_making(store, tmp_path):
    """A sweep takes old objects that no row has, and its row comes after it."""
    name = part(store, b"sent yesterday")
    for file in tmp_path.rglob("*"):
        os.utime(file, (1, 1))
    assert [item.age > 86_400 for item in store.parts()] == [True]
    with store.join([name], (), hashlib.sha256(b"sent yesterday").hexdigest()) as incoming:
        assert all(item.age < 3600 for item in store.leftovers())
        incoming.keep()
    assert [item.age < 3600 for item in store.objects()] == [True]
