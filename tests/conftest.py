"""Fixtures for all tests under tests/: real servers, upstreams and databases."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from ssl import SSLContext

import pytest

from tests.parts.postgres import fresh_database
from tests.parts.server import Server
from tests.parts.upstream import Upstream

LONG = ("tests/clients/", "tests/faults/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first, so that the others run beside it and not before it."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers: `server(ENTREPOT_TLS="self")`. Each has a database and data of its own, but a node `beside`."""
    started: list[Server] = []

    def start(beside: Server | None = None, **environment: str) -> Server:
        if beside is not None:
            started.append(beside.node())
            return started[-1].start()
        data = tmp_path_factory.mktemp("data")
        postgres = os.environ.get("ENTREPOT_TEST_POSTGRES")
        url = fresh_database(postgres) if postgres else f"sqlite:///{data}/entrepot.sqlite3"
        one = Server(Path(data), url, environment)
        started.append(one)
        return one.start()

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Callable[..., Upstream]]:
    """Starts scripted upstreams."""
    started: list[Upstream] = []

    def start(tls: SSLContext | None = None) -> Upstream:
        started.append(Upstream(tls=tls))
        return started[-1]

    yield start
    for one in started:
        one.stop()
