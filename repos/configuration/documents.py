"""Files in, one document out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from problems import Malformed

VERSION = 1
ARTIFACTORY_KINDS = {"local": "local", "remote": "remote", "virtual": "virtual"}
ARTIFACTORY_WORDS = {
    "description": "description",
    "repositories": "members",
    "defaultDeploymentRepo": "deploy_to",
    "offline": "offline",
}
ARTIFACTORY_UPSTREAM = ("url", "username", "password")
ARTIFACTORY_KEYS = ("repoKey", "key", "packageType", "type", "rclass", *ARTIFACTORY_WORDS, *ARTIFACTORY_UPSTREAM)


def load(files: Iterable[str]) -> dict[str, Any]:
    """One document from several files, YAML or JSON; `-` is the standard input. Lists of one section are joined.

    Raises Malformed, with the file's name, for what cannot be read or is no document.
    """
    whole: dict[str, Any] = {"version": VERSION}
    for name in files:
        for document in _documents(name):
            _join(whole, document, name)
    return whole


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _documents(name: str) -> list[dict[str, Any]]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
        found = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed(f"{name} cannot be read: {error}", rule="configuration.file") from None
    except yaml.YAMLError as error:
        raise Malformed(f"{name} is neither YAML nor JSON: {error}", rule="configuration.file") from None
    return [_translated(document, name) for document in found]


def _translated(document: Any, name: str) -> dict[str, Any]:
    """The document in our own form; also Artifactory's description of a repository, or a list of them."""
    items = document if isinstance(document, list) else [document]
    if items and all(isinstance(item, dict) and ("repoKey" in item or "packageType" in item) for item in items):
        return {"repositories": [_from_artifactory(item) for item in items]}
    if not isinstance(document, dict):
        raise Malformed(f"{name} holds no sections such as `repositories:`", rule="configuration.file")
    if document.get("version", VERSION) != VERSION:
        raise Malformed(f"{name} has version {document['version']!r}; this server takes {VERSION}", rule="configuration.version")
    return {key: value for key, value in document.items() if key != "version"}


def _from_artifactory(item: dict[str, Any]) -> dict[str, Any]:
    """`{"repoKey": "docker-local", "packageType": "docker", "type": "local"}` and what commonly stands beside."""
    if unknown := sorted(item.keys() - set(ARTIFACTORY_KEYS)):
        raise Malformed(
            f"{', '.join(unknown)} of Artifactory's form is not taken over; remove it, or write the repository in our own form",
            rule="configuration.key",
        )
    kind = str(item.get("type") or item.get("rclass") or "local").lower()
    ours = {
        "key": item.get("repoKey") or item.get("key"),
        "format": str(item.get("packageType", "generic")).lower(),
        "kind": ARTIFACTORY_KINDS.get(kind, kind),
        **{ours: item[theirs] for theirs, ours in ARTIFACTORY_WORDS.items() if item.get(theirs)},
    }
    upstream = {word: item[word] for word in ARTIFACTORY_UPSTREAM if item.get(word)}
    return {**ours, "upstreams": [upstream]} if upstream else ours


def _join(whole: dict[str, Any], document: dict[str, Any], name: str) -> None:
    for section, value in document.items():
        before = whole.setdefault(section, type(value)())
        if isinstance(before, list) and isinstance(value, list):
            before.extend(value)
        elif isinstance(before, dict) and isinstance(value, dict):
            if both := sorted(before.keys() & value.keys()):
                raise Malformed(f"{name}: {section}.{both[0]} is said in another file too", rule="configuration.twice")
            before.update(value)
        else:
            raise Malformed(f"{name}: {section} is neither a list nor keys with values", rule="configuration.file")
