"""gc and images: what a manifest needs stays as long as the manifest, and what nothing needs goes after a grace."""

from __future__ import annotations

import random
import re

import pytest

from tests.parts.api import ADMIN
from tests.parts.images import Image, image
from tests.parts.oci import descriptor, digest, index
from tests.parts.registryclient import RegistryClient, parts
from tests.parts.server import Server

MISSING = """
SELECT count(*) FROM repos_asset holder
  JOIN repos_repository repository ON repository.id = holder.repository_id AND repository.kind = 'local'
  JOIN repos_reference named ON named.blob_id = holder.blob_id AND named.kind IN ('config', 'layer', 'manifest')
 WHERE holder.until IS NULL AND NOT EXISTS (
   SELECT 1 FROM repos_asset held JOIN repos_blob bytes ON bytes.id = held.blob_id
    WHERE held.repository_id = holder.repository_id AND held.package = holder.package AND held.version = named.digest
      AND held.until IS NULL AND bytes.state = 'live')
"""
"""What manifests that stand refer to, less what is stored."""


@pytest.fixture(scope="module")
def here(server) -> Server:
    here = server()
    here.apply(
        {
            "history": {"keep": "0s"},
            "repositories": [
                {"key": "local", "format": "oci", "kind": "local"},
                {"key": "other", "format": "oci", "kind": "local"},
            ],
        }
    )
    return here


@pytest.fixture
def app(here, request) -> RegistryClient:
    """An image's name of the test's own."""
    return RegistryClient(here, f"local/{request.node.name.partition('[')[0]}"[:120])


def sweep(here: Server, *, unheld: int | None = None) -> None:
    """Without `unheld` what nothing refers to keeps its usual grace, a day."""
    here.manage("gc", "--grace", "0", *(["--unheld", str(unheld)] if unheld is not None else []))


def standing(app: RegistryClient) -> set[str]:
    """What stands in the image, by digest or tag; told by the rows, since to be asked for is to be of use."""
    name = app.name.removeprefix("local/")
    rows = app.server.rows(f"SELECT version FROM repos_asset WHERE package = '{name}' AND until IS NULL")
    return {version for (version,) in rows}


def digests(*images: Image) -> set[str]:
    return {digest(content) for one in images for content in (one.manifest, *one.blobs)}


def clean(here: Server) -> bool:
    return here.manage("fsck", "--scrub", check=False).stdout.strip().endswith("clean")


# What is needed


def test_after_each_sweep_all_that_manifests_refer_to_is_stored(here, app):
    choose = random.Random(2)
    base = image("base").blobs[1:]
    kept = {n: image(f"exact {n}", shared=base) for n in range(8)}
    for n, one in kept.items():
        app.push(one, f"v{n}")
    for _ in range(4):
        gone = kept.pop(choose.choice(list(kept)))
        app.delete(f"manifests/{gone.digest}")
        sweep(here, unheld=0)
        assert here.query(MISSING) == (0,)
        assert [app.status(f"blobs/{digest(content)}") for content in gone.blobs] == [404, 200, 200, 200, 404, 404, 404]
    assert all(app.has(one, f"v{n}") for n, one in kept.items())
    assert clean(here)


def test_an_index_its_children_and_its_referrers_survive_sweeps_together(here, app):
    children = [image("amd64"), image("arm64")]
    for one in children:
        app.push(one)
    whole = index(*(one.manifest for one in children))
    app.put("latest", whole)
    signature = image("signature", subject=descriptor(whole, "application/vnd.oci.image.index.v1+json"))
    app.push(signature)
    here.days_pass()
    sweep(here, unheld=0)
    assert app.ask("GET", "manifests/latest").body == whole
    assert all(app.has(one) for one in (*children, signature))
    assert app.referrers(digest(whole)) == {signature.digest}
    assert clean(here)


def test_a_manifest_by_itself_stays_though_no_tag_leads_to_it(here, app):
    alone = image("alone")
    app.push(alone)
    here.days_pass()
    sweep(here, unheld=0)
    assert app.has(alone)


def test_a_layer_of_two_images_outlives_one_of_them(here, app):
    one = image("one")
    other = image("other", shared=one.blobs[1:])
    app.push(one, "one")
    app.push(other, "other")
    app.delete(f"manifests/{one.digest}")
    here.days_pass()
    sweep(here, unheld=0)
    assert app.has(other, "other")


def test_what_a_tag_led_to_is_kept_when_the_tag_moves(here, app):
    first, second = image("first"), image("second")
    app.push(first, "latest")
    app.push(second, "latest")
    here.days_pass()
    sweep(here, unheld=0)
    assert app.has(first) and app.has(second, "latest")


# What is not


def test_a_deleted_manifest_frees_what_only_it_referred_to_after_the_grace_and_not_before(here, app):
    one = image("freed")
    app.push(one, "latest")
    here.days_pass()
    objects = here.counts()[2]
    app.delete(f"manifests/{one.digest}")
    sweep(here)
    assert standing(app) == digests(one) - {one.digest}, "they lost what held them just now"
    here.days_pass()
    sweep(here)
    assert {app.status(f"blobs/{digest(content)}") for content in one.blobs} == {404}
    assert here.counts()[2] == objects - 5, "the manifest's bytes too"
    assert clean(here)


def test_gc_tells_how_many_layers_it_closes_and_a_dry_run_tells_as_many_and_closes_none(here, app):
    sweep(here, unheld=0)
    content = app.push(image("told"), "v1")
    app.ask("DELETE", f"manifests/{digest(content)}")
    before = standing(app)
    assert len(before) == 4, "three layers and the config"
    for unheld, count in (("2h", 0), ("1d", 0), ("5400", 0), ("0s", 4), ("0", 4)):
        told = here.manage("gc", "--dry-run", "--unheld", unheld).stdout
        assert f"would close {count} layers" in told
        assert standing(app) == before
    assert "closed 0 layers" in here.manage("gc", "--grace", "1h", "--stray", "1d").stdout
    assert "closed 4 layers" in here.manage("gc", "--unheld", "0s").stdout
    assert standing(app) == set()
    assert "closed 0 layers" in here.manage("gc", "--unheld", "0s").stdout


@pytest.mark.parametrize("option", ["--grace", "--unheld", "--stray"])
@pytest.mark.parametrize("text", ["1y", "2 h", "-1", "1.5h", "", "36501d", "9" * 30])
def test_gc_takes_no_other_durations_and_says_which_it_takes(here, option, text):
    refused = here.manage("gc", f"{option}={text}", check=False)
    assert refused.returncode
    assert re.search("write a number and s, m, h, d or w|the longest duration is 36500d", refused.stderr)


def test_a_deleted_index_frees_the_children_that_came_with_it_after_the_grace_and_not_before(here, app):
    children = [image("of index 1"), image("of index 2")]
    for one in children:
        app.push(one)
    whole = index(*(one.manifest for one in children))
    app.put("latest", whole)
    here.days_pass()
    app.delete(f"manifests/{digest(whole)}")
    sweep(here)
    assert standing(app) == digests(*children)
    here.days_pass()
    sweep(here)
    assert standing(app) == digests(*children) - {one.digest for one in children}
    here.days_pass()
    sweep(here)
    assert standing(app) == set()
    assert {app.status(f"blobs/{digest(content)}") for one in children for content in one.blobs} == {404}
    assert clean(here)


def test_a_child_with_a_tag_of_its_own_outlives_its_index(here, app):
    child = image("tagged child")
    app.push(child, "child")
    whole = index(child.manifest)
    app.put("latest", whole)
    app.delete(f"manifests/{digest(whole)}")
    here.days_pass()
    sweep(here, unheld=0)
    assert app.has(child, "child") and app.has(child)


def test_referrers_of_what_was_deleted_stay_and_are_listed_until_they_are_deleted_themselves(here, app):
    subject = image("subject")
    app.push(subject, "latest")
    signature = image("its signature", subject=descriptor(subject.manifest, "application/vnd.oci.image.manifest.v1+json"))
    app.push(signature)
    app.delete(f"manifests/{subject.digest}")
    here.days_pass()
    sweep(here, unheld=0)
    assert app.has(signature) and app.referrers(subject.digest) == {signature.digest}
    app.delete(f"manifests/{signature.digest}")
    assert app.referrers(subject.digest) == set()


def test_a_blob_with_a_manifests_bytes_holds_nothing_and_needs_nothing(here, app):
    one = image("as a manifest elsewhere")
    RegistryClient(here, "other/manifest").push(one, "latest")
    for content in (*one.blobs[:2], one.manifest):
        assert app.put_blob(content).status == 201
    assert clean(here), "its layers are not all here, and need not be"
    app.delete(f"blobs/{digest(one.blobs[0])}")
    here.days_pass()
    sweep(here, unheld=0)
    assert standing(app) == set()
    assert RegistryClient(here, "other/manifest").has(one, "latest")


# While a push is under way


@pytest.mark.parametrize("way", ["pushed", "pushed in parts", "mounted"])
def test_a_layer_that_came_again_is_kept_for_the_manifest_that_is_to_come(here, app, way):
    """It has been here, and of no use, for longer than the grace."""
    one, idle = image(f"again {way}"), image(f"idle {way}")
    elsewhere = RegistryClient(here, "other/source")
    elsewhere.push(one)
    for content in (*one.blobs, *idle.blobs):
        app.put_blob(content)
    here.days_pass()
    for content in one.blobs:
        if way == "mounted":
            assert app.begin(mount=digest(content), from_=elsewhere.name).status == 201
        elif way == "pushed":
            assert app.put_blob(content).status == 201
        else:
            assert app.finish(app.session(), digest(content), content).status == 201
    sweep(here)
    assert app.put("latest", one.manifest).status == 201
    assert app.has(one, "latest")
    assert {app.status(f"blobs/{digest(content)}") for content in idle.blobs} == {404}


def test_a_manifest_that_comes_after_its_layers_were_swept_is_refused_and_pushed_with_them_again(here, app):
    late = image("late")
    for content in late.blobs:
        app.put_blob(content)
    here.days_pass()
    sweep(here)
    refused = app.put("latest", late.manifest)
    assert refused.status == 400 and b"MANIFEST_BLOB_UNKNOWN" in refused.body
    assert app.status("manifests/latest") == 404
    app.push(late, "latest")
    assert app.has(late, "latest")


def test_an_abandoned_upload_ends_and_one_in_use_does_not(here, app):
    content = random.Random(3).randbytes(5000)
    abandoned, used = app.session(), app.session()
    app.add(abandoned, content)
    app.add(used, content[:2000])
    here.days_pass()
    app.add(used, content[2000:4000])
    assert parts(here) == 3
    sweep(here)
    assert (app.come(abandoned), app.come(used)) == (0, 4000), "a name tells its age itself, and this one is as young as it is"
    assert app.finish(abandoned, digest(content)).status == 400
    assert parts(here) == 2
    assert app.finish(used, digest(content), content[4000:]).status == 201
    assert app.has_blob(content)
    assert parts(here) == 0


def test_parts_of_no_upload_are_found_and_removed_and_those_of_one_are_not(here, app):
    session = app.session()
    app.add(session, b"some bytes")
    (here.data / "blobs" / "parts" / "0123456789abcdef0123456789abcdef").write_bytes(b"of a killed server")
    assert (
        "parts/0123456789abcdef0123456789abcdef belongs to no upload" in here.manage("fsck", "--grace", "0", check=False).stdout
    )
    sweep(here)
    assert parts(here) == 2, "its row may be still to come"
    here.manage("gc", "--stray", "0")
    assert here.manage("fsck", "--grace", "0").stdout.strip() == "clean"
    assert app.finish(session, digest(b"some bytes and more"), b" and more").status == 201


def test_an_upload_of_which_bytes_were_lost_begins_anew(here, app):
    """As by a power failure, after which a file may be shorter than it was."""
    content = random.Random(4).randbytes(5000)
    session = app.session()
    app.add(session, content)
    (part,) = (here.data / "blobs" / "parts").iterdir()
    part.write_bytes(content[:1000])
    refused = app.finish(session, digest(content))
    assert refused.status == 404 and b"BLOB_UPLOAD_UNKNOWN" in refused.body
    assert app.come(session) is None and app.status(f"blobs/{digest(content)}") == 404
    assert app.put_blob(content).status == 201
    assert app.has_blob(content)


# Bytes that several places share


def test_a_blob_of_two_repositories_is_pulled_from_one_after_the_other_has_deleted_it(here, app):
    shared = image("in two repositories")
    other = RegistryClient(here, "other/app")
    app.push(shared, "latest")
    other.push(shared, "latest")
    app.delete(f"manifests/{shared.digest}")
    here.days_pass()
    sweep(here, unheld=0)
    assert app.status(f"blobs/{digest(shared.blobs[1])}") == 404
    assert other.has(shared, "latest")


def test_what_was_swept_and_is_pushed_again_is_pulled_with_the_right_bytes(here, app):
    one = image("comes and goes")
    for _ in range(3):
        app.push(one, "latest")
        assert all(app.has(one, "latest") for _ in range(8)), "and every process has seen it"
        app.delete(f"manifests/{one.digest}")
        while standing(app):  # what was asked for a moment ago is of use, and its count may just now be written
            sweep(here, unheld=0)
        assert {app.status(f"blobs/{digest(content)}") for content in one.blobs for _ in range(8)} == {404}
    app.push(one, "latest")
    assert all(app.has(one, "latest") for _ in range(8))


def test_what_was_deleted_here_stays_absent_when_another_repository_is_asked_for_it(here, app):
    content = b"deleted in one of two repositories"
    other = RegistryClient(here, "other/lookup")
    for place in (app, other):
        place.put_blob(content)
        assert place.has_blob(content)
    app.delete(f"blobs/{digest(content)}")
    for _ in range(8):
        assert other.has_blob(content)
        assert (app.status(f"blobs/{digest(content)}"), app.ask("GET", f"blobs/{digest(content)}").status) == (404, 404)


def test_an_image_that_expired_in_a_remote_takes_nothing_from_another_that_shares_its_layers(server):
    """Whose upstream is no more, so that nothing is fetched again. A server that stops has counted who was of use."""
    here, far = server(), server()
    far.apply({"repositories": [{"key": "far", "format": "oci", "kind": "local"}]})
    one = image("used")
    other = image("unused", shared=one.blobs[1:])
    RegistryClient(far, "far/used").push(one, "latest")
    RegistryClient(far, "far/unused").push(other, "latest")
    source = {"url": f"{far.url}/v2/far", "username": ADMIN[0], "password": ADMIN[1]}
    cache = {"unused": "1d", "lifetime": "30d"}
    here.apply({"repositories": [{"key": "cache", "format": "oci", "kind": "remote", "upstreams": [source], "cache": cache}],
                "history": {"keep": "0s"}})  # fmt: skip
    used, unused = RegistryClient(here, "cache/used"), RegistryClient(here, "cache/unused")
    assert used.has(one, "latest") and unused.has(other, "latest")
    far.stop()
    here.stop()
    here.days_pass()
    here.start()
    assert used.has(one, "latest")
    here.stop()
    sweep(here)
    assert {package for (package,) in here.rows("SELECT package FROM repos_asset WHERE until IS NULL")} == {"used"}
    here.start()
    assert used.has(one, "latest")
    assert clean(here)


# fsck


CLOSE = """
from repos import publish
from repos.catalogue import load_one
from repos.models import Repository
publish.delete(load_one(Repository.objects.get(key="local")), [{path!r}], "somebody")
"""


@pytest.mark.parametrize("kind", ["config", "layer", "manifest"])
def test_fsck_finds_what_a_manifest_needs_and_does_not_have(here, app, kind):
    child = image(f"incomplete {kind}")
    whole = index(child.manifest)
    app.push(child)
    app.put("latest", whole)
    path = {
        "config": f"blobs/{digest(child.blobs[0])}",
        "layer": f"blobs/{digest(child.blobs[1])}",
        "manifest": f"manifests/{child.digest}",
    }[kind]
    name = app.name.removeprefix("local/")
    here.manage("shell", "-c", CLOSE.format(path=f"{name}/{path}"))
    found = here.manage("fsck", check=False)
    holders = ["latest", digest(whole)] if kind == "manifest" else [child.digest]
    expected = {f"reference: local/{name}/manifests/{one} needs {name}/{path}, which does not stand there" for one in holders}
    assert set(found.stdout.splitlines()) == expected | {f"{len(expected)} found"}
    assert found.returncode == 1
    app.put(child.digest, child.manifest) if kind == "manifest" else app.put_blob(child.blobs[0 if kind == "config" else 1])
    assert here.manage("fsck").stdout.strip() == "clean"
