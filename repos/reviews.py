"""Permission reviews: when they are made, who sees one, and what becomes of a decision."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from accounts import audit, epoch, grants, tokens
from accounts.actors import Actor
from accounts.grants import Entry, Kind
from accounts.models import ExternalMembership, ExternalName, Review, ReviewItem, Role, Token, User
from accounts.permissions import ANONYMOUS_USER, AUTHENTICATED_GROUP
from accounts.reviews import report
from accounts.reviews.facts import Facts, wholly
from basics.durations import duration
from problems import Conflict, Forbidden, Malformed, NotFound, absent
from repos import jobs
from repos.caller import Caller
from repos.configuration import engine
from repos.configuration.accounts import describe_entry
from repos.configuration.section import shown
from repos.models import Repository, Setting

MANAGE = "user:manage"
UNUSED, STALE = "90d", "180d"
DUE = duration("30d")
"""How long after it was made a review is overdue of which something is undecided."""
AGAIN = duration("1h")
"""How long an owner waits for the next report; who manages users does not."""
COMMENT = 1000


@jobs.kind("review", every=duration("1h"), keep=duration("2d"))
def run(job: jobs.Running) -> dict[str, Any]:
    return {"made": len(come_round(job.progress))}


# When they are made


def come_round(told: Callable[[int], Any] = lambda done: None) -> list[Review]:
    """Make the reports whose time has come; none where the configuration does not say how often."""
    every = _settings().get("every")
    return make(made_before=timezone.now() - duration(every), told=told) if every else []


def owners() -> dict[str, str]:
    """Of each repository its owner, a user or a group; empty where none is said, or nobody of that name is here."""
    rows = dict(Repository.objects.order_by("key").values_list("key", "settings"))
    said = {key: settings.get("owner", "") for key, settings in rows.items()}
    names = set(said.values()) - {ANONYMOUS_USER, AUTHENTICATED_GROUP}
    here = {*User.objects.filter(username__in=names).values_list("username", flat=True)}
    here |= {*Group.objects.filter(name__in=names).values_list("name", flat=True)}
    return {key: name if name in here else "" for key, name in said.items()}


def make(
    only: str | None = None,
    *,
    made_by: str = "",
    made_before: datetime | None = None,
    told: Callable[[int], Any] = lambda done: None,
) -> list[Review]:
    """A report for each owner and the installation, or for `only` one (empty: the installation).

    `made_before`: only where there is none that is newer. Raises NotFound where `only` owns nothing.
    """
    facts, settings = Facts(owners(), timezone.now()), _settings()
    names = sorted({"", *facts.owners.values()})
    if only is not None:
        if only not in names:
            raise NotFound(f"{only} owns no repository; say so by `owner` of one", rule="review.owner")
        names = [only]
    if made_before is not None:
        fresh = set(Review.objects.filter(made_at__gt=made_before).values_list("owner", flat=True))
        names = [name for name in names if name not in fresh]
    made = []
    for name in names:
        made.append(
            report.make(facts, name, unused=settings.get("unused", UNUSED), stale=settings.get("stale", STALE), made_by=made_by)
        )
        told(len(made))
    return made


def asked_by(caller: Caller, owner: str | None) -> list[Review]:
    """Reports that somebody asks for: who manages users those of all, or of one; others their own. Raises Forbidden, Conflict."""
    if caller.rights.allows_globally(MANAGE):
        return make(owner, made_by=caller.actor.name)
    own = stands_for(caller.actor)
    wanted = [name for name in sorted(set(owners().values()) & own) if owner in (None, name)]
    if not wanted:
        raise Forbidden(
            f"{caller.actor.name} owns no repository" + (f" as {owner}" if owner else "") + f"; for all it takes {MANAGE}",
            rule=MANAGE,
        )
    if Review.objects.filter(owner__in=wanted, made_at__gt=timezone.now() - AGAIN).exists():
        raise Conflict("there is a report of this hour already; decide on that", rule="review.recent")
    return [review for name in wanted for review in make(name, made_by=caller.actor.name)]


# Who sees one


def seen_by(caller: Caller) -> QuerySet[Review]:
    """The reviews that somebody may see and decide on; a token with scopes decides nothing, but where one is user:manage."""
    found = Review.objects.defer("groups", "repositories").order_by("-pk")
    found = found.annotate(count=Count("items"), undecided=Count("items", filter=Q(items__decision="")))
    if caller.rights.allows_globally(MANAGE):
        return found
    return found.filter(owner__in=stands_for(caller.actor))


def stands_for(actor: Actor) -> set[str]:
    """The owners that somebody is: themselves, and the groups that they are in. A group comes before a user of its name."""
    if actor.anonymous or actor.scopes is not None:
        return set()
    external = ExternalMembership.objects.filter(identity__user_id=actor.user_id or 0).values("name")
    groups = set(Group.objects.filter(user=actor.user_id).values_list("name", flat=True))
    groups |= set(ExternalName.objects.filter(name__in=external).values_list("group__name", flat=True))
    alone = {actor.name} - set(Group.objects.filter(name=actor.name).values_list("name", flat=True))
    return groups | alone


def overdue(review: Review) -> bool:
    """Of one that was read by `seen_by`, which counts."""
    return bool(review.undecided) and review.made_at < timezone.now() - DUE  # type: ignore[attr-defined]


class Now:
    """What became of the things of some items since their report."""

    def __init__(self, items: list[ReviewItem]):
        of = {kind: [item.about for item in items if item.kind == kind] for kind in ReviewItem.Kind}
        self._entries = set(grants.entries()) if of[ReviewItem.Kind.GRANT] else set()
        names = {about["role"] for about in of[ReviewItem.Kind.GRANT]}
        self._roles = dict(Role.objects.filter(name__in=names).values_list("name", "permissions")) if names else {}
        ids = [about["id"] for about in of[ReviewItem.Kind.TOKEN]]
        self._tokens = set(Token.objects.filter(pk__in=ids, revoked_at=None).values_list("pk", flat=True)) if ids else set()
        users = [about["user"] for about in of[ReviewItem.Kind.ACCOUNT]]
        # Who is suspended comes back by a word of their source, if nobody decides otherwise.
        standing = User.objects.filter(Q(is_active=True) | Q(suspended=True), username__in=users)
        self._users = set(standing.values_list("username", flat=True)) if users else set()

    def state(self, item: ReviewItem) -> str:
        """`there` as it was reported, `changed`, or `gone`."""
        about = item.about
        match item.kind:
            case ReviewItem.Kind.GRANT:
                if entry_of(about) not in self._entries:
                    return "gone"
                return "there" if sorted(self._roles.get(about["role"], ())) == about["permissions"] else "changed"
            case ReviewItem.Kind.TOKEN:
                return "there" if about["id"] in self._tokens else "gone"
        return "there" if about["user"] in self._users else "gone"


def entry_of(about: dict[str, Any]) -> Entry:
    return Entry(*(about[word] for word in Entry._fields))


def title(item: ReviewItem) -> str:
    """An item in words."""
    about = item.about
    if item.kind == ReviewItem.Kind.GRANT:
        return describe_entry(entry_of(about))
    if item.kind == ReviewItem.Kind.TOKEN:
        return f"token {about['id']} ({about['prefix']}…) of {about['user']}"
    return f"the account {about['user']}"


def people(review: Review, item: ReviewItem) -> list[dict[str, Any]]:
    """Who had a grant when it was reported, by user and through what; of everybody nothing is listed."""
    if item.kind != ReviewItem.Kind.GRANT:
        return [{"user": item.about["user"], "through": []}]
    if item.about["kind"] == Kind.USER:
        return [{"user": item.about["name"], "through": []}]
    return review.groups.get(item.about["name"], []) if item.about["kind"] == Kind.GROUP else []


# What becomes of a decision


def decide(caller: Caller, review: Review, number: int, decision: str, comment: str = "") -> ReviewItem:
    """Approve or revoke an item. The same again changes nothing.

    Raises NotFound, Forbidden for what reaches beyond the owner's repositories, Conflict for what was changed since or decided
    for good, and for what would leave nobody to manage users.
    """
    if decision not in ReviewItem.Decision.values:
        raise Malformed("a decision is approve or revoke", rule="review.decision")
    if len(comment) > COMMENT or "\0" in comment:
        raise Malformed(f"a comment has at most {COMMENT} characters, and no NUL", rule="review.comment")
    with transaction.atomic():
        epoch.lock()
        item = ReviewItem.objects.filter(review=review, number=number).first()
        if item is None:
            raise absent(str(number))
        if item.decision == decision:
            return item
        if item.decision == ReviewItem.Decision.REVOKE:
            raise Conflict(f"{item.decided_by} revoked it, which is for good; grant it anew if need be", rule="review.decided")
        state = Now([item]).state(item)
        if decision == ReviewItem.Decision.REVOKE:
            _check_theirs(caller, review, item)
            if state != "gone":
                _revoke(item, caller.actor.name)
        elif state != "there":
            told = "is there no more; revoke notes that" if state == "gone" else "is not as reported; have a new report made"
            raise Conflict(f"{title(item)} {told}", rule=f"review.{state}")
        item.decision, item.decided_by, item.decided_at, item.comment = decision, caller.actor.name, timezone.now(), comment
        item.save(update_fields=["decision", "decided_by", "decided_at", "comment"])
        detail = {"review": review.pk, "item": number, "owner": review.owner, "comment": comment}
        audit.record(f"review.{decision}", subject=title(item), detail=detail)
    return item


def _check_theirs(caller: Caller, review: Review, item: ReviewItem) -> None:
    """An owner takes back what is on their repositories alone, as these are now."""
    if caller.rights.allows_globally(MANAGE):
        return
    now = owners()
    theirs = item.kind == ReviewItem.Kind.GRANT and _owned(item.about["repository"], review.owner, now)
    if item.kind == ReviewItem.Kind.TOKEN:
        token = Token.objects.filter(pk=item.about["id"]).first()
        theirs = token is not None and Facts(now, timezone.now(), []).owner_of(token) == review.owner
    if not theirs:
        raise Forbidden(
            f"{title(item)} reaches beyond the repositories of {review.owner}; who has {MANAGE} may revoke it",
            rule="review.beyond",
        )


def _owned(glob: str, owner: str, now: dict[str, str]) -> bool:
    return wholly(glob) and now.get(glob) == owner


def _revoke(item: ReviewItem, by: str) -> None:
    """As the API does, by the same checks."""
    match item.kind:
        case ReviewItem.Kind.GRANT:
            section = next(one for one in engine.SECTIONS if one.name == "grants")
            engine.remove(section, describe_entry(entry_of(item.about)), actor=by)
        case ReviewItem.Kind.TOKEN:
            tokens.revoke(Token.objects.get(pk=item.about["id"]))
        case ReviewItem.Kind.ACCOUNT:
            section = next(one for one in engine.SECTIONS if one.name == "users")
            stored = section.stored(item.about["user"])[item.about["user"]]
            engine.apply({"users": [{**shown(stored), "inactive": True}]}, actor=by, variables={})


def _settings() -> dict[str, str]:
    row = Setting.objects.filter(name="reviews").first()
    return row.value if row else {}
