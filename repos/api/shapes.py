"""What answers look like, for the schema alone: each is made beside its resource, and tests hold the two together."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from accounts.models import ReviewItem
from repos.configuration.section import Section
from repos.models import Change, Job


class Shape(serializers.Serializer):
    """All of an answer's keys, and no other."""


class ProblemShape(Shape):
    type = serializers.CharField(help_text="urn:entrepot:rule:RULE, or about:blank")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="what was refused, and what to do")
    rule = serializers.CharField(allow_blank=True, help_text="the rule that decided")
    instance = serializers.CharField(help_text="the address that was asked")


class OAuthProblemShape(ProblemShape):
    error = serializers.CharField(help_text="by RFC 6749 section 5.2")
    error_description = serializers.CharField()


class GivenTokenShape(Shape):
    access_token = serializers.CharField(help_text="told this once")
    issued_token_type = serializers.CharField()
    token_type = serializers.CharField()
    expires_in = serializers.IntegerField(help_text="seconds")
    scope = serializers.CharField(required=False, help_text="what it may, divided by spaces; without it all that its user may")


class ScopeShape(Shape):
    permissions = serializers.ListField(child=serializers.CharField())
    repositories = serializers.CharField(allow_blank=True, help_text="a pattern; empty: of no repository")
    paths = serializers.CharField(allow_blank=True, help_text="a pattern; empty: every path")


class OwnTokenShape(Shape):
    id = serializers.IntegerField()
    expires_at = serializers.DateTimeField(allow_null=True)
    scopes = serializers.ListField(child=serializers.CharField(), allow_null=True)


class MeShape(Shape):
    name = serializers.CharField()
    token = OwnTokenShape(allow_null=True, help_text="the token that was sent; null: a password was")
    grants = ScopeShape(many=True)


class TokenShape(Shape):
    id = serializers.IntegerField()
    prefix = serializers.CharField(help_text="the secret's first characters")
    user = serializers.CharField()
    name = serializers.CharField(allow_blank=True)
    scopes = serializers.ListField(child=serializers.CharField(), allow_null=True, help_text="null: all that its user may")
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)
    expires_soon = serializers.BooleanField(help_text="within 14 days, or the last fifth of its life")
    trust = serializers.CharField(allow_null=True, help_text="the trust that gave it")


class MadeTokenShape(TokenShape):
    secret = serializers.CharField(help_text="told this once")


class ThroughShape(Shape):
    external = serializers.CharField(allow_blank=True, help_text="the external group; empty: they were put in the group here")
    source = serializers.CharField(  # type: ignore[assignment]
        allow_blank=True, help_text="who says that they are in it"
    )


class ReasonShape(Shape):
    text = serializers.CharField()
    role = serializers.CharField(allow_blank=True, help_text="empty: no grant, but open while only this machine can ask")
    to = serializers.ChoiceField(choices=["user", "group", "authenticated", "anonymous", ""])
    name = serializers.CharField(allow_blank=True)
    repositories = serializers.CharField(allow_blank=True)
    paths = serializers.CharField(allow_blank=True)
    through = ThroughShape(many=True, help_text="of a grant to a group: by what they are in it")


class VerdictShape(Shape):
    permission = serializers.CharField()
    repository = serializers.CharField(allow_blank=True)
    allowed = serializers.BooleanField()
    missing = serializers.CharField(allow_blank=True)
    grants = ReasonShape(many=True, help_text="those that allow it")
    near = ReasonShape(many=True, help_text="those that have the permission, but elsewhere")
    scopes = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="those of the token that let it pass; null: it has none"
    )


class ExplainedShape(Shape):
    user = serializers.CharField()
    token = serializers.IntegerField(allow_null=True)
    action = serializers.CharField(help_text="the permission that it takes")
    repository = serializers.CharField(allow_blank=True)
    path = serializers.CharField(allow_blank=True)
    package = serializers.CharField(allow_blank=True, help_text="what paths of grants are held against")
    path_is = serializers.ChoiceField(choices=["artefact", "package", ""])
    allowed = serializers.BooleanField()
    why = serializers.CharField()
    steps = VerdictShape(many=True, help_text="all of them are needed")
    members = VerdictShape(many=True, help_text="of a virtual repository that is read: one of them is needed")


class SessionShape(Shape):
    id = serializers.CharField()
    user = serializers.CharField()
    created_at = serializers.DateTimeField()
    seen_at = serializers.DateTimeField(help_text="when it was used last, give or take some minutes")
    expires_at = serializers.DateTimeField(help_text="when it ends, unless it is used before")
    address = serializers.CharField(allow_blank=True, help_text="where it began")
    agent = serializers.CharField(allow_blank=True, help_text="what the browser calls itself")


class EndedShape(Shape):
    ended = serializers.IntegerField(help_text="how many sessions there were")


class ReviewShape(Shape):
    id = serializers.IntegerField()
    owner = serializers.CharField(allow_blank=True, help_text="a user or a group; empty: the installation")
    made_at = serializers.DateTimeField()
    made_by = serializers.CharField(allow_blank=True, help_text="who asked for it; empty: its time had come")
    unused = serializers.CharField(help_text="how long not used is unused")
    stale = serializers.CharField(help_text="how long not seen is stale")
    count = serializers.IntegerField(help_text="how many items it has")
    undecided = serializers.IntegerField(help_text="of how many nothing is decided")
    overdue = serializers.BooleanField(help_text="some are undecided for longer than 30 days")


class MadeReviewsShape(Shape):
    items = ReviewShape(many=True)


class PersonShape(Shape):
    user = serializers.CharField()
    through = ThroughShape(many=True)


class ReviewItemShape(Shape):
    number = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=ReviewItem.Kind.values)
    text = serializers.CharField()
    about = serializers.DictField(help_text="the grant, the token or the account as it was reported")
    people = PersonShape(many=True, help_text="who had it: the first of them")
    people_count = serializers.IntegerField()
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="of a grant: by anybody, on what the report is about")
    why = serializers.ListField(child=serializers.CharField(), help_text="what is worth a look, such as unused")
    state = serializers.ChoiceField(choices=["there", "changed", "gone"], help_text="whether it is as it was reported")
    decision = serializers.ChoiceField(choices=[*ReviewItem.Decision.values, ""], help_text="empty: none yet")
    decided_by = serializers.CharField(allow_blank=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    comment = serializers.CharField(allow_blank=True)


class FullReviewItemShape(ReviewItemShape):
    people = PersonShape(many=True, help_text="who had it: all of them")


class AssetShape(Shape):
    path = serializers.CharField()
    repository = serializers.CharField(help_text="the repository that holds it; of a virtual one, a member")
    package = serializers.CharField(allow_blank=True)
    version = serializers.CharField(allow_blank=True)
    media_type = serializers.CharField()
    size = serializers.IntegerField()
    digests = serializers.DictField(child=serializers.CharField())
    since = serializers.IntegerField(help_text="the change that brought it")
    until = serializers.IntegerField(allow_null=True, help_text="the change that ended it; null: it stands")
    at = serializers.DateTimeField(help_text="when it came")


class ChangeShape(Shape):
    number = serializers.IntegerField()
    at = serializers.DateTimeField()
    actor = serializers.CharField(allow_blank=True)
    action = serializers.ChoiceField(choices=Change.Action.values)
    detail = serializers.DictField(required=False, help_text="of `configure`: the configuration, for who manages the repository")


class ProgressShape(Shape):
    done = serializers.IntegerField()
    total = serializers.IntegerField(allow_null=True)


class JobLineShape(Shape):
    id = serializers.IntegerField()
    kind = serializers.CharField()
    repository = serializers.CharField(allow_null=True)
    user = serializers.CharField(allow_null=True, help_text="for whom it acts; null: for the installation")
    state = serializers.ChoiceField(choices=Job.State.values)
    created_at = serializers.DateTimeField()
    not_before = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    attempt = serializers.IntegerField()
    attempts = serializers.IntegerField()
    cancel_requested = serializers.BooleanField()
    progress = ProgressShape()
    problem = serializers.CharField(allow_blank=True)


class JobShape(JobLineShape):
    arguments = serializers.DictField()
    result = serializers.DictField()


class EventShape(Shape):
    place = serializers.CharField(help_text="where it stands: an export goes on `after` it")
    at = serializers.DateTimeField(help_text="when it was written")
    action = serializers.CharField(help_text="such as artifact.publish, configuration.change, sign-in")
    refused = serializers.BooleanField()
    actor = serializers.CharField(allow_blank=True, help_text="empty: anonymous")
    token = serializers.IntegerField(allow_null=True, help_text="the id of the token that they used")
    address = serializers.CharField(allow_blank=True, help_text="where the request came from; empty: it was none")
    request = serializers.CharField(allow_blank=True, help_text="as X-Request-Id told; or a job, or a command")
    repository = serializers.CharField(allow_blank=True)
    subject = serializers.CharField(allow_blank=True, help_text="what it was done to")
    detail = serializers.DictField()
    count = serializers.IntegerField(help_text="how many alike it stands for")


class LineShape(Shape):
    at = serializers.DateTimeField()
    text = serializers.CharField(allow_blank=True)


class LinesShape(Shape):
    changes = serializers.ListField(child=serializers.CharField(), help_text="a line for each: + made, ~ changed, - removed")


WHEREABOUTS: dict[str, serializers.Field] = {
    "head": serializers.IntegerField(help_text="the number of the newest change"),
    "floor": serializers.IntegerField(help_text="changes up to this number are forgotten"),
    "epoch": serializers.CharField(help_text="numbers mean something within this alone"),
}


def page_of(item: type[serializers.Serializer], **beside: serializers.Field) -> type[serializers.Serializer]:
    """A page of such items."""
    fields = {
        "items": item(many=True),
        "next": serializers.CharField(allow_null=True, help_text="the next page, if there is one, whatever this one holds"),
    }
    return type(f"{item.__name__.removesuffix('Shape')}PageShape", (Shape,), {**fields, **beside})


def item_of(section: Section, **beside: serializers.Field) -> type[serializers.Serializer]:
    """A section's item, whose name may be left to its address."""
    fields = section.item().fields
    named = {}
    if section.identity_key in fields and section.identity_key != "role":
        field = fields[section.identity_key]
        options = {**field._kwargs, "required": False}  # type: ignore[attr-defined]
        named = {section.identity_key: type(field)(*field._args, **options)}  # type: ignore[attr-defined]
    return type(section.item.__name__.replace("Item", "Shape"), (section.item,), {**named, **beside})


def document_of(sections: tuple[Section, ...]) -> type[serializers.Serializer]:
    """The whole configuration."""
    fields: dict[str, Any] = {"version": serializers.IntegerField(required=False)}
    for section in sections:
        fields[section.name] = section.item(many=section.listed, required=False)
    return type("ConfigurationShape", (Shape,), fields)
