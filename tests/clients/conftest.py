"""For tests with the packages of real registries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.parts import golang
from tests.parts.relay import Relay


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    """Stands before the module proxy that this machine is configured with."""
    relay = Relay(golang.upstream())
    yield relay
    relay.stop()
