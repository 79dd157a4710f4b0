"""Measures requests against Entrepot, beside others in the same run, and prints figures with what they were measured on."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import crowd, images, load, machine, rates
from bench.targets import peer

EPILOG = """
Figures are the median of the rounds, with the lowest and the highest. `N x NAME` is requests a second divided by those of NAME,
round by round.

A peer is given by the URL below which its modules are: --peer goproxy=http://127.0.0.1:8081. It must answer what the module
proxy of this machine answers, or nothing is measured. Many Go module proxies ask their upstream for each @v/list and @latest: let
them have the upstream that Entrepot has in the run (--upstream-port 8099, and as the peer's upstream http://127.0.0.1:8099), so
that no load reaches a real registry.

For `oci` a peer is a registry, with what its images' names begin with, if anything: --peer distribution=http://127.0.0.1:5000/bench.
The bench pushes to it what it then pulls, and leaves it there.
"""


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    options.database = options.database or ["sqlite"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped too
    try:
        load.check_wrk()
        with tempfile.TemporaryDirectory(prefix="entrepot-bench-") as folder:
            facts = machine.facts()
            results = options.scenario(options, Path(folder), facts)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("\n" + "\n".join(f"{name:12} {value}" for name, value in facts.items()))
    if options.json:
        chosen = {name: value for name, value in vars(options).items() if isinstance(value, int | str)}
        options.json.write_text(json.dumps({"machine": facts, "options": chosen, "results": results}, indent=1) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev bench", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scenarios = parser.add_subparsers(required=True, metavar="SCENARIO")
    for name, run in {
        "go": rates.go,
        "files": rates.files,
        "oci": images.oci,
        "black-hole": crowd.black_hole,
        "slow-clients": crowd.slow_clients,
    }.items():
        one = scenarios.add_parser(name, help=run.__doc__, description=run.__doc__)
        one.set_defaults(scenario=run, name=name)
        _add_common(one)
    for name in ("go", "files", "oci"):
        _add_others(scenarios.choices[name])
    for name in ("go", "files"):
        scenarios.choices[name].add_argument(
            "--nginx", action="store_true", help="measure nginx too, with the same content as static files"
        )
    scenarios.choices["oci"].add_argument(
        "--images",
        type=int,
        default=300,
        help="manifests, tags and blobs of 64 KiB that are asked for in turn (default %(default)s)",
    )
    scenarios.choices["oci"].add_argument(
        "--bearer", action="store_true", help="sign in by the token service that a registry names, not by name and token"
    )
    _add_upstream(scenarios.choices["go"])
    for name in ("black-hole", "slow-clients"):
        scenarios.choices[name].add_argument("--rate", type=int, default=100, help="requests a second (default %(default)s)")
    scenarios.choices["black-hole"].add_argument("--clients", type=int, default=100, help="(default %(default)s)")
    scenarios.choices["slow-clients"].add_argument("--downloads", type=int, default=100, help="(default %(default)s)")
    scenarios.choices["slow-clients"].add_argument("--uploads", type=int, default=40, help="(default %(default)s)")
    return parser


def _add_others(one: argparse.ArgumentParser) -> None:
    one.add_argument("--peer", action="append", type=peer, default=[], metavar="NAME=URL", help="measure this too")
    one.add_argument("--clone", type=Path, metavar="FOLDER", help="measure the code of another clone of Entrepot too")
    one.add_argument("--only", default="", metavar="TEXT", help="only what has TEXT in its name")
    one.add_argument("--connections", type=int, default=16, help="that each is asked by (default %(default)s)")


def _add_upstream(one: argparse.ArgumentParser) -> None:
    one.add_argument("--upstream", metavar="URL", help="where the modules come from; default: what `go env GOPROXY` names")
    one.add_argument(
        "--upstream-port", type=int, default=0, metavar="PORT", help="of the upstream on loopback that says it again"
    )


def _add_common(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--database",
        action="append",
        metavar="DATABASE",
        help="sqlite (the default), postgres (a private one is started), or the URL of an empty one; may be repeated",
    )
    one.add_argument("--rounds", type=int, default=5, help="(default %(default)s)")
    one.add_argument("--seconds", type=int, default=3, help="of each measurement (default %(default)s)")
    one.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round to this file")


if __name__ == "__main__":
    sys.exit(main())
