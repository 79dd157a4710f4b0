"""The cast: one installation with all kinds of repositories in every format, and everybody who may ask something of it.

admin      may everything
owner      owns the repositories `shared-*` and `hush-*`
developer  publishes to `shared-*`
reader     reads `shared-*`
outsider   is signed in, and that is all
robot      has a token for reading and writing in `shared-*`, where its robot may what a developer may
expired    the administrator's token, whose time has passed
anonymous  sends no credentials

What is private has `hush` in its name where it is a repository, and `mute` where it is somebody's or of a role: who may not know
of it is never told either word. `void` stands in the place of it where there is nothing. All three are of one length.

Those who have a password are signed in with a browser, too. Names of providers are no secret: they stand where people sign in.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from dataclasses import dataclass, field
from typing import Any

from repos.format import installed
from tests.contract.samples import SAMPLES, url
from tests.gomodules import make_zip
from tests.parts import oci
from tests.parts.api import ADMIN, PASSWORD, Api
from tests.parts.browser import Browser
from tests.parts.server import Answer, Server, basic
from tests.parts.upstream import Upstream

CAST = ("admin", "owner", "developer", "reader", "outsider", "robot", "expired", "anonymous")
BROWSING = ("admin", "owner", "developer", "reader", "outsider")
"""Who has a password, and so may have a session."""
FORMATS = tuple(installed())
LOCALS = ("shared", "hush", "open")
BLOB = b"a layer\n" * 100
DEADLINE = 120.0
CONTENTS: dict[str, list[tuple[str, bytes, dict[str, str]]]] = {
    "raw": [("tool/lib", b"a library\n", {}), ("tool/old", b"an old one\n", {})],
    "go": [
        (f"corp.example/lib/@v/{version}.zip", make_zip("corp.example/lib", version, {"lib.go": b"package lib\n"}), {})
        for version in ("v1.0.0", "v1.0.1")
    ],
    "oci": [(f"lib/manifests/{tag}", oci.index(text=tag), {"Content-Type": oci.INDEX}) for tag in ("v1", "old")],
}
"""What each local repository holds: one thing that stays, and one that is deleted and put back."""
READERS = {"role": "reader", "users": ["reader"], "repositories": ["shared-*"]}
MUTE = {"role": "reader", "users": ["mute-user"], "repositories": ["mute-*"]}
BLOBS = {"oci": "lib/blobs/"}
"""Where a format takes bytes that are no artefact yet."""


SESSIONS = {**{who: who for who in BROWSING}, "session play": "reader", "session mute": "admin"}
"""Whose each session is: the one in which each of them browses, and one more that is ended."""
LDAP = importlib.util.find_spec("ldap") is not None
"""Whether there can be directories."""


@dataclass
class World:
    """The server and how each of the cast signs in; `ids` are those of tokens, sessions, jobs... by who may see them.

    `keys` are the secrets of sessions.
    """

    server: Server
    upstream: Upstream
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    ids: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def ask(self, who: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        return self.server.request(method, path, body, {**(headers or {}), **self.headers[who]})

    def api(self, who: str) -> Api:
        """Of somebody who signs in by a password, or of nobody."""
        return Api(self.server, login(who))

    def sign_in(self) -> None:
        """Begin the sessions that there are not, or not any more."""
        alive = {key for (key,) in self.server.rows("SELECT session_key FROM accounts_session")}
        for name, who in SESSIONS.items():
            if name not in self.keys or digest(self.keys[name]) not in alive:
                browser = Browser(self.server)
                signed = dict(zip(("name", "password"), login(who) or (), strict=True))
                browser.send(browser.get("/ui/sign-in/"), "/ui/sign-in/", signed, User_Agent=f"a browser of {name}")
                self.keys[name] = browser.cookie("entrepot-session") or ""
        self.ids |= {name: digest(key) for name, key in self.keys.items() if " " in name}


def digest(key: str) -> str:
    """The id of the session with this secret."""
    return hashlib.sha256(key.encode()).hexdigest()


def login(who: str) -> tuple[str, str] | None:
    return {"admin": ADMIN, "anonymous": None}.get(who, (who, PASSWORD))


def repositories(upstream: str) -> list[dict[str, Any]]:
    return [
        item
        for form in FORMATS
        for item in (
            *({"key": f"{name}-{form}", "format": form, "kind": "local"} for name in (*LOCALS, "hush-old")),
            {"key": f"shared-old-{form}", "format": form, "kind": "local", "owner": "owner"},
            {"key": f"cache-{form}", "format": form, "kind": "remote", "upstreams": [{"url": upstream}]},
            {"key": f"all-{form}", "format": form, "kind": "virtual", "members": [f"{name}-{form}" for name in LOCALS]},
        )
    ]


def source(kind: str, name: str) -> dict[str, Any]:
    """One that nobody answers for: whoever is asked at its address is not there."""
    return {
        "directory": {"url": "ldap://127.0.0.1:9", "users": {"base": "dc=example,dc=org"}},
        "provider": {"issuer": f"http://127.0.0.1:9/{name}", "client_id": "entrepot"},
        "trust": {"issuer": "https://ci.example.org", "audience": "entrepot", "claims": {"job": name}, "robot": "robot"},
    }[kind]


def sources(kind: str) -> list[dict[str, Any]]:
    words = ("play", "else" if kind == "provider" else "mute")
    return [{"name": name, **source(kind, name)} for word in words for name in (f"{word}-{kind}", f"{word}-{kind}-old")]


def configuration(upstream: str) -> dict[str, Any]:
    roles = ("play-role", "mute-role", "play-old", "mute-old")
    people = [name for name in CAST if name not in ("admin", "robot", "expired", "anonymous")]
    return {
        "repositories": repositories(upstream),
        "directories": sources("directory") if LDAP else [],
        "providers": sources("provider"),
        "trusts": sources("trust"),
        "roles": [{"name": name, "permissions": ["artifact:read"]} for name in roles],
        "groups": [{"name": name} for name in ("play-group", "mute-group", "play-old", "mute-old")],
        "users": [
            *({"name": name, "password": PASSWORD} for name in people),
            {"name": "robot", "robot": True},
            *({"name": name} for name in ("mute-user", "play-old", "mute-old")),
        ],
        "grants": [
            {"role": "owner", "users": ["owner"], "repositories": ["shared-*", "hush-*"]},
            {"role": "developer", "users": ["developer", "robot"], "repositories": ["shared-*"]},
            READERS,
            {"role": "reader", "anonymous": True, "repositories": ["open-*", "cache-*", "all-*"]},
            MUTE,
            {"role": "mute-role", "users": ["mute-user"], "repositories": ["mute-*"]},
        ],
    }


def build(server: Server, upstream: Upstream) -> World:
    """All of it, on a server that has just begun."""
    server.apply(configuration(upstream.url))
    world = World(server, upstream)
    admin = world.api("admin")
    for form in FORMATS:
        for name in LOCALS:
            put_blob(world, form, f"{name}-{form}")
            for path, content, headers in CONTENTS[form]:
                done = server.request("PUT", url(form, f"{name}-{form}", path), content, headers, ADMIN)
                assert done.status == 201, done
        path = SAMPLES[form].at_upstream(CONTENTS[form][0][0])
        upstream.routes[path] = CONTENTS[form][0][1]
    scopes = ["artifact:read@shared-*", "artifact:write@shared-*"]
    robot = json.loads(admin.post("tokens/", {"user": "robot", "scopes": scopes}).body)
    expired = json.loads(admin.post("tokens/", {"name": "mute"}).body)
    server.execute(f"UPDATE accounts_token SET expires_at = '2020-01-01 00:00:00+00:00' WHERE id = {expired['id']}")
    world.headers = {name: {"Authorization": basic((name, PASSWORD))} for name in CAST} | {
        "admin": {"Authorization": basic(ADMIN)},
        "robot": {"Authorization": f"Bearer {robot['secret']}"},
        "expired": {"Authorization": f"Bearer {expired['secret']}"},
        "anonymous": {},
    }
    world.ids = _ids(world)
    world.sign_in()
    return world


def _ids(world: World) -> dict[str, Any]:
    """Of what the reader may see and of what only the administrator may."""
    admin, reader = world.api("admin"), world.api("reader")
    grants = {item["id"]: item for item in admin.items("grants/?limit=1000")}
    readers = next(id for id, item in grants.items() if item.get("users") == ["reader"])
    mute = next(id for id, item in grants.items() if (item["role"], item.get("users")) == ("reader", ["mute-user"]))
    spare = next(id for id, item in grants.items() if item["role"] == "mute-role")
    jobs = {
        "reader": reader.post("jobs/", {"kind": "prefetch", "repository": "cache-raw", "arguments": {"text": "tool/lib\n"}}),
        "admin": admin.post("jobs/", {"kind": "gc"}),
    }
    ids = {name: json.loads(answer.body)["id"] for name, answer in jobs.items()}
    reviews = {one["owner"]: one["id"] for one in json.loads(admin.post("reviews/").body)["items"]}
    for number in ids.values():
        ended(admin, number)
    return {
        "grant play": readers, "grant mute": mute, "grant spare": spare, "grant void": "0" * 24,
        "token play": json.loads(reader.post("tokens/", {"name": "play"}).body)["id"],
        "token mute": json.loads(admin.post("tokens/", {"name": "mute"}).body)["id"],
        "job play": ids["reader"], "job mute": ids["admin"], "token void": 999999, "job void": 999999,
        "review play": reviews["owner"], "review mute": reviews[""], "review void": 999999, "session void": "0" * 64,
    }  # fmt: skip


def ended(admin: Api, number: int) -> dict[str, Any]:
    """The job, once it has ended."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        job = admin.read(f"jobs/{number}/")
        if job["ended_at"]:
            return job
        time.sleep(0.1)
    raise AssertionError(f"job {number} did not end: {job}")


def put_blob(world: World, form: str, repository: str) -> None:
    if form in BLOBS:
        path = url(form, repository, f"{BLOBS[form]}uploads/?digest={oci.digest(BLOB)}")
        answer = world.server.request("POST", path, BLOB, {"Content-Type": "application/octet-stream"}, ADMIN)
        assert answer.status == 201, answer
