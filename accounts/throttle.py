"""Guessing passwords takes ever longer, on all nodes and processes together.

What failed lately is counted for a name from an address, for an address, and for a name; over a number of failures each
further one makes it wait twice as long as the last. Who waits is refused before the password is looked at, also with the right
one: else it would be worth to go on guessing. A name that is locked out from one address is free from others, but for a limit
that is too slow to hurt anybody but many who guess together. Nobody learns whether there is such a user: every name is counted
alike.

Tokens are no part of it: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from accounts.models import FailedSignIn
from problems import TooMany

FORGOTTEN = timedelta(hours=1)
"""How long after the last of them failures are forgotten."""
MOST = 100_000
"""Rows that are kept; the oldest go first."""


@dataclass(frozen=True)
class Limit:
    """So many failures are free; then 1, 2, 4... seconds, at most `longest`."""

    free: int
    longest: int

    def wait(self, failures: int) -> int:
        """Seconds after the last failure for which nothing is looked at."""
        over = failures - self.free
        return min(2 ** min(over, 30), self.longest) if over >= 0 else 0


PAIR = Limit(free=5, longest=900)
ADDRESS = Limit(free=200, longest=60)
"""Many who are no attackers may share an address, and one of them have a program with an old password."""
NAME = Limit(free=100, longest=10)
LIMITS = (PAIR, ADDRESS, NAME)


@dataclass(frozen=True)
class Attempt:
    """One attempt to sign in with a name, from an address (empty: not known). `keys`: in the order of LIMITS."""

    keys: tuple[str, ...]

    @classmethod
    def of(cls, name: str, address: str) -> Attempt:
        who, where = _folded(name), _network(address)
        return cls((_key("pair", who, where), _key("address", where) if where else "", _key("name", who)))

    def check(self, counts: Sequence[Any]) -> None:
        """Raises TooMany where the attempt comes too early. `counts`: failures and the last one's time, for each of the keys."""
        now = timezone.now()
        left = max(_left(limit, failures, at, now) for limit, failures, at in zip(LIMITS, counts[::2], counts[1::2], strict=True))
        if left > 0:
            raise TooMany(
                f"too many attempts to sign in failed; try again in {math.ceil(left)} seconds, or use a token",
                rule="sign-in.throttled",
                headers={"Retry-After": str(math.ceil(left))},
            )

    def check_again(self) -> None:
        """The same, for a password that was right: of many attempts at once none is looked at in time to be refused at first."""
        rows = {key: (failures, at) for key, failures, at in self._rows().values_list("key", "failures", "failed_at")}
        self.check([value for key in self.keys for value in rows.get(key, (None, None))])
        if self.keys[0] in rows:
            FailedSignIn.objects.filter(key=self.keys[0]).delete()

    def failed(self) -> None:
        """Count a failure, in one statement."""
        now = timezone.now()
        adapt = connection.ops.adapt_datetimefield_value
        keys = sorted(key for key in self.keys if key)  # in one order: two that fail at once cannot deadlock
        rows = ", ".join(["(%s, 1, %s)"] * len(keys))
        values = [value for key in keys for value in (key, adapt(now))]
        with connection.cursor() as cursor:
            cursor.execute(_COUNT.format(rows=rows), [*values, adapt(now - FORGOTTEN)])

    def _rows(self) -> Any:
        return FailedSignIn.objects.filter(key__in=[key for key in self.keys if key])


def forget() -> None:
    """Delete what is forgotten, and the oldest of what is too much."""
    FailedSignIn.objects.filter(failed_at__lt=timezone.now() - FORGOTTEN).delete()
    edge = FailedSignIn.objects.order_by("-failed_at").values_list("failed_at", flat=True)[MOST : MOST + 1]
    for at in edge:
        FailedSignIn.objects.filter(failed_at__lte=at).delete()


def _left(limit: Limit, failures: int | None, at: Any, now: datetime) -> float:
    """Seconds that are left to wait."""
    if not failures:
        return 0.0
    last = datetime.fromisoformat(at) if isinstance(at, str) else at
    last = last.replace(tzinfo=UTC) if last.tzinfo is None else last
    return 0.0 if now - last > FORGOTTEN else limit.wait(failures) - (now - last).total_seconds()


def _folded(name: str) -> str:
    """A name without case and accents, of which directories take no account: else each spelling had a count of its own."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _network(address: str) -> str:
    """An IPv4 address, or the network of one IPv6 customer (/64), who has all of its addresses to choose from."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(getattr(found, "ipv4_mapped", None) or found)


def _key(*words: str) -> str:
    """What was typed as a name may be a password, so it is not kept."""
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()


_COUNT = """
INSERT INTO accounts_failedsignin (key, failures, failed_at) VALUES {rows}
ON CONFLICT (key) DO UPDATE SET failed_at = excluded.failed_at,
    failures = CASE WHEN accounts_failedsignin.failed_at < %s THEN 1 ELSE accounts_failedsignin.failures + 1 END
"""
