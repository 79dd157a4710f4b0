"""Looks after tokens: has the audit say which expire soon, and forgets those that ended long ago."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from accounts import tokens
from repos import jobs
from repos.models import Job


@jobs.kind("tokens", permission="system:manage", every=timedelta(hours=1), keep=timedelta(days=2))
def run(job: jobs.Running) -> dict[str, Any]:
    return {"warned": _all(tokens.warn, job.progress), "forgotten": _all(_forget, job.progress)}


def _forget() -> int:
    """A job that is still to run asks whether its token was revoked."""
    return tokens.forget(Job.objects.filter(state__in=Job.LIVE).exclude(token=None).values_list("token_id", flat=True))


def _all(some: Callable[[], int], told: Callable[[int], None]) -> int:
    done = 0
    while found := some():
        done += found
        told(done)
    return done
