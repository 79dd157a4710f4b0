"""What a developer, a CI job or a cluster pastes to use a repository, and which registry this machine's own client knows."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

TEXT = """\
# Images here are named {name}/IMAGE:TAG
{login}
# docker, podman, buildah, skopeo, crane, regctl
docker pull {name}/IMAGE:TAG
skopeo copy docker://{name}/IMAGE:TAG oci:IMAGE{plain_skopeo}
crane manifest {name}/IMAGE:TAG{plain_crane}
{push}{plain}
# Kubernetes: a pull secret, named by pods or by their service account under imagePullSecrets
kubectl create secret docker-registry entrepot --docker-server={host} --docker-username=NAME --docker-password=TOKEN
"""

PUSH = """
# Push what was built: images, artifacts, charts
docker tag IMAGE:TAG {name}/IMAGE:TAG && docker push {name}/IMAGE:TAG
crane copy {name}/IMAGE:TAG {name}/IMAGE:NEW{plain_crane}
oras push {name}/ARTIFACT:TAG FILE:MEDIA-TYPE{plain_oras}
helm push CHART-1.0.0.tgz oci://{name}{plain_helm}
"""

LOGIN = """
# Sign in with your name and a password, or, better, a token
docker login {host} -u NAME --password-stdin
"""

PLAIN = """
# This server is reached over plain http, which clients take without a word on 127.0.0.0/8 only (podman not even there)
#   docker      /etc/docker/daemon.json                {{"insecure-registries": ["{host}"]}}
#   podman      /etc/containers/registries.conf.d/entrepot.conf    registry = [{{location = "{host}", insecure = true}}]
#   containerd  /etc/containerd/certs.d/{host}/hosts.toml    [host."http://{host}"]
"""


def instructions(base_url: str, key: str, *, signed_in: bool, pushes: bool) -> str:
    """The text for a repository, which takes pushes or not. Who is not signed in reads what anybody may, without a login."""
    parts = urlsplit(base_url)
    plain = parts.scheme == "http"
    flags = {"skopeo": " --src-tls-verify=false", "crane": " --insecure", "oras": " --plain-http", "helm": " --plain-http"}
    words = {
        "name": f"{parts.netloc}/{key}",
        "host": parts.netloc,
        **{f"plain_{name}": flag if plain else "" for name, flag in flags.items()},
    }
    return TEXT.format(
        login=LOGIN.format(**words) if signed_in else "",
        push=PUSH.format(**words) if pushes else "",
        plain=PLAIN.format(**words) if plain else "",
        **words,
    )


CONFIGURATIONS = ("/etc/containers/registries.conf", "/etc/containers/registries.conf.d")
SEARCHED = re.compile(r"^\s*unqualified-search-registries\s*=\s*\[\s*[\"']([^\"']+)[\"']", re.MULTILINE)


def configured_mirror() -> str | None:
    """The first registry that this machine's containers configuration looks names up at (containers-registries.conf(5))."""
    for place in map(Path, CONFIGURATIONS):
        files = sorted(place.glob("*.conf")) if place.is_dir() else [place]
        for file in files:
            try:
                found = SEARCHED.search(file.read_text())
            except OSError:
                continue
            if found:
                return f"https://{found[1]}"
    return None
