"""Images by way of a remote repository: tokens, tags, layers, lists, and what an outage of the registry looks like."""

from __future__ import annotations

import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from django.conf import settings

from registry.server import certificate_files
from repos.blobs import CHUNK
from tests.parts import oci
from tests.parts.api import ADMIN
from tests.parts.registry import Registry, Tokens, TokenServer, denying, seen_by
from tests.parts.registryclient import code
from tests.parts.remotes import CONFIG, LAYER, Remote, image, open_remotes, tags
from tests.parts.server import Answer, basic
from tests.parts.upstream import Handler, Route, Upstream, head

LOGIN = ("us", "upstream-secret")
SIGNED_IN: dict[str, Any] = {"username": LOGIN[0], "password": LOGIN[1]}
LARGE = random.Random(5).randbytes(5 * CHUNK)
NOBODY = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def world(server):
    """One process, so that what it knows of a registry is what the next request finds; redirects may lead to this machine."""
    here = server(ENTREPOT_WORKERS="1")
    here.apply({"egress": {"allow": ["127.0.0.1/32"]}})
    yield here
    assert here.manage("fsck", "--scrub", "--grace", "0").stdout.strip() == "clean"


@pytest.fixture(scope="module")
def take(world) -> Iterator[Callable[[], Remote]]:
    yield from open_remotes(world, 160)


@pytest.fixture
def remote(take) -> Remote:
    return take()


@pytest.fixture
def service() -> Iterator[TokenServer]:
    """A token service at another origin than the registry's, which wants a login."""
    one = TokenServer(LOGIN)
    yield one
    one.stop()


@pytest.fixture
def stranger() -> Iterator[Registry]:
    """A host of somebody else's."""
    one = Registry()
    yield one
    one.stop()


def pulled(answer: Answer, content: bytes) -> bool:
    return (answer.status, answer.body) == (200, content)


# Tokens


def test_a_registry_that_asks_for_tokens_is_pulled_from_with_one_token_for_all_of_an_image(remote):
    registry = remote.registry
    registry.tokens = Tokens(registry.url)
    digest = registry.push("team/app", "v1", image(), CONFIG, LAYER)
    for _ in range(3):
        assert pulled(remote.get("team/app/manifests/v1"), image())
    assert pulled(remote.get(f"team/app/manifests/{digest}"), image())
    assert pulled(remote.get(f"team/app/blobs/{oci.digest(LAYER)}"), LAYER)
    assert pulled(remote.get(f"team/app/blobs/{oci.digest(CONFIG)}"), CONFIG)
    assert registry.lines("/token") == ["GET /token?service=scripted&scope=repository%3Ateam%2Fapp%3Apull"]
    assert all(one.startswith("Bearer ") for one in seen_by(registry)), "nobody's credentials"


def test_a_token_service_of_the_registrys_own_gets_its_credentials(remote):
    registry = remote.registry
    remote.configure(**SIGNED_IN)
    registry.tokens = Tokens(registry.url, LOGIN)
    registry.push("team/app", "v1", image())
    assert pulled(remote.get("team/app/manifests/v1"), image())
    asked = [one for one in registry.asked_for if one.path.startswith("/token")]
    assert [one.authorization for one in asked] == [basic(LOGIN)]


@pytest.mark.parametrize("lifetime", [0, -5, 10, 300])
def test_a_token_that_has_expired_is_renewed(remote, lifetime):
    """One that says that it lives on, and is refused all the same, too; none is used at the edge of its time."""
    registry = remote.registry
    registry.tokens = Tokens(registry.url, lifetime=lifetime)
    registry.push("team/app", "v1", image())
    for n in range(1, 4):
        assert pulled(remote.get("team/app/manifests/v1"), image())
        assert len(registry.lines("/token")) >= n
        registry.tokens.given.clear()


def test_each_image_has_a_token_of_its_own(remote):
    registry = remote.registry
    registry.tokens = Tokens(registry.url)
    for name in ("team/one", "team/two"):
        registry.push(name, "v1", image(name))
        assert pulled(remote.get(f"{name}/manifests/v1"), image(name))
    assert list(registry.tokens.given.values()) == [["repository:team/one:pull"], ["repository:team/two:pull"]]


def test_a_token_service_at_another_origin_gets_no_credentials_unless_it_is_named(remote, service):
    """The refusal says by which setting it may have them."""
    registry = remote.registry
    registry.tokens = service.tokens
    registry.push("team/app", "v1", image())
    remote.configure(**SIGNED_IN)
    refused = remote.get("team/app/manifests/v1")
    assert refused.status == 403 and code(refused) == "DENIED"
    assert "auth" in refused.reason and service.url in refused.reason
    assert service.asked_for and not seen_by(service)
    remote.configure(**SIGNED_IN, auth=service.url)
    assert pulled(remote.get("team/app/manifests/v1"), image())
    assert set(seen_by(service)) == {basic(LOGIN)}


def test_a_token_service_at_another_origin_that_wants_no_credentials_sees_none(remote, service):
    registry = remote.registry
    service.tokens.login = None
    registry.tokens = service.tokens
    registry.push("team/app", "v1", image())
    remote.configure(**SIGNED_IN)
    assert pulled(remote.get("team/app/manifests/v1"), image())
    assert len(service.asked_for) == 1 and not seen_by(service)


@pytest.mark.parametrize("signed_in", ["by a token service", "by name and password", "by a token"])
def test_a_layer_that_is_kept_at_another_host_is_fetched_there_without_credentials_or_token(remote, stranger, signed_in):
    registry = remote.registry
    remote.configure(**({"token": "upstream-token"} if signed_in == "by a token" else SIGNED_IN))
    registry.tokens = Tokens(registry.url, LOGIN) if signed_in == "by a token service" else None
    registry.push("team/app", "v1", image(), CONFIG, LAYER)
    stranger.routes["/storage"] = LAYER
    path = f"team/app/blobs/{oci.digest(LAYER)}"

    def kept_elsewhere(handler: Handler) -> None:
        status, body, headers = registry.respond(handler)
        handler.answer(*((307, b"", {"Location": f"{stranger.url}/storage"}) if status == 200 else (status, body, headers)))

    registry.routes[f"/v2/{path}"] = kept_elsewhere
    assert pulled(remote.get(path), LAYER)
    assert stranger.lines() == ["GET /storage"] and not seen_by(stranger)
    assert seen_by(registry), "it got what it needs"


def challenging(challenge: str) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(401, b"{}", {"WWW-Authenticate": challenge})


HOSTILE_REALMS = [
    'Bearer realm="{stranger}/token",service="x"',
    'Bearer realm="{stranger}/token?x=y",service="x"',
    'Bearer realm="//{host}/token"',
    'Bearer realm="http://{own}@{host}/token"',
    'Bearer realm="http://{host}\\@{own}/token"',
    'Bearer realm="http://{own}:80@{host}/token"',
    'Bearer realm="http://{host}#@{own}/token"',
    'Bearer realm="ftp://{host}/token"',
    'Bearer realm="file:///etc/passwd"',
    'Bearer realm="http://[::/token"',
    'Bearer realm="http://{host}:99999/token"',
    'Bearer realm="http://{host}:x/token"',
    'Bearer realm="http:///token"',
    'Bearer realm=""',
    "Bearer",
    "Bearer realm=",
    'Basic realm="{stranger}/token"',
    'Digest realm="{stranger}/token", nonce="1"',
    'Bearer realm="{stranger}/token",scope="registry:catalog:*"',
]


@pytest.mark.parametrize("challenge", HOSTILE_REALMS)
def test_a_challenge_that_leads_elsewhere_gets_nobodys_secret_and_is_no_not_found(remote, stranger, challenge):
    """Nor is the token that a stranger gives worth anything, whatever it is made of."""
    remote.configure(**SIGNED_IN)
    here, there = (one.url.removeprefix("http://") for one in (remote.registry, stranger))
    told = challenge.format(stranger=stranger.url, host=there, own=here)
    stranger.always = b'{"token":"evil"}'
    remote.registry.always = challenging(told)
    answer = remote.get("team/app/manifests/v1")
    assert answer.status in (403, 502), answer
    assert "log tells" not in answer.reason, "a failure of the registry and not of ours"
    assert not seen_by(stranger)


@pytest.mark.parametrize("token", ["", None, 5, "a\r\nX-Evil: 1", "a b", "\xe4", "x" * 20_000, ["a"]])
def test_a_token_that_is_none_is_the_registrys_failure(remote, token):
    registry = remote.registry
    registry.tokens = Tokens(registry.url)
    registry.push("team/app", "v1", image())
    registry.routes["/token?service=scripted&scope=repository%3Ateam%2Fapp%3Apull"] = json.dumps({"token": token}).encode()
    answer = remote.get("team/app/manifests/v1")
    assert answer.status == 502 and "token" in answer.reason
    assert not seen_by(registry)


def test_a_token_service_inside_is_not_asked_though_the_registry_names_it(remote):
    remote.registry.always = challenging('Bearer realm="http://127.0.0.2:9/token"')
    answer = remote.get("team/app/manifests/v1")
    assert answer.status == 502 and "egress.address" in answer.reason


def test_a_token_service_by_plain_http_is_refused_to_a_registry_by_https(world, tmp_path, stranger):
    certificate, key = certificate_files(replace(settings.ENTREPOT, tls="self", data=tmp_path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    secure = Remote(world, Registry(context), "secure")
    try:
        secure.configure(ca=str(certificate), **SIGNED_IN)
        secure.registry.push("team/app", "v1", image())
        assert pulled(secure.get("team/app/manifests/v1"), image())
        for realm in (f"{stranger.url}/token", stranger.url.replace("http", "HTTP") + "/token"):
            secure.registry.always = challenging(f'Bearer realm="{realm}",service="x"')
            answer = secure.get("team/other/manifests/v1")
            assert answer.status == 502 and "plain http" in answer.reason
        assert stranger.connections == 0
    finally:
        secure.registry.stop()


# Names of one part


def test_a_name_of_one_part_is_found_under_library_as_its_own_clients_find_it(remote):
    """And from then on what a digest names, which is the same by either name, is looked for there first."""
    registry = remote.registry
    digest = registry.push("library/debian", "12", image(), CONFIG, LAYER)
    assert pulled(remote.get("debian/manifests/12"), image())
    assert registry.lines("/debian/")[0] == "HEAD /v2/debian/manifests/12"
    registry.asked_for.clear()
    assert pulled(remote.get(f"debian/blobs/{oci.digest(LAYER)}"), LAYER)
    assert registry.lines() == [f"GET /v2/library/debian/blobs/{oci.digest(LAYER)}"]
    assert tags(remote.get("debian/tags/list")) == ["12"]
    assert pulled(remote.get("debian/manifests/12"), image())
    assert remote.get("debian/manifests/12").headers["Docker-Content-Digest"] == digest


def test_a_name_of_one_part_that_the_registry_has_is_its_own(remote):
    """Whatever else was found under library/ before, of that image too."""
    registry = remote.registry
    registry.push("tool", "v1", image("own"))
    registry.push("library/tool", "v1", image("another"))
    registry.push("library/other", "v1", image("other"))
    assert pulled(remote.get("tool/manifests/v1"), image("own"))
    assert not registry.lines("library")
    assert pulled(remote.get("other/manifests/v1"), image("other"))
    registry.push("library/tool", "v0", image("old"))
    assert pulled(remote.get("tool/manifests/v0"), image("old"))
    for name, text in (("tool", "own"), ("library/tool", "another")):
        registry.push(name, "v2", image(f"{text}, newer"))
    assert pulled(remote.get("tool/manifests/v2"), image("own, newer"))
    assert tags(remote.get("tool/tags/list")) == ["v1", "v2"]


def test_a_name_of_several_parts_is_never_looked_for_under_library(remote):
    assert remote.get("team/tool/manifests/v1").status == 404
    assert not remote.registry.lines("library")


def test_what_the_registry_denies_by_its_own_name_is_not_called_missing_for_library_has_none(remote):
    registry = remote.registry
    registry.routes["/v2/tool/manifests/v1"] = 403
    answer = remote.get("tool/manifests/v1")
    assert answer.status == 403 and code(answer) == "DENIED" and "upstream" in answer.reason


def test_referrers_of_an_image_under_library_are_found_there(remote):
    """Though every registry says of any name at all that nothing refers to it."""
    registry = remote.registry
    subject = registry.push("library/debian", "12", image())
    signature = oci.manifest(b"{}", subject=oci.descriptor(image(), oci.MANIFEST))
    registry.push("library/debian", subject.replace(":", "-"), oci.index(signature))
    answer = remote.get(f"debian/referrers/{subject}")
    assert [one["digest"] for one in json.loads(answer.body)["manifests"]] == [oci.digest(signature)]


# Tags


def test_a_tag_is_asked_for_by_head_and_its_bytes_once_by_their_digest(world, remote):
    """HEAD counts against no limit of pulls, and a tag that is what it was is no change here."""
    registry = remote.registry
    digest = registry.push("team/app", "v1", image())
    assert pulled(remote.get("team/app/manifests/v1"), image())
    counts = world.counts()
    for _ in range(3):
        answer = remote.get("team/app/manifests/v1")
        assert pulled(answer, image()) and answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["Content-Type"] == oci.MANIFEST
    assert registry.lines() == [
        "HEAD /v2/team/app/manifests/v1", f"GET /v2/team/app/manifests/{digest}", *["HEAD /v2/team/app/manifests/v1"] * 3,
    ]  # fmt: skip
    assert world.counts() == counts


def test_a_tag_that_moves_to_what_is_here_already_costs_no_pull(remote):
    registry = remote.registry
    for text in ("one", "two"):
        registry.push("team/app", text, image(text))
        assert pulled(remote.get(f"team/app/manifests/{text}"), image(text))
    registry.push("team/app", "two", image("one"))
    assert pulled(remote.get("team/app/manifests/two"), image("one"))
    registry.push("team/app", "three", image("two"))
    assert pulled(remote.get("team/app/manifests/three"), image("two"))
    assert len(registry.lines("GET")) == 2


@pytest.mark.parametrize("how", ["tells no digest", 405, 501, 500])
def test_a_registry_whose_head_says_nothing_is_asked_by_get(remote, how):
    registry = remote.registry
    registry.tells_digests = False
    digest = registry.push("team/app", "v1", image())

    def no_head(handler: Handler) -> None:
        handler.answer(how, b"") if handler.command == "HEAD" else handler.answer(*Registry.respond(registry, handler))

    if isinstance(how, int):
        registry.routes["/v2/team/app/manifests/v1"] = no_head
    answer = remote.get("team/app/manifests/v1")
    assert pulled(answer, image()) and answer.headers["Docker-Content-Digest"] == digest
    assert registry.lines() == ["HEAD /v2/team/app/manifests/v1", "GET /v2/team/app/manifests/v1"]


def test_what_the_client_accepts_is_passed_on_with_what_is_understood_here(remote):
    registry = remote.registry
    registry.push("team/app", "v1", image())
    assert pulled(remote.get("team/app/manifests/v1", Accept="application/vnd.corp.thing+json, */*;q=0.1"), image())
    for asked in registry.asked_for:
        accepted = {one.strip() for one in asked.headers["accept"].split(",")}
        assert accepted == {
            oci.MANIFEST, oci.INDEX, oci.DOCKER_MANIFEST, oci.DOCKER_LIST, "application/vnd.corp.thing+json", "*/*;q=0.1",
        }  # fmt: skip


def test_a_tag_that_moves_is_seen_and_what_it_was_stays_by_its_digest(remote):
    registry = remote.registry
    first = registry.push("team/app", "latest", image("first"))
    assert pulled(remote.get("team/app/manifests/latest"), image("first"))
    registry.push("team/app", "latest", image("second"))
    registry.manifests.pop(("team/app", first))
    assert pulled(remote.get("team/app/manifests/latest"), image("second"))
    registry.asked_for.clear()
    assert pulled(remote.get(f"team/app/manifests/{first}"), image("first"))
    assert registry.asked_for == []


def test_a_tag_is_believed_for_its_lifetime_and_what_a_digest_names_for_ever(remote):
    registry = remote.registry
    remote.configure(cache={"lifetime": "1h"})
    first = registry.push("team/app", "latest", image("first"))
    assert pulled(remote.get("team/app/manifests/latest"), image("first"))
    registry.push("team/app", "latest", image("second"))
    registry.asked_for.clear()
    assert pulled(remote.get("team/app/manifests/latest"), image("first"))
    answer = remote.get(f"team/app/manifests/{first}")
    assert pulled(answer, image("first")) and "immutable" in answer.headers["Cache-Control"]
    assert registry.asked_for == []


def test_a_tag_that_is_gone_is_missing_and_what_it_named_is_not(remote):
    registry = remote.registry
    digest = registry.push("team/app", "v1", image())
    assert remote.get("team/app/manifests/v1").status == 200
    registry.manifests.clear()
    answer = remote.get("team/app/manifests/v1")
    assert answer.status == 404 and code(answer) == "MANIFEST_UNKNOWN"
    assert pulled(remote.get(f"team/app/manifests/{digest}"), image())


LIES = {
    "HEAD names other bytes": lambda registry, digest: {
        f"/v2/team/app/manifests/{digest}": lambda handler: handler.answer(200, image("evil"), {"Content-Type": oci.MANIFEST})
    },
    "GET of the tag states the digest of other bytes": lambda registry, digest: {
        "/v2/team/app/manifests/v1": lambda handler: (
            handler.answer(405, b"")
            if handler.command == "HEAD"
            else handler.answer(200, image("evil"), {"Content-Type": oci.MANIFEST, "Docker-Content-Digest": digest})
        )
    },
}


@pytest.mark.parametrize("name", LIES)
def test_a_digest_that_lies_is_never_served(world, remote, name):
    """Nor kept, by the tag or by either digest; when the registry tells the truth it is."""
    registry = remote.registry
    digest = registry.push("team/app", "v1", image())
    before = world.counts()
    registry.routes |= LIES[name](registry, digest)
    assert remote.get("team/app/manifests/v1").status == 502
    assert world.counts() == before
    registry.routes.clear()
    assert pulled(remote.get("team/app/manifests/v1"), image())


def test_a_manifest_that_is_none_is_the_registrys_failure(world, remote):
    registry = remote.registry
    before = world.counts()
    for body in (b"<html>please sign in</html>", b"[]", b"", oci.manifest(CONFIG, LAYER, manifests=[])):
        registry.routes["/v2/team/app/manifests/v1"] = lambda handler, body=body: handler.answer(
            200, body, {"Content-Type": oci.MANIFEST}
        )
        assert remote.get("team/app/manifests/v1").status == 502
    assert world.counts() == before


def test_a_manifest_without_end_is_refused_long_before_it(world, remote):
    """By its tag and by a digest, which nobody would have to keep to."""
    sent = []

    def endless(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(head(f"Content-Type: {oci.MANIFEST}", f"Content-Length: {1 << 40}"))
        for _ in range(1000):
            handler.wfile.write(b" " * (1 << 20))
            sent.append(handler.path)

    registry = remote.registry
    registry.tells_digests = False
    before = world.counts()
    for reference in ("v1", NOBODY):
        path = f"/v2/team/app/manifests/{reference}"
        registry.routes[path] = lambda handler: handler.answer(405, b"") if handler.command == "HEAD" else endless(handler)
        answer = remote.get(f"team/app/manifests/{reference}")
        assert answer.status == 502 and "size.limit" in answer.reason
        assert sent.count(path) < 100
    assert world.counts() == before


def test_the_first_who_pulls_a_large_manifest_is_told_what_it_is_like_all_others(remote):
    """Larger than what is sent on while it is being fetched."""
    large = oci.index(text="x" * (2 * CHUNK))
    for tag in ("by-tag", "by-digest"):
        digest = remote.registry.push(f"team/{tag}", "v1", large)
        path = f"team/{tag}/manifests/{'v1' if tag == 'by-tag' else digest}"
        for _ in range(2):
            answer = remote.get(path)
            assert pulled(answer, large)
            assert answer.headers["Content-Type"] == oci.INDEX and answer.headers["Docker-Content-Digest"] == digest


def test_an_index_is_had_though_none_of_its_images_is_and_each_of_them_when_it_is_asked_for(remote):
    registry = remote.registry
    children = [image("amd64"), image("arm64")]
    several = oci.index(*children)
    registry.push("team/app", "v1", several)
    registry.push("team/app", "of-amd64", children[0])
    answer = remote.get("team/app/manifests/v1")
    assert pulled(answer, several) and answer.headers["Content-Type"] == oci.INDEX
    assert len(registry.lines()) == 2, "nothing is fetched that nobody asked for"
    assert pulled(remote.get(f"team/app/manifests/{oci.digest(children[0])}"), children[0])
    missing = remote.get(f"team/app/manifests/{oci.digest(children[1])}")
    assert missing.status == 404 and code(missing) == "MANIFEST_UNKNOWN"


# Outages


def busy(status: int = 429) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(status, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}', {"Retry-After": "50"})


BUSY = {
    "the registry": lambda registry: {f"/v2/team/{name}/manifests/v1": busy() for name in ("cached", "other")},
    "the registry, with a 503": lambda registry: {f"/v2/team/{name}/manifests/v1": busy(503) for name in ("cached", "other")},
    "its token service": lambda registry: {
        f"/token?service=scripted&scope=repository%3Ateam%2F{name}%3Apull": busy() for name in ("cached", "other")
    },
}


@pytest.mark.parametrize("name", BUSY)
def test_a_registry_that_wants_to_be_left_alone_is_and_its_tags_are_served_stale(remote, name):
    """Who asks for what is not here is told when to come again, and never that there is none."""
    registry = remote.registry
    registry.tokens = Tokens(registry.url, lifetime=10)
    for image_name in ("cached", "other"):
        registry.push(f"team/{image_name}", "v1", image())
    digest = oci.digest(image())
    assert pulled(remote.get("team/cached/manifests/v1"), image())
    registry.routes = BUSY[name](registry)
    assert pulled(remote.get("team/cached/manifests/v1"), image())
    asked = len(registry.asked_for)
    for _ in range(3):
        stale = remote.get("team/cached/manifests/v1")
        assert pulled(stale, image()) and stale.headers["Warning"].startswith("110")
        by_digest = remote.get(f"team/cached/manifests/{digest}")
        assert pulled(by_digest, image()) and "Warning" not in by_digest.headers
        for path in ("team/other/manifests/v1", "team/other/tags/list", f"team/other/blobs/{oci.digest(LAYER)}"):
            answer = remote.get(path)
            assert answer.status in (429, 503) and 1 <= int(answer.headers["Retry-After"]) <= 50
            assert code(answer) and "left alone" in json.loads(answer.body)["errors"][0]["message"]
    assert len(registry.asked_for) == asked


OUT: dict[str, Route] = {
    "an error": 500,
    "a bad gateway": 502,
    "down": 503,
    "late": 504,
    "silence": lambda handler: time.sleep(3),
    "a cut connection": Upstream.wire(b""),
    "a page of HTML": lambda handler: handler.answer(200, b"<html></html>", {"Content-Type": "text/html"}),
    "too many redirects": lambda handler: handler.answer(302, b"", {"Location": handler.path}),
    "a denial": denying(403),
    "a denial without a word of tokens": denying(401),
}


@pytest.mark.parametrize("name", OUT)
def test_in_an_outage_a_cached_tag_is_served_stale_digests_as_ever_and_nothing_is_called_missing(remote, name):
    registry = remote.registry
    digest = registry.push("team/app", "v1", image(), CONFIG, LAYER)
    paths = {f"team/app/manifests/{digest}": image(), f"team/app/blobs/{oci.digest(LAYER)}": LAYER}
    for path, content in ({"team/app/manifests/v1": image()} | paths).items():
        assert pulled(remote.get(path), content)
    listed = remote.get("team/app/tags/list")
    registry.always = OUT[name]
    for path in ("team/app/manifests/v1", "team/app/tags/list"):
        stale = remote.get(path)
        assert stale.status == 200 and stale.headers["Warning"].startswith("110"), path
        assert stale.body == (image() if "manifests" in path else listed.body)
    for path, content in paths.items():
        answer = remote.get(path)
        assert pulled(answer, content) and "Warning" not in answer.headers
    for path in ("team/app/manifests/v2", f"team/app/blobs/{NOBODY}", "team/app/tags/list?n=1", "team/other/tags/list"):
        answer = remote.get(path)
        assert answer.status != 404, path
        assert (answer.status in (403, 502, 503, 504) and code(answer)) or "Warning" in answer.headers, path


@pytest.mark.parametrize("name", ["down", "silence", "a cut connection", "a page of HTML"])
def test_an_outage_of_the_token_service_is_one_of_the_registry(remote, service, name):
    registry = remote.registry
    service.tokens.login, service.tokens.lifetime = None, 10
    registry.tokens = service.tokens
    digest = registry.push("team/app", "v1", image())
    assert pulled(remote.get("team/app/manifests/v1"), image())
    service.always = OUT[name]
    stale = remote.get("team/app/manifests/v1")
    assert pulled(stale, image()) and stale.headers["Warning"].startswith("110")
    assert pulled(remote.get(f"team/app/manifests/{digest}"), image())
    for path in ("team/app/manifests/v2", "team/other/manifests/v1", f"team/app/blobs/{NOBODY}", "team/app/tags/list"):
        assert remote.get(path).status in (502, 503, 504), path
    service.always = None
    Upstream.asked_again(lambda: remote.get("team/app/tags/list"))
    assert tags(remote.get("team/app/tags/list")) == ["v1"]


def test_tags_that_a_silent_registry_does_not_give_keep_no_connection_from_what_is_here(server):
    """More of them than the process has connections to its database; the HEAD of each was answered."""
    here = server(connections=2, ENTREPOT_WORKERS="1")
    remote = Remote(here, Registry(), "silent")
    here.apply({"repositories": [remote.configured(timeout="60s"), {"key": "files", "format": "raw", "kind": "local"}]})
    assert here.request("PUT", "/raw/files/a", b"here", user=ADMIN).status == 201
    begun, go_on = threading.Semaphore(0), threading.Event()

    def silent(handler: Handler) -> None:
        if handler.command == "GET":
            begun.release()
            go_on.wait(60)
        handler.answer(*remote.registry.respond(handler))

    remote.registry.always = silent
    tagged = {f"team/app/manifests/{n}": image(str(n)) for n in range(4)}
    for n, content in enumerate(tagged.values()):
        remote.registry.push("team/app", str(n), content)
    try:
        with ThreadPoolExecutor(len(tagged)) as pool:
            asked = {path: pool.submit(remote.get, path) for path in tagged}
            try:
                assert all(begun.acquire(timeout=20) for _ in tagged), "all are waited for at once"
                assert pulled(here.request("GET", "/raw/files/a", user=ADMIN), b"here")
            finally:
                go_on.set()
            assert all(pulled(asked[path].result(), content) for path, content in tagged.items())
    finally:
        remote.registry.stop()


def test_where_nobody_listens_any_more_what_is_cached_is_served(remote):
    registry = remote.registry
    digest = registry.push("team/app", "v1", image())
    assert pulled(remote.get("team/app/manifests/v1"), image())
    with registry.down():
        for _ in range(5):
            stale = remote.get("team/app/manifests/v1")
            assert pulled(stale, image()) and stale.headers["Warning"].startswith("110")
            assert pulled(remote.get(f"team/app/manifests/{digest}"), image())
            assert remote.get("team/app/manifests/v2").status in (502, 503)


@pytest.mark.parametrize("status", [401, 403])
def test_what_the_registry_denies_is_told_as_a_denial(remote, status):
    registry = remote.registry
    registry.tokens = Tokens(registry.url)
    registry.push("team/app", "v1", image())
    assert pulled(remote.get("team/app/manifests/v1"), image())
    for path in ("team/secret/manifests/v1", f"team/secret/manifests/{NOBODY}", f"team/secret/blobs/{NOBODY}"):
        registry.routes[f"/v2/{path}"] = challenging(registry.tokens.challenge("team/secret")["WWW-Authenticate"])
        if status == 403:
            registry.routes[f"/v2/{path}"] = denying(403)
        answer = remote.get(path)
        assert answer.status == 403 and code(answer) == "DENIED"
        assert f"the upstream answered {status}" in json.loads(answer.body)["errors"][0]["message"]


def test_a_denial_is_believed_until_there_are_other_credentials(remote):
    registry = remote.registry
    registry.tokens = Tokens(registry.url, LOGIN)
    registry.push("team/app", "v1", image())
    remote.configure(cache={"missing": "1h"})
    told = [remote.get("team/app/manifests/v1") for _ in range(3)]
    assert all(one.status == 403 and code(one) == "DENIED" and one.reason == told[0].reason for one in told)
    assert len(registry.lines("/v2/")) == 1
    remote.configure(cache={"missing": "1h"}, **SIGNED_IN)
    assert pulled(remote.get("team/app/manifests/v1"), image())


def test_a_denial_that_is_not_believed_is_asked_about_each_time(remote):
    remote.registry.always = denying(403)
    for n in range(1, 3):
        assert remote.get("team/app/manifests/v1").status == 403
        assert len(remote.registry.asked_for) == n


def test_credentials_that_the_token_service_refuses_are_told_as_such(remote):
    registry = remote.registry
    remote.configure(username="us", password="an old one")
    registry.tokens = Tokens(registry.url, LOGIN)
    registry.push("team/app", "v1", image())
    answer = remote.get("team/app/manifests/v1")
    assert answer.status == 502 and "credentials" in answer.reason
    assert "an old one" not in answer.reason


# Layers


def test_the_first_client_has_the_beginning_of_a_layer_before_the_registry_has_sent_its_end(remote):
    go_on = threading.Event()

    def half(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(LARGE)))
        handler.end_headers()
        handler.wfile.write(LARGE[: 3 * CHUNK])
        go_on.wait(60)
        handler.wfile.write(LARGE[3 * CHUNK :])

    path = f"team/app/blobs/{oci.digest(LARGE)}"
    remote.registry.routes[f"/v2/{path}"] = half
    connection = remote.server.connect()
    try:
        connection.request("GET", f"/v2/{remote.key}/{path}", headers=remote.server.authorization(ADMIN))
        answer = connection.getresponse()
        assert answer.status == 200 and answer.headers["Docker-Content-Digest"] == oci.digest(LARGE)
        assert answer.read(2 * CHUNK) == LARGE[: 2 * CHUNK]
        assert not go_on.is_set()
        go_on.set()
        assert answer.read() == LARGE[2 * CHUNK :]
    finally:
        go_on.set()
        connection.close()


def test_twenty_clients_of_a_layer_are_one_fetch(remote):
    arrived, go_on = threading.Barrier(20, timeout=60), threading.Event()
    path = f"team/app/blobs/{oci.digest(LARGE)}"
    remote.registry.routes[f"/v2/{path}"] = Upstream.held(LARGE, go_on)

    def pull(_: int) -> bool:
        arrived.wait()
        return pulled(remote.get(path), LARGE)

    with ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(pull, n) for n in range(20)]
        while not remote.registry.asked_for:
            threading.Event().wait(0.02)
        go_on.set()
        assert [job.result() for job in jobs] == [True] * 20
    assert remote.registry.lines() == [f"GET /v2/{path}"]


SPOILT = {
    "cut": Upstream.wire(head(f"Content-Length: {len(LARGE)}") + LARGE[:-1]),
    "cut early": Upstream.wire(head(f"Content-Length: {len(LARGE)}") + LARGE[:10]),
    "cut where nothing says how long it is": Upstream.wire(head("Connection: close") + LARGE[:-1]),
    "wrong in its first byte": Upstream.wire(head(f"Content-Length: {len(LARGE)}") + b"x" + LARGE[1:]),
    "wrong in its last byte": Upstream.wire(head(f"Content-Length: {len(LARGE)}") + LARGE[:-1] + b"x"),
    "shorter": Upstream.wire(head(f"Content-Length: {len(LARGE) - 1}") + LARGE[:-1]),
    "longer": Upstream.wire(head(f"Content-Length: {len(LARGE) + 1}") + LARGE + b"x"),
    "another": lambda handler: handler.answer(200, LAYER),
    "empty": lambda handler: handler.answer(200, b""),
}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("name", SPOILT)
def test_a_layer_with_wrong_bytes_is_never_completed_nor_kept_and_the_right_one_is_had_next(world, remote, name, algorithm):
    path = f"team/app/blobs/{oci.digest(LARGE, algorithm)}"
    before = world.counts()
    remote.registry.routes[f"/v2/{path}"] = SPOILT[name]
    for _ in range(2):
        answer = remote.whole(path)
        assert answer is None or answer.status >= 500
    assert world.counts() == before
    remote.registry.routes[f"/v2/{path}"] = LARGE
    assert pulled(remote.get(path), LARGE)


def test_a_part_of_a_layer_that_is_not_here_yet_is_its_bytes_or_the_whole(remote):
    path = f"team/app/blobs/{oci.digest(LARGE)}"
    remote.registry.routes[f"/v2/{path}"] = LARGE
    first = remote.get(path, Range="bytes=10-19")
    assert (first.status, first.body) in ((206, LARGE[10:20]), (200, LARGE))
    second = remote.get(path, Range="bytes=10-19")
    assert (second.status, second.body) == (206, LARGE[10:20])
    assert remote.registry.lines() == [f"GET /v2/{path}"]


def test_a_layer_of_one_image_is_not_another_images(remote):
    """Though its bytes are here: whether the other has it is the registry's to say."""
    registry = remote.registry
    registry.push("team/private", "v1", image(), CONFIG, LAYER)
    assert pulled(remote.get(f"team/private/blobs/{oci.digest(LAYER)}"), LAYER)
    answer = remote.get(f"team/other/blobs/{oci.digest(LAYER)}")
    assert answer.status == 404 and code(answer) == "BLOB_UNKNOWN"
    assert registry.lines()[-1] == f"GET /v2/team/other/blobs/{oci.digest(LAYER)}"


# Lists


def test_all_pages_of_the_registrys_tags_are_one_list_which_has_pages_of_ours(remote):
    registry = remote.registry
    pages = [["v3", "v1"], ["v2"], ["latest"]]
    for n, page in enumerate(pages):
        link = {"Link": f'</v2/team/app/tags/list?page={n + 1}>; rel="next"'} if n + 1 < len(pages) else {}
        here = f"/v2/team/app/tags/list?page={n}" if n else "/v2/team/app/tags/list?n=1000"
        registry.routes[here] = lambda handler, page=page, link=link: handler.answer(
            200, json.dumps({"name": "team/app", "tags": page}).encode(), link
        )
    whole = ["latest", "v1", "v2", "v3"]
    answer = remote.get("team/app/tags/list")
    assert json.loads(answer.body) == {"name": f"{remote.key}/team/app", "tags": whole} and "Link" not in answer.headers
    first = remote.get("team/app/tags/list?n=2")
    assert tags(first) == whole[:2]
    assert first.headers["Link"] == f'</v2/{remote.key}/team/app/tags/list?n=2&last=v1>; rel="next"'
    assert tags(remote.get("team/app/tags/list?n=2&last=v1")) == whole[2:]
    assert tags(remote.get("team/app/tags/list?last=v1x")) == whole[2:]
    assert tags(remote.get("team/app/tags/list?n=0")) == []


def listing(content: bytes, link: str = "") -> Callable[[Handler], None]:
    return lambda handler: handler.answer(200, content, {"Link": link} if link else {})


def endless(handler: Handler) -> None:
    """Another page each time, with the same tags on it."""
    page = int(handler.path.rpartition("=")[2])
    handler.answer(200, b'{"tags":["v1"]}', {"Link": f'</v2/team/app/tags/list?n={page + 1}>; rel="next"'})


HOSTILE_LISTS = {
    "no JSON": listing(b"<html></html>"),
    "no object": listing(b"[]"),
    "a text for a list": listing(b'{"tags":"abc"}'),
    "a number for a list": listing(b'{"tags":5}'),
    "an object for a list": listing(b'{"tags":{"a":1}}'),
    "too deep": listing(b'{"tags":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "more on a page than anybody has": listing(b'{"tags":["' + b'a","' * 5_000_000 + b'"]}'),
    "pages without end": endless,
    "a page that cannot be read": listing(b'{"tags":["v1"]}', '<http://[::/x>; rel="next"'),
    "a page that is a file": listing(b'{"tags":["v1"]}', '<file:///etc/passwd>; rel="next"'),
}


@pytest.mark.parametrize("name", HOSTILE_LISTS)
def test_a_list_that_is_none_or_has_no_end_is_the_registrys_failure(remote, name):
    remote.registry.always = HOSTILE_LISTS[name]
    answer = remote.get("team/app/tags/list")
    assert answer.status == 502 and "log tells" not in answer.reason
    assert len(remote.registry.asked_for) < 2000


def test_a_list_that_leads_back_to_itself_ends_there(remote):
    remote.registry.always = listing(b'{"tags":["v1"]}', '</v2/team/app/tags/list?n=1000>; rel="next"')
    assert tags(remote.get("team/app/tags/list")) == ["v1"]
    assert len(remote.registry.asked_for) == 1


def test_a_list_that_goes_on_at_another_host_is_refused_and_nobody_there_is_asked(remote, stranger):
    remote.configure(**SIGNED_IN)
    for n, link in enumerate((f"<{stranger.url}/more>", f"<//{stranger.url.removeprefix('http://')}/more>")):
        remote.registry.always = listing(b'{"tags":["v1"]}', f'{link}; rel="next"')
        assert remote.get(f"team/app{n}/tags/list").status == 502
    assert stranger.connections == 0


def test_what_is_no_tag_is_left_out_of_a_list(remote):
    remote.registry.always = listing(b'{"tags":["v1", "", "../x", "a:b", 5, null, "-x", "v1"]}')
    assert tags(remote.get("team/app/tags/list")) == ["v1"]


def test_a_list_that_is_null_is_empty(remote):
    remote.registry.always = listing(b'{"name":"team/app","tags":null}')
    assert tags(remote.get("team/app/tags/list")) == []


def test_an_image_that_the_registry_does_not_have_has_no_list(remote):
    answer = remote.get("team/nothing/tags/list")
    assert answer.status == 404 and code(answer) == "NAME_UNKNOWN"


# Referrers


def signature(kind: str) -> tuple[bytes, dict]:
    """A manifest that refers to the image, and its descriptor as a registry lists it."""
    content = oci.manifest(b"{}", artifactType=kind, subject=oci.descriptor(image(), oci.MANIFEST))
    return content, oci.descriptor(content, oci.MANIFEST, artifactType=kind)


@pytest.mark.parametrize("where", ["by the API", "by the tag that stands for it"])
def test_what_refers_to_an_image_is_found_where_the_registry_keeps_it(remote, where):
    registry = remote.registry
    subject = registry.push("team/app", "v1", image())
    listed = [signature(kind)[1] for kind in ("application/vnd.corp.signature", "application/vnd.corp.sbom")]
    if where == "by the API":
        registry.referrers = {subject: listed}
    else:
        registry.push("team/app", subject.replace(":", "-"), oci.index(manifests=listed))
    answer = remote.get(f"team/app/referrers/{subject}")
    assert answer.status == 200 and answer.headers["Content-Type"] == oci.INDEX
    assert sorted(one["digest"] for one in json.loads(answer.body)["manifests"]) == sorted(one["digest"] for one in listed)
    filtered = remote.get(f"team/app/referrers/{subject}?artifactType=application%2Fvnd.corp.sbom")
    assert json.loads(filtered.body)["manifests"] == listed[1:]
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"


@pytest.mark.parametrize("has_api", [True, False])
def test_where_nothing_refers_to_an_image_the_list_is_empty(remote, has_api):
    remote.registry.referrers = {} if has_api else None
    subject = remote.registry.push("team/app", "v1", image())
    answer = remote.get(f"team/app/referrers/{subject}")
    assert answer.status == 200 and json.loads(answer.body)["manifests"] == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_referrers_that_cannot_be_asked_for_are_not_called_none(remote, status):
    """Who verifies signatures would take the image for unsigned."""
    subject = remote.registry.push("team/app", "v1", image())
    remote.registry.routes[f"/v2/team/app/referrers/{subject}"] = status
    assert remote.get(f"team/app/referrers/{subject}").status in (502, 503)


# Writing


WRITES = [
    ("PUT", "team/app/manifests/v1"),
    ("DELETE", "team/app/manifests/v1"),
    ("DELETE", f"team/app/blobs/{NOBODY}"),
    ("POST", "team/app/blobs/uploads/"),
    ("POST", f"team/app/blobs/uploads/?mount={NOBODY}&from=x"),
    ("PATCH", "team/app/blobs/uploads/1"),
    ("PUT", f"team/app/blobs/uploads/1?digest={NOBODY}"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_nothing_is_pushed_to_or_deleted_from_a_remote(world, remote, method, path):
    before = world.counts()
    answer = world.request(method, f"/v2/{remote.key}/{path}", image(), {"Content-Type": oci.MANIFEST}, user=ADMIN)
    assert answer.status == 405 and code(answer) == "UNSUPPORTED"
    assert world.counts() == before and remote.registry.asked_for == []


# Several upstreams


def test_a_mirror_answers_for_a_registry_that_is_down(remote, stranger):
    """With a token service of its own."""
    first, second = remote.registry, stranger
    second.tokens = Tokens(second.url)
    remote.configure({"url": second.url, "timeout": "2s"})
    for registry in (first, second):
        registry.push("team/app", "v1", image(), CONFIG, LAYER)
    with first.down():
        assert pulled(remote.get("team/app/manifests/v1"), image())
        assert pulled(remote.get(f"team/app/blobs/{oci.digest(LAYER)}"), LAYER)
        assert tags(remote.get("team/app/tags/list")) == ["v1"]
    second.asked_for.clear()
    Upstream.asked_again(lambda: remote.get("team/app/manifests/v1"))


def test_a_registry_that_wants_to_be_left_alone_is_answered_for_by_its_mirror(remote, stranger):
    remote.configure({"url": stranger.url})
    remote.registry.always = busy()
    stranger.push("team/app", "v1", image())
    assert pulled(remote.get("team/app/manifests/v1"), image())
    assert len(remote.registry.asked_for) == 1


@pytest.fixture
def two(remote, stranger) -> Remote:
    """A repository that stands for two registries, as containerd names them."""
    options = {"folder": "first.example"}
    remote.configure({"url": stranger.url, "folder": "second.example_5000"}, **options)
    remote.registry.push("library/debian", "12", image("first"))
    stranger.push("team/app", "v1", image("second"), CONFIG, LAYER)
    return remote


def test_containerd_says_by_ns_which_registry_it_means(two, stranger):
    """As it does with one mirror for all registries."""
    assert pulled(two.get("library/debian/manifests/12?ns=first.example"), image("first"))
    assert pulled(two.get("team/app/manifests/v1?ns=second.example:5000"), image("second"))
    assert pulled(two.get(f"team/app/blobs/{oci.digest(LAYER)}?ns=second.example%3A5000"), LAYER)
    assert two.get("team/app/manifests/v1?ns=first.example").status == 404
    assert all(line.split()[1].startswith("/v2/team/app/") for line in stranger.lines())


def test_a_pass_for_what_the_challenge_says_opens_what_ns_says(two):
    path = "library/debian/manifests/12?ns=first.example"
    scopes = re.search('scope="([^"]+)"', two.get(path, user=None).headers["WWW-Authenticate"])[1]
    given = two.server.request("GET", f"/v2/token?{urlencode({'scope': scopes})}", user=ADMIN)
    bearer = {"Authorization": f"Bearer {json.loads(given.body)['token']}"}
    assert pulled(two.get(path, user=None, **bearer), image("first"))


@pytest.mark.parametrize("namespace", ["", "unknown.example", "..", "first.example/library", "%00", "second.example"])
def test_a_registry_that_the_repository_does_not_stand_for_is_not_here(two, stranger, namespace):
    answer = two.get(f"library/debian/manifests/12?ns={namespace}")
    assert answer.status == 404 and code(answer) == "MANIFEST_UNKNOWN"
    assert two.registry.asked_for == [] and stranger.asked_for == []


def test_the_folder_of_a_registry_is_a_part_of_the_images_name_too(two):
    assert pulled(two.get("first.example/library/debian/manifests/12"), image("first"))
    assert pulled(two.get("first.example/debian/manifests/12"), image("first"))


@pytest.mark.parametrize("suffix", ["/corp/mirror", "/v2/corp/mirror", "/v2/corp/mirror/", "/v2corp/mirror"])
def test_an_upstreams_own_path_is_where_its_names_begin(remote, suffix):
    """So that a repository of another Entrepot is an upstream, by the path that its clients use."""
    registry, name = remote.registry, suffix.removeprefix("/v2/").strip("/")
    registry.tokens = Tokens(registry.url)
    registry.push(f"{name}/team/app", "v1", image(), CONFIG, LAYER)
    registry.push(f"{name}/library/debian", "12", image())
    remote.configure(url=registry.url + suffix)
    assert pulled(remote.get("team/app/manifests/v1"), image())
    assert pulled(remote.get("debian/manifests/12"), image())
    assert pulled(remote.get(f"team/app/blobs/{oci.digest(LAYER)}"), LAYER)
    assert tags(remote.get("team/app/tags/list")) == ["v1"]


def test_a_challenge_without_a_scope_is_met_with_that_of_the_image_as_the_registry_names_it(remote):
    registry = remote.registry
    registry.tokens = Tokens(registry.url)
    registry.tokens.scoped = False
    registry.push("corp/team/app", "v1", image())
    remote.configure(url=f"{registry.url}/corp")
    assert pulled(remote.get("team/app/manifests/v1"), image())
