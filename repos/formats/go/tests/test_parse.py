"""Go's names, protocol paths, .info, go.mod and module zips."""

from __future__ import annotations

import io
import itertools
import random
import re
import stat
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone
from functools import cmp_to_key

import pytest
from hypothesis import given
from hypothesis import strategies as st

from problems import Malformed, NotFound, Problem, TooLarge
from repos.formats.go import parse
from tests.gomodules import make_archive, make_zip

MODULE = "example.com/some/module"
VERSION = "v1.2.3"
PREFIX = f"{MODULE}@{VERSION}/"
GO_MOD = f"module {MODULE}\n".encode()


def refusal(call: Callable[[], object], kind: type[Problem]) -> str:
    """The rule by which it is refused, with exactly this kind of problem."""
    with pytest.raises(Problem) as caught:
        call()
    assert type(caught.value) is kind, caught.value.reason
    assert caught.value.rule or kind is NotFound
    return caught.value.rule


# Module paths


@pytest.mark.parametrize(
    "path",
    [
        "example.com",
        "golang.org/x/mod",
        "github.com/BurntSushi/toml",
        "github.com/a/b/v2",
        "github.com/a/b/v10",
        "github.com/a/v",
        "github.com/a/v2x",
        "github.com/a/b/v2/c",
        "github.com/a/bv1",
        "example.com/a/2.0",
        "example.com/-a/_b/~c",
        "example.com/a~1b/b~",
        "example.com/a.b.c/d-e_f",
        "example.com/console/com10/lpt0",
        "1-2.example/x",
        "gopkg.in/yaml.v2",
        "gopkg.in/check.v1",
        "gopkg.in/user/pkg.v0",
        "gopkg.in/yaml.v3-unstable",
        "gopkg.in/yaml.v12",
        "k8s.io/api",
    ],
)
def test_a_module_path_of_go_is_accepted(path: str):
    parse.check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "example",
        "example/x.y",
        "Example.com/x",
        "-example.com/x",
        "exa_mple.com/x",
        "exa~mple.com/x",
        ".example.com/x",
        "example.com./x",
        "/example.com/x",
        "example.com/x/",
        "example.com//x",
        "example.com/./x",
        "example.com/../x",
        "example.com/.../x",
        "example.com/.git/x",
        "example.com/x.",
        "example.com/a b",
        "example.com/a+b",
        "example.com/a@b",
        "example.com/a!b",
        "example.com/a:b",
        "example.com/a\\b",
        "example.com/a%20b",
        "example.com/é",
        "example.com/\u212a",
        "example.com/x\n",
        "example.com/x\x00",
        "example.com/con",
        "example.com/NUL.txt",
        "example.com/Com1.a.b",
        "lpt9.example.com/x",
        "example.com/foo~1",
        "example.com/foo~12.txt",
        "example.com/x/v0",
        "example.com/x/v1",
        "example.com/x/v02",
        "example.com/x/v2.0",
        "example.com/x/v1.2.3",
        "gopkg.in/yaml",
        "gopkg.in/yaml.v",
        "gopkg.in/yaml.v02",
        "gopkg.in/yaml.v0-unstable",
        "gopkg.in/yaml/v2",
        "gopkg.in/yaml.v2-stable",
        "gopkg.in/.v2",
    ],
)
def test_what_is_no_module_path_is_refused(path: str):
    assert refusal(lambda: parse.check_path(path), Malformed) == "module.path"


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("example.com/x", ("example.com/x", "")),
        ("example.com/x/v2", ("example.com/x", "/v2")),
        ("example.com/x/v1", None),
        ("gopkg.in/yaml.v2", ("gopkg.in/yaml", ".v2")),
        ("gopkg.in/yaml.v2-unstable", ("gopkg.in/yaml", ".v2-unstable")),
        ("gopkg.in/yaml", None),
    ],
)
def test_a_major_version_suffix_is_told_from_the_path(path: str, split: tuple[str, str] | None):
    assert parse.split_major(path) == split


# Escaping


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [
        ("github.com/Azure/azure-sdk-for-go", "github.com/!azure/azure-sdk-for-go"),
        ("github.com/GoogleCloudPlatform/X", "github.com/!google!cloud!platform/!x"),
        ("v1.0.0-RC1", "v1.0.0-!r!c1"),
        ("example.com/x", "example.com/x"),
    ],
)
def test_upper_case_letters_are_escaped_as_go_does(plain: str, escaped: str):
    assert parse.escape(plain) == escaped
    assert parse.unescape(escaped) == plain


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="!")))
def test_unescaping_gives_back_what_was_escaped(text: str):
    escaped = parse.escape(text)
    assert escaped == escaped.lower()
    assert parse.unescape(escaped) == text


@given(st.text(st.sampled_from("aZ!1/.-é"), max_size=8))
def test_what_unescapes_has_one_escaped_form_only(text: str):
    try:
        plain = parse.unescape(text)
    except Malformed:
        return
    assert parse.escape(plain) == text


@pytest.mark.parametrize("text", ["A", "github.com/Azure/x", "!", "a!", "!A", "!!a", "!1", "!/a", "a! b", "é", "!é", "\u212a"])
def test_a_malformed_escape_is_refused(text: str):
    assert refusal(lambda: parse.unescape(text), Malformed) == "module.escape"


# Versions


@pytest.mark.parametrize(
    "version",
    [
        "v0.0.0",
        "v1.2.3",
        "v10.20.30",
        "v1.0.0-alpha",
        "v1.0.0-alpha.1",
        "v1.0.0-0a.b-c",
        "v1.0.0--",
        "v2.0.0+incompatible",
        "v2.0.0-rc.1+incompatible",
        "v0.0.0-20191109021931-daa7c04131f5",
        "v0.0.1-go1.21.0.linux-amd64",
    ],
)
def test_a_full_semantic_version_is_canonical(version: str):
    assert parse.is_canonical_version(version)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "v",
        "v1",
        "v1.2",
        "1.2.3",
        "V1.2.3",
        "v1.2.3.4",
        "v01.2.3",
        "v1.02.3",
        "v1.2.03",
        "v1.2.3-",
        "v1.2.3-01",
        "v1.2.3-a..b",
        "v1.2.3+",
        "v1.2.3+build",
        "v1.2.3+incompatible.1",
        "v1.2.3+Incompatible",
        "v1.2.3-a_b",
        "v1.2.3 ",
        "v1.2.3\n",
        " v1.2.3",
        "v1.2.٣",
        "v-1.2.3",
        "v1.2.3-é",
        "master",
        "latest",
        "v1.2.3/x",
        "v1.2.3-a.01",
    ],
)
def test_what_is_no_full_semantic_version_is_not_canonical(version: str):
    assert not parse.is_canonical_version(version)


@pytest.mark.parametrize(
    "version",
    [
        "v0.0.0-20191109021931-daa7c04131f5",
        "v1.2.4-0.20191109021931-daa7c04131f5",
        "v1.2.3-pre.0.20191109021931-daa7c04131f5",
        "v1.2.3-pre.1.0.20191109021931-daa7c04131f5",
        "v2.3.1-0.20191109021931-daa7c04131f5+incompatible",
        "v2.3.1-pre.0.20191109021931-daa7c04131f5+incompatible",
    ],
)
def test_a_version_made_of_a_commit_is_a_pseudo_version(version: str):
    assert parse.is_pseudo(version)
    assert parse.is_prerelease(version)


@pytest.mark.parametrize(
    "version",
    [
        "v1.2.3",
        "v1.2.3-pre",
        "v1.2.3-a-b",
        "v1.2.3-20191109021931-daa7c04131f5",
        "v1.2.4-0.2019110902193-daa7c04131f5",
        "v1.2.4-1.20191109021931-daa7c04131f5",
        "v0.0.0-20191109021931",
        "v0.0.0-20191109021931-daa.c04",
        "master-a-b",
        "",
    ],
)
def test_a_tagged_version_is_no_pseudo_version(version: str):
    assert not parse.is_pseudo(version)


def test_a_release_is_no_prerelease():
    assert not parse.is_prerelease("v1.2.3")
    assert not parse.is_prerelease("v2.0.0+incompatible")
    assert not parse.is_prerelease("master-1")
    assert parse.is_prerelease("v1.2.3-rc.1")
    assert parse.is_prerelease("v2.2.3-rc.1+incompatible")


KNOWN_ORDER = [
    "v0.0.0-20180101000000-aaaaaaaaaaaa",
    "v0.0.0-20190101000000-000000000000",
    "v0.0.0",
    "v0.0.9",
    "v0.0.10-0.20190101000000-000000000000",
    "v0.0.10",
    "v0.9.0",
    "v0.10.0",
    "v1.0.0-0",
    "v1.0.0-1",
    "v1.0.0-2",
    "v1.0.0-10",
    "v1.0.0--",
    "v1.0.0-10a",
    "v1.0.0-alpha",
    "v1.0.0-alpha.1",
    "v1.0.0-alpha.1.0.20190101000000-000000000000",
    "v1.0.0-alpha.beta",
    "v1.0.0-beta",
    "v1.0.0-beta.2",
    "v1.0.0-beta.11",
    "v1.0.0-rc.1",
    "v1.0.0",
    "v2.0.0-rc.1+incompatible",
    "v2.0.0+incompatible",
    "v10.0.0+incompatible",
]


def test_versions_sort_as_semver_says():
    for seed in range(20):
        shuffled = random.Random(seed).sample(KNOWN_ORDER, len(KNOWN_ORDER))
        assert sorted(shuffled, key=parse.version_key) == KNOWN_ORDER


def test_what_is_no_version_sorts_before_all_versions():
    assert sorted(["v0.0.0-0", "master", "", "zzz"], key=parse.version_key) == ["", "master", "zzz", "v0.0.0-0"]


def test_a_version_with_thousands_of_digits_still_sorts():
    long = "9" * 10_000
    ordered = ["v9.0.0-1", f"v9.0.0-{long}", f"v9.0.0-1{long}", "v9.0.0", f"v{long}.0.0"]
    assert sorted(random.Random(1).sample(ordered, len(ordered)), key=parse.version_key) == ordered


numbers = st.integers(0, 120).map(str)
words = st.from_regex(r"[0-9]{0,2}[a-zA-Z-][0-9a-zA-Z-]{0,2}", fullmatch=True)
prereleases = st.lists(numbers | words, max_size=3).map(".".join)
semvers = st.tuples(numbers, numbers, numbers, prereleases).map(
    lambda parts: f"v{'.'.join(parts[:3])}{'-' * bool(parts[3])}{parts[3]}"
)


def precedence(one: str, other: str) -> int:
    """semver.org section 11, as it is written there."""
    core, _, before = one[1:].partition("-")
    other_core, _, other_before = other[1:].partition("-")
    for a, b in zip(core.split("."), other_core.split("."), strict=True):
        if int(a) != int(b):
            return int(a) - int(b)
    if not before or not other_before:
        return (not before) - (not other_before)
    for a, b in zip(before.split("."), other_before.split("."), strict=False):
        if a != b and a.isdigit() and b.isdigit():
            return int(a) - int(b)
        if a != b and a.isdigit() != b.isdigit():
            return -1 if a.isdigit() else 1
        if a != b:
            return -1 if a < b else 1
    return before.count(".") - other_before.count(".")


@given(semvers, semvers)
def test_the_order_of_two_versions_is_that_of_semver(one: str, other: str):
    assert parse.is_canonical_version(one)
    first, second = parse.version_key(one), parse.version_key(other)
    assert (first > second) - (first < second) == (precedence(one, other) > 0) - (precedence(one, other) < 0)


@given(st.lists(semvers, max_size=12))
def test_a_list_of_versions_sorts_as_semver_says(versions: list[str]):
    assert sorted(versions, key=parse.version_key) == sorted(versions, key=cmp_to_key(precedence))


@pytest.mark.parametrize(
    ("versions", "latest"),
    [
        (["v1.0.0"], "v1.0.0"),
        (["v1.9.0", "v1.10.0", "v1.2.0"], "v1.10.0"),
        (["v1.0.0", "v1.1.0-rc.1"], "v1.0.0"),
        (["v1.0.0-rc.2", "v1.0.0-rc.10", "v0.0.0-20300101000000-000000000000"], "v1.0.0-rc.10"),
        (["v0.0.0-20190101000000-000000000000", "v0.0.0-20200101000000-000000000000"], "v0.0.0-20200101000000-000000000000"),
        (["v1.0.0", "v1.0.1-0.20200101000000-000000000000"], "v1.0.0"),
        (["v1.5.0", "v3.0.0+incompatible"], "v1.5.0"),
        (["v2.0.0+incompatible", "v3.0.0+incompatible"], "v3.0.0+incompatible"),
    ],
)
def test_the_latest_version_is_the_highest_release_if_there_is_one(versions: list[str], latest: str):
    for order in itertools.permutations(versions):
        assert parse.latest_of(order) == latest


# Major versions


@pytest.mark.parametrize(
    ("module", "version"),
    [
        ("example.com/x", "v0.1.0"),
        ("example.com/x", "v1.1.0"),
        ("example.com/x", "v2.0.0+incompatible"),
        ("example.com/x", "v1.0.0+incompatible"),
        ("example.com/x/v2", "v2.0.0"),
        ("example.com/x/v2", "v2.0.0-20191109021931-daa7c04131f5"),
        ("example.com/x/v10", "v10.1.0"),
        ("gopkg.in/yaml.v2", "v2.4.0"),
        ("gopkg.in/yaml.v0", "v0.4.0"),
        ("gopkg.in/yaml.v2-unstable", "v2.4.0"),
        ("gopkg.in/check.v1", "v0.0.0-20161208181325-20d25e280405"),
        ("gopkg.in/check.v1-unstable", "v0.0.0-20161208181325-20d25e280405"),
    ],
)
def test_a_version_of_the_paths_major_number_agrees(module: str, version: str):
    assert parse.major_agrees(module, version)


@pytest.mark.parametrize(
    ("module", "version"),
    [
        ("example.com/x", "v2.0.0"),
        ("example.com/x", "v10.0.0-pre"),
        ("example.com/x/v2", "v1.0.0"),
        ("example.com/x/v2", "v0.0.0-20191109021931-daa7c04131f5"),
        ("example.com/x/v2", "v3.0.0+incompatible"),
        ("example.com/x/v2", "v20.0.0"),
        ("example.com/x/v1", "v1.0.0"),
        ("gopkg.in/yaml.v2", "v1.0.0"),
        ("gopkg.in/yaml.v2", "v0.0.0-20161208181325-20d25e280405"),
        ("gopkg.in/yaml.v1", "v2.0.0+incompatible"),
        ("gopkg.in/yaml", "v1.0.0"),
    ],
)
def test_a_version_of_another_major_number_does_not_agree(module: str, version: str):
    assert not parse.major_agrees(module, version)


# The protocol's paths

Request = parse.ModuleRequest


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("example.com/x/@v/list", Request("list", "example.com/x")),
        ("github.com/!azure/x/@v/list", Request("list", "github.com/Azure/x")),
        ("example.com/x/@latest", Request("latest", "example.com/x")),
        ("example.com/x/@v/v1.0.0.info", Request("info", "example.com/x", "v1.0.0")),
        ("example.com/x/@v/v1.0.0.mod", Request("mod", "example.com/x", "v1.0.0")),
        ("example.com/x/@v/v1.0.0.zip", Request("zip", "example.com/x", "v1.0.0")),
        ("example.com/x/@v/v1.0.0-!r!c1.zip", Request("zip", "example.com/x", "v1.0.0-RC1")),
        ("example.com/x/@v/v2.0.0+incompatible.zip", Request("zip", "example.com/x", "v2.0.0+incompatible")),
        ("example.com/x/v2/@v/v2.0.0.mod", Request("mod", "example.com/x/v2", "v2.0.0")),
        ("gopkg.in/yaml.v2/@v/v2.4.0.zip", Request("zip", "gopkg.in/yaml.v2", "v2.4.0")),
        ("example.com/x/@v/master.info", Request("query", "example.com/x", "master")),
        ("example.com/x/@v/list.info", Request("query", "example.com/x", "list")),
        ("example.com/x/@v/feature/!some-thing.info", Request("query", "example.com/x", "feature/Some-thing")),
        ("example.com/x/@v/daa7c04.info", Request("query", "example.com/x", "daa7c04")),
        ("example.com/x/@v/v1.info", Request("query", "example.com/x", "v1")),
        ("example.com/x/@v/v1.2.info", Request("query", "example.com/x", "v1.2")),
        ("example.com/x/@v/v2.0.0.info", Request("query", "example.com/x", "v2.0.0")),
        ("example.com/x/@v/v1.0.0+meta.info", Request("query", "example.com/x", "v1.0.0+meta")),
        ("sumdb/sum.example.org/supported", Request("sumdb", name="sum.example.org", rest="supported")),
        ("sumdb/sum.example.org/latest", Request("sumdb", name="sum.example.org", rest="latest")),
        ("sumdb/sum.example.org/some/db/latest", Request("sumdb", name="sum.example.org/some/db", rest="latest")),
        (
            "sumdb/sum.example.org/lookup/github.com/!azure/x@v1.0.0-!r!c1",
            Request("sumdb", "github.com/Azure/x", "v1.0.0-RC1", "sum.example.org", "lookup/github.com/!azure/x@v1.0.0-!r!c1"),
        ),
        (
            "sumdb/sum.example.org/lookup/example.com/tile/lookup/x@v1.0.0",
            Request("sumdb", "example.com/tile/lookup/x", "v1.0.0", "sum.example.org", "lookup/example.com/tile/lookup/x@v1.0.0"),
        ),
        ("sumdb/sum.example.org/tile/8/0/001", Request("sumdb", name="sum.example.org", rest="tile/8/0/001")),
        (
            "sumdb/sum.example.org/tile/8/0/x001/234.p/255",
            Request("sumdb", name="sum.example.org", rest="tile/8/0/x001/234.p/255"),
        ),
        ("sumdb/sum.example.org/tile/8/3/x001/x000/067", Request("sumdb", name="sum.example.org", rest="tile/8/3/x001/x000/067")),
        ("sumdb/sum.example.org/tile/8/data/x123/456", Request("sumdb", name="sum.example.org", rest="tile/8/data/x123/456")),
        ("sumdb/sum.example.org/tile/10/0/000.p/1023", Request("sumdb", name="sum.example.org", rest="tile/10/0/000.p/1023")),
    ],
)
def test_a_path_of_the_protocol_is_understood(path: str, request_: parse.ModuleRequest):
    assert parse.parse_request(path) == request_
    assert parse.try_request(path) == request_


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "example.com/x",
        "example.com/x/",
        "example.com/x/@v",
        "example.com/x/@v/",
        "example.com/x/@v/List",
        "example.com/x/@v/list/",
        "example.com/x/@latest/",
        "example.com/x/@latest.info",
        "example.com/x/@v/v1.0.0",
        "example.com/x/@v/v1.0.0.txt",
        "example.com/x/@v/v1.0.0.ziphash",
        "example.com/x/@v/v1.0.0.ZIP",
        "example.com/x/@v/v1.0.0.zip/",
        "example.com/x/@v/.info",
        "example.com/x/@v/master.zip",
        "example.com/x/@v/master.mod",
        "example.com/x/@v/v2.0.0.zip",
        "example.com/x/v2/@v/v1.0.0.mod",
        "example.com/x/@v/v1.0.0+meta.zip",
        "example.com/x/@v/../list",
        "example.com/x/@v/../../secret.info",
        "example.com/x/@v/a/../b.info",
        "example.com/x/@v/a/./b.info",
        "example.com/x/@v/a//b.info",
        "example.com/x/@v//master.info",
        "example.com/x/@v/master/.info",
        "example.com/x/@v/a\\b.info",
        "example.com/x/@v/a?b.info",
        "example.com/x/@v/a\x00b.info",
        "example.com/x/@v/a\nb.info",
        "example.com/x/@v/a:b.info",
        "example.com/x/@v/nul.info",
        "sumdb/",
        "sumdb/sum.example.org",
        "sumdb/sum.example.org/",
        "sumdb/sum.example.org/other",
        "sumdb/supported",
        "sumdb//supported",
        "sumdb/localhost/supported",
        "sumdb/Sum.example.org/supported",
        "sumdb/../supported",
        "sumdb/sum.example.org/../supported",
        "sumdb/sum.example.org/./latest",
        "sumdb/sum..org/latest",
        "sumdb/sum.example.org:80/latest",
        "sumdb/user@sum.example.org/latest",
        "sumdb/sum.example.org/lookup/example.com/x/latest",
        "sumdb/sum.example.org/tile/8/0/latest",
        "sumdb/sum.example.org/lookup/example.com/x",
        "sumdb/sum.example.org/lookup/example.com/x@",
        "sumdb/sum.example.org/lookup/example.com/x@master",
        "sumdb/sum.example.org/lookup/example.com/x@v1.0.0/go.mod",
        "sumdb/sum.example.org/tile/8/0/1",
        "sumdb/sum.example.org/tile/8/0/0001",
        "sumdb/sum.example.org/tile/8/0/x000/001",
        "sumdb/sum.example.org/tile/8/0/x001",
        "sumdb/sum.example.org/tile/8/0/001.p/0",
        "sumdb/sum.example.org/tile/8/0/001.p/256",
        "sumdb/sum.example.org/tile/8/0/001.p/01",
        "sumdb/sum.example.org/tile/8/0/001.p",
        "sumdb/sum.example.org/tile/08/0/001",
        "sumdb/sum.example.org/tile/0/0/001",
        "sumdb/sum.example.org/tile/31/0/001",
        "sumdb/sum.example.org/tile/8/00/001",
        "sumdb/sum.example.org/tile/8/-1/001",
        "sumdb/sum.example.org/tile/8/../../latest/001",
        "sumdb/sum.example.org/tile/8/0/001\n",
        "sumdb/sum.example.org/tile/8/0/x" + "/x".join(["001"] * 12) + "/001",
    ],
)
def test_a_path_of_another_shape_is_not_found(path: str):
    refusal(lambda: parse.parse_request(path), NotFound)
    assert parse.try_request(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "github.com/Azure/x/@v/list",
        "example.com/!/@latest",
        "example.com/x!!y/@latest",
        "nodomain/@v/list",
        "/@v/list",
        "/example.com/x/@v/list",
        "../example.com/x/@v/list",
        "example.com/../x/@v/list",
        "example.com/x/../@v/v1.0.0.zip",
        "example.com//x/@v/list",
        "example.com/x//@v/list",
        "example.com/x@v1/@v/list",
        "example.com/x/v1/@v/v1.0.0.zip",
        "gopkg.in/yaml/@v/list",
        "example.com/x/@v/v1.0.0-RC1.zip",
        "example.com/x/@v/Master.info",
        "example.com/x/@v/brancé.info",
        "example.com/é/@v/list",
        "sumdb/sum.example.org/lookup/example.com/X@v1.0.0",
        "sumdb/sum.example.org/lookup/nodomain@v1.0.0",
        "sumdb/sum.example.org/lookup/../x@v1.0.0",
        "sumdb/sum.example.org/lookup/example.com/x@v1.0.0-RC1",
    ],
)
def test_a_path_of_the_protocol_with_a_malformed_name_is_refused(path: str):
    refusal(lambda: parse.parse_request(path), Malformed)
    assert parse.try_request(path) is None


@given(
    st.text(st.sampled_from("aA.!/@v1-0listnfozmdpéx\n\x00\\~+"), max_size=40),
    st.sampled_from(["", "sumdb/a.b/", "a.b/x/@v/", "a.b/@v/v1.0."]),
)
def test_no_path_is_answered_otherwise_than_understood_or_refused(text: str, start: str):
    try:
        request = parse.parse_request(start + text)
    except (Malformed, NotFound):
        return
    assert ".." not in f"{request.module}/{request.version}/{request.rest}".split("/")


def test_a_long_path_is_judged_quickly():
    for part in ("a.", "a/", "a.a/", "!a", "-", "/@v/", "1", "v1.", "x001/", "/lookup/", "1-", "0."):
        for start in ("", "a.b/", "a.b/@v/v1.0.0-", "sumdb/a.b/", "sumdb/a.b/tile/8/0/", "sumdb/"):
            begun = time.perf_counter()
            parse.try_request(f"{start}{part * 8000}!.info")
            assert time.perf_counter() - begun < 1


# .info


@pytest.mark.parametrize(
    ("time", "moment"),
    [
        ("2024-01-02T03:04:05Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2024-01-02T03:04:05.123456789Z", datetime(2024, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("2024-01-02T03:04:05.1Z", datetime(2024, 1, 2, 3, 4, 5, 100000, tzinfo=UTC)),
        ("2024-01-02T03:04:05+02:00", datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_an_info_tells_version_and_time(time: str, moment: datetime):
    content = f'{{"Version":"v1.0.0","Time":"{time}","Origin":{{"VCS":"git"}}}}\n'.encode()
    assert parse.parse_info(content) == ("v1.0.0", moment)


def test_an_info_may_tell_no_time():
    assert parse.parse_info(b'{"Version":"v1.0.0"}') == ("v1.0.0", None)
    assert parse.parse_info(b'{"Version":"v1.0.0","Time":null}') == ("v1.0.0", None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"v1.0.0",
        b"null",
        b"[]",
        b'"Version"',
        b"1",
        b"{}",
        b'{"Time":"2024-01-02T03:04:05Z"}',
        b'{"Version":1}',
        b'{"Version":["v1.0.0"]}',
        b'{"Version":null}',
        b'{"Version":"master"}',
        b'{"Version":"v1.0"}',
        b'{"Version":"v1.0.0+meta"}',
        b'{"Version":"v1.0.0"',
        b'{"Version":"v1.0.0"} {}',
        b'\xff{"Version":"v1.0.0"}',
        b'\xef\xbb\xbf{"Version":"v1.0.0"}',
        '{"Version":"v1.0.0"}'.encode("utf-16"),
        b'{"Version":' + b"[" * 50_000,
        b'{"Version":"v1.0.0","Time":' + b"9" * 5000 + b"}",
        b'{"Version":"v1.0.0","Time":0}',
        b'{"Version":"v1.0.0","Time":[]}',
        b'{"Version":"v1.0.0","Time":""}',
        b'{"Version":"v1.0.0","Time":"yesterday"}',
        b'{"Version":"v1.0.0","Time":"2024-01-02"}',
        b'{"Version":"v1.0.0","Time":"2024-01-02T03:04:05"}',
        b'{"Version":"v1.0.0","Time":"2024-01-02 03:04:05Z"}',
        b'{"Version":"v1.0.0","Time":"20240102T030405Z"}',
        b'{"Version":"v1.0.0","Time":"2024-W01-1T03:04:05Z"}',
        b'{"Version":"v1.0.0","Time":"2024-13-02T03:04:05Z"}',
        b'{"Version":"v1.0.0","Time":"2024-01-02T25:04:05Z"}',
        b'{"Version":"v1.0.0","Time":"0001-01-01T00:00:00+01:00"}',
        b'{"Version":"v1.0.0","Time":"9999-12-31T23:59:59-01:00"}',
    ],
    ids=lambda content: repr(content[:60]),
)
def test_an_info_that_go_cannot_read_is_refused(content: bytes):
    refusal(lambda: parse.parse_info(content), Malformed)


def test_an_info_of_more_than_64_kib_is_refused():
    content = b'{"Version":"v1.0.0"}'
    assert parse.parse_info(content.ljust(parse.MAX_INFO)) == ("v1.0.0", None)
    assert refusal(lambda: parse.parse_info(content.ljust(parse.MAX_INFO + 1)), TooLarge) == "info.size"


def test_an_info_that_entrepot_makes_is_as_gos_own_proxy_writes_it():
    moment = datetime(2024, 1, 2, 5, 4, 5, 999, tzinfo=timezone(timedelta(hours=2)))
    assert parse.make_info("v1.0.0", moment) == b'{"Version":"v1.0.0","Time":"2024-01-02T03:04:05Z"}'
    assert parse.make_info("v1.0.0", None) == b'{"Version":"v1.0.0"}'


@given(semvers, st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(microsecond=0)))
def test_an_info_that_entrepot_makes_is_read_back_the_same(version: str, moment: datetime):
    assert parse.parse_info(parse.make_info(version, moment)) == (version, moment)


# go.mod


@pytest.mark.parametrize(
    "content",
    [
        "module example.com/x",
        "module example.com/x\n",
        "module example.com/x\r\n\r\ngo 1.21\r\n",
        "\n\n  module\texample.com/x  \n",
        "// a comment\nmodule example.com/x // another\n",
        "// module example.com/other\nmodule example.com/x//another\n",
        "// Deprecated: use example.com/y instead.\nmodule example.com/x\n",
        "module example.com/x // Deprecated: use example.com/y instead.\n",
        'module "example.com/x"\n',
        'module "example.com/x" // quoted\n',
        "module `example.com/x`\n",
        "module (\n\texample.com/x\n)\n",
        "module(\n\texample.com/x\n)\n",
        'module ( // block\n\n\t// inside\n\t"example.com/x" // here\n)\n',
        "go 1.21\n\nmodule example.com/x\n",
        "modules example.com/y\nmodule example.com/x\n",
        "require (\n\texample.com/module v1.0.0\n)\nmodule example.com/x\n",
        "module example.com/x\n// é\n",
    ],
)
def test_a_go_mod_names_its_module(content: str):
    assert parse.go_mod_module(content.encode()) == "example.com/x"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"go 1.21\n",
        b"// module example.com/x\n",
        b"module",
        b"module\n",
        b"module // example.com/x\n",
        b"modulexample.com/x\n",
        b'module"example.com/x"\n',
        b"module`example.com/x`\n",
        b"Module example.com/x\n",
        b"module example.com/x example.com/y\n",
        b"module (\n)\n",
        b"module (",
        b"module (\n",
        b"module ()\n",
        b"module (example.com/x)\n",
        b"module ( example.com/x )\n",
        b'module "example.com/x\n',
        b'module ""\n',
        b'module `example.com/x"\n',
        b"module example.com/\xff\n",
        b"\xef\xbb\xbfmodule example.com/x\n",
        "module example.com/x\n".encode("utf-16"),
        b"\x00" * 1000,
    ],
)
def test_a_go_mod_that_names_no_module_is_refused(content: bytes):
    assert refusal(lambda: parse.go_mod_module(content), Malformed) in ("gomod.module", "gomod.text")


def test_a_go_mod_of_more_than_16_mib_is_refused():
    assert parse.go_mod_module(GO_MOD.ljust(parse.MAX_GO_MOD)) == MODULE
    assert refusal(lambda: parse.go_mod_module(GO_MOD.ljust(parse.MAX_GO_MOD + 1)), TooLarge) == "gomod.size"


@pytest.mark.parametrize("line", [b"\n", b"a\n", b" ", b"//", b"module\n", b"module(", b" (\n", b"\r"])
def test_a_large_go_mod_is_read_quickly_and_in_little_room(line: bytes):
    content = line * (parse.MAX_GO_MOD // len(line))
    begun = time.perf_counter()
    peak = peak_of(lambda: refusal(lambda: parse.go_mod_module(content), Malformed))
    assert peak < 8 * parse.MAX_GO_MOD
    assert time.perf_counter() - begun < 10


# Zips


def check(content: bytes, module: str = MODULE, version: str = VERSION, *, published: bool = True) -> parse.ZipFacts:
    return parse.check_zip(io.BytesIO(content), module, version, published=published)


def refused(content: bytes, kind: type[Problem] = Malformed) -> str:
    """The one rule by which it is refused from a publisher and from an upstream."""
    rules = {refusal(lambda published=published: check(content, published=published), kind) for published in (True, False)}
    assert len(rules) == 1
    return rules.pop()


def zip_of(names: Iterable[str], change: Callable[[zipfile.ZipInfo], None] = lambda info: None) -> bytes:
    """A module zip with a go.mod and these files, each entry but the go.mod changed before it is written."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"{PREFIX}go.mod"), GO_MOD)
        for name in names:
            info = zipfile.ZipInfo(name)
            change(info)
            archive.writestr(info, b"content of a file\n")
    return out.getvalue()


def module_zip(*names: str) -> bytes:
    return zip_of(PREFIX + name for name in names)


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
FLAGS, METHOD, CRC, PACKED, UNPACKED = ("H", 6), ("H", 8), ("I", 14), ("I", 18), ("I", 22)
"""Fields of an entry's local header: format and offset. In the central directory they are two bytes further."""
EXTRA_LENGTH, COMMENT_LENGTH, OFFSET = ("H", 28), ("H", 30), ("I", 40)


def patched(content: bytes, name: str, field: tuple[str, int], value: int, *, local: bool = True) -> bytes:
    """The zip with a field of an entry set, in its central header and in its local one."""
    out = bytearray(content)
    kind, at = field
    for signature, size, shift in ((CENTRAL, 46, 2), *([(LOCAL, 30, 0)] if local else [])):
        for match in re.finditer(re.escape(signature), content):
            start = match.start()
            if content[start + size :].startswith(name.encode()):
                struct.pack_into(f"<{kind}", out, start + at + shift, value)
    assert bytes(out) != content
    return bytes(out)


def peak_of(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_checksum_of_a_module_zip_is_that_of_go_sum():
    files = {"a.go": b"package a\n", "b/é.txt": "naïve\n".encode(), "LICENSE": b"", "B.go": b"package a\n"}
    content = make_zip("example.com/Some/module", "v1.2.3", {**files, "b.dat": bytes(range(256)) * 5000})
    facts = check(content, "example.com/Some/module")
    # by golang.org/x/mod/sumdb/dirhash, of the same files
    assert facts.h1 == "h1:R0FwamkBV5/v+WEVwheCxerC/YjgLR2x9SD/wMi6uck="
    assert facts.go_mod == b"module example.com/Some/module\n\ngo 1.21\n"
    assert (facts.files, facts.unpacked) == (6, 1_280_067)


def test_the_checksum_does_not_depend_on_order_packing_or_marks():
    files = {"go.mod": GO_MOD, "a.go": b"package a\n", "b/é.go": b"package b\n" * 1000}
    plain = check(make_zip(MODULE, VERSION, files)).h1
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in reversed(files.items()):
            info = zipfile.ZipInfo(PREFIX + name, (2020, 1, 1, 0, 0, 0))
            info.external_attr = (stat.S_IFREG | 0o755) << 16
            archive.writestr(info, data, zipfile.ZIP_STORED)
        archive.comment = b"a comment"
    assert check(out.getvalue()).h1 == plain


def test_a_zip_written_as_a_stream_is_accepted():
    content = streamed(b"package a\n")
    assert check(content).h1 == check(make_zip(MODULE, VERSION, {"go.mod": GO_MOD, "a.go": b"package a\n"})).h1


def test_a_zip_written_as_a_stream_with_another_crc_after_a_file_is_refused():
    content = streamed(b"package a\n")
    at = content.index(b"PK\7\x08") + 4
    assert refused(content[:at] + bytes(4) + content[at + 4 :]) == "zip.crc"


def streamed(data: bytes) -> bytes:
    """A module zip with a file a.go that is written without seeking, so that sizes and CRCs follow the bytes."""

    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *args: int) -> int:
            raise OSError

        def tell(self) -> int:
            raise OSError

    out = Unseekable()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{PREFIX}go.mod", GO_MOD)
        archive.writestr(f"{PREFIX}a.go", data)
    return out.getvalue()


def test_a_name_that_is_not_marked_as_utf_8_is_read_as_go_reads_it():
    content = make_zip(MODULE, VERSION, {"b/é.txt": b""})
    assert check(patched(content, f"{PREFIX}b/é.txt", FLAGS, 0)) == check(content)


@pytest.mark.parametrize(
    "name",
    [
        ".github/workflows/x.yml",
        "a b.txt",
        "@v/x",
        "a+b,c=d.txt",
        "[x]{y}~1.go",
        "é.go",
        "日本語.txt",
        "-x",
        "...a",
        "a/b/c/d/e",
        "vendor/modules.txt",
        "vendor/example.com/y/y.go",
        "x/vendor/y/y.go",
        "go.mod.txt",
        "_go.mod",
        "x/_go.mod",
        "a/go.sum",
        "console.go",
        "com10",
        "nul-x",
    ],
)
def test_a_file_name_that_go_accepts_is_accepted(name: str):
    assert check(module_zip(name)).files == 2


def test_a_zip_without_a_go_mod_is_accepted_from_an_upstream_only():
    content = make_archive({f"{PREFIX}a.go": b"package a\n"})
    assert check(content, published=False).go_mod is None
    assert refusal(lambda: check(content), Malformed) == "zip.gomod"


def test_a_zip_that_claims_another_module_is_refused():
    assert (
        refusal(lambda: check(make_zip(MODULE, VERSION, {}, go_mod=b"module example.com/other\n")), Malformed) == "gomod.module"
    )
    assert refusal(lambda: check(make_zip(MODULE, VERSION, {}, go_mod=b"go 1.21\n")), Malformed) == "gomod.module"


def test_an_upstreams_zip_may_hold_another_modules_go_mod():
    assert check(make_zip(MODULE, VERSION, {}, go_mod=b"module example.com/other\n"), published=False).go_mod


@pytest.mark.parametrize(
    ("module", "version"),
    [
        (MODULE, "v1.2.4"),
        ("example.com/other", VERSION),
        (MODULE.upper(), VERSION),
        (f"{MODULE}/v2", VERSION),
        (MODULE, "v1.2.3-pre"),
    ],
)
def test_a_zip_of_another_module_or_version_is_refused(module: str, version: str):
    assert refused(make_zip(module, version, {})) == "zip.prefix"


@pytest.mark.parametrize(
    "name",
    [
        "a.go",
        "/etc/passwd",
        f"/{PREFIX}a.go",
        f"../{PREFIX}a.go",
        f"{MODULE}@{VERSION}",
        f"{MODULE}/a.go",
        f"x/{PREFIX}a.go",
        PREFIX.replace("/", "\\") + "a.go",
        f"{PREFIX.upper()}a.go",
        "",
        "C:\\a.go",
    ],
)
def test_a_zip_with_a_file_that_is_not_under_its_prefix_is_refused(name: str):
    assert refused(zip_of([name])) == "zip.prefix"


@pytest.mark.parametrize(
    "name",
    [
        "../a.go",
        "a/../../../b.go",
        "..",
        "a/..",
        "./a.go",
        "a/./b.go",
        "//a.go",
        "/a.go",
        "/etc/passwd",
        "a//b.go",
        "...",
        "a./b",
        "x.go.",
        "a\\b.go",
        "..\\a.go",
        "C:\\a.go",
        "c:a.go",
        "a:b",
        "a*b",
        "a?b",
        'a"b',
        "a'b",
        "a<b",
        "a>b",
        "a|b",
        "a`b",
        "a;b",
        "a\nb",
        "a\tb",
        "a\x7fb",
        "a\x01b",
        "a\u00a0b",
        "a\u202eb",
        "e\u0301.go",
        "😀.go",
        "a\u0661",
        "con",
        "CON.go",
        "x/nul.txt",
        "aux/x.go",
        "Com1.go",
        "lpt9",
        "prn.a.b",
    ],
)
def test_a_zip_with_a_file_name_that_is_unsafe_on_some_system_is_refused(name: str):
    assert refused(module_zip(name)) == "zip.path"


def test_a_zip_with_a_nul_in_a_name_is_refused():
    content = module_zip("a.goX..").replace(b"a.goX..", b"a.go\x00..")
    assert refused(content) == "zip.path"


def test_a_zip_with_a_name_that_is_no_utf_8_is_refused():
    content = module_zip("a.go_")
    assert refused(content.replace(b"a.go_", b"a.go\xff")) == "zip.format"
    assert refused(module_zip("é.go").replace("é".encode(), b"\xff\xfe")) == "zip.format"


def test_a_name_by_which_only_some_readers_go_is_not_taken_for_the_files_name():
    safe = PREFIX.encode() + b"safe.go"
    unicode_path = struct.pack("<HHBI", 0x7075, 5 + len(safe), 1, zlib.crc32(f"{PREFIX}../a.go".encode())) + safe

    def change(info: zipfile.ZipInfo) -> None:
        info.extra = unicode_path

    assert refused(zip_of([f"{PREFIX}../a.go"], change)) == "zip.path"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_a_zip_with_a_link_or_device_is_refused(kind: int):
    def change(info: zipfile.ZipInfo) -> None:
        info.external_attr = (kind | 0o644) << 16

    assert refused(zip_of([f"{PREFIX}a"], change)) == "zip.mode"


def test_a_zip_with_entries_for_its_folders_is_taken_and_they_count_for_the_checksum_as_with_go():
    content = make_archive({PREFIX: b"", f"{PREFIX}a/": b"", f"{PREFIX}a/b.go": b"package a\n", f"{PREFIX}go.mod": GO_MOD})
    with_folders = check(content)
    assert with_folders.h1 != check(make_archive({f"{PREFIX}a/b.go": b"package a\n", f"{PREFIX}go.mod": GO_MOD})).h1


def test_a_zip_with_a_folder_that_has_bytes_or_another_ones_name_is_refused():
    assert refused(make_archive({f"{PREFIX}go.mod": GO_MOD, f"{PREFIX}a/": b"x"})) == "zip.mode"
    assert refused(make_archive({f"{PREFIX}go.mod": GO_MOD, f"{PREFIX}go.mod/": b""})) == "zip.case"
    assert refused(make_archive({f"{PREFIX}go.mod": GO_MOD, f"{PREFIX}a/": b"", f"{PREFIX}A/": b""})) == "zip.case"


@pytest.mark.parametrize(
    "names",
    [
        ("a.go", "A.go"),
        ("A.go", "a.go"),
        ("x/a.go", "X/b.go"),
        ("a", "A/b"),
        ("a/b", "A"),
        ("é.go", "É.go"),
        ("σ.go", "ς.go"),
        ("σ.go", "Σ.go"),
        ("k.go", "\u212a.go"),
        ("å.go", "\u212b.go"),
        ("ω", "\u2126"),
        ("straße", "STRAẞE"),
        ("s.go", "ſ.go"),
        ("ǆ", "ǅ"),
        ("Ꭰ", "ꭰ"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b/c", "a/b"),
        ("go.mod/x",),
    ],
)
def test_a_zip_with_names_that_are_one_on_some_system_is_refused(names: tuple[str, ...]):
    assert refused(module_zip(*names)) == "zip.case"


@pytest.mark.parametrize(
    "names", [("ß", "ss"), ("a/b", "a.b"), ("a/b", "b/a"), ("a/b/c", "b/c"), ("ŉ", "ʼn"), ("i", "ı"), ("\uf900", "豈")]
)
def test_names_that_go_tells_apart_are_accepted(names: tuple[str, ...]):
    assert check(module_zip(*names)).files == 3


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_the_same_name_twice_is_refused():
    assert refused(module_zip("a.go", "a.go")) == "zip.case"
    assert refused(module_zip("go.mod")) == "zip.case"


@pytest.mark.parametrize("name", ["a/go.mod", "a/b/GO.MOD", "vendor/x/go.mod", "testdata/Go.Mod"])
def test_a_zip_with_another_modules_go_mod_in_a_folder_is_refused(name: str):
    assert refused(module_zip(name)) == "zip.gomod"


def test_a_zip_whose_go_mod_is_not_in_lower_case_is_refused():
    assert refused(make_archive({f"{PREFIX}GO.mod": GO_MOD})) == "zip.gomod"


def test_an_encrypted_zip_is_refused():
    content = module_zip("a.go")
    for flags in (0x1, 0x41, 0x40, 0x2000):
        assert refused(patched(content, f"{PREFIX}a.go", FLAGS, flags)) == "zip.encrypted"


@pytest.mark.parametrize("method", [1, 9, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 93, 95, 99])
def test_a_zip_packed_otherwise_than_go_can_unpack_is_refused(method: int):
    assert refused(patched(module_zip("a.go"), f"{PREFIX}a.go", METHOD, method)) == "zip.method"


def test_a_zip_with_a_damaged_file_is_refused():
    content = module_zip("a.go")
    assert refused(content.replace(b"content", b"cOntent")) == "zip.crc"
    assert refused(patched(content, f"{PREFIX}a.go", CRC, 1)) == "zip.crc"


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"no zip at all", b"PK\x05\x06", b"\x00" * 100_000, b"<html></html>", b"\x1f\x8b\x08\x00" + b"\x00" * 100],
    ids=repr,
)
def test_what_is_no_zip_is_refused(content: bytes):
    assert refused(content[:100_000]) == "zip.format"


def test_an_empty_zip_is_refused():
    assert refused(make_archive({})) == "zip.empty"


def test_a_zip_that_breaks_off_anywhere_is_refused():
    content = make_zip(MODULE, VERSION, {"a.go": bytes(range(256)) * 3, "b.go": b"package b\n" * 50})
    for length in range(0, len(content), 7):
        assert refused(content[:length]) == "zip.format"
    assert refused(content[:-1]) == "zip.format"


def test_a_zip_that_is_damaged_anywhere_is_refused_or_has_the_same_checksum():
    content = make_zip(MODULE, VERSION, {"a.go": b"package a\n" * 20, "b/c.txt": b"text"})
    whole = check(content).h1
    chance = random.Random(1)
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << chance.randrange(8)
        try:
            facts = check(bytes(damaged))
        except (Malformed, TooLarge):
            continue
        # a date, an attribute or the like has changed
        assert facts.h1 == whole


@given(st.binary(max_size=300), st.integers(0, 2000), st.integers(0, 60))
def test_no_zip_does_worse_than_be_refused(noise: bytes, at: int, cut: int):
    content = make_zip(MODULE, VERSION, {"a.go": b"package a\n" * 20, "b/c.txt": b"text"})
    at %= len(content)
    try:
        check(content[:at] + noise + content[at + cut :])
    except (Malformed, TooLarge):
        return


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("length", [0, 1, 9_999, 10_001, 99_999_999])
def test_a_file_of_another_length_than_it_says_is_refused(method: int, length: int):
    data = bytes(10_000)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(f"{PREFIX}a", data)
    content = patched(out.getvalue(), f"{PREFIX}a", UNPACKED, length)
    # the CRC is that of the stated length's bytes, so that it gives nothing away
    if length < len(data):
        content = patched(content, f"{PREFIX}a", CRC, zlib.crc32(data[:length]))
    assert refused(content) == "zip.bomb"


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_at_once():
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = (deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)) * 4096 + deflate.flush()
    content = stored_as(packed, length=10, crc=zlib.crc32(bytes(10)))
    begun = time.perf_counter()
    peak = peak_of(lambda: refused(content))
    assert peak < 16 << 20
    assert time.perf_counter() - begun < 2


def stored_as(packed: bytes, *, length: int, crc: int) -> bytes:
    """A zip with one file `a`, whose deflate stream is `packed` and whose stated length and CRC are these."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"{PREFIX}a"), packed)
    content = out.getvalue()
    for field, value in ((METHOD, zipfile.ZIP_DEFLATED), (UNPACKED, length), (CRC, crc)):
        content = patched(content, f"{PREFIX}a", field, value)
    return content


def test_a_deflate_stream_that_breaks_off_after_its_last_byte_is_refused():
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflate.compress(b"text") + deflate.flush(zlib.Z_SYNC_FLUSH)
    assert refused(stored_as(packed, length=4, crc=zlib.crc32(b"text"))) == "zip.format"
    assert check(stored_as(packed + deflate.flush(), length=4, crc=zlib.crc32(b"text")), published=False).unpacked == 4


def test_a_file_that_says_it_is_larger_than_500_mib_is_refused():
    content = module_zip("a.go", "b.go")
    assert refused(patched(content, f"{PREFIX}a.go", UNPACKED, parse.MAX_ZIP + 1), TooLarge) == "zip.bomb"
    half = patched(content, f"{PREFIX}a.go", UNPACKED, parse.MAX_ZIP // 2)
    assert refused(patched(half, f"{PREFIX}b.go", UNPACKED, parse.MAX_ZIP // 2), TooLarge) == "zip.bomb"


def test_a_zip_of_more_than_500_mib_is_refused_unread():
    class Large(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            return parse.MAX_ZIP + 1

        def read(self, size: int | None = -1) -> bytes:
            raise AssertionError

    assert refusal(lambda: parse.check_zip(Large(), MODULE, VERSION, published=True), TooLarge) == "zip.size"


@pytest.mark.parametrize("name", ["go.mod", "LICENSE"])
def test_a_go_mod_or_license_of_more_than_16_mib_is_refused(name: str):
    def content(length: int) -> bytes:
        return make_zip(MODULE, VERSION, {name: (GO_MOD if name == "go.mod" else b"").ljust(length)})

    assert check(content(16 << 20)).unpacked >= 16 << 20
    assert refused(content((16 << 20) + 1), TooLarge) == "zip.size"


def test_another_file_may_be_larger_than_16_mib():
    assert check(make_zip(MODULE, VERSION, {"license": bytes(17 << 20), "a/LICENSE": bytes(17 << 20)})).files == 3


def test_a_zip_whose_files_share_their_bytes_is_refused():
    content = module_zip("a.go", "b.go")
    first = content.index(f"{PREFIX}a.go".encode()) - 30
    shared = patched(content, f"{PREFIX}b.go", OFFSET, first, local=False)
    assert refused(shared) == "zip.bomb"
    inside = patched(content, f"{PREFIX}a.go", PACKED, 100)
    assert refused(patched(inside, f"{PREFIX}a.go", UNPACKED, 100)) == "zip.bomb"


def test_a_zip_whose_headers_name_different_files_is_refused():
    content = module_zip("a.go")
    assert refused(content.replace(b"a.go", b"b.go", 1)) == "zip.format"


def test_a_zip_that_hides_a_file_from_some_readers_is_refused():
    content = module_zip("a.go", "b.go", "c.go")
    hidden = 46 + len(f"{PREFIX}b.go")
    for field in (EXTRA_LENGTH, COMMENT_LENGTH):
        assert refused(patched(content, f"{PREFIX}a.go", field, hidden, local=False)) == "zip.format"
        assert refused(patched(content, f"{PREFIX}c.go", field, 22, local=False)) == "zip.format"


@pytest.mark.parametrize(("offset", "kind"), [(10, "H"), (12, "I"), (16, "I"), (20, "H")])
def test_a_zip_whose_end_disagrees_with_its_directory_is_refused(offset: int, kind: str):
    content = bytearray(module_zip("a.go"))
    at = content.rindex(b"PK\5\6") + offset
    struct.pack_into(f"<{kind}", content, at, struct.unpack_from(f"<{kind}", content, at)[0] + 1)
    assert refused(bytes(content)) == "zip.format"


def test_a_zip_with_bytes_before_or_after_it_is_refused():
    content = module_zip("a.go")
    assert refused(b"#!/bin/sh\n" + content) == "zip.format"
    assert refused(content + b"\n") == "zip.format"
    assert refused(content + content) == "zip.format"


def test_a_zip_of_more_files_than_a_short_directory_counts_is_accepted():
    content = module_zip(*map(str, range(66_000)))
    assert b"PK\6\6" in content
    assert check(content).files == 66_001
    at = content.rindex(b"PK\6\6")
    for offset in (32, 48):
        damaged = bytearray(content)
        damaged[at + offset] ^= 1
        assert refusal(lambda damaged=damaged: check(bytes(damaged)), Malformed) == "zip.format"


def directory_of(count: int, name: Callable[[int], str]) -> bytes:
    """A zip that is little but a directory of `count` entries."""
    entries = []
    for number in range(count):
        encoded = name(number).encode()
        entries.append(struct.pack("<4s6H3L5H2L", CENTRAL, 20, 20, *[0] * 7, len(encoded), *[0] * 6) + encoded)
    directory = b"".join(entries)
    claimed = min(count, 0xFFFE)
    return directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, claimed, claimed, len(directory), 0, 0)


def test_a_zip_of_too_many_files_is_refused_in_little_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parse, "MAX_FILES", 10_000)
    content = directory_of(100_000, lambda number: f"{PREFIX}{number}")
    assert peak_of(lambda: refused(content, TooLarge)) < 2 * len(content) + (4 << 20)
    assert refused(directory_of(10_001, lambda number: f"{PREFIX}{number}"), TooLarge) == "zip.files"
    monkeypatch.setattr(parse, "MAX_FILES", 3)
    assert refused(module_zip("a", "b", "c"), TooLarge) == "zip.files"
    assert check(module_zip("a", "b")).files == 3


def test_a_zip_whose_directory_is_too_large_is_refused():
    content = directory_of(600, lambda number: f"{PREFIX}{number}/{'x' * 60_000}")
    assert len(content) > parse.MAX_DIRECTORY
    assert refused(content, TooLarge) == "zip.files"


@pytest.mark.parametrize("name", ["{0}/{1}a", "{1}a{0}"])
def test_a_zip_of_deep_folders_is_judged_quickly_and_in_little_room(name: str):
    content = directory_of(300, lambda number: PREFIX + name.format(number, "a/" * 15_000))
    begun = time.perf_counter()
    assert peak_of(lambda: refused(content, TooLarge)) < 500 << 20
    assert time.perf_counter() - begun < 20


@pytest.mark.parametrize("number", [1, 3])
def test_a_file_may_be_in_many_folders(number: int):
    assert check(module_zip(*(f"{'a/' * 200}{name}" for name in range(number)))).files == number + 1


def test_a_zip_is_read_in_little_room():
    content = make_zip(MODULE, VERSION, {"a": bytes(100 << 20)})
    assert peak_of(lambda: check(content)) < 8 << 20


def test_a_failing_disk_is_not_taken_for_a_damaged_zip():
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError):
        parse.check_zip(Failing(module_zip()), MODULE, VERSION, published=True)
