"""An upstream that is busy or down is left alone, a mirror answers for it, and it is asked again when it is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from tests.parts.lanes import ADMIN, Lane, open_lanes
from tests.parts.server import Answer, Server
from tests.parts.upstream import Handler, Upstream, full

BODY = b"this is what the upstream has\n" * 100
DEADLINE = 60.0
"""Seconds within which an upstream that is back is asked again: against hangs, not to measure."""


@pytest.fixture(scope="module")
def world(server):
    """Two processes, to which requests go as they come; redirects may lead to this machine."""
    here = server()
    here.apply({"egress": {"allow": ["127.0.0.0/8"]}})
    return here


@pytest.fixture(scope="module")
def lanes(world, upstream) -> Iterator[Lane]:
    return open_lanes(world, upstream, 30)


@pytest.fixture
def lane(lanes) -> Lane:
    return next(lanes)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# It asks to be left alone


def busy(retry_after: str | None, status: int = 429) -> Callable[[Handler], None]:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return lambda handler: handler.answer(status, b"busy", headers)


RETRY_AFTER = {
    "seconds": lambda: (busy("50"), 50),
    "a date": lambda: (busy(formatdate(time.time() + 50, usegmt=True)), 50),
    "seconds, with a 503": lambda: (busy("50", 503), 50),
    "nothing": lambda: (busy(None), 3600),
}


@pytest.mark.parametrize("name", RETRY_AFTER)
def test_while_an_upstream_wants_to_be_left_alone_it_is_asked_nothing(lane, name):
    """By no process, for no path, of no repository: what is cached is served and marked, for the rest it is to be tried later."""
    lane.upstream.routes |= {
        "/cached": BODY,
        "/m.example/@v/list": b"v1.0.0\n",
        "/m.example/@v/v1.0.0.mod": b"module m.example\n",
    }
    assert lane.get("raw", "cached").body == BODY
    assert lane.get("go", "m.example/@v/list").body == b"v1.0.0\n"
    assert lane.get("go", "m.example/@v/v1.0.0.mod").body == b"module m.example\n"
    lane.upstream.routes.clear()
    lane.upstream.default, longest = RETRY_AFTER[name]()
    asking = lane.get("raw", "first")
    asked = len(lane.upstream.seen)
    answers = [
        asking,
        *(lane.get(form, f"m{n}.example/@v/list", virtual=n % 2 == 0) for form in ("raw", "go") for n in range(10)),
    ]
    for answer in answers:
        assert answer is not None and answer.status == 503
        assert 1 <= int(answer.headers["Retry-After"]) <= longest
        assert "upstream" in answer.headers["X-Entrepot-Reason"]
    for form, path in (("raw", "cached"), ("go", "m.example/@v/list")):
        for virtual in (False, True):
            stale = lane.get(form, path, virtual=virtual)
            assert stale is not None and stale.status == 200 and stale.headers["Warning"].startswith("110")
    for virtual in (False, True):
        never_changes = lane.get("go", "m.example/@v/v1.0.0.mod", virtual=virtual)
        assert never_changes is not None and never_changes.status == 200 and "Warning" not in never_changes.headers
    assert len(lane.upstream.seen) == asked


def test_after_the_time_it_asked_for_an_upstream_is_asked_again(lane):
    lane.upstream.default = busy("1")
    assert lane.get("raw", "wanted").status == 503
    lane.upstream.default = BODY
    until(lambda: lane.get("raw", "wanted").body == BODY)


ABSURD = [
    "9" * 30, "-5", "-99999999999999999999", "", " ", "abc", "1.5", "1e9", "0x10", "0", "1_0", "+5", "Infinity", "NaN", "5, 10",
    "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 99 Foo 99999 99:99:99 GMT", "\xb2\xb3", "x" * 5000,
]  # fmt: skip


def test_an_absurd_time_is_bounded_and_harms_nobody(lanes):
    """An hour at most, whatever it says."""
    lane = None
    for n, value in enumerate(ABSURD):
        lane = next(lanes) if n % 2 == 0 else lane
        form = ("raw", "go")[n % 2]  # the second finds the upstream resting already, or not
        lane.upstream.default = busy(value)
        for _ in range(2):
            answer = lane.get(form, f"m{n}.example/@v/list")
            assert answer is not None and answer.status == 503, value[:50]
            assert 1 <= int(answer.headers["Retry-After"]) <= 3600, value[:50]


# Mirrors


ELSEWHERE = {
    "nobody listens": "http://127.0.0.1:9/x",
    "there is no such host": "http://nowhere.invalid/x",
    "it is silent": lambda handler: time.sleep(4),
    "it is down": 503,
    "it wants to be left alone": busy("3600"),
    "it cuts": Upstream.cut(BODY, 10, "length"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_a_host_does_that_an_upstream_redirects_to_is_not_held_against_the_upstream(lane, upstream, name):
    """Else whoever can have one path redirected takes the upstream away from all others."""
    there = ELSEWHERE[name]
    if not isinstance(there, str):
        other = upstream()
        other.default, there = there, f"{other.url}/x"
    lane.upstream.routes |= {f"/gone/{n}": lambda handler: handler.answer(302, b"", {"Location": there}) for n in range(12)}
    for n in range(12):
        answer = lane.get("raw", f"gone/{n}")
        assert answer is None or answer.status in (502, 503, 504), name
    lane.upstream.routes["/well"] = BODY
    for _ in range(8):
        assert lane.get("raw", "well").body == BODY


@pytest.fixture(scope="module")
def alone(server):
    """One process, so that what it knows of an upstream is what the next request finds."""
    return server(ENTREPOT_WORKERS="1")


class Mirrors:
    """A remote with two upstreams that have the same, `first` and `second`."""

    def __init__(self, alone: Server, key: str, upstream: Callable[[], Upstream]):
        self.key, self.first, self.second = key, upstream(), upstream()
        for one in (self.first, self.second):
            one.default = self._has_all
        self._alone = alone
        self._count = 0

    def repository(self, first: str = "") -> dict[str, Any]:
        urls = [{"url": url, "timeout": "2s"} for url in (first or self.first.url, self.second.url)]
        rules = {"cache": {"lifetime": "0s", "missing": "0s"}}
        return {"key": self.key, "format": "raw", "kind": "remote", "upstreams": urls, **rules}

    @staticmethod
    def _has_all(handler: Handler) -> None:
        handler.answer(404 if handler.path == "/" else 200, handler.path.encode())

    def get(self, path: str) -> Answer:
        return self._alone.request("GET", f"/raw/{self.key}/{path}", user=ADMIN)

    def next(self) -> str:
        """Ask for what was not asked for yet, and see that it comes."""
        self._count += 1
        path = f"next/{self._count}"
        answer = self.get(path)
        assert (answer.status, answer.body) == (200, f"/{path}".encode())
        return f"/{path}"


@pytest.fixture(scope="module")
def pairs(alone, upstream) -> Iterator[Mirrors]:
    made = [Mirrors(alone, f"mirrors{n}", upstream) for n in range(20)]
    alone.apply({"repositories": [one.repository() for one in made]})
    return iter(made)


@pytest.fixture
def mirrors(pairs) -> Mirrors:
    return next(pairs)


def fail_over(mirrors: Mirrors) -> None:
    """Ask until the first is out, and then see that it is asked for none of what is wanted."""
    for _ in range(10):
        mirrors.next()
    asked = [mirrors.next() for _ in range(20)]
    assert [mirrors.second.hits(path) for path in asked] == [1] * 20
    assert sum(mirrors.first.hits(path) for path in asked) == 0


def comes_back(mirrors: Mirrors) -> None:
    """The first answers again, as soon as it is seen to."""
    until(lambda: mirrors.first.hits(mirrors.next()) == 1)


DOWN = {
    "says that it is down": 503,
    "is a bad gateway": 502,
    "ends the connection": Upstream.wire(b""),
    "speaks no HTTP": Upstream.wire(b"hello"),
    "is silent": lambda handler: time.sleep(3),
}


@pytest.mark.parametrize("how", DOWN)
def test_a_mirror_answers_for_a_first_that_is_down_until_it_is_back(mirrors, how):
    mirrors.next()
    assert len(mirrors.second.seen) == 0, "the first healthy one answers"
    good, mirrors.first.default = mirrors.first.default, DOWN[how]
    fail_over(mirrors)
    mirrors.first.default = good
    comes_back(mirrors)


@pytest.mark.parametrize("status", [200, 302, 401, 500, 501])
def test_an_upstream_is_back_whatever_it_has_at_its_root(mirrors, status):
    """Those who ask keep it from being forgotten, so that nothing but a check can bring it back."""
    mirrors.first.routes["/"] = status
    with mirrors.first.down():
        for _ in range(5):
            mirrors.next()
    comes_back(mirrors)


def test_a_mirror_answers_for_a_first_where_nobody_listens(mirrors):
    with mirrors.first.down():
        for _ in range(20):
            mirrors.next()
    comes_back(mirrors)


def test_a_mirror_answers_for_a_first_that_takes_no_connection(alone, mirrors):
    with full() as taken:
        alone.apply({"repositories": [mirrors.repository(taken)]})
        for _ in range(10):
            mirrors.next()


def test_a_healthy_mirrors_404_is_final(mirrors):
    mirrors.first.routes["/missing"] = 404
    assert mirrors.get("missing").status == 404
    assert mirrors.second.hits("/missing") == 0


def test_a_first_that_rests_is_answered_for_and_comes_back(mirrors):
    mirrors.first.routes["/wanted"] = busy("2")
    assert mirrors.get("wanted").body == b"/wanted"
    asked = len(mirrors.first.seen)
    for _ in range(5):
        assert mirrors.get("wanted").body == b"/wanted"
    assert len(mirrors.first.seen) == asked
    comes_back(mirrors)


def test_one_path_that_fails_takes_no_mirror_out_for_good(mirrors):
    for status in (500, 503):
        mirrors.first.routes["/bad"] = status
        for _ in range(10):
            assert mirrors.get("bad").body == b"/bad"
        comes_back(mirrors)
        assert mirrors.get("bad").body == b"/bad"


def test_with_all_mirrors_down_what_is_cached_is_served_stale_and_the_rest_is_an_outage(mirrors):
    cached = mirrors.next().lstrip("/")
    with mirrors.first.down(), mirrors.second.down():
        for n in range(10):
            assert mirrors.get(f"never/{n}").status in (502, 503, 504)
            stale = mirrors.get(cached)
            assert (stale.status, stale.body) == (200, f"/{cached}".encode()) and stale.headers["Warning"].startswith("110")
    until(lambda: mirrors.get("never/0").status == 200)
    until(lambda: "Warning" not in mirrors.get(cached).headers)


def test_wrong_bytes_of_the_first_are_not_mixed_with_those_of_a_mirror(mirrors):
    """Either the mirror's whole file, or a failure."""
    mirrors.first.routes["/cut"] = Upstream.cut(b"/cut", at=2, framing="length")
    mirrors.first.routes["/false"] = Upstream.stating(b"/fals0", sha256="0" * 64)
    for path in ("cut", "false"):
        answer = mirrors.get(path)
        assert (answer.status, answer.body) == (200, f"/{path}".encode()) or answer.status == 502
