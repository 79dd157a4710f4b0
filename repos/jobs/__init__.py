"""Work that no request waits for.

A job is a row, and the row is the truth: what delivers jobs (the scheduler, by way of Celery) may lose them, deliver them
twice or be restarted, and each is still run to its end once in effect. So whatever a job does must be harmless to do again.

    queued ── claim ──> running ── finish ──> done
      ^  │ cancel          │ ├─ fail ──> failed, or queued again after a pause, while it may pass and attempts are left
      │  └──> cancelled <──┘ └─ no sign of life ──> claimed anew, or failed when it has been begun too often
      └── retry, of what has ended

kinds.py    what kinds of jobs there are: each is registered by the room that does the work
table.py    every step in the picture, each one statement that checks what it starts from
runner.py   runs one job: signs of life, progress, log, and what its end means
outlive.py  work that began in a request and becomes a job when it takes long
schedule.py what comes round: the periodic kinds, and forgetting what ended long ago
"""

from repos.jobs.kinds import Kind, find_kind, kind
from repos.jobs.outlive import outliving
from repos.jobs.runner import Running
from repos.jobs.table import cancel, enqueue, retry

__all__ = ["Kind", "Running", "cancel", "enqueue", "find_kind", "kind", "outliving", "retry"]
