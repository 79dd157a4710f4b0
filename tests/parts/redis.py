"""A private Redis on loopback, from Debian's package. It keeps nothing: what is in it is lost with it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

import redis

START_SECONDS = 30.0


class Redis:
    """One server; `kill` is SIGKILL, `start` one on the same port, empty."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [program(), *options], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                redis.Redis.from_url(self.url).ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)


def program() -> str:
    """FileNotFoundError where it is not installed."""
    found = shutil.which("redis-server")
    if found is None:
        raise FileNotFoundError("Redis is not installed: apt-get install redis-server")
    return found
