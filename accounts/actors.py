"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from accounts.permissions import ANONYMOUS_USER

if TYPE_CHECKING:
    from accounts.models import User


@dataclass(frozen=True, slots=True)
class Actor:
    """A user, a robot, or anonymous; with `scopes` when a token, or a pass, narrows what they may. Holds no secret."""

    user_id: int | None
    name: str
    token_id: int | None = None
    scopes: tuple[str, ...] | None = None
    until: float | None = None
    """When the pass ends that they showed, in seconds since the epoch; None: they showed none, so there is none to ask for."""
    ends: datetime | None = None
    """When the token ends that they showed, where that is soon."""

    @property
    def by_pass(self) -> bool:
        """Whether they showed a pass, and could have one that says more."""
        return self.until is not None

    @property
    def anonymous(self) -> bool:
        return self.user_id is None


@dataclass(frozen=True, slots=True)
class Identity:
    """An actor, and the epoch in which they were recognised."""

    actor: Actor
    epoch: int


ANONYMOUS = Actor(user_id=None, name=ANONYMOUS_USER)


def actor_of(user: User) -> Actor:
    """The actor that an active user is without a token, in a browser's session or on the command line."""
    return Actor(user_id=user.pk, name=user.get_username()) if user.is_active else ANONYMOUS
