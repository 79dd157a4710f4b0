"""`explain` tells what the gate does, to whom it may be told."""

from __future__ import annotations

import base64
import itertools
import json
import random
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts import epoch, tokens, uses
from accounts.models import User
from repos import catalogue, explain
from repos.caller import open_to
from repos.configuration import engine
from repos.explain import Asker
from tests.parts.api import ADMIN, PASSWORD, Api, rule
from tests.parts.browser import Browser

FILES = ("a/one", "b/two")
KEYS = ("left", "right", "cache", "both", "sealed")
"""Two local repositories, a remote, a virtual of all three that takes uploads into `left`, and one that takes none."""
VERBS = {"read": "GET", "write": "PUT", "delete": "DELETE"}


@pytest.fixture
def house(db, repository):
    repository("raw", "left")
    repository("raw", "right")
    repository("raw", "cache", "remote", upstreams=[{"url": "http://127.0.0.1:9"}])
    repository("raw", "both", "virtual", members=["left", "right", "cache"], deploy_to="left")
    repository("raw", "sealed", "virtual", members=["right"])
    engine.apply({"groups": [{"name": "team"}], "users": [{"name": "ann", "groups": ["team"]}, {"name": "bob"}]})
    uses.forget()
    yield Client()
    uses.forget()


def some_grants(dice: random.Random) -> list[dict]:
    subjects = ({"users": ["ann"]}, {"groups": ["team"]}, {"authenticated": True}, {"anonymous": True}, {"users": ["bob"]})
    places = (["*"], ["left"], ["right", "both"], ["b*"], ["both", "left"], ["sealed", "right"], ["cache", "both"])
    paths = ({}, {"paths": ["a/**"]}, {"paths": ["b/*"]}, {"paths": ["**"]})
    return [
        {"role": dice.choice(("reader", "developer", "owner")), "repositories": dice.choice(places),
         **dice.choice(subjects), **dice.choice(paths)}
        for _ in range(dice.randint(1, 4))
    ]  # fmt: skip


def some_scopes(dice: random.Random) -> list[str] | None:
    if dice.random() < 0.4:
        return None
    words = [f"artifact:{word}" for word in VERBS]
    where = ("@*", "@left", "@both", "@b*:a/**", "@*:b/two", "@right")
    return [dice.choice(words) + dice.choice(where) for _ in range(dice.randint(1, 4))]


def gate_lets_in(client: Client, secret: str | None, verb: str, key: str, path: str) -> bool:
    """What really happens: there is nothing at the paths, so who is let in to read is told what is absent in words of its own."""
    login = {"authorization": "Basic " + base64.b64encode(f"x:{secret}".encode()).decode()} if secret else {}
    answer = client.generic(VERBS[verb], f"/raw/{key}/{path}", b"content" if verb == "write" else b"", headers=login)
    if verb == "read":
        return answer.status_code == 200
    return answer.status_code in (201, 204)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("seed", range(8))
def test_its_verdict_is_what_the_gate_does(house, seed):
    """Of random grants, scopes and actors: every repository, action and file."""
    dice = random.Random(seed)
    engine.apply({"grants": [{"role": "owner", "users": ["bob"], "repositories": ["**"]}]})
    _, keeper = tokens.create(User.objects.get(username="bob"))
    for _ in range(3):
        engine.apply({"grants": some_grants(dice)}, prune=True)
        engine.apply({"users": [{"name": "ann", "groups": ["team"], "inactive": dice.random() < 0.1}]})
        asks = [("anonymous", None, None)]
        for name in ("ann", "bob"):
            user = User.objects.get(username=name)
            if user.is_active:
                asks.append((name, *tokens.create(user, scopes=some_scopes(dice))))
        for (name, token, secret), verb, key, path in itertools.product(asks, VERBS, KEYS, FILES):
            there = stand(key, path)
            number = epoch.current()
            repositories = catalogue.repositories(number)
            who = explain.somebody(name, number, open_to("testserver", repositories), token)
            told = explain.ask(Asker(), who, verb, key, path, repositories.values())
            really = gate_lets_in(house, secret, verb, key, path)
            if verb == "read" and told.allowed and not really:
                # let in, and behind a virtual one the members that they may read do not hold it
                readable = {member.repository for member in told.members if member.allowed} or {key}
                assert not readable & there, (seed, name, verb, key, path, told)
                continue
            assert told.allowed is really, (seed, name, token and token.scopes, verb, key, path, told)
    assert keeper


def stand(key: str, path: str) -> set[str]:
    """See to it that the file stands in both local repositories; where it does."""
    from repos.models import Repository
    from tests.flows.test_commit import put

    for local in ("left", "right"):
        repo = catalogue.load_one(Repository.objects.get(key=local))
        put(repo, {path: b"content"})
    return {"left", "right"}


@pytest.mark.django_db(transaction=True)
def test_it_takes_few_queries_however_much_is_granted(house):
    def queries() -> int:
        number = epoch.current()
        repositories = catalogue.repositories(number)
        with CaptureQueriesContext(connection) as captured:
            who = explain.somebody("ann", number)
            assert explain.ask(Asker(), who, "read", "both", "a/one", repositories.values()).allowed
        return len(captured)

    engine.apply({"grants": [{"role": "reader", "groups": ["team"], "repositories": ["both", "left"]}]})
    few = queries()
    engine.apply({"groups": [{"name": f"g{n}"} for n in range(50)]})
    engine.apply({"users": [{"name": "ann", "groups": ["team", *(f"g{n}" for n in range(50))]}],
                  "grants": [{"role": "reader", "groups": [f"g{n}" for n in range(50)], "repositories": ["**"]}]})  # fmt: skip
    assert queries() <= few + 4 <= 20


# Who is told what, on a live server

CAST = ("nobody", "outsider", "reader", "owner", "clerk", "admin", "robot", "expired", "narrowed")


@pytest.fixture(scope="module")
def world(server):
    here = server()
    here.apply(
        {
            "repositories": [
                *({"key": key, "format": "raw", "kind": "local"} for key in ("here", "secret")),
                {"key": "all", "format": "raw", "kind": "virtual", "members": ["here", "secret"], "deploy_to": "secret"},
                {"key": "far", "format": "raw", "kind": "remote", "upstreams": [{"url": "http://127.0.0.1:9"}]},
            ],
            "roles": [{"name": "clerk", "permissions": ["user:manage"]}],
            "groups": [{"name": "team", "external": ["sso:team-a"]}],
            "users": [
                *({"name": name, "password": PASSWORD} for name in ("outsider", "reader", "owner", "clerk", "gone", "carl")),
                {"name": "robot", "robot": True},
            ],
            "grants": [
                {"role": "reader", "users": ["reader"], "repositories": ["here", "all", "far"]},
                {"role": "reader", "groups": ["team"], "repositories": ["here"], "paths": ["docs/**"]},
                {"role": "developer", "users": ["robot"], "repositories": ["here"]},
                {"role": "owner", "users": ["owner"], "repositories": ["here"]},
                {"role": "reader", "users": ["carl"], "repositories": ["secret"]},
                {"role": "clerk", "users": ["clerk"]},
            ],
        }
    )
    here.apply({"users": [{"name": "gone", "inactive": True}]})
    made = {}
    for name, *more in (("robot",), ("reader", "--scope", "artifact:read@here:a/**"), ("owner", "--expires", "1h")):
        made[name] = here.manage("token", "create", name, *more).stdout.split()[-1]
    here.execute("UPDATE accounts_token SET expires_at = created_at WHERE expires_at IS NOT NULL")
    here.made = made
    user, moment = here.query("SELECT id FROM accounts_user WHERE username = 'outsider'")[0], "2026-01-01 00:00:00+00:00"
    here.execute(
        "INSERT INTO accounts_externalidentity (user_id, source, issuer, subject, name, seen_at)"
        f" VALUES ({user}, 'corp', 'https://sso.example.org', '7', '', '{moment}')"
    )
    here.execute(
        "INSERT INTO accounts_externalmembership (identity_id, name) SELECT id, 'sso:team-a' FROM accounts_externalidentity"
    )
    here.execute("UPDATE accounts_epoch SET number = number + 1")
    return here


def somebody(world, name: str) -> Api:
    logins = {"nobody": None, "admin": ADMIN, "robot": ("x", world.made["robot"]), "expired": ("x", world.made["owner"]),
              "narrowed": ("x", world.made["reader"])}  # fmt: skip
    return Api(world, logins.get(name, (name, PASSWORD)))


def ask(world, cast: str, **question: str):
    return somebody(world, cast).get(f"explain/?{urlencode(question)}")


def told(world, cast: str, **question: str) -> dict:
    answer = ask(world, cast, **question)
    assert answer.status == 200, answer
    return json.loads(answer.body)


@pytest.mark.parametrize(
    ("question", "statuses"),
    [
        ({"action": "read", "repository": "here"}, "401 200 200 200 200 200 200 401 200"),
        ({"action": "read", "repository": "here", "user": "anonymous"}, "401 200 200 200 200 200 200 401 200"),
        ({"action": "read", "repository": "here", "user": "carl"}, "401 403 403 200 200 200 403 401 403"),
        ({"action": "read", "repository": "secret", "user": "carl"}, "401 403 403 403 200 200 403 401 403"),
        ({"action": "user:manage", "user": "carl"}, "401 403 403 403 200 200 403 401 403"),
        ({"action": "read", "repository": "here", "user": "nosuch"}, "401 403 403 404 404 404 403 401 403"),
        ({"action": "read", "repository": "here", "token": "999999"}, "401 404 404 404 404 404 404 401 404"),
    ],
    ids=str,
)
def test_of_oneself_everybody_is_told_and_of_others_who_manages_them_or_the_repository(world, question, statuses):
    assert [ask(world, cast, **question).status for cast in CAST] == [int(status) for status in statuses.split()]


@pytest.mark.parametrize("cast", ["outsider", "reader", "owner", "clerk", "robot", "narrowed"])
@pytest.mark.parametrize("path", ["", "a/file"])
@pytest.mark.parametrize("action", ["read", "write", "delete", "overwrite", "manage"])
def test_a_private_repository_and_none_are_told_alike(world, cast, path, action):
    about = {"user": "owner"} if cast == "clerk" else {}
    answers = [ask(world, cast, action=action, repository=key, path=path, **about) for key in ("secret", "no-such")]
    assert answers[0].status == 200
    assert answers[0].body.replace(b"secret", b"N") == answers[1].body.replace(b"no-such", b"N")
    assert not json.loads(answers[0].body)["allowed"]


def test_what_is_behind_a_virtual_repository_is_not_told_by_name_to_who_may_not_see_it(world):
    for action in ("read", "write", "delete"):
        assert b"secret" not in ask(world, "reader", action=action, repository="all", path="a").body
        assert b"secret" in ask(world, "admin", action=action, repository="all", path="a", user="reader").body


def test_who_manages_a_repository_is_told_of_others_what_they_have_on_it_and_nothing_else(world):
    assert "secret" not in json.dumps(told(world, "owner", action="read", repository="here", user="carl"))
    assert "secret" in json.dumps(told(world, "clerk", action="read", repository="here", user="carl"))


def test_a_grant_is_told_with_whom_it_is_to_and_by_what_they_are_among_those(world):
    found = told(world, "outsider", action="read", repository="here", path="docs/guide")
    assert found["allowed"]
    (grant,) = found["steps"][0]["grants"]
    assert (grant["role"], grant["to"], grant["name"]) == ("reader", "group", "team")
    assert (grant["repositories"], grant["paths"]) == ("here", "docs/**")
    assert grant["through"] == [{"external": "sso:team-a", "source": "corp"}]
    assert grant["text"] == "reader to group team on here at docs/**, through sso:team-a of corp"


def test_what_is_missing_is_told_with_what_is_nearest(world):
    found = told(world, "outsider", action="read", repository="here", path="code/x")
    assert (found["allowed"], found["why"]) == (
        False, "no grant has artifact:read on here at code/x; the role reader does, granted there")  # fmt: skip
    assert [grant["paths"] for grant in found["steps"][0]["near"]] == ["docs/**"]
    assert "the role developer does" in told(world, "reader", action="write", repository="here")["why"]
    assert "the role owner does" in told(world, "reader", action="manage", repository="here")["why"]
    assert "the role administrator does" in told(world, "reader", action="system:manage")["why"]
    assert told(world, "admin", action="system:manage")["steps"][0]["grants"][0]["role"] == "administrator"


def test_a_scope_that_is_missing_is_told_beside_the_grant_that_is_there(world):
    found = told(world, "narrowed", action="read", repository="here", path="a/file")
    assert (found["allowed"], found["steps"][0]["scopes"]) == (True, ["artifact:read@here:a/**"])
    found = told(world, "narrowed", action="read", repository="here", path="b/file")
    assert found["why"] == "no scope of the token has artifact:read on here at b/file; a grant would allow it"
    assert found["steps"][0]["grants"] and found["steps"][0]["scopes"] == []
    answer = ask(world, "narrowed", action="read", repository="here", scope="artifact:read@*")
    assert (answer.status, rule(answer)) == (403, "token.scopes")
    narrowed = told(world, "reader", action="read", repository="here", path="a", scope="artifact:read@here:b")
    assert "no scope of the token" in narrowed["why"]


def test_who_cannot_sign_in_is_told_to_be_so(world):
    assert (
        told(world, "clerk", action="read", repository="here", user="gone")["why"]
        == "gone is inactive: an administrator made them so"
    )
    (number,) = world.query("SELECT id FROM accounts_token WHERE expires_at IS NOT NULL")
    found = told(world, "owner", action="read", repository="here", token=str(number))
    assert not found["allowed"] and f"token {number} expired at " in found["why"]
    other = ask(world, "reader", action="read", repository="here", token=str(number))
    assert other.status == 404


def test_what_takes_no_writes_is_told_by_the_rule_that_refuses_them(world):
    found = told(world, "admin", action="write", repository="far", user="admin")
    assert found["why"] == "far is a remote repository and takes no uploads; use a local one (rule: repository.kind)"
    found = told(world, "admin", action="write", repository="all", path="a", user="admin")
    assert [(step["permission"], step["repository"]) for step in found["steps"]] == [
        ("artifact:read", "all"), ("artifact:write", "secret")]  # fmt: skip
    assert told(world, "admin", action="read", repository="nosuch")["why"] == "there is no repository nosuch"


def test_a_virtual_repository_is_told_member_by_member(world):
    found = told(world, "clerk", action="read", repository="here", user="reader")
    assert found["allowed"] and not found["members"]
    found = told(world, "admin", action="read", repository="all", path="a", user="reader")
    assert [(member["repository"], member["allowed"]) for member in found["members"]] == [("here", True), ("secret", False)]
    world.apply({"grants": [{"role": "reader", "users": ["carl"], "repositories": ["all"]}]})
    assert told(world, "admin", action="read", repository="all", user="carl")["allowed"]
    world.apply({"grants": [{"role": "reader", "users": ["gone", "robot"], "repositories": ["all"]}]})
    nothing = world.manage("explain", "robot", "read", "all", "a", "--format", "json", check=False)
    assert nothing.returncode == 0 and json.loads(nothing.stdout)["allowed"]


def test_a_path_is_taken_as_an_artefact_or_a_package(world):
    world.apply({"repositories": [{"key": "modules", "format": "go", "kind": "local"}]})
    for path, kind in (("corp.example/lib/@v/v1.0.0.zip", "artefact"), ("corp.example/lib", "package")):
        found = told(world, "admin", action="read", repository="modules", path=path)
        assert (found["package"], found["path_is"]) == ("corp.example/lib", kind)


@pytest.mark.parametrize(
    ("question", "refused"),
    [
        ({"action": "fly", "repository": "here"}, "explain.action"),
        ({"action": "read"}, "explain.repository"),
        ({"action": "user:manage", "repository": "here"}, "explain.repository"),
        ({"action": "read", "repository": "here", "path": "a/../b"}, "path.segment"),
        ({"action": "read", "repository": "here", "scope": "nonsense"}, ""),
        ({"action": "read", "repository": "here", "user": "anonymous", "scope": "artifact:read@*"}, "explain.token"),
        ({"repository": "here"}, "parameter"),
    ],
    ids=str,
)
def test_a_question_that_makes_no_sense_is_refused(world, question, refused):
    answer = ask(world, "admin", **question)
    assert (answer.status, rule(answer)) == (400, refused)


def test_the_command_tells_the_same(world):
    done = world.manage("explain", "outsider", "read", "here", "docs/guide")
    assert done.stdout.splitlines() == [
        "may", "  docs/guide is taken for a package's name", "  artifact:read on here: yes",
        "    by reader to group team on here at docs/**, through sso:team-a of corp",
    ]  # fmt: skip
    done = world.manage("explain", "outsider", "delete", "here", check=False)
    assert done.returncode == 1 and done.stdout.startswith("may not: no grant has artifact:delete on here")
    assert world.manage("explain", "nosuch", "read", "here", check=False).returncode == 2
    loopback = json.loads(world.manage("explain", "anonymous", "read", "raw-local", "--format", "json").stdout)
    assert loopback["steps"][0]["grants"][0]["text"] == "open, for as long as only this machine can ask"


def signed_in(world, name: str) -> Browser:
    browser = Browser(world)
    assert browser.sign_in(name, PASSWORD).status == 303
    return browser


def test_the_page_tells_the_same_and_to_the_same(world):
    assert Browser(world).get("/ui/explain/").status == 303
    outsider = signed_in(world, "outsider")
    page = outsider.get("/ui/explain/")
    assert page.status == 200 and "Who may what" in page.text
    page = outsider.get("/ui/explain/?action=read&repository=here&path=docs/guide")
    assert "outsider may." in page.text and "reader to group team on here at docs/**, through sso:team-a of corp" in page.text
    private, absent = (outsider.get(f"/ui/explain/?action=read&repository={key}") for key in ("secret", "no-such"))
    assert private.text.replace("secret", "N") == absent.text.replace("no-such", "N")
    assert "outsider may not." in private.text
    refused = outsider.get("/ui/explain/?action=read&repository=here&user=carl")
    assert refused.status == 403 and "about others it takes user:manage" in refused.text
    assert "carl may not." in signed_in(world, "clerk").get("/ui/explain/?action=read&repository=here&user=carl").text
    assert outsider.get("/ui/explain/?action=fly&repository=here").status == 400
    for odd in ("user=%00", "path=%00", "repository=%00", "token=%D9%A1", "token=99999999999999999999"):
        assert signed_in(world, "clerk").get(f"/ui/explain/?action=read&repository=here&{odd}").status in (200, 400, 404), odd
    script = outsider.get("/ui/explain/?action=read&repository=%3Cscript%3E&path=%3Cb%3E")
    assert b"<script>" not in script.body and b"<b>" not in script.body


def test_the_page_takes_no_write(world):
    assert signed_in(world, "outsider").ask("POST", "/ui/explain/", {"action": "read"}).status == 405
