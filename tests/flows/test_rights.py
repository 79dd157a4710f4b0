"""Who may do what, through every way in: endpoint x identity x member, each as a table."""

from __future__ import annotations

import itertools

import pytest

from repos.format import installed
from tests.contract.samples import SAMPLES, url
from tests.parts.server import ADMIN_PASSWORD

ADMIN = ("admin", ADMIN_PASSWORD)
PASSWORD = "the-password-of-everybody"
WAYS = ("open", "team", "secret")
"""Local repositories: readable by anybody, by the team, by the owner. `everything` is a virtual of them, open to all."""
READERS = {
    "nobody": {"open"},
    "outsider": {"open"},
    "member": {"open", "team"},
    "owner": {"open", "team", "secret"},
}
DOCUMENTS = {"go": "corp.example/{0}/@v/list", "oci": "corp.example/{0}/tags/list"}


@pytest.fixture(scope="module", params=sorted(SAMPLES))
def form(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def world(server, upstream, form):
    up = upstream()
    here = server()
    here.apply(
        {
            "repositories": [
                *({"key": key, "format": form, "kind": "local"} for key in WAYS),
                {"key": "cache", "format": form, "kind": "remote", "upstreams": [{"url": up.url}]},
                {"key": "everything", "format": form, "kind": "virtual", "members": [*WAYS, "cache"], "deploy_to": "team"},
            ],
            "groups": [{"name": "team"}],
            "users": [
                {"name": "outsider", "password": PASSWORD},
                {"name": "member", "password": PASSWORD, "groups": ["team"]},
                {"name": "owner", "password": PASSWORD},
            ],
            "grants": [
                {"role": "reader", "anonymous": True, "repositories": ["open", "everything"]},
                {"role": "developer", "groups": ["team"], "repositories": ["team", "everything"]},
                {"role": "owner", "users": ["owner"], "repositories": ["*"]},
            ],
        }
    )
    here.upstream = up
    for n, key in enumerate(WAYS):
        sample = SAMPLES[form]
        path, content = sample.other_path(n), sample.other_content(n)
        assert here.request("PUT", url(form, key, path), content, SAMPLES[form].headers, user=ADMIN).status == 201
        up.routes[sample.at_upstream(path)] = b"from the public upstream"
    return here


def login(name: str) -> tuple[str, str] | None:
    return None if name == "nobody" else (name, PASSWORD)


def refused(identity: str) -> int:
    return 401 if identity == "nobody" else 404


@pytest.mark.parametrize(("identity", "member", "method"), [*itertools.product(READERS, WAYS, ("GET", "HEAD"))])
def test_a_virtual_serves_nobody_what_its_member_would_not(world, form, identity, member, method):
    """By the virtual repository and by the member alike, and the name is asked of no upstream for those who may not read it."""
    path = SAMPLES[form].other_path(WAYS.index(member))
    may = member in READERS[identity]
    direct = world.request(method, url(form, member, path), user=login(identity))
    assert direct.status == (200 if may else refused(identity))
    virtual = world.request(method, url(form, "everything", path), user=login(identity))
    assert virtual.status == (200 if may else 404)  # the virtual itself is open to all, so nobody is asked to sign in
    assert world.upstream.asked(SAMPLES[form].at_upstream(path)) == 0


@pytest.mark.parametrize(("identity", "member"), [*itertools.product(READERS, WAYS)])
def test_an_index_through_a_virtual_lists_only_what_the_reader_may_see(world, form, identity, member):
    if form not in DOCUMENTS:
        assert form == "raw"  # which has no index yet
        return
    package = f"other{WAYS.index(member)}"
    answer = world.request("GET", url(form, "everything", DOCUMENTS[form].format(package)), user=login(identity))
    assert answer.status == (200 if member in READERS[identity] else 404)
    assert (b"v1.0" in answer.body) == (member in READERS[identity])


OWN = ("Date", "X-Request-Id", "Content-Length")
"""Headers that each answer has for itself."""


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize("identity", ["nobody", "outsider"])
def test_hidden_and_absent_are_the_same_answer(world, form, identity, method):
    """Status, body and headers: of a repository that is not there, one that may not be read, and a path in it."""
    sample = SAMPLES[form]
    body = sample.other_content(2) if method == "PUT" else None
    path = sample.other_path(2)
    answers = [
        world.request(method, url(form, key, path), body, sample.headers, login(identity))
        for key in ("secret", "no-such-repository")
    ]
    missing = sample.other_path(3)
    answers.append(world.request(method, url(form, "secret", missing), body, sample.headers, login(identity)))

    def plain(text: str) -> str:
        """Without what only repeats the question: a client is told which name to ask a token for."""
        for asked, other in (("no-such-repository", "secret"), (missing, path), (package(missing), package(path))):
            text = text.replace(asked, other)
        return text

    package = installed()[form].package
    told = {
        (answer.status, plain(answer.reason), plain(answer.body.decode()),
         tuple(sorted((name, plain(value)) for name, value in answer.headers.items() if name not in OWN)))
        for answer in answers
    }  # fmt: skip
    assert len(told) == 1
    assert told.pop()[0] == refused(identity)


VERBS = {
    "artifact:read": ("GET",),
    "artifact:write": ("PUT",),
    "artifact:delete": ("DELETE",),
}


@pytest.mark.parametrize("scope", ["artifact:read", "artifact:write", "artifact:delete", "artifact:overwrite"])
def test_a_token_does_only_what_its_scope_says(world, form, scope):
    """Verb x scope: the owner's token with one permission, of all that the owner may."""
    done = world.manage("token", "create", "owner", "--scope", "artifact:read@team", "--scope", f"{scope}@team")
    token = done.stdout.split()[-1]
    user = ("any-name", token)
    path, content = SAMPLES[form].other_path(20), SAMPLES[form].other_content(20)
    world.request("PUT", url(form, "team", path), content, SAMPLES[form].headers, user=ADMIN)
    new, new_content = SAMPLES[form].other_path(21), SAMPLES[form].other_content(21)
    assert world.request("GET", url(form, "team", path), user=user).status == 200
    put = world.request("PUT", url(form, "team", new), new_content, SAMPLES[form].headers, user=user)
    assert put.status == (201 if scope == "artifact:write" else 403)
    deleted = world.request("DELETE", url(form, "team", path), user=user)
    assert deleted.status == (SAMPLES[form].deleted if scope == "artifact:delete" else 403)
    assert world.request("GET", url(form, "secret", SAMPLES[form].other_path(2)), user=user).status == 404
    world.request("DELETE", url(form, "team", new), user=ADMIN)


def test_a_grant_on_paths_opens_those_paths_alone(world, form):
    package = installed()[form].package(SAMPLES[form].other_path(30))
    world.apply({"grants": [{"role": "reader", "users": ["outsider"], "repositories": ["secret"], "paths": [package]}]})
    for n in (30, 31):
        world.request(
            "PUT",
            url(form, "secret", SAMPLES[form].other_path(n)),
            SAMPLES[form].other_content(n),
            SAMPLES[form].headers,
            user=ADMIN,
        )
    here, there = (
        world.request("GET", url(form, "secret", SAMPLES[form].other_path(n)), user=login("outsider")).status for n in (30, 31)
    )
    assert (here, there) == (200, 404)


def test_a_right_that_is_taken_away_is_gone_with_the_next_request(world, form):
    path = SAMPLES[form].other_path(1)
    world.apply({"users": [{"name": "guest", "password": PASSWORD, "groups": ["team"]}]})
    assert world.request("GET", url(form, "team", path), user=("guest", PASSWORD)).status == 200
    world.apply({"users": [{"name": "guest"}]})
    assert world.request("GET", url(form, "team", path), user=("guest", PASSWORD)).status == 404
    world.apply({"users": [{"name": "guest", "inactive": True}]})
    assert world.request("GET", url(form, "team", path), user=("guest", PASSWORD)).status == 401


def test_every_url_is_known_to_these_tests():
    """A new way in needs a table of its own here."""
    from django.urls import get_resolver

    mounts = {str(pattern.pattern) for pattern in get_resolver().url_patterns}
    formats = {form.mount for form in installed().values()}
    assert {mount for mount in mounts if not any(form in mount for form in formats)} <= OPEN_TO_ALL | OF_ITS_OWN


OPEN_TO_ALL = {"", "healthz", "readyz"}
OF_ITS_OWN = {"api/", "ui/"}
"""Mounts whose rights are told elsewhere: test_api_rights, test_sign_in."""
