"""Formats are found at run time, where the import contracts of the linter do not see; these tests do."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import repos.formats
from repos import format as formats
from repos.format import installed

ROOT = Path(repos.formats.__file__).parent


@pytest.mark.parametrize("key", sorted(installed()))
def test_a_format_brings_no_other_format_with_it(key):
    program = (
        "import django, sys, importlib; django.setup();"
        f"importlib.import_module('repos.formats.{key}.views');"
        "print(*sorted({name.split('.')[2] for name in sys.modules if name.startswith('repos.formats.')}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT.parent.parent, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [key]


def test_nothing_outside_a_formats_folder_names_it():
    """So that adding a format is adding a folder. Settings, tests and documents aside."""
    names = [folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").exists()]
    for file in [*ROOT.parent.rglob("*.py"), *(ROOT.parent.parent / "registry").rglob("*.py")]:
        if ROOT in file.parents or "tests" in file.parts:
            continue
        text = file.read_text()
        for name in names:
            assert f"formats.{name}" not in text and f'"{name}"' not in text, f"{file} names the format {name}"


def test_a_folder_more_is_a_format_more(tmp_path, monkeypatch):
    (tmp_path / "pebble").mkdir()
    (tmp_path / "pebble" / "__init__.py").write_text(
        "from repos.format import Format\n\n\nclass Pebble(Format):\n    key = 'pebble'\n\n\nFORMAT = Pebble()\n"
    )
    monkeypatch.setattr(repos.formats, "__path__", [*repos.formats.__path__, str(tmp_path)])
    formats.installed.cache_clear()
    try:
        assert "pebble" in installed()
        assert formats.find("pebble").mount == "pebble/"
    finally:
        monkeypatch.undo()
        sys.modules.pop("repos.formats.pebble", None)
        importlib.invalidate_caches()
        formats.installed.cache_clear()
    assert "pebble" not in installed()
