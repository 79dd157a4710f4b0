"""What the lines of a go.sum, and of a list of modules, ask for."""

from __future__ import annotations

import hashlib

import pytest

from problems import Malformed
from repos.formats.go import ahead

GO_SUM = """\
github.com/BurntSushi/toml v0.3.1 h1:WXkYYl6Yr3qBf1K79EBnL4mak0OimBfB0XUf9Vl28OQ=
github.com/BurntSushi/toml v0.3.1/go.mod h1:xHWCNGjB5oqiDr8zfno3MHue2Ht5sIBksp03qcyfWMU=
example.com/old v2.0.0+incompatible h1:AAAA=
"""


def test_a_go_sum_asks_for_the_files_that_its_digests_are_of():
    zipped, mod, old = ahead.wanted(GO_SUM)
    at = "github.com/!burnt!sushi/toml/@v/v0.3.1"
    assert zipped.paths == (f"{at}.info", f"{at}.mod", f"{at}.zip")
    assert zipped.digest == "h1:WXkYYl6Yr3qBf1K79EBnL4mak0OimBfB0XUf9Vl28OQ="
    assert (mod.paths, mod.digest) == ((f"{at}.mod",), "h1:xHWCNGjB5oqiDr8zfno3MHue2Ht5sIBksp03qcyfWMU=")
    assert old.paths[-1] == "example.com/old/@v/v2.0.0+incompatible.zip"


def test_a_list_asks_for_versions_and_for_what_queries_lead_to():
    plain, latest, branch = ahead.wanted("# ours\n\nrsc.io/quote@v1.5.2  # pinned\nrsc.io/quote@latest\nrsc.io/Quote@main\n")
    assert plain.paths == tuple(f"rsc.io/quote/@v/v1.5.2.{suffix}" for suffix in ("info", "mod", "zip"))
    assert (latest.asked, latest.merged) == (("rsc.io/quote/@v/list", "rsc.io/quote/@latest"), True)
    assert (branch.asked, branch.merged) == (("rsc.io/!quote/@v/main.info",), False)


def test_of_several_lists_the_newest_release_is_taken():
    paths = ahead.named_in("rsc.io/quote/@v/list", [b"v1.0.0\nv1.9.0-pre\n", b"v1.2.0\n"])
    assert paths[0] == "rsc.io/quote/@v/v1.2.0.info"
    assert ahead.named_in("rsc.io/quote/@v/list", [b""]) == ()
    assert ahead.named_in("rsc.io/quote/@latest", [b'{"Version":"v1.3.0"}'])[2] == "rsc.io/quote/@v/v1.3.0.zip"


def test_the_digest_of_a_go_mod_is_that_of_a_tree_of_one_file():
    """As `go mod download` writes it for rsc.io/sampler v1.3.0."""
    content = b'module "rsc.io/sampler"\n\nrequire "golang.org/x/text" v0.0.0-20170915032832-14c0d48ead0c\n'
    digest = ahead.h1("rsc.io/sampler/@v/v1.3.0.mod", hashlib.sha256(content).hexdigest())
    assert digest == "h1:T1hPZKmBbMNahiBKFy5HrXp6adAjACjK9JXDnKaTXpA="


@pytest.mark.parametrize(
    "line",
    [
        "no version",
        "rsc.io/quote",
        "rsc.io/quote@",
        "quote@v1.0.0",
        "rsc.io/quote@v1.0.0 trailing",
        "rsc.io/quote@../../etc",
        "rsc.io/quote@v2.0.0",
        "rsc.io/quote latest h1:AAAA=",
        "rsc.io/quote v2.0.0 h1:AAAA=",
        "rsc.io/quote v1.0.0 h1:A B",
        "rsc.io/../quote v1.0.0 h1:A",
    ],
)
def test_a_line_that_asks_for_nothing_is_refused_by_its_number(line):
    with pytest.raises(Malformed) as refused:
        list(ahead.wanted(f"rsc.io/quote@v1.0.0\n{line}\n"))
    assert refused.value.detail.startswith("line 2: ")
