"""What keeps the house in order: fsck finds what is wrong, gc frees what nothing needs any more."""

from __future__ import annotations

from datetime import timedelta

from basics.durations import duration
from repos.models import Setting

KEEP = timedelta(days=30)
"""How long history keeps the bytes of closed assets, where the configuration says nothing."""


def kept_for() -> timedelta:
    """`history.keep` of the configuration."""
    row = Setting.objects.filter(name="history").first()
    return duration(row.value["keep"]) if row and "keep" in row.value else KEEP
