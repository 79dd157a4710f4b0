"""Which upstreams of a repository may be asked for which path."""

from __future__ import annotations

import pytest

from accounts.globs import compile_glob
from repos.catalogue import Patterns, Repo, Upstream
from repos.formats.go import FORMAT


def patterns(*globs: str) -> Patterns:
    return Patterns(tuple(compile_glob(glob) for glob in globs))


GIT = Upstream("https://git.corp.example/team", vcs="git")
CLAIMING = Upstream("https://claiming.example", match=patterns("corp.example/**", "git.corp.example/other/*"))
SECOND = Upstream("https://second.example", match=patterns("corp.example/**"))
PROXY, MIRROR = Upstream("https://proxy.example"), Upstream("https://mirror.example")
SUMS = Upstream("https://sums.example", folder="sumdb/sum.corp.example", match=patterns("corp.example/**"))
LONGER = Upstream("https://longer.example", folder="sumdb/sum.corp.example/team")
ALL = (GIT, CLAIMING, SECOND, PROXY, MIRROR, SUMS, LONGER)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("public.example/m/@v/list", [PROXY, MIRROR]),
        ("corp.example/m/@v/list", [CLAIMING, SECOND]),
        ("git.corp.example/team/lib/@v/v1.0.0.zip", [GIT]),
        ("git.corp.example/team/@latest", [GIT]),
        ("git.corp.example/teams/lib/@latest", [PROXY, MIRROR]),
        ("git.corp.example/other/lib/@latest", [CLAIMING]),
        ("sumdb/sum.public.example/latest", [CLAIMING, SECOND, PROXY, MIRROR]),
        ("sumdb/sum.public.example/lookup/public.example/m@v1.0.0", [PROXY, MIRROR]),
        ("sumdb/sum.public.example/lookup/corp.example/m@v1.0.0", [CLAIMING, SECOND]),
        ("sumdb/sum.public.example/lookup/git.corp.example/team/lib@v1.0.0", [GIT]),
        ("sumdb/sum.corp.example/latest", [SUMS]),
        ("sumdb/sum.corp.example/lookup/corp.example/m@v1.0.0", [SUMS]),
        ("sumdb/sum.corp.example/lookup/public.example/m@v1.0.0", []),
        ("sumdb/sum.corp.example/lookup/git.corp.example/team/lib@v1.0.0", []),
        ("sumdb/sum.corp.example/team/latest", [LONGER]),
        ("sumdb/sum.corp.example/team/lookup/corp.example/m@v1.0.0", []),
        ("sumdb/sum.corp.example/team/lookup/public.example/m@v1.0.0", [LONGER]),
    ],
)
def test_a_name_goes_to_those_that_claim_it_and_a_folder_to_the_longest(path, expected):
    repo = Repo(id=1, key="r", format=FORMAT, kind="remote", seeded=False, upstreams=ALL)
    assert repo.sources(path) == expected


def test_where_no_upstream_is_for_a_name_none_is_asked():
    repo = Repo(id=1, key="r", format=FORMAT, kind="remote", seeded=False, upstreams=(GIT, CLAIMING))
    assert repo.sources("public.example/m/@v/list") == []


def test_a_folder_is_asked_for_what_is_in_it():
    assert SUMS.within("sumdb/sum.corp.example/tile/8/0/000") == "tile/8/0/000"
    assert PROXY.within("sumdb/sum.public.example/latest") == "sumdb/sum.public.example/latest"
