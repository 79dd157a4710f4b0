"""Scenarios `go` and `files`, and what `oci` has in common with them: as many requests as each can do, in interleaved rounds.

The same round's rates are divided, so that what else the machine was doing meanwhile falls on both sides; the median of the
rounds' ratios is shown with the lowest and the highest.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
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
            ours = [one for _, one in start(options, folder, facts, document, through, stack)]
            return _measured(corpus.GO, ours, content, options, folder, facts, stack)
    finally:
        upstream.stop()


def files(options: Any, folder: Path, facts: dict[str, str]) -> list[dict]:
    """Plain files of three sizes in a local repository."""
    content = corpus.made_files()
    document = {"repositories": [{"key": "bench-files", "format": "raw", "kind": "local"}]}
    with contextlib.ExitStack() as stack:
        ours = []
        for server, one in start(options, folder, facts, document, {"local": "raw/bench-files"}, stack):
            ours.append(one)
            for name, body in content.items():
                status = server.request("PUT", f"/raw/bench-files/{name}", body, user=targets.ADMIN).status
                if status not in (200, 201):
                    raise RuntimeError(f"{one.name} answers {status} to the PUT of {name}")
        return _measured(corpus.FILES, ours, content, options, folder, facts, stack)


def start(
    options: Any,
    folder: Path,
    facts: dict[str, str],
    document: dict,
    through: Mapping[str, str],
    stack: contextlib.ExitStack,
    role: str = "reader",
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
            server, headers = stack.enter_context(targets.entrepot(data, url, document, clone, role))
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
    everybody = set_beside(ours, others)
    targets.check(everybody, kinds, content)
    return [
        one
        for kind in kinds
        for one in compared(kind.name, everybody, options.rounds, partial(load.full, paths=kind.paths, **load_of(options)))
    ]


def set_beside(ours: Sequence[Target], others: Sequence[Target]) -> list[Target]:
    """All of them, each of ours to be compared to each of the others."""
    names = tuple(other.name for other in others)
    return [replace(one, beside=one.beside + names) for one in ours] + list(others)


def load_of(options: Any) -> dict[str, int]:
    return {"seconds": options.seconds, "connections": options.connections}


def compared(name: str, everybody: Sequence[Target], rounds: int, measure: Callable[[Target], Sample]) -> list[dict]:
    """Measure one kind of request and print what it came to; the figures of every round."""
    samples: dict[str, list[Sample]] = {target.name: [] for target in everybody}
    for n in range(rounds):
        for target in everybody[:: -1 if n % 2 else 1]:  # nobody is always the first, nor always after the same one
            sample = _costed(target, measure)
            if sample.failed:
                raise RuntimeError(f"{target.name}: {sample.failed} requests for {name} failed")
            samples[target.name].append(sample)
    print(f"\n{name:34} {'requests/s':>24} {'p50 ms':>20} {'p99 ms':>22} {'processor us':>20}")
    for target in everybody:
        mine = samples[target.name]
        rate, p50, p99, cost = (spread([getattr(sample, field) for sample in mine], form) for field, form in FORMS.items())
        print(f"  {target.name:32} {rate:>24} {p50:>20} {p99:>22} {cost if target.processes else '':>20}")
        for other in target.beside:
            ratios = [a.rate / b.rate for a, b in zip(mine, samples[other], strict=True)]
            print(f"  {'':32} {spread(ratios, '.3g') + ' x ' + other:>24}", flush=True)
    return [
        {"kind": name, "target": target.name, "rounds": [asdict(sample) for sample in samples[target.name]]}
        for target in everybody
    ]


def _costed(target: Target, measure: Callable[[Target], Sample]) -> Sample:
    before = target.processor_seconds()
    sample = measure(target)
    used = target.processor_seconds() - before
    return replace(sample, cost=used / sample.requests * 1e6 if sample.requests else 0.0)


FORMS = {"rate": ",.0f", "p50": ".1f", "p99": ".1f", "cost": ",.0f"}


def spread(values: Iterable[float], form: str) -> str:
    """The median, with the lowest and the highest."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):{form}} ({ordered[0]:{form}}-{ordered[-1]:{form}})"
