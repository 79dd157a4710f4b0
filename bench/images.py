"""Scenario `oci`: pulls and pushes of manifests and blobs, by the same requests at every registry.

The bench itself pushes what is pulled, new in each run, so that whoever speaks the distribution specification can be measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import urllib3

from bench import clients, load, rates, targets
from bench.clients import Push, Registry
from bench.corpus import Kind, digest
from bench.load import Sample
from bench.targets import Target
from tests.parts import oci as parts

LAYERS = 8
"""Of an image; its manifest has some 1,800 bytes."""
LARGE_BLOBS = 4
SMALL, LARGE, CHUNK = 64 << 10, 10 << 20, 2 << 20
CHECKED = 10
"""HEADs of each kind that are looked at, and pushed blobs that are asked for again."""
ACCEPT = {"Accept": parts.MANIFEST}


def oci(options: Any, folder: Path, facts: dict[str, str]) -> list[dict]:
    """Manifests and blobs pulled from a local repository, blobs pushed to it: as a whole, and in chunks."""
    content = Content.made(options.images)
    document = {"repositories": [{"key": "bench-oci", "format": "oci", "kind": "local"}]}
    image = f"bench-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        started = rates.start(options, folder, facts, document, {"local": "bench-oci"}, stack, role="developer")
        ours = [one for _, one in started]
        everybody = [of_image(target, image) for target in rates.set_beside(ours, options.peer)]
        signed_in = by_token_service if options.bearer else lambda target: target
        for target in everybody:
            content.push(signed_in(target))
        works = [work for work in (*pulls(content, options), *pushes(options)) if options.only in work.name]
        return [one for work in works for one in _compared(work, everybody, options.rounds, signed_in)]


def _compared(work: Work, everybody: Sequence[Target], rounds: int, signed_in: Callable[[Target], Target]) -> list[dict]:
    for target in everybody:
        work.check(signed_in(target))
    results = rates.compared(work.name, everybody, rounds, lambda target: work.measure(signed_in(target)))
    for target in everybody:
        work.check(signed_in(target))
    return results


class Work(Protocol):
    """One kind of request or push, by name."""

    name: str

    def measure(self, target: Target) -> Sample: ...

    def check(self, target: Target) -> None:
        """Before and after all rounds: RuntimeError where something else is there than what was pushed. It also warms it."""


@dataclass(frozen=True)
class Content:
    """What is pulled: manifests by their tags, and blobs of both sizes, of which the manifests have the small ones as layers."""

    config: bytes
    small: list[bytes]
    large: list[bytes]
    manifests: dict[str, bytes]

    @classmethod
    def made(cls, images: int) -> Content:
        config = json.dumps({"architecture": "amd64", "os": "linux", "made": secrets.token_hex(16)}).encode()
        small, large = ([os.urandom(size) for _ in range(count)] for size, count in ((SMALL, images), (LARGE, LARGE_BLOBS)))
        turned = [small[n:] + small[:n] for n in range(images)]
        return cls(config, small, large, {f"v{n}": parts.manifest(config, *turned[n][:LAYERS]) for n in range(images)})

    def push(self, target: Target) -> None:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda blob: _push_one(target, blob), [self.config, *self.small, *self.large]))
            list(threads.map(lambda tag: _put_one(target, tag, self.manifests[tag]), self.manifests))


def _push_one(target: Target, blob: bytes) -> None:
    with Registry(target) as registry:
        registry.push(blob, parts.digest(blob))


def _put_one(target: Target, tag: str, manifest: bytes) -> None:
    with Registry(target) as registry:
        registry.put_manifest(tag, manifest, parts.MANIFEST)


def of_image(target: Target, image: str) -> Target:
    """The target below whose base are an image's manifests and blobs, which the client takes as they are."""
    url = urlsplit(target.base)
    return replace(target, base=urlunsplit(url._replace(path=f"/v2{url.path}/{image}")), headers={**target.headers, **ACCEPT})


# Pulling


def pulls(content: Content, options: Any) -> Iterator[Work]:
    """Many in turn, and one alone."""

    get, head = (partial(one, **rates.load_of(options)) for one in (load.full, clients.head))
    by_tag = {f"manifests/{tag}": manifest for tag, manifest in content.manifests.items()}
    by_digest = {f"manifests/{parts.digest(manifest)}": manifest for manifest in content.manifests.values()}
    small, large = ({f"blobs/{parts.digest(blob)}": blob for blob in blobs} for blobs in (content.small, content.large))
    for name, bodies, how in (
        ("manifest by digest", by_digest, get),
        ("manifest by tag", by_tag, get),
        ("HEAD of a manifest by tag", by_tag, head),
        ("blob of 64 KiB", small, get),
        ("blob of 10 MiB", large, get),
    ):
        yield Pulls(name, bodies, how)
        yield Pulls(f"{name}, one", dict([next(iter(bodies.items()))]), how)


@dataclass(frozen=True)
class Pulls:
    """The paths of `bodies` asked for in turn; see Work."""

    name: str
    bodies: Mapping[str, bytes]
    how: Callable[[Target, Sequence[str]], Sample]

    def measure(self, target: Target) -> Sample:
        return self.how(target, list(self.bodies))

    def check(self, target: Target) -> None:
        """Also that a HEAD tells what a GET would."""
        targets.check([target], [Kind(self.name, tuple(self.bodies), digest)], self.bodies)
        pool = urllib3.PoolManager(timeout=120.0, retries=False)
        for path in random.sample(list(self.bodies), min(CHECKED, len(self.bodies))):
            answer = pool.request("HEAD", f"{target.base}/{path}", headers=target.headers)
            told = answer.status, answer.headers.get("Docker-Content-Digest"), answer.headers.get("Content-Length")
            if told != (200, parts.digest(self.bodies[path]), str(len(self.bodies[path]))):
                raise RuntimeError(f"{target.name} answers the HEAD of {path} with {told}")


# Pushing


def pushes(options: Any) -> Iterator[Work]:
    for name, how in (
        ("push of 64 KiB", Push(SMALL)),
        ("push of 10 MiB", Push(LARGE)),
        ("push of 10 MiB in chunks", Push(LARGE, CHUNK)),
    ):
        yield Pushes(name, partial(clients.push, how=how, **rates.load_of(options)), how.size)


@dataclass(frozen=True)
class Pushes:
    """New blobs pushed; see Work. `pushed`: some of their digests, by the name of the target."""

    name: str
    how: Callable[[Target], tuple[Sample, list[str]]]
    size: int
    pushed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def measure(self, target: Target) -> Sample:
        sample, digests = self.how(target)
        self.pushed[target.name] += digests
        return sample

    def check(self, target: Target) -> None:
        pool = urllib3.PoolManager(timeout=120.0, retries=False)
        pushed = self.pushed[target.name]
        for one in random.sample(pushed, min(CHECKED, len(pushed))):
            answer = pool.request("GET", f"{target.base}/blobs/{one}", headers=target.headers)
            if answer.status != 200 or len(answer.data) != self.size or parts.digest(answer.data) != one:
                raise RuntimeError(f"{target.name} answers {answer.status}, or other bytes, for what was pushed as {one}")


# Signing in


def by_token_service(target: Target) -> Target:
    """With a pass of the token service that the registry names to who does not sign in, as Docker's client gets one.

    Anew for each measurement, since a pass may be good for minutes only.
    """
    pool = urllib3.PoolManager(timeout=60.0, retries=False)
    url = urlsplit(target.base)
    challenge = pool.request("GET", f"{url.scheme}://{url.netloc}/v2/").headers.get("WWW-Authenticate", "")
    told = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if not challenge.lower().startswith("bearer ") or "realm" not in told:
        return target
    fields = {"scope": f"repository:{url.path.removeprefix('/v2/')}:pull,push", "service": told.get("service", "")}
    answer = pool.request("GET", told["realm"], fields=fields, headers=target.headers)
    said = json.loads(answer.data) if answer.status == 200 else {}
    text = said.get("token") or said.get("access_token")
    if not text:
        raise RuntimeError(f"the token service of {target.name} answers {answer.status} and gives no token")
    return replace(target, headers={**target.headers, "Authorization": f"Bearer {text}"})
