"""For all tests: their own database can be emptied, unlike those of servers, where tests/flows/test_audit.py proves that it cannot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from accounts import appendonly


@pytest.fixture(scope="session", autouse=True)
def _the_audit_can_be_emptied() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appendonly, "ensure", lambda: None)
        yield
