"""The audit: who did what, when, from where. Lines are added and never changed.

record   something that was done, in the transaction in which it is: both are, or neither
notice   something that may come in floods, such as refusals
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from accounts.models import Event


@dataclass(frozen=True, slots=True)
class Origin:
    """Who acts, by which token, from which address, in which request. A job, or a command, has no address."""

    actor: str = ""
    token: int | None = None
    address: str = ""
    request: str = ""


_NOBODY = Origin()
_HERE: ContextVar[Origin] = ContextVar("origin", default=_NOBODY)


def here() -> Origin:
    """The origin of what this thread does now."""
    return _HERE.get()


def enter(origin: Origin) -> None:
    """Say who acts in this thread from now on, until somebody else does."""
    _HERE.set(origin)


def record(
    action: str,
    *,
    repository: str = "",
    subject: str = "",
    refused: bool = False,
    detail: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
) -> None:
    """Write one line, in the caller's transaction. `action`: such as `token.create`; `detail` holds no secret."""
    by = origin or here()
    Event.objects.create(
        at=timezone.now(), action=action, refused=refused, actor=by.actor, token=by.token, address=by.address,
        request=by.request, repository=repository, subject=subject[:1024], detail=dict(detail or {}),
    )  # fmt: skip


def notice(
    action: str,
    *,
    repository: str = "",
    subject: str = "",
    refused: bool = False,
    detail: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
) -> None:
    """Have a line written before long, outside of any transaction; many alike become one that counts them."""
    record(action, repository=repository, subject=subject, refused=refused, detail=detail, origin=origin)
