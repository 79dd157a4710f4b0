"""`./dev test`: the whole suite on PostgreSQL, contract and flows on SQLite too; then what could not be run, and the sum.

Installs PostgreSQL, Redis, OpenLDAP and the clients of registries where they are missing and may be installed. With CI=true a
skipped test is a failure.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.parts import golang, programs, redis, slapd
from tests.parts.postgres import Postgres, binaries

ON_BOTH = ["tests/contract", "tests/flows", "accounts"]
NOTHING_COLLECTED = 5
LONGEST_SOAK = "14400"
"""Seconds after which a test that takes long has hung; of others pyproject.toml tells."""


@dataclass
class Sum:
    """What the runs came to."""

    counts: Counter[str] = field(default_factory=Counter)
    not_run: list[str] = field(default_factory=list)
    failed_runs: list[str] = field(default_factory=list)


def main(arguments: list[str]) -> int:
    soak = "--soak" in arguments
    chosen = [argument for argument in arguments if argument != "--soak"]
    total = Sum()
    with tempfile.TemporaryDirectory(prefix="entrepot-tests-") as folder:
        postgres = start_postgres(total)
        install_go(total)
        install_redis(total)
        install_ldap(total)
        install_clients(total, build=not chosen and not soak)
        try:
            common = [
                "-m",
                "soak" if soak else "not soak",
                *(chosen or ["-n", "2", "--dist", "loadscope", "--no-loadscope-reorder", "--durations=15"]),
            ]
            if soak:
                common += ["--timeout", LONGEST_SOAK]
            if postgres:
                run("PostgreSQL", common, {"ENTREPOT_TEST_POSTGRES": postgres.url}, Path(folder), total)
            if not soak and not chosen:
                run("SQLite", [*common, *ON_BOTH], {}, Path(folder), total)
            elif not postgres:
                run("SQLite", common, {}, Path(folder), total)
        finally:
            if postgres:
                postgres.stop()
    return report(total)


def start_postgres(total: Sum) -> Postgres | None:
    try:
        install(binaries, "postgresql")
        return Postgres()
    except (OSError, subprocess.SubprocessError) as error:
        total.not_run.append(f"everything on PostgreSQL: {error}")
        return None


def install_go(total: Sum) -> None:
    try:
        golang.install()
    except (OSError, subprocess.SubprocessError) as error:
        total.not_run.append(f"everything with the real go: {error}")


def install_redis(total: Sum) -> None:
    try:
        install(redis.program, "redis-server")
    except (OSError, subprocess.SubprocessError) as error:
        total.not_run.append(f"everything with Redis: {error}")


def install_ldap(total: Sum) -> None:
    """OpenLDAP, and python-ldap where `./dev` could not build it for want of headers."""
    try:
        install(slapd.program, "slapd")
        try:
            importlib.import_module("ldap")
        except ImportError:
            install(slapd.headers, "libldap2-dev", "libsasl2-dev")
            locked = ["--require-hashes", "-r", "requirements-ldap.lock"]
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *locked], check=True)
    except (OSError, subprocess.SubprocessError) as error:
        total.not_run.append(f"everything with LDAP: {error}")


def install_clients(total: Sum, *, build: bool) -> None:
    """Those of container registries. What is not built here is built by the first test that needs it."""
    for name, package in programs.PACKAGES.items():
        try:
            install(partial(programs.program, name), package)
        except (OSError, subprocess.SubprocessError) as error:
            total.not_run.append(f"everything with {name}: {error}")
    for name in programs.MODULES if build else ():
        try:
            programs.program(name)
        except (OSError, subprocess.SubprocessError) as error:
            total.not_run.append(f"everything with {name}: {error}")


def install(look: Callable[[], object], *packages: str) -> None:
    """Packages of Debian, where `look` does not find it and we may. Raises what `look` does."""
    try:
        look()
    except FileNotFoundError:
        if os.geteuid() or not shutil.which("apt-get"):
            raise
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], check=True, env=environment)


def run(name: str, arguments: list[str], environment: dict[str, str], folder: Path, total: Sum) -> None:
    """One run of pytest, its outcome added to `total`."""
    print(f"== on {name}", flush=True)
    report_file = folder / f"{name}.xml"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ENTREPOT_")}
    data = folder / name
    url = f"sqlite:///{data}/tests.sqlite3" if not environment else environment["ENTREPOT_TEST_POSTGRES"]
    settings = {"ENTREPOT_DATA": str(data), "ENTREPOT_DATABASE_URL": url, **environment}
    command = [sys.executable, "-m", "pytest", f"--junit-xml={report_file}", *arguments]
    code = subprocess.run(command, env={**clean, **settings}, check=False).returncode
    if report_file.exists():
        count(ET.parse(report_file), name, total)
    if code not in (0, NOTHING_COLLECTED):
        total.failed_runs.append(f"{name}: pytest ended with {code}")


def count(tree: ET.ElementTree, name: str, total: Sum) -> None:
    for case in tree.iter("testcase"):
        skipped = case.find("skipped")
        if skipped is not None:
            total.counts["skipped"] += 1
            reason = re.sub(r"\s+", " ", skipped.get("message", ""))
            total.not_run.append(f"{case.get('classname')}.{case.get('name')} on {name}: {reason}")
        elif case.find("failure") is not None or case.find("error") is not None:
            total.counts["failed"] += 1
        else:
            total.counts["passed"] += 1


def report(total: Sum) -> int:
    if total.not_run:
        print("\nNot run:")
        for line in total.not_run:
            print(f"  {line}")
    for line in total.failed_runs:
        print(line)
    strict = os.environ.get("CI") == "true"
    if strict and total.not_run:
        print("With CI=true nothing may be left out.")
    skipped = f", {total.counts['skipped']} skipped" if total.counts["skipped"] else ""
    print(f"{total.counts['passed']} passed, {total.counts['failed']} failed{skipped}", flush=True)
    failed = total.counts["failed"] or total.failed_runs or (strict and total.not_run) or not total.counts["passed"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
