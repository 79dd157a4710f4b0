"""Several repositories of images under one name: whose answer counts, whose lists are united, and who is never asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.parts import oci
from tests.parts.api import ADMIN, PASSWORD
from tests.parts.registry import Registry, denying
from tests.parts.registryclient import code
from tests.parts.remotes import CONFIG, LAYER, image, tags
from tests.parts.server import Answer, Server

AT_ONCE = {"lifetime": "0s", "missing": "0s"}
COUNT = 40


@dataclass(frozen=True)
class World:
    """A virtual repository of a local one, two remotes and a local one that only `owner` may read; pushes go to the first."""

    server: Server
    key: str
    first: Registry
    second: Registry

    def repositories(self) -> list[dict]:
        remotes = {"first": self.first, "second": self.second}
        return [
            *({"key": f"{self.key}-{name}", "format": "oci", "kind": "local"} for name in ("local", "secret")),
            *(
                {"key": f"{self.key}-{name}", "format": "oci", "kind": "remote", "cache": AT_ONCE,
                 "upstreams": [{"url": one.url, "timeout": "2s"}]}
                for name, one in remotes.items()
            ),
            {"key": self.key, "format": "oci", "kind": "virtual", "deploy_to": f"{self.key}-local", "private": ["corp/**"],
             "members": [f"{self.key}-{name}" for name in ("first", "second", "local", "secret")]},
        ]  # fmt: skip

    def get(self, path: str, member: str = "", user: tuple[str, str] | None = ADMIN, method: str = "GET") -> Answer:
        return self.server.request(method, f"/v2/{self.key}{member and '-'}{member}/{path}", user=user)

    def push(self, name: str, tag: str, content: bytes, member: str = "") -> str:
        """An index, which needs nothing else to be there."""
        url = f"/v2/{self.key}{member and '-'}{member}/{name}/manifests/{tag}"
        answer = self.server.request("PUT", url, content, {"Content-Type": oci.INDEX}, user=ADMIN)
        assert answer.status == 201, answer
        return answer.headers["Docker-Content-Digest"]

    def believe_what_is_missing(self, time: str) -> None:
        cache = AT_ONCE | {"missing": time}
        remotes = [one | {"cache": cache} for one in self.repositories() if one["kind"] == "remote"]
        self.server.apply({"repositories": remotes})

    def forget_what_was_asked(self) -> None:
        for registry in (self.first, self.second):
            registry.asked_for.clear()

    @property
    def asked(self) -> list[str]:
        return self.first.lines() + self.second.lines()


@pytest.fixture(scope="module")
def worlds(server) -> Iterator[Iterator[World]]:
    here = server(ENTREPOT_WORKERS="1")
    made = [World(here, f"all{n}", Registry(), Registry()) for n in range(COUNT)]
    here.apply(
        {
            "repositories": [one for world in made for one in world.repositories()],
            "users": [{"name": name, "password": PASSWORD} for name in ("reader", "owner")],
            "grants": [
                {"role": "reader", "users": ["reader"], "repositories": [f"all{n}" for n in range(COUNT)]},
                {"role": "reader", "users": ["reader"], "repositories": ["*-local", "*-first", "*-second"]},
                {"role": "reader", "users": ["owner"], "repositories": ["*"]},
            ],
        }
    )
    yield iter(made)
    for world in made:
        world.first.stop()
        world.second.stop()


@pytest.fixture
def world(worlds) -> World:
    return next(worlds)


def index(text: str) -> bytes:
    return oci.index(text=text)


def pulled(answer: Answer, content: bytes) -> bool:
    return (answer.status, answer.body) == (200, content)


# Lists


def test_the_tags_of_all_who_have_an_image_are_one_sorted_list_with_pages(world):
    for registry, names in ((world.first, ("v3", "v1", "both")), (world.second, ("v2", "both", "V"))):
        for name in names:
            registry.push("team/app", name, index(name))
    whole = ["V", "both", "v1", "v2", "v3"]
    answer = world.get("team/app/tags/list")
    assert json.loads(answer.body) == {"name": f"{world.key}/team/app", "tags": whole}
    found, following = [], f"/v2/{world.key}/team/app/tags/list?n=2"
    while following:
        page = world.server.request("GET", following, user=ADMIN)
        found.append(tags(page))
        following = page.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert found == [whole[:2], whole[2:4], whole[4:]]


def test_the_tags_of_two_locals_are_united(world):
    world.push("team/app", "v1", index("one"))
    world.push("team/app", "v2", index("two"), "secret")
    world.push("team/app", "v1", index("another"), "secret")
    assert tags(world.get("team/app/tags/list")) == ["v1", "v2"]
    assert tags(world.get("team/app/tags/list?n=1&last=v1")) == ["v2"]
    assert pulled(world.get("team/app/manifests/v1"), index("one")), "the first that has it answers"


OUT = {"an error": 500, "down": 503, "no JSON": b"<html></html>", "no object": b"[]"}


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("which", ["first", "second"])
def test_a_list_of_tags_that_lacks_a_members_is_never_passed_off_as_whole(world, which, name):
    """It is a failure, or it has what the member had last and says so."""
    for registry in (world.first, world.second):
        registry.push("team/known", f"of-{registry.port}", index("known"))
        registry.push("team/new", f"of-{registry.port}", index("new"))
    whole = tags(world.get("team/known/tags/list"))
    assert len(whole) == 2
    getattr(world, which).always = OUT[name]
    assert world.get("team/new/tags/list").status in (502, 503)
    stale = world.get("team/known/tags/list")
    assert tags(stale) == whole and stale.headers["Warning"].startswith("110")


def test_an_image_that_nobody_has_has_no_list(world):
    answer = world.get("team/nothing/tags/list")
    assert answer.status == 404 and code(answer) == "NAME_UNKNOWN"


def test_what_refers_to_an_image_is_united_too(world):
    subject = oci.descriptor(image(), oci.MANIFEST)
    signatures = [oci.manifest(b"{}", subject=subject, annotations={"n": str(n)}) for n in range(3)]
    listed = [oci.descriptor(one, oci.MANIFEST) for one in signatures]
    world.first.referrers = {subject["digest"]: listed[:2]}
    world.second.push("team/app", subject["digest"].replace(":", "-"), oci.index(manifests=listed[1:]))
    answer = world.get(f"team/app/referrers/{subject['digest']}")
    assert [one["digest"] for one in json.loads(answer.body)["manifests"]] == sorted(one["digest"] for one in listed)


# Who answers


def test_the_first_member_wins_where_two_have_a_tag_and_each_has_its_own_digests(world):
    world.first.push("team/app", "v1", index("first"))
    other = world.second.push("team/app", "v1", index("second"))
    assert pulled(world.get("team/app/manifests/v1"), index("first"))
    assert pulled(world.get(f"team/app/manifests/{other}"), index("second"))


def test_a_digest_is_pulled_from_whichever_member_has_it(world):
    world.second.push("team/app", "v1", image(), CONFIG, LAYER)
    for path, content in {
        "manifests/v1": image(),
        f"manifests/{oci.digest(image())}": image(),
        f"blobs/{oci.digest(LAYER)}": LAYER,
    }.items():
        assert pulled(world.get(f"team/app/{path}"), content)


@pytest.mark.parametrize("cached", [True, False])
def test_a_digest_is_had_of_a_later_member_while_an_earlier_one_is_out(world, cached):
    """Nothing else can have it; by a tag the earlier one might have something else."""
    world.second.push("team/app", "v1", image(), CONFIG, LAYER)
    paths = {f"team/app/manifests/{oci.digest(image())}": image(), f"team/app/blobs/{oci.digest(LAYER)}": LAYER}
    for path in paths if cached else ():
        assert world.get(path, "second").status == 200
    with world.first.down():
        for path, content in paths.items():
            assert pulled(world.get(path), content)
        tagged = world.get("team/app/manifests/v1")
        assert tagged.status in (502, 503) and code(tagged)


@pytest.mark.parametrize("status", [403, 404, 503])
def test_what_a_member_has_here_by_its_digest_is_asked_of_no_registry(world, status):
    """Whatever an earlier one would say."""
    digest = world.second.push("team/app", "v1", image(), CONFIG, LAYER)
    paths = {f"team/app/manifests/{digest}": image(), f"team/app/blobs/{oci.digest(LAYER)}": LAYER}
    for path in paths:
        assert world.get(path, "second").status == 200
    world.forget_what_was_asked()
    world.first.always = status
    for path, content in paths.items():
        assert pulled(world.get(path), content)
    assert world.asked == []


def test_a_digest_that_an_earlier_member_could_not_be_asked_for_is_not_called_missing(world):
    with world.first.down():
        answer = world.get(f"team/app/blobs/{oci.digest(LAYER)}")
    assert answer.status in (502, 503) and code(answer) != "BLOB_UNKNOWN"


def test_what_one_registry_denies_another_may_have(world):
    world.first.always = denying(403)
    world.second.push("team/app", "v1", image())
    assert pulled(world.get("team/app/manifests/v1"), image())
    assert tags(world.get("team/app/tags/list")) == ["v1"]
    answer = world.get("team/none/manifests/v1")
    assert answer.status == 403 and code(answer) == "DENIED"


def test_what_one_registry_denied_it_is_not_asked_for_again_as_long_as_a_denial_is_believed(world):
    """Then another has it also while the one that denied it is down; where nobody has it the answer is the denial each time."""
    world.believe_what_is_missing("1h")
    world.first.always = denying(403)
    world.second.push("team/app", "v1", image(), CONFIG, LAYER)
    paths = {"team/app/manifests/v1": image(), f"team/app/blobs/{oci.digest(LAYER)}": LAYER}
    for _ in range(3):
        for path, content in paths.items():
            assert pulled(world.get(path), content)
        answer = world.get("team/none/manifests/v1")
        assert answer.status == 403 and code(answer) == "DENIED" and "upstream.denied" in answer.body.decode()
    assert sorted(world.first.lines()) == [
        f"GET /v2/team/app/blobs/{oci.digest(LAYER)}", "HEAD /v2/team/app/manifests/v1", "HEAD /v2/team/none/manifests/v1",
    ]  # fmt: skip
    with world.first.down():
        assert pulled(world.get("team/app/manifests/v1"), image())


# Names that are ours


def test_no_registry_is_asked_for_an_image_that_a_local_member_has(world):
    """Not for tags, digests, lists or referrers, and not for what of it is not here, nor after it was deleted; nor is what was
    fetched of it before.
    """
    for registry in (world.first, world.second):
        registry.push("team/app", "v1", index("theirs"), LAYER)
        registry.push("team/app", "v2", index("theirs"), LAYER)
    assert pulled(world.get(f"team/app/blobs/{oci.digest(LAYER)}"), LAYER)
    world.forget_what_was_asked()
    digest = world.push("team/app", "v1", index("ours"))
    assert pulled(world.get("team/app/manifests/v1"), index("ours"))
    assert tags(world.get("team/app/tags/list")) == ["v1"]
    assert json.loads(world.get(f"team/app/referrers/{digest}").body)["manifests"] == []
    for path in ("manifests/v2", f"manifests/{oci.digest(index('theirs'))}", f"blobs/{oci.digest(LAYER)}"):
        assert world.get(f"team/app/{path}").status == 404
    assert world.get(f"team/app/manifests/{digest}", method="DELETE").status == 202
    for path in ("manifests/v1", "tags/list"):
        assert world.get(f"team/app/{path}").status == 404
    assert world.asked == []


def test_an_image_that_a_local_has_whom_the_caller_may_not_read_is_asked_of_no_registry(world):
    """Else whoever may not read it would be given somebody else's by its name."""
    world.push("team/hidden", "v1", index("ours"), "secret")
    world.first.push("team/hidden", "v1", index("theirs"))
    reader = ("reader", PASSWORD)
    for path in ("manifests/v1", "tags/list", f"manifests/{oci.digest(index('ours'))}"):
        hidden, absent = world.get(f"team/hidden/{path}", user=reader), world.get(f"team/hidden/{path}x", user=reader)
        assert hidden.status == 404, path
        assert absent.status in (400, 404)
        assert world.get(f"team/hidden/{path}", user=("owner", PASSWORD)).status == 200
    assert json.loads(world.get(f"team/hidden/referrers/{oci.digest(index('ours'))}", user=reader).body)["manifests"] == []
    assert world.asked == []


def test_a_private_name_is_asked_of_no_registry(world):
    """Nor is it had where a remote has fetched it for those who ask that one."""
    world.first.push("corp/app", "v1", index("theirs"), LAYER)
    assert pulled(world.get(f"corp/app/blobs/{oci.digest(LAYER)}", "first"), LAYER)
    world.forget_what_was_asked()
    for path in ("manifests/v1", "tags/list", f"blobs/{oci.digest(LAYER)}"):
        assert world.get(f"corp/app/{path}").status == 404
    assert world.asked == []


def test_each_member_answers_only_who_may_read_it(world):
    world.push("team/app", "open", index("open"))
    world.push("team/app", "closed", index("closed"), "secret")
    reader, owner = ("reader", PASSWORD), ("owner", PASSWORD)
    assert tags(world.get("team/app/tags/list", user=reader)) == ["open"]
    assert tags(world.get("team/app/tags/list", user=owner)) == ["closed", "open"]
    for reference in ("closed", oci.digest(index("closed"))):
        assert world.get(f"team/app/manifests/{reference}", user=reader).status == 404
        assert pulled(world.get(f"team/app/manifests/{reference}", user=owner), index("closed"))
    assert world.get("team/app/manifests/open", user=None).status == 401


# Pushing


def test_what_is_pushed_to_a_virtual_repository_is_pulled_from_it_and_is_in_the_local_one(world):
    for blob in (CONFIG, LAYER):
        session = world.server.request("POST", f"/v2/{world.key}/team/app/blobs/uploads/", b"", user=ADMIN)
        assert session.status == 202 and session.headers["Location"].startswith(f"/v2/{world.key}/team/app/blobs/uploads/")
        put = world.server.request("PUT", f"{session.headers['Location']}?digest={oci.digest(blob)}", blob, user=ADMIN)
        assert put.status == 201 and put.headers["Location"] == f"/v2/{world.key}/team/app/blobs/{oci.digest(blob)}"
    headers = {"Content-Type": oci.MANIFEST}
    answer = world.server.request("PUT", f"/v2/{world.key}/team/app/manifests/v1", image(), headers, user=ADMIN)
    assert answer.status == 201
    for member in ("", "local"):
        assert pulled(world.get("team/app/manifests/v1", member), image())
        assert pulled(world.get(f"team/app/blobs/{oci.digest(LAYER)}", member), LAYER)
    assert world.asked == []


def test_a_layer_that_only_a_registry_has_is_not_in_the_image_that_is_pushed(world):
    """What is pushed has to stand where it is pushed to, also when the registry is gone."""
    world.first.push("base/app", "v1", image(), CONFIG, LAYER)
    assert pulled(world.get(f"base/app/blobs/{oci.digest(LAYER)}"), LAYER)
    headers = {"Content-Type": oci.MANIFEST}
    answer = world.server.request("PUT", f"/v2/{world.key}/team/app/manifests/v1", image(), headers, user=ADMIN)
    assert answer.status in (400, 404) and code(answer) == "MANIFEST_BLOB_UNKNOWN"


def test_a_virtual_repository_without_deploy_to_takes_nothing(world):
    world.server.apply(
        {"repositories": [{"key": f"{world.key}-read", "format": "oci", "kind": "virtual", "members": [f"{world.key}-local"]}]}
    )
    url = f"/v2/{world.key}-read/team/app/manifests/v1"
    answer = world.server.request("PUT", url, index("x"), {"Content-Type": oci.INDEX}, user=ADMIN)
    assert answer.status == 405 and code(answer) == "UNSUPPORTED"


def test_the_catalogue_of_a_virtual_repository_names_each_image_once_and_only_what_may_be_read(world):
    world.push("team/app", "v1", index("app"))
    world.push("team/hidden", "v1", index("hidden"), "secret")
    world.first.push("far/app", "v1", index("far"))
    assert world.get("far/app/manifests/v1").status == 200
    assert world.get(f"far/asked-about/referrers/{oci.digest(image())}").status == 200

    def names(user: tuple[str, str]) -> list[str]:
        answer = world.server.request("GET", "/v2/_catalog?n=1000", user=user)
        return [name for name in json.loads(answer.body)["repositories"] if name.startswith(f"{world.key}/")]

    assert names(("reader", PASSWORD)) == [f"{world.key}/far/app", f"{world.key}/team/app"]
    assert names(("owner", PASSWORD)) == [f"{world.key}/{name}" for name in ("far/app", "team/app", "team/hidden")]
