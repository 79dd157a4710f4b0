"""What two do to one upload at once."""

from __future__ import annotations

import io

import pytest
from django.http import HttpRequest
from django.test import RequestFactory

from problems import RangeRefused
from repos import sessions
from repos.blobs.stores import store
from repos.models import Upload

pytestmark = pytest.mark.django_db(transaction=True)


def part(content: bytes) -> HttpRequest:
    request = RequestFactory().generic("PATCH", "/", content)
    request.META["wsgi.input"] = io.BytesIO(content)
    return request


def test_a_part_is_not_taken_for_an_upload_that_was_reaped_while_it_came(repository):
    """Those before it are gone: its client is told now, and not when it has sent all."""
    repo = repository("oci")
    name = sessions.begin(repo.id, "app", "ann")
    sessions.append(sessions.find(repo, "app", "ann", name), part(b"first"), None)
    session = sessions.find(repo, "app", "ann", name)
    Upload.objects.update(touched_at="2020-01-01T00:00:00Z")
    assert sessions.reap() == 1
    with pytest.raises(RangeRefused):
        sessions.append(session, part(b"second"), None)
    assert not Upload.objects.exists() and not list(store().parts())


@pytest.mark.parametrize("before", [b"", b"before"])
def test_of_two_parts_that_come_at_once_one_is_taken(repository, before):
    repo = repository("oci")
    name = sessions.begin(repo.id, "app", "ann")
    if before:
        sessions.append(sessions.find(repo, "app", "ann", name), part(before), None)
    one, other = (sessions.find(repo, "app", "ann", name) for _ in range(2))
    sessions.append(one, part(b"one"), None)
    with pytest.raises(RangeRefused):
        sessions.append(other, part(b"other"), None)
    with store().join(sessions.find(repo, "app", "ann", name).parts) as joined, joined.open() as file:
        assert file.read() == before + b"one"
