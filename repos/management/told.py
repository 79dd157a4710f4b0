"""How commands end that cannot do what they were asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from django.db import OperationalError, ProgrammingError

from problems import Problem


@contextmanager
def told(returncode: int = 1) -> Iterator[None]:
    """With one line for what is refused, and for a database that is away or was not set up."""
    try:
        yield
    except Problem as problem:
        raise CommandError(problem.reason, returncode=returncode) from problem
    except (OperationalError, ProgrammingError) as error:
        what = str(error).partition("\n")[0]
        raise CommandError(
            f"the database cannot be used: {what}; `./dev manage migrate` sets it up", returncode=returncode
        ) from error
