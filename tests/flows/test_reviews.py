"""Permission reviews: who has what and what of it is used, decided on by the owners of repositories."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import grants, uses
from accounts.models import Review, ReviewItem, RightUse, Role, Token, User
from accounts.reviews import report
from accounts.reviews.facts import Facts
from repos import hot, reviews, usage
from tests.parts.api import ADMIN, PASSWORD, Api, rule
from tests.parts.browser import Browser
from tests.parts.server import Server

CAST = ("nobody", "outsider", "reader", "olga", "lead", "clerk", "admin", "robot", "expired", "narrowed")
"""Olga owns `site`, the group `team`, which the lead is in, owns `tools`; narrowed is olga's token that may read."""


@pytest.fixture(scope="module")
def world(server):
    here = server()
    here.apply(
        {
            "repositories": [
                {"key": "site", "format": "raw", "kind": "local", "owner": "olga"},
                {"key": "tools", "format": "raw", "kind": "local", "owner": "team"},
                {"key": "misc", "format": "raw", "kind": "local"},
                {"key": "whose", "format": "raw", "kind": "local", "owner": "nobody of this name"},
                {"key": "all", "format": "raw", "kind": "virtual", "members": ["site", "tools"]},
            ],
            "roles": [{"name": "clerk", "permissions": ["user:manage"]}],
            "groups": [{"name": "team"}, {"name": "readers"}, {"name": "empty"}],
            "users": [
                *({"name": name, "password": PASSWORD} for name in ("outsider", "olga", "clerk")),
                {"name": "reader", "password": PASSWORD, "groups": ["readers"]},
                {"name": "lead", "password": PASSWORD, "groups": ["team"]},
                {"name": "robot", "robot": True},
            ],
            "grants": [
                {"role": "owner", "users": ["olga"], "repositories": ["site"]},
                {"role": "owner", "groups": ["team"], "repositories": ["tools"]},
                {"role": "reader", "groups": ["readers"], "repositories": ["site", "all"]},
                {"role": "reader", "groups": ["empty"], "repositories": ["site"]},
                {"role": "developer", "users": ["robot"], "repositories": ["s*"]},
                {"role": "reader", "users": ["robot"], "repositories": ["tools", "misc"]},
                {"role": "clerk", "users": ["clerk"]},
            ],
        }
    )
    made = {}
    for name, *more in (
        ("robot",),
        ("olga", "--scope", "artifact:read@site"),
        ("lead", "--expires", "1h"),
        ("robot", "--scope", "artifact:write@site:a/**"),
        ("reader", "--scope", "artifact:read@s*"),
    ):
        made[(name, *more)] = here.manage("token", "create", name, *more).stdout.split()[-1]
    here.execute("UPDATE accounts_token SET expires_at = created_at WHERE expires_at IS NOT NULL")
    here.made = made
    return here


@pytest.fixture
def fresh(world: Server) -> Callable[[str], int]:
    """Makes a report of an owner now and gives its number."""

    def fresh(owner: str) -> int:
        answer = Api(world).post("reviews/", {"owner": owner})
        assert answer.status == 201, answer
        return json.loads(answer.body)["items"][0]["id"]

    return fresh


def somebody(world: Server, name: str) -> Api:
    logins = {
        "nobody": None,
        "admin": ADMIN,
        "robot": ("x", world.made["robot",]),
        "expired": ("x", world.made["lead", "--expires", "1h"]),
        "narrowed": ("x", world.made["olga", "--scope", "artifact:read@site"]),
    }
    return Api(world, logins.get(name, (name, PASSWORD)))


def items(world: Server, number: int, **asked: str) -> dict[str, dict]:
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    return {item["text"]: item for item in Api(world).items(f"reviews/{number}/?limit=5&{query}")}


def decide(world: Server, cast: str, number: int, item: dict, decision: str, comment: str = ""):
    path = f"reviews/{number}/items/{item['number']}/decision/"
    return somebody(world, cast).put(path, {"decision": decision, "comment": comment})


def events(world: Server, action: str) -> list[dict]:
    rows = world.rows(f"SELECT actor, subject, detail FROM accounts_event WHERE action = '{action}' ORDER BY id")
    return [{"actor": actor, "subject": subject, "detail": detail} for actor, subject, detail in rows]


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.1)
    return False


def test_a_report_has_each_grant_that_reaches_an_owners_repositories_and_no_other(world, fresh):
    of_olga = items(world, fresh("olga"), kind="grant")
    assert set(of_olga) == {
        "owner to user olga on site", "reader to group readers on site", "reader to group empty on site",
        "developer to user robot on s*", "administrator to user admin on *",
    }  # fmt: skip
    of_nobody = items(world, fresh(""), kind="grant")
    assert {"clerk to user clerk", "reader to user robot on misc", "reader to group readers on all"} <= set(of_nobody)
    assert not {"owner to user olga on site", "reader to user robot on tools"} & set(of_nobody)


def test_it_tells_who_has_a_grant_by_which_group(world, fresh):
    number = fresh("olga")
    item = items(world, number)["reader to group readers on site"]
    assert (item["people"], item["people_count"]) == ([{"user": "reader", "through": [{"external": "", "source": ""}]}], 1)
    whole = Api(world).read(f"reviews/{number}/items/{item['number']}/")
    assert whole["people"] == item["people"]
    assert items(world, number)["reader to group empty on site"]["why"] == ["unused", "nobody in the group"]


def test_every_way_of_use_is_kept_of_the_repository_asked_and_the_member_that_answered(world, fresh):
    """By a view, by an answer that is given again, through a virtual repository, by the API."""
    for key, path in (("site", "a/file"), ("tools", "b/file")):
        assert world.request("PUT", f"/raw/{key}/{path}", b"content", user=ADMIN).status == 201
    robot = ("x", world.made["robot",])
    assert world.request("PUT", "/raw/site/a/new", b"content", user=robot).status == 201
    assert world.request("GET", "/raw/all/a/file", user=("reader", PASSWORD)).status == 200
    assert somebody(world, "olga").get("repositories/site/changes/").status == 200

    def used() -> set[tuple]:
        return set(
            world.rows(
                "SELECT username, repository, permission FROM accounts_rightuse JOIN accounts_user ON accounts_user.id = user_id"
            )
        )

    wanted = {
        ("robot", "site", "artifact:write"), ("robot", "site", "artifact:read"), ("reader", "all", "artifact:read"),
        ("reader", "site", "artifact:read"), ("olga", "site", "artifact:read"),
    }  # fmt: skip
    assert eventually(lambda: wanted <= used()), wanted - used()
    assert ("reader", "tools", "artifact:read") not in used()
    found = items(world, fresh("olga"))
    for text in ("developer to user robot on s*", "reader to group readers on site", "owner to user olga on site"):
        assert found[text]["last_used_at"] and "unused" not in found[text]["why"], text
    assert found["reader to group empty on site"]["last_used_at"] is None


TABLE = {
    ("GET", "reviews/"): "401 200 200 200 200 200 200 200 401 200",
    ("POST", "reviews/"): "401 403 403 409 409 201 201 403 401 403",
    ("GET", "reviews/{n}/"): "401 404 404 200 404 200 200 404 401 404",
    ("GET", "reviews/{n}/items/1/"): "401 404 404 200 404 200 200 404 401 404",
    ("PUT", "reviews/{n}/items/1/decision/"): "401 404 404 200 404 200 200 404 401 404",
}


@pytest.mark.parametrize("line", TABLE, ids=" ".join)
def test_an_owner_sees_and_decides_on_their_own_and_who_manages_users_on_all(world, fresh, line):
    number = fresh("olga")
    fresh("team")
    method, path = line
    body = {"PUT": {"decision": "approve"}, "POST": {}}.get(method)
    got = [somebody(world, cast).ask(method, path.format(n=number), body).status for cast in CAST]
    assert got == [int(status) for status in TABLE[line].split()]
    owners = {review["owner"] for review in somebody(world, "lead").items("reviews/")}
    assert owners == {"team"}
    assert somebody(world, "outsider").items("reviews/") == somebody(world, "narrowed").items("reviews/") == []


@pytest.mark.parametrize("path", ["reviews/{}/", "reviews/{}/items/1/", "reviews/{}/items/1/decision/"])
def test_anothers_review_and_none_are_told_alike(world, fresh, path):
    number = fresh("team")
    told = set()
    for one in (number, 999_999):
        method, body = ("PUT", {"decision": "revoke"}) if "decision" in path else ("GET", None)
        answer = somebody(world, "olga").ask(method, path.format(one), body)
        told.add((answer.status, answer.body.replace(str(one).encode(), b"N")))
    assert len(told) == 1 and told.pop()[0] == 404


def test_an_approval_is_kept_with_who_when_and_why(world, fresh):
    number = fresh("olga")
    item = items(world, number)["reader to group readers on site"]
    done = json.loads(decide(world, "olga", number, item, "approve", "they write the guide").body)
    assert (done["decision"], done["decided_by"], done["comment"]) == ("approve", "olga", "they write the guide")
    assert datetime.fromisoformat(done["decided_at"]) <= datetime.now(UTC)
    kept = items(world, number, undecided="false")
    assert list(kept) == ["reader to group readers on site"]
    last = events(world, "review.approve")[-1]
    assert (last["actor"] or "olga", last["subject"]) == ("olga", "reader to group readers on site")
    assert "they write the guide" in str(last["detail"])
    before = len(events(world, "review.approve"))
    assert decide(world, "olga", number, item, "approve").status == 200
    assert len(events(world, "review.approve")) == before, "the same again is no second decision"


def test_what_an_owner_revokes_is_gone_with_the_next_request(world, fresh):
    world.apply(
        {
            "users": [{"name": "guest", "password": PASSWORD}],
            "grants": [{"role": "reader", "users": ["guest"], "repositories": ["site"]}],
        }
    )
    guest = ("guest", PASSWORD)
    assert world.request("PUT", "/raw/site/for/guest", b"x", user=ADMIN).status == 201
    assert world.request("GET", "/raw/site/for/guest", user=guest).status == 200
    number = fresh("olga")
    item = items(world, number)["reader to user guest on site"]
    assert decide(world, "olga", number, item, "revoke", "left").status == 200
    assert world.request("GET", "/raw/site/for/guest", user=guest).status == 404
    assert events(world, "review.revoke")[-1]["subject"] == "reader to user guest on site"
    again = decide(world, "olga", number, item, "approve")
    assert (again.status, rule(again)) == (409, "review.decided")
    assert items(world, number)["reader to user guest on site"]["state"] == "gone"


def test_what_reaches_beyond_an_owners_repositories_only_who_manages_users_takes_back(world, fresh):
    number = fresh("olga")
    beyond = items(world, number)["developer to user robot on s*"]
    refused = decide(world, "olga", number, beyond, "revoke")
    assert (refused.status, rule(refused)) == (403, "review.beyond")
    assert "user:manage" in json.loads(refused.body)["detail"]
    assert items(world, number)["developer to user robot on s*"]["decision"] == ""
    assert decide(world, "olga", number, beyond, "approve").status == 200
    assert decide(world, "clerk", number, beyond, "revoke").status == 200
    assert items(world, number)["developer to user robot on s*"]["state"] == "gone"
    world.apply({"grants": [{"role": "developer", "users": ["robot"], "repositories": ["s*"]}]})


def test_what_is_theirs_is_asked_when_they_decide_and_not_when_it_was_reported(world, fresh):
    world.apply({"grants": [{"role": "reader", "users": ["outsider"], "repositories": ["site"]}]})
    number = fresh("olga")
    item = items(world, number)["reader to user outsider on site"]
    admin = Api(world)
    document = admin.read("repositories/site/")
    assert admin.put("repositories/site/", {**document, "owner": "team"}).status == 200
    assert rule(decide(world, "olga", number, item, "revoke")) == "review.beyond"
    assert admin.put("repositories/site/", document).status == 200
    assert decide(world, "olga", number, item, "revoke").status == 200


def test_what_was_removed_or_changed_since_the_report_is_told_as_such(world, fresh):
    world.apply(
        {
            "roles": [{"name": "visitor", "permissions": ["artifact:read"]}],
            "grants": [{"role": "visitor", "users": ["outsider"], "repositories": ["site", "tools"]}],
        }
    )
    number = fresh("olga")
    item = items(world, number)["visitor to user outsider on site"]
    world.apply({"roles": [{"name": "visitor", "permissions": ["artifact:read", "artifact:delete"]}]})
    assert items(world, number)["visitor to user outsider on site"]["state"] == "changed"
    answer = decide(world, "olga", number, item, "approve")
    assert (answer.status, rule(answer)) == (409, "review.changed")
    Api(world).delete("roles/visitor/")
    answer = decide(world, "olga", number, item, "approve")
    assert (answer.status, rule(answer)) == (409, "review.gone")
    assert decide(world, "olga", number, item, "revoke").status == 200


def test_an_account_that_its_source_suspended_can_be_taken_back_for_good(world, fresh):
    """Else it came back with the next word of the source, though somebody had decided."""
    Api(world).put("users/away/", {})
    long_ago = (timezone.now() - timedelta(days=400)).isoformat(sep=" ")
    world.execute(f"UPDATE accounts_user SET date_joined = '{long_ago}' WHERE username = 'away'")
    everything = fresh("")
    world.execute("UPDATE accounts_user SET is_active = (1 = 0), suspended = (1 = 1) WHERE username = 'away'")
    assert (
        decide(world, "clerk", everything, items(world, everything, kind="account")["the account away"], "revoke").status == 200
    )
    assert Api(world).read("users/away/")["inactive"] is True


def test_tokens_and_accounts_are_reported_and_taken_back(world, fresh):
    number = fresh("olga")
    own = items(world, number, kind="token")
    scopes = {tuple(item["about"]["scopes"]) for item in own.values()}
    assert scopes == {("artifact:read@site",), ("artifact:write@site:a/**",)}, "those that reach beyond are not hers"
    item = next(item for item in own.values() if item["about"]["user"] == "robot")
    assert "never expires" in item["why"]
    secret = world.made["robot", "--scope", "artifact:write@site:a/**"]
    assert Api(world, ("x", secret)).get("me/").status == 200
    assert decide(world, "olga", number, item, "revoke").status == 200
    assert Api(world, ("x", secret)).get("me/").status == 401
    world.apply({"users": [{"name": "idle", "password": PASSWORD}]})
    long_ago = "2020-01-01 00:00:00+00:00"
    world.execute(f"UPDATE accounts_user SET date_joined = '{long_ago}' WHERE username IN ('idle', 'olga')")
    assert eventually(lambda: bool(world.rows("SELECT 1 FROM accounts_rightuse r JOIN accounts_user u ON u.id = r.user_id"
                                              " WHERE u.username = 'olga'")))  # fmt: skip
    everything = fresh("")
    stale = items(world, everything, kind="account")
    assert "the account idle" in stale and "the account olga" not in stale
    assert decide(world, "clerk", everything, stale["the account idle"], "revoke").status == 200
    assert Api(world, ("idle", PASSWORD)).get("me/").status == 401
    assert Api(world).read("users/idle/")["inactive"] is True


def test_the_last_who_manages_users_is_not_revoked(world, fresh):
    number = fresh("")
    found = items(world, number, kind="grant")
    clerk = decide(world, "admin", number, found["clerk to user clerk"], "revoke")
    assert clerk.status == 200
    answer = decide(world, "admin", number, found["administrator to user admin"], "revoke")
    assert (answer.status, rule(answer)) == (409, "users.manager")
    assert items(world, number)["administrator to user admin"]["decision"] == ""
    assert Api(world).get("grants/").status == 200
    world.apply({"grants": [{"role": "clerk", "users": ["clerk"]}]})


@pytest.mark.parametrize(
    ("body", "refused"),
    [({"decision": "perhaps"}, "body.form"), ({}, "body.form"), ({"decision": "approve", "comment": "x" * 1001}, "body.form"),
     ({"decision": "approve", "decided_by": "admin"}, "body.form")],
    ids=str,
)  # fmt: skip
def test_a_decision_that_is_none_is_refused(world, fresh, body, refused):
    number = fresh("olga")
    answer = somebody(world, "olga").put(f"reviews/{number}/items/1/decision/", body)
    assert (answer.status, rule(answer)) == (400, refused)
    assert somebody(world, "olga").put(f"reviews/{number}/items/99999/decision/", {"decision": "approve"}).status == 404


def test_an_owner_is_given_no_second_report_within_the_hour(world, fresh):
    fresh("olga")
    answer = somebody(world, "olga").post("reviews/", {})
    assert (answer.status, rule(answer)) == (409, "review.recent")
    world.execute("UPDATE accounts_review SET made_at = '2026-01-01 00:00:00+00:00' WHERE owner = 'olga'")
    made = somebody(world, "olga").post("reviews/", {})
    assert [review["owner"] for review in json.loads(made.body)["items"]] == ["olga"]
    assert rule(somebody(world, "olga").post("reviews/", {"owner": "team"})) == "user:manage"
    assert rule(Api(world).post("reviews/", {"owner": "outsider"})) == "review.owner"


def test_what_is_undecided_for_long_is_told_to_be_overdue(world, fresh):
    number = fresh("olga")
    assert [review["overdue"] for review in Api(world).items("reviews/?owner=olga") if review["id"] == number] == [False]
    world.execute(f"UPDATE accounts_review SET made_at = '2020-01-01 00:00:00+00:00' WHERE id = {number}")
    review = next(one for one in somebody(world, "olga").items("reviews/?undecided=true") if one["id"] == number)
    assert review["overdue"] and review["undecided"] == review["count"]
    assert f"review {number} of olga" in world.manage("review", "--list").stdout


def test_they_come_round_when_the_configuration_says_how_often(world):
    before = world.query("SELECT count(*) FROM accounts_review")[0]
    assert Api(world).put("reviews/settings/", {"every": "0d"}).status == 400
    assert Api(world).put("reviews/settings/", {"every": "90d", "unused": "30d", "stale": "60d"}).status == 200
    world.execute("UPDATE accounts_review SET made_at = '2026-01-01 00:00:00+00:00'")
    done = world.manage("shell", "-c", "from repos import reviews; print(len(reviews.come_round()), len(reviews.come_round()))")
    assert done.stdout.split()[-2:] == ["3", "0"], "one for each owner and the installation, and no second one before its time"
    assert world.query("SELECT count(*) FROM accounts_review")[0] == before + 3
    assert world.query("SELECT unused, stale, made_by FROM accounts_review ORDER BY id DESC LIMIT 1") == ("30d", "60d", "")
    assert Api(world).put("reviews/settings/", {}).status == 200


def test_the_command_makes_and_shows_them(world):
    made = world.manage("review", "--owner", "team").stdout
    assert made.startswith("review ") and " of team at " in made
    shown = world.manage("review", "--show", made.split()[1]).stdout
    assert "owner to group team on tools, 1 people" in shown
    assert world.manage("review", "--show", "999999", check=False).returncode == 1


def signed_in(world: Server, name: str) -> Browser:
    browser = Browser(world)
    assert browser.sign_in(name, PASSWORD).status == 303
    return browser


def test_an_owner_decides_on_the_pages(world, fresh):
    world.apply({"grants": [{"role": "reader", "users": ["outsider"], "repositories": ["site"]}]})
    number = fresh("olga")
    item = items(world, number)["reader to user outsider on site"]
    action = f"/ui/reviews/{number}/items/{item['number']}/"
    olga = signed_in(world, "olga")
    assert f"Review {number}" in olga.get("/ui/reviews/").text
    page = olga.get(f"/ui/reviews/{number}/")
    assert "reader to user outsider on site" in page.text
    done = olga.send(page, action, {"decision": "approve", "comment": "for now <b>"})
    assert done.status == 303 and done.location.endswith(f"#item-{item['number']}")
    shown = olga.go(done)
    assert "Approved by olga" in shown.text and "for now <b>" in shown.text and b"<b>" not in shown.body
    assert olga.send(olga.get(f"/ui/reviews/{number}/"), action, {"decision": "revoke"}).status == 303
    assert items(world, number)["reader to user outsider on site"]["state"] == "gone"
    beyond = items(world, number)["administrator to user admin on *"]
    refused = olga.send(olga.get(f"/ui/reviews/{number}/"), f"/items/{beyond['number']}/", {"decision": "revoke"})
    assert refused.status == 403 and "reaches beyond the repositories of olga" in refused.text
    assert olga.ask("POST", action, {"decision": "approve"}).status == 403, "without the page's own form it is forged"
    assert olga.send(olga.get("/ui/reviews/"), "/ui/reviews/").status == 409


def test_the_pages_tell_anothers_review_and_none_alike(world, fresh):
    number = fresh("olga")
    assert Browser(world).get("/ui/reviews/").status == Browser(world).get(f"/ui/reviews/{number}/").status == 303
    outsider = signed_in(world, "outsider")
    assert "There is none that you may see" in outsider.get("/ui/reviews/").text
    pages = [outsider.get(f"/ui/reviews/{one}/") for one in (number, 999_999, 10**30)]
    assert {(page.status, page.text) for page in pages} == {(404, pages[0].text)}
    form = outsider.get("/ui/reviews/").form("/ui/reviews/")
    assert outsider.ask("POST", f"/ui/reviews/{number}/items/1/", {**form.fields, "decision": "approve"}).status == 404
    assert outsider.send(outsider.get("/ui/reviews/"), "/ui/reviews/").status == 403


# In the test's own process


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_is_given_again_uses_the_rights_by_which_it_was_given():
    """Also an hour later, when no view has been asked since."""
    user = User.objects.create_user("ann")
    uses.forget()
    fact = ("user", user.pk, 0)
    use = uses.Use(user.pk, "here", "artifact:read")
    answer = hot.Answer(hot.Basis(frozenset({fact}), None, uses=(use,)), b"", b"", 0)
    assert hot.current([answer]) == [True]
    uses.flush()
    assert list(RightUse.objects.values_list("user_id", "repository", "permission")) == [tuple(use)]
    gone = hot.Answer(hot.Basis(frozenset({("user", 10**6, 0)}), None, uses=(use._replace(repository="there"),)), b"", b"", 0)
    assert hot.current([gone]) == [False]
    uses.flush()
    assert not RightUse.objects.filter(repository="there").exists()
    uses.forget()


@pytest.mark.django_db(transaction=True)
def test_ten_thousand_grants_and_a_thousand_users_are_few_queries():
    usage.flush()
    users = User.objects.bulk_create(User(username=f"user-{n}", password="!") for n in range(1000))
    teams = Group.objects.bulk_create(Group(name=f"team-{n}") for n in range(100))
    through = User.groups.through
    through.objects.bulk_create(
        through(user_id=user.pk, group_id=teams[(n * 7 + k) % 100].pk) for n, user in enumerate(users) for k in range(10)
    )
    now = timezone.now()
    RightUse.objects.bulk_create(
        RightUse(user=user, repository=f"repo-{(n + k) % 200}", permission="artifact:read", last_used_at=now - timedelta(days=k))
        for n, user in enumerate(users) for k in range(5)
    )  # fmt: skip
    Token.objects.bulk_create(Token(digest=f"{n:064}", prefix="ent_", user=user, created_at=now) for n, user in enumerate(users))
    many_grants(users, teams)
    owners = {f"repo-{n}": "" for n in range(200)}
    with CaptureQueriesContext(connection) as captured:
        review = report.make(Facts(owners, now), "", unused="90d", stale="180d", made_by="")
    items = ReviewItem.objects.filter(review=review)
    assert items.filter(kind="grant").count() == 10_000
    assert items.filter(kind="token").count() == 1000
    reads = [query["sql"] for query in captured if query["sql"].startswith("SELECT")]
    assert len(reads) < 15, reads
    assert len(captured) - len(reads) < 200, "items are written many at once"
    sample = items.get(about__name="team-3", about__repository="repo-17", about__role="reader")
    assert len(reviews.people(Review.objects.get(pk=review.pk), sample)) == 100


def many_grants(users: list[User], teams: list[Group]) -> None:
    """As `grants.add` would store them, ten thousand of them."""
    from accounts.models import Target, TargetGroupObjectPermission, TargetUserObjectPermission

    permission = Role.objects.get(name="reader").permission
    targets = Target.objects.bulk_create(Target(repository=f"repo-{n}") for n in range(90))
    TargetGroupObjectPermission.objects.bulk_create(
        TargetGroupObjectPermission(group=team, permission=permission, content_object=target)
        for team in teams for target in targets
    )  # fmt: skip
    glob = Target.objects.create(repository="repo-*")
    TargetUserObjectPermission.objects.bulk_create(
        TargetUserObjectPermission(user=user, permission=permission, content_object=glob) for user in users
    )
    assert len(grants.entries()) == 10_000
