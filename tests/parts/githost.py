"""A git host on loopback: real repositories by `git http-backend`, over TLS, with go-import pages and Basic authentication."""

from __future__ import annotations

import ipaddress
import os
import secrets
import ssl
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.parts.server import basic
from tests.parts.upstream import Handler as PlainHandler
from tests.parts.upstream import Server

LOGIN = ("ci", "of-the-git-host")
AUTHOR = {
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@corp.example",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@corp.example",
    "GIT_AUTHOR_DATE": "2024-05-06T07:08:09Z", "GIT_COMMITTER_DATE": "2024-05-06T07:08:09Z",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "HOME": "/nonexistent",
}  # fmt: skip


class Repository:
    """A bare repository, and a work tree to change it by."""

    def __init__(self, root: Path, name: str):
        self.bare, self.work = root / "bare" / f"{name}.git", root / "work" / name
        self.work.mkdir(parents=True)
        self._git("init", "-q", "-b", "main", ".")
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.bare)], check=True, env=self._environment())
        self._git("config", "core.hooksPath", os.devnull)

    def commit(self, files: dict[str, str], *tags: str, branch: str = "main") -> str:
        """Commit these files to a branch and push it with these tags. The commit's hash."""
        if self._git("branch", "--show-current") != branch:
            self._git("checkout", "-q", "-B", branch)
        for name, text in files.items():
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).write_text(text)
        self._git("add", "-A")
        self._git("commit", "-q", "-m", "change")
        for tag in tags:
            self._git("tag", tag)
        self._git("push", "-q", "--tags", str(self.bare), branch)
        return self._git("rev-parse", "HEAD")

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.work, check=True, capture_output=True, text=True, env=self._environment()
        )
        return done.stdout.strip()

    @staticmethod
    def _environment() -> dict[str, str]:
        return {"PATH": os.environ["PATH"], **AUTHOR}


class Handler(PlainHandler):
    upstream: GitHost  # type: ignore[assignment]

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._serve(body)

    def _serve(self, body: bytes) -> None:
        host, parts = self.headers["Host"], urlsplit(self.path)
        self.upstream.seen.append((host, self.path, self.headers.get("Authorization", "")))
        route = self.upstream.routes.get(f"{host}{parts.path}")
        name, git, rest = parts.path.strip("/").partition(".git/")
        if route is not None:
            route(self)
        elif parts.query == "go-get=1":
            self._page(host, parts.path.strip("/"))
        elif git and (self.upstream.root / "bare" / f"{name}.git").is_dir():
            if name in self.upstream.private and self.headers.get("Authorization") != basic(LOGIN):
                self.answer(401, b"who are you?", {"WWW-Authenticate": 'Basic realm="git"'})
            else:
                self._backend(f"/{name}.git/{rest}", parts.query, body)
        else:
            self.answer(404, b"no such repository")

    def _page(self, host: str, path: str) -> None:
        """A go-import page for the repository that is at the path or above it."""
        names = [path.rsplit("/", n)[0] for n in range(path.count("/") + 1)]
        name = next((name for name in names if name and (self.upstream.root / "bare" / f"{name}.git").is_dir()), None)
        tag = f'<meta name="go-import" content="{host}/{name} git https://{host}/{name}.git">' if name else ""
        self.answer(200, f"<html><head>{tag}</head><body>hello</body></html>".encode())

    def _backend(self, path: str, query: str, body: bytes) -> None:
        environment = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.upstream.root / "bare"), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), **AUTHOR,
        }  # fmt: skip
        said = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment, check=True).stdout
        head, _, content = said.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.answer(int(headers.pop("Status", "200").split()[0]), content, headers)


class GitHost:
    """Answers as every host in `hosts` at an address of its own, port 443. `seen`: host, path and Authorization of each request.

    `routes`: host and path -> a function of the handler, for what no honest host does. `private`: repositories that need LOGIN.
    """

    def __init__(self, root: Path, hosts: list[str]):
        self.root = root
        self.hosts = hosts
        self.private: set[str] = set()
        self.routes: dict[str, Callable[[Any], None]] = {}
        self.seen: list[tuple[str, str, str]] = []
        self.address = str(ipaddress.ip_address("127.0.0.0") + (1 << 16) + secrets.randbelow(1 << 23))
        self.ca, key = certificate(root, [*hosts, self.address])
        self._server = Server((self.address, 443), type("H", (Handler,), {"upstream": self}))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def repository(self, name: str) -> Repository:
        return Repository(self.root, name)

    def clones(self, name: str) -> int:
        """How often somebody began to read a repository."""
        return sum(path.startswith(f"/{name}.git/info/refs") for _, path, _ in self.seen)

    def fetches(self, name: str) -> int:
        return sum(path == f"/{name}.git/git-upload-pack" for _, path, _ in self.seen)

    def hosts_file(self) -> Path:
        """An /etc/hosts by which the names lead here."""
        file = self.root / "hosts"
        file.write_text(f"127.0.0.1 localhost\n{self.address} {' '.join(self.hosts)}\n")
        return file

    def stop(self) -> None:
        self._server.end()


def seeing(hosts: Path) -> list[str]:
    """What to put before a command so that it sees this /etc/hosts (root, Linux)."""
    return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]


def certificate(root: Path, names: list[str]) -> tuple[str, str]:
    """A certificate for these names, signed by itself, and its key: two files."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "git host of the tests")])
    now = datetime.now(UTC)
    alternatives = [x509.IPAddress(ipaddress.ip_address(one)) if one[0].isdigit() else x509.DNSName(one) for one in names]
    built = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(secret.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(secret, hashes.SHA256())
    )  # fmt: skip
    certificate, key = root / "cert.pem", root / "key.pem"
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(certificate), str(key)
