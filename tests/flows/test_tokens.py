"""Tokens that end soon say so to who uses them, and the list finds them."""

from __future__ import annotations

import json

import pytest

from tests.parts.api import ADMIN, Api, rule
from tests.parts.server import Server

HEADER = "X-Entrepot-Token-Expires"


@pytest.fixture(scope="module")
def world(server) -> Server:
    here = server(ENTREPOT_WORKERS="1")
    here.apply(
        {
            "repositories": [{"key": "files", "format": "raw", "kind": "local"}],
            "users": [{"name": "ci", "robot": True}],
            "grants": [{"role": "reader", "users": ["ci"], "repositories": ["files"]}],
        }
    )
    assert here.request("PUT", "/raw/files/a", b"content\n", user=ADMIN).status == 201
    return here


def made(world: Server, *, soon: bool) -> dict:
    token = json.loads(Api(world).post("tokens/", {"user": "ci", "expires_at": "2099-01-01T00:00:00.5Z"}).body)
    if soon:
        world.execute(f"UPDATE accounts_token SET warn_at = created_at WHERE id = {token['id']}")
    return token


@pytest.mark.parametrize("path", ["/raw/files/a", "/raw/files/not-there", "/api/v1/me/", "/api/v1/roles/", "/v2/token"])
def test_who_uses_a_token_that_ends_soon_is_told_when(world, path):
    soon, later = made(world, soon=True), made(world, soon=False)
    for sent in ({"Authorization": f"Bearer {soon['secret']}"}, world.authorization(("x", soon["secret"]))):
        assert world.request("GET", path, headers=sent).headers[HEADER] == "2099-01-01T00:00:00Z"
    assert HEADER not in world.request("GET", path, headers={"Authorization": f"Bearer {later['secret']}"}).headers
    assert HEADER not in world.request("GET", path, user=ADMIN).headers
    assert HEADER not in world.request("GET", path).headers


def test_it_is_not_in_answers_that_are_kept_and_given_again(world):
    secret = made(world, soon=True)["secret"]
    told = [HEADER in world.request("GET", "/raw/files/a", user=("x", secret)).headers for _ in range(5)]
    assert told[0] and not told[-1], "the first is a view's, the last is given again"


def test_the_list_tells_them_apart(world):
    api = Api(world)
    soon, later, revoked, expired = (made(world, soon=one)["id"] for one in (True, False, True, True))
    api.delete(f"tokens/{revoked}/")
    world.execute(f"UPDATE accounts_token SET expires_at = created_at WHERE id = {expired}")

    def listed(query: str) -> set[int]:
        return {item["id"] for item in api.items(f"tokens/?user=ci&limit=2&{query}")} & {soon, later, revoked, expired}

    assert listed("") == {soon, later, revoked, expired}
    assert listed("state=active") == {soon, later}
    assert listed("state=expired") == {expired}
    assert listed("state=revoked") == {revoked}
    assert listed("expiring=true") == {soon}
    assert listed("expiring=true&state=revoked") == set()
    told = {number: api.read(f"tokens/{number}/")["expires_soon"] for number in (soon, later, revoked, expired)}
    assert told == {soon: True, later: False, revoked: False, expired: False}
    assert rule(api.get("tokens/?state=other")) == rule(api.get("tokens/?expiring=false")) == "parameter"


def test_the_hourly_job_has_the_audit_tell_of_it_once(world):
    number = made(world, soon=True)["id"]
    for _ in range(2):
        world.manage("job", "run", "tokens", "--wait")
    rows = world.rows("SELECT detail FROM accounts_event WHERE action = 'token.expiring'")
    details = [json.loads(row[0]) if isinstance(row[0], str) else row[0] for row in rows]
    assert [detail["token"] for detail in details].count(number) == 1


def test_the_audit_tells_of_each_token_that_is_made_and_ended(world):
    token = made(world, soon=False)
    Api(world).delete(f"tokens/{token['id']}/")
    rows = world.rows("SELECT action, subject, detail FROM accounts_event ORDER BY id DESC LIMIT 2")
    assert [row[:2] for row in rows] == [("token.revoke", "ci"), ("token.create", "ci")]
    assert token["secret"] not in str(rows)


def test_a_robot_that_is_given_a_password_is_refused(world):
    answer = Api(world).put("users/ci/", {"robot": True, "password": "a password for a robot"})
    assert (answer.status, rule(answer)) == (400, "configuration.form")
    assert "a robot has none" in json.loads(answer.body)["detail"]
    assert world.request("GET", "/api/v1/me/", user=("ci", "a password for a robot")).status == 401
