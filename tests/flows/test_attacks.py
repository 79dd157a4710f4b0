"""What somebody with few rights tries: to raise them, to read what is private, to learn that it is there."""

from __future__ import annotations

import itertools
import json
import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.contract.samples import url
from tests.flows.test_truth_table import THINGS
from tests.gomodules import make_zip
from tests.parts import cast, oci
from tests.parts.api import ADMIN, PASSWORD, Api, rule
from tests.parts.cast import CAST, FORMATS
from tests.parts.server import Answer, basic

FEW = tuple(name for name in CAST if name != "admin")
NOBODYS = ("developer", "reader", "outsider", "robot", "anonymous")
"""Who may not know of `hush-*`."""
OF_EACH = ("Date", "Server", "X-Request-Id")
"""Headers that say nothing of what was asked."""


@pytest.fixture(scope="module")
def world(server, upstream):
    return cast.build(server(), upstream())


def same(answers: dict[str, Answer]) -> bool:
    """Whether answers say the same, but for the name, by which they are given here, that was asked for."""
    told = set()
    for name, answer in answers.items():
        headers = {key: value.replace(name, "N") for key, value in answer.headers.items() if key not in OF_EACH}
        told.add((answer.status, answer.reason.replace(name, "N"), answer.body.replace(name.encode(), b"N"), str(headers)))
    return len(told) == 1


# To raise one's rights


FIELDS = {
    "is_superuser": True, "is_staff": True, "is_active": True, "user_permissions": [1], "groups": ["play-group"], "group": 1,
    "roles": ["administrator"], "role": "administrator", "permissions": ["system:manage"], "users": ["reader", "outsider"],
    "anonymous": True, "authenticated": True, "repositories": ["**"], "paths": ["**"], "password": "the password of a thief",
    "id": 1, "pk": 1, "user": "admin", "user_id": 1, "name": "admin", "owner": "reader", "scopes": None, "external": ["x:y"],
    "digest": "0" * 64, "secret": "ent_" + "a" * 43, "revoked_at": None, "expires_at": None, "robot": True, "inactive": False,
    "seeded": True, "settings": {}, "members": ["hush-raw"], "kind": "local", "format": "raw", "actor": "admin",
    "arguments": {}, "allow": ["127.0.0.0/8"], "keep": "1d", "admin": True, "principal": "admin", "email": "admin@example.org",
}  # fmt: skip
ADDRESSES = [
    ("PUT", "configuration/"), ("PUT", "history/"), ("PUT", "egress/"), ("PUT", "hosts/"), ("POST", "grants/"),
    ("POST", "tokens/"), ("POST", "jobs/"), ("PUT", "users/{who}/"), ("PUT", "users/admin/"), ("PUT", "users/new/"),
    ("PUT", "roles/reader/"), ("PUT", "roles/play-role/"), ("PUT", "roles/new/"), ("PUT", "groups/play-group/"),
    ("PUT", "groups/authenticated/"), ("PUT", "groups/new/"), ("PUT", "grants/{grant}/"), ("PUT", "repositories/shared-raw/"),
    ("PUT", "repositories/hush-raw/"), ("PUT", "repositories/new/"), ("PATCH", "users/{who}/"), ("POST", "me/"), ("PUT", "me/"),
    ("PATCH", "tokens/{token}/"), ("PUT", "tokens/{token}/"), ("POST", "users/"), ("POST", "roles/"), ("POST", "repositories/"),
    ("PUT", "directories/new/"), ("PUT", "providers/play-provider/"), ("PUT", "trusts/play-trust/"), ("PUT", "trusts/new/"),
    ("PUT", "audit/settings/"), ("PUT", "reviews/settings/"), ("PUT", "reviews/{review}/items/1/decision/"),
    ("PUT", "sessions/{session}/"), ("POST", "sessions/"), ("POST", "exchange/"),
]  # fmt: skip


@pytest.mark.parametrize("who", FEW)
def test_no_field_sent_to_any_address_raises_anybody(world, who):
    """Every field by itself and all together, to everything that takes a body; afterwards nobody may more than before."""
    before = state(world)
    names = {"who": who, **{kind: world.ids[f"{kind} play"] for kind in ("grant", "token", "review", "session")}}
    for method, path in ADDRESSES:
        for body in [{key: value} for key, value in FIELDS.items()] + [FIELDS]:
            content = json.dumps(body).encode()
            kind = {"Content-Type": "application/json"}
            answer = world.ask(who, method, f"/api/v1/{path.format(**names)}", content, kind)
            assert answer.status in (201, 400, 401, 403, 404, 405, 415), (method, path, body, answer)
            if answer.status == 201:
                assert path == "tokens/", (method, path, body)
                mine = Api(world.server, ("x", json.loads(answer.body)["secret"])).read("me/")
                assert mine["name"] == who, body
                assert not {"system:manage", "user:manage"} & {word for one in mine["grants"] for word in one["permissions"]}
    assert state(world) == before


def state(world) -> dict:
    """All that decides who may what."""
    document = world.api("admin").read("configuration/")
    others = world.server.query(
        "SELECT count(*) FROM accounts_token JOIN accounts_user u ON u.id = user_id WHERE username = 'admin'"
    )
    rows = world.server.rows("SELECT username, password, is_active, is_superuser, is_staff FROM accounts_user ORDER BY username")
    return {**document, "tokens of the administrator": others, "users and passwords": rows}


VALUES = ("admin", "owner")
HEADERS = (
    "Remote-User", "X-Remote-User", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username",
    "X-Auth-Request-User",
    "X-WebAuth-User", "X-User", "X-Username", "X-Authenticated-User", "X-Original-User", "X-Token", "X-Api-Key",
    "Proxy-Authorization",
    "X-Forwarded-Access-Token", "Cookie", "Auth-User", "SSL-Client-S-DN", "X-SSL-Client-CN", "REMOTE_USER", "Remote_User",
)  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_names_a_user_is_inert(world, header):
    """In any spelling, beside credentials or without, at the API, at artefacts and where passes are given."""
    for value in (*VALUES, basic(ADMIN), f"sessionid={'a' * 32}"):
        sent = {header: value}
        assert world.ask("anonymous", "GET", "/api/v1/me/", headers=sent).status == 401
        assert json.loads(world.ask("reader", "GET", "/api/v1/me/", headers=sent).body)["name"] == "reader"
        for who, status in (("anonymous", 401), ("reader", 404)):
            for form in FORMATS:
                path = url(form, f"hush-{form}", cast.CONTENTS[form][0][0])
                assert world.ask(who, "GET", path, headers=sent).status == status
        passed = world.ask("anonymous", "GET", "/v2/token?scope=repository:hush-oci/lib:pull&account=admin", headers=sent)
        carried = {"Authorization": f"Bearer {json.loads(passed.body)['token']}"}
        assert world.ask("anonymous", "GET", "/v2/hush-oci/lib/manifests/v1", headers=carried).status == 401


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_header_that_names_another_method_is_inert(world, header):
    before = world.server.counts()
    for method, path in itertools.product(("GET", "POST"), ("/raw/shared-raw/tool/old", "/api/v1/repositories/shared-old-raw/")):
        world.ask("owner", method, path, headers={header: "DELETE"})
    assert world.server.counts() == before
    assert world.ask("owner", "GET", "/api/v1/repositories/shared-old-raw/").status == 200


@pytest.mark.parametrize(
    "header", ["X-Forwarded-Host", "X-Forwarded-Server", "X-Host", "X-Original-URL", "X-Rewrite-URL", "Forwarded"]
)
def test_a_header_that_names_another_place_is_inert(world, header):
    """Links and the place where passes are given are the server's own, and the path is the one that was asked for."""
    for value in ("evil.example", "/raw/hush-raw/tool/lib", "host=evil.example"):
        for who, path in (("reader", "/api/v1/repositories/?limit=1"), ("anonymous", "/v2/"), ("reader", "/go/shared-go/")):
            plain, sent = world.ask(who, "GET", path), world.ask(who, "GET", path, headers={header: value})
            assert (sent.status, cursorless(sent)) == (plain.status, cursorless(plain))


def cursorless(answer: Answer) -> str:
    headers = sorted((key, value) for key, value in answer.headers.items() if key not in OF_EACH)
    return re.sub(r"cursor=[^\"&>]+", "", f"{headers} {answer.body.decode()}")


# Effective right = permission AND scope, through the door


GLOBS = ["a-raw", "b-raw", "*-raw", "**"]
PATHS = [None, "x/**", "x/1", "*/1"]
WORDS = ["artifact:read", "artifact:write", "artifact:delete", "artifact:overwrite"]


def test_what_a_token_does_is_what_its_user_may_and_what_its_scopes_say(world):
    """The token of somebody may what the same scopes let somebody do who may everything, and what they may themselves."""
    chance = random.Random(20)
    admin = world.api("admin")
    for key in ("a-raw", "b-raw"):
        admin.put(f"repositories/{key}/", {"format": "raw", "kind": "local"})
    cases = [
        (f"chance{n}", chance.choice(GLOBS), chance.choice(PATHS), chance.sample(WORDS, chance.randint(1, 4))) for n in range(8)
    ]
    for name, glob, path, words in cases:
        admin.put(f"users/{name}/", {"password": PASSWORD})
        admin.put(f"roles/{name}/", {"permissions": sorted({"artifact:read", *words})})
        grant = {"role": name, "users": [name], "repositories": [glob], **({"paths": [path]} if path else {})}
        assert admin.post("grants/", grant).status == 201
    allowed = {True: 0, False: 0}
    for name, *_ in cases:
        scopes = [
            f"{word}@{chance.choice(GLOBS)}" + (f":{path}" if path else "")
            for path in chance.sample(PATHS, 2)
            for word in {"artifact:read", *chance.sample(WORDS, 2)}
        ]
        theirs, wide = (
            ("x", json.loads(Api(world.server, user).post("tokens/", {"scopes": scopes}).body)["secret"])
            for user in ((name, PASSWORD), ADMIN)
        )
        for method, key, path in itertools.product(("GET", "PUT", "DELETE"), ("a-raw", "b-raw"), ("x/1", "y/1", "z/2")):
            does = [done(world, method, f"/raw/{key}/{path}", user) for user in (theirs, (name, PASSWORD), wide)]
            assert does[2] is says(scopes, method, key, path), (scopes, method, key, path)
            assert does[0] is (does[1] and does[2]), (name, scopes, method, key, path)
            allowed[does[0]] += 1
    assert min(allowed.values()) > 10, allowed


def says(scopes: list[str], method: str, key: str, path: str) -> bool:
    """Whether scopes let who may everything do it: what is written or deleted must be theirs to read, too."""
    words = {"GET": ["read"], "PUT": ["read", "write"], "DELETE": ["read", "delete"]}[method]
    return all(any(covers(scope, f"artifact:{word}", key, path) for scope in scopes) for word in words)


def covers(scope: str, word: str, key: str, path: str) -> bool:
    permission, _, place = scope.partition("@")
    repositories, _, paths = place.partition(":")
    return permission == word and all(
        re.fullmatch(re.sub(r"\*\*|\*", lambda star: ".*" if len(star[0]) > 1 else "[^/]*", glob), text)
        for glob, text in ((repositories, key), (paths or "**", path))
    )


def done(world, method: str, path: str, user: tuple[str, str]) -> bool:
    world.server.request("PUT", path, b"x", user=ADMIN)
    return world.server.request(method, path, b"x" if method == "PUT" else None, user=user).status < 300


# Create-only never overwrites


@pytest.mark.parametrize("form", FORMATS)
def test_who_may_only_create_overwrites_nothing_in_a_race_either(world, form):
    """Twenty send each their own bytes to one new path, latest among them: one wins, and what stands is never another's."""
    world.server.apply(
        {
            "roles": [{"name": "creator", "permissions": ["artifact:read", "artifact:write"]}],
            "users": [{"name": "creator", "password": PASSWORD}],
            "grants": [{"role": "creator", "users": ["creator"], "repositories": [f"shared-{form}"]}],
        }
    )
    path = {"raw": "race/latest", "go": "corp.example/race/@v/v1.0.0.zip", "oci": "race/manifests/latest"}[form]
    headers = {"oci": {"Content-Type": oci.INDEX}}.get(form, {})
    contents = [
        {
            "raw": b"%d" % n,
            "go": make_zip("corp.example/race", "v1.0.0", {"x.go": b"package x // %d\n" % n}),
            "oci": oci.index(text=str(n)),
        }[form]
        for n in range(20)
    ]
    address, creator = url(form, f"shared-{form}", path), ("creator", PASSWORD)
    with ThreadPoolExecutor(20) as threads:
        statuses = list(threads.map(lambda one: world.server.request("PUT", address, one, headers, creator).status, contents))
    assert sorted(statuses)[0] == 201
    assert set(sorted(statuses)[1:]) <= {403, 409}, statuses
    winner = contents[statuses.index(201)]
    for other in contents:
        if other != winner:
            assert world.server.request("PUT", address, other, headers, creator).status in (403, 409)
        assert world.server.request("GET", address, user=creator).body == winner


# Filters, orders and pages


OF_AUDIT = {"actor", "action", "refused", "repository", "subject", "since", "until"}
TAKEN = {
    "repositories/": {"cursor", "limit", "prefix", "format", "kind"},
    "roles/": {"cursor", "limit", "prefix"},
    "groups/": {"cursor", "limit", "prefix"},
    "users/": {"cursor", "limit", "prefix"},
    "grants/": {"cursor", "limit"},
    "tokens/": {"cursor", "limit", "user", "state", "expiring"},
    "directories/": {"cursor", "limit", "prefix"},
    "providers/": {"cursor", "limit", "prefix"},
    "trusts/": {"cursor", "limit", "prefix"},
    "sessions/": {"cursor", "limit", "user"},
    "explain/": {"user", "action", "repository", "path", "token", "scope"},
    "audit/": {"cursor", "limit", "order", *OF_AUDIT},
    "audit/export/": {"after", *OF_AUDIT},
    "reviews/": {"cursor", "limit", "owner", "undecided"},
    "reviews/{review}/": {"cursor", "limit", "undecided", "kind", "unused"},
    "reviews/{review}/items/1/": set(), "audit/settings/": set(), "reviews/settings/": set(),
    "jobs/": {"cursor", "limit", "state", "kind", "repository"},
    "jobs/{job}/log/": {"cursor", "limit"},
    "repositories/shared-raw/assets/": {"cursor", "limit", "prefix", "package", "at"},
    "repositories/shared-raw/assets/tool/lib": {"cursor", "limit"},
    "repositories/shared-raw/changes/": {"after", "before", "order", "limit"},
    "repositories/shared-raw/changes/2/": {"cursor", "limit"},
    "configuration/": set(), "history/": set(), "egress/": set(), "hosts/": set(), "me/": set(), "": set(),
}  # fmt: skip
RELATIONS = [
    "user__password", "user__password__startswith", "user__username", "users__tokens__digest", "repository__key",
    "repository__settings",
    "blob__key", "actor", "owner", "password", "digest", "id", "pk", "id__gt", "ordering", "order_by", "sort", "fields",
    "include",
    "expand", "search", "q", "offset", "page", "page_size", "format__in", "prefix__contains", "user_id", "scopes", "is_superuser",
]  # fmt: skip


@pytest.mark.parametrize("path", TAKEN, ids=str)
def test_a_filter_or_order_that_is_not_named_is_refused(world, path):
    address = f"/api/v1/{path.format(job=world.ids['job play'], review=world.ids['review play'])}"
    for name in [*RELATIONS, *set().union(*TAKEN.values())]:
        if name not in TAKEN[path]:
            answer = world.ask("admin", "GET", f"{address}?{name}=a")
            assert (answer.status, rule(answer)) == (400, "parameter.unknown"), name
    for name in TAKEN[path]:
        answer = world.ask("admin", "GET", f"{address}?{name}=1")
        assert answer.status == 200 or rule(answer) != "parameter.unknown", name


@pytest.mark.parametrize(
    "order", ["actor", "-actor", "detail", "repository__settings", "number,actor", "?", "", "-", "id", "password"]
)
def test_an_order_is_one_of_those_that_are_named(world, order):
    answer = world.ask("admin", "GET", f"/api/v1/repositories/shared-raw/changes/?order={order}")
    assert (answer.status, rule(answer)) == (400, "parameter")


def test_every_list_of_the_api_is_held_to_its_parameters(world):
    """What the schema says of parameters is what the test above knows."""
    schema = world.api("admin").read("schema/?format=json")
    said = {
        path.removeprefix("/api/v1/"): {one["name"] for one in operations["get"].get("parameters", ()) if one["in"] == "query"}
        for path, operations in schema["paths"].items()
        if "get" in operations
    }
    placeholders = {"shared-raw": "{key}", "{job}": "{number}", "{review}": "{number}", "items/1": "items/{item}",
                    "tool/lib": "{path}"}  # fmt: skip
    any_of = "|".join(map(re.escape, placeholders))
    known = {re.sub(any_of, lambda found: placeholders[found[0]], path): names for path, names in TAKEN.items()}
    known["repositories/{key}/changes/{number}/"] = known.pop("repositories/{key}/changes/2/")
    assert {path: names for path, names in said.items() if names and path != "schema/"} == {
        path: names for path, names in known.items() if names
    }


@pytest.mark.parametrize("who", NOBODYS)
@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("repositories/?prefix={}", ("hush-raw", "void-raw")),
        ("jobs/?repository={}", ("hush-raw", "void-raw")),
        ("tokens/?user={}", ("mute-user", "void-user")),
        ("users/?prefix={}", ("mute-user", "void-user")),
        ("sessions/?user={}", ("mute-user", "void-user")),
        ("reviews/?owner={}", ("mute-user", "void-user")),
        ("explain/?action=read&repository=shared-raw&user={}", ("mute-user", "void-user")),
        ("explain/?action=read&repository={}&path=tool/lib", ("hush-raw", "void-raw")),
        ("explain/?action=manage&repository={}", ("hush-raw", "void-raw")),
        ("audit/?actor={}", ("mute-user", "void-user")),
        ("repositories/all-raw/assets/?package={}", ("hush/lib", "void/lib")),
    ],
)
def test_a_filter_tells_nothing_of_what_is_private(world, who, path, names):
    world.server.request("PUT", "/raw/hush-raw/hush/lib", b"x", user=ADMIN)
    assert same({name: world.ask(who, "GET", f"/api/v1/{path.format(name)}") for name in names})


def test_a_cursor_leads_nobody_to_what_they_may_not_see(world):
    """One that the administrator was given, one of another list, and one that was changed."""
    lists = ("users/", "repositories/", "tokens/", "jobs/", "reviews/", "sessions/", "trusts/", "audit/")
    given = {path: world.api("admin").read(f"{path}?limit=1")["next"] for path in lists}
    cursors = {path: link.partition("cursor=")[2].partition("&")[0] for path, link in given.items() if link}
    assert len(cursors) == len(given)
    for who, (path, cursor) in itertools.product(NOBODYS, cursors.items()):
        mine = world.ask(who, "GET", f"/api/v1/{path}?limit=1000")
        got = world.ask(who, "GET", f"/api/v1/{path}?limit=1000&cursor={cursor}")
        assert got.status == mine.status
        if got.status == 200:
            assert {json.dumps(item) for item in json.loads(got.body)["items"]} <= {
                json.dumps(item) for item in json.loads(mine.body)["items"]
            }
            for broken in (cursor[:-8], cursor[::-1], f"A{cursor[1:]}", "e30", "1", "%00", "[1]", json.dumps([0])):
                answer = world.ask(who, "GET", f"/api/v1/{path}?cursor={broken}")
                assert (answer.status, rule(answer)) in ((400, "cursor"), (400, "parameter")), broken


# To learn that it is there


@pytest.mark.parametrize("who", NOBODYS)
@pytest.mark.parametrize("form", FORMATS)
def test_validators_and_ranges_tell_nothing_of_what_is_private(world, form, who):
    """With the very ETag, by every condition, and asked for a part."""
    path, content, _ = cast.CONTENTS[form][0]
    tag = world.server.request("GET", url(form, f"hush-{form}", path), user=ADMIN).headers["ETag"]
    for headers in ({"If-None-Match": tag}, {"If-None-Match": "*"}, {"If-Match": tag}, {"If-Match": '"no"'},
                    {"Range": "bytes=0-0"},
                    {"Range": f"bytes={len(content)}-"}, {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
                    {"Expect": "200-ok"}, {"Accept": "text/none"}):  # fmt: skip
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            body = content if method == "PUT" else None
            assert same(
                {name: world.ask(who, method, url(form, f"{name}-{form}", path), body, headers) for name in ("hush", "void")}
            ), (headers, method)


@pytest.mark.parametrize("who", NOBODYS)
def test_no_spelling_of_a_path_leads_to_what_is_private(world, who):
    """Nor does it tell of it: where it is refused, it is as for a repository that is not there."""
    ways = ["{escaped}-raw/tool/lib", "{}-raw%2Ftool%2Flib", "shared-raw/../{}-raw/tool/lib", "shared-raw/..%2f{}-raw/tool/lib",
            "shared-raw/%2e%2e/{}-raw/tool/lib", "/{}-raw/tool/lib", "./{}-raw/tool/lib", "{}-raw//tool/lib", "{}-raw/./tool/lib",
            "{}-raw/tool/lib?x", "{}-raw/tool/lib;x", "{}-raw/tool/lib%00", "{}-raw\\tool\\lib", "{}-RAW/tool/lib",
            "{}-raw./tool/lib",
            "{}-raw%20/tool/lib", "all-raw/{}-raw/tool/lib", "all-raw/tool/../{}-raw/tool/lib", "{}-go/corp.example/lib/@v/list",
            "{}-oci/lib/tags/list"]  # fmt: skip
    for way, method in itertools.product(ways, ("GET", "HEAD")):
        asked = {
            word: world.ask(who, method, f"/raw/{way.format(word, escaped=f'%{ord(word[0]):02x}{word[1:]}')}")
            for word in ("hush", "void")
        }
        assert asked["hush"].status in (400, 401, 404), way
        assert asked["hush"].status == asked["void"].status, way
        assert b"a library" not in asked["hush"].body


@pytest.mark.parametrize("who", ["developer", "reader", "outsider", "robot"])
def test_no_body_that_names_what_is_private_tells_that_it_is_there(world, who):
    """A job's repository, a token's user, a virtual's members."""
    if who != "robot":
        world.server.apply({"grants": [{"role": "owner", "users": [who], "repositories": [f"{who}s-*"]}]})
    for form in FORMATS:
        same_name = [f"hush-{form}", f"void-{form}"]
        assert same({name: post(world, who, "jobs/", {"kind": "prefetch", "repository": name, "arguments": {"text": "a\n"}})
                     for name in same_name})  # fmt: skip
        for more in ({}, {"deploy_to": "{}"}, {"private": ["x"]}):
            documents = {
                name: {
                    "format": "raw",
                    "kind": "virtual",
                    "members": [name],
                    **{k: name if v == "{}" else v for k, v in more.items()},
                }
                for name in same_name
            }
            answers = {name: post(world, who, f"repositories/{who}s-raw/", body, "PUT") for name, body in documents.items()}
            assert same(answers), [(answer.status, answer.body) for answer in answers.values()]
            assert {answer.status for answer in answers.values()} <= {400, 404}
    assert same({name: post(world, who, "tokens/", {"user": name}) for name in ("mute-user", "void-user")})


def post(world, who: str, path: str, body: dict, method: str = "POST") -> Answer:
    return world.ask(who, method, f"/api/v1/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})


@pytest.mark.parametrize("who", ["developer", "reader", "outsider"])
def test_a_job_tells_nothing_of_what_is_private(world, who):
    """A prefetch by a virtual whose members are private: its document and log are those of what is not there."""
    told = []
    for name in ("hush", "void"):
        world.server.request("PUT", "/raw/hush-raw/job/hush", b"x", user=ADMIN)
        asked = post(world, who, "jobs/", {"kind": "prefetch", "repository": "all-raw", "arguments": {"text": f"job/{name}\n"}})
        assert asked.status == 202, asked
        job = cast.ended(world.api("admin"), json.loads(asked.body)["id"])
        log = world.api(who).items(f"jobs/{job['id']}/log/")
        seen = world.api(who).read(f"jobs/{job['id']}/")
        said = json.dumps([log, seen["result"], seen["problem"], seen["state"], seen["progress"]]).replace(name, "N")
        told.append(re.sub(r'"at": "[^"]+"|"[a-z_]*seconds": [0-9.]+', "", said))
    assert told[0] == told[1]


@pytest.mark.parametrize("who", NOBODYS)
def test_a_host_of_a_private_repository_names_it_nowhere(world, who):
    """By a host that leads to it, everything is hidden as by one that leads to nothing that may be read."""
    world.server.apply({"hosts": {"images.example.org": "hush-oci"}})
    for path in ("/v2/", "/v2/lib/manifests/v1", "/v2/lib/tags/list", "/v2/_catalog", "/v2/token?scope=repository:lib:pull", "/"):
        answer = world.ask(who, "GET", path, headers={"Host": "images.example.org"})
        assert "hush" not in f"{answer.headers} {answer.body.decode()}", path
    real, absent = (
        world.ask(who, "GET", f"/v2/{image}/manifests/v1", headers={"Host": "images.example.org"}) for image in ("lib", "nil")
    )
    assert same({"lib": real, "nil": absent})
    assert real.status in (401, 404)


def test_of_a_deleted_repository_nothing_is_left_to_who_makes_it_anew(world):
    """Neither what stood there, nor its history, its grants on paths apart, nor what a cursor remembered."""
    admin = world.api("admin")
    document = {"format": "raw", "kind": "local"}
    assert admin.put("repositories/shared-gone/", document).status == 201
    assert world.server.request("PUT", "/raw/shared-gone/secret/1", b"of before", user=ADMIN).status == 201
    assert world.server.request("PUT", "/raw/shared-gone/secret/2", b"of before", user=ADMIN).status == 201
    listed = admin.read("repositories/shared-gone/assets/?limit=1")
    for n in (1, 2):
        assert world.server.request("DELETE", f"/raw/shared-gone/secret/{n}", user=ADMIN).status == 204
    assert admin.delete("repositories/shared-gone/").status == 204
    for who in ("admin", "owner", "reader"):
        for path in ("", "assets/", "changes/", "changes/2/", "assets/secret/1"):
            assert world.ask(who, "GET", f"/api/v1/repositories/shared-gone/{path}").status == 404
    assert world.api("owner").put("repositories/shared-gone/", document).status == 201
    for who in ("owner", "reader"):
        api = world.api(who)
        assert api.items("repositories/shared-gone/assets/") == []
        assert {change["action"] for change in api.items("repositories/shared-gone/changes/")} == {"configure"}
        for path in ("assets/secret/1", "changes/2/"):
            assert api.get(f"repositories/shared-gone/{path}").status == 404
        assert json.loads(api.get(listed["next"]).body)["items"] == []
        assert rule(api.get("repositories/shared-gone/assets/?at=2")) == "assets.at"
        assert world.ask(who, "GET", "/raw/shared-gone/secret/1").status == 404


@pytest.mark.parametrize("who", FEW)
def test_numbers_enumerate_nothing(world, who):
    """Every token, job and review by its number: each that is not one's own is told like one that never was."""
    kinds = ("tokens", "jobs", "reviews")
    if who in ("expired", "anonymous"):
        assert {world.ask(who, "GET", f"/api/v1/{kind}/{n}/").status for kind in kinds for n in range(20)} == {401}
        return
    for kind in kinds:
        listed = world.ask(who, "GET", f"/api/v1/{kind}/?limit=1000")
        mine = {item["id"] for item in json.loads(listed.body)["items"]}
        for number in range(30):
            for path in (f"{kind}/{number}/", *([f"jobs/{number}/log/"] if kind == "jobs" else [])):
                answer = world.ask(who, "GET", f"/api/v1/{path}")
                assert answer.status == (200 if number in mine else 404), path


def test_names_of_users_groups_and_roles_are_told_to_nobody_who_does_not_manage_them(world):
    for who, kind in itertools.product(FEW, ("user", "group", "role", "grant")):
        _, mute, void = THINGS[kind]
        names = {str(world.ids.get(name, name)) for name in (mute, void)}
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            body = b"{}" if method == "PUT" else None
            kinds = {"Content-Type": "application/json"} if body else {}
            assert same({name: world.ask(who, method, f"/api/v1/{kind}s/{name}/", body, kinds) for name in names}), (
                who,
                kind,
                method,
            )


def test_a_request_that_is_refused_leaves_nothing_behind(world):
    """All that the cast may not do, done: no change, asset or stored byte more."""
    before = world.server.counts()
    for form, who in itertools.product(FORMATS, ("reader", "outsider", "expired", "anonymous")):
        path, content, headers = cast.CONTENTS[form][0]
        for name, method in itertools.product(("shared", "hush", "void", "all", "cache"), ("PUT", "DELETE", "POST", "PATCH")):
            answer = world.ask(who, method, url(form, f"{name}-{form}", path), content, headers)
            assert answer.status in (400, 401, 403, 404, 405), answer
    assert world.server.counts() == before
