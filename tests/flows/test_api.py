"""The API's conventions: PUT, ETags, pages, parameters, problems; and that it can do all that `apply` can."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from urllib.parse import quote

import pytest
import yaml

from repos.configuration.tests.parts import WHOLE
from tests.parts.api import ADMIN, PASSWORD, Api, rule

LOCAL = {"format": "raw", "kind": "local"}


@pytest.fixture(scope="module")
def world(server):
    return server()


@pytest.fixture(scope="module")
def api(world):
    return Api(world)


# PUT and ETags


def test_the_same_put_again_changes_nothing(world, api):
    first = api.put("repositories/again/", {**LOCAL, "description": "x"})
    assert (first.status, first.headers["Location"]) == (201, "/api/v1/repositories/again/")
    changes = world.counts()
    second = api.put("repositories/again/", {**LOCAL, "description": "x"})
    assert (second.status, second.headers["ETag"], second.body) == (200, first.headers["ETag"], first.body)
    assert world.counts() == changes
    got = api.get("repositories/again/")
    assert (got.headers["ETag"], got.body) == (first.headers["ETag"], first.body)


def test_what_get_gives_can_be_put(api):
    for path in ("repositories/again/", "history/", "egress/", "users/admin/", "roles/reader/"):
        api.put("repositories/again/", LOCAL)
        before = api.get(path)
        put = api.put(path, json.loads(before.body), If_Match=before.headers["ETag"])
        assert (put.status, put.headers["ETag"]) == (200, before.headers["ETag"]), path
    for item in api.items("grants/"):
        assert api.put(f"grants/{item['id']}/", item).status == 200


def test_a_key_that_is_left_out_has_its_default(api):
    api.put("repositories/bare/", {**LOCAL, "description": "x"})
    api.put("repositories/bare/", LOCAL)
    assert "description" not in api.read("repositories/bare/")


def test_of_two_who_read_the_same_one_alone_writes(api):
    api.put("repositories/raced/", LOCAL)
    etag = api.get("repositories/raced/").headers["ETag"]

    def write(n: int) -> int:
        return api.put("repositories/raced/", {**LOCAL, "description": f"writer {n}"}, If_Match=etag).status

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(write, range(8)))
    assert statuses == [200] + [412] * 7
    assert len([change for change in api.items("repositories/raced/changes/") if change["action"] == "configure"]) == 2


def test_of_two_who_make_the_same_one_alone_does(api):
    def make(n: int) -> int:
        return api.put("repositories/new/", {**LOCAL, "description": f"maker {n}"}, If_None_Match="*").status

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(make, range(8))) == [201] + [412] * 7


def test_conditions(api):
    api.put("repositories/held/", LOCAL)
    etag = api.get("repositories/held/").headers["ETag"]
    assert api.get("repositories/held/", If_None_Match=etag).status == 304
    assert api.get("repositories/held/", If_None_Match=f'"other", W/{etag}').status == 304
    assert api.get("repositories/held/", If_None_Match='"other"').status == 200
    for wrong in ('"other"', f"W/{etag}", "x"):
        refused = api.delete("repositories/held/", If_Match=wrong)
        assert (refused.status, rule(refused)) == (412, "if-match")
    assert api.put("repositories/absent/", LOCAL, If_Match="*").status == 412
    assert api.put("repositories/held/", LOCAL, If_None_Match=etag).status == 412
    assert api.put("repositories/held/", LOCAL, If_Match="*").status == 200
    assert api.delete("repositories/held/", If_Match=f'"other", {etag}').status == 204
    assert api.delete("repositories/held/").status == 404


def test_a_name_is_that_of_the_address(api):
    refused = api.put("repositories/one/", {**LOCAL, "key": "other"})
    assert (refused.status, rule(refused)) == (400, "name")
    assert api.put("groups/two%20words%2Fand%20a%20slash/", {}).status == 201
    assert api.read("groups/two%20words%2Fand%20a%20slash/") == {"name": "two words/and a slash"}
    assert "two words/and a slash" in [item["name"] for item in api.items("groups/")]


@pytest.mark.parametrize("name", ["日本", "a/../b", "100%", "a#b?c", "two words", "ann@example.org"])
def test_what_was_made_is_at_its_location_whatever_its_name(api, name):
    made = api.put(f"groups/{quote(name, safe='')}/", {})
    assert (made.status, made.headers["Location"].isascii()) == (201, True)
    assert api.read(made.headers["Location"]) == {"name": name}
    assert api.delete(made.headers["Location"]).status == 204
    gone = api.get(made.headers["Location"])
    assert json.loads(gone.body)["instance"].isascii()


# everything that apply can, and the other way round


def by_items(api: Api, document: dict) -> None:
    """The document, item by item, in an order in which each finds what it names."""
    singles = {name: value for name, value in document.items() if isinstance(value, dict)}
    for name, value in singles.items():
        assert api.put(f"{name}/", value).status == 200
    for name in ("roles", "groups", "users", "repositories", "grants", "trusts"):
        items = document.get(name, [])
        for item in sorted(items, key=lambda item: item.get("kind") == "virtual"):
            key = item.get("key") or item.get("name")
            answer = api.post("grants/", item) if name == "grants" else api.put(f"{name}/{quote(key)}/", item)
            assert answer.status == 201, answer


def given(document: dict) -> dict:
    """With secrets themselves, which the API takes."""
    text = json.dumps(document)
    for name in ("MIRROR_PASSWORD", "MIRROR_TOKEN", "ALICE_PASSWORD"):
        text = text.replace(json.dumps({"env": name}), json.dumps(f"secret-{name}"))
    return json.loads(text)


def comparable(document: dict) -> dict:
    """Without the names that secrets have got."""
    for repository in document["repositories"]:
        for upstream in repository.get("upstreams", ()):
            upstream.update({word: "secret" for word in ("password", "token") if word in upstream})
    return document


@pytest.fixture(scope="module")
def pair(server):
    """Two servers with all of a whole document: one by `apply`, the other by the API."""
    whole = {**WHOLE, "egress": {"allow": ["10.1.0.0/16"]}}
    applied, put = server(ENTREPOT_BASE_URL="https://one.example.org"), server(ENTREPOT_BASE_URL="https://two.example.org")
    for name in ("MIRROR_PASSWORD", "MIRROR_TOKEN", "ALICE_PASSWORD"):
        applied.environment[name] = f"secret-{name}"
    put.empty = Api(put).read("configuration/")
    applied.apply(whole)
    by_items(Api(put), given(whole))
    return applied, put


def test_all_that_apply_takes_the_api_takes_item_by_item(pair):
    applied, put = pair
    assert comparable(Api(applied).read("configuration/")) == comparable(Api(put).read("configuration/"))
    assert comparable(yaml.safe_load(applied.manage("export").stdout)) == comparable(Api(put).read("configuration/"))
    assert put.request("GET", "/api/v1/me/", user=("alice", "secret-ALICE_PASSWORD")).status == 200


def test_all_that_was_put_is_taken_by_apply_and_whole(pair):
    _, put = pair
    exported = put.manage("export").stdout
    assert put.manage("apply", "-", input=exported).stdout == ""
    answer = Api(put).put("configuration/", exported.encode(), Content_Type="application/yaml")
    assert json.loads(answer.body) == {"changes": []}


def test_all_that_prune_removes_the_api_removes_item_by_item(pair):
    _, put = pair
    api = Api(put)
    for item in api.items("grants/"):
        if item.get("users") != ["admin"]:
            assert api.delete(f"grants/{item['id']}/").status == 204
    for item in sorted(api.items("repositories/"), key=lambda item: item["kind"] != "virtual"):
        assert api.delete(f"repositories/{item['key']}/").status == 204
    for section in ("trusts", "users", "groups", "roles"):
        for item in WHOLE[section]:
            assert api.delete(f"{section}/{quote(item['name'])}/").status == 204
    for section in ("history", "egress"):
        assert api.put(f"{section}/", {}).status == 200
    assert api.read("configuration/") == put.empty


def test_the_whole_is_applied_compared_and_pruned(api):
    document = {"roles": [{"name": "a"}, {"name": "b"}], "egress": {"allow": ["10.2.0.0/16"]}}
    lines = ["+ roles a", "+ roles b", '~ egress egress: allow null -> ["10.2.0.0/16"]']
    assert json.loads(api.put("configuration/?dry_run=true", document).body)["changes"] == lines
    assert api.get("roles/a/").status == 404
    etag = api.get("configuration/").headers["ETag"]
    assert api.put("configuration/", document, If_Match='"other"').status == 412
    assert json.loads(api.put("configuration/", document, If_Match=etag).body)["changes"] == lines
    assert json.loads(api.put("configuration/", document).body)["changes"] == []
    fewer = yaml.safe_dump({"roles": [{"name": "a"}]}).encode()
    answer = api.put("configuration/?prune=true", fewer, Content_Type="application/yaml")
    assert json.loads(answer.body)["changes"] == ["- roles b"]
    answer = api.get("configuration/", Accept="application/yaml")
    assert answer.headers["Content-Type"].startswith("application/yaml")
    assert yaml.safe_load(answer.body) == api.read("configuration/")
    assert answer.headers["ETag"] != api.get("configuration/").headers["ETag"]
    assert api.put("configuration/", {}, If_Match=answer.headers["ETag"]).status == 200


# pages


def test_pages_hold_all_once_and_in_order(api):
    for n in range(7):
        api.put(f"repositories/page-{n}/", LOCAL)
    pages = api.pages("repositories/?prefix=page-&limit=3")
    assert [[item["key"] for item in page["items"]] for page in pages] == [
        ["page-0", "page-1", "page-2"], ["page-3", "page-4", "page-5"], ["page-6"]]  # fmt: skip
    first = api.get("repositories/?prefix=page-&limit=3")
    assert first.headers["Link"] == f'<{json.loads(first.body)["next"]}>; rel="next"'


def test_what_comes_between_moves_no_page(api):
    for n in range(4):
        api.put(f"repositories/moved-{n}/", LOCAL)
    first = api.read("repositories/?prefix=moved-&limit=2")
    api.put("repositories/moved-00/", LOCAL)
    api.delete("repositories/moved-1/")
    assert [item["key"] for item in api.read(first["next"])["items"]] == ["moved-2", "moved-3"]


def test_filters(api):
    api.put("repositories/filtered-go/", {"format": "go", "kind": "local"})
    api.put("repositories/filtered-raw/", LOCAL)
    api.put("repositories/filtered-all/", {"format": "raw", "kind": "virtual", "members": ["filtered-raw"]})

    def keys(query: str) -> list[str]:
        return [item["key"] for item in api.items(f"repositories/?prefix=filtered&{query}")]

    assert keys("format=raw") == keys("format=generic") == ["filtered-all", "filtered-raw"]
    assert keys("format=raw&kind=local") == ["filtered-raw"]
    assert keys("format=none") == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("sort=key", "parameter.unknown"),
        ("seeded=true", "parameter.unknown"),
        ("owner__password=x", "parameter.unknown"),
        ("limit=1&limit=2", "parameter.twice"),
        ("limit=0", "parameter"),
        ("limit=1001", "parameter"),
        ("limit=x", "parameter"),
        ("kind=other", "parameter"),
        ("prefix=%00", "parameter"),
        ("cursor=x", "cursor"),
        ("cursor=WzFd", "cursor"),
        ("cursor=bnVsbA", "cursor"),
        ("cursor=WyJhXHUwMDAwIl0", "cursor"),
        ("cursor=%F0%9F%98%80", "cursor"),
    ],
)
def test_parameters_are_those_that_are_named(api, query, found):
    answer = api.get(f"repositories/?{query}")
    assert (answer.status, rule(answer)) == (400, found)
    if found == "parameter.unknown":
        assert "cursor, limit, prefix, format, kind" in json.loads(answer.body)["detail"]
    assert api.put("history/?x=1", {}).status == 400


# problems


def problem(answer) -> dict:
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = json.loads(answer.body)
    assert set(told) == {"type", "title", "status", "detail", "rule", "instance"}
    assert told["status"] == answer.status
    assert answer.headers["X-Entrepot-Reason"].startswith(re.sub(r"[^ -~]", "?", told["detail"])[:100])
    return told


def test_everything_that_is_refused_is_told_as_a_problem(world, api):
    put = {"Content_Type": "application/json"}
    for answer, status in (
        (api.get("no-such-thing/"), 404),
        (api.get("repositories"), 404),
        (world.request("GET", "/api/", user=ADMIN), 404),
        (world.request("GET", "/api/v2/repositories/"), 404),
        (world.request("DELETE", "/api/%ff%fe"), 404),
        (api.ask("PATCH", "history/", {}), 405),
        (api.ask("OPTIONS", "history/"), 405),
        (api.ask("TRACE", "history/"), 405),
        (api.get("history/", Accept="text/html"), 406),
        (api.get("history/", Accept="application/json;q=0"), 406),
        (api.get("history/", Accept="text/html, */*; q=0.000"), 406),
        (api.get("schema/", Accept="text/html"), 406),
        (api.get("history/", Accept="application/json; a*=xx'y'%41"), 406),
        (api.put("history/", b"{}", Content_Type="text/plain"), 415),
        (world.request("PUT", "/api/v1/history/", b"{}", user=ADMIN), 415),
        (api.put("history/", b"", **put), 400),
        (api.put("history/", b"{", **put), 400),
        (api.put("history/", b"[]", **put), 400),
        (api.put("history/", b"null", **put), 400),
        (api.put("history/", b'{"keep": NaN}', **put), 400),
        (api.put("history/", b'{"keep": "1d", "keep": "2d"}', **put), 400),
        (api.put("history/", b'{"keep": "\xff"}', **put), 400),
        (api.put("history/", b'{"\\ud800": "\\ud800"}', **put), 400),
        (api.put("history/", b"[" * 100_000, **put), 400),
        (api.put("history/", b"9" * 10_000, **put), 400),
        (api.put("history/", {"keep": "1x"}), 400),
        (api.put("groups/%00/", {}), 400),
        (api.get("groups/%00/"), 404),
        (api.put("users/%F0%9F%98%80/", {}), 400),
        (api.put("repositories/UPPER/", LOCAL), 400),
        (api.put("repositories/a/", {**LOCAL, "format": "none"}), 400),
        (api.get("tokens/99999999999999999999999/"), 404),
        (api.get("repositories/raw/changes/99999999999999999999999/"), 404),
        (world.request("GET", "/api/v1/me/", user=("admin", "wrong")), 401),
        (world.request("GET", "/api/v1/me/", headers={"Authorization": "Nothing x"}), 401),
    ):
        assert answer.status == status, answer
        problem(answer)


@pytest.mark.parametrize("accept", ["*/*", "application/*;q=0.1", "text/html, application/json; charset=utf-8; q=0.5"])
def test_what_accept_names_with_any_weight_is_acceptable(api, accept):
    assert api.get("history/", Accept=accept).status == 200


@pytest.mark.parametrize("form", ["application/json", "application/yaml", "application/vnd.oai.openapi"])
def test_the_schema_has_the_form_that_was_asked_for(api, form):
    assert api.get("schema/", Accept=form).headers["Content-Type"].startswith(form)
    assert api.get("schema/?format=json", Accept=form).headers["Content-Type"].startswith("application/json")


def test_a_method_that_is_not_taken_is_told_with_those_that_are(api):
    assert api.ask("PATCH", "history/", {}).headers["Allow"] == "GET, HEAD, PUT"


def test_a_body_that_is_too_large_is_refused_whatever_its_framing(world, api):
    large = b'{"keep": "' + b"x" * (10 * 1024 * 1024) + b'"}'
    whole = api.put("history/", large, Content_Type="application/json")
    chunked = world.request(
        "PUT", "/api/v1/history/", iter([large[:100], large[100:]]), {"Content-Type": "application/json"}, ADMIN
    )
    assert (whole.status, chunked.status) == (413, 413)
    problem(whole)


def test_a_body_in_chunks_is_read_and_one_that_breaks_off_is_not_taken(world, api):
    pieces = iter([b'{"keep": ', b'"7d"}'])
    answer = world.request("PUT", "/api/v1/history/", pieces, {"Content-Type": "application/json"}, ADMIN)
    assert (answer.status, api.read("history/")) == (200, {"keep": "7d"})
    for framing in ("length", "chunked"):
        cut = world.broken_upload(
            "/api/v1/history/", b'{"keep": "8d"}' + b" " * 1000, framing, ADMIN, {"Content-Type": "application/json"}
        )
        assert cut in (400, None)
    assert api.read("history/") == {"keep": "7d"}


def test_head_is_get_without_a_body(api):
    for path in ("", "me/", "repositories/", "history/", "schema/", "no-such-thing/"):
        head, get = api.ask("HEAD", path), api.get(path)
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["Content-Length"] == get.headers["Content-Length"]


def test_what_is_refused_leaves_nothing_behind(world, api):
    before = api.read("configuration/"), world.counts()
    bad = {
        "users": [{"name": "left-behind"}],
        "repositories": [{"key": "v", "format": "raw", "kind": "virtual", "members": ["none"]}],
    }
    assert api.put("configuration/", bad).status == 400
    assert (api.read("configuration/"), world.counts()) == before


# tokens and me


def test_a_token_is_made_used_and_ended(world, api):
    soon = (datetime.now().astimezone() + timedelta(hours=1)).isoformat()
    made = api.post("tokens/", {"name": "pipeline", "expires_at": soon, "scopes": ["artifact:read@again"]})
    token = json.loads(made.body)
    assert (made.status, made.headers["Location"]) == (201, f"/api/v1/tokens/{token['id']}/")
    assert token["expires_at"].endswith("Z")
    bearer = {"Authorization": f"Bearer {token['secret']}"}
    me = json.loads(world.request("GET", "/api/v1/me/", headers=bearer).body)
    assert (me["name"], me["token"]["id"], me["token"]["scopes"]) == ("admin", token["id"], ["artifact:read@again"])
    assert api.delete(f"tokens/{token['id']}/").status == api.delete(f"tokens/{token['id']}/").status == 204
    assert world.request("GET", "/api/v1/me/", headers=bearer).status == 401
    assert api.read(f"tokens/{token['id']}/")["revoked_at"].endswith("Z")


def test_a_token_in_use_can_be_ended_by_who_has_read_it(world, api):
    token = json.loads(api.post("tokens/").body)
    path = f"tokens/{token['id']}/"
    etag = api.get(path).headers["ETag"]
    assert world.request("GET", "/api/v1/me/", headers={"Authorization": f"Bearer {token['secret']}"}).status == 200
    deadline = time.monotonic() + 60
    while not api.read(path)["last_used_at"]:
        assert time.monotonic() < deadline, "the use is written soon"
        time.sleep(0.1)
    assert api.delete(path, If_Match='"other"').status == 412
    assert api.delete(path, If_Match=etag).status == 204
    assert api.delete(path, If_Match=etag).status == 412, "it was ended meanwhile"


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": []},
        {"scopes": ["artifact:read"]},
        {"scopes": ["nothing@x"]},
        {"scopes": "artifact:read@x"},
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"expires_at": "tomorrow"},
        {"expires_at": 1},
        {"name": "x" * 101},
        {"name": "\0"},
        {"user": 1},
        {"secret": "ent_x"},
    ],
)
def test_a_token_that_makes_no_sense_is_refused(api, body):
    assert problem(api.post("tokens/", body))["status"] == 400


def test_a_password_that_was_put_signs_in(world, api):
    assert api.put("users/ann/", {"password": PASSWORD}).status == 201
    assert Api(world, ("ann", PASSWORD)).read("me/")["name"] == "ann"
    assert api.put("users/ann/", {"email": "ann@example.org"}).status == 200
    assert Api(world, ("ann", PASSWORD)).read("users/ann/") == {"name": "ann", "email": "ann@example.org"}
