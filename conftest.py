"""For all tests: their own database can be emptied after each, unlike a server's: see tests/flows/test_audit.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from accounts import appendonly, audit


@pytest.fixture(scope="session", autouse=True)
def _the_audit_can_be_emptied() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appendonly, "ensure", lambda: None)
        patch.setattr(audit, "_write_soon", lambda: None)  # its thread would outlive a test's database
        yield
