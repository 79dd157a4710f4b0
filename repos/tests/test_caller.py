"""What a client is told of an error that nobody foresaw."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from django.test import RequestFactory

from repos.caller import problem_of


class DiskFull(Exception):
    sqlstate = "53100"


def raised(text: str, cause: Exception | None = None) -> OperationalError:
    error = OperationalError(text)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (raised("database or disk is full"), 507),
        (raised("could not extend file", DiskFull()), 507),
        (raised("server closed the connection unexpectedly"), 503),
        (ValueError("oh"), 500),
    ],
)
def test_a_full_disk_is_not_told_as_a_database_that_does_not_answer(error, status):
    assert problem_of(RequestFactory().put("/"), error).status == status
