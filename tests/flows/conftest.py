"""For flows in the test's own process, a store beside the test's database; for those of a server, what it may not keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from repos import catalogue, models, usage
from repos.blobs import Store
from repos.blobs.stores import store
from repos.catalogue import Repo
from repos.configuration import engine
from tests.parts.registryclient import parts
from tests.parts.server import Server


@pytest.fixture
def own_store(settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(usage, "write_soon", lambda: None)  # its thread would outlive the test's database
    settings.ENTREPOT = replace(settings.ENTREPOT, storage=f"file://{tmp_path}/blobs")
    catalogue.forget()
    yield store()
    catalogue.forget()


@pytest.fixture
def repository(own_store):
    """Makes repositories: `repository("go")`, or of another kind with what it needs."""

    def repository(format: str, key: str = "here", kind: str = "local", **options) -> Repo:
        engine.apply({"repositories": [{"key": key, "format": format, "kind": kind, **options}]})
        return catalogue.load_one(models.Repository.objects.get(key=key))

    return repository


@pytest.fixture
def nothing_stored(world: Server) -> Iterator[None]:
    """The promise that a test adds no change, no asset, no blob's row, no object and no part to its module's server `world`."""

    def stored() -> tuple:
        return world.counts(), world.query("SELECT count(*) FROM repos_blob"), parts(world)

    before = stored()
    yield
    assert stored() == before
