"""Docker and containerd ask Entrepot for another registry's images, whose names say nothing of it: by a host that leads to it."""

from __future__ import annotations

import re

import pytest

from tests.clients.conftest import DEVELOPER
from tests.parts.clients import Docker, Refused
from tests.parts.daemons import Dockerd
from tests.parts.images import image

PULL = 'capabilities = ["pull", "resolve"]\n'


@pytest.fixture(scope="module")
def mirror(registry) -> str:
    """By the host in it the virtual repository is meant."""
    return f"http://localhost:{registry.server.port}"


@pytest.fixture(scope="module")
def mirrored(registry, need, daemons, tmp_path_factory, mirror) -> Docker:
    """A user of a daemon that asks Entrepot for the images of Docker's own registry."""
    need("docker")
    daemon = daemons(Dockerd, **{"registry-mirrors": [mirror]})
    return Docker(tmp_path_factory.mktemp("docker"), daemon)


def test_docker_pulls_what_was_pushed_here_by_a_bare_name(registry, developer, mirrored):
    pushed = developer("crane").push(image("bare"), f"{registry.host}/oci/library/bare:1")
    assert mirrored.pull("bare:1") == pushed
    assert "bare:1" in mirrored.run("images", "--format={{.Repository}}:{{.Tag}}").split()


def test_docker_pulls_an_image_of_another_registry_by_a_bare_name(registry, stranger, mirrored):
    made = image("bare elsewhere")
    stranger("crane").push(made, f"{registry.elsewhere.host}/team/bare:1")
    assert mirrored.pull("team/bare:1") == made.digest
    assert mirrored.pull(f"team/bare@{made.digest}") == made.digest


def test_docker_gets_nothing_private_by_a_bare_name(registry, developer, mirrored):
    developer("crane").push(image("private"), f"{registry.host}/team/private:1")
    with pytest.raises(Refused):
        mirrored.pull("team/private:1")


@pytest.mark.parametrize("form", ["host", "path"])
def test_containerd_pulls_the_images_of_another_registry_by_their_own_names(registry, stranger, mirror, form):
    made = image(f"containerd {form}")
    stranger("crane").push(made, f"{registry.elsewhere.host}/team/{form}:1")
    ctr = stranger("ctr")
    if form == "host":
        ctr.host("images.example", mirror, PULL)
    else:
        ctr.host("images.example", f"{registry.server.url}/v2/oci", PULL + "override_path = true\n")
    assert ctr.pull(f"images.example/team/{form}:1") == made.digest


def test_a_mirror_of_several_registries_is_told_by_containerd_which_of_them_is_meant(registry, stranger):
    registry.server.apply(
        {
            "repositories": [
                {
                    "key": "several",
                    "format": "oci",
                    "kind": "remote",
                    "upstreams": [
                        {"url": f"{registry.elsewhere.url}/{one}", "folder": f"{one}.example"} for one in ("first", "second")
                    ],
                }
            ],
            "grants": [{"role": "reader", "anonymous": True, "repositories": ["several"]}],
        }
    )
    crane, ctr = stranger("crane"), stranger("ctr")
    for one in ("first", "second"):
        ctr.host(f"{one}.example", f"{registry.server.url}/v2/several", PULL + "override_path = true\n")
        crane.push(image(one), f"{registry.elsewhere.host}/{one}/team/app:1")
    for one in ("first", "second"):
        assert ctr.pull(f"{one}.example/team/app:1") == image(one).digest


def test_a_client_signs_in_and_pushes_by_the_host_form_too(registry, developer, stranger, mirror):
    host = mirror.removeprefix("http://")
    name = f"{host}/by-host/app:1"
    skopeo = stranger("skopeo")
    with pytest.raises(Refused):
        skopeo.push(image("by host"), name)
    skopeo.login(host, *DEVELOPER)
    assert skopeo.push(image("by host"), name) == image("by host").digest
    assert skopeo.tags(f"{host}/by-host/app") == ["1"]
    assert developer("crane").pull(f"{registry.host}/oci-local/by-host/app:1") == image("by host").digest


def told(registry, file: str) -> str:
    """What the instructions say that a file of a client's configuration has to have."""
    instructions = registry.server.request("GET", "/v2/oci/").body.decode()
    return re.search(rf"{re.escape(file)}\s+(.+)", instructions)[1]


def test_containerd_takes_the_hosts_file_of_the_instructions(registry, developer, stranger):
    pushed = developer("crane").push(image("as instructed"), f"{registry.host}/oci/as-instructed:1")
    ctr = stranger("ctr")
    ctr.hosts_file("images.example").write_text(told(registry, "hosts.toml"))
    assert ctr.pull("images.example/oci/as-instructed:1") == pushed


@pytest.mark.parametrize("name", ["podman", "buildah", "skopeo"])
def test_podman_and_its_kin_take_the_registries_file_of_the_instructions(registry, developer, stranger, name):
    there = f"docker://{registry.host}/oci/instructed:{name}"
    developer("crane").push(image("as instructed"), there.removeprefix("docker://"))
    client = stranger(name)
    pull = ("copy", there, f"dir:{client.folder()}") if name == "skopeo" else ("pull", there)
    with pytest.raises(Refused):
        client.run(*pull)
    client.registries.write_text(told(registry, "entrepot.conf"))
    client.run(*pull)
