"""Who must sign in again, and what is left of sign-ins that are over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from accounts import epoch, sessions
from accounts.openid import flow, provider
from repos import jobs


@jobs.kind("people", permission="user:manage", every=timedelta(minutes=5), keep=timedelta(days=1))
def run(job: jobs.Running) -> dict[str, Any]:
    """Suspend whom their provider has not vouched for within its `stale`; remove sessions that ended and states that are old."""
    suspended = provider.suspend_stale(epoch.current())
    removed = sessions.forget() + flow.forget()
    job.log(f"suspended {suspended} who have to sign in again; removed {removed} sign-ins that are over")
    return {"suspended": suspended, "removed": removed}
