"""Every address of the API."""

from __future__ import annotations

from django.urls import URLPattern, path, re_path

from repos.api import audit, exchange, explain, history, jobs, me, reviews, sessions, tokens
from repos.api.resource import Nothing
from repos.api.schema import Schema
from repos.api.sections import SHELVES, Configuration, views_of


def _of_sections() -> list[URLPattern]:
    return [
        path(f"v1/{shelf.section.address or name}/{rest}", view.as_view(), name=f"{name}{'-item' if rest else ''}")
        for name, shelf in SHELVES.items()
        for rest, view in views_of(shelf).items()
    ]


urlpatterns = [
    path("v1/", me.Index.as_view(), name="index"),
    path("v1/schema/", Schema.as_view(), name="schema"),
    path("v1/me/", me.Me.as_view(), name="me"),
    path("v1/explain/", explain.Explain.as_view(), name="explain"),
    path("v1/reviews/", reviews.Reviews.as_view(), name="reviews"),
    path("v1/reviews/<int:number>/", reviews.OneReview.as_view(), name="review"),
    path("v1/reviews/<int:number>/items/<int:item>/", reviews.OneItem.as_view(), name="review-item"),
    path("v1/reviews/<int:number>/items/<int:item>/decision/", reviews.Decide.as_view(), name="review-decision"),
    path("v1/configuration/", Configuration.as_view(), name="configuration"),
    path("v1/repositories/<str:key>/assets/", history.Assets.as_view(), name="assets"),
    path("v1/repositories/<str:key>/assets/<path:path>", history.PathHistory.as_view(), name="path-history"),
    path("v1/repositories/<str:key>/changes/", history.Changes.as_view(), name="changes"),
    path("v1/repositories/<str:key>/changes/<int:number>/", history.OneChange.as_view(), name="change"),
    path("v1/tokens/", tokens.Tokens.as_view(), name="tokens"),
    path("v1/tokens/<int:number>/", tokens.OneToken.as_view(), name="token"),
    path("v1/audit/", audit.Audit.as_view(), name="audit-lines"),
    path("v1/audit/export/", audit.AuditExport.as_view(), name="audit-export"),
    path("v1/exchange/", exchange.Exchange.as_view(), name="exchange"),
    path("v1/sessions/", sessions.Sessions.as_view(), name="sessions"),
    path("v1/sessions/<str:key>/", sessions.OneSession.as_view(), name="session"),
    path("v1/jobs/", jobs.Jobs.as_view(), name="jobs"),
    path("v1/jobs/<int:number>/", jobs.OneJob.as_view(), name="job"),
    path("v1/jobs/<int:number>/log/", jobs.JobLog.as_view(), name="job-log"),
    path("v1/jobs/<int:number>/cancel/", jobs.CancelJob.as_view(), name="job-cancel"),
    path("v1/jobs/<int:number>/retry/", jobs.RetryJob.as_view(), name="job-retry"),
    *_of_sections(),
    re_path("", Nothing.as_view(), name="nothing"),
]
