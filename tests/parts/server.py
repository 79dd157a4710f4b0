"""The real server as a process of its own, with a database and a data folder of its own."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import secrets
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 60.0
ADMIN_PASSWORD = "the administrator's"


@dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    headers: dict[str, str]
    body: bytes


class Server:
    """One Entrepot, of the code at `root`. `start` waits until it is ready; `kill` is SIGKILL to all its processes."""

    def __init__(
        self,
        data: Path,
        database_url: str,
        environment: dict[str, str] | None = None,
        root: Path = ROOT,
        prefix: Sequence[str] = (),
    ):
        self.root = root
        self.data = data
        self.prefix = prefix
        self.database_url = database_url
        self._given = environment or {}
        self.port = _free_port()
        self.tls = bool(self._given.get("ENTREPOT_TLS"))
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ENTREPOT_")}
        self.environment = {
            **clean,
            "ENTREPOT_DATA": str(data),
            "ENTREPOT_DATABASE_URL": database_url,
            "ENTREPOT_BIND": f"127.0.0.1:{self.port}",
            "ENTREPOT_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "ENTREPOT_WORKERS": "2",
            "ENTREPOT_THREADS": "32",
            "PYTHONFAULTHANDLER": "1",
            **self._given,
        }
        self._process: subprocess.Popen | None = None
        self._log = data / "server.log"

    def start(self) -> Server:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, "manage.py", "serve"],
                cwd=self.root, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended at once:\n{self.log()[-4000:]}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/readyz").status == 200:
                    return self
            time.sleep(0.05)
        raise RuntimeError(f"the server was not ready in {START_SECONDS} s:\n{self.log()[-4000:]}")

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stacks(self) -> None:
        """End all its processes, each of which writes into the log what its threads were at."""
        self._end(signal.SIGBUS)  # one that faulthandler heeds and gunicorn leaves alone

    def _end(self, sign: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, sign)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)
        self._process = None

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def manage(self, *arguments: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess:
        """Run a management command against this server's data."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.root, env=self.environment, input=input, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"manage.py {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def beside(self, *arguments: str) -> subprocess.Popen:
        """Start a management command that runs until it is told to end, such as a worker."""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "manage.py", *arguments],
                cwd=ROOT, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def apply(self, document: dict) -> None:
        self.manage("apply", "-", input=yaml.safe_dump(document))

    def counts(self) -> tuple[int, int, int]:
        """How many changes, assets and stored objects there are: what a refused request must not add to."""
        (changes,), (assets,) = self.query("SELECT count(*) FROM repos_change"), self.query("SELECT count(*) FROM repos_asset")
        objects = sum(1 for _ in (self.data / "blobs").glob("[0-9a-f][0-9a-f]/*"))
        return changes, assets, objects

    def query(self, sql: str) -> tuple:
        """One row of this server's database."""
        return self.rows(sql)[0]

    def rows(self, sql: str) -> list[tuple]:
        """All rows of this server's database that `sql` selects."""
        if self.database_url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(self.database_url.removeprefix("sqlite:///"), timeout=30)) as connection:
                return connection.execute(sql).fetchall()
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(sql).fetchall()

    def days_pass(self, days: int = 2) -> None:
        """What has happened, happened so much earlier."""
        sqlite = self.database_url.startswith("sqlite")
        for table, column in (("repos_change", "at"), ("repos_upload", "touched_at"), ("repos_usage", "last_used")):
            earlier = f"datetime({column}, '-{days} days')" if sqlite else f"{column} - interval '{days} days'"
            self.execute(f"UPDATE {table} SET {column} = {earlier}")

    def execute(self, sql: str) -> None:
        """Change this server's database as nothing of the server's would."""
        if self.database_url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(self.database_url.removeprefix("sqlite:///"), timeout=30)) as connection:
                connection.execute(sql)
                connection.commit()
            return
        with psycopg.connect(self.database_url) as connection:
            connection.execute(sql)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        user: tuple[str, str] | None = None,
    ) -> Answer:
        """One request with the path exactly as given. A body that is no bytes is sent in chunks."""
        connection = self.connect()
        try:
            connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
            chunked = body is not None and not isinstance(body, bytes)
            sizes = (
                {"Transfer-Encoding": "chunked"}
                if chunked
                else {"Content-Length": str(len(body or b""))}
                if body is not None
                else {}
            )
            for name, value in {**sizes, **_authorization(user), **(headers or {})}.items():
                connection.putheader(name, value)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before the end: the answer is there
                connection.endheaders(body, encode_chunked=chunked)
            if connection.sock is None:
                raise ConnectionResetError("the server is gone")
            answer = connection.getresponse()
            return Answer(answer.status, answer.reason, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    @staticmethod
    def authorization(user: tuple[str, str] | None) -> dict[str, str]:
        return _authorization(user)

    @property
    def process(self) -> int:
        """The first of the server's processes."""
        return self._process.pid

    def memory_peak(self) -> int:
        """The largest that one of the server's processes has been, in bytes."""
        peaks = []
        for task in Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(line.split(":", 1) for line in task.read_text().splitlines())
                if int(Path(task.parent, "stat").read_text().rpartition(")")[2].split()[2]) == self._process.pid:
                    peaks.append(int(fields["VmHWM"].split()[0]) * 1024)
            except (OSError, KeyError, ValueError):
                continue
        return max(peaks)

    def node(self) -> Server:
        """Another node of the same installation: one database, one store, a port of its own."""
        return Server(self.data, self.database_url, self._given, self.root, self.prefix)

    def jobs_process(self) -> int:
        """The process that runs jobs, beside those that answer requests; waits until it is there."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for name in Path("/proc").glob("[0-9]*/comm"):
                with contextlib.suppress(OSError):
                    pid = int(name.parent.name)
                    if name.read_text().strip() == "entrepot-jobs" and os.getpgid(pid) == self._process.pid:
                        return pid
            time.sleep(0.05)
        raise RuntimeError(f"no process runs jobs:\n{self.log()[-4000:]}")

    def connect(self) -> http.client.HTTPConnection:
        if not self.tls:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        else:
            context = ssl.create_default_context(cafile=str(self.data / "tls" / "cert.pem"))
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=120, context=context)
        connection._validate_path = lambda _: None  # the tests send what http.client would refuse to
        return connection

    def broken_upload(
        self, path: str, content: bytes, framing: str, user: tuple[str, str], headers: dict[str, str] | None = None
    ) -> int | None:
        """PUT the first half of `content` and then end the sending side. The answer's status, if there is one."""
        connection = self.connect()
        try:
            connection.putrequest("PUT", path)
            sizes = {"Content-Length": str(len(content))} if framing == "length" else {"Transfer-Encoding": "chunked"}
            for name, value in {**sizes, **_authorization(user), **(headers or {})}.items():
                connection.putheader(name, value)
            connection.endheaders()
            half = content[: len(content) // 2]
            connection.send(half if framing == "length" else b"%x\r\n%s" % (len(content), half))
            connection.sock.shutdown(socket.SHUT_WR)
            return connection.getresponse().status
        except (http.client.HTTPException, OSError):
            return None
        finally:
            connection.close()


def _authorization(user: tuple[str, str] | None) -> dict[str, str]:
    return {"Authorization": basic(user)} if user else {}


def basic(login: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()


def named(headers: dict[str, str]) -> dict[str, str]:
    """Headers that were given as keywords, by their names: `Content_Type` is Content-Type."""
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _free_port() -> int:
    """A port that nobody is given by the system until the server takes it: it gives out those above 32767."""
    while True:
        port = secrets.randbelow(22_000) + 10_000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
