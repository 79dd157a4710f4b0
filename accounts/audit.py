"""The audit: who did what, when, from where. Lines are added and never changed.

record   something that was done, in the transaction in which it is: both are, or neither
notice   something that may come in floods, such as refusals
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from accounts.models import Event
from accounts.origin import Origin, enter, entered, here

__all__ = ["Origin", "enter", "entered", "here", "notice", "record"]


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
