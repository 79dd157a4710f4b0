"""What the API loads: of each section no more than the caller may see, and a secret only where its value is needed."""

from __future__ import annotations

import base64

import pytest
from django.test import Client

from accounts import tokens
from accounts.models import User
from repos.api.sections import SHELVES
from repos.configuration import engine, kept
from repos.configuration.tests.parts import remote

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def loaded(own_store, monkeypatch) -> list[tuple[str, str | None]]:
    """Which section was loaded since the start, and which item of it; None: all."""
    engine.apply(
        {
            "repositories": [remote("far", upstream={"token": "hunter-2"}), remote("open", upstream={"token": "hunter-3"})],
            "users": [{"name": "reader"}, {"name": "other"}],
            "grants": [
                {"role": "reader", "anonymous": True, "repositories": ["open"]},
                {"role": "administrator", "users": ["other"]},
            ],
        }
    )
    found: list[tuple[str, str | None]] = []
    for shelf in SHELVES.values():

        def stored(identity=None, *, of=shelf.section, stored=shelf.section.stored):
            found.append((of.name, identity))
            return stored(identity)

        monkeypatch.setattr(shelf.section, "stored", stored)
    return found


def get(path: str, name: str | None = None):
    login = {}
    if name:
        _, secret = tokens.create(User.objects.get(username=name))
        login["authorization"] = "Basic " + base64.b64encode(f"x:{secret}".encode()).decode()
    return Client().get(f"/api/v1/{path}", headers={**login, "host": "localhost"})


@pytest.mark.parametrize(("name", "status"), [(None, 401), ("reader", 404)])
@pytest.mark.parametrize("path", ["roles/reader/", "groups/x/", "users/other/", "grants/x/", "repositories/far/"])
def test_what_the_caller_may_not_see_is_not_loaded(loaded, path, name, status):
    assert get(path, name).status_code == status
    assert loaded == []


@pytest.mark.parametrize(
    ("path", "name", "found"),
    [
        ("users/", "reader", ("users", "reader")),
        ("users/reader/", "reader", ("users", "reader")),
        ("repositories/open/", None, ("repositories", "open")),
        ("repositories/far/", "other", ("repositories", "far")),
        ("users/", "other", ("users", None)),
    ],
)
def test_one_item_is_loaded_alone(loaded, path, name, found):
    assert get(path, name).status_code == 200
    assert loaded == [found]


@pytest.mark.parametrize("name", [None, "other"])
@pytest.mark.parametrize("path", ["repositories/", "repositories/open/"])
def test_no_secret_is_opened_to_be_shown(loaded, monkeypatch, path, name):
    opened: list[str] = []
    monkeypatch.setattr(kept, "unseal", opened.append)
    answer = get(path, name)
    assert (answer.status_code, opened) == (200, [])
    assert "hunter" not in answer.content.decode()
