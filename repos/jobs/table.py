"""The job table's statements. Each changes a job only from the state that it must be in, so whoever comes second does nothing.

Times are the database's, on which all nodes agree.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet

from accounts import audit
from accounts.actors import Actor
from problems import Conflict, Problem, TooMany, Unauthenticated, Unavailable
from repos import database
from repos.catalogue import Repo
from repos.jobs.kinds import Kind, find_kind
from repos.models import Job, JobLine

LEASE = timedelta(seconds=15)
"""How long a job is its runner's without a sign of life; a killed runner's is taken over after it."""
FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(minutes=10)
OF_ONE = 100
"""The most jobs of one user that have not ended."""
RUNNING_OF_ONE = 2
"""The most jobs of one user that are handed over at a time, so that there is room for those of others."""
LINES = 1000
"""The most lines of one job's log."""
LINE = 500
"""The most characters of one line."""
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What an upstream may have put into its words, and no database takes or no terminal should."""
CANCELLED = "it was cancelled"

State = Job.State


def enqueue(
    kind: str,
    arguments: dict[str, Any] | None = None,
    *,
    actor: Actor | None = None,
    repository: Repo | None = None,
    key: str | None = None,
    not_before: datetime | None = None,
) -> Job:
    """A new job, for `actor` (None: the installation itself); or the one with this `key`, where it has not ended.

    Whether the actor may have it is the caller's to ask (`Kind.may_be_asked_by`). Where clients choose keys, the caller puts
    before them whose they are. Raises Malformed for an unknown kind and for a repository or arguments that it does not
    take, TooMany where the actor has OF_ONE already.
    """
    chosen = find_kind(kind)
    chosen.check_repository(repository)
    job = _new(chosen, chosen.check(arguments or {}, repository), actor, repository)
    job.key, job.not_before = key, not_before or job.not_before
    return _insert_or_find(job, asked=actor is not None)


def begin(kind: str, arguments: dict[str, Any], *, repository: Repo, key: str) -> Job | None:
    """A new job that runs already, in this process, which gives signs of life of its `fence`; None where the key is taken."""
    job = _new(find_kind(kind), arguments, None, repository)
    job.key, job.state, job.attempt = key, State.RUNNING, 1
    job.fence, job.started_at, job.expires_at = _new_fence(), job.created_at, job.created_at + LEASE
    try:
        with transaction.atomic():
            job.save(force_insert=True)
    except IntegrityError:
        return None
    return job


def plan(kind: Kind, slot: str, at: datetime) -> None:
    """See to it that a periodic kind has a job for a time slot; each slot is taken once, by whichever scheduler is first."""
    if Job.objects.filter(slot=slot).exists():
        return
    job = _new(kind, {}, None, None)
    job.slot, job.not_before = slot, at
    Job.objects.bulk_create([job], ignore_conflicts=True)


def _new(kind: Kind, arguments: dict[str, Any], actor: Actor | None, repository: Repo | None) -> Job:
    if actor is not None and actor.anonymous:
        raise Unauthenticated("sign in to start a job, so that it has somebody's rights to act with", rule="job.actor")
    now = database.now()
    return Job(
        kind=kind.name,
        arguments=arguments,
        repository_id=repository.id if repository else None,
        user_id=actor.user_id if actor else None,
        token_id=actor.token_id if actor else None,
        scopes=list(actor.scopes) if actor and actor.scopes is not None else None,
        created_at=now,
        not_before=now,
        attempts=kind.attempts,
    )


def _insert_or_find(job: Job, *, asked: bool) -> Job:
    for _ in range(5):
        if job.key is not None:
            standing = Job.objects.filter(key=job.key, state__in=Job.LIVE).first()
            if standing is not None:
                return standing
        _check_room(job.user_id)
        try:
            with transaction.atomic():
                job.save(force_insert=True)
                if asked:
                    tell(job, "ask")
            return job
        except IntegrityError:
            if job.key is None:
                raise
    raise Unavailable(f"jobs with the key {job.key} come and go; try again", rule="job.key")


def tell(job: Job, verb: str) -> None:
    """Let the audit know what somebody did about a job, in the caller's transaction."""
    key = job.repository.key if job.repository else ""
    audit.record(f"job.{verb}", repository=key, subject=f"job {job.pk}", detail={"kind": job.kind})


def _check_room(user_id: int | None) -> None:
    if user_id is not None and Job.objects.filter(user_id=user_id, state__in=Job.LIVE).count() >= OF_ONE:
        raise TooMany(f"{OF_ONE} jobs of this user have not ended; wait for some, or cancel them", rule="job.many")


def claim(pk: int) -> Job | None:
    """The job, to be run by the caller alone, with a new fence; None where it is not due, runs, or has ended."""
    now = database.now()
    fence = _new_fence()
    due = Q(state=State.QUEUED, not_before__lte=now) | Q(state=State.RUNNING, expires_at__lt=now, cancel_requested=False)
    taken = Job.objects.filter(due, pk=pk, attempt__lt=F("attempts")).update(
        state=State.RUNNING, fence=fence, started_at=now, expires_at=now + LEASE, attempt=F("attempt") + 1
    )
    if not taken:
        return None
    JobLine.objects.filter(job_id=pk).delete()  # the log is of one attempt, so that there is room for the last
    return Job.objects.select_related("repository", "user").get(pk=pk)


def renew(fences: Iterable[str]) -> dict[str, bool]:
    """Give a sign of life of these jobs. Of those that are still the caller's, by fence: whether they are to be cancelled."""
    held = Job.objects.filter(fence__in=list(fences), state=State.RUNNING)
    held.update(expires_at=database.now() + LEASE)
    return dict(held.values_list("fence", "cancel_requested"))


def note(job: Job, done: int, total: int | None, lines: Sequence[str]) -> bool | None:
    """Write how far a job is, and lines of its log. Whether it is to be cancelled; None where it is no longer the caller's."""
    with transaction.atomic():
        now = database.now()
        if not _held(job).update(done=done, total=total, expires_at=now + LEASE):
            return None
        JobLine.objects.bulk_create(JobLine(job_id=job.pk, at=now, text=_printable(line)[:LINE]) for line in lines)
        return Job.objects.values_list("cancel_requested", flat=True).get(pk=job.pk)


def finish(job: Job, result: dict[str, Any]) -> bool:
    """The work is done. Whether it was still the caller's."""
    return _end(_held(job), State.DONE, result=result, problem="")


def fail(job: Job, problem: Problem, *, passes: bool, result: dict[str, Any] | None = None) -> bool:
    """The work failed. What may pass is begun again after a pause, while attempts are left."""
    reason = _printable(problem.reason)
    if passes and job.attempt < job.attempts:
        wait = min(FIRST_PAUSE * 2 ** (job.attempt - 1), LONGEST_PAUSE)
        return _queue_again(job, not_before=database.now() + wait, problem=reason)
    return _end(_held(job), State.FAILED, problem=reason, result=result or {})


def give_back(job: Job) -> bool:
    """Whoever ran it ends, and the job does not: it is queued as if it had not been begun."""
    return _queue_again(job, attempt=F("attempt") - 1)


def end_cancelled(job: Job) -> bool:
    return _end(_held(job), State.CANCELLED, problem=CANCELLED)


def cancel(pk: int) -> bool:
    """Cancel a job: at once where it is queued, else at its next step. False where it has ended already."""
    here = Job.objects.filter(pk=pk)
    with transaction.atomic():
        cancelled = _end(here.filter(state=State.QUEUED), State.CANCELLED, problem=CANCELLED)
        if cancelled or here.filter(state=State.RUNNING).update(cancel_requested=True):
            tell(here.select_related("repository").get(), "cancel")
            return True
        return False


def retry(pk: int) -> None:
    """Queue a job that has ended once more, with its arguments and for whom it was.

    Raises Conflict where it has not ended, or where another job has taken its key, TooMany as `enqueue` does.
    """
    ended = Job.objects.filter(pk=pk).exclude(state__in=Job.LIVE)
    for user_id in ended.values_list("user_id", flat=True):
        _check_room(user_id)
    try:
        with transaction.atomic():
            again = ended.update(
                state=State.QUEUED, not_before=database.now(), attempt=0, started_at=None, ended_at=None,
                cancel_requested=False, done=0, total=None, problem="", result={}, **_FREE,
            )  # fmt: skip
            if again:
                tell(Job.objects.select_related("repository").get(pk=pk), "retry")
    except IntegrityError:
        raise Conflict("another job does the same just now; look at that one", rule="job.key") from None
    if not again:
        raise Conflict("this job has not ended; cancel it first", rule="job.state")


def due(most: int) -> list[int]:
    """Jobs that may be claimed now: those of lost runners, the installation's own, and a few of each user; the oldest first."""
    now = database.now()
    lapsed = Job.objects.filter(state=State.RUNNING, expires_at__lt=now, attempt__lt=F("attempts"), cancel_requested=False)
    queued = Job.objects.filter(state=State.QUEUED, not_before__lte=now).order_by("not_before", "pk")
    own = queued.filter(user=None)
    found = [pk for rows in (lapsed.order_by("expires_at"), own) for pk in rows.values_list("pk", flat=True)[:most]]
    return [*found, *_few_of_each(queued.filter(user__isnull=False))][:most]


def _few_of_each(queued: QuerySet[Job]) -> Iterator[int]:
    running = Job.objects.filter(state=State.RUNNING, user__isnull=False).values_list("user_id", flat=True)
    taken = Counter(running)
    for pk, user_id in queued.values_list("pk", "user_id").iterator():
        if taken[user_id] < RUNNING_OF_ONE:
            taken[user_id] += 1
            yield pk


def settle_lapsed() -> None:
    """End the jobs whose runners were lost and that are not to be begun again."""
    lapsed = Job.objects.filter(state=State.RUNNING, expires_at__lt=database.now())
    _end(lapsed.filter(cancel_requested=True), State.CANCELLED, problem=CANCELLED)
    lost = "whoever ran it was lost, as often as it may be begun"
    _end(lapsed.filter(attempt__gte=F("attempts")), State.FAILED, problem=lost)


def forget(kind: str, before: datetime, most: int) -> int:
    """Delete ended jobs and their logs; returns how many."""
    old = list(Job.objects.filter(kind=kind, ended_at__lt=before).values_list("pk", flat=True)[:most])
    Job.objects.filter(pk__in=old).delete()
    return len(old)


_FREE: dict[str, Any] = {"fence": "", "expires_at": None}


def _held(job: Job):
    """The job's row, as long as it is the caller's."""
    return Job.objects.filter(pk=job.pk, state=State.RUNNING, fence=job.fence)


def _queue_again(job: Job, **fields: Any) -> bool:
    """Queue the caller's job once more, or end it where it was cancelled meanwhile. Whether it was still the caller's."""
    queued = _held(job).filter(cancel_requested=False).update(state=State.QUEUED, **_FREE, **fields)
    return bool(queued) or end_cancelled(job)


def _end(rows, state: str, **fields: Any) -> bool:
    return bool(rows.update(state=state, ended_at=database.now(), **_FREE, **fields))


def _printable(text: str) -> str:
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _new_fence() -> str:
    return secrets.token_hex(16)
