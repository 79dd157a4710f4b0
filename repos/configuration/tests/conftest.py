from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from repos.configuration.tests.parts import SECRETS


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return SECRETS


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """Writes a file and gives its name."""

    def write(content: str | bytes, name: str = "conf.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write
