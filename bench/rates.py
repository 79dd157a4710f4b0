"""Scenarios `go` and `files`: as many requests as each can do, in interleaved rounds, with the ratios of each round.

The same round's rates are divided, so that what else the machine was doing meanwhile falls on both sides; the median of the
rounds' ratios is shown with the lowest and the highest.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import corpus, load, targets
from bench.corpus import Kind
from bench.load import Sample
from bench.targets import Target
from tests.parts import golang
from tests.parts.server import ROOT, Server
from tests.parts.upstream import Upstream

LIFETIME = "1d"
"""Of documents: longer than a run, so that all are warm."""


def go(options: Any, folder: Path, facts: dict[str, str]) -> list[dict]:
    """Module files, lists and newest versions through a remote repository and through a virtual one."""
    content = corpus.modules(options.upstream or golang.upstream())
    upstream = Upstream(options.upstream_port)
    upstream.routes.update({f"/{path}": body for path, body in content.items()})
    document = {
        "repositories": [
            {"key": "bench-local", "format": "go", "kind": "local"},
            {"key": "bench-remote", "format": "go", "kind": "remote", "upstreams": [{"url": upstream.url}],
             "cache": {"lifetime": LIFETIME}},
            {"key": "bench", "format": "go", "kind": "virtual", "members": ["bench-local", "bench-remote"]},
        ]
    }  # fmt: skip
    try:
        with contextlib.ExitStack() as stack:
            through = {"remote": "go/bench-remote", "virtual": "go/bench"}
            ours = [one for _, one in _ours(options, folder, facts, document, through, stack)]
            return _measured(corpus.GO, ours, content, options, folder, facts, stack)
    finally:
        upstream.stop()


def files(options: Any, folder: Path, facts: dict[str, str]) -> list[dict]:
    """Plain files of three sizes in a local repository."""
    content = corpus.made_files()
    document = {"repositories": [{"key": "bench-files", "format": "raw", "kind": "local"}]}
    with contextlib.ExitStack() as stack:
        ours = []
        for server, one in _ours(options, folder, facts, document, {"local": "raw/bench-files"}, stack):
            ours.append(one)
            for name, body in content.items():
                status = server.request("PUT", f"/raw/bench-files/{name}", body, user=targets.ADMIN).status
                if status not in (200, 201):
                    raise RuntimeError(f"{one.name} answers {status} to the PUT of {name}")
        return _measured(corpus.FILES, ours, content, options, folder, facts, stack)


def _ours(
    options: Any, folder: Path, facts: dict[str, str], document: dict, through: Mapping[str, str], stack: contextlib.ExitStack
) -> Iterator[tuple[Server, Target]]:
    """Start Entrepot for each database, of this clone and of another if one is named."""
    clones = {"": ROOT} | ({"other ": options.clone} if options.clone else {})
    for chosen in options.database:
        kind = chosen.partition(":")[0]
        for prefix, clone in clones.items():
            url, database = stack.enter_context(targets.database(chosen))
            if url:
                facts["PostgreSQL"] = targets.postgres_version(url)
            data = folder / f"{prefix.strip()}{len(facts)}{kind}"
            server, headers = stack.enter_context(targets.entrepot(data, url, document, clone))
            for way, base in through.items():
                beside = (f"other {kind} {way}",) if options.clone and not prefix else ()
                processes = (server.process, *database)
                yield server, Target(f"{prefix}{kind} {way}", f"{server.url}/{base}", headers, beside, processes)


def _measured(
    kinds: Sequence[Kind],
    ours: Sequence[Target],
    content: Mapping[str, bytes],
    options: Any,
    folder: Path,
    facts: dict[str, str],
    stack: contextlib.ExitStack,
) -> list[dict]:
    kinds = [kind for kind in kinds if options.only in kind.name]
    others = list(options.peer)
    if options.nginx:
        others.append(stack.enter_context(targets.nginx(folder / "nginx", content, facts)))
    names = tuple(other.name for other in others)
    everybody = [replace(one, beside=one.beside + names) for one in ours] + others
    targets.check(everybody, kinds, content)
    return [one for kind in kinds for one in _compared(kind, everybody, options)]


def _compared(kind: Kind, everybody: Sequence[Target], options: Any) -> list[dict]:
    """Measure one kind of request and print what it came to; the figures of every round."""
    samples: dict[str, list[Sample]] = {target.name: [] for target in everybody}
    for n in range(options.rounds):
        for target in everybody[:: -1 if n % 2 else 1]:  # nobody is always the first, nor always after the same one
            sample = _sample(target, kind, options)
            if sample.failed:
                raise RuntimeError(f"{target.name}: {sample.failed} requests for {kind.name} failed")
            samples[target.name].append(sample)
    print(f"\n{kind.name:24} {'requests/s':>24} {'p50 ms':>20} {'p99 ms':>22} {'processor us':>20}")
    for target in everybody:
        mine = samples[target.name]
        rate, p50, p99, cost = (spread([getattr(sample, name) for sample in mine], form) for name, form in FORMS.items())
        print(f"  {target.name:22} {rate:>24} {p50:>20} {p99:>22} {cost if target.processes else '':>20}")
        for name in target.beside:
            ratios = [a.rate / b.rate for a, b in zip(mine, samples[name], strict=True)]
            print(f"  {'':22} {spread(ratios, '.3g') + ' x ' + name:>24}", flush=True)
    return [
        {"kind": kind.name, "target": target.name, "rounds": [asdict(sample) for sample in samples[target.name]]}
        for target in everybody
    ]


def _sample(target: Target, kind: Kind, options: Any) -> Sample:
    before = target.processor_seconds()
    sample = load.full(target, kind.paths, options.seconds, options.connections)
    used = target.processor_seconds() - before
    return replace(sample, cost=used / (sample.rate * options.seconds) * 1e6 if sample.rate else 0.0)


FORMS = {"rate": ",.0f", "p50": ".1f", "p99": ".1f", "cost": ",.0f"}


def spread(values: Iterable[float], form: str) -> str:
    """The median, with the lowest and the highest."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):{form}} ({ordered[0]:{form}}-{ordered[-1]:{form}})"
