"""Jobs: one's own, and for who manages the system all of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request

from accounts.actors import Actor
from problems import Conflict, Forbidden, Malformed
from repos import jobs
from repos.api.permissions import SignedIn, exercised, hidden
from repos.api.resource import Page, Resource, moment
from repos.api.shapes import JobLineShape, JobShape, LineShape, page_of
from repos.caller import READ
from repos.configuration.fields import Item, TextField
from repos.models import Job, JobLine


class JobPage(Page):
    state = serializers.ChoiceField(choices=Job.State.values, required=False)
    kind = TextField(required=False, max_length=32)
    repository = TextField(required=False, max_length=100)


class NewJob(Item):
    kind = TextField(max_length=32)
    repository = TextField(required=False, max_length=100)
    arguments = serializers.DictField(required=False)


class OfJobs(Resource):
    permission_classes: Any = (SignedIn,)

    @property
    def seen(self) -> QuerySet[Job]:
        """The caller's own jobs; of who manages the system all. A narrowed token sees what was asked for with its scopes."""
        found = Job.objects.select_related("repository", "user")
        if self.caller.rights.allows_globally("system:manage"):
            exercised(self.caller, "system:manage")
            return found
        own = found.filter(user_id=self.caller.actor.user_id or 0)
        scopes = self.caller.actor.scopes
        return own if scopes is None else own.filter(scopes=list(scopes))

    def found(self, number: int) -> Job:
        job = self.seen.filter(pk=number).first() if number < 2**63 else None
        if job is None:
            raise hidden(self.caller, str(number))
        return job


class Jobs(OfJobs):
    """The newest first."""

    queries = {"GET": JobPage}
    takes = {"POST": NewJob}
    gives = {"GET": {200: page_of(JobLineShape)}, "POST": {202: JobShape}}
    examples = {"POST": {"kind": "gc"}}
    bounded = True

    def get(self, request: Request) -> HttpResponse:
        after = self.after(int)
        fields = {"state": "state", "kind": "kind", "repository": "repository__key"}
        found = self.seen.filter(**{field: self.asked[name] for name, field in fields.items() if name in self.asked})
        if after is not None:
            found = found.filter(pk__lt=after[0])
        rows = found.defer("arguments", "result").order_by("-pk")[: self.asked["limit"] + 1]
        return self.page(rows, job_line, lambda job: [job.pk])

    def post(self, request: Request) -> HttpResponse:
        """Ask for a job. It acts for the caller, with the rights that they have when it runs."""
        asked = self.checked(NewJob, self.body())
        key = asked.get("repository", "")
        repo = next((repo for repo in self.caller.repositories.values() if repo.key == key), None)
        if key and (repo is None or not self.caller.rights.allows(READ, key)):
            raise Malformed(f"there is no repository {key}, or not for you to read", rule="job.repository")
        kind = jobs.find_kind(asked["kind"])
        kind.check_repository(repo)
        if not kind.may_be_asked_by(self.caller.rights, key):
            raise Forbidden(f"{self.caller.actor.name} may not ask for {kind.name} here; {_needed(kind)}", rule="job.permission")
        exercised(self.caller, kind.permission, key if kind.of_repositories else "")
        job = jobs.enqueue(
            kind.name, asked.get("arguments"), actor=self.caller.actor, repository=repo, key=_key(self.caller.actor, asked)
        )
        return self.answer(job_document(job), 202, {"Location": f"{request.path}{job.pk}/"})


def _needed(kind: jobs.Kind) -> str:
    if not kind.permission:
        return "the server itself asks for such jobs"
    return f"it needs {kind.permission}" + (" on its repository" if kind.of_repositories else "")


def _key(actor: Actor, asked: dict[str, Any]) -> str:
    """Asking for the same again while it has not ended gives the job that is there."""
    whole = json.dumps([actor.user_id, actor.token_id, asked], sort_keys=True)
    return f"asked {hashlib.sha256(whole.encode()).hexdigest()}"


class OneJob(OfJobs):
    """How far a job is."""

    gives = {"GET": {200: JobShape}}

    def get(self, request: Request, number: int) -> HttpResponse:
        return self.answer(job_document(self.found(number)))


class JobLog(OfJobs):
    """A job's log, the oldest line first."""

    queries = {"GET": Page}
    gives = {"GET": {200: page_of(LineShape)}}

    def get(self, request: Request, number: int) -> HttpResponse:
        job = self.found(number)
        after = self.after(int)
        found = JobLine.objects.filter(job_id=job.pk, pk__gt=after[0] if after else 0).order_by("pk")
        return self.page(
            found[: self.asked["limit"] + 1], lambda line: {"at": moment(line.at), "text": line.text}, lambda line: [line.pk]
        )


class CancelJob(OfJobs):
    """Cancelled at once where it is queued, else at its next step."""

    gives = {"POST": {202: JobShape}}

    def post(self, request: Request, number: int) -> HttpResponse:
        job = self.found(number)
        if not jobs.cancel(job.pk):
            raise Conflict("this job has ended already", rule="job.state")
        return self.answer(job_document(self.found(number)), 202)


class RetryJob(OfJobs):
    """Queued once more, with its arguments and for whom it was."""

    gives = {"POST": {202: JobShape}}
    bounded = True

    def post(self, request: Request, number: int) -> HttpResponse:
        job = self.found(number)
        jobs.retry(job.pk)
        return self.answer(job_document(self.found(number)), 202)


def job_document(job: Job) -> dict[str, Any]:
    return {**job_line(job), "arguments": job.arguments, "result": job.result}


def job_line(job: Job) -> dict[str, Any]:
    """A job in a list: without what may be long."""
    return {
        "id": job.pk,
        "kind": job.kind,
        "repository": job.repository.key if job.repository else None,
        "user": job.user.get_username() if job.user else None,
        "state": job.state,
        "created_at": moment(job.created_at),
        "not_before": moment(job.not_before),
        "started_at": moment(job.started_at),
        "ended_at": moment(job.ended_at),
        "attempt": job.attempt,
        "attempts": job.attempts,
        "cancel_requested": job.cancel_requested,
        "progress": {"done": job.done, "total": job.total},
        "problem": job.problem,
    }
