"""Every client of container registries signs in, pushes, pulls what others pushed, lists and deletes."""

from __future__ import annotations

import pytest

from tests.clients.conftest import DEVELOPER, guest
from tests.parts.clients import CLIENTS, Client, Deleting, Listing, Refused
from tests.parts.images import image

NAMES = list(CLIENTS)
OTHER = dict(zip(NAMES, [*NAMES[1:], NAMES[0]], strict=True))
"""By whom an image is pulled that a client has pushed: so each pushes, and each pulls."""


def of(kind: type[Client]) -> list[str]:
    return [name for name, one in CLIENTS.items() if issubclass(one, kind)]


def signed_in(registry, client: Client, secret: str) -> Client:
    client.login(registry.host, guest(client.name), secret)
    return client


@pytest.mark.parametrize("place", ["oci-local", "oci"])
@pytest.mark.parametrize("name", NAMES)
def test_what_a_client_pushes_another_pulls_from_the_local_and_the_virtual_repository(registry, developer, name, place):
    made = image(f"{name} {place}")
    pushed = developer(name).push(made, f"{registry.host}/{place}/{name}/of-{place}:1.0")
    if CLIENTS[name].keeps_bytes:
        assert pushed == made.digest
    for source in ("oci-local", "oci"):
        there = f"{registry.host}/{source}/{name}/of-{place}:1.0"
        assert registry.digest(there) == pushed
        assert developer(OTHER[name]).pull(there) == pushed


@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_another_registry_is_pulled_through_the_remote_and_the_virtual_repository(registry, stranger, name):
    made = image(f"elsewhere {name}")
    stranger("crane").push(made, f"{registry.elsewhere.host}/there/{name}:2.0")
    client = stranger(name)
    for place in ("elsewhere", "oci"):
        assert client.pull(f"{registry.host}/{place}/there/{name}:2.0") == made.digest


def test_an_image_with_a_layer_of_20_mib_is_pushed_by_docker_and_pulled_by_podman(registry, developer):
    name = f"{registry.host}/oci/large:1"
    pushed = developer("docker").push(image("large", (50_000, 20 << 20)), name)
    assert developer("podman").pull(name) == pushed


@pytest.mark.parametrize("name", of(Listing))
def test_tags_are_listed_of_what_is_here_and_of_what_is_elsewhere(registry, developer, name):
    client, crane = developer(name), developer("crane")
    for tag in ("2", "10"):
        crane.push(image("tagged"), f"{registry.host}/oci/tagged/here-{name}:{tag}")
        crane.push(image("tagged"), f"{registry.elsewhere.host}/tagged/there-{name}:{tag}")
    for place, whose in (("oci-local", "here"), ("elsewhere", "there"), ("oci", "here"), ("oci", "there")):
        assert client.tags(f"{registry.host}/{place}/tagged/{whose}-{name}") == ["10", "2"]


@pytest.mark.parametrize("name", of(Listing))
def test_an_image_pushed_here_is_not_mixed_with_what_has_its_name_elsewhere(registry, developer, name):
    crane = developer("crane")
    crane.push(image("ours"), f"{registry.host}/oci/both/{name}:ours")
    crane.push(image("theirs"), f"{registry.elsewhere.host}/both/{name}:theirs")
    client = developer(name)
    assert client.tags(f"{registry.host}/oci/both/{name}") == ["ours"]
    with pytest.raises(Refused):
        client.pull(f"{registry.host}/oci/both/{name}:theirs")


@pytest.mark.parametrize("name", of(Deleting))
def test_what_a_client_deletes_nobody_pulls_any_more(registry, developer, name):
    client, there = developer(name), f"{registry.host}/oci-local/deleted/{name}"
    client.push(image(f"kept {name}"), f"{there}:kept")
    client.push(image(f"deleted {name}"), f"{there}:deleted")
    client.delete(f"{there}:deleted")
    assert client.tags(there) == ["kept"]
    with pytest.raises(Refused):
        developer(OTHER[name]).pull(f"{there}:deleted")
    assert developer(OTHER[name]).pull(f"{there}:kept") == image(f"kept {name}").digest


@pytest.mark.parametrize("name", NAMES)
def test_who_is_nobody_pulls_what_is_for_all_and_pushes_nothing(registry, developer, stranger, name):
    there = f"{registry.host}/oci/for-all:{name}"
    pushed = developer("crane").push(image(f"for all {name}"), there)
    nobody = stranger(name)
    assert nobody.pull(there) == pushed
    with pytest.raises(Refused):
        nobody.push(image(f"of nobody {name}"), there)
    assert registry.digest(there) == pushed


@pytest.mark.parametrize("name", NAMES)
def test_a_private_image_is_refused_to_who_is_nobody_and_given_to_a_robot_with_its_token(registry, developer, stranger, name):
    there = f"{registry.host}/team/private:{name}"
    pushed = developer("crane").push(image(f"private {name}"), there)
    client = stranger(name)
    with pytest.raises(Refused):
        client.pull(there)
    client.login(registry.host, "robot", registry.token("robot"))
    assert client.pull(there) == pushed
    with pytest.raises(Refused):
        client.push(image(f"of the robot {name}"), there)


@pytest.mark.parametrize("name", NAMES)
def test_a_developer_signs_in_with_the_password_or_with_a_token_and_not_with_a_wrong_one(registry, developer, stranger, name):
    there = f"{registry.host}/team/signed-in:{name}"
    pushed = developer("crane").push(image(f"signed in {name}"), there)
    for secret in (DEVELOPER[1], registry.token(guest(name))):
        assert signed_in(registry, stranger(name), secret).pull(there) == pushed
    for secret in ("wrong", registry.token(guest(name))[:-1]):
        with pytest.raises(Refused):
            signed_in(registry, stranger(name), secret).pull(there)


COMMANDS = {
    "docker": ["docker pull", "docker tag"],
    "skopeo": ["skopeo"],
    "crane": ["crane manifest", "crane copy"],
    "oras": ["oras"],
    "helm": ["helm"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_of_the_instructions_do_what_they_say(registry, developer, name):
    client = developer(name)
    developer("crane").push(image("instructed"), f"{registry.host}/oci/app:1")
    (client.home / "FILE").write_text("the file of an artifact")
    (client.home / "chart").mkdir()
    (client.home / "chart" / "Chart.yaml").write_text("apiVersion: v2\nname: chart\nversion: 1.0.0\n")
    developer("helm").run("package", client.home / "chart", f"--destination={client.home}")
    values = {
        "IMAGE:NEW": "app:2",
        "IMAGE": "app",
        "TAG": "1",
        "ARTIFACT": "artifact",
        "MEDIA-TYPE": "text/plain",
        "CHART": "chart",
    }
    instructions = registry.server.request("GET", "/v2/oci/", headers=registry.server.authorization(DEVELOPER)).body.decode()
    for start in COMMANDS[name]:
        (line,) = [line for line in instructions.splitlines() if line.startswith(start)]
        for word, value in values.items():
            line = line.replace(word, value)
        if start == "docker tag":
            client.run("tag", f"{registry.host}/oci/app:1", "app:1")  # stands for what was built
        client.shell(line)
