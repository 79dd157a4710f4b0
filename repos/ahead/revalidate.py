"""Asks upstreams again for documents that are in use, shortly before they expire, so that no client waits for it."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from accounts import epoch
from problems import NotFound, Problem
from repos import catalogue, database, jobs, proxy
from repos.ahead import is_everywhere, several
from repos.jobs.runner import Failed

TICK = timedelta(seconds=12)
"""How often it is looked for what expires."""
SOONEST, LATEST = timedelta(seconds=60), timedelta(seconds=5)
"""The most and the least time before the end of a lifetime; within them a tenth of the lifetime."""
FIRST_USES = timedelta(seconds=15)
"""Uses so soon after a document came are of those who had it fetched (`repos.usage` writes after ten seconds)."""
AT_ONCE = 200
"""The most documents of one look."""

EXPIRING = """
SELECT f.repository_id, a.path, f.checked_at, f.expires_at, u.last_used
  FROM repos_freshness f
  JOIN repos_asset a ON a.repository_id = f.repository_id AND a.path_key = f.path_key AND a.until IS NULL
  JOIN repos_usage u ON u.asset_id = a.id AND u.last_used > f.checked_at
 WHERE f.expires_at > %s AND f.expires_at <= %s AND NOT f.missing
 ORDER BY f.expires_at LIMIT %s
"""


def ask_for_what_expires() -> None:
    """A job for each remote that has documents in use which expire before the next look, or soon after."""
    remotes = {repo.id: repo for repo in catalogue.repositories(epoch.current()).values() if repo.is_remote and not repo.offline}
    wanted: defaultdict[int, list[str]] = defaultdict(list)
    looked = database.now()
    for repository_id, path in _expiring(looked):
        if repository_id in remotes and proxy.is_allowed(remotes[repository_id], path):
            wanted[repository_id].append(path)
    for repository_id in sorted(wanted):
        jobs.enqueue(
            "revalidate",
            {"paths": wanted[repository_id], "looked": looked.isoformat()},
            repository=remotes[repository_id],
            key=f"revalidate {repository_id}",
        )


def _expiring(now: datetime) -> list[tuple[int, str]]:
    with connection.cursor() as cursor:
        cursor.execute(EXPIRING, [*map(database.parameter, (now, now + SOONEST + TICK)), AT_ONCE])
        rows = [(pk, path, *map(database.moment, moments)) for pk, path, *moments in cursor.fetchall()]
    return [
        (repository_id, path)
        for repository_id, path, checked_at, expires_at, last_used in rows
        if expires_at - now <= _ahead(expires_at - checked_at) + TICK
        and last_used - checked_at > min(FIRST_USES, (expires_at - checked_at) / 4)
    ]


def _ahead(lifetime: timedelta) -> timedelta:
    return min(max(lifetime / 10, LATEST), SOONEST)


@jobs.kind("revalidate", check=lambda arguments, _: arguments, attempts=1, keep=timedelta(days=1))
def run(job: jobs.Running) -> dict[str, Any]:
    """Ask for each of the job's paths; what fails is in the log: clients are served what is cached, and find out themselves.

    The rest is left where the upstream fails as a whole. What was asked for since it was looked for is not asked for again:
    another scheduler may have looked at the same time, and its job be done.
    """
    repo, paths = job.repository(), job.arguments["paths"]
    looked = datetime.fromisoformat(job.arguments["looked"])
    asked = failed = 0
    for path, outcome in several(job, paths, lambda path: proxy.start(repo, path, newer_than=looked).outcome()):
        if isinstance(outcome, NotFound):
            job.log(f"{path} is no more")
        elif isinstance(outcome, Problem):
            job.log(f"{path}: {outcome.reason}")
            if is_everywhere(outcome):
                raise outcome
            failed += 1
        elif isinstance(outcome, Exception):
            raise outcome
        asked += 1
        job.progress(asked, len(paths))
    if failed:
        raise Failed(f"{failed} of {len(paths)} documents failed; the log tells which", {"asked": asked, "failed": failed})
    return {"asked": asked}
