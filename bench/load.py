"""The programs that ask, each for what it is good at.

wrk      as many requests as a server can do. It takes the least of the processor from the server beside it, and counts a stall
         against the requests that should have been sent meanwhile; but what is never answered it does not count at all.
vegeta   a steady rate, whatever the server does. Every request counts, one that is not answered in time with that time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.targets import Target
from tests.parts import golang
from tests.parts.server import ROOT

VEGETA = "github.com/tsenart/vegeta/v12@v12.13.0"
PATHS = Path(__file__).with_name("paths.lua")
ANSWERED_WITHIN = 5
"""Seconds after which a request is given up."""


@dataclass(frozen=True)
class Sample:
    """What one run came to: requests a second, latencies in milliseconds, and how many requests failed or were given up.

    `cost`: microseconds of a processor that the server, and its database, took for each; 0 where that is not known.
    `requests`: how many there were.
    """

    rate: float
    p50: float
    p99: float
    failed: int
    cost: float = 0.0
    requests: int = 0


def check_wrk() -> None:
    if shutil.which("wrk") is None:
        raise FileNotFoundError("bench needs wrk (Debian: apt-get install wrk)")


def full(target: Target, paths: Sequence[str], seconds: int, connections: int) -> Sample:
    """As many requests as `connections` come to, each sending the next one when the last is answered."""
    with tempfile.NamedTemporaryFile("w", suffix=".paths") as file:
        file.write("".join(f"{target.path}/{path}\n" for path in paths))
        file.flush()
        command = [
            "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={ANSWERED_WITHIN}s", f"-s{PATHS}",
            *(f"-H{name}: {value}" for name, value in target.headers.items()), target.base, "--", file.name,
        ]  # fmt: skip
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    return Sample(**json.loads(said.splitlines()[-1]))


def steady(target: Target, paths: Sequence[str], seconds: int, rate: int) -> Sample:
    """`rate` requests a second for some seconds."""
    urls = "".join(f"GET {target.base}/{path}\n" for path in paths)
    attack = [
        vegeta(), "attack", f"-rate={rate}", f"-duration={seconds}s", f"-timeout={ANSWERED_WITHIN}s", "-redirects=-1",
        *(f"-header={name}: {value}" for name, value in target.headers.items()),
    ]  # fmt: skip
    results = subprocess.run(attack, input=urls.encode(), capture_output=True, check=True, timeout=seconds + 60).stdout
    said = subprocess.run([vegeta(), "report", "-type=json"], input=results, capture_output=True, check=True, timeout=60).stdout
    report = json.loads(said)
    latencies = report["latencies"]
    requests = report["requests"]
    failed = requests - report["status_codes"].get("200", 0)
    return Sample(report["rate"], latencies["50th"] / 1e6, latencies["99th"] / 1e6, failed, requests=requests)


def vegeta() -> str:
    """The path of vegeta, which is built once for this clone."""
    folder = ROOT / "var" / "bench" / VEGETA.rpartition("@")[2]
    program = folder / "vegeta"
    if not program.exists():
        print(f"building {VEGETA} (once)", flush=True)
        subprocess.run([golang.program(), "install", VEGETA], env={**os.environ, "GOBIN": str(folder)}, check=True)
    return str(program)
