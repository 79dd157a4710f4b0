"""Lanes: scripted upstreams, each behind repositories of its own, so that what one of them did is nothing to the next test."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.parts.server import ADMIN_PASSWORD, Answer, Server, named
from tests.parts.upstream import Upstream

ADMIN = ("admin", ADMIN_PASSWORD)
TIMEOUT = "2s"
"""What a lane's upstream may take."""
LONGEST = 40.0
"""Seconds within which a lane's client has its answer, however slow the upstream is: against hangs, not to measure."""


@dataclass(frozen=True)
class Lane:
    """One upstream, and four repositories that lead to it: a remote and a virtual of each of two formats."""

    server: Server
    upstream: Upstream
    key: str

    def get(self, form: str, path: str, *, virtual: bool = False, **headers: str) -> Answer | None:
        """The answer, or None where a client that checks framing gets none that is whole."""
        repository = f"{self.key}-{form}{'-virtual' if virtual else ''}"
        with contextlib.suppress(http.client.HTTPException, OSError):
            return self.server.request("GET", f"/{form}/{repository}/{path}", headers=named(headers), user=ADMIN)
        return None

    def repositories(self, **options: Any) -> list[dict]:
        """The configuration of the four; `options` are the remotes'."""
        upstreams = {"upstreams": [{"url": self.upstream.url, "timeout": TIMEOUT}], "cache": {"lifetime": "0s", "missing": "0s"}}
        return [
            one
            for form in ("raw", "go")
            for one in (
                {"key": f"{self.key}-{form}", "format": form, "kind": "remote", **upstreams, **options},
                {"key": f"{self.key}-{form}-virtual", "format": form, "kind": "virtual", "members": [f"{self.key}-{form}"]},
            )
        ]

    def on(self, server: Server) -> Lane:
        """The same by way of another node."""
        return replace(self, server=server)


def open_lanes(server: Server, upstream: Callable[[], Upstream], count: int) -> Iterator[Lane]:
    """So many lanes, each to be taken once."""
    lanes = [Lane(server, upstream(), f"lane{n}") for n in range(count)]
    server.apply({"repositories": [one for lane in lanes for one in lane.repositories()]})
    return iter(lanes)


def failed(answer: Answer | None) -> bool:
    """Whether the client knows that it has not got it, and does not think that there is none."""
    return answer is None or answer.status >= 500
