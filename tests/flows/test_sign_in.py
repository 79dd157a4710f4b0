"""Signing in with a browser: at a real OpenID Connect provider, at one that lies, and with a name and password."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.parts.api import ADMIN, PASSWORD, Api, rule
from tests.parts.browser import Browser, Page
from tests.parts.openid import KEY, KEY_ID, Provider, Scripted
from tests.parts.server import ADMIN_PASSWORD, Answer, Server, _free_port


@pytest.fixture(scope="module")
def sso(tmp_path_factory) -> Iterator[Provider]:
    one = Provider(tmp_path_factory.mktemp("sso"))
    yield one
    one.stop()


@pytest.fixture(scope="module")
def scripted() -> Iterator[Callable[..., Scripted]]:
    started: list[Scripted] = []

    def start(**said: Any) -> Scripted:
        started.append(Scripted(**said))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="module")
def world(server, sso, scripted) -> Server:
    """`sso` is real; `other` and `liar` say what a test wants; `down` is not there. The group team-a of sso reads `team`."""
    here = server()
    here.sso, here.other, here.liar = sso, scripted(), scripted()
    named = scripted(metadata={"authorization_response_iss_parameter_supported": True})
    here.named, here.public = named, scripted(metadata={"token_endpoint_auth_methods_supported": ["none"]})
    here.posting = scripted(metadata={"token_endpoint_auth_methods_supported": ["client_secret_post"]})

    def provider(name: str, one: Scripted, **more: Any) -> dict[str, Any]:
        return {"name": name, "issuer": one.url, "client_id": one.client_id, "client_secret": one.client_secret, **more}

    here.apply(
        {
            "providers": [
                {
                    "name": "sso",
                    "issuer": sso.url,
                    "client_id": "entrepot",
                    "client_secret": "x",
                    "title": "Corp SSO",
                    "stale": "1d",
                },
                provider("other", here.other),
                provider("liar", here.liar),
                provider("named", named),
                provider("posting", here.posting, required_groups=["staff", "guests"]),
                {"name": "public", "issuer": here.public.url, "client_id": "entrepot"},
                {"name": "down", "issuer": f"http://127.0.0.1:{_free_port()}", "client_id": "entrepot"},
            ],
            "repositories": [{"key": "team", "format": "raw", "kind": "local"}],
            "groups": [{"name": "team-a", "external": ["sso:a"]}],
            "users": [{"name": name, "password": PASSWORD} for name in ("bea", "outsider", "leaver", "changer")],
            "grants": [{"role": "reader", "groups": ["team-a"], "repositories": ["team"]}],
        }
    )
    assert here.request("PUT", "/raw/team/file", b"a file\n", user=ADMIN).status == 201
    return here


def token_of(browser: Browser, **fields: str) -> str:
    """The secret of a token that is made on the page of tokens."""
    page = browser.send(browser.get("/ui/tokens/"), "/ui/tokens/", {"lifetime": "30d", **fields})
    assert page.status == 201, page.text
    return next(word for word in page.text.split() if word.startswith("ent_") and len(word) == 47)


def reads(world: Server, secret: str) -> int:
    return world.request("GET", "/raw/team/file", user=("x", secret)).status


def events(world: Server, action: str) -> list[tuple[str, str, dict[str, Any]]]:
    rows = world.rows(f"SELECT actor, subject, detail FROM accounts_event WHERE action = '{action}' ORDER BY id")
    return [(actor, subject, detail if isinstance(detail, dict) else json.loads(detail)) for actor, subject, detail in rows]


# At a real provider


def test_who_comes_from_a_provider_makes_a_token_for_their_clients(world):
    """With the rights that their groups there mean here."""
    world.sso.knows("u-ann", preferred_username="ann", email="ann@example.org", groups=["a", "b"])
    browser = Browser(world)
    landed = world.sso.sign_in(browser, "u-ann", next="/ui/tokens/")
    assert (landed.status, urlsplit(landed.location).path) == (303, "/ui/tokens/")
    account = browser.get("/ui/account/")
    assert "Name ann E-mail ann@example.org Groups team-a From sso" in account.text
    assert "sso:a , sso:b" in account.text
    assert "reader team all group team-a artifact:read" in account.text
    secret = token_of(browser, name="laptop", scopes="artifact:read@team")
    assert reads(world, secret) == 200
    assert secret not in browser.get("/ui/tokens/").text  # it is shown once
    assert ("ann", "ann", {"by": "sso"}) in events(world, "sign-in")
    assert ("ann", "ann", {"by": "sso"}) in events(world, "session.begin")


def test_a_group_that_is_lost_there_is_lost_here_with_the_next_sign_in(world):
    world.sso.knows("u-gil", preferred_username="gil", groups=["a"])
    browser = Browser(world)
    world.sso.sign_in(browser, "u-gil")
    secret = token_of(browser)
    assert reads(world, secret) == 200
    world.sso.knows("u-gil", preferred_username="gil", groups=["b"])
    world.sso.sign_in(Browser(world), "u-gil")
    assert reads(world, secret) == 404
    assert "Groups none" in browser.get("/ui/account/").text


def test_every_configured_provider_has_its_button(world):
    page = Browser(world).get("/ui/sign-in/?next=/ui/tokens/")
    assert "Sign in with Corp SSO" in page.text
    assert [link for link in page.links if link.startswith("/ui/sign-in/")] == [
        f"/ui/sign-in/{name}/?next=%2Fui%2Ftokens%2F" for name in ("down", "liar", "named", "other", "posting", "public", "sso")
    ]


def test_somebody_with_a_name_and_password_signs_in_too(world):
    browser = Browser(world)
    landed = browser.sign_in("bea", PASSWORD)
    assert (landed.status, urlsplit(landed.location).path) == (303, "/ui/")
    assert browser.name() == "bea"
    assert urlsplit(browser.get("/ui/sign-in/").location).path == "/ui/"


@pytest.mark.parametrize(("name", "password"), [("bea", "wrong"), ("nobody-there", PASSWORD), ("bea", ""), ("", "")])
def test_a_wrong_password_signs_nobody_in_and_the_audit_has_it(world, name, password):
    browser = Browser(world)
    page = browser.sign_in(name, password)
    assert page.status == 403
    assert "not valid" in page.text
    assert page.headers["WWW-Authenticate"] is None
    assert browser.cookie("entrepot-session") is None
    assert browser.name() == ""
    refused = world.rows("SELECT count(*) FROM accounts_event WHERE action = 'sign-in' AND refused")
    assert refused[0][0] > 0


def test_who_guesses_passwords_is_told_to_wait(world):
    world.apply({"users": [{"name": "guessed", "password": PASSWORD}]})
    browser = Browser(world)
    for n in range(5):
        assert browser.sign_in("guessed", f"guess {n}").status == 403
    page = browser.sign_in("guessed", PASSWORD)
    assert page.status == 429
    assert int(page.headers["Retry-After"]) > 0
    assert "too many attempts to sign in failed" in page.text
    assert page.form("/ui/sign-in/").fields["name"] == "guessed"
    assert browser.name() == ""


# Who is who


def scripted_sign_in(
    world: Server, name: str, browser: Browser | None = None, userinfo: dict[str, Any] | int | None = None, **claims: Any
) -> tuple[Browser, Page]:
    """Sign in at a scripted provider as whom its claims say."""
    browser, one = browser or Browser(world), getattr(world, name)
    one.claims, one.userinfo = claims, userinfo
    there = browser.get(f"/ui/sign-in/{name}/")
    assert there.status == 302, there.text
    return browser, browser.get(one.allow(there.location))


def test_the_same_address_at_another_issuer_is_another_user(world):
    world.sso.knows("u-eva", preferred_username="eva", email="eva@example.org", email_verified=True)
    world.sso.sign_in(Browser(world), "u-eva")
    browser, landed = scripted_sign_in(world, "other", sub="u-eva", preferred_username="eva-2", email="eva@example.org",
                                       email_verified=True, groups=["a"])  # fmt: skip
    assert landed.status == 303
    assert browser.name() == "eva-2"
    assert "Groups none" in browser.get("/ui/account/").text  # its group `a` is other:a, and no group here
    assert world.query("SELECT count(*) FROM accounts_user WHERE email = 'eva@example.org'")[0] == 2


@pytest.mark.parametrize("taken", ["admin", "bea", "ann", "anonymous", "ａｄｍｉｎ"])
def test_a_name_that_another_user_has_is_given_to_nobody(world, taken):
    world.sso.knows("u-ann", preferred_username="ann", groups=["a", "b"])
    world.sso.sign_in(Browser(world), "u-ann")
    count = world.query("SELECT count(*) FROM accounts_externalidentity")
    browser, page = scripted_sign_in(world, "other", sub=f"thief-{taken}", preferred_username=taken)
    assert page.status == 403
    assert "identity.name" in page.text
    assert browser.name() == ""
    assert world.query("SELECT count(*) FROM accounts_externalidentity") == count


@pytest.mark.parametrize("name", [None, "", "a b", "a/b", "x" * 151, 7, ["ann"], {"a": 1}])
def test_a_name_that_is_none_here_is_refused_in_words(world, name):
    browser, page = scripted_sign_in(world, "other", sub="no-name", preferred_username=name)
    assert page.status == 403
    assert "no name of a user here" in page.text
    assert browser.name() == ""


def test_who_is_called_otherwise_there_now_is_the_same_user_here(world):
    scripted_sign_in(world, "other", sub="renamed", preferred_username="before")
    browser, landed = scripted_sign_in(world, "other", sub="renamed", preferred_username="admin")
    assert landed.status == 303
    assert browser.name() == "before"


def test_whom_an_administrator_made_inactive_no_provider_brings_back(world):
    scripted_sign_in(world, "other", sub="sacked", preferred_username="sacked")
    world.apply({"users": [{"name": "sacked", "inactive": True}]})
    browser, page = scripted_sign_in(world, "other", sub="sacked", preferred_username="sacked")
    assert (page.status, browser.name()) == (403, "")
    assert "user.inactive" in page.text


@pytest.mark.parametrize("groups", [None, "a", ["a", 7, None, "", "x" * 600], {"a": True}, 7])
def test_groups_in_any_form_end_no_sign_in_and_give_no_more_than_they_say(world, groups):
    browser, landed = scripted_sign_in(world, "other", sub="grouped", preferred_username="grouped", groups=groups)
    assert landed.status == 303
    there = browser.get("/ui/account/").text.partition("Groups there ")[2].split()[0]
    assert there == ("other:a" if groups == "a" or isinstance(groups, list) else "none")


def test_groups_are_asked_for_where_the_id_token_has_none(world):
    said: Any = {"sub": "asked", "groups": ["staff"], "preferred_username": "somebody-else"}
    browser, _ = scripted_sign_in(world, "other", userinfo=said, sub="asked", preferred_username="asked", groups=None)
    assert browser.name() == "asked"  # what is signed counts before what was asked
    assert "Groups there other:staff" in browser.get("/ui/account/").text


def test_what_is_said_of_another_user_is_not_believed(world):
    said: Any = {"sub": "admin-there", "groups": ["admins"]}
    browser, page = scripted_sign_in(world, "other", userinfo=said, sub="asked-2", preferred_username="asked-2", groups=None)
    assert (page.status, browser.name()) == (403, "")


def test_groups_that_cannot_be_asked_for_are_not_none(world):
    """Who comes while the provider fails does not lose what they may: they do not come in."""
    said: Any = 404
    browser, page = scripted_sign_in(world, "other", userinfo=said, sub="asked-3", preferred_username="asked-3", groups=None)
    assert (page.status, browser.name()) == (503, "")


def test_only_members_of_the_required_groups_sign_in_and_who_leaves_them_loses_their_tokens(world):
    browser, landed = scripted_sign_in(world, "posting", sub="p", preferred_username="pat", groups=["staff"])
    assert landed.status == 303
    secret = token_of(browser)
    assert Api(world, ("x", secret)).get("me/").status == 200
    _, page = scripted_sign_in(world, "posting", sub="p", preferred_username="pat", groups=["others"])
    assert page.status == 403
    assert "provider.required_groups" in page.text
    assert Api(world, ("x", secret)).get("me/").status == 401
    assert browser.name() == ""
    _, page = scripted_sign_in(world, "posting", sub="never", preferred_username="never", groups=[])
    assert page.status == 403
    assert world.rows("SELECT 1 FROM accounts_user WHERE username = 'never'") == []
    _, landed = scripted_sign_in(world, "posting", sub="p", preferred_username="pat", groups=["guests"])
    assert landed.status == 303
    assert Api(world, ("x", secret)).get("me/").status == 200


def test_a_public_client_sends_no_secret(world):
    browser, landed = scripted_sign_in(world, "public", sub="pub", preferred_username="pub")
    assert landed.status == 303
    assert browser.name() == "pub"
    sent = next((form, headers) for path, form, headers in world.public.seen if path == "/token")
    assert "client_secret" not in sent[0]
    assert "Authorization" not in sent[1]


# What is not believed


@pytest.fixture
def nobody(world) -> Iterator[None]:
    """The promise that a test makes no user and no session."""

    def there() -> list[tuple]:
        return [
            world.query(f"SELECT count(*) FROM accounts_{table}") for table in ("user", "session", "externalidentity", "spent")
        ]

    before = there()
    yield
    world.liar.sign, world.liar.token_answer, world.liar.lenient, world.liar.claims = None, None, False, {}
    assert there() == before


def at(location: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


def test_a_sign_in_counts_only_in_the_browser_that_began_it(world, nobody):
    victim, thief = Browser(world), Browser(world)
    back = world.liar.allow(thief.get("/ui/sign-in/liar/").location)
    page = victim.get(back)  # the thief's sign-in, in the victim's browser
    assert (page.status, victim.name()) == (400, "")
    victim.get("/ui/sign-in/liar/")
    page = victim.get(back)
    assert (page.status, victim.name()) == (400, "")
    assert "sign-in.state" in page.text


@pytest.mark.parametrize("state", ["", "guessed", None, "é"])
def test_an_answer_without_the_state_is_refused(world, nobody, state):
    browser = Browser(world)
    back = world.liar.allow(browser.get("/ui/sign-in/liar/").location)
    query = {"code": at(back)["code"], **({} if state is None else {"state": state})}
    page = browser.get(f"/ui/sign-in/liar/done/?{urlencode(query)}")
    assert (page.status, browser.name()) == (400, "")
    assert browser.get(back).status == 400  # what was begun is over


def test_a_cookie_that_is_forged_or_old_is_none(world, nobody):
    browser = Browser(world)
    back = world.liar.allow(browser.get("/ui/sign-in/liar/").location)
    signed = browser.cookie("entrepot-sign-in")
    for forged in ("", "x", signed[:-1], signed.replace(":", "", 1), "e30:1uO6jK:AAAA"):
        answer = world.request("GET", back.removeprefix(world.url), headers={"Cookie": f"entrepot-sign-in={forged}"})
        assert answer.status == 400
        assert b"begin it again" in answer.body


def test_a_sign_in_is_completed_once(world):
    """Also where the provider gives tokens for a code again, and the browser's cookie is shown again."""
    world.liar.lenient, world.liar.claims = True, {"sub": "once", "preferred_username": "once"}
    browser = Browser(world)
    there = browser.get("/ui/sign-in/liar/")
    back = world.liar.allow(there.location)
    cookie = {"Cookie": there.cookies["entrepot-sign-in"].partition(";")[0]}
    assert browser.get(back).status == 303
    again = world.request("GET", back.removeprefix(world.url), headers=cookie)
    assert again.status == 400
    assert b"completed already" in again.body
    assert "entrepot-session" not in str(again.headers)
    world.liar.lenient = False


def test_a_code_is_redeemed_with_the_verifier_that_was_made_for_it(world, nobody):
    """A code of one's own sign-in that somebody puts into another's is of no use without the verifier (RFC 7636)."""
    thief, victim = Browser(world), Browser(world)
    stolen = at(world.liar.allow(victim.get("/ui/sign-in/liar/").location))["code"]
    began = thief.get("/ui/sign-in/liar/").location
    page = thief.get(f"/ui/sign-in/liar/done/?{urlencode({'code': stolen, 'state': at(began)['state']})}")
    assert (page.status, thief.name()) == (403, "")
    assert "invalid_grant" in page.text
    assert at(began)["code_challenge"] != at(victim.get("/ui/sign-in/liar/").location)["code_challenge"]


@pytest.mark.parametrize("nonce", [None, "another", "", 7, ["x"]])
def test_a_token_of_another_sign_in_is_refused(world, nobody, nonce):
    browser, page = scripted_sign_in(world, "liar", nonce=nonce)
    assert (page.status, browser.name()) == (403, "")
    assert "sign-in.nonce" in page.text


def test_an_answer_of_one_provider_is_not_taken_for_anothers(world, nobody):
    """RFC 9207, and a redirect URI for each provider."""
    browser = Browser(world)
    back = world.liar.allow(browser.get("/ui/sign-in/liar/").location)
    page = browser.get(back.replace("/sign-in/liar/", "/sign-in/other/"))
    assert (page.status, browser.name()) == (400, "")
    back = world.liar.allow(browser.get("/ui/sign-in/liar/").location)
    page = browser.get(f"{back}&iss=https%3A%2F%2Fevil.example")
    assert (page.status, browser.name()) == (400, "")
    assert "sign-in.issuer" in page.text
    back = world.named.allow(browser.get("/ui/sign-in/named/").location)
    assert browser.get(back).status == 400  # it says that it always says who it is
    assert not [path for path, *_ in world.named.seen if path == "/token"]


def test_a_provider_that_says_who_it_is_is_believed(world):
    world.named.claims = {"sub": "n", "preferred_username": "nan"}
    browser = Browser(world)
    back = world.named.allow(browser.get("/ui/sign-in/named/").location)
    assert browser.get(f"{back}&{urlencode({'iss': world.named.url})}").status == 303
    assert browser.name() == "nan"


OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def own_jwk() -> dict[str, Any]:
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_KEY.public_key())), "kid": "mine"}


def by_hand(head: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A token as no library would make it."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, claims)]
    signature = base64.urlsafe_b64encode(sign(b".".join(parts))).rstrip(b"=")
    return b".".join([*parts, signature]).decode()


def hs256(text: bytes) -> bytes:
    import hashlib
    import hmac

    return hmac.digest(PUBLIC_PEM, text, hashlib.sha256)


def forged(claims: dict[str, Any], **head: Any) -> str:
    return jwt.encode(claims, OTHER_KEY, algorithm="RS256", headers=head)


FORGERIES: dict[str, Callable[[dict[str, Any]], str]] = {
    "alg none": lambda claims: by_hand({"alg": "none", "typ": "JWT"}, claims, lambda _: b""),
    "alg None": lambda claims: by_hand({"alg": "nOnE", "kid": KEY_ID}, claims, lambda _: b""),
    "no signature": lambda claims: by_hand({"alg": "RS256", "kid": KEY_ID}, claims, lambda _: b""),
    "HS256 with the public key": lambda claims: by_hand({"alg": "HS256", "kid": KEY_ID}, claims, hs256),
    "a key of its own": lambda claims: forged(claims, kid=KEY_ID),
    "jwk": lambda claims: forged(claims, jwk=own_jwk(), kid="mine"),
    "jku": lambda claims: forged(claims, jku="http://127.0.0.1:1/keys", kid="mine"),
    "x5u": lambda claims: forged(claims, x5u="http://127.0.0.1:1/cert", kid="mine"),
    "x5c": lambda claims: forged(claims, x5c=[base64.b64encode(PUBLIC_PEM).decode()]),
    "no token": lambda claims: "not-a-token",
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_token_that_the_provider_did_not_sign_is_refused(world, nobody, kind):
    world.liar.sign = FORGERIES[kind]
    browser, page = scripted_sign_in(world, "liar")
    assert (page.status, browser.name()) == (403, "")
    assert "token.issuer" in page.text


CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": int(time.time()) - 3600, "iat": int(time.time()) - 7200},
    "without an end": {"exp": None},
    "not yet": {"nbf": int(time.time()) + 3600},
    "for another client": {"aud": "another"},
    "for nobody": {"aud": None},
    "by another issuer": {"iss": "https://evil.example"},
    "by nobody": {"iss": None},
    "for others too": {"aud": ["entrepot", "another"]},
    "through another client": {"azp": "another"},
    "about nobody": {"sub": None},
    "about nobody in particular": {"sub": "x" * 300},
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_token_that_is_not_for_now_and_here_is_refused(world, nobody, kind):
    browser, page = scripted_sign_in(world, "liar", **CLAIMS[kind])
    assert (page.status, browser.name()) == (403, "")


def test_the_same_flow_with_nothing_wrong_signs_in(world):
    """What the refusals above are measured by."""
    browser, landed = scripted_sign_in(
        world, "liar", sub="good", preferred_username="good", aud=["entrepot", "b"], azp="entrepot"
    )
    assert landed.status == 303
    assert browser.name() == "good"


def test_what_a_provider_refuses_is_told_in_its_words_and_as_text(world, nobody):
    browser = Browser(world)
    state = at(browser.get("/ui/sign-in/liar/").location)["state"]
    query = {"error": "access_denied", "error_description": "<script>alert(1)</script>", "state": state}
    page = browser.get(f"/ui/sign-in/liar/done/?{urlencode(query)}")
    assert page.status == 403
    assert "access_denied" in page.text
    assert b"<script" not in page.body
    assert events(world, "sign-in")[-1][2]["by"] == "liar"


def test_an_answer_without_a_code_is_refused(world, nobody):
    browser = Browser(world)
    state = at(browser.get("/ui/sign-in/liar/").location)["state"]
    assert browser.get(f"/ui/sign-in/liar/done/?state={state}").status == 403


# Providers that fail


TOKEN_ANSWERS = {
    "500": ((500, {}), 503),
    "a page": ((200, b"<html>"), 503),
    "a list": ((200, []), 503),
    "no ID token": ((200, {"access_token": "x", "token_type": "Bearer"}), 503),
    "an ID token that is none": ((200, {"access_token": "x", "token_type": "Bearer", "id_token": {}}), 503),
    "a secret that is wrong": ((401, {"error": "invalid_client"}), 503),
    "no": ((400, {"error": "invalid_grant"}), 403),
    "nothing": ((200, {}), 403),
    "a redirect": ((302, {}), 403),
}


@pytest.mark.parametrize("kind", TOKEN_ANSWERS)
def test_a_provider_that_fails_is_a_page_that_says_so(world, nobody, kind):
    world.liar.token_answer, status = TOKEN_ANSWERS[kind]
    browser, page = scripted_sign_in(world, "liar")
    assert (page.status, browser.name()) == (status, "")
    assert "<h1>" in page.body.decode()
    assert "Traceback" not in world.log()


def test_a_provider_that_is_down_is_503_and_the_others_go_on(world):
    browser = Browser(world)
    page = browser.get("/ui/sign-in/down/")
    assert page.status == 503
    assert "issuer.failed" in page.text
    assert browser.get("/ui/sign-in/").status == 200
    assert browser.get("/ui/sign-in/down/done/?code=x&state=y").status == 400
    assert browser.sign_in("bea", PASSWORD).status == 303


def test_a_provider_that_there_is_not_is_404(world):
    browser = Browser(world)
    assert {browser.get(f"/ui/sign-in/{path}").status for path in ("none/", "none/done/", "NONE/", "a.b/")} == {404}


# Where one is led


@pytest.mark.parametrize(
    "next",
    ["//evil.example/", "https://evil.example/", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)", "///evil.example",
     "/\t/evil.example", "http:evil.example", " //evil.example", "evil", "/" + "x" * 2000, "/\r\nSet-Cookie: a=b"],
)  # fmt: skip
def test_nobody_is_led_to_another_site(world, next):
    browser = Browser(world)
    page = browser.get(f"/ui/sign-in/?{urlencode({'next': next})}")
    assert page.form("/ui/sign-in/").fields["next"] == "/ui/"
    landed = browser.send(page, "/ui/sign-in/", {"name": "bea", "password": PASSWORD, "next": next})
    assert landed.headers["Location"] == "/ui/"
    again = browser.get(f"/ui/sign-in/?{urlencode({'next': next})}")
    assert again.headers["Location"] == "/ui/"
    world.other.claims = {"sub": "led", "preferred_username": "led"}
    other = Browser(world)
    there = other.get(f"/ui/sign-in/other/?{urlencode({'next': next})}")
    assert other.get(world.other.allow(there.location)).headers["Location"] == "/ui/"


def test_who_asks_for_a_page_comes_to_it_after_signing_in(world):
    browser = Browser(world)
    asked = browser.get("/ui/sessions/?a=b")
    assert asked.status == 303
    landed = browser.send(browser.get(asked.location), "/ui/sign-in/", {"name": "bea", "password": PASSWORD})
    assert landed.headers["Location"] == "/ui/sessions/?a=b"


def test_the_address_that_is_registered_is_that_of_the_configured_server(server, scripted):
    one = scripted()
    here = server(ENTREPOT_BASE_URL="https://registry.example.org:8443")
    here.apply({"providers": [{"name": "x", "issuer": one.url, "client_id": "entrepot"}]})
    asked = at(Browser(here).get("/ui/sign-in/x/").location)
    assert asked["redirect_uri"] == "https://registry.example.org:8443/ui/sign-in/x/done/"


# Sessions


def session_rows(world: Server, name: str) -> list[tuple]:
    return world.rows(
        f"SELECT session_key, address, agent FROM accounts_session WHERE user_id ="
        f" (SELECT id FROM accounts_user WHERE username = '{name}') ORDER BY created_at"
    )


def with_cookie(world: Server, key: str | None) -> Answer:
    """The account page as it is shown to who has this session's key."""
    return world.request("GET", "/ui/account/", headers={"Cookie": f"entrepot-session={key}"})


def test_a_session_that_somebody_else_chose_is_never_signed_in(world):
    """Fixation: the key is new with each sign-in, and that of before is worth nothing."""
    browser = Browser(world)
    chosen = "a" * 32
    page = browser.get("/ui/sign-in/")
    cookies = f"entrepot-csrf={browser.cookie('entrepot-csrf')}; entrepot-session={chosen}"
    form = {**page.form("/ui/sign-in/").fields, "name": "bea", "password": PASSWORD}
    plain = Browser(world)
    landed = plain.ask("POST", "/ui/sign-in/", form, Cookie=cookies)
    assert landed.status == 303
    given = plain.cookie("entrepot-session")
    assert given not in (None, chosen)
    assert with_cookie(world, chosen).status == 303
    assert plain.name() == "bea"
    before = plain.cookie("entrepot-session")
    _, landed = scripted_sign_in(world, "other", plain, sub="fix", preferred_username="fix")
    assert plain.name() == "fix"
    assert plain.cookie("entrepot-session") != before
    assert with_cookie(world, before).status == 303  # whoever was signed in here before is not any more


def test_only_a_hash_of_a_sessions_key_is_stored(world):
    browser = Browser(world)
    browser.sign_in("bea", PASSWORD)
    key = browser.cookie("entrepot-session")
    everything = str(world.rows("SELECT * FROM accounts_session"))
    assert key not in everything
    assert with_cookie(world, session_rows(world, "bea")[-1][0]).status == 303


def test_nothing_is_stored_of_who_is_not_signed_in(world, nobody):
    browser = Browser(world)
    for path in ("/ui/", "/ui/sign-in/", "/ui/account/", "/ui/sign-in/liar/", "/ui/nowhere/"):
        page = browser.get(path)
        assert "entrepot-session" not in page.cookies


def test_signing_out_ends_the_session_for_whoever_has_its_cookie(world):
    browser = Browser(world)
    browser.sign_in("bea", PASSWORD)
    key = browser.cookie("entrepot-session")
    assert with_cookie(world, key).status == 200
    landed = browser.send(browser.get("/ui/account/"), "/ui/sign-out/")
    assert (landed.status, urlsplit(landed.location).path) == (303, "/ui/sign-in/")
    assert browser.cookie("entrepot-session") is None
    assert with_cookie(world, key).status == 303
    assert events(world, "sign-out")[-1][:2] == ("bea", "bea")


@pytest.mark.parametrize("change", [{"password": "another password"}, {"inactive": True}])
def test_another_password_or_none_any_more_ends_all_sessions_for_good(world, change):
    world.apply({"users": [{"name": "changer", "password": PASSWORD}]})
    browsers = [Browser(world), Browser(world)]
    for browser in browsers:
        browser.sign_in("changer", PASSWORD)
        assert browser.name() == "changer"
    world.apply({"users": [{"name": "changer", **change}]})
    assert session_rows(world, "changer") == []
    world.apply({"users": [{"name": "changer", "password": PASSWORD}]})
    assert [browser.name() for browser in browsers] == ["", ""]


def test_a_removed_user_is_signed_out(world):
    world.apply({"users": [{"name": "passing", "password": PASSWORD}]})
    browser = Browser(world)
    browser.sign_in("passing", PASSWORD)
    assert Api(world).delete("users/passing/").status == 204
    assert browser.name() == ""


def earlier(world: Server, table: str, column: str, hours: int, where: str) -> None:
    sqlite = world.database_url.startswith("sqlite")
    moment = f"datetime({column}, '-{hours} hours')" if sqlite else f"{column} - interval '{hours} hours'"
    world.execute(f"UPDATE {table} SET {column} = {moment} WHERE {where}")


def test_a_session_ends_by_itself_and_its_row_is_removed(world):
    browser = Browser(world)
    browser.sign_in("leaver", PASSWORD)
    ((key, _, _),) = session_rows(world, "leaver")
    earlier(world, "accounts_session", "expire_date", 13, f"session_key = '{key}'")
    assert browser.name() == ""
    assert run_people(world)["removed"] >= 1
    assert session_rows(world, "leaver") == []


def run_people(world: Server) -> dict[str, Any]:
    """What the periodic job does, now."""
    made = json.loads(Api(world).post("jobs/", {"kind": "people"}).body)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        job = Api(world).read(f"jobs/{made['id']}/")
        if job["state"] == "done":
            return job["result"]
        assert job["state"] in ("queued", "running"), job
        time.sleep(0.05)
    raise AssertionError(job)


def test_whom_their_provider_has_not_vouched_for_in_time_may_nothing_until_they_sign_in_again(world):
    world.sso.knows("u-sam", preferred_username="sam", groups=["a"])
    browser = Browser(world)
    world.sso.sign_in(browser, "u-sam")
    secret = token_of(browser)
    earlier(world, "accounts_externalidentity", "seen_at", 23, "subject = 'u-sam'")
    run_people(world)
    assert reads(world, secret) == 200
    earlier(world, "accounts_externalidentity", "seen_at", 2, "subject = 'u-sam'")
    assert run_people(world)["suspended"] == 1
    assert reads(world, secret) == 401
    assert browser.name() == ""
    world.sso.sign_in(browser, "u-sam")
    assert browser.name() == "sam"
    assert reads(world, secret) == 200


def test_one_sees_and_ends_ones_own_sessions(world):
    first, second, third = Browser(world), Browser(world), Browser(world)
    for n, browser in enumerate((first, second, third)):
        page = browser.get("/ui/sign-in/")
        browser.send(page, "/ui/sign-in/", {"name": "outsider", "password": PASSWORD}, User_Agent=f"Browser/{n} <b>")
    page = first.get("/ui/sessions/")
    assert "Browser/0 <b> (this one) 127.0.0.1" in page.text
    keys = [key for key, *_ in session_rows(world, "outsider")]
    assert first.send(page, f"/ui/sessions/{keys[1]}/end/").status == 303
    assert (first.name(), second.name(), third.name()) == ("outsider", "", "outsider")
    assert first.send(first.get("/ui/sessions/"), "/ui/sessions/end/").status == 303
    assert (first.name(), third.name()) == ("outsider", "")
    assert [subject for _, subject, _ in events(world, "session.end")][-2:] == ["outsider", "outsider"]
    stranger = Browser(world)
    stranger.sign_in("bea", PASSWORD)
    form = stranger.get("/ui/sessions/").form("/ui/sign-out/").fields
    told = {stranger.ask("POST", f"/ui/sessions/{key}/end/", form).status for key in (keys[0], "absent", "x" * 64)}
    assert told == {404}
    assert first.name() == "outsider"


def test_the_api_lists_and_ends_sessions(world):
    browser, other = Browser(world), Browser(world)
    browser.sign_in("outsider", PASSWORD)
    other.sign_in("bea", PASSWORD)
    own = Api(world, ("outsider", PASSWORD))
    assert {item["user"] for item in own.items("sessions/?limit=1")} == {"outsider"}
    assert {item["user"] for item in Api(world).items("sessions/")} >= {"outsider", "bea"}
    keys = [key for key, *_ in session_rows(world, "bea")]
    for method in ("get", "delete"):
        absent, hidden = (getattr(own, method)(f"sessions/{key}/") for key in ("absent", keys[-1]))
        assert (absent.status, hidden.status) == (404, 404)
        assert hidden.body.decode().replace(keys[-1], "absent") == absent.body.decode()
    assert json.loads(own.delete("sessions/?user=bea").body) == {"ended": 0}
    assert other.name() == "bea"
    assert Api(world).delete(f"sessions/{keys[-1]}/").status == 204
    assert other.name() == ""
    assert json.loads(own.delete("sessions/").body)["ended"] >= 1
    assert browser.name() == ""
    narrowed = json.loads(own.post("tokens/", {"scopes": ["artifact:read@*"]}).body)["secret"]
    browser.sign_in("outsider", PASSWORD)
    thief = Api(world, ("x", narrowed))
    assert (thief.items("sessions/"), json.loads(thief.delete("sessions/").body)) == ([], {"ended": 0})
    assert browser.name() == "outsider"


def test_the_api_and_artefacts_know_no_cookies(world):
    """And a page knows no Authorization header."""
    browser = Browser(world)
    browser.sign_in("admin", ADMIN_PASSWORD)
    cookie = {"Cookie": f"entrepot-session={browser.cookie('entrepot-session')}"}
    assert world.request("GET", "/api/v1/me/", headers=cookie).status == 401
    assert world.request("GET", "/raw/team/file", headers=cookie).status == 401
    assert world.request("PUT", "/raw/team/x", b"x", headers=cookie).status == 401
    assert world.request("GET", "/ui/account/", user=ADMIN).status == 303


# Cookies, forms, headers


def flags(line: str) -> set[str]:
    return {part.strip() for part in line.split(";")[1:] if not part.strip().startswith(("expires", "Max-Age"))}


def test_cookies_are_for_this_server_and_no_script(world):
    browser = Browser(world)
    page, there = browser.get("/ui/sign-in/"), browser.get("/ui/sign-in/liar/")
    landed = browser.send(page, "/ui/sign-in/", {"name": "bea", "password": PASSWORD})
    cookies = {**page.cookies, **there.cookies, **landed.cookies}
    assert set(cookies) == {"entrepot-csrf", "entrepot-sign-in", "entrepot-session"}
    assert all(flags(line) == {"HttpOnly", "Path=/", "SameSite=Lax"} for line in cookies.values()), cookies
    assert "expires" not in landed.cookies["entrepot-session"]  # the browser forgets it when it is closed
    assert "Max-Age=600" in there.cookies["entrepot-sign-in"]


def test_over_tls_no_other_host_and_no_page_without_tls_sets_them(server, scripted):
    here = server(ENTREPOT_TLS="self")
    here.other = scripted()
    here.apply({"providers": [{"name": "other", "issuer": here.other.url, "client_id": "entrepot", "client_secret": "x"}],
                "users": [{"name": "bea", "password": PASSWORD}]})  # fmt: skip
    browser = Browser(here)
    page, there = browser.get("/ui/sign-in/"), browser.get("/ui/sign-in/other/")
    landed = browser.send(page, "/ui/sign-in/", {"name": "bea", "password": PASSWORD}, Referer=page.url)
    cookies = {**page.cookies, **there.cookies, **landed.cookies}
    assert set(cookies) == {"__Host-entrepot-csrf", "__Host-entrepot-sign-in", "__Host-entrepot-session"}
    assert all(flags(line) == {"HttpOnly", "Path=/", "SameSite=Lax", "Secure"} for line in cookies.values()), cookies
    assert browser.name() == "bea"
    key = browser.cookie("__Host-entrepot-session")
    for name, status in (("entrepot-session", 303), ("__Host-entrepot-session", 200)):
        assert here.request("GET", "/ui/account/", headers={"Cookie": f"{name}={key}"}).status == status


def test_a_form_of_another_site_does_nothing(world):
    browser = Browser(world)
    browser.sign_in("bea", PASSWORD)
    page = browser.get("/ui/tokens/")
    right = page.form("/ui/sign-out/").fields["csrfmiddlewaretoken"]
    made = world.query("SELECT count(*) FROM accounts_token")
    key = session_rows(world, "bea")[-1][0]
    for path in ("tokens/", "sign-out/", "sign-in/", "sessions/end/", f"sessions/{key}/end/", "tokens/1/revoke/", "nowhere/"):
        for fields in ({}, {"csrfmiddlewaretoken": ""}, {"csrfmiddlewaretoken": "a" * 64}, {"csrfmiddlewaretoken": right[:-1]}):
            page = browser.ask("POST", f"/ui/{path}", {"lifetime": "7d", **fields})
            assert page.status == 403, path
            assert "csrf" in page.text
        page = browser.ask("POST", f"/ui/{path}", {"csrfmiddlewaretoken": right}, Origin="https://evil.example")
        assert page.status == 403
    assert browser.name() == "bea"
    assert world.query("SELECT count(*) FROM accounts_token") == made
    thief = Browser(world)
    own = thief.get("/ui/sign-in/").form("/ui/sign-in/").fields["csrfmiddlewaretoken"]
    assert browser.ask("POST", "/ui/tokens/", {"lifetime": "7d", "csrfmiddlewaretoken": own}).status == 403


PAGES = ("", "sign-in/", "account/", "tokens/", "sessions/", "nowhere/", "sign-in/none/", "sign-in/down/", "sign-in/other/done/")


@pytest.mark.parametrize("name", ["", "bea"])
def test_every_page_says_what_a_browser_may_do_with_it(world, name):
    browser = Browser(world)
    if name:
        browser.sign_in(name, PASSWORD)
    for path in PAGES:
        page = browser.get(f"/ui/{path}")
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Referrer-Policy"] == "same-origin"
        assert page.headers["Cache-Control"] == "no-store"
        head = browser.ask("HEAD", f"/ui/{path}")
        assert (head.status, head.body) == (page.status, b"")


def test_every_page_works_without_scripts_and_asks_no_other_server(world):
    """And can be used without a mouse or without seeing it: a language, one heading, a main part, labels."""
    browser = Browser(world)
    pages = [browser.get("/ui/sign-in/"), browser.get("/ui/nowhere/")]
    browser.sign_in("bea", PASSWORD)
    token_of(browser, name="a token")
    pages += [browser.get(f"/ui/{path}") for path in PAGES[2:6]]
    for page in pages:
        names = [tag for tag, _ in page.tags]
        assert not {"script", "style", "iframe", "img", "object"} & set(names), page.url
        assert not [name for _, said in page.tags for name in said if name == "style" or name.startswith("on")]
        loaded = [said["href"] for tag, said in page.tags if tag == "link"]
        assert loaded == ["/ui/style.css"]
        assert all(link.startswith(("/ui/", "#")) for link in page.links)
        assert ("html", {"lang": "en"}) in page.tags
        assert names.count("h1") == names.count("main") == names.count("title") == 1
        labelled = {said["for"] for tag, said in page.tags if tag == "label"}
        shown = [said for tag, said in page.tags if tag in ("input", "select", "textarea") and said.get("type") != "hidden"]
        assert all(said["id"] in labelled for said in shown), page.url
    sheet = browser.get("/ui/style.css")
    assert (sheet.status, sheet.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert b"prefers-color-scheme: dark" in sheet.body
    assert b"url(" not in sheet.body
    assert browser.get("/ui/style.css", If_None_Match=sheet.headers["ETag"]).status == 304


def test_a_nul_is_refused_wherever_it_stands(world):
    browser = Browser(world)
    assert browser.sign_in("b\0", PASSWORD).status == browser.sign_in("bea", "\0").status == 400
    assert browser.sign_in("bea", PASSWORD).status == 303
    fields = browser.get("/ui/tokens/").form("/ui/tokens/").fields
    answers = [browser.ask("POST", "/ui/sessions/%00/end/", fields), browser.get("/ui/sign-in/other/done/?code=%00&state=x")]
    answers += [browser.ask("POST", "/ui/tokens/", {**fields, "name": "a\0", "lifetime": "7d"})]
    assert [(page.status, "request.text" in page.text) for page in answers] == [(400, True)] * 3


def test_a_browser_that_comes_to_the_server_is_led_to_the_pages(world):
    browser = Browser(world)
    assert urlsplit(browser.go(browser.get("/", Accept="text/html,*/*")).url).path == "/ui/sign-in/"
    assert b"an artifact registry" in world.request("GET", "/", headers={"Accept": "*/*"}).body


@pytest.mark.parametrize(
    ("path", "takes"),
    [("", "GET, HEAD"), ("sign-in/", "GET, HEAD, POST"), ("sign-in/other/", "GET, HEAD"), ("sign-in/other/done/", "GET, HEAD"),
     ("sign-out/", "POST"), ("account/", "GET, HEAD"), ("tokens/", "GET, HEAD, POST"), ("tokens/1/revoke/", "POST"),
     ("sessions/", "GET, HEAD"), ("sessions/end/", "POST"), ("sessions/x/end/", "POST")],
)  # fmt: skip
def test_a_page_takes_no_method_but_its_own(world, path, takes):
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        answer = world.request(method, f"/ui/{path}", b"" if method in ("POST", "PUT", "PATCH") else None)
        assert (answer.status == 405) == (method not in takes.split(", ")), method
        if answer.status == 405:
            assert answer.headers["Allow"] == takes


CLOSED = ("account/", "tokens/", "sessions/")
CLOSED_POSTS = ("tokens/", "tokens/1/revoke/", "sessions/end/", "sessions/x/end/", "sign-out/")


def test_who_is_not_signed_in_is_led_to_where_they_can(world):
    browser = Browser(world)
    fields = browser.get("/ui/sign-in/").form("/ui/sign-in/").fields
    answers = [browser.get(f"/ui/{path}") for path in CLOSED]
    answers += [browser.ask("POST", f"/ui/{path}", fields) for path in CLOSED_POSTS]
    assert {(page.status, urlsplit(page.location).path) for page in answers} == {(303, "/ui/sign-in/")}


# Tokens


def test_a_token_does_no_more_than_its_scopes_and_ends_when_it_is_revoked(world):
    world.sso.knows("u-tom", preferred_username="tom", groups=["a"])
    browser = Browser(world)
    world.sso.sign_in(browser, "u-tom")
    narrow = token_of(browser, scopes="artifact:write@team\r\n\r\n")
    assert reads(world, narrow) == 404
    wide = token_of(browser, name="<b>wide</b>")
    assert reads(world, wide) == 200
    page = browser.get("/ui/tokens/")
    assert "<b>wide</b>" in page.text  # as text
    number = world.query("SELECT max(id) FROM accounts_token")[0]
    assert browser.send(page, f"/ui/tokens/{number}/revoke/").status == 303
    assert reads(world, wide) == 401
    assert "revoked" in browser.get("/ui/tokens/").text


@pytest.mark.parametrize(
    ("fields", "rule"),
    [({"scopes": "artifact:read"}, "says no repositories"), ({"scopes": "nonsense@x"}, "Unknown permission"),
     ({"lifetime": "1000d"}, "how long"), ({"name": "x" * 101}, "at most 100"),
     ({"scopes": "\n".join(f"artifact:read@r{n}" for n in range(101))}, "1 to 100")],
)  # fmt: skip
def test_a_token_that_cannot_be_is_refused_in_words_and_the_form_is_kept(world, fields, rule):
    browser = Browser(world)
    browser.sign_in("bea", PASSWORD)
    made = world.query("SELECT count(*) FROM accounts_token")
    page = browser.send(browser.get("/ui/tokens/"), "/ui/tokens/", {"lifetime": "7d", **fields})
    assert page.status == 400
    assert rule in page.text
    assert page.form("/ui/tokens/").fields["name"] == fields.get("name", "")
    assert world.query("SELECT count(*) FROM accounts_token") == made


def test_anothers_token_is_as_one_that_is_not_there(world):
    browser = Browser(world)
    browser.sign_in("bea", PASSWORD)
    number = json.loads(Api(world).post("tokens/").body)["id"]
    form = browser.get("/ui/tokens/").form("/ui/sign-out/").fields
    told = {browser.ask("POST", f"/ui/tokens/{one}/revoke/", form).text for one in (number, 999_999, 2**63)}
    assert len(told) == 1
    assert "Not Found" in told.pop()
    assert Api(world).read(f"tokens/{number}/")["revoked_at"] is None


def test_a_token_that_expires_soon_is_warned_of(world):
    browser = Browser(world)
    browser.sign_in("bea", PASSWORD)
    token_of(browser, lifetime="90d", name="far")
    token_of(browser, lifetime="30d", name="near")
    earlier(world, "accounts_token", "expires_at", 24 * 28, "name = 'near'")
    page = browser.get("/ui/tokens/")
    assert "(near) expires soon" in page.text
    assert "(far) expires soon" not in page.text


# The configuration


def test_a_provider_is_written_read_and_removed_by_who_manages_users(world, scripted):
    one = scripted()
    item = {"issuer": one.url, "client_id": "entrepot", "client_secret": "a-secret-that-nobody-sees", "groups_claim": "roles"}
    api = Api(world)
    assert api.put("providers/brief/", item).status == 201
    read = api.read("providers/brief/")
    assert read == {"name": "brief", **item, "client_secret": {"env": "ENTREPOT_SECRET_BRIEF_CLIENT_SECRET"}}
    assert api.put("providers/brief/", read).status == 200
    assert "a-secret" not in str(world.rows("SELECT settings FROM accounts_source"))
    moved = api.put("providers/brief/", {**read, "issuer": "https://evil.example"})
    assert (moved.status, rule(moved)) == (400, "secret.origin")
    one.claims = {"sub": "brief", "preferred_username": "brief", "roles": ["x"]}
    one.client_secret = item["client_secret"]
    browser = Browser(world)
    back = one.allow(browser.get("/ui/sign-in/brief/").location)
    assert browser.get(back).status == 303
    assert "brief:x" in browser.get("/ui/account/").text
    secret = token_of(browser)
    assert api.delete("providers/brief/").status == 204
    assert browser.name() == ""
    assert Api(world, ("x", secret)).get("me/").status == 401
    assert browser.get("/ui/sign-in/brief/").status == 404


@pytest.mark.parametrize(
    "wrong",
    [{"issuer": "http://sso.example.org"}, {"issuer": "ftp://sso.example.org"}, {"issuer": "https://a:b@sso.example.org"},
     {"issuer": "https://sso.example.org?x"}, {"issuer": "https://sso.example.org#x"}, {"issuer": "sso"},
     {"issuer": "http://localhost.evil/"},
     {"scopes": ["profile"]}, {"scopes": ["openid", "a b"]}, {"stale": "5m"}, {"stale": "soon"}, {"client_id": ""},
     {"colour": "red"}],
)  # fmt: skip
def test_a_provider_that_cannot_be_is_refused_by_its_key(world, wrong):
    answer = Api(world).put("providers/wrong/", {"issuer": "https://sso.example.org", "client_id": "entrepot", **wrong})
    assert (answer.status, rule(answer)) == (400, "configuration.form")
    assert next(iter(wrong)) in json.loads(answer.body)["detail"]


@pytest.mark.parametrize("name", ["A", "a_b", "a.b", "-a", "a:b", "x" * 65])
def test_a_providers_name_stands_in_addresses_and_before_groups(world, name):
    answer = Api(world).put(f"providers/{name}/", {"issuer": "https://sso.example.org", "client_id": "entrepot"})
    assert answer.status == 400


def test_an_issuer_is_that_of_one_provider(world):
    answer = Api(world).put("providers/twin/", {"issuer": world.sso.url, "client_id": "entrepot"})
    assert (answer.status, rule(answer)) == (409, "provider.issuer")


def test_a_provider_that_gets_another_issuer_vouches_for_nobody_of_before(world, scripted):
    one, other = scripted(claims={"sub": "moved", "preferred_username": "moved"}), scripted()
    item = {"client_id": "entrepot", "client_secret": one.client_secret}
    Api(world).put("providers/moving/", {**item, "issuer": one.url})
    browser = Browser(world)
    assert browser.get(one.allow(browser.get("/ui/sign-in/moving/").location)).status == 303
    secret = token_of(browser)
    assert Api(world).put("providers/moving/", {**item, "issuer": other.url, "title": "Moved"}).status == 200
    assert Api(world, ("x", secret)).get("me/").status == 401
    assert browser.name() == ""
    other.claims = one.claims
    page = browser.get(other.allow(browser.get("/ui/sign-in/moving/").location))
    assert (page.status, "identity.name" in page.text) == (403, True)  # the same name and subject, and another person


def test_a_file_of_the_server_is_named_by_who_manages_the_system(world):
    world.apply({"roles": [{"name": "clerk", "permissions": ["user:manage"]}], "users": [{"name": "clerk", "password": PASSWORD}],
                 "grants": [{"role": "clerk", "users": ["clerk"]}]})  # fmt: skip
    clerk, item = Api(world, ("clerk", PASSWORD)), {"issuer": "https://sso.example.org", "client_id": "entrepot"}
    refused = clerk.put("providers/corp/", {**item, "ca": "/etc/passwd"})
    assert (refused.status, rule(refused)) == (403, "provider.ca")
    assert clerk.put("providers/corp/", item).status == 201
    assert Api(world).put("providers/corp/", {**item, "ca": "/etc/ca.pem"}).status == 200
    assert clerk.put("providers/corp/", {**item, "ca": "/etc/ca.pem", "title": "Corp"}).status == 200
    assert clerk.delete("providers/corp/").status == 204
