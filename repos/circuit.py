"""Whether an upstream is asked at all.

asked ── FAILURES in a row ─────────────> out: nobody waits for it, and a thread checks on it ── it answers ──> asked
  └───── 429, or 503 with Retry-After ──> resting, in every process, for as long as it said ──────────────────> asked

It fails when it cannot be reached, is silent, or says that what is behind it is down. A wrong answer (another digest, a malformed
file, a 500 at one path), or what a host does that it redirected to, is no such failure: at the next path it may be right.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.http import parse_http_date_safe

from problems import NotFound, UpstreamDenied, UpstreamFailed, UpstreamOut
from repos import database, upstream
from repos.catalogue import Upstream
from repos.models import Rest

log = logging.getLogger("entrepot.circuit")

FAILURES = 3
COUNTED = frozenset({"upstream.failed", "upstream.timeout", "upstream.down"})
FIRST_CHECK, LAST_CHECK = 0.5, 30.0
"""Seconds between two checks of an upstream that is out: longer each time."""
UNASKED = 600.0
"""Seconds after which an upstream that nobody asks for is not checked any more."""
USUAL_REST, LONGEST_REST = 10, 3600
"""Seconds that an upstream is left alone when its 429 does not say how long, and at most."""


class Circuit:
    """What this process knows of one upstream."""

    def __init__(self, source: Upstream):
        self._source = source
        self._lock = threading.Lock()
        self._failures = 0
        self._asked = 0.0
        self._out = False
        self._checking = False

    def check(self) -> None:
        """Raises UpstreamOut where it is not to be asked."""
        self._asked = time.monotonic()
        if self._out:
            raise UpstreamOut(
                "the upstream does not answer, and is left alone until it does; try again later",
                rule="upstream.out",
                headers={"Retry-After": "5"},
            )

    def answered(self) -> None:
        with self._lock:
            self._failures, self._out = 0, False

    def failed(self) -> None:
        with self._lock:
            self._failures += 1
            if self._out or self._failures < FAILURES:
                return
            self._out = True
            if not self._checking:
                self._begin_checking()
        log.warning("%s failed %d times in a row and is left alone until it answers", self._source.url, FAILURES)

    def _begin_checking(self) -> None:
        """By a thread; where the system gives none the upstream is asked on, as else it would be out for good."""
        try:
            threading.Thread(target=self._check_until_it_answers, name="upstream check", daemon=True).start()
            self._checking = True
        except RuntimeError:
            self._out = False

    def _check_until_it_answers(self) -> None:
        pause = FIRST_CHECK
        while self._out and time.monotonic() - self._asked < UNASKED:
            threading.Event().wait(pause)
            if upstream.answers(self._source):
                log.warning("%s answers again", self._source.url)
                break
            pause = min(2 * pause, LAST_CHECK)
        with self._lock:
            self._checking = False
            if self._out:
                self._failures, self._out = FAILURES - 1, False  # a check is not a proof: one more failure and it is out again


_circuits: dict[Upstream, Circuit] = {}


@contextlib.contextmanager
def watched(source: Upstream, resting: dict[str, datetime]) -> Iterator[None]:
    """Ask `source` within the block, whose failures count. Raises UpstreamOut where it is out, or among the `resting`."""
    if (until := resting.get(_key(source))) is not None:
        raise _rests(until)
    circuit = _circuits.setdefault(source, Circuit(source))
    circuit.check()
    try:
        yield
    except UpstreamFailed as failure:
        if not isinstance(failure, UpstreamOut):
            circuit.failed() if failure.rule in COUNTED else circuit.answered()
        raise
    except (NotFound, UpstreamDenied):
        circuit.answered()
        raise
    circuit.answered()


def resting(sources: Iterable[Upstream]) -> dict[str, datetime]:
    """Which of the upstreams rest, and until when. One query."""
    known = Rest.objects.filter(upstream__in=[_key(source) for source in sources], until__gt=database.now())
    return dict(known.values_list("upstream", "until"))


def refused(source: Upstream, answer: upstream.Answer) -> UpstreamFailed:
    """What to tell of a status that is no answer; an upstream that wants to be left alone is."""
    retry_after = answer.headers.get("retry-after")
    if answer.own and (answer.status == 429 or (answer.status == 503 and retry_after)):
        return rest(source, retry_after)
    rule = "upstream.down" if answer.own and answer.status in (502, 503, 504) else "upstream.status"
    hint = "ask who runs this registry" if 400 <= answer.status < 500 else "try again later"
    return UpstreamFailed(f"the upstream answered {answer.status}; {hint}", rule=rule)


def rest(source: Upstream, retry_after: str | None) -> UpstreamOut:
    """Leave `source` alone, in every process, for as long as it says (RFC 9110 section 10.2.3); gives what to tell the client."""
    until = database.now() + timedelta(seconds=_seconds(retry_after))
    Rest.objects.update_or_create(upstream=_key(source), defaults={"until": until})
    database.release()
    log.warning("%s asks to be left alone until %s", source.url, until.isoformat(timespec="seconds"))
    return _rests(until)


def _rests(until: datetime) -> UpstreamOut:
    left = max(1, round((until - timezone.now()).total_seconds()))
    return UpstreamOut(
        f"the upstream has asked to be left alone for {left} seconds; try again after that",
        rule="upstream.rest",
        headers={"Retry-After": str(left)},
    )


def _seconds(retry_after: str | None) -> float:
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        seconds = int(text[:9])
    elif (moment := parse_http_date_safe(text)) is not None:
        seconds = moment - int(time.time())
    else:
        seconds = USUAL_REST
    return min(max(seconds, 1), LONGEST_REST)


def _key(source: Upstream) -> str:
    """A digest of the URL and whom it is asked as: a rate limit is of an account, or of an address that has none."""
    whom = (source.url, source.username, source.sealed_password, source.sealed_token)
    return hashlib.sha256("\0".join(whom).encode()).hexdigest()
