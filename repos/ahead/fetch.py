"""A fetch outlives the client that asked for it, and the process that began it: a job completes it elsewhere.

Which fetches have one, `repos.jobs.outlive` tells.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from repos import jobs, proxy


@jobs.kind("fetch", check=lambda arguments, _: arguments, keep=timedelta(days=2))
def run(job: jobs.Running) -> dict[str, Any]:
    """Fetch the job's path into its remote repository, where that has not been done meanwhile."""
    fill = proxy.start(job.repository(), job.arguments["path"])
    while not fill.wait(1.0):
        job.progress(fill.progress, fill.size or None)
    found = fill.outcome()
    return {"sha256": found.sha256, "bytes": found.size}
