"""Who is measured, each as a base URL below which the same paths lead to the same content."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
import urllib3

from accounts.permissions import BUILTIN_ROLES
from bench.corpus import Kind
from tests.parts.postgres import Postgres, fresh_database
from tests.parts.server import ADMIN_PASSWORD, ROOT, Server

ADMIN = ("admin", ADMIN_PASSWORD)
ROBOT = "bench"


@dataclass(frozen=True)
class Target:
    """One that is measured. `beside`: the names of those to whom it is compared; `processes`: the first of its own, if known."""

    name: str
    base: str
    headers: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    processes: tuple[int, ...] = ()

    @property
    def path(self) -> str:
        """The path part of `base`."""
        return urlsplit(self.base).path

    def processor_seconds(self) -> float:
        """What its processes, and those that they started, have taken of the processors so far; 0 where none is known."""
        return sum(_processor_seconds(self.processes))


def peer(text: str) -> Target:
    """A peer as `NAME=URL`; a user's name and password may stand in the URL. Raises ValueError."""
    name, _, url = text.partition("=")
    parts = urlsplit(url)
    if not name or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is no peer; write NAME=URL, such as goproxy=http://127.0.0.1:8081")
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
    return Target(name, plain, basic(unquote(parts.username), unquote(parts.password or "")) if parts.username else {})


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def _processor_seconds(processes: tuple[int, ...]) -> Iterator[float]:
    parents: dict[int, tuple[int, int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    for process, (parent, ticks) in parents.items():
        above = {process}
        while parent in parents:
            above.add(parent)
            parent = parents[parent][0]
        if above & set(processes):
            yield ticks / os.sysconf("SC_CLK_TCK")


# Entrepot


@contextlib.contextmanager
def database(chosen: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The URL of an empty database, and its processes: `sqlite` (in the server's folder: an empty URL), `postgres` (a private
    one), or a URL."""
    if chosen == "sqlite":
        yield "", ()
    elif chosen == "postgres":
        private = Postgres()
        try:
            yield fresh_database(private.url), (private.process,)
        finally:
            private.stop()
    else:
        yield chosen, ()


@contextlib.contextmanager
def entrepot(
    folder: Path, database_url: str, document: dict, clone: Path = ROOT, role: str = "reader"
) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server with as many processes and threads as it takes by itself, and the headers of a robot that has `role` in
    `document`'s repositories, with a token for what that role may."""
    folder.mkdir()
    url = database_url or f"sqlite:///{folder}/entrepot.sqlite3"
    server = Server(folder, url, {"ENTREPOT_WORKERS": "", "ENTREPOT_THREADS": ""}, clone).start()
    try:
        keys = [item["key"] for item in document["repositories"]]
        grant = {"role": role, "users": [ROBOT], "repositories": keys}
        server.apply({**document, "users": [{"name": ROBOT, "robot": True}], "grants": [grant]})
        scopes = [f"{permission}@{key}" for key in keys for permission in sorted(BUILTIN_ROLES[role])]
        token = server.manage("token", "create", ROBOT, *(f"--scope={scope}" for scope in scopes)).stdout.split()[-1]
        yield server, basic(ROBOT, token)
    finally:
        server.stop()


def postgres_version(url: str) -> str:
    with psycopg.connect(url) as connection:
        return connection.execute("SHOW server_version").fetchone()[0]


# nginx


@contextlib.contextmanager
def nginx(folder: Path, files: Mapping[str, bytes], facts: dict[str, str]) -> Iterator[Target]:
    """The same content as static files: how fast this machine is, and no registry's work done."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise FileNotFoundError("--nginx needs nginx (Debian: apt-get install nginx-light)")
    facts["nginx"] = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr.rpartition("/")[2].strip()
    for path, content in files.items():
        file = folder / "files" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = folder / "nginx.conf"
    user = "" if os.geteuid() else "user root;"  # else its workers could not read the folder
    configuration.write_text(NGINX.format(folder=folder, port=port, user=user))
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "errors")])
    try:
        _wait_for(port, process)
        yield Target("nginx", f"http://127.0.0.1:{port}", processes=(process.pid,))
    finally:
        process.terminate()
        process.wait(20)


NGINX = """
{user}
daemon off;
worker_processes auto;
pid {folder}/pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""


def _wait_for(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


# Do they answer the same?


def check(targets: Sequence[Target], kinds: Sequence[Kind], content: Mapping[str, bytes]) -> None:
    """Ask every target for every path, which also warms it. Raises RuntimeError where the answer is not 200 and the content."""
    pool = urllib3.PoolManager(timeout=120.0, retries=False)
    for target in targets:
        for kind in kinds:
            for path in kind.paths:
                answer = pool.request("GET", f"{target.base}/{path}", headers=target.headers)
                if answer.status != 200:
                    raise RuntimeError(f"{target.name} answers {answer.status} for {path}")
                if kind.meaning(answer.data) != kind.meaning(content[path]):
                    raise RuntimeError(f"{target.name} answers something else for {path} than the upstream")
