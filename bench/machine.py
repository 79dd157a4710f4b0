"""What was measured on, so that a report can be pasted and understood."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from tests.parts import golang


def facts() -> dict[str, str]:
    """The machine and the programs on it, by name."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cores": str(os.cpu_count()),
        "processor": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()),
        "memory": f"{int(_first(r'MemTotal: +([0-9]+)', Path('/proc/meminfo').read_text())) / 2**20:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "Go": _said(golang.program(), "env", "GOVERSION"),
        "wrk": _first(r"wrk (\S+)", _said("wrk", "--version")),
    }


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout + done.stderr).strip()


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else "?"
