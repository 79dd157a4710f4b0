"""Tags: which may move and who may move them, what a delete takes with it, and how they are listed."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import quote

import pytest

from tests.parts.images import plain
from tests.parts.oci import INDEX, digest, index, manifest
from tests.parts.registryclient import CAST, RegistryClient, code

ODD = ["sha256", "sha256-aa", "sha256a", "sha512", "sha511", "sha513", "a", "Z", "_", "0", "v1.10", "v1.9", "v1", "sha2567", "zz"]
"""Tags on either side of what begins with a digest's algorithm, in no order."""


@pytest.fixture(scope="module")
def world(server):
    here = server(ENTREPOT_WORKERS="2")
    here.apply(CAST)
    images = RegistryClient(here, "local").by("developer")
    for tag in ODD:
        images.of("odd").put(tag, index(text="odd"))
    for algorithm in ("sha256", "sha512"):
        images.of("odd").put(digest(index(text=algorithm), algorithm), index(text=algorithm))
    return here


@pytest.fixture
def images(world) -> RegistryClient:
    return RegistryClient(world, "local").by("developer")


def tag_of(images: RegistryClient, image: str, tag: str) -> str:
    """What the tag leads to, or nothing."""
    answer = images.ask("HEAD", f"{image}/manifests/{tag}")
    return answer.headers["Docker-Content-Digest"] if answer.status == 200 else ""


# Immutable tags


def test_a_tag_that_may_not_move_takes_only_the_bytes_that_it_has(images):
    fixed = images.by("owner", "fixed")
    first = fixed.of("team/app").push(plain("first"), "v1")
    for who in (fixed, images.by("developer", "fixed")):
        refused = who.of("team/app").put("v1", index(text="second"))
        assert (refused.status, code(refused)) == (409, "DENIED")
        assert "rule: immutable" in refused.headers["X-Entrepot-Reason"]
        assert who.of("team/app").put("v1", first).status == 201
    assert tag_of(fixed, "team/app", "v1") == digest(first)
    assert fixed.ask("GET", f"team/app/manifests/{digest(index(text='second'))}").status == 404, "nothing of it was kept"


@pytest.mark.parametrize(("image", "tag"), [("team/app", "latest"), ("other/app", "v1"), ("team/app/sub", "v1"), ("team", "v1")])
def test_a_tag_that_no_pattern_matches_moves(images, image, tag):
    fixed = images.by("developer", "fixed")
    for text in ("first", "second"):
        assert fixed.of(image).put(tag, index(text=text)).status == 201
        assert tag_of(fixed, image, tag) == digest(index(text=text))


def test_a_deleted_tag_that_may_not_move_comes_back_only_with_the_same_bytes(images):
    fixed = images.by("owner", "fixed")
    assert fixed.of("team/app").put("v2", index(text="first")).status == 201
    assert fixed.ask("DELETE", "team/app/manifests/v2").status == 202
    assert fixed.of("team/app").put("v2", index(text="second")).status == 409
    assert tag_of(fixed, "team/app", "v2") == ""
    assert fixed.of("team/app").put("v2", index(text="first")).status == 201
    assert tag_of(fixed, "team/app", "v2") == digest(index(text="first"))


def at_once(images: RegistryClient, image: str, tag: str, contents: list[bytes]) -> list[int]:
    """Put each of the manifests by the same tag, all at the same time; the statuses in their order."""
    with ThreadPoolExecutor(len(contents)) as pool:
        return [answer.status for answer in pool.map(lambda content: images.of(image).put(tag, content), contents)]


def test_of_twenty_who_push_a_tag_that_may_not_move_one_wins(images):
    fixed = images.by("developer", "fixed")
    contents = [index(text=f"writer {n}") for n in range(20)]
    statuses = at_once(fixed, "team/race", "v1", contents)
    assert sorted(statuses) == [201] + [409] * 19
    assert tag_of(fixed, "team/race", "v1") == digest(contents[statuses.index(201)])


# Who may create but not overwrite


def test_who_may_only_create_moves_no_tag(images):
    creator = images.by("creator")
    assert creator.of("create").put("latest", index(text="first")).status == 201
    refused = creator.of("create").put("latest", index(text="second"))
    assert (refused.status, code(refused)) == (403, "DENIED")
    assert tag_of(images, "create", "latest") == digest(index(text="first"))
    assert creator.of("create").put("latest", index(text="first")).status == 201, "the same bytes move nothing"
    assert creator.of("create").put("newer", index(text="second")).status == 201
    assert images.of("create").put("latest", index(text="second")).status == 201, "who may overwrite moves it"


def test_of_twenty_who_may_only_create_a_tag_one_does(images):
    contents = [index(text=f"creator {n}") for n in range(20)]
    statuses = at_once(images.by("creator"), "create", "raced", contents)
    assert sorted(statuses) == [201] + [403] * 19
    assert tag_of(images, "create", "raced") == digest(contents[statuses.index(201)])


def test_of_twenty_who_may_overwrite_a_tag_all_do_and_the_last_stays(images):
    contents = [index(text=f"writer {n}") for n in range(20)]
    assert at_once(images, "moved", "latest", contents) == [201] * 20
    rows = images.server.rows(
        "SELECT b.sha256, a.until FROM repos_asset a JOIN repos_blob b ON b.id = a.blob_id"
        " WHERE a.path = 'moved/manifests/latest' ORDER BY a.since"
    )
    assert len(rows) == 20
    assert [until is None for _, until in rows] == [False] * 19 + [True]
    assert tag_of(images, "moved", "latest") == f"sha256:{rows[-1][0]}"


# Deleting


@pytest.fixture
def owner(images) -> RegistryClient:
    return images.by("owner")


def test_a_tag_is_deleted_and_the_manifest_stays(owner):
    content = owner.of("deleted").push(plain("by tag"), "one")
    owner.of("deleted").put("two", content)
    answer = owner.ask("DELETE", "deleted/manifests/one")
    assert (answer.status, answer.body) == (202, b"")
    assert tag_of(owner, "deleted", "one") == ""
    assert tag_of(owner, "deleted", "two") == tag_of(owner, "deleted", digest(content)) == digest(content)
    assert owner.ask("DELETE", "deleted/manifests/one").status == 404


def test_a_manifest_is_deleted_by_its_digest_with_every_tag_that_leads_to_it(owner):
    content, other = owner.of("gone").push(plain("by digest"), "one"), owner.of("gone").push(plain("another"), "other")
    owner.of("gone").put("two", content)
    owner.of("gone-too").push(plain("by digest"), "one")
    assert owner.ask("DELETE", f"gone/manifests/{digest(content)}").status == 202
    assert [tag_of(owner, "gone", name) for name in ("one", "two", digest(content))] == ["", "", ""]
    assert tag_of(owner, "gone", "other") == digest(other)
    assert tag_of(owner, "gone-too", "one") == digest(content), "in another image it stays"
    answer = owner.ask("DELETE", f"gone/manifests/{digest(content)}")
    assert (answer.status, code(answer)) == (404, "MANIFEST_UNKNOWN")


def test_what_a_manifest_needs_is_not_deleted_before_it(owner):
    content = owner.of("held").push(plain("held"), "one")
    parent = index(content)
    owner.of("held").put("parent", parent)
    for path in (f"held/blobs/{digest(b'held')}", f"held/blobs/{digest(b'{}')}", f"held/manifests/{digest(content)}"):
        answer = owner.ask("DELETE", path)
        assert (answer.status, code(answer)) == (405, "UNSUPPORTED")
        assert owner.ask("HEAD", path).status == 200
    assert owner.ask("DELETE", f"held/manifests/{digest(parent)}").status == 202
    assert owner.ask("DELETE", f"held/manifests/{digest(content)}").status == 202
    assert owner.ask("DELETE", f"held/blobs/{digest(b'held')}").status == 202
    assert owner.ask("HEAD", f"held/blobs/{digest(b'held')}").status == 404


def test_a_referrer_holds_not_its_subject(owner):
    content = owner.of("subject").push(plain("subject"), "one")
    subject = {"mediaType": json.loads(content)["mediaType"], "digest": digest(content), "size": len(content)}
    owner.of("subject").put("signature", index(subject=subject))
    assert owner.ask("DELETE", f"subject/manifests/{digest(content)}").status == 202


KEPT = manifest(b"{}", b"kept")


@pytest.mark.parametrize("path", ["manifests/one", f"manifests/{digest(KEPT)}", f"blobs/{digest(b'kept')}"])
def test_a_delete_takes_the_right_to(images, path):
    images.of("kept").push(plain("kept"), "one")
    before = images.server.counts()
    assert images.ask("DELETE", f"kept/{path}").status == 403
    assert images.by("reader").ask("DELETE", f"kept/{path}").status == 403
    assert images.by("outsider").ask("DELETE", f"kept/{path}").status == 404
    assert images.by("").ask("DELETE", f"kept/{path}").status == 401
    assert images.server.counts() == before


# Listing


def listed(images: RegistryClient, path: str) -> tuple[dict, str]:
    """A list, and where the next page is."""
    answer = images.ask("GET", path)
    assert answer.status == 200, answer
    link = re.fullmatch(r'<([^>]*)>; rel="next"', answer.headers.get("Link", "")) if "Link" in answer.headers else None
    assert (link is None) == ("Link" not in answer.headers)
    return json.loads(answer.body), link[1] if link else ""


def test_tags_are_listed_in_the_order_of_their_bytes(images):
    assert listed(images, "odd/tags/list") == ({"name": "local/odd", "tags": sorted(ODD)}, "")


@pytest.mark.parametrize("count", [1, 2, 7, len(ODD) - 1, len(ODD), len(ODD) + 1])
@pytest.mark.parametrize("repository", ["local", "virtual"])
def test_pages_of_tags_have_each_once(images, repository, count):
    images = images.by("reader", repository)
    found: list[str] = []
    path = f"odd/tags/list?n={count}"
    while path:
        document, path = listed(images, path)
        assert 0 < len(document["tags"]) <= count
        found += document["tags"]
    assert found == sorted(ODD)


AFTER = ["", "-", "0", "a", "b", "sha256", "sha256:", "sha256:ff", "sha256-", "sha512;", "v1", "zz", "~", "é", "\0"]


@pytest.mark.parametrize("last", AFTER)
def test_a_list_goes_on_after_any_text(images, last):
    answer = images.ask("GET", f"odd/tags/list?last={quote(last)}")
    if "\0" in last:
        assert answer.status == 400
    else:
        assert json.loads(answer.body)["tags"] == [tag for tag in sorted(ODD) if tag.encode() > last.encode()]


def test_of_no_tags_there_is_no_next_page(images):
    assert listed(images, "odd/tags/list?n=0") == ({"name": "local/odd", "tags": []}, "")


@pytest.mark.parametrize("n", ["-1", "x", "", "1.5", "9" * 30, "1e3", "٣"])
def test_a_number_of_tags_that_is_none_is_refused(images, n):
    answer = images.ask("GET", f"odd/tags/list?n={quote(n)}")
    assert answer.status == 400
    assert "rule: page.size" in answer.headers["X-Entrepot-Reason"]


def test_an_image_without_a_tag_has_an_empty_list(images):
    images.of("untagged").push_blob(b"alone")
    assert listed(images, "untagged/tags/list")[0]["tags"] == []


def test_a_virtual_lists_the_tags_of_all_members_once(images):
    for repository, tags in (("local", ("a", "both")), ("other", ("b", "both"))):
        for tag in tags:
            images.by("developer", repository).of("united").put(tag, index(text=repository))
    assert listed(images.by("reader", "virtual"), "united/tags/list")[0] == {"name": "virtual/united", "tags": ["a", "b", "both"]}
    assert tag_of(images.by("reader", "virtual"), "united", "both") == digest(index(text="local"))


def test_an_image_that_is_private_is_listed_exactly_as_one_that_is_absent(images):
    """reliability: neither status, body nor headers tell."""
    images.by("owner", "secret").of("hidden").push(plain("hidden"), "v1")
    images.of("private").push(plain("private"), "v1")

    def told(who: RegistryClient, path: str) -> tuple:
        answer = who.ask("GET", path)
        plain = str({**answer.headers, "Date": "", "X-Request-Id": ""}).replace("nothing", "private").replace("nowhere", "secret")
        return answer.status, plain, answer.body.replace(b"nothing", b"private").replace(b"nowhere", b"secret")

    for who in (images.by("reader"), images.by("")):
        assert told(who, "/v2/secret/hidden/tags/list") == told(who, "/v2/nowhere/hidden/tags/list")
    team = images.by("team")
    for path in ("tags/list", "manifests/v1", f"referrers/{digest(b'')}"):
        assert told(team, f"private/{path}") == told(team, f"nothing/{path}")
        assert told(team, f"private/{path}")[0] == 404


# The catalogue


def catalogue(images: RegistryClient, query: str = "") -> list[str]:
    return listed(images, f"/v2/_catalog{query}")[0]["repositories"]


@pytest.fixture(scope="module")
def _images_there(world):
    for repository, image in (("local", "team/app"), ("local", "zoo"), ("other", "team/app"), ("secret", "x"), ("open", "x")):
        RegistryClient(world, repository).by("owner").of(image).put("v1", index(text="catalogue"))


@pytest.mark.usefixtures("_images_there")
def test_the_catalogue_has_only_what_one_may_read(images):
    everything = catalogue(images.by("owner"))
    assert everything == sorted(everything)
    assert {"secret/x", "open/x", "local/zoo", "other/team/app", "virtual/zoo", "virtual/team/app"} <= set(everything)
    read = catalogue(images.by("reader"))
    assert read == [name for name in everything if not name.startswith("secret/")]
    team = catalogue(images.by("team"))
    assert set(team) - {"open/x"} == {name for name in everything if name.startswith("local/team/")}
    assert catalogue(images.by("outsider")) == ["open/x"]
    assert images.ask("GET", "/v2/_catalog").status == 200
    assert images.by("").ask("GET", "/v2/_catalog").status == 401


SCOPES = (
    ["*"], ["*:team/*"], ["*:**/app"], ["*:z??"], ["local:team/**", "other:zoo"], ["virtual"], ["virtual", "other"],
    ["virtual:team/*", "local:zoo", "other:*/app"], ["*:Team/**"], ["*:(team|zoo)"], ["*:."],
)  # fmt: skip


@pytest.mark.usefixtures("_images_there")
@pytest.mark.parametrize("user", ["owner", "team"])
@pytest.mark.parametrize("scopes", SCOPES, ids=" ".join)
def test_the_catalogue_has_what_a_token_may_ask_the_tags_of_and_nothing_else(images, world, user, scopes):
    """Also through a virtual repository: by its own key and by that of the member that has the image."""
    given = [word for scope in scopes for word in ("--scope", f"artifact:read@{scope}")]
    secret = world.manage("token", "create", user, *given).stdout.split()[-1]
    narrow = replace(images, user=("x", secret))
    everything = catalogue(images.by("owner"))
    expected = [name for name in everything if narrow.ask("GET", f"/v2/{name}/tags/list").status == 200]
    assert catalogue(narrow) == expected
    found, path = [], "/v2/_catalog?n=2"
    while path:
        document, path = listed(narrow, path)
        assert set(re.findall(r"last=([^&]*)", path)) <= {quote(name, safe="") for name in expected}
        found += document["repositories"]
    assert found == expected


@pytest.mark.usefixtures("_images_there")
@pytest.mark.parametrize("count", [1, 3, 1000])
def test_pages_of_the_catalogue_have_each_once(images, count):
    whole = catalogue(images)
    found: list[str] = []
    path = f"/v2/_catalog?n={count}"
    while path:
        document, path = listed(images, path)
        found += document["repositories"]
    assert found == whole
    for last in (whole[0], "local", "local/", "loca", "local/team/app", "zzz", "é"):
        assert catalogue(images, f"?last={quote(last)}") == [name for name in whole if name.encode() > last.encode()]
    assert images.ask("GET", "/v2/_catalog?last=local/%00").status == 400
    assert listed(images, "/v2/_catalog?n=0") == ({"repositories": []}, "")


def test_what_was_deleted_is_not_listed(owner):
    content = owner.of("unlisted").push(plain("unlisted"), "one")
    assert "local/unlisted" in catalogue(owner)
    owner.ask("DELETE", f"unlisted/manifests/{digest(content)}")
    assert listed(owner, "unlisted/tags/list")[0]["tags"] == []
    for blob in (b"unlisted", b"{}"):
        owner.ask("DELETE", f"unlisted/blobs/{digest(blob)}")
    assert "local/unlisted" not in catalogue(owner)
    assert owner.ask("GET", "unlisted/tags/list").status == 404


def test_a_tag_of_the_largest_length_and_an_image_of_the_longest_name_are_taken(images):
    image, tag = "/".join(["a" * 50] * 5), "t" * 128
    assert images.of(image).put(tag, index(), INDEX).status == 201
    assert listed(images, f"{image}/tags/list")[0]["tags"] == [tag]
    assert images.of("a" * 256).put(tag, index(), INDEX).status == 404


def test_rows_and_bytes_agree_after_all_of_it(world):
    assert world.manage("fsck", "--scrub", "--grace", "3600").stdout.strip() == "clean"
