"""Clients of container registries, each as a user with a home of their own types it, over plain http and with no other flag."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.parts import images, oci
from tests.parts.daemons import Containerd, Dockerd
from tests.parts.images import TAG, Image
from tests.parts.programs import program

SECONDS = 300


class Refused(Exception):
    """The client ended with a failure; what it said."""


class Client:
    """`push` and `pull` tell the digest that the client has seen; what fails is Refused."""

    name: ClassVar[str]
    daemon: ClassVar[type[Dockerd] | type[Containerd] | None] = None
    """What has to run for it."""
    keeps_bytes: ClassVar[bool] = True
    """Whether it pushes a manifest as it found it; others make one of their own."""

    def __init__(self, home: Path, daemon: Dockerd | Containerd | None = None):
        self.home = home
        self._numbers = itertools.count()
        self.socket = str(daemon.socket) if daemon else ""
        self.registries = home / ".config" / "containers" / "registries.conf"
        self.registries.parent.mkdir(parents=True)
        self.registries.write_text("")
        (home / "containers.conf").write_text("")
        (home / "auth.json").write_text("{}")
        (home / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{home}/images"\nrunroot = "{home}/running"\n'
        )
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "HELM_", "CONTAINER"))}
        self.environment = {
            **clean,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_RUNTIME_DIR": str(home),
            "DOCKER_CONFIG": str(home / "docker"),
            "DOCKER_HOST": f"unix://{self.socket}",
            "REGISTRY_AUTH_FILE": str(home / "auth.json"),
            "REGCTL_CONFIG": str(home / "regctl.json"),
            "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
            "CONTAINERS_CONF": str(home / "containers.conf"),
        }

    def run(self, *arguments: str | Path, input: str | None = None) -> str:
        return self._run([program(self.name), *map(str, arguments)], input)

    def shell(self, line: str) -> str:
        """A line that the user pastes, which begins with the client's name."""
        return self._run(["sh", "-c", f'{self.name}() {{ "{program(self.name)}" "$@"; }}\n{line}'])

    def _run(self, command: Sequence[str], input: str | None = None) -> str:
        done = subprocess.run(
            command, cwd=self.home, env=self.environment, input=input, capture_output=True, text=True, timeout=SECONDS
        )
        if done.returncode:
            said = f"{done.stdout}{done.stderr}"[-4000:]
            raise Refused(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
        return done.stdout

    def folder(self) -> Path:
        """One that is not there yet."""
        return self.home / f"folder{next(self._numbers)}"

    def layout(self, made: Image) -> Path:
        return images.write(self.folder(), made)

    def login(self, host: str, user: str, secret: str) -> None:
        raise NotImplementedError

    def push(self, made: Image, name: str) -> str:
        raise NotImplementedError

    def pull(self, name: str, architecture: str = "") -> str:
        """The digest that the name leads to; with an architecture that of its manifest, not of the index."""
        raise NotImplementedError


class Listing(Client):
    """One that lists tags."""

    def tags(self, name: str) -> list[str]:
        raise NotImplementedError


class Deleting(Listing):
    """One that deletes, which not all can."""

    def delete(self, name: str) -> None:
        raise NotImplementedError


class Crane(Deleting):
    name = "crane"

    def login(self, host: str, user: str, secret: str) -> None:
        self.run("auth", "login", host, "-u", user, "--password-stdin", input=secret)
        self.run("catalog", host)  # the login itself asks nobody

    def push(self, made: Image, name: str) -> str:
        return self.run("push", self.layout(made), name).strip().rpartition("@")[2]

    def pull(self, name: str, architecture: str = "") -> str:
        platform = (f"--platform=linux/{architecture}",) if architecture else ()
        folder = self.folder()
        self.run("pull", "--format=oci", *platform, name, folder)
        return images.top(folder)

    def tags(self, name: str) -> list[str]:
        return self.run("ls", name).split()

    def delete(self, name: str) -> None:
        self.run("delete", name)


class Skopeo(Deleting):
    name = "skopeo"

    def login(self, host: str, user: str, secret: str) -> None:
        self.run("login", "--tls-verify=false", "-u", user, "--password-stdin", host, input=secret)

    def push(self, made: Image, name: str) -> str:
        digest = self.folder()
        layout = f"oci:{self.layout(made)}:{TAG}"
        self.run("copy", "--all", "--dest-tls-verify=false", f"--digestfile={digest}", layout, f"docker://{name}")
        return digest.read_text()

    def pull(self, name: str, architecture: str = "") -> str:
        folder = self.folder()
        chosen, which = ((f"--override-arch={architecture}",), ()) if architecture else ((), ("--all",))
        self.run(*chosen, "copy", *which, "--src-tls-verify=false", f"docker://{name}", f"dir:{folder}")
        return oci.digest((folder / "manifest.json").read_bytes())

    def tags(self, name: str) -> list[str]:
        return json.loads(self.run("list-tags", "--tls-verify=false", f"docker://{name}"))["Tags"]

    def delete(self, name: str) -> None:
        self.run("delete", "--tls-verify=false", f"docker://{name}")


class Oras(Deleting):
    name = "oras"

    def login(self, host: str, user: str, secret: str) -> None:
        self.run("login", "--plain-http", host, "-u", user, "--password-stdin", input=secret)

    def push(self, made: Image, name: str) -> str:
        return self._digest(self.run("cp", "--from-oci-layout", f"{self.layout(made)}:{TAG}", "--to-plain-http", name))

    def pull(self, name: str, architecture: str = "") -> str:
        platform = (f"--platform=linux/{architecture}",) if architecture else ()
        return self._digest(self.run("cp", *platform, "--from-plain-http", name, "--to-oci-layout", f"{self.folder()}:{TAG}"))

    def tags(self, name: str) -> list[str]:
        return self.run("repo", "tags", "--plain-http", name).split()

    def delete(self, name: str) -> None:
        self.run("manifest", "delete", "--force", "--plain-http", name)

    @staticmethod
    def _digest(said: str) -> str:
        return re.findall(r"Digest: (\S+)", said)[-1]


class Regctl(Deleting):
    name = "regctl"

    def plain(self, host: str) -> None:
        """Tell it that the host has no TLS, which it keeps."""
        self.run("registry", "set", "--tls=disabled", host)

    def login(self, host: str, user: str, secret: str) -> None:
        self.run("registry", "login", host, "-u", user, "--pass-stdin", input=secret)

    def push(self, made: Image, name: str) -> str:
        self.run("image", "copy", f"ocidir://{self.layout(made)}:{TAG}", name)
        return self.run("image", "digest", name).strip()

    def pull(self, name: str, architecture: str = "") -> str:
        platform = (f"--platform=linux/{architecture}",) if architecture else ()
        folder = self.folder()
        self.run("image", "copy", *platform, name, f"ocidir://{folder}:{TAG}")
        return images.top(folder)

    def tags(self, name: str) -> list[str]:
        return self.run("tag", "ls", name).split()

    def delete(self, name: str) -> None:
        self.run("tag", "delete", name)


class Podman(Listing):
    name = "podman"
    keeps_bytes = False

    def login(self, host: str, user: str, secret: str) -> None:
        self.run("login", "--tls-verify=false", "-u", user, "--password-stdin", host, input=secret)

    def push(self, made: Image, name: str) -> str:
        return self._push(self.run("pull", "--quiet", f"oci:{self.layout(made)}:{TAG}").strip(), name)

    def _push(self, image: str, name: str) -> str:
        digest = self.folder()
        self.run("push", "--quiet", "--tls-verify=false", f"--digestfile={digest}", image, f"docker://{name}")
        return digest.read_text()

    def pull(self, name: str, architecture: str = "") -> str:
        platform = (f"--arch={architecture}",) if architecture else ()
        image = self.run("pull", "--quiet", "--tls-verify=false", *platform, name).strip()
        return self.run("inspect", "--type=image", "--format={{.Digest}}", image).strip()

    def tags(self, name: str) -> list[str]:
        said = self.run("search", "--list-tags", "--limit=1000", "--tls-verify=false", "--format=json", name)
        return [tag for found in json.loads(said) for tag in found["Tags"]]


class Buildah(Client):
    name = "buildah"
    keeps_bytes = False
    login = Podman.login
    _push = Podman._push

    def push(self, made: Image, name: str) -> str:
        """An image that it builds, each layer on the one before."""
        image = "scratch"
        for number, content in enumerate(made.blobs):
            file = self.folder()
            file.write_bytes(content)
            container = self.run("from", image).strip()
            self.run("add", "--quiet", container, file, f"/file{number}")
            image = self.run("commit", "--quiet", "--rm", container).strip()
        return self._push(image, name)

    def pull(self, name: str, architecture: str = "") -> str:
        platform = (f"--arch={architecture}",) if architecture else ()
        image = self.run("pull", "--quiet", "--tls-verify=false", *platform, name).strip()
        return self.run("inspect", "--type=image", "--format={{.FromImageDigest}}", image).strip()


class Docker(Client):
    name = "docker"
    daemon = Dockerd
    keeps_bytes = False

    def login(self, host: str, user: str, secret: str) -> None:
        self.run("login", "-u", user, "--password-stdin", host, input=secret)

    def push(self, made: Image, name: str) -> str:
        archive = self.folder()
        command = [program("skopeo"), "copy", "--quiet", f"oci:{self.layout(made)}:{TAG}", f"docker-archive:{archive}:{name}"]
        subprocess.run(command, env=self.environment, check=True, timeout=SECONDS)
        self.run("load", "--quiet", "--input", archive)
        return re.findall(r"digest: (\S+)", self.run("push", name))[-1]

    def pull(self, name: str, architecture: str = "") -> str:
        """The daemon forgets what it has by this name, so that it asks for all of it."""
        if self.run("images", "--quiet", name):
            self.run("rmi", "--force", name)
        platform = (f"--platform=linux/{architecture}",) if architecture else ()
        return re.findall(r"Digest: (\S+)", self.run("pull", *platform, name))[-1]


class Ctr(Client):
    """containerd's own client, which keeps no login and is told of hosts by a folder of hosts.toml."""

    name = "ctr"
    daemon = Containerd

    def __init__(self, home: Path, daemon: Containerd):
        super().__init__(home, daemon)
        self._login: tuple[str, ...] = ()
        self.hosts = home / "hosts"

    def hosts_file(self, name: str) -> Path:
        """Where it reads whom to ask for what begins with `name`."""
        folder = self.hosts / name
        folder.mkdir(parents=True)
        return folder / "hosts.toml"

    def host(self, name: str, server: str, lines: str = "") -> None:
        self.hosts_file(name).write_text(f'[host."{server}"]\n{lines}')

    def ctr(self, *arguments: str | Path) -> str:
        return self.run("--address", self.socket, "images", *arguments)

    def login(self, host: str, user: str, secret: str) -> None:
        self._login = ("--user", f"{user}:{secret}")

    def push(self, made: Image, name: str) -> str:
        archive = self.folder()
        subprocess.run(["tar", "-C", self.layout(made), "-cf", archive, "."], check=True, timeout=SECONDS)
        self.ctr("import", "--no-unpack", "--all-platforms", "--base-name", name.rpartition(":")[0], archive)
        self.ctr("tag", f"{name.rpartition(':')[0]}:{TAG}", name)
        self.ctr("push", "--hosts-dir", self.hosts, *self._login, name)
        return self._digest(name)

    def pull(self, name: str, architecture: str = "") -> str:
        platform = (f"--platform=linux/{architecture}",) if architecture else ()
        self.ctr("pull", "--snapshotter=native", "--hosts-dir", self.hosts, *self._login, *platform, name)
        return self._digest(name)

    def _digest(self, name: str) -> str:
        (line,) = [line for line in self.ctr("ls", f"name=={name}").splitlines() if line.startswith(f"{name} ")]
        return re.search(r"sha256:[0-9a-f]{64}", line)[0]


class Helm(Client):
    """It pushes and pulls charts, which are no images."""

    name = "helm"

    def login(self, host: str, user: str, secret: str) -> None:
        self.run("registry", "login", "--plain-http", host, "-u", user, "--password-stdin", input=secret)


CLIENTS: dict[str, type[Client]] = {one.name: one for one in (Docker, Podman, Buildah, Skopeo, Crane, Oras, Regctl, Ctr)}
"""Those for images."""
