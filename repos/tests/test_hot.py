"""Which answers a process keeps, when it cannot keep all."""

from __future__ import annotations

import pytest

from repos import hot
from repos.hot import Answer, Basis


def answer(size: int = 1 << 20) -> Answer:
    return Answer(Basis(frozenset(), None), b"HTTP/1.1 200 OK\r\n", b"x" * size, 1)


@pytest.fixture
def kept() -> hot._Kept:
    return hot._Kept()


def keys(count: int, prefix: str = "") -> list[bytes]:
    return [f"{prefix}{n}".encode() for n in range(count)]


def test_an_answer_is_there_for_the_next_request(kept):
    kept.put(b"key", one := answer())
    assert kept.get(b"key") is one and kept.get(b"key") is one


def test_requests_that_come_once_drive_out_none_of_those_that_come_again(kept):
    for key in keys(8):
        kept.put(key, answer())
        assert kept.get(key)
    for key in keys(1000, "once "):
        kept.put(key, answer())
    assert all(kept.get(key) for key in keys(8))


def test_what_was_given_up_and_comes_again_is_kept_with_those_that_do(kept):
    for key in [b"again", *keys(1000, "once ")]:
        kept.put(key, answer())
    assert kept.get(b"again") is None
    kept.put(b"again", answer())
    for key in keys(1000, "others "):
        kept.put(key, answer())
    assert kept.get(b"again")


@pytest.mark.parametrize("comes_again", [False, True])
def test_all_that_is_kept_takes_no_more_room_than_it_may(kept, comes_again):
    for key in keys(500):
        kept.put(key, answer())
        if comes_again:
            kept.get(key)
    here = [key for key in keys(500) if key in kept._once or key in kept._often]
    room = hot.ROOM * (3 if comes_again else 1) // 4
    assert (room >> 20) - 1 <= len(here) <= room >> 20
    assert here == keys(500)[-len(here) :]


def test_an_answer_that_holds_no_more_is_gone_from_wherever_it_was(kept):
    for key in (b"once", b"often"):
        kept.put(key, answer())
    kept.get(b"often")
    for key in (b"once", b"often"):
        kept.drop(key)
        assert kept.get(key) is None


def test_an_answer_larger_than_all_the_room_is_not_kept(kept):
    kept.put(b"key", answer(hot.ROOM + 1))
    assert kept.get(b"key") is None
    kept.put(b"small", answer())
    assert kept.get(b"small")
