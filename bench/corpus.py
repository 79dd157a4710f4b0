"""Real modules, and what the module proxy of this machine says of them: asked once, then said again by an upstream on loopback.

So no load ever reaches a real registry, and all that is measured has one and the same upstream.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import urllib3

MODULES = {
    "github.com/!burnt!sushi/toml": "v1.3.2",
    "github.com/davecgh/go-spew": "v1.1.1",
    "github.com/google/uuid": "v1.6.0",
    "github.com/pkg/errors": "v0.9.1",
    "github.com/sirupsen/logrus": "v1.9.3",
    "github.com/spf13/pflag": "v1.0.5",
    "golang.org/x/sync": "v0.7.0",
    "gopkg.in/yaml.v3": "v3.0.1",
}
"""Escaped module paths, as they stand in URLs, and a version of each; the zips have 18 to 303 KB."""

RELEASE = re.compile(r"^v[0-9]+\.[0-9]+\.[0-9]+$", re.MULTILINE)


@dataclass(frozen=True)
class Kind:
    """One kind of request: the paths that are asked for in turn, and what two right answers to one have in common."""

    name: str
    paths: tuple[str, ...]
    meaning: Callable[[bytes], Hashable]


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _info(body: bytes) -> tuple[str, str]:
    said = json.loads(body)
    return said["Version"], said["Time"]


def _versions(body: bytes) -> frozenset[str]:
    """The releases in a list, in which proxies may differ in what else they show."""
    return frozenset(RELEASE.findall(body.decode()))


def _of_versions(suffix: str) -> tuple[str, ...]:
    return tuple(f"{module}/@v/{version}{suffix}" for module, version in MODULES.items())


GO = (
    Kind(".mod", _of_versions(".mod"), digest),
    Kind(".info", _of_versions(".info"), _info),
    Kind(".zip", _of_versions(".zip"), digest),
    Kind("@v/list", tuple(f"{module}/@v/list" for module in MODULES), _versions),
    Kind("@latest", tuple(f"{module}/@latest" for module in MODULES), _info),
)
FILES = tuple(Kind(name, (name,), digest) for name in ("1KB", "64KB", "10MB"))


def made_files() -> dict[str, bytes]:
    """What FILES name."""
    unit = bytes(range(256)) * 4
    return {"1KB": unit, "64KB": unit * 64, "10MB": unit * 10 * 1024}


def modules(proxy: str) -> dict[str, bytes]:
    """What the module proxy at `proxy` says at each path of GO, and what else is needed for it.

    Where it has no @latest, which the protocol leaves open, that is the .info of the newest release in the list.
    Raises RuntimeError where it says something else than 200.
    """
    pool = urllib3.PoolManager(maxsize=4, timeout=60.0, retries=2)

    def ask(path: str, *, optional: bool = False) -> bytes:
        answer = pool.request("GET", f"{proxy.rstrip('/')}/{path}")
        if optional and answer.status == 404:
            return b""
        if answer.status != 200:
            raise RuntimeError(f"the module proxy of this machine answers {answer.status} for {path}")
        return answer.data

    def ask_all(module: str) -> dict[str, bytes]:
        place = f"{module}/@v"
        listed = ask(f"{place}/list")
        newest = f"{place}/{_newest(listed.decode())}.info"
        files = [f"{place}/{MODULES[module]}{suffix}" for suffix in (".mod", ".info", ".zip")]
        said = {path: ask(path) for path in dict.fromkeys([*files, newest])}
        latest = ask(f"{module}/@latest", optional=True) or said[newest]
        return {**said, f"{place}/list": listed, f"{module}/@latest": latest}

    with ThreadPoolExecutor(4) as threads:
        return {path: body for said in threads.map(ask_all, MODULES) for path, body in said.items()}


def _newest(listed: str) -> str:
    return max(RELEASE.findall(listed), key=lambda version: [int(number) for number in version[1:].split(".")])
