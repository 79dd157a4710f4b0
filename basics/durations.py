"""Durations as people write them: `90s`, `10m`, `12h`, `30d` or `2w`."""

from __future__ import annotations

import re
from datetime import timedelta

WRITTEN = re.compile(r"([0-9]{1,9})([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST = timedelta(days=36500)


def duration(text: str) -> timedelta:
    """A number and s, m, h, d or w as a timedelta; ValueError for anything else, and for what is too long."""
    match = WRITTEN.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:60]!r} is no duration; write a number and s, m, h, d or w, such as 10m")
    count, unit = int(match[1]), UNITS[match[2]]
    if count > LONGEST / timedelta(**{unit: 1}):
        raise ValueError(f"the longest duration is {LONGEST.days}d")
    return timedelta(**{unit: count})
