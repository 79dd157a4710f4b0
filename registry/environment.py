"""The ENTREPOT_ environment variables: read once, checked once, one line for what is wrong."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

PORT = re.compile(r":[0-9]+$")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ROOT = Path(__file__).resolve().parent.parent


class EnvironmentProblem(Exception):
    """A setting that cannot be used; the text is one line that names it and says why."""


@dataclass(frozen=True)
class Environment:
    """What the variables of the contract come to. Secrets are kept out of repr."""

    data: Path
    database: dict
    storage: str
    bind: str
    base_url: str
    tls: str
    config: str
    redis_url: str
    workers: int
    threads: int
    jobs: int
    client_timeout: int
    hosts: tuple[str, ...]
    proxies: tuple[Network, ...]
    secret_key: str = field(repr=False)
    admin_password: str = field(repr=False)

    @property
    def address(self) -> tuple[str, int]:
        """Host, without brackets, and port of `bind`."""
        return _host(self.bind), int(self.bind.rpartition(":")[2])

    @property
    def loopback(self) -> bool:
        """Whether only this machine can ask."""
        return _is_loopback(self.address[0])

    @cached_property
    def open_on_loopback(self) -> bool:
        """Whether what the first start makes is readable by all. Not behind another server that gives us a public name."""
        return self.loopback and (not self.base_url or _is_loopback(urlsplit(self.base_url).hostname or ""))

    def trusts(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        """Whether what stands at this address is a proxy of ours, which is believed about where requests come from."""
        return any(address in network for network in self.proxies)

    def open_to(self, host: str) -> bool:
        """Whether that holds for a request with this Host header, which must name this machine too."""
        return self.open_on_loopback and _is_loopback(_host(host) if PORT.search(host) else host.strip("[]"))

    @property
    def allowed_hosts(self) -> list[str]:
        """Host names that requests may carry where URLs are built from them."""
        named = {self.address[0], urlsplit(self.base_url).hostname or "", *self.hosts} - {"", "0.0.0.0", "::"}  # noqa: S104
        return sorted({"localhost", "127.0.0.1", "[::1]", *(f"[{name}]" if ":" in name else name for name in named)})


def read(variables: Mapping[str, str] | None = None) -> Environment:
    """The environment's settings. Raises EnvironmentProblem for a value that cannot be used and a name that is unknown."""
    given = {
        name: value for name, value in (os.environ if variables is None else variables).items() if name.startswith("ENTREPOT_")
    }
    _check_names(given)
    reader = _Reader(given)
    data = reader.get("DATA", str(ROOT / "var"), _folder)
    return Environment(
        data=data,
        database=reader.get("DATABASE_URL", f"sqlite:///{quote(str(data))}/entrepot.sqlite3", database, secret=True),
        storage=reader.get("STORAGE", f"file://{quote(str(data))}/blobs", _storage),
        bind=reader.get("BIND", "127.0.0.1:8080", _bind),
        base_url=reader.get("BASE_URL", "", _base_url),
        tls=reader.get("TLS", "", _tls),
        config=reader.get("CONFIG", "", _file),
        redis_url=reader.get("REDIS_URL", "", _redis, secret=True),
        workers=reader.get("WORKERS", str(min(4, os.cpu_count() or 1)), _number(1, 64)),
        threads=reader.get("THREADS", "64", _number(4, 512)),
        jobs=reader.get("JOBS", "4", _number(0, 64)),
        client_timeout=reader.get("CLIENT_TIMEOUT", "60", _number(1, 3600)),
        hosts=reader.get("HOSTS", "", lambda text: tuple(filter(None, (host.strip() for host in text.split(","))))),
        proxies=reader.get("PROXIES", "", _networks),
        secret_key=reader.get("SECRET_KEY", "", _long_enough, secret=True) or _made_secret(data),
        admin_password=reader.get("ADMIN_PASSWORD", "", str, secret=True),
    )


NAMES = ("DATA", "DATABASE_URL", "STORAGE", "BIND", "BASE_URL", "TLS", "CONFIG", "REDIS_URL", "WORKERS", "THREADS", "JOBS",
         "CLIENT_TIMEOUT", "HOSTS", "PROXIES", "SECRET_KEY", "ADMIN_PASSWORD")  # fmt: skip
FOREIGN = ("ENTREPOT_SECRET_", "ENTREPOT_USER_", "ENTREPOT_TEST_", "ENTREPOT_SERVICE_", "ENTREPOT_PORT")
"""Prefixes of variables that are not settings: secrets that a configuration file names, the tests' own, and what Kubernetes
sets where a Service is named entrepot."""


def _check_names(given: Mapping[str, str]) -> None:
    known = [f"ENTREPOT_{name}" for name in NAMES]
    for name in given:
        if name not in known and not name.startswith(FOREIGN):
            close = difflib.get_close_matches(name, known, 1)
            raise EnvironmentProblem(
                f"{name} is no setting" + (f"; did you mean {close[0]}?" if close else f"; settings are {', '.join(known)}")
            )


class _Reader:
    def __init__(self, given: Mapping[str, str]):
        self._given = given

    def get(self, name: str, default: str, parse: Callable[[str], Any], *, secret: bool = False) -> Any:
        text = self._given.get(f"ENTREPOT_{name}") or default
        try:
            return parse(text)
        except (ValueError, OSError) as error:
            shown = "" if secret else f"={text}"
            raise EnvironmentProblem(f"ENTREPOT_{name}{shown} cannot be used: {error}") from error


def database(url: str) -> dict:
    """Django's description of the database at `sqlite:///file` or `postgres://user:password@host:port/name?option=value`."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return _sqlite(parts.path)
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError("a database is sqlite:///file or postgres://user:password@host:port/name")
    if not parts.path.strip("/"):
        raise ValueError("the URL names no database; it ends in /name")
    options = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", unquote(parts.hostname or "")),
        "PORT": str(parts.port or ""),
        "OPTIONS": {
            "pool": {"min_size": 1, "max_size": int(options.pop("pool", "16")), "timeout": 30},
            "server_side_binding": True,  # without it nothing is prepared, and planning a read takes longer than running it
            "prepare_threshold": 5,
            **options,
        },
    }


def _sqlite(path: str) -> dict:
    file = Path("/" + unquote(path).lstrip("/"))  # sqlite:///dir/file and sqlite:////dir/file are one place
    if not file.name:
        raise ValueError("the URL names no file; it looks like sqlite:////var/lib/entrepot/entrepot.sqlite3")
    pragmas = "journal_mode=WAL", "synchronous=FULL", "journal_size_limit=67108864", "foreign_keys=ON"
    return {
        "ENGINE": "registry.sqlite",
        "NAME": str(file),
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "timeout": 30,
            "transaction_mode": "IMMEDIATE",
            "init_command": ";".join(f"PRAGMA {pragma}" for pragma in pragmas),
        },
        "TEST": {"NAME": str(file.with_suffix(".test"))},
    }


def _folder(text: str) -> Path:
    folder = Path(text).expanduser().resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is in it is for the server alone
    if not os.access(folder, os.W_OK):
        raise ValueError("the folder cannot be written to")
    return folder


def _storage(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme == "s3":
        raise ValueError("s3:// is not supported yet; use file:///dir")
    if parts.scheme != "file" or parts.netloc or not parts.path.strip("/"):
        raise ValueError("a store is file:///dir")
    return text


def _bind(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("it is HOST:PORT, such as 127.0.0.1:8080")
    return text


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if text and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query):
        raise ValueError("it is the server's address without a path, such as https://entrepot.example.org")
    return text.rstrip("/")


def _tls(text: str) -> str:
    if text in ("", "self"):
        return text
    for name in (text.partition(":")[0], text.partition(":")[2]):
        if not Path(name).is_file():
            raise ValueError(f"it is cert.pem:key.pem or self, and there is no file {name!r}")
    return text


def _file(text: str) -> str:
    if text and not Path(text).is_file():
        raise ValueError("there is no such file")
    return text


def _redis(text: str) -> str:
    if text and urlsplit(text).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("it is redis://host:port/number")
    return text


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or not least <= int(text) <= most:
            raise ValueError(f"it is a number from {least} to {most}")
        return int(text)

    return parse


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"it is networks separated by commas, such as 10.1.0.0/16 or 192.0.2.7; {error}") from None


def _long_enough(text: str) -> str:
    if text and len(text) < 32:
        raise ValueError("it has at least 32 characters")
    return text


def _made_secret(data: Path) -> str:
    """The key in the data folder, made once; of several starts at once the first wins."""
    file = data / "secret-key"
    if not file.exists():
        mine = data / f".secret-key-{secrets.token_hex(8)}"
        with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_urlsafe(48))
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(mine, file)
        except FileExistsError:
            pass
        finally:
            mine.unlink()
    return file.read_text()


def _host(bind: str) -> str:
    return bind.rpartition(":")[0].strip("[]")


@lru_cache(maxsize=1024)  # each request is asked for the Host that it names
def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
