"""Jobs without a secret: a token that their own system signed is exchanged for a short-lived one of a robot."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from tests.parts.api import Api, rule
from tests.parts.issuer import EC, GITHUB, GITLAB, KUBERNETES, OTHER_RSA, RSA, WELL_KNOWN, Issuer, key_set
from tests.parts.server import Answer, Server

JWT = "urn:ietf:params:oauth:token-type:jwt"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
CLUSTER = "https://kubernetes.default.svc.cluster.local"
READ, WRITE = "artifact:read@files", "artifact:write@files:corp/**"


@dataclass
class World:
    server: Server
    issuer: Issuer

    def exchange(self, token: str, **parameters: Any) -> Answer:
        said = {"grant_type": GRANT, "subject_token_type": JWT, "subject_token": token, **parameters}
        body = urlencode({name: value for name, value in said.items() if value is not None})
        return self.server.request("POST", "/api/v1/exchange/", body.encode(), FORM)

    def given(self, token: str, **parameters: Any) -> dict[str, Any]:
        answer = self.exchange(token, **parameters)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def tokens(self) -> int:
        return self.server.query("SELECT count(*) FROM accounts_token")[0]

    def told(self, why: str) -> tuple[str, dict[str, Any]]:
        """The subject and the detail of a refusal that the audit gives this reason for, which it writes before long."""
        deadline = time.monotonic() + 60
        while not (found := [(subject, detail) for refused, subject, detail in self.events() if why in detail.get("why", "")]):
            assert time.monotonic() < deadline, why
            time.sleep(0.05)
        return found[-1]

    def events(self) -> list[tuple[bool, str, dict[str, Any]]]:
        rows = self.server.rows("SELECT refused, subject, detail FROM accounts_event WHERE action = 'token.exchange' ORDER BY id")
        return [(bool(one), subject, json.loads(detail) if isinstance(detail, str) else detail) for one, subject, detail in rows]

    def refusal(self, why: str) -> tuple[bool, str, dict[str, Any]]:
        """The audit's line of an exchange that was refused for this, which is written before long."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for line in self.events():
                if line[0] and why in line[2]["why"]:
                    return line
            time.sleep(0.1)
        raise AssertionError(self.events())


def trust(issuer: Issuer, **more: Any) -> dict[str, Any]:
    return {"issuer": issuer.url, "audience": "entrepot", "ca": issuer.ca, "robot": "ci", **more}


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    one = Issuer(tmp_path_factory.mktemp("issuer"))
    yield one
    one.stop()


@pytest.fixture(scope="module")
def world(server, issuer) -> World:
    here = server()
    here.apply(
        {
            "repositories": [{"key": "files", "format": "raw", "kind": "local"}],
            "users": [
                {"name": "ci", "robot": True},
                {"name": "gone", "robot": True, "inactive": True},
                *({"name": name, "robot": True} for name in ("gitlab", "cluster", "both", "other")),
            ],
            "grants": [{"role": "developer", "users": ["ci", "gitlab", "cluster", "both", "other"], "repositories": ["files"]}],
            "trusts": [
                trust(issuer, claims={"repository": "corp/*", "ref": "refs/heads/main"}, lifetime="15m"),
                trust(
                    issuer, name="gitlab", robot="gitlab", audience="https://entrepot.example.org", lifetime="1h",
                    claims={"project_path": "corp/app", "ref_protected": True, "groups_direct": "corp/releasers",
                            "project_id": [21, 22]},
                ),
                {
                    "name": "cluster", "issuer": CLUSTER, "audience": "entrepot", "robot": "cluster", "keys": key_set(k=EC),
                    "claims": {"kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "build*"}}},
                },
                trust(issuer, name="narrow", robot="both", claims={"repository": "two/*"}, scopes=[READ, WRITE]),
                trust(issuer, name="wide", robot="both", claims={"repository": "two/app"}),
                trust(issuer, name="third", robot="other", claims={"sub": "*:two/app:**"}),
                trust(issuer, name="gone", robot="gone", claims={"repository": "gone/*"}),
            ],
        }
    )  # fmt: skip
    return World(here, issuer)


def test_a_job_without_a_secret_publishes_what_its_robot_may(world):
    told = world.given(world.issuer.token(GITHUB))
    assert (told["token_type"], told["issued_token_type"]) == ("Bearer", "urn:ietf:params:oauth:token-type:access_token")
    assert 890 <= told["expires_in"] <= 900
    bearer = {"Authorization": f"Bearer {told['access_token']}"}
    assert world.server.request("PUT", "/raw/files/corp/app.tar", b"made by a job\n", bearer).status == 201
    assert world.server.request("GET", "/raw/files/corp/app.tar", user=("any", told["access_token"])).body == b"made by a job\n"
    assert world.server.query("SELECT actor FROM repos_change ORDER BY id DESC LIMIT 1") == ("ci",)
    assert "access_token" not in world.server.log() and told["access_token"] not in world.server.log()


def test_the_token_tells_which_trust_and_which_job_and_the_audit_too(world):
    told = world.given(world.issuer.token(GITHUB, run_id="777"))
    me = json.loads(world.server.request("GET", "/api/v1/me/", user=("x", told["access_token"])).body)
    token = Api(world.server).read(f"tokens/{me['token']['id']}/")
    assert token["name"] == "repo:corp/app:ref:refs/heads/main 777"
    assert token["trust"].startswith("ci@127.0.0.1-") and token["user"] == "ci"
    assert not token["expires_soon"]
    refused, subject, detail = next(event for event in world.events() if event[2].get("token") == token["id"])
    assert (refused, subject, detail["sub"]) == (False, "ci", GITHUB["sub"])
    assert (detail["trust"], detail["issuer"], detail["run_id"]) == (token["trust"], world.issuer.url, "777")


def test_jobs_of_the_second_kind_by_lists_numbers_and_true(world):
    told = world.given(world.issuer.token(GITLAB, aud="https://entrepot.example.org"))
    assert 3590 <= told["expires_in"] <= 3600
    for near in ({"ref_protected": "false"}, {"groups_direct": ["corp/everybody"]}, {"project_id": "220"}):
        assert world.exchange(world.issuer.token(GITLAB, aud="https://entrepot.example.org", **near)).status == 400


def test_pods_by_their_service_account_with_keys_that_nobody_is_asked_for(world):
    before = world.issuer.asked
    pod = world.issuer.token(KUBERNETES, iss=CLUSTER, aud=["entrepot", "https://other"], key=EC, head={"kid": "k"})
    told = world.given(pod)
    me = json.loads(world.server.request("GET", "/api/v1/me/", user=("x", told["access_token"])).body)
    assert me["name"] == "cluster"
    assert world.issuer.asked == before
    other = {"kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "runner"}}}
    assert world.exchange(world.issuer.token({**KUBERNETES, **other}, iss=CLUSTER, key=EC, head={"kid": "k"})).status == 400


NEAR = {
    "a path that leads elsewhere": {"repository": "corp/../x"},
    "a longer owner": {"repository": "corpX/a"},
    "an owner in the middle": {"repository": "evil/corp/app"},
    "a folder more": {"repository": "corp/a/b"},
    "other case": {"repository": "Corp/app"},
    "a longer branch": {"ref": "refs/heads/main2"},
    "a tag of that name": {"ref": "refs/tags/main"},
    "a line more": {"ref": "refs/heads/main\n"},
    "a space more": {"ref": " refs/heads/main"},
    "another branch in a list": {"ref": ["refs/heads/other"]},
    "keys": {"ref": {"refs/heads/main": True}},
    "nothing": {"ref": None},
    "empty": {"repository": ""},
}


@pytest.mark.parametrize("claims", NEAR.values(), ids=NEAR)
def test_a_job_that_nearly_fits_gets_nothing_and_the_audit_says_why(world, claims):
    before = world.tokens()
    answer = world.exchange(world.issuer.token(GITHUB, **claims))
    assert (answer.status, rule(answer), json.loads(answer.body)["error"]) == (400, "trust", "invalid_request")
    assert world.tokens() == before
    ((name, value),) = claims.items()
    shown = "missing" if value is None else json.dumps(value)
    subject, detail = world.told(f"{name} is {shown}, and is to be ")
    assert (subject, detail["sub"]) == (world.issuer.url, GITHUB["sub"])
    assert name not in answer.body.decode()


def test_the_log_names_the_claim_and_never_the_token(world):
    token = world.issuer.token(GITHUB, ref="refs/heads/feature")
    world.exchange(token)
    log = world.server.log()
    assert 'ref is "refs/heads/feature", and is to be "refs/heads/main"' in log
    assert token not in log and token.rpartition(".")[2] not in log


def _encoded(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _claims(issuer: Issuer) -> dict[str, Any]:
    return jwt.decode(issuer.token(GITHUB), options={"verify_signature": False})


def _unsigned(issuer: Issuer) -> str:
    return f"{_encoded({'alg': 'none', 'typ': 'JWT'})}.{_encoded(_claims(issuer))}."


def _by_public_key(issuer: Issuer) -> str:
    """HMAC with the public key as its secret (CVE-2016-10555 and the like)."""
    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{_encoded({'alg': 'HS256', 'kid': 'one'})}.{_encoded(_claims(issuer))}"
    return f"{signed}.{_encoded(hmac.digest(pem, signed.encode(), 'sha256'))}"


def _by_own_key(**head: Any) -> Any:
    return lambda issuer: issuer.token(GITHUB, key=OTHER_RSA, head=head)


def _changed(token: str, **claims: Any) -> str:
    head, _, signature = token.split(".")
    said = jwt.decode(token, options={"verify_signature": False})
    return f"{head}.{_encoded({**said, **claims})}.{signature}"


OWN = key_set(mine=OTHER_RSA)["keys"][0]
FORGED = {
    "alg none": _unsigned,
    "alg none in another case": lambda issuer: f"{_encoded({'alg': 'nOnE'})}.{_encoded(_claims(issuer))}.",
    "the public key as a secret": _by_public_key,
    "a key that it brings along": _by_own_key(jwk=OWN),
    "a key at an address that it names": _by_own_key(jku="https://evil.example.org/keys"),
    "a certificate at an address that it names": _by_own_key(x5u="https://evil.example.org/cert"),
    "a key that is unknown": _by_own_key(kid="two"),
    "another key under a known name": _by_own_key(),
    "a signature that is gone": lambda issuer: issuer.token(GITHUB).rpartition(".")[0] + ".",
    "claims changed afterwards": lambda issuer: _changed(issuer.token(GITHUB), repository="corp/other"),
    "another issuer": lambda issuer: issuer.token(GITHUB, iss="https://ci.example.org"),
    "the issuer with a slash": lambda issuer: issuer.token(GITHUB, iss=issuer.url + "/"),
    "another audience": lambda issuer: issuer.token(GITHUB, aud="entrepot2"),
    "no audience": lambda issuer: issuer.token(GITHUB, aud=None),
    "expired": lambda issuer: issuer.token(GITHUB, exp=int(time.time()) - 120),
    "without an end": lambda issuer: issuer.token(GITHUB, exp=None),
    "not valid yet": lambda issuer: issuer.token(GITHUB, nbf=int(time.time()) + 600),
    "no token": lambda issuer: "ent_" + "a" * 43,
    "too long": lambda issuer: issuer.token(GITHUB, filler="x" * 17_000),
    "nothing at all": lambda issuer: "",
}  # fmt: skip


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_what_the_issuer_did_not_sign_for_this_server_and_this_moment_gets_nothing(world, forge):
    before = world.tokens()
    answer = world.exchange(forge(world.issuer))
    assert (answer.status, json.loads(answer.body)["error"]) == (400, "invalid_request"), answer
    assert world.tokens() == before
    assert not any("evil" in path for path, _ in world.issuer.seen)


def test_who_asks_is_not_told_which_trusts_there_are(world):
    strange = world.exchange(world.issuer.token(GITHUB, iss="https://ci.example.org"))
    for token in (
        world.issuer.token(GITHUB, key=OTHER_RSA), world.issuer.token(GITHUB, aud="other"),
        world.issuer.token(GITHUB, repository="evil/app"), world.issuer.token(GITHUB, repository="gone/app"),
    ):  # fmt: skip
        assert (answer := world.exchange(token)).body == strange.body and answer.status == strange.status


def test_an_issuer_that_no_trust_names_is_never_asked(world, tmp_path):
    strange = Issuer(tmp_path)
    try:
        assert world.exchange(strange.token(GITHUB)).status == 400
        assert strange.asked == 0 and strange.connections == 0
    finally:
        strange.stop()


def test_a_robot_that_is_not_active_gets_nothing(world):
    before = world.tokens()
    assert world.exchange(world.issuer.token(GITHUB, repository="gone/app")).status == 400
    assert world.tokens() == before
    assert world.told("there is no active robot gone")


def test_of_several_trusts_that_let_a_job_in_it_says_which(world):
    token = world.issuer.token(GITHUB, repository="two/app", sub="repo:two/app:ref:refs/heads/main")
    answer = world.exchange(token)
    assert (answer.status, rule(answer)) == (400, "trust.several")
    assert "narrow (robot both), third (robot other), wide (robot both)" in json.loads(answer.body)["detail"]
    assert rule(world.exchange(token, robot="both")) == "trust.several"
    assert world.given(token, robot="other")["access_token"]
    assert world.given(token, trust="narrow")["scope"] == f"{READ} {WRITE}"
    assert "scope" not in world.given(token, trust="wide")
    assert rule(world.exchange(token, trust="gitlab")) == "trust"


def test_a_job_may_ask_for_less_and_never_for_more_than_its_trust_gives(world):
    token = world.issuer.token(GITHUB, repository="two/x", sub="repo:two/x")
    told = world.given(token, scope="artifact:write@files:corp/lib/**")
    login = ("x", told["access_token"])
    assert told["scope"] == "artifact:write@files:corp/lib/**"
    assert world.server.request("GET", "/raw/files/corp/app.tar", user=login).status == 404
    for scope in ("artifact:delete@files", "artifact:write@files", "user:manage", "nonsense", "artifact:write@files:**"):
        answer = world.exchange(token, scope=scope)
        assert (answer.status, json.loads(answer.body)["error"]) == (400, "invalid_scope"), scope


def test_a_given_token_makes_no_others(world):
    told = world.given(world.issuer.token(GITHUB))
    answer = Api(world.server, ("x", told["access_token"])).post("tokens/")
    assert (answer.status, rule(answer)) == (403, "token.trust")


WRONG = {
    "unsupported_grant_type": {"grant_type": "client_credentials"},
    "invalid_request": {"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"},
    "invalid_request 2": {"subject_token": None},
    "invalid_request 3": {"grant_type": None},
    "invalid_request 4": {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
    "invalid_request 5": {"actor_token": "x"},
}


@pytest.mark.parametrize("error", WRONG)
def test_a_request_that_is_wrong_is_told_so_in_the_words_of_oauth(world, error):
    answer = world.exchange(world.issuer.token(GITHUB), **WRONG[error])
    said = json.loads(answer.body)
    assert (answer.status, answer.headers["Content-Type"], said["error"]) == (400, "application/json", error.split()[0])
    assert said["error_description"] and "\n" not in said["error_description"]


def test_a_body_that_is_no_small_form_is_refused(world):
    ask = world.server.request
    assert ask("POST", "/api/v1/exchange/", b"x=" + b"y" * 40_000, FORM).status == 413
    assert ask("POST", "/api/v1/exchange/", b"{}", {"Content-Type": "application/json"}).status == 415
    assert ask("POST", "/api/v1/exchange/", b"grant_type=a&grant_type=b", FORM).status == 400
    assert ask("POST", "/api/v1/exchange/", b"grant_type=%ff%00", FORM).status == 400
    assert ask("POST", "/api/v1/exchange/", b"&".join(b"a%d=1" % n for n in range(1000)), FORM).status == 400
    assert ask("GET", "/api/v1/exchange/").status == 405
    assert ask("POST", "/api/v1/exchange/", b"", {**FORM, "Sec-Fetch-Site": "cross-site"}).status == 403


def test_a_flood_of_what_nobody_signed_asks_the_issuer_once_at_most(world):
    world.given(world.issuer.token(GITHUB))
    before = world.issuer.asked
    for number in range(30):
        world.exchange(world.issuer.token(GITHUB, key=OTHER_RSA, head={"kid": f"k{number}"}))
    assert world.issuer.asked - before <= 2 * 2 * 2, "two processes, two documents, and at most once in ten seconds"


def test_when_a_trust_changes_or_goes_what_it_gave_ends_with_it(world):
    api = Api(world.server)
    mine = trust(world.issuer, claims={"repository": "brief/*"}, robot="other")
    assert api.put("trusts/brief/", mine).status == 201
    secret = world.given(world.issuer.token(GITHUB, repository="brief/a"))["access_token"]
    assert api.put("trusts/brief/", {**mine, "lifetime": "5m"}).status == 200
    assert Api(world.server, ("x", secret)).get("me/").status == 200
    assert api.put("trusts/brief/", {**mine, "claims": {"repository": "brief/b"}}).status == 200
    assert Api(world.server, ("x", secret)).get("me/").status == 401
    secret = world.given(world.issuer.token(GITHUB, repository="brief/b"))["access_token"]
    assert api.delete("trusts/brief/").status == 204
    assert Api(world.server, ("x", secret)).get("me/").status == 401
    assert world.exchange(world.issuer.token(GITHUB, repository="brief/b")).status == 400


def test_what_a_trust_gave_is_over_after_its_lifetime_and_its_row_goes_later(world):
    api = Api(world.server)
    api.put("trusts/second/", trust(world.issuer, claims={"repository": "second/*"}, lifetime="1s"))
    told = world.given(world.issuer.token(GITHUB, repository="second/a"))
    login = ("x", told["access_token"])
    deadline = time.monotonic() + 60
    while world.server.request("GET", "/api/v1/me/", user=login).status != 401:
        assert time.monotonic() < deadline
    (number,) = world.server.query("SELECT max(id) FROM accounts_token WHERE trust = 'second'")
    assert api.read(f"tokens/{number}/")["trust"] == "second"
    world.server.manage("job", "run", "tokens", "--wait")
    assert api.get(f"tokens/{number}/").status == 200
    long_ago = (datetime.now() - timedelta(days=8)).strftime("%Y-%m-%d %H:%M:%S")
    world.server.execute(f"UPDATE accounts_token SET expires_at = '{long_ago}' WHERE id = {number}")
    world.server.manage("job", "run", "tokens", "--wait")
    assert api.get(f"tokens/{number}/").status == 404
    assert world.server.query("SELECT count(*) FROM accounts_event WHERE action = 'token.forget'") == (1,)


def test_an_issuer_that_fails_is_no_ones_fault_and_keys_that_are_replaced_are_found(world, server, tmp_path):
    """By a server of its own, whose knowledge of the issuer is fresh."""
    here = server(ENTREPOT_WORKERS="1")
    one = Issuer(tmp_path)
    try:
        here.apply({"users": [{"name": "ci", "robot": True}], "trusts": [trust(one, claims={"repository": "corp/*"})]})
        alone = World(here, one)
        with one.down():
            answer = alone.exchange(one.token(GITHUB))
            said = json.loads(answer.body)
            assert (answer.status, said["error"]) == (503, "temporarily_unavailable")
            assert one.url not in answer.body.decode() and answer.headers["Retry-After"]
        _until(lambda: alone.exchange(one.token(GITHUB)).status == 200)
        old = one.token(GITHUB)
        one.replace_keys(two=EC)
        _until(lambda: alone.exchange(one.token(GITHUB)).status == 200)
        _until(lambda: [alone.exchange(old).status for _ in range(4)] == [400] * 4)
        with one.down():
            assert alone.exchange(one.token(GITHUB)).status == 200, "what is known of it is enough"
    finally:
        one.stop()


def _until(done: Any) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_an_issuer_that_is_silent_holds_up_few_threads(server, tmp_path):
    here = server(ENTREPOT_WORKERS="1")
    one, answered = Issuer(tmp_path), threading.Event()
    one.routes[WELL_KNOWN] = lambda handler: answered.wait(60)
    try:
        here.apply({"users": [{"name": "ci", "robot": True}], "trusts": [trust(one, claims={"repository": "corp/*"})]})
        alone = World(here, one)
        with ThreadPoolExecutor(30) as pool:
            asked = [pool.submit(alone.exchange, one.token(GITHUB)) for _ in range(30)]
            refused = [done.result() for done in islice(as_completed(asked), 22)]
            assert {answer.status for answer in refused} == {503}
            assert sum(not one.done() for one in asked) == 8, "the others wait for the issuer, and none for them"
            answered.set()
    finally:
        answered.set()
        one.stop()


def test_who_may_not_manage_the_server_names_no_file_of_it(world):
    world.server.apply({"roles": [{"name": "clerk", "permissions": ["user:manage"]}], "users": [{"name": "cleo"}],
                        "grants": [{"role": "clerk", "users": ["cleo"]}]})  # fmt: skip
    clerk = Api(world.server, ("cleo", world.server.manage("token", "create", "cleo").stdout.split()[-1]))
    asked = {"issuer": "https://ci.example.org", "audience": "a", "claims": {"sub": "a"}, "robot": "ci"}
    assert rule(clerk.put("trusts/clerks/", {**asked, "ca": "/etc/passwd"})) == "trust.ca"
    assert clerk.put("trusts/clerks/", asked).status == 201
    assert clerk.delete("trusts/clerks/").status == 204


def test_an_unnamed_trust_has_an_address_too(world):
    api = Api(world.server)
    (name,) = [item["name"] for item in api.items("trusts/") if item["name"].startswith("ci@")]
    item = api.read(f"trusts/{name}/")
    assert api.put(f"trusts/{name}/", item).status == 200
    assert api.read(f"trusts/{name}/") == item
    exported = world.server.manage("export").stdout
    assert name not in exported and world.server.manage("apply", "-", input=exported).stdout == ""
