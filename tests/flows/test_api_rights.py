"""Who may do what through the API: every address and method x everybody, as one table."""

from __future__ import annotations

import json

import pytest
from django.urls import get_resolver

from accounts.sessions import digest
from repos.api.permissions import Nobody
from tests.parts.api import ADMIN, PASSWORD, Api, rule
from tests.parts.browser import Browser

CAST = ("nobody", "outsider", "reader", "owner", "clerk", "admin", "narrowed")
"""Nobody is anonymous. The reader may read the repository `here`, the owner all of it, the clerk manage users; narrowed is the
administrator's token that may read `here`."""
CONFIGURATION = "401 403 403 403 403 200 403"
OF_USERS = "401 403 403 403 200 200 403"
USERS_ITEM = "401 404 404 404 200 200 404"
READS_HERE = "401 404 200 200 404 200 200"
SIGNED_IN = "401 200 200 200 200 200 200"
OPEN = "200 200 200 200 200 200 200"
NO_SUCH_JOB = "401 404 404 404 404 404 404"
GRANT = {"role": "reader", "users": ["reader"], "repositories": ["here"]}
TRUST = {"issuer": "https://ci.example.org", "audience": "entrepot", "claims": {"repository": "corp/*"}, "robot": "ci"}


def provider(name: str) -> dict[str, str]:
    return {"issuer": f"https://{name}.example.org", "client_id": "entrepot"}


TABLE = {
    ("GET", "v1/"): ("", None, OPEN),
    ("GET", "v1/schema/"): ("schema/", None, OPEN),
    ("GET", "v1/me/"): ("me/", None, SIGNED_IN),
    ("GET", "v1/configuration/"): ("configuration/", None, CONFIGURATION),
    ("PUT", "v1/configuration/"): ("configuration/", {"history": {}}, CONFIGURATION),
    ("GET", "v1/repositories/"): ("repositories/", None, OPEN),
    ("GET", "v1/repositories/<path:name>/"): ("repositories/here/", None, READS_HERE),
    ("PUT", "v1/repositories/<path:name>/"): (
        "repositories/here/", {"format": "raw", "kind": "local"}, "401 404 403 200 404 200 403"),
    ("DELETE", "v1/repositories/<path:name>/"): ("repositories/doomed-{cast}/", None, "401 404 404 204 404 204 404"),
    ("GET", "v1/repositories/<str:key>/assets/"): ("repositories/here/assets/", None, READS_HERE),
    ("GET", "v1/repositories/<str:key>/assets/<path:path>"): ("repositories/here/assets/a/file", None, READS_HERE),
    ("GET", "v1/repositories/<str:key>/changes/"): ("repositories/here/changes/", None, READS_HERE),
    ("GET", "v1/repositories/<str:key>/changes/<int:number>/"): ("repositories/here/changes/2/", None, READS_HERE),
    ("GET", "v1/roles/"): ("roles/", None, OF_USERS),
    ("GET", "v1/roles/<path:name>/"): ("roles/standing/", None, USERS_ITEM),
    ("PUT", "v1/roles/<path:name>/"): ("roles/standing/", {}, USERS_ITEM),
    ("DELETE", "v1/roles/<path:name>/"): ("roles/doomed-{cast}/", None, USERS_ITEM.replace("200", "204")),
    ("GET", "v1/groups/"): ("groups/", None, OF_USERS),
    ("GET", "v1/groups/<path:name>/"): ("groups/standing/", None, USERS_ITEM),
    ("PUT", "v1/groups/<path:name>/"): ("groups/standing/", {}, USERS_ITEM),
    ("DELETE", "v1/groups/<path:name>/"): ("groups/doomed-{cast}/", None, USERS_ITEM.replace("200", "204")),
    ("GET", "v1/users/"): ("users/", None, SIGNED_IN),
    ("GET", "v1/users/<path:name>/"): ("users/outsider/", None, "401 200 404 404 200 200 404"),
    ("PUT", "v1/users/<path:name>/"): ("users/outsider/", {}, "401 403 404 404 200 200 404"),
    ("DELETE", "v1/users/<path:name>/"): ("users/doomed-{cast}/", None, USERS_ITEM.replace("200", "204")),
    ("GET", "v1/grants/"): ("grants/", None, OF_USERS),
    ("POST", "v1/grants/"): ("grants/", GRANT, OF_USERS),
    ("GET", "v1/grants/<path:name>/"): ("grants/{grant}/", None, USERS_ITEM),
    ("PUT", "v1/grants/<path:name>/"): ("grants/{grant}/", GRANT, USERS_ITEM),
    ("DELETE", "v1/grants/<path:name>/"): ("grants/{doomed_grant}/", None, USERS_ITEM.replace("200", "204")),
    ("GET", "v1/trusts/"): ("trusts/", None, OF_USERS),
    ("GET", "v1/trusts/<path:name>/"): ("trusts/standing/", None, USERS_ITEM),
    ("PUT", "v1/trusts/<path:name>/"): ("trusts/standing/", TRUST, USERS_ITEM),
    ("DELETE", "v1/trusts/<path:name>/"): ("trusts/doomed-{cast}/", None, USERS_ITEM.replace("200", "204")),
    ("POST", "v1/exchange/"): ("exchange/", None, "415 415 415 415 415 415 415"),
    ("GET", "v1/history/"): ("history/", None, CONFIGURATION),
    ("PUT", "v1/history/"): ("history/", {}, CONFIGURATION),
    ("GET", "v1/egress/"): ("egress/", None, CONFIGURATION),
    ("PUT", "v1/egress/"): ("egress/", {}, CONFIGURATION),
    ("GET", "v1/hosts/"): ("hosts/", None, CONFIGURATION),
    ("PUT", "v1/hosts/"): ("hosts/", {}, CONFIGURATION),
    ("GET", "v1/audit/settings/"): ("audit/settings/", None, CONFIGURATION),
    ("PUT", "v1/audit/settings/"): ("audit/settings/", {}, CONFIGURATION),
    ("GET", "v1/audit/"): ("audit/", None, CONFIGURATION),
    ("GET", "v1/audit/export/"): ("audit/export/", None, CONFIGURATION),
    ("GET", "v1/explain/"): ("explain/?action=read&repository=here", None, SIGNED_IN),
    ("GET", "v1/reviews/"): ("reviews/", None, SIGNED_IN),
    ("POST", "v1/reviews/"): ("reviews/", {}, "401 403 403 403 201 201 403"),
    ("GET", "v1/reviews/<int:number>/"): ("reviews/{review}/", None, USERS_ITEM),
    ("GET", "v1/reviews/<int:number>/items/<int:item>/"): ("reviews/{review}/items/1/", None, USERS_ITEM),
    ("PUT", "v1/reviews/<int:number>/items/<int:item>/decision/"): (
        "reviews/{review}/items/1/decision/", {"decision": "approve"}, USERS_ITEM),
    ("GET", "v1/reviews/settings/"): ("reviews/settings/", None, OF_USERS),
    ("PUT", "v1/reviews/settings/"): ("reviews/settings/", {}, OF_USERS),
    ("GET", "v1/tokens/"): ("tokens/", None, SIGNED_IN),
    ("POST", "v1/tokens/"): ("tokens/", {}, SIGNED_IN.replace("200", "201")),
    ("GET", "v1/tokens/<int:number>/"): ("tokens/{token}/", None, "401 200 404 404 200 200 404"),
    ("DELETE", "v1/tokens/<int:number>/"): ("tokens/{token}/", None, "401 204 404 404 204 204 404"),
    ("GET", "v1/providers/"): ("providers/", None, OF_USERS),
    ("GET", "v1/providers/<path:name>/"): ("providers/standing/", None, USERS_ITEM),
    ("PUT", "v1/providers/<path:name>/"): ("providers/standing/", provider("standing"), USERS_ITEM),
    ("DELETE", "v1/providers/<path:name>/"): ("providers/doomed-{cast}/", None, USERS_ITEM.replace("200", "204")),
    ("GET", "v1/sessions/"): ("sessions/", None, SIGNED_IN),
    ("DELETE", "v1/sessions/"): ("sessions/", None, SIGNED_IN),
    ("GET", "v1/sessions/<str:key>/"): ("sessions/{session}/", None, "401 200 404 404 200 200 404"),
    ("DELETE", "v1/sessions/<str:key>/"): ("sessions/{session}/", None, "401 204 404 404 204 204 404"),
    ("GET", "v1/jobs/"): ("jobs/", None, SIGNED_IN),
    ("POST", "v1/jobs/"): ("jobs/", {"kind": "none"}, SIGNED_IN.replace("200", "400")),
    ("GET", "v1/jobs/<int:number>/"): ("jobs/999999/", None, NO_SUCH_JOB),
    ("GET", "v1/jobs/<int:number>/log/"): ("jobs/999999/log/", None, NO_SUCH_JOB),
    ("POST", "v1/jobs/<int:number>/cancel/"): ("jobs/999999/cancel/", {}, NO_SUCH_JOB),
    ("POST", "v1/jobs/<int:number>/retry/"): ("jobs/999999/retry/", {}, NO_SUCH_JOB),
}  # fmt: skip


def addresses():
    """Every address of the API with its resource, but for the one that answers where there is nothing."""
    mounted = next(entry for entry in get_resolver().url_patterns if str(entry.pattern) == "api/")
    return [(str(entry.pattern), entry.callback.cls) for entry in mounted.url_patterns if entry.name != "nothing"]


def test_every_address_and_method_is_in_the_table():
    methods = {
        (method.upper(), pattern)
        for pattern, resource in addresses()
        for method in ("get", "put", "post", "patch", "delete", "options")
        if hasattr(resource, method) and method in resource.http_method_names
    }
    assert methods == set(TABLE)


def test_every_resource_says_who_may_ask():
    for pattern, resource in addresses():
        assert resource.permission_classes, pattern
        assert Nobody not in resource.permission_classes, pattern


def test_a_resource_that_does_not_say_who_may_ask_is_closed(settings):
    assert settings.REST_FRAMEWORK["DEFAULT_PERMISSION_CLASSES"] == ["repos.api.permissions.Nobody"]


@pytest.fixture(scope="module")
def world(server):
    here = server()
    doomed = [f"doomed-{name}" for name in CAST]
    here.apply(
        {
            "repositories": [
                *({"key": key, "format": "raw", "kind": "local"} for key in ("here", "secret", *doomed)),
            ],
            "roles": [{"name": "clerk", "permissions": ["user:manage"]}, *({"name": name} for name in ("standing", *doomed))],
            "groups": [{"name": name} for name in ("standing", *doomed)],
            "providers": [{"name": name, **provider(name)} for name in ("standing", *doomed)],
            "users": [
                *({"name": name, "password": PASSWORD} for name in ("outsider", "reader", "owner", "clerk")),
                *({"name": name} for name in doomed),
                {"name": "ci", "robot": True},
            ],
            "trusts": [{"name": name, **TRUST} for name in ("standing", *doomed)],
            "grants": [
                GRANT,
                {"role": "owner", "users": ["owner"], "repositories": ["here", "doomed-owner"]},
                {"role": "clerk", "users": ["clerk"]},
                *({"role": "reader", "users": ["outsider"], "repositories": [f"no-such-{name}"]} for name in CAST),
            ],
        }
    )
    assert here.request("PUT", "/raw/here/a/file", b"a file\n", user=ADMIN).status == 201
    assert here.request("PUT", "/raw/secret/a/file", b"a file\n", user=ADMIN).status == 201
    narrowed = Api(here).post("tokens/", {"scopes": ["artifact:read@here"]})
    here.narrowed = ("x", json.loads(narrowed.body)["secret"])
    return here


def somebody(world, name: str) -> Api:
    logins = {"nobody": None, "admin": ADMIN, "narrowed": world.narrowed}
    return Api(world, logins.get(name, (name, PASSWORD)))


@pytest.mark.parametrize("cast", CAST)
@pytest.mark.parametrize("line", TABLE, ids=" ".join)
def test_everybody_may_what_the_table_says_and_no_more(world, line, cast):
    path, body, statuses = TABLE[line]
    outsider = Api(world, ("outsider", PASSWORD))
    if "{token}" in path:
        path = path.format(token=json.loads(outsider.post("tokens/").body)["id"])
    if "{session}" in path:
        browser = Browser(world)
        browser.sign_in("outsider", PASSWORD)
        path = path.format(session=digest(str(browser.cookie("entrepot-session"))))
    if "{review}" in path:
        path = path.format(review=json.loads(Api(world).post("reviews/").body)["items"][0]["id"])
    if "grant}" in path:
        grants = Api(world).items("grants/?limit=1000")
        ids = {(grant["role"], *grant["users"], *grant.get("repositories", [])): grant["id"] for grant in grants}
        path = path.format(
            grant=ids["reader", "reader", "here"], doomed_grant=ids.get(("reader", "outsider", f"no-such-{cast}"), "gone")
        )
    answer = somebody(world, cast).ask(line[0], path.format(cast=cast), body)
    assert answer.status == int(statuses.split()[CAST.index(cast)]), answer
    assert ("WWW-Authenticate" in answer.headers) == (answer.status == 401)


HIDDEN = [
    ("repositories/{}/", "secret"),
    ("repositories/{}/assets/", "secret"),
    ("repositories/{}/assets/a/file", "secret"),
    ("repositories/{}/changes/", "secret"),
    ("repositories/{}/changes/1/", "secret"),
    ("roles/{}/", "clerk"),
    ("groups/{}/", "standing"),
    ("trusts/{}/", "standing"),
    ("users/{}/", "clerk"),
    ("tokens/{}/", "1"),
    ("providers/{}/", "standing"),
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize("cast", ["nobody", "outsider", "reader", "owner"])
@pytest.mark.parametrize(("path", "name"), HIDDEN)
def test_hidden_and_absent_are_the_same_answer(world, path, name, cast, method):
    told = set()
    for one in (name, "999999" if name == "1" else "no-such-thing"):
        answer = somebody(world, cast).ask(method, path.format(one), {} if method == "PUT" else None, If_Match='"x"')

        def alike(text: str, one: str = one) -> str:
            return text.replace(f"/{path.format(one)}", "/N").replace(f"{one} is not", "N is not").replace(f"{one} 1", "N 1")

        own = ("Date", "X-Request-Id", "Content-Length")
        headers = {key: alike(value) for key, value in answer.headers.items() if key not in own}
        told.add((answer.status, alike(answer.reason), alike(answer.body.decode()), tuple(sorted(headers.items()))))
    assert len(told) == 1
    assert told.pop()[0] in (401, 404, 405)


def test_a_list_holds_only_what_the_reader_may_see(world):
    keys = {name: [item["key"] for item in somebody(world, name).items("repositories/")] for name in CAST}
    assert keys["outsider"] == keys["clerk"] == keys["nobody"]
    assert set(keys["reader"]) - set(keys["outsider"]) == {"here"}
    assert "secret" in keys["admin"]
    assert set(keys["narrowed"]) - set(keys["outsider"]) == {"here"}
    assert [item["name"] for item in somebody(world, "outsider").items("users/")] == ["outsider"]


EVERY_KEY = {
    "users": {"is_superuser": True, "is_staff": True, "id": 1, "pk": 1, "password": "x" * 20, "robot": True, "inactive": False,
              "groups": ["standing"], "email": "a@example.org", "user_permissions": [1], "name": "outsider"},
    "repositories": {"seeded": True, "head": 9, "floor": 9, "epoch": "x", "settings": {}, "id": 1, "owner": "me",
                     "format": "raw", "kind": "local", "description": "mine", "upstreams": [], "members": ["secret"]},
    "roles": {"permissions": ["system:manage"], "permission": 1, "id": 1},
    "groups": {"external": ["sso:mine"], "permissions": [1], "user_set": [1]},
    "trusts": {**TRUST, "claims": {"sub": "mine"}, "robot": "outsider", "lifetime": "1d", "scopes": ["user:manage"], "id": 1},
}  # fmt: skip


@pytest.mark.parametrize("cast", [name for name in CAST if name not in ("admin", "clerk")])
@pytest.mark.parametrize(("section", "name"), [("users", "outsider"), ("repositories", "here"), ("roles", "standing"),
                                               ("groups", "standing"), ("trusts", "standing")])  # fmt: skip
def test_no_key_sent_by_whom_makes_more_of_them(world, cast, section, name):
    """Mass assignment: every key by itself and all together, to what they see and what they do not."""
    before = Api(world).read("configuration/")
    api = somebody(world, cast)
    needed = {"format": "raw", "kind": "local"} if section == "repositories" else {}
    changed_own = {"owner", "description"}
    for body in [{**needed, key: value} for key, value in EVERY_KEY[section].items()] + [EVERY_KEY[section]]:
        for method in ("PUT", "PATCH", "POST"):
            answer = api.ask(method, f"{section}/{name}/", body)
            mine = (cast, section) == ("owner", "repositories") and method == "PUT"
            assert answer.status in ((200, 400) if mine else (401, 403, 404, 405)), (method, body, answer)
    after = Api(world).read("configuration/")
    for document in (before, after):
        document["repositories"] = [
            {key: value for key, value in item.items() if item["key"] != "here" or key not in changed_own}
            for item in document["repositories"]
        ]
    assert before == after
    for key in ("seeded", "head"):
        assert world.query(f"SELECT {key} FROM repos_repository WHERE key = 'secret'") in ((0,), (False,), (2,))


@pytest.mark.parametrize("key", ["is_superuser", "is_staff", "user_permissions", "id", "date_joined"])
def test_an_administrator_too_sets_only_keys_that_are_named(world, key):
    answer = Api(world).put("users/outsider/", {key: 1})
    assert (answer.status, rule(answer)) == (400, "configuration.form")
    assert f"{key}: unknown key" in json.loads(answer.body)["detail"]


def test_a_token_makes_none_that_is_wider_or_lives_longer(world):
    scopes = ["artifact:read@here:a/**", "artifact:write@raw-*"]
    made = Api(world).post("tokens/", {"scopes": scopes, "expires_at": "2098-01-01T00:00:00Z"})
    token = json.loads(made.body)
    api = Api(world, ("x", token["secret"]))
    wider = ("artifact:read@*", "artifact:read@here", "artifact:read@here:b", "artifact:delete@here", "user:manage",
             "artifact:write@**", "artifact:write@raw-**", "artifact:write@raw", "artifact:write@raw-*/a")  # fmt: skip
    for scope in wider:
        answer = api.post("tokens/", {"scopes": [scope]})
        assert (answer.status, rule(answer)) == (403, "token.scopes"), scope
    for scope in ("artifact:read@here:a/b", "artifact:read@here:a/**", "artifact:write@raw-local", "artifact:write@raw-*:x"):
        assert api.post("tokens/", {"scopes": [scope]}).status == 201, scope
    inherited = json.loads(api.post("tokens/", {}).body)
    assert (inherited["scopes"], inherited["expires_at"]) == (scopes, "2098-01-01T00:00:00Z")
    assert json.loads(api.post("tokens/", {"scopes": None, "expires_at": None}).body)["scopes"] == scopes
    assert rule(api.post("tokens/", {"expires_at": "2098-01-01T00:00:01Z"})) == "token.expires"


def test_a_narrowed_token_sees_and_ends_itself_alone(world):
    owner = Api(world, ("owner", PASSWORD))
    others = json.loads(owner.post("tokens/").body)
    own = json.loads(owner.post("tokens/", {"scopes": ["artifact:read@here"]}).body)
    api = Api(world, ("x", own["secret"]))
    assert [item["id"] for item in api.items("tokens/")] == [own["id"]]
    assert api.delete(f"tokens/{others['id']}/").status == 404
    assert api.delete(f"tokens/{own['id']}/").status == 204
    assert api.get("me/").status == 401


def test_tokens_are_made_for_oneself_and_by_who_manages_users_for_robots(world):
    world.apply({"users": [{"name": "robot", "robot": True}]})
    assert somebody(world, "owner").post("tokens/", {"user": "robot"}).status == 404
    assert somebody(world, "clerk").post("tokens/", {"user": "robot"}).status == 201
    person = somebody(world, "clerk").post("tokens/", {"user": "admin"})
    assert (person.status, rule(person)) == (403, "token.person")


def test_a_secret_is_told_once_and_to_nobody_else(world):
    made = somebody(world, "outsider").post("tokens/", {"name": "mine"})
    token = json.loads(made.body)
    assert made.headers["Cache-Control"] == "no-store"
    for name in ("outsider", "admin"):
        for path in ("tokens/?limit=1000", f"tokens/{token['id']}/", "configuration/", "users/"):
            assert token["secret"].encode() not in somebody(world, name).get(path).body
    assert token["secret"] not in world.log()


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "{ours}"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "{ours}"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "{ours}"}, False),
        ({"Origin": "null"}, True),
        ({"Origin": "{ours}.evil.example"}, True),
        ({"Origin": "http://[evil"}, True),
        ({}, False),
    ],
)
def test_a_page_of_another_site_writes_nothing_with_what_a_browser_remembers(world, said, refused):
    api = Api(world)
    headers = {name: value.format(ours=world.url) for name, value in said.items()}
    form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    job = json.loads(api.post("jobs/", {"kind": "gc"}).body)
    answers = [world.request("POST", f"/api/v1/jobs/{job['id']}/{do}/", b"", form, ADMIN) for do in ("cancel", "retry")]
    answers += [api.put("history/", {}, **headers), api.delete("groups/none/", **headers)]
    assert [answer.status == 403 and rule(answer) == "site" for answer in answers] == [refused] * 4, answers
    assert api.get("history/", **headers).status == 200


REMOTE = {"format": "raw", "kind": "remote"}


def test_who_manages_one_repository_says_not_where_this_server_connects_to(world):
    """Else they could have it ask what only it can reach, or send there what it knows."""
    far = {**REMOTE, "upstreams": [{"url": "https://mirror.example.org", "username": "u", "password": "hunter-2"}]}
    assert Api(world).put("repositories/far/", far).status == 201
    world.apply({"grants": [{"role": "owner", "users": ["owner"], "repositories": ["far", "new"]}]})
    owner = somebody(world, "owner")
    document = owner.read("repositories/far/")
    assert "hunter" not in json.dumps(document)
    upstream = document["upstreams"][0]
    for other in ("http://127.0.0.1:1", "https://mirror.example.org:444", "http://mirror.example.org", "https://evil.example"):
        moved = {**document, "upstreams": [{**upstream, "url": other}]}
        assert rule(owner.put("repositories/far/", moved)) == "repository.upstream"
    assert rule(owner.put("repositories/new/", {**REMOTE, "upstreams": [{"url": "http://127.0.0.1:1"}]})) == "repository.upstream"
    assert rule(owner.put("repositories/far/", {**document, "upstreams": [{**upstream, "ca": "/etc/passwd"}]})) == "repository.ca"
    assert owner.put("repositories/far/", {**document, "upstreams": [{**upstream, "url": upstream["url"] + "/go"}]}).status == 200


def test_a_variable_of_the_servers_environment_is_never_read_for_the_api(world):
    """`{env: NAME}` means what is stored under the name, and a stored secret stays with the host it was given for."""
    world.environment["ENTREPOT_SECRET_OF_THE_SERVER"] = "told-to-nobody"
    admin = Api(world)
    name = {"env": "ENTREPOT_SECRET_OF_THE_SERVER"}
    thief = {**REMOTE, "upstreams": [{"url": "https://evil.example", "token": name}]}
    for wanted in (name, {"env": "PATH"}, {"env": "ENTREPOT_ADMIN_PASSWORD"}):
        thief["upstreams"][0]["token"] = wanted
        answer = admin.put("repositories/thief/", thief)
        assert (answer.status, rule(answer)) == (400, "secret.unset")
        answer = admin.put("configuration/", {"repositories": [{"key": "thief", **thief}]})
        assert (answer.status, rule(answer)) == (400, "secret.unset")
        answer = admin.put("users/new/", {"password": wanted})
        assert (answer.status, rule(answer)) == (400, "secret.unset")
    kept = {**REMOTE, "upstreams": [{"url": "https://mirror.example.org", "token": "hunter-3"}]}
    assert admin.put("repositories/kept/", kept).status == 201
    document = admin.read("repositories/kept/")
    assert admin.put("repositories/kept/", {**document, "description": "x"}).status == 200
    document["upstreams"][0]["url"] = "https://evil.example"
    answer = admin.put("repositories/kept/", document)
    assert (answer.status, rule(answer)) == (400, "secret.origin")
    document["upstreams"][0]["token"] = "hunter-4"
    assert admin.put("repositories/kept/", document).status == 200


def test_a_member_that_one_may_not_see_cannot_be_named(world):
    world.apply({"grants": [{"role": "owner", "users": ["owner"], "repositories": ["mine"]}]})
    owner = somebody(world, "owner")
    told = set()
    for member in ("secret", "absent"):
        answer = owner.put("repositories/mine/", {"format": "raw", "kind": "virtual", "members": [member]})
        told.add((answer.status, answer.body.decode().replace(member, "N")))
    assert len(told) == 1
    assert told.pop()[0] == 400
    assert owner.put("repositories/mine/", {"format": "raw", "kind": "virtual", "members": ["here"]}).status == 201
    assert rule(Api(world).delete("repositories/here/")) == "repository.members"


def test_a_grant_on_paths_alone_manages_nothing(world):
    world.apply({"grants": [{"role": "owner", "users": ["outsider"], "repositories": ["part"], "paths": ["a/**"]}]})
    Api(world).put("repositories/part/", {"format": "raw", "kind": "local", "description": "x"})
    for path in ("a/1", "b/1"):
        world.request("PUT", f"/raw/part/{path}", b"x", user=ADMIN)
    outsider = somebody(world, "outsider")
    assert outsider.put("repositories/part/", {"format": "raw", "kind": "local"}).status == 403
    assert [item["path"] for item in outsider.items("repositories/part/assets/?limit=1")] == ["a/1"]
    assert [change["number"] for change in outsider.items("repositories/part/changes/")] == [2]
    assert outsider.get("repositories/part/assets/b/1").status == 404
    assert outsider.get("repositories/part/changes/3/").status == 404
    assert outsider.get("repositories/part/changes/2/").status == 200
    assert outsider.get("repositories/part/changes/1/").status == 404


def test_the_last_who_manages_users_cannot_be_removed(world):
    for item in Api(world).items("grants/?limit=1000"):
        if item["role"] == "clerk":
            Api(world).delete(f"grants/{item['id']}/")
    assert rule(Api(world).delete("users/admin/")) == "users.manager"
    assert rule(Api(world).delete("roles/reader/")) == "reserved"
    assert Api(world).get("me/").status == 200
