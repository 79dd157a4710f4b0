"""What files may hold, and that whatever else they hold is refused in one line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from problems import Malformed
from repos.configuration import engine
from repos.configuration.tests.parts import document, everything, local, remote, virtual, whole
from repos.models import Repository

pytestmark = pytest.mark.django_db

File = Callable[..., str]


def refusal(*files: str) -> str:
    """The one line that refuses the files."""
    before = everything()
    with pytest.raises(Malformed) as problem:
        engine.apply(engine.load(files))
    assert everything() == before
    assert "\n" not in problem.value.reason
    return problem.value.reason


def test_yaml_and_json_are_read_alike(file: File) -> None:
    spaced = json.dumps(whole(), indent="\t", ensure_ascii=True)
    assert engine.load([file(spaced)]) == engine.load([file(yaml.safe_dump(whole()))]) == whole()
    assert (
        engine.load([file(json.dumps({"repositories": [local("a", description="😀")]}))])["repositories"][0]["description"]
        == "😀"
    )


def test_a_file_has_utf8_and_may_have_a_mark(file: File) -> None:
    text = "\ufeffrepositories:\n- {key: a, format: raw, kind: local, description: né}\n"
    assert engine.load([file(text.encode())])["repositories"][0]["description"] == "né"


@pytest.mark.parametrize("text", ["", "\n", "---\n", "# nothing\n", "null", "{}", "version: 1"])
def test_a_file_without_sections_changes_nothing(file: File, text: str) -> None:
    assert engine.apply(engine.load([file(text)]), prune=True) == []


def test_files_and_documents_are_joined(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("users: [{name: ann}]\n---\nusers: [{name: bob}]\n"))
    one = file("repositories: [{key: a, format: raw, kind: local}]\n", "one.yaml")
    two = file(json.dumps(document(repositories=[local("b")], users=[{"name": "eve"}])), "two.json")
    lines = engine.apply(engine.load([one, "-", two]))
    assert lines == ["+ users ann", "+ users bob", "+ users eve", "+ repositories a", "+ repositories b"]


def test_what_two_files_say_of_one_thing_is_refused(file: File) -> None:
    one, two = file("history: {keep: 1d}", "one.yaml"), file("history: {keep: 2d}", "two.yaml")
    assert "history.keep is said in another file too" in refusal(one, two)
    one, two = (file("users: [{name: ann}]", name) for name in ("one.yaml", "two.yaml"))
    assert "users: ann is named twice" in refusal(one, two)
    one, two = file("history: {keep: 1d}", "one.yaml"), file("history: [1]", "two.yaml")
    assert "two.yaml: history" in refusal(one, two)


UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "section": ({"repositores": []}, "repositores: unknown section; did you mean repositories?"),
    "section unlike any": (
        {"zzz": []},
        "zzz: unknown section; this version takes roles, directories, providers, groups, users, repositories",
    ),
    "of an item": ({"users": [{"name": "ann", "e-mail": "x"}]}, "users[0] ann: e-mail: unknown key; did you mean email?"),
    "unlike any": ({"groups": [{"name": "g", "zzz": 1}]}, "groups[0] g: zzz: unknown key; known are name, external"),
    "of an upstream": (
        {"repositories": [local("a"), remote("r", upstream={"user": "x"})]},
        "repositories[1] r: upstreams[0].user: unknown key; did you mean username?",
    ),
    "of the cache": (
        {"repositories": [remote("r", cache={"livetime": "1d"})]},
        "repositories[0] r: cache.livetime: unknown key; did you mean lifetime?",
    ),
    "of history": ({"history": {"kept": "1d"}}, "history: kept: unknown key; did you mean keep?"),
    "of a grant": ({"grants": [{"role": "reader", "user": ["x"]}]}, "grants[0] reader: user: unknown key; did you mean users?"),
    "of a role": ({"roles": [{"name": "x", "permission": []}]}, "roles[0] x: permission: unknown key; did you mean permissions?"),
    "of a second item": ({"users": [{"name": "a"}, {"name": "b", "x": 1}]}, "users[1] b: x: unknown key; known are name"),
}


@pytest.mark.parametrize(("sections", "said"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_unknown_is_named_with_a_hint(file: File, sections: dict[str, Any], said: str) -> None:
    assert said in refusal(file(yaml.safe_dump(sections)))


@pytest.mark.parametrize("port", ["5001", "'5001'", '"443"'])
def test_a_host_that_is_a_number_is_told_to_be_written_as_a_port(file: File, port: str) -> None:
    engine.apply({"repositories": [local("a")]})
    number = port.strip("'\"")
    assert f"hosts: {number}: no host; write :{number} for a port alone" in refusal(file(f"hosts: {{{port}: a}}"))
    hosts = {f":{number}": "a", f"x1.example:{number}": "a", "127.0.0.1": "a", "5001a": "a"}
    engine.apply(engine.load([file(yaml.safe_dump({"hosts": hosts}))]))
    assert engine.export()["hosts"] == hosts


@pytest.mark.parametrize(
    "text",
    [
        "users: []\nusers: []\n",
        "users: [{name: ann, name: bob}]",
        '{"users": [], "users": []}',
        '{"users": [{"name": "ann", "name": "bob"}]}',
        "repositories: [{key: a, format: raw, kind: remote, upstreams: [{url: x, url: y}]}]",
        '"users": []\n? users\n: []\n',
    ],
)
def test_a_key_that_stands_twice_is_refused(file: File, text: str) -> None:
    assert "stands twice" in refusal(file(text))


def test_yaml_may_merge_what_is_written_once(file: File) -> None:
    text = """
    repositories:
    - &local {key: a, format: raw, kind: local, description: d}
    - {<<: *local, key: b}
    - &changed {<<: *local, key: c, description: e}
    - {<<: *changed, key: d}
    """
    engine.apply(engine.load([file(text)]))
    found = {row.key: row.settings["description"] for row in Repository.objects.all()}
    assert found == {"a": "d", "b": "d", "c": "e", "d": "e"}


ARTIFACTORY = {"repoKey": "x-local", "packageType": "generic", "type": "local"}


def test_artifactorys_form_is_taken(file: File) -> None:
    one = file(json.dumps(ARTIFACTORY))
    assert engine.apply(engine.load([one])) == ["+ repositories x-local"]
    assert engine.apply(engine.load([one])) == []
    assert engine.export()["repositories"] == [local("x-local")]


def test_a_list_of_artifactorys_form_is_taken(file: File) -> None:
    many = [
        ARTIFACTORY,
        {"key": "x-remote", "packageType": "Generic", "rclass": "remote", "url": "https://mirror.example.org/", "offline": True,
         "username": "u", "password": "hunter2"},
        {"repoKey": "x", "packageType": "GENERIC", "type": "VIRTUAL", "repositories": ["x-local", "x-remote"],
         "defaultDeploymentRepo": "x-local", "description": "all"},
    ]  # fmt: skip
    engine.apply(engine.load([file(json.dumps(many)), file("users: [{name: ann}]", "more.yaml")]))
    secret = {"env": "ENTREPOT_SECRET_X_REMOTE_PASSWORD"}
    assert engine.export()["repositories"] == [
        virtual("x", "x-local", "x-remote", deploy_to="x-local", description="all"),
        local("x-local"),
        remote("x-remote", upstream={"username": "u", "password": secret}, offline=True),
    ]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({**ARTIFACTORY, "xrayIndex": True, "notes": "n"}, "notes, xrayIndex of Artifactory's form is not taken over"),
        ({**ARTIFACTORY, "type": "federated"}, "federated"),
        ({**ARTIFACTORY, "packageType": "cobol"}, "there is no format cobol; there are go, oci, raw"),
        ({**ARTIFACTORY, "packageType": None}, "there is no format none"),
        ({**ARTIFACTORY, "repoKey": None}, "key: This field may not be null"),
        ({**ARTIFACTORY, "repoKey": ["x"]}, "key: text is expected"),
        ({**ARTIFACTORY, "type": ["x"]}, "kind"),
        ({**ARTIFACTORY, "url": "https://mirror.example.org"}, "only a remote repository has this"),
    ],
)
def test_what_of_artifactorys_form_cannot_be_taken(file: File, item: dict[str, Any], said: str) -> None:
    assert said in refusal(file(json.dumps([ARTIFACTORY | {"repoKey": "other"}, item])))


GARBAGE = [
    "{",
    "]",
    "a: b: c",
    "\t- x",
    "- {",
    "'",
    '"\\q"',
    "%TAG",
    "@x",
    "`x`",
    "*x",
    "users: *x",
    "users: !thing []",
    "users: !!python/object:os.system []",
    "users: !!int x",
    "users: !!bool x",
    "users: !!float x",
    "users: !!timestamp x",
    "users: !!binary 'é'",
    "users: [{name: 2026-13-45}]",
    "users: 2026-01-01",
    "users: 2026-01-01 10:00:00",
    "users: 1",
    "users: 1.5",
    "users: true",
    "users:",
    "users: text",
    "users: !!binary aGVsbG8=",
    "users: !!set {a, b}",
    "users: !!omap [a: b]",
    "users: {}",
    "users: {name: ann}",
    "users: [1]",
    "users: [null]",
    "users: [[]]",
    "users: [text]",
    "users: [{}]",
    "users: [{name: }]",
    "users: [{name: 1}]",
    "users: [{name: []}]",
    "users: [{name: {}}]",
    "users: [{name: ''}]",
    "users: [{name: 'a b'}]",
    'users: [{name: "a\\0"}]',
    'users: [{name: "\\ud800"}]',
    "users: [{name: true}]",
    "users: [{name: ann, robot: 1}]",
    "users: [{name: ann, robot: 'yes'}]",
    "users: [{name: ann, robot: null}]",
    "users: [{name: ann, inactive: []}]",
    "users: [{name: ann, groups: team}]",
    "users: [{name: ann, groups: [1]}]",
    "users: [{name: ann, groups: [null]}]",
    "users: [{name: ann, groups: {a: b}}]",
    "users: [{name: ann, groups: [[a]]}]",
    "users: [{name: ann, email: 1}]",
    "users: [{name: ann, password: 1}]",
    "users: [{name: ann, password: null}]",
    "users: [{name: ann, password: ''}]",
    "users: [{name: ann, password: []}]",
    "users: [{name: ann, password: {}}]",
    "users: [{name: ann, password: {env: }}]",
    "users: [{name: ann, password: {env: true}}]",
    "users: [{name: ann, password: {env: 1}}]",
    "users: [{name: ann, password: {env: 'a b'}}]",
    "users: [{name: ann, password: {env: [A]}}]",
    "users: [{name: ann, password: {env: PATH, more: 1}}]",
    'users: [{name: ann, password: "\\ud800"}]',
    "users: [{name: ann, 1: 2}]",
    "users: [{name: ann, null: 2}]",
    "users: [{name: ann, [1]: 2}]",
    "users: [{name: ann, {a: b}: 2}]",
    "users: &a [*a]",
    "users: &a [{name: *a}]",
    "? [a, b]\n: c",
    "? {a: b}\n: c",
    "1: []",
    "null: []",
    "true: []",
    "1.5: []",
    "2026-01-01: []",
    "[]: []",
    "text",
    "5",
    "true",
    "[]",
    "[1, 2]",
    "[{}]",
    "[{repoKey: x}, {name: y}]",
    "{repoKey: x, packageType: generic, 1: 2}",
    "{repoKey: 1, packageType: generic}",
    "{repoKey: x, packageType: [generic]}",
    "2026-01-01",
    "version: 2",
    "version: '1'",
    "version: null",
    "version: [1]",
    "version: {a: b}",
    "history: []",
    "history: 1",
    "history: 30d",
    "history: {keep: 30}",
    "history: {keep: 30 days}",
    "history: {keep: -1d}",
    "history: {keep: }",
    "history: {keep: [30d]}",
    "history: {keep: 99999999999d}",
    "history: {keep: 36501d}",
    f"history: {{keep: {'9' * 5000}d}}",
    f"history: {{keep: {'9' * 5000}}}",
    "roles: [{name: r, permissions: artifact:read}]",
    "roles: [{name: r, permissions: [1]}]",
    "roles: [{name: r, permissions: [{artifact: read}]}]",
    "roles: [{name: r, permissions: null}]",
    f"roles: [{{name: {'r' * 91}}}]",
    f"groups: [{{name: {'r' * 151}}}]",
    f"users: [{{name: {'r' * 151}}}]",
    "groups: [{name: g, external: 1}]",
    "grants: [{role: reader}]",
    "grants: [{users: [x]}]",
    "grants: [{role: [reader], anonymous: true}]",
    "grants: [{role: reader, anonymous: 'true'}]",
    "grants: [{role: reader, anonymous: true, repositories: go}]",
    "grants: [{role: reader, anonymous: true, repositories: [1]}]",
    "grants: [{role: reader, anonymous: true, repositories: [[go]]}]",
    "grants: [{role: reader, anonymous: true, repositories: null}]",
    "repositories: [{key: a}]",
    "repositories: [{key: a, format: raw}]",
    "repositories: [{key: a, format: raw, kind: locl}]",
    "repositories: [{key: a, format: raw, kind: [local]}]",
    "repositories: [{key: a, format: raw, kind: null}]",
    "repositories: [{key: a, format: [raw], kind: local}]",
    "repositories: [{key: a, format: 1, kind: local}]",
    "repositories: [{key: A, format: raw, kind: local}]",
    "repositories: [{key: 007, format: raw, kind: local}]",
    "repositories: [{key: a/b, format: raw, kind: local}]",
    "repositories: [{key: -a, format: raw, kind: local}]",
    f"repositories: [{{key: {'a' * 101}, format: raw, kind: local}}]",
    "repositories: [{key: a, format: raw, kind: local, description: 1}]",
    "repositories: [{key: a, format: raw, kind: local, description: null}]",
    "repositories: [{key: a, format: raw, kind: local, immutable: x}]",
    "repositories: [{key: a, format: raw, kind: local}, {key: a, format: raw, kind: local}]",
    "repositories: [{key: a, format: raw, kind: virtual, members: b}]",
    "repositories: [{key: a, format: raw, kind: virtual, members: [[b]]}]",
    "repositories: [{key: a, format: raw, kind: virtual, members: [1]}]",
    "repositories: [{key: a, format: raw, kind: virtual, members: {b: c}}]",
    "repositories: [{key: a, format: raw, kind: remote, upstreams: {}}]",
    "repositories: [{key: a, format: raw, kind: remote, upstreams: {url: 'https://mirror.example.org'}}]",
    "repositories: [{key: a, format: raw, kind: remote, upstreams: ['https://mirror.example.org']}]",
    "repositories: [{key: a, format: raw, kind: remote, upstreams: [null]}]",
    "repositories: [{key: a, format: raw, kind: remote, upstreams: null}]",
    "repositories: [{key: a, format: raw, kind: remote, upstreams: [{}]}]",
    "repositories: [{key: a, format: raw, kind: remote, upstreams: [{url: 1}]}]",
    "repositories: &a [{key: a, format: raw, kind: remote, upstreams: *a}]",
    "repositories: [{key: a, format: raw, kind: remote, upstreams: [{url: 'https://mirror.example.org'}], cache: []}]",
    "repositories: [{key: a, format: raw, kind: remote, upstreams: [{url: 'https://mirror.example.org'}], cache: null}]",
    "repositories: [{key: a, format: raw, kind: remote, upstreams: [{url: 'https://mirror.example.org'}], cache: {missing: 1}}]",
    "repositories: [{key: a, format: raw, kind: remote, upstreams: [{url: 'https://mirror.example.org'}], offline: 1}]",
    "[" * 5000,
    '{"a":' * 100_000,
    "- " * 5000,
    "a: \x00",
    "a: \x07",
]


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: text[:60])
def test_garbage_is_refused_in_one_line(file: File, text: str) -> None:
    assert len(refusal(file(text))) < 1500


@pytest.mark.parametrize("content", [b"\xff\xfe", b"users: [\xe9]", b"\x1f\x8b\x08\x00"])
def test_bytes_that_are_no_text_are_refused(file: File, content: bytes) -> None:
    name = file(content)
    assert f"{name} cannot be read" in refusal(name)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name in (str(tmp_path / "nowhere.yaml"), str(tmp_path)):
        assert f"{name} cannot be read" in refusal(name)


@pytest.mark.parametrize(
    "url",
    ["mirror.example.org", "ftp://mirror.example.org", "https://", "http://[x", "https://mirror.example.org:99999", "https://h:0",
     "https://h:x", "https://a b/", "https://h/\n", " https://h", "https://ann:hunter2@h", "https://hunter2@h", "https://@h",
     "https://h?hunter2", "https://h#hunter2", "https://ann:hunter2@h\u2100", "https://ann:hunter2@[h"],
)  # fmt: skip
def test_addresses_that_cannot_be_asked(url: str) -> None:
    with pytest.raises(Malformed) as problem:
        engine.apply(document(repositories=[remote("r", upstream={"url": url})]))
    assert "repositories[0] r: upstreams[0].url:" in problem.value.reason
    assert "hunter2" not in problem.value.reason


@pytest.mark.parametrize("timeout", ["0s", "0d", "1", "1.5s"])
def test_timeouts_that_cannot_be(timeout: str) -> None:
    with pytest.raises(Malformed, match="timeout"):
        engine.apply(document(repositories=[remote("r", upstream={"timeout": timeout})]))


@pytest.mark.parametrize(
    ("form", "upstream", "said"),
    [
        ("raw", {"vcs": "git"}, "upstreams[0].vcs: an upstream of raw cannot be version control"),
        ("go", {"vcs": "cvs"}, "upstreams[0].vcs: an upstream of go can be git"),
        ("go", {"vcs": "git", "folder": "sumdb/sum.example"}, "upstreams[0]: version control stands for no folder"),
        ("go", {"folder": "../x"}, "upstreams[0].folder:"),
        ("go", {"folder": "a//b"}, "upstreams[0].folder:"),
        ("go", {"match": ["[" * 2000]}, "upstreams[0].match"),
    ],
)
def test_upstreams_that_cannot_be(form: str, upstream: dict[str, Any], said: str) -> None:
    with pytest.raises(Malformed) as problem:
        engine.apply(document(repositories=[remote("r", form, upstream=upstream)]))
    assert said in problem.value.reason


def test_what_an_upstream_is_for_is_exported_as_it_was_given() -> None:
    upstream = {"vcs": "git", "match": ["git.corp.example", "git.corp.example/**"], "timeout": "20s"}
    given = remote("r", "go", upstream=upstream)
    second = remote("s", "go", upstream={"folder": "sumdb/sum.corp.example/"})
    engine.apply(document(repositories=[given, second]))
    exported = {item["key"]: item["upstreams"][0] for item in engine.export()["repositories"]}
    assert exported["r"] == given["upstreams"][0]
    assert exported["s"]["folder"] == "sumdb/sum.corp.example"


def outcome(path: Path) -> str:
    """What is said against a file; nothing if it is taken. Whatever is no Malformed is raised."""
    try:
        engine.diff(engine.load([str(path)]), prune=True)
    except Malformed as problem:
        return problem.reason
    return ""


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates())
WORDS = st.sampled_from(
    ["name", "key", "format", "kind", "upstreams", "url", "password", "env", "users", "groups", "role", "roles", "grants",
     "permissions", "repositories", "history", "keep", "cache", "members", "paths", "anonymous", "version", "repoKey"]
)  # fmt: skip
VALUES = SCALARS | st.sampled_from(["raw", "local", "remote", "virtual", "reader", "30d", "x", True])
TREES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | VALUES.filter(lambda v: v == v), inner, max_size=4),
)


SECTION = st.dictionaries(WORDS | VALUES.filter(lambda v: v == v), SCALARS, max_size=3)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.fixed_dictionaries({"history": SECTION}), min_size=2, max_size=3))
@example([{"history": {1: "a", "x": "b"}}] * 2)
def test_no_documents_in_one_file_end_in_a_traceback(tmp_path: Path, trees: list[dict]) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump_all(trees), encoding="utf-8")
    assert "\n" not in outcome(path)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(WORDS, st.lists(st.dictionaries(WORDS, TREES, max_size=5), max_size=2) | TREES, max_size=3))
def test_no_document_ends_in_a_traceback(tmp_path: Path, tree: dict) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert "\n" not in outcome(path)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(st.sampled_from("ab:[]{}&*!|>-?,#%@`'\"\\ \n\t01.<=~"), max_size=40) | st.binary(max_size=20))
def test_no_text_ends_in_a_traceback(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    assert "\n" not in outcome(path)
