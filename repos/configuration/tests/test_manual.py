"""docs/configuration.md says what is so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from accounts.permissions import BUILTIN_ROLES, PERMISSIONS
from repos.configuration import documents, engine
from repos.configuration.repositories import CacheItem, UpstreamItem

MANUAL = (Path(__file__).resolve().parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", MANUAL, re.DOTALL)


def block(kind: str, beginning: str = "") -> str:
    return next(text for found, text in BLOCKS if found == kind and text.startswith(beginning))


@pytest.mark.django_db
def test_the_example_is_taken_and_prints_what_is_shown(file: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MIRROR_PASSWORD", "ALICE_PASSWORD"):
        monkeypatch.setenv(name, "x")
    example = engine.load([file(block("yaml"))])
    shown = [line for line in block("console", "$ export").splitlines() if line[0] in "+~-"]
    assert engine.apply(example) == shown
    assert engine.apply(example, prune=True) == []
    shorter = engine.load([file(block("yaml").replace("90d", "60d").partition("- role: reader")[0])])
    shown = [line for line in block("console", "$ ./dev manage diff").splitlines() if line[0] in "+~-"]
    assert engine.diff(shorter, prune=True) == shown


@pytest.mark.django_db
def test_artifactorys_example_is_taken(file: Callable[..., str]) -> None:
    assert engine.apply(engine.load([file(block("json"))])) == ["+ repositories x-local"]


def test_every_word_is_in_a_table() -> None:
    items = [*(section.item for section in engine.SECTIONS), UpstreamItem, CacheItem]
    words = {word for item in items for word in item().fields} | {section.name for section in engine.SECTIONS}
    words |= set(PERMISSIONS) | set(BUILTIN_ROLES)
    assert not [word for word in sorted(words) if f"\n| `{word}` |" not in MANUAL]
    artifactory = MANUAL.partition("## Artifactory's form")[2].partition("## Errors")[0]
    assert not [word for word in documents.ARTIFACTORY_KEYS if f"`{word}`" not in artifactory]


def test_every_rule_is_in_the_table_of_errors() -> None:
    sources = Path(engine.__file__).parent.glob("*.py")
    rules = {rule for source in sources for rule in re.findall(r'rule="([^"]+)"', source.read_text(encoding="utf-8"))}
    errors = MANUAL.partition("## Errors")[2]
    assert not [rule for rule in sorted(rules) if f"`{rule}`" not in errors]


def test_blocks_of_json_are_json() -> None:
    for kind, text in BLOCKS:
        if kind == "json":
            json.loads(text)
