"""What registries hold besides images: indexes of several platforms, signatures, what is attached to an image, and charts."""

from __future__ import annotations

import json

import pytest

from tests.parts import images, oci
from tests.parts.clients import CLIENTS, Client
from tests.parts.images import Image, image, multi

PLATFORMS = ("amd64", "arm64")
SBOM = "application/vnd.example.sbom"
PLACES = ["oci-local", "oci"]


# Several platforms


def push_by_podman(podman: Client, made: Image, name: str) -> None:
    podman.run("manifest", "create", name)
    podman.run("manifest", "add", "--all", name, f"oci:{podman.layout(made)}:{images.TAG}")
    podman.run("manifest", "push", "--all", "--tls-verify=false", name, f"docker://{name}")
    podman.run("manifest", "rm", name)


def push_by_crane(crane: Client, made: Image, name: str) -> None:
    parts = [image(f"crane {architecture}", architecture=architecture) for architecture in PLATFORMS]
    names = [f"{name}-{architecture}" for architecture in PLATFORMS]
    for part, one in zip(parts, names, strict=True):
        crane.push(part, one)
    crane.run("index", "append", *(f"--manifest={one}" for one in names), f"--tag={name}")


def push_by_docker(docker: Client, made: Image, name: str) -> None:
    names = [f"{name}-{architecture}" for architecture in PLATFORMS]
    for architecture, one in zip(PLATFORMS, names, strict=True):
        docker.push(image(f"docker {architecture}", architecture=architecture), one)
    docker.run("manifest", "create", "--insecure", name, *names)
    docker.run("manifest", "push", "--insecure", name)


def pulled_for(client: Client, name: str, architecture: str) -> str:
    """The digest that the client tells, of an image that is for this architecture."""
    digest = client.pull(name, architecture)
    if client.name in ("docker", "podman"):
        assert client.run("image", "inspect", "--format={{.Architecture}}", name).strip() == architecture
    return digest


TELL_OF_THE_INDEX = ("docker", "podman", "ctr")
"""Clients that keep an image of one platform by the digest of its index."""


def push_as_it_is(client: Client, made: Image, name: str) -> None:
    assert client.push(made, name) == made.digest


PUSHERS = {
    **dict.fromkeys(("skopeo", "oras", "regctl", "ctr"), push_as_it_is),
    "podman": push_by_podman,
    "crane": push_by_crane,
    "docker": push_by_docker,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", PUSHERS)
def test_an_index_of_two_platforms_is_pushed_and_every_client_gets_the_image_of_its_own(registry, developer, name, place):
    there = f"{registry.host}/{place}/several/{name}-{place}:1"
    PUSHERS[name](developer(name), multi(f"several {name}", *PLATFORMS), there)
    index = registry.read(there)
    assert [one["platform"]["architecture"] for one in index["manifests"]] == list(PLATFORMS)
    whole = registry.digest(there)
    parts = {one["platform"]["architecture"]: one["digest"] for one in index["manifests"]}
    for other in CLIENTS:
        for architecture in PLATFORMS:
            digest = whole if other in TELL_OF_THE_INDEX else parts[architecture]
            assert pulled_for(developer(other), there, architecture) == digest, other
    assert {developer(other).pull(there) for other in ("crane", "oras", "regctl")} == {whole}


def test_an_index_of_another_registry_is_pulled_for_one_platform_by_every_client(registry, stranger):
    made = multi("elsewhere", *PLATFORMS)
    stranger("skopeo").push(made, f"{registry.elsewhere.host}/several:1")
    parts = {one["platform"]["architecture"]: one["digest"] for one in json.loads(made.manifest)["manifests"]}
    for name in CLIENTS:
        for place in ("elsewhere", "oci"):
            digest = made.digest if name in TELL_OF_THE_INDEX else parts["arm64"]
            assert pulled_for(stranger(name), f"{registry.host}/{place}/several:1", "arm64") == digest, name


# What refers to an image


def attach_by_oras(oras: Client, name: str) -> str:
    (oras.home / "sbom.json").write_text('{"by": "oras"}')
    said = oras.run("attach", "--plain-http", f"--artifact-type={SBOM}", "--format=json", name, "sbom.json:application/json")
    return json.loads(said)["digest"]


def attach_by_regctl(regctl: Client, name: str) -> str:
    (regctl.home / "sbom.json").write_text('{"by": "regctl"}')
    shown = ("--file-title", "--format={{.Manifest.GetDescriptor.Digest}}")
    return regctl.run("artifact", "put", "--file=sbom.json", f"--artifact-type={SBOM}", f"--subject={name}", *shown).strip()


def seen_by_oras(oras: Client, name: str) -> set[str]:
    said = json.loads(oras.run("discover", "--plain-http", "--format=json", f"--artifact-type={SBOM}", name))
    return {one["digest"] for one in said["referrers"]}


def seen_by_regctl(regctl: Client, name: str) -> set[str]:
    said = json.loads(regctl.run("artifact", "list", f"--filter-artifact-type={SBOM}", "--format={{json .}}", name))
    return {one["digest"] for one in said["descriptors"]}


ATTACH = {"oras": attach_by_oras, "regctl": attach_by_regctl}
SEEN = {"oras": seen_by_oras, "regctl": seen_by_regctl}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ATTACH)
def test_what_one_client_attaches_to_an_image_both_discover_and_pull(registry, developer, name, place):
    there = f"{registry.host}/{place}/attached/{name}-{place}"
    developer("skopeo").push(image(f"attached {name}"), f"{there}:1")
    attached = ATTACH[name](developer(name), f"{there}:1")
    for source in PLACES:
        seen_from = there.replace(f"/{place}/", f"/{source}/", 1)
        for client, seen in SEEN.items():
            assert seen(developer(client), f"{seen_from}:1") == {attached}
        folder = developer("oras").folder()
        developer("oras").run("pull", "--plain-http", f"--output={folder}", f"{seen_from}@{attached}")
        (file,) = folder.iterdir()
        assert json.loads(file.read_text()) == {"by": name}


@pytest.mark.parametrize("name", ATTACH)
def test_what_is_attached_in_a_registry_without_referrers_is_discovered_through_the_remote(registry, stranger, name):
    """distribution has no such API: clients keep the list under a tag there."""
    stranger("skopeo").push(image(f"attached there {name}"), f"{registry.elsewhere.host}/attached/{name}:1")
    attached = ATTACH[name](stranger(name), f"{registry.elsewhere.host}/attached/{name}:1")
    for place in ("elsewhere", "oci"):
        there = f"{registry.host}/{place}/attached/{name}:1"
        answer = registry.server.request("GET", f"/v2/{place}/attached/{name}/referrers/{registry.digest(there)}")
        assert [one["digest"] for one in json.loads(answer.body)["manifests"]] == [attached]
        for client, seen in SEEN.items():
            assert seen(stranger(client), there) == {attached}


def signature(of: str) -> Image:
    """A signature as cosign keeps it: an image with what was signed for a layer, whose annotation is the signature."""
    payload = json.dumps(
        {"critical": {"image": {"docker-manifest-digest": of}, "type": "cosign container image signature"}}
    ).encode()
    layer = oci.descriptor(
        payload,
        "application/vnd.dev.cosign.simplesigning.v1+json",
        annotations={"dev.cosignproject.cosign/signature": "MEUCIQ=="},
    )
    config = json.dumps({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": [oci.digest(payload)]}}).encode()
    return Image(oci.manifest(config, layers=[layer]), (config, payload))


@pytest.mark.parametrize("place", [*PLACES, "elsewhere"])
@pytest.mark.parametrize("name", ["crane", "skopeo", "oras", "regctl"])
def test_a_signature_stands_beside_its_image_by_a_tag_of_the_images_digest(registry, developer, name, place):
    into = registry.elsewhere.host if place == "elsewhere" else f"{registry.host}/{place}"
    signed = image(f"signed {name} {place}")
    tag = f"{signed.digest.replace(':', '-')}.sig"
    developer(name).push(signed, f"{into}/signed/{name}-{place}:1")
    developer(name).push(signature(signed.digest), f"{into}/signed/{name}-{place}:{tag}")
    for source in {place, "oci"}:
        for other in ("crane", "skopeo", "oras", "regctl"):
            pulled = developer(other).pull(f"{registry.host}/{source}/signed/{name}-{place}:{tag}")
            assert pulled == signature(signed.digest).digest


# Charts


@pytest.mark.parametrize("place", PLACES)
def test_helm_signs_in_and_pushes_a_chart_that_helm_and_oras_pull(registry, developer, place):
    helm, oras = developer("helm"), developer("oras")
    chart = helm.folder()
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: chart-{place}\nversion: 1.2.0+build.7\n")
    helm.run("package", chart)
    packed = (helm.home / f"chart-{place}-1.2.0+build.7.tgz").read_bytes()
    helm.run("push", "--plain-http", f"chart-{place}-1.2.0+build.7.tgz", f"oci://{registry.host}/{place}/charts")
    assert oras.tags(f"{registry.host}/{place}/charts/chart-{place}") == ["1.2.0_build.7"]
    for source in PLACES:
        name = f"{registry.host}/{source}/charts/chart-{place}"
        for version in ("1.2.0+build.7", "^1.0.0"):
            folder = helm.folder()
            folder.mkdir()
            helm.run("pull", "--plain-http", f"--version={version}", f"--destination={folder}", f"oci://{name}")
            assert [file.read_bytes() for file in folder.iterdir()] == [packed]
        (layer,) = json.loads(oras.run("manifest", "fetch", "--plain-http", f"{name}:1.2.0_build.7"))["layers"]
        file = oras.folder()
        oras.run("blob", "fetch", "--plain-http", f"--output={file}", f"{name}@{layer['digest']}")
        assert file.read_bytes() == packed
