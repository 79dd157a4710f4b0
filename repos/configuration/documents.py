"""Files in, one document out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from problems import Malformed

VERSION = 1
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
        _join(whole, read(_text(name), name), name)
    return whole


class _Twice(yaml.MarkedYAMLError):
    """A key stands twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently keep the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise _Twice(None, None, f"the key {key.value} stands twice", key.start_mark)
            seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError):  # as PyYAML says of 2026-13-45 or !!int x
            raise yaml.MarkedYAMLError(None, None, "the value is not of its type", node.start_mark) from None


def _text(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Malformed(f"{name} cannot be read: {error}", rule="configuration.file") from None


def read(text: str, name: str, *, json_only: bool = False) -> dict[str, Any]:
    """The sections of a text that is called `name`."""
    whole: dict[str, Any] = {}
    for document in values(text, name, json_only=json_only):
        if document is not None:
            _join(whole, _translated(document, name), name)
    return whole


def values(text: str, name: str, *, json_only: bool = False) -> list[Any]:
    """What a text says: one value, or several where YAML's `---` divides it. Raises Malformed."""
    try:
        return _json(text) if json_only else _json_or_yaml(text)
    except _Twice as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Malformed(f"{name}{where}: {error.problem}", rule="configuration.twice") from None
    except yaml.YAMLError as error:
        raise Malformed(f"{name} is neither YAML nor JSON: {_without_values(error)}", rule="configuration.file") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise Malformed(f"{name} is not JSON: {where}", rule="configuration.file") from None
    except ValueError:
        raise Malformed(f"{name} holds a number that is too long", rule="configuration.file") from None
    except RecursionError:
        raise Malformed(f"{name} is nested too deeply", rule="configuration.file") from None


def _json(text: str) -> list[Any]:
    return [json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)]


def _json_or_yaml(text: str) -> list[Any]:
    """JSON is read as such first: YAML's reader knows neither its tabs nor its pairs of escapes."""
    try:
        return [json.loads(text, object_pairs_hook=_once)]
    except ValueError:
        return list(yaml.load_all(text, Loader=_Loader))


def _no_number(word: str) -> Any:
    raise json.JSONDecodeError(f"{word} is no number of JSON", word, 0)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(None, None, f"the key {next(key for key in keys if keys.count(key) > 1)} stands twice")
    return found


def _without_values(error: yaml.YAMLError) -> str:
    """Where and what, without the text that stands there, which may be a secret."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    if isinstance(error, (yaml.composer.ComposerError, yaml.constructor.ConstructorError)):
        return f"{where}an alias, a tag or a key cannot be understood; put quotes around text that begins with * & or !"
    if isinstance(error, yaml.reader.ReaderError):
        return "it holds characters that are no text"
    return f"{where}{getattr(error, 'problem', None) or 'it cannot be understood'}; texts with special characters need quotes"


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
    if unknown := sorted(str(key) for key in item.keys() - set(ARTIFACTORY_KEYS)):
        raise Malformed(
            f"{', '.join(unknown)} of Artifactory's form is not taken over; remove it, or write the repository in our own form",
            rule="configuration.key",
        )
    ours = {
        "key": item.get("repoKey") or item.get("key"),
        "format": str(item.get("packageType", "generic")).lower(),
        "kind": str(item.get("type") or item.get("rclass") or "local").lower(),
        **{ours: item[theirs] for theirs, ours in ARTIFACTORY_WORDS.items() if item.get(theirs)},
    }
    upstream = {word: item[word] for word in ARTIFACTORY_UPSTREAM if item.get(word)}
    return {**ours, "upstreams": [upstream]} if upstream else ours


def _join(whole: dict[str, Any], document: dict[str, Any], name: str) -> None:
    for section, value in document.items():
        before = whole.setdefault(section, [] if isinstance(value, list) else {})
        if isinstance(before, list) and isinstance(value, list):
            before.extend(value)
        elif isinstance(before, dict) and isinstance(value, dict):
            if both := before.keys() & value.keys():
                raise Malformed(
                    f"{name}: {section}.{min(map(str, both))} is said in another file too", rule="configuration.twice"
                )
            before.update(value)
        else:
            raise Malformed(f"{name}: {section} is neither a list nor keys with values", rule="configuration.file")
