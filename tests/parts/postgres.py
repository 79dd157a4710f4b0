"""A private PostgreSQL on loopback, from Debian's package, for as long as the tests run."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import psycopg

START_SECONDS = 60.0


class Postgres:
    """`url` is the maintenance database's; `database()` makes a fresh one."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="entrepot-postgres-"))
        self._user = [] if os.geteuid() else ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        if self._user:
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgres://entrepot@127.0.0.1:{self.port}/postgres"
        self._start(binaries())

    def _start(self, programs: Path) -> None:
        data = self.folder / "data"
        options = ["--auth=trust", "--username=entrepot", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(
            [*self._user, str(programs / "initdb"), "-D", str(data), *options], check=True, capture_output=True, cwd="/"
        )
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.folder),
                    "max_connections": 300, "fsync": "off"}  # fmt: skip
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [*self._user, str(programs / "postgres"), "-D", str(data), *flags],
            cwd="/", stdin=subprocess.DEVNULL, stdout=(self.folder / "out").open("wb"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    @property
    def process(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


def fresh_database(url: str) -> str:
    """The URL of a new, empty database on the server at `url`."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{url.rpartition('/')[0]}/{name}"


def binaries() -> Path:
    """Where Debian's package put the server's programs; FileNotFoundError where it is not installed."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    if not found:
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    return Path(found[-1]).parent
