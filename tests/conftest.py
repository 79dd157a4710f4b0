"""Fixtures for all tests under tests/: real servers, upstreams and databases."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
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


RUNNING: list[Server] = []
"""The servers of the module whose tests run."""
HUNG = "from pytest-timeout"
"""What is said of a test that came to no end; a deadline of the test's own says something else, and the module goes on."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test that fails shows what the servers wrote last; one that hung, what they were at too."""
    report = yield
    if report.failed:
        for one in RUNNING:
            if call.excinfo and HUNG in str(call.excinfo.value):
                one.stacks()
            report.sections.append((f"log of {one.url}", one.log()[-20_000:]))
    return report


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers: `server(ENTREPOT_TLS="self")`. Each has a database and data of its own, but a node `beside`.

    `prefix`: a command that starts the server's. `sqlite`: on SQLite, whatever the others use. `connections`: to PostgreSQL at
    most, of each process.
    """

    def start(
        beside: Server | None = None,
        prefix: Sequence[str] = (),
        *,
        sqlite: bool = False,
        connections: int | None = None,
        **environment: str,
    ) -> Server:
        if beside is not None:
            RUNNING.append(beside.node())
            return RUNNING[-1].start()
        data = tmp_path_factory.mktemp("data")
        postgres = None if sqlite else os.environ.get("ENTREPOT_TEST_POSTGRES")
        url = fresh_database(postgres) if postgres else f"sqlite:///{data}/entrepot.sqlite3"
        if postgres and connections:
            environment["ENTREPOT_DATABASE_URL"] = f"{url}?pool={connections}"
        one = Server(Path(data), url, environment, prefix=prefix)
        RUNNING.append(one)
        return one.start()

    yield start
    for one in RUNNING:
        one.stop()
    RUNNING.clear()


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
