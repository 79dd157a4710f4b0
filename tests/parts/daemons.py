"""Daemons of others that a test runs for itself: Docker's, containerd, and another registry."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.parts.programs import program

START_SECONDS = 60.0


class Daemon:
    """A process with a folder of its own, ready once `ready` says so, and ended by `stop`."""

    program: ClassVar[str]

    def __init__(self, folder: Path, command: Sequence[str]):
        self.folder = folder
        log = folder / "log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, "HOME": str(folder)}, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{command[0]} did not become ready:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)

    def ready(self) -> bool:
        raise NotImplementedError

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)


class Dockerd(Daemon):
    """Docker's daemon, which touches nothing of this machine's network. `settings` are those of its daemon.json."""

    program = "dockerd"

    def __init__(self, folder: Path, **settings: object):
        self.socket = folder / "docker.sock"
        (folder / "daemon.json").write_text(json.dumps(settings))
        options = {
            "config-file": folder / "daemon.json",
            "host": f"unix://{self.socket}",
            "data-root": folder / "data",
            "exec-root": folder / "exec",
            "pidfile": folder / "pid",
            "storage-driver": "vfs",
            "bridge": "none",
            "iptables": "false",
            "ip6tables": "false",
            "ip-forward": "false",
            "ip-masq": "false",
        }
        super().__init__(folder, [program(self.program), *(f"--{name}={value}" for name, value in options.items())])

    def ready(self) -> bool:
        return _answers(self.socket, "/_ping")


class Containerd(Daemon):
    """containerd without what Kubernetes needs."""

    program = "containerd"

    def __init__(self, folder: Path):
        self.socket = folder / "containerd.sock"
        (folder / "config.toml").write_text(
            'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'root = "{folder}/root"\nstate = "{folder}/state"\n'
            f'[grpc]\naddress = "{self.socket}"\n[ttrpc]\naddress = "{self.socket}.ttrpc"\n'
        )
        super().__init__(folder, [program(self.program), "--config", str(folder / "config.toml")])

    def ready(self) -> bool:
        command = [program("ctr"), "--address", str(self.socket), "version"]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


class Distribution(Daemon):
    """The registry that Docker's images were first pushed to; anybody may do anything in it."""

    program = "registry"

    def __init__(self, folder: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{probe.getsockname()[1]}"
        (folder / "config.yml").write_text(
            f"version: 0.1\nhttp: {{addr: '{self.host}'}}\nstorage: {{filesystem: {{rootdirectory: '{folder}/data'}}}}\n"
        )
        super().__init__(folder, [program(self.program), "serve", str(folder / "config.yml")])

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def ready(self) -> bool:
        connection = http.client.HTTPConnection(self.host, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/v2/")
            return connection.getresponse().status == 200
        return False


def _answers(path: Path, target: str) -> bool:
    """Whether the HTTP server at a Unix socket answers 200."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(str(path))
        connection.request("GET", target)
        return connection.getresponse().status == 200
    return False
