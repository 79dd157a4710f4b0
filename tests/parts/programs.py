"""Programs that the tests run as a user would: Debian's packages, and others built from Go modules, once, into a cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.parts import golang

MODULES = {
    "conformance": "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111",
    "crane": "github.com/google/go-containerregistry/cmd/crane@v0.22.1",
    "oras": "oras.land/oras/cmd/oras@v1.3.6",
    "regctl": "github.com/regclient/regclient/cmd/regctl@v0.11.7",
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "registry": "github.com/distribution/distribution/v3/cmd/registry@v3.0.0",
}
"""Pinned; the Go module proxy and its checksum database see to it that a version stays what it is."""
PACKAGES = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "ctr": "containerd",
    "podman": "podman",
    "skopeo": "skopeo",
    "buildah": "buildah",
    "docker": "docker-cli",
}
"""Debian's, by program. Before Debian 13 `docker` comes with docker.io, and there is no docker-cli: so that is looked at last."""
OF_ROOT = ("dockerd", "containerd", "podman", "buildah")
"""What nobody else can run on a machine that was not set up for it."""
BUILD_SECONDS = 1500


def program(name: str) -> str:
    """The path of a program. Raises OSError or SubprocessError where it is not installed, or cannot be built or run."""
    if name in OF_ROOT and os.geteuid():
        raise PermissionError(f"{name} is run as root only")
    found = _built(name) if name in MODULES else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: apt-get install {PACKAGES[name]}")
    return found


@cache
def _built(name: str) -> str:
    """Built by whoever comes first, while others wait."""
    module = MODULES[name]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "entrepot-tests"
    place = folder / f"{name}-{module.rpartition('@')[2]}"
    folder.mkdir(parents=True, exist_ok=True)
    with Path(f"{place}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=folder) as made:
                environment = {**os.environ, "GOBIN": made, "GOTOOLCHAIN": "auto", "GOFLAGS": "-ldflags=-s"}
                command = [golang.program(), "install", module]
                done = subprocess.run(command, cwd=made, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS)
                if done.returncode:
                    raise FileNotFoundError(f"{module} cannot be built: {done.stderr.strip()[-1000:]}")
                (Path(made) / name).rename(place)
    return str(place)
