"""Measures a server of its own, and peers given by URL, in interleaved rounds with wrk; prints requests a second and ratios."""

from __future__ import annotations

import argparse
import base64
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.gomodules import make_zip
from tests.parts.server import ADMIN_PASSWORD, Server

ADMIN = ("admin", ADMIN_PASSWORD)
MODULE = "bench.example/module"
FILES = {
    ".mod": f"go/go/{MODULE}/@v/v1.0.0.mod",
    ".info": f"go/go/{MODULE}/@v/v1.0.0.info",
    "@v/list of 100": f"go/go/{MODULE}/@v/list",
    "zip of 30 KB": f"go/go/{MODULE}/@v/v1.0.0.zip",
    "file of 1 KB": "raw/raw/1k",
    "file of 64 KB": "raw/raw/64k",
    "file of 10 MB": "raw/raw/10m",
}
RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
LATENCY = re.compile(r"99%\s+([\d.]+\w+)")
FAILED = re.compile(r"Non-2xx or 3xx responses: (\d+)")


@dataclass
class Target:
    """One URL to be measured, and what each round came to: requests a second, and the 99th percentile as wrk writes it."""

    name: str
    url: str
    headers: list[str] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    slowest: str = ""


def main() -> int:
    options = arguments()
    if shutil.which("wrk") is None:
        print("bench needs wrk (Debian: apt-get install wrk)", file=sys.stderr)
        return 1
    peers = [Target(f"peer {n}", url) for n, url in enumerate(options.peer, 1)]
    with tempfile.TemporaryDirectory(prefix="entrepot-bench-") as folder:
        data = Path(folder)
        server = Server(data, options.database or f"sqlite:///{data}/entrepot.sqlite3").start()
        try:
            token = fill(server)
            chosen = {name: path for name, path in FILES.items() if options.only in name}
            for name, path in chosen.items():
                mine = Target("entrepot", f"{server.url}/{path}", [f"Authorization: Basic {token}"])
                compare(name, [mine, *peers], options)
        finally:
            server.stop()
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help=f"measure what has TEXT in its name: {', '.join(FILES)}")
    parser.add_argument("--peer", action="append", default=[], metavar="URL", help="measure this URL too, in the same rounds")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=5, help="of each round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", metavar="URL", help="an empty database; default: SQLite")
    return parser.parse_args()


def fill(server: Server) -> str:
    """Publish what is measured; returns the credentials of somebody who may read it, for Basic."""
    content = bytes(range(256)) * 4
    for n in range(100):
        body = make_zip(MODULE, f"v1.{n}.0", {"data.bin": noise(30_000)})
        put(server, f"/go/go/{MODULE}/@v/v1.{n}.0.zip", body)
    for name, size in (("1k", 1), ("64k", 64), ("10m", 10 * 1024)):
        put(server, f"/raw/raw/{name}", content * size)
    token = server.manage("token", "create", "admin", "--scope", "artifact:read@*").stdout.split()[-1]
    return base64.b64encode(f"bench:{token}".encode()).decode()


def noise(size: int) -> bytes:
    """Bytes that do not pack well, the same in each run."""
    out, value = bytearray(), 1
    while len(out) < size:
        value = value * 6364136223846793005 % 2**64 + 1442695040888963407 % 2**64
        out += value.to_bytes(9)[1:]
    return bytes(out[:size])


def put(server: Server, path: str, body: bytes) -> None:
    answer = server.request("PUT", path, body, user=ADMIN)
    if answer.status not in (200, 201):
        raise RuntimeError(f"{path}: {answer.status} {answer.body!r}")


def compare(name: str, targets: list[Target], options: argparse.Namespace) -> None:
    for target in targets:
        target.rates = []
    for _ in range(options.rounds):
        for target in targets:
            measure(target, options)
    ours = statistics.median(targets[0].rates)
    for target in targets:
        rate = statistics.median(target.rates)
        ratio = "" if target is targets[0] else f"   entrepot is {ours / rate:.2f}x"
        print(f"{name:16} {target.name:10} {rate:10,.0f} /s   p99 {target.slowest:>9}{ratio}", flush=True)


def measure(target: Target, options: argparse.Namespace) -> None:
    headers = [part for header in target.headers for part in ("-H", header)]
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "--latency", *headers, target.url]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=options.seconds + 60).stdout
    if failed := FAILED.search(said):
        raise RuntimeError(f"{target.url}: {failed[1]} requests failed")
    rate, slowest = RATE.search(said), LATENCY.search(said)
    target.rates.append(float(rate[1]) if rate else 0.0)
    target.slowest = slowest[1] if slowest else "?"


if __name__ == "__main__":
    sys.exit(main())
