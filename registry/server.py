"""The embedded web server: gunicorn with threads, and what was answered before answered without them (registry.worker).

Threads, because a slow client then costs a thread and little memory; processes, because Python computes in one thread at a
time. A truncated chunked body is an error here, and files go out by sendfile.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from registry.embedded import JobsProcess
from registry.environment import Environment


class Server(BaseApplication):
    """gunicorn, configured by the environment's settings alone; its own files and variables are not read."""

    def __init__(self, environment: Environment, when_ready: Callable[[], None]):
        self.environment = environment
        self.when_ready = when_ready
        super().__init__()

    def load_config(self) -> None:
        for name, value in options(self.environment).items():
            self.cfg.set(name, value)
        self.cfg.set("when_ready", lambda _: self.when_ready())

    def load(self) -> Any:
        from registry.wsgi import application

        return application

    def run(self) -> None:
        ArbiterWithJobs(self).run()


class ArbiterWithJobs(Arbiter):
    """Beside gunicorn's processes for requests it keeps one that schedules and runs jobs, unless others are to do that."""

    def __init__(self, app: Server):
        here = app.environment.jobs and not app.environment.redis_url
        self.jobs = JobsProcess(app.environment.jobs) if here else None
        super().__init__(app)

    def manage_workers(self) -> None:
        """Called about once a second."""
        super().manage_workers()
        if self.jobs and self.LISTENERS:
            self.jobs.keep(self.LISTENERS)

    def stop(self, graceful: bool = True) -> None:
        if self.jobs:
            self.jobs.end()
        super().stop(graceful)
        if self.jobs:
            self.jobs.kill()


def check_bind(environment: Environment) -> None:
    """Raises OSError where the address cannot be bound to, before anything is prepared for it."""
    host, port = environment.address
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def options(environment: Environment) -> dict[str, Any]:
    """gunicorn's settings for an environment."""
    chosen: dict[str, Any] = {
        "bind": environment.bind,
        "worker_class": "registry.worker.Worker",
        "workers": environment.workers,
        "threads": environment.threads,
        "worker_connections": 2000,
        "timeout": 120,
        "graceful_timeout": 30,
        "keepalive": 75,
        "limit_request_line": 8190,
        "forwarder_headers": "",  # a client's SCRIPT_NAME is nothing to us
        "limit_request_fields": 64,
        "limit_request_field_size": 16380,
        "control_socket_disable": True,
        "loglevel": "warning",
        "proc_name": "entrepot",
    }
    if environment.tls:
        certificate, key = certificate_files(environment)
        chosen |= {"certfile": str(certificate), "keyfile": str(key)}
    return chosen


def certificate_files(environment: Environment) -> tuple[Path, Path]:
    """The certificate and key of ENTREPOT_TLS; for `self` made under the data folder where they are missing or end soon."""
    if environment.tls != "self":
        names = environment.tls.partition(":")
        return Path(names[0]), Path(names[2])
    folder = Path(environment.data) / "tls"
    certificate, key = folder / "cert.pem", folder / "key.pem"
    if not (certificate.exists() and key.exists() and _lasts(certificate)):
        folder.mkdir(mode=0o700, exist_ok=True)
        _make_certificate(certificate, key, environment)
    return certificate, key


def _lasts(certificate: Path) -> bool:
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc > datetime.now(UTC) + timedelta(days=30)


def _make_certificate(certificate: Path, key: Path, environment: Environment) -> None:
    """A certificate for this host's names, signed by itself, which clients trust by naming it (SSL_CERT_FILE)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Entrepot")])
    now = datetime.now(UTC)
    hosts = dict.fromkeys(["localhost", "127.0.0.1", "::1", *(host for host in settings.ALLOWED_HOSTS if "*" not in host)])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(secret, hashes.SHA256())
    )
    private = secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.unlink(missing_ok=True)
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(private)
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))


def _general_name(host: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)
