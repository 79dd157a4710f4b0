"""Which repositories may answer for a path, and in which order. The whole rule:

1. A local or remote repository answers for itself; a virtual one by its members, locals before remotes, else in their order.
2. A name that a local member holds, or held, is that local's: no remote is asked, whatever the caller may see.
3. A name that matches `private` of the virtual or the remote is never asked of an upstream.
4. Each member answers only callers that may read the name there.
5. The first that has it answers; where the path says the digest of what can be there, the first that has it here already, so
   that no upstream is asked for it. A remote's failure is the answer too: a later member might hold something else by that name;
   unless it said before that it has none, and a later member has what can never change, or the path says the digest of what
   can be there.
"""

from __future__ import annotations

from dataclasses import replace

from problems import Forbidden, NotFound, Unavailable, UpstreamFailed, absent
from repos import proxy, rows
from repos.call import Query
from repos.catalogue import Repo
from repos.fill import Fill
from repos.rows import Found, Known


def answering(query: Query, known: Known) -> list[Repo]:
    """The repositories that may answer `query`, by rules 1 to 4. `known` tells of ownership."""
    owned = bool(known.owners) and query.repo.is_virtual
    private = query.repo.private.match(query.repo.format.package(query.path))
    return [repo for repo in query.readable if repo.is_local or not (owned or private)]


def look(query: Query) -> Known:
    """What the rows know of the path everywhere behind the repository, the caller's rights aside: ownership is decided first."""
    return rows.look(query.repo.answering, query.path, ownership=query.repo.is_virtual)


def find(query: Query, *, cached_only: bool = False) -> Found | Fill:
    """What stands at the path of `query`. Raises NotFound, Forbidden where a pattern refused it, and a remote's failure."""
    known = look(query)
    found = _find(query, known, cached_only=cached_only)
    return replace(found, heads=_heads(query, known, found)) if known.heads and isinstance(found, Found) else found


def _heads(query: Query, known: Known, found: Found) -> tuple[tuple[int, int], ...]:
    """Of the local repositories that would have gone first: as long as these stay, so does what was found."""
    asked = [repo.id for repo in query.repo.answering]
    return tuple((id, known.heads[id]) for id in asked[: asked.index(found.repository_id)] if id in known.heads)


def _find(query: Query, known: Known, *, cached_only: bool) -> Found | Fill:
    refusal: Forbidden | None = None
    failure: UpstreamFailed | Unavailable | None = None
    members = answering(query, known)
    if query.repo.format.digest(query.path):
        members.sort(key=lambda repo: repo.id not in known.assets)
    for n, repo in enumerate(members):
        asset = known.assets.get(repo.id)
        if repo.is_remote:
            try:
                fresh = known.fresh.get(repo.id)
                return proxy.get(repo, query.path, asset, fresh, cached_only=cached_only, accept=query.accept)
            except NotFound:
                continue
            except Forbidden as error:
                refusal = refusal or error
            except (UpstreamFailed, Unavailable) as error:
                failure = failure or error
                settled = _had_none(repo, known) and _is_held(members[n + 1 :], query.path, known)
                if not settled and not query.repo.format.digest(query.path):
                    raise
        elif asset is not None:
            return asset
    raise failure or refusal or absent(query.path)


def _had_none(repo: Repo, known: Known) -> bool:
    fresh = known.fresh.get(repo.id)
    return fresh is not None and fresh.missing


def _is_held(members: list[Repo], path: str, known: Known) -> bool:
    return any(repo.id in known.assets and repo.never_changes(path) for repo in members)
