"""Docker's token flow: what a pass is given for, what it opens, and when it is worth nothing any more."""

from __future__ import annotations

import base64
import itertools
import json
import re
from urllib.parse import urlencode

import pytest

from tests.parts.api import ADMIN, PASSWORD, Api
from tests.parts.images import plain
from tests.parts.oci import MANIFEST, digest
from tests.parts.registryclient import CAST, RegistryClient, asked, code
from tests.parts.server import Answer

ABSENT = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def world(server):
    here = server(ENTREPOT_WORKERS="2")
    here.apply(CAST)
    owner = RegistryClient(here, "local").by("owner")
    for image in ("app", "team/app", "other"):
        owner.of(image).push(plain(image), "v1")
    owner.by("owner", "open").of("app").push(plain("open"), "v1")
    owner.by("owner", "secret").of("app").push(plain("secret"), "v1")
    return here


@pytest.fixture
def images(world) -> RegistryClient:
    return RegistryClient(world, "local").by("developer")


def scope(actions: str, name: str = "local/app") -> str:
    return f"repository:{name}:{actions}"


def may(images: RegistryClient, path: str = "app/manifests/v1", repository: str = "local", method: str = "HEAD") -> bool:
    return images.ask(method, f"/v2/{repository}/{path}").status < 400


# How it is asked for


def test_who_is_not_signed_in_learns_where_to_ask_and_for_what(images):
    nobody = images.by("")
    ping = nobody.ask("GET", "/v2/")
    assert ping.status == 401
    assert ping.headers["WWW-Authenticate"] == f'Bearer realm="{images.server.url}/v2/token",service="{images.server.url[7:]}"'
    for method, path, actions in (
        ("GET", "app/manifests/v1", "pull"), ("HEAD", f"app/blobs/{ABSENT}", "pull"), ("GET", "app/tags/list", "pull"),
        ("PUT", "app/manifests/v1", "pull,push"), ("POST", "app/blobs/uploads/", "pull,push"),
        ("PATCH", "app/blobs/uploads/x", "pull,push"), ("DELETE", "app/manifests/v1", "pull,delete"),
    ):  # fmt: skip
        answer = nobody.ask(method, path, b"" if method in ("PUT", "POST", "PATCH") else None)
        assert answer.status == 401
        assert f'scope="repository:local/app:{actions}"' in answer.headers["WWW-Authenticate"]
    assert 'scope="registry:catalog:*"' in nobody.ask("GET", "/v2/_catalog").headers["WWW-Authenticate"]


def test_who_asks_as_told_gets_in(images):
    """The whole dance: 401, the token that it names, and again."""
    refused = images.by("").ask("GET", "app/manifests/v1")
    words = dict(re.findall(r'(\w+)="([^"]*)"', refused.headers["WWW-Authenticate"]))
    asked_at = words["realm"].removeprefix(images.server.url)
    answer = images.ask("GET", f"{asked_at}?{urlencode({name: words[name] for name in ('service', 'scope')})}")
    assert answer.headers["Cache-Control"] == "no-store"
    document = json.loads(answer.body)
    assert document["token"] == document["access_token"]
    assert document["expires_in"] >= 60
    bearer = images.by("").showing(document["token"])
    assert bearer.ask("GET", "app/manifests/v1").status == 200
    assert bearer.ask("GET", "/v2/").status == 200


def form(images: RegistryClient, **fields: str | list[str]) -> Answer:
    return images.by("").ask(
        "POST", "/v2/token", urlencode(fields, doseq=True).encode(), Content_Type="application/x-www-form-urlencoded"
    )


def api_token(world, user: str, *scopes: str) -> str:
    """A lasting token of the user."""
    given = [word for text in scopes for word in ("--scope", text)]
    return world.manage("token", "create", user, *given).stdout.split()[-1]


def test_a_pass_is_given_for_a_form_too(images, world):
    secret = api_token(world, "reader")
    common = {"service": "x", "client_id": "test", "scope": scope("pull")}
    for fields in (
        {"grant_type": "password", "username": "reader", "password": PASSWORD},
        {"grant_type": "password", "username": "whoever", "password": secret},
        {"grant_type": "refresh_token", "refresh_token": secret},
    ):
        answer = form(images, **common, **fields)
        assert answer.status == 200, fields
        assert may(images.showing(json.loads(answer.body)["access_token"]))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 400), ({"grant_type": "client_credentials"}, 400), ({"grant_type": "password"}, 401),
        ({"grant_type": "password", "username": "reader", "password": "wrong"}, 401),
        ({"grant_type": "password", "username": "", "password": ""}, 401),
        ({"grant_type": "password", "username": "AnonymousUser", "password": ""}, 401),
        ({"grant_type": "password", "username": "read\0er", "password": PASSWORD}, 400),
        ({"grant_type": "refresh_token"}, 401), ({"grant_type": "refresh_token", "refresh_token": "x\0"}, 401),
        ({"grant_type": "refresh_token", "refresh_token": PASSWORD}, 401),
    ],
)  # fmt: skip
def test_a_form_that_signs_nobody_in_gets_no_pass(images, fields, status):
    answer = form(images, scope=scope("pull"), **fields)
    assert answer.status == status
    assert b"token" not in answer.body or b'"token"' not in answer.body


def test_wrong_credentials_get_no_pass_even_for_what_anybody_may(images):
    path = f"/v2/token?{urlencode({'scope': scope('pull', 'open/app')})}"
    answer = images.server.request("GET", path, user=("reader", "wrong"))
    assert (answer.status, code(answer)) == (401, "UNAUTHORIZED")


def test_several_scopes_are_asked_for_together(images):
    both = [scope("pull"), scope("pull,push", "local/other")]
    for bearer in (images.token(*both), images.token(" ".join(both))):
        shown = images.showing(bearer)
        assert may(shown) and may(shown, "other/manifests/v1")
        assert may(shown, "other/blobs/uploads/", method="POST")
        assert not may(shown, "app/blobs/uploads/", method="POST")
        assert not may(shown, "team/app/manifests/v1")
    answer = form(images, grant_type="password", username="developer", password=PASSWORD, scope=both)
    assert may(images.showing(json.loads(answer.body)["token"]), "other/manifests/v1")


def test_of_what_is_asked_for_only_what_one_may_is_granted(images):
    team = images.by("team")
    shown = team.showing(team.token(scope("pull,push,delete", "local/team/app"), scope("pull"), scope("pull", "secret/app")))
    assert may(shown, "team/app/manifests/v1") and may(shown, "team/app/blobs/uploads/", method="POST")
    assert not may(shown, "team/app/manifests/v1", method="DELETE")
    assert not may(shown)
    assert not may(shown, repository="secret")


def test_who_is_nobody_gets_a_pass_for_what_anybody_may(images):
    nobody = images.by("")
    shown = nobody.showing(nobody.token(scope("pull,push", "open/app"), scope("pull")))
    assert may(shown, repository="open")
    assert not may(shown, "app/blobs/uploads/", "open", "POST")
    assert not may(shown)
    assert shown.ask("GET", "/v2/").status == 200


@pytest.mark.parametrize(
    "text",
    [
        "", "repository", "repository:local/app", "repository:local/app:", "repository:local/app:fly", "registry:catalog",
        "repository:*:pull", "repository:local/**:pull", "repository:local/*:pull", "repository:**:*", "repository:local/:pull",
        "repository:local/APP:pull", "repository:/app:pull", "repository:local/app:PULL", "artifact:read@**", "\0", "é",
        "repository:local/app\0:pull", "user:local/app:pull",
    ],
)  # fmt: skip
def test_a_scope_that_is_none_grants_nothing(images, text):
    assert not may(images.showing(images.token(text)))


@pytest.mark.parametrize(("method", "path"), [("GET", "/v2/token"), ("POST", "/v2/token"), ("GET", "app/tags/list")])
def test_more_parameters_than_anybody_sends_are_refused_and_no_error_here(images, method, path):
    many = "&".join(f"a{n}=1" for n in range(1500))
    body = many.encode() if method == "POST" else None
    sent = {"Content_Type": "application/x-www-form-urlencoded"} if body else {}
    assert images.ask(method, path if body else f"{path}?{many}", body, **sent).status in (400, 414)
    short = "&".join(f"a{n}" for n in range(1100))  # no longer than a request's first line may be
    assert images.ask("GET", f"{path}?{short}").status == 400


def test_a_pass_for_nothing_opens_nothing_but_the_ping(images):
    shown = images.showing(images.token())
    assert shown.ask("GET", "/v2/").status == 200
    assert not may(shown)
    assert json.loads(shown.ask("GET", "/v2/_catalog").body)["repositories"] == []


def test_more_scopes_than_are_taken_are_refused(images):
    answer = images.ask("GET", f"/v2/token?{urlencode({'scope': ' '.join([scope('pull')] * 51)})}")
    assert answer.status == 413


def test_a_pass_for_the_catalogue_lists_what_one_may_read(images):
    whole = json.loads(images.ask("GET", "/v2/_catalog").body)
    assert "local/app" in whole["repositories"]
    assert "secret/app" not in whole["repositories"]
    shown = images.showing(images.token("registry:catalog:*"))
    assert json.loads(shown.ask("GET", "/v2/_catalog").body) == whole


def test_a_pass_for_the_catalogue_goes_no_further_than_the_token_it_was_given_for(images, world):
    secret = api_token(world, "owner", "artifact:read@open")
    answer = form(images, grant_type="refresh_token", refresh_token=secret, scope="registry:catalog:*")
    shown = images.showing(json.loads(answer.body)["token"])
    assert json.loads(shown.ask("GET", "/v2/_catalog").body)["repositories"] == ["open/app"]


# What it opens


VERBS = {
    "GET manifest": ("GET", "manifests/v1", "pull"),
    "HEAD manifest": ("HEAD", "manifests/v1", "pull"),
    "PUT manifest": ("PUT", "manifests/v1", "push"),
    "DELETE manifest": ("DELETE", "manifests/none", "delete"),
    "GET blob": ("GET", f"blobs/{digest(b'app')}", "pull"),
    "HEAD blob": ("HEAD", f"blobs/{digest(b'app')}", "pull"),
    "DELETE blob": ("DELETE", f"blobs/{ABSENT}", "delete"),
    "POST upload": ("POST", "blobs/uploads/", "push"),
    "POST whole": ("POST", f"blobs/uploads/{asked({'digest': digest(b'app')})}", "push"),
    "POST mount": ("POST", f"blobs/uploads/{asked({'mount': ABSENT})}", "push"),
    "GET upload": ("GET", "blobs/uploads/none", "push"),
    "PATCH upload": ("PATCH", "blobs/uploads/none", "push"),
    "PUT upload": ("PUT", f"blobs/uploads/none{asked({'digest': digest(b'app')})}", "push"),
    "DELETE upload": ("DELETE", "blobs/uploads/none", "push"),
    "GET tags": ("GET", "tags/list", "pull"),
    "GET referrers": ("GET", f"referrers/{ABSENT}", "pull"),
}
"""Method, path of an image and the word that it takes; what is to be deleted is not there, so that nothing is lost."""


@pytest.fixture(scope="module")
def passes(world) -> dict[str, str]:
    """The owner's, who may do everything, for each set of words."""
    owner = RegistryClient(world, "local").by("owner")
    words = ("pull", "push", "delete")
    sets = [",".join(some) for count in range(4) for some in itertools.combinations(words, count)]
    return {some: owner.token(scope(some or "none")) for some in sets} | {"*": owner.token(scope("*"))}


@pytest.mark.parametrize("verb", VERBS)
def test_a_pass_does_only_what_its_scope_says(images, passes, verb):
    """reliability: verb x scope. To push is not to delete, and neither is to pull."""
    method, path, needed = VERBS[verb]
    empty = None if method in ("GET", "HEAD") else b""
    body = {"PUT manifest": images.of("app").get("v1").body, "POST whole": b"app"}.get(verb, empty)
    for words, bearer in passes.items():
        for image in ("app", "team/app"):
            answer = images.showing(bearer).ask(method, f"{image}/{path}", body, Content_Type=MANIFEST)
            if image == "app" and (needed in words or words == "*"):
                assert answer.status in (200, 201, 202, 404), (verb, words)
                continue
            assert answer.status == 401, (verb, words, image)
            told = answer.headers["WWW-Authenticate"]
            assert 'error="insufficient_scope"' in told
            assert re.search(rf'scope="repository:local/{image}:[a-z,]*{needed}', told)
            assert method == "HEAD" or code(answer) == "DENIED"


def test_a_pass_tells_nothing_of_what_it_does_not_open(images):
    """What one may not read and what is absent are one answer."""
    shown = images.showing(images.token(scope("pull")))
    answers = [shown.ask("GET", f"/v2/{key}/app/manifests/v1") for key in ("secret", "nowhere")]
    assert [answer.status for answer in answers] == [401, 401]
    assert answers[0].body == answers[1].body
    assert answers[0].headers["WWW-Authenticate"].replace("secret", "nowhere") == answers[1].headers["WWW-Authenticate"]


def test_to_mount_from_elsewhere_takes_a_pass_for_both(images):
    """And whoever may have one is told to ask for it; who may not learns nothing."""
    name = digest(b"team/app")
    narrow = images.showing(images.token(scope("pull,push")))
    answer = narrow.of("app").begin(mount=name, from_="local/team/app")
    assert answer.status == 401
    assert 'scope="repository:local/app:pull,push repository:local/team/app:pull"' in answer.headers["WWW-Authenticate"]
    both = images.showing(images.token(scope("pull,push"), scope("pull", "local/team/app")))
    assert both.of("app").begin(mount=name, from_="local/team/app").status == 201
    assert narrow.of("app").begin(mount=digest(b"secret"), from_="secret/app").status == 202


def test_a_pass_by_a_virtual_repository_pulls_and_pushes_there(images):
    shown = images.showing(images.token(scope("pull,push", "virtual/app")))
    assert may(shown, repository="virtual")
    assert may(shown, "app/blobs/uploads/", "virtual", "POST")
    assert not may(shown, "other/manifests/v1", "virtual")


# When it is worth nothing


def test_a_pass_is_of_no_use_elsewhere(images):
    """It signs in where images are, and neither tells anything else nor becomes a token that lasts."""
    owner = images.by("owner")
    shown = owner.showing(owner.token(scope("*"), "registry:catalog:*"))
    for path in ("me/", "repositories/", "tokens/", "repositories/local/assets/"):
        assert shown.ask("GET", f"/api/v1/{path}").status == 401, path
    assert shown.ask("POST", "/api/v1/tokens/", b"{}", Content_Type="application/json").status == 401


def test_a_pass_gets_no_further_pass(images):
    shown = images.showing(images.token(scope("pull")))
    assert shown.ask("GET", f"/v2/token?{urlencode({'scope': scope('pull,push')})}").status == 401
    assert form(images, grant_type="refresh_token", refresh_token=shown.bearer).status == 401
    assert form(images, grant_type="password", username="developer", password=shown.bearer).status == 401


def test_a_pass_is_no_password(images):
    bearer = images.token(scope("pull"))
    for pair in ((bearer, ""), ("developer", bearer)):
        assert images.server.request("GET", "/v2/local/app/manifests/v1", user=pair).status == 401


def tampered(bearer: str) -> list[str]:
    """With one character changed, here and there, and cut, longer or of other case."""
    places = [*range(len("entp_"), len(bearer), 7), len(bearer) - 1]
    changed = [f"{bearer[:at]}{'A' if bearer[at] != 'A' else 'B'}{bearer[at + 1 :]}" for at in places]
    said = base64.urlsafe_b64encode(b'[1,null,["artifact:read@**"]]').decode().rstrip("=")
    forged = f"entp_{said}.{bearer.partition('.')[2]}"
    return [*changed, forged, bearer[:-5], bearer + "x", bearer.upper(), "entp_", "entp"]


def test_a_pass_that_was_changed_is_none(images):
    bearer = images.token(scope("pull"))
    assert may(images.showing(bearer))
    for other in tampered(bearer):
        answer = images.showing(other).ask("GET", "app/manifests/v1")
        assert answer.status == 401, other
        assert images.showing(other).ask("GET", "/v2/open/app/manifests/v1").status == 401, "wrong credentials are nobody's"


def jwt(header: dict, signature: bytes = b"") -> str:
    access = [{"type": "repository", "name": "local/app", "actions": ["pull"]}]
    claims = {"iss": "entrepot", "sub": "owner", "aud": "entrepot", "access": access}
    pieces = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(piece).decode().rstrip("=") for piece in pieces)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"}, {"alg": "None", "typ": "JWT"}, {"alg": "HS256"}, {"alg": "HS256", "kid": "/dev/null"},
        {"alg": "RS256", "jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}}, {"alg": "RS256", "jku": "http://127.0.0.1:9/keys"},
        {"alg": "RS256", "x5u": "http://127.0.0.1:9/cert"}, {"alg": "ES256", "x5c": ["AAAA"]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "entp_"])
def test_a_token_of_another_form_signs_nobody_in(images, header, prefix):
    for signature in (b"", b"x" * 32):
        answer = images.showing(prefix + jwt(header, signature)).ask("GET", "app/manifests/v1")
        assert answer.status == 401


@pytest.fixture
def guest(world):
    """A user of the test's own, who may read."""
    world.apply(
        {
            "users": [{"name": "guest", "password": PASSWORD}],
            "grants": [{"role": "developer", "users": ["guest"], "repositories": ["local"]}],
        }
    )
    return RegistryClient(world, "local").by("guest")


def test_a_pass_of_a_user_who_is_no_longer_active_is_refused_at_once(images, guest):
    shown = guest.showing(guest.token(scope("pull,push")))
    assert may(shown)
    shell(images, "from accounts.models import User; User.objects.filter(username='guest').update(is_active=False)")
    assert shown.ask("GET", "app/manifests/v1").status == 401
    shell(images, "from accounts.models import User; User.objects.filter(username='guest').update(is_active=True)")
    assert may(shown)


def shell(images: RegistryClient, code: str) -> None:
    images.server.manage("shell", "-c", code)


def test_a_pass_of_a_revoked_token_is_refused_at_once(images, guest, world):
    secret = api_token(world, "guest")
    answer = form(images, grant_type="refresh_token", refresh_token=secret, scope=scope("pull"))
    shown = images.showing(json.loads(answer.body)["token"])
    assert may(shown)
    api = Api(world, ADMIN)
    number = max(one["id"] for one in api.items("tokens/?user=guest"))
    assert api.delete(f"tokens/{number}/").status == 204
    assert shown.ask("GET", "app/manifests/v1").status == 401


def test_a_pass_is_worth_no_more_than_the_rights_are_when_it_is_shown(images, guest, world):
    shown = guest.showing(guest.token(scope("pull,push")))
    assert may(shown, "app/blobs/uploads/", method="POST")
    shell(images, "from accounts import grants; grants.remove(('developer', 'user', 'guest', 'local', ''))")
    assert shown.ask("HEAD", "app/manifests/v1").status == 401
    shell(images, "from accounts import grants; grants.add(('reader', 'user', 'guest', 'local', ''))")
    assert may(shown)
    assert not may(shown, "app/blobs/uploads/", method="POST")


def test_a_pass_that_has_expired_is_refused(images):
    old = signed(images, seconds_ago=301)
    assert images.showing(old).ask("GET", "app/manifests/v1").status == 401
    assert may(images.showing(signed(images, seconds_ago=200)))


def signed(images: RegistryClient, seconds_ago: int) -> str:
    """A pass of the owner's to read all, as it would have been given then."""
    lines = [
        "import time; from accounts import passes; from accounts.actors import Actor; from accounts.models import User",
        "owner = Actor(User.objects.get(username='owner').pk, 'owner')",
        f"then = time.time() - {seconds_ago}",
        "time.time = lambda: then",
        "print(passes.issue(owner, ['artifact:read@**']))",
    ]
    return images.server.manage("shell", "-c", "\n".join(lines)).stdout.split()[-1]
