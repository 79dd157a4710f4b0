"""Pushing to a virtual repository of which a registry is a member: what it has, and that it is out, stand in nobody's way."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.parts import images, oci
from tests.parts.api import PASSWORD
from tests.parts.registry import Registry
from tests.parts.registryclient import RegistryClient, code
from tests.parts.remotes import CONFIG, LAYER, image

NAMES = 8


@pytest.fixture(scope="module")
def world(server) -> Iterator[tuple[RegistryClient, Registry]]:
    """A client of the virtual repository `all`, by a developer, and the registry behind its member `hub`."""
    here, registry = server(ENTREPOT_WORKERS="1"), Registry()
    here.apply(
        {
            "repositories": [
                {"key": "own", "format": "oci", "kind": "local"},
                {"key": "hidden", "format": "oci", "kind": "local"},
                {"key": "hub", "format": "oci", "kind": "remote", "upstreams": [{"url": registry.url, "timeout": "2s"}],
                 "cache": {"lifetime": "1h", "missing": "0s"}},
                {"key": "all", "format": "oci", "kind": "virtual", "members": ["own", "hidden", "hub"], "deploy_to": "own"},
            ],
            "users": [{"name": "dev", "password": PASSWORD}, {"name": "reader", "password": PASSWORD}],
            "grants": [
                {"role": "developer", "users": ["dev"], "repositories": ["own", "all", "hub"]},
                {"role": "reader", "users": ["reader"], "repositories": ["own", "all", "hub"]},
            ],
        }
    )  # fmt: skip
    yield RegistryClient(here, "all").by("dev"), registry
    registry.stop()


names = iter(f"team/app{n}" for n in range(NAMES))


@pytest.fixture
def name(world) -> str:
    """An image that the registry has."""
    chosen = next(names)
    world[1].push(chosen, "1", image(chosen), CONFIG, LAYER)
    return chosen


def test_what_was_pulled_is_not_uploaded_again(world, name):
    client = world[0].of(name)
    assert client.has(images.Image(image(name), (CONFIG, LAYER)), "1")
    assert client.status(f"blobs/{oci.digest(LAYER)}") == 200
    new = image("pushed")
    assert client.put("2", new).status == 201
    own = client.by("dev", f"own/{name}")
    assert own.has(images.Image(new, (CONFIG, LAYER)), "2")


def test_an_index_brings_the_images_that_it_names_and_their_layers(world, name):
    client = world[0].of(name)
    assert client.has(images.Image(image(name), (CONFIG, LAYER)), "1")
    index = oci.index(image(name))
    assert client.put("all", index).status == 201
    own = client.by("dev", f"own/{name}")
    assert own.has(images.Image(index, ()), "all")
    assert own.has(images.Image(image(name), (CONFIG, LAYER)))
    assert "reference" not in client.server.manage("fsck").stdout


def test_what_its_pusher_may_not_read_is_not_brought(world, name):
    client = world[0].of(name)
    content = b"of the hidden member"
    RegistryClient(client.server, f"hidden/{name}").push_blob(content)
    answer = client.put("1", oci.manifest(content))
    assert (answer.status, code(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_no_registry_is_asked_whether_it_has_what_is_about_to_be_pushed(world, name):
    client, registry = world[0].of(name), world[1]
    before = len(registry.lines())
    assert client.status(f"blobs/{oci.digest(LAYER)}") == 404
    assert registry.lines()[before:] == []
    assert client.by("reader").status(f"blobs/{oci.digest(LAYER)}") == 200
    assert len(registry.lines()) > before


def test_a_layer_without_a_manifest_takes_the_name_from_nobody(world, name):
    client = world[0].of(name)
    client.push_blob(b"{}")
    assert client.put("2", oci.manifest(b"{}", b"absent")).status == 400
    assert client.get("1").body == image(name)
    assert client.put("2", oci.manifest(b"{}")).status == 201
    assert client.get("1").status == 404, "its own manifest does take it"


def test_an_image_is_pushed_while_the_registry_is_out(world):
    client, registry = world[0].of("team/new"), world[1]
    config, layer = b'{"new":1}', b"new layer"
    registry.stop()
    for content in (config, layer):
        assert client.status(f"blobs/{oci.digest(content)}") == 404
        client.push_blob(content)
    manifest = oci.manifest(config, layer)
    assert client.put("1", manifest).status == 201
    assert client.has(images.Image(manifest, (config, layer)), "1")
    assert json.loads(client.ask("GET", "tags/list").body)["tags"] == ["1"]


@pytest.mark.parametrize(("repository", "pushes"), [("own", True), ("all", True), ("hub", False)])
def test_the_instructions_tell_to_push_where_pushes_are_taken(world, repository, pushes):
    text = world[0].ask("GET", f"/v2/{repository}/").body.decode()
    assert "docker pull" in text and ("push" in text) is pushes
