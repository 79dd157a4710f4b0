"""How many queries each page takes, whatever somebody has."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone

from accounts import grants, people, sessions, tokens
from accounts.models import ExternalName, Session, User
from accounts.people import Person

PASSWORD = "the-password-of-everybody"
AS_SOMEBODY = 3
"""The epoch, the session and its user."""


@pytest.fixture
def browser(own_store, db) -> Client:
    """Signed in as somebody with much of everything."""
    person = Person("sso", "https://sso.example.org", "1", "ann", groups=frozenset(f"sso:{n}" for n in range(50)))
    user = people.admit(person)
    user.set_password(PASSWORD)
    user.save()
    for n in range(50):
        group = Group.objects.create(name=f"group {n}")
        ExternalName.objects.create(group=group, name=f"sso:{n}")
        grants.add(("reader", "group", group.name, f"r{n}", ""))
        tokens.create(user, f"token {n}", timezone.now() + timedelta(days=5))
    browser = Client()
    for _ in range(20):
        browser = Client()
        assert browser.post("/ui/sign-in/", {"name": "ann", "password": PASSWORD}).status_code == 303
    return browser


@pytest.mark.parametrize(
    ("path", "queries"),
    [("", AS_SOMEBODY), ("account/", AS_SOMEBODY + 3), ("tokens/", AS_SOMEBODY + 1), ("sessions/", AS_SOMEBODY + 1),
     ("nowhere/", AS_SOMEBODY)],
)  # fmt: skip
def test_a_page_takes_few_queries_however_much_somebody_has(browser, django_assert_num_queries, path, queries):
    browser.get("/ui/account/")  # after which rights and repositories are known
    with django_assert_num_queries(queries):
        assert browser.get(f"/ui/{path}").status_code in (200, 302, 303, 404)


def test_the_sign_in_page_takes_two_queries(own_store, db, django_assert_max_num_queries):
    Client().get("/ui/sign-in/")
    with django_assert_max_num_queries(2):
        assert Client().get("/ui/sign-in/").status_code == 200


def test_a_session_is_written_every_few_minutes_and_not_with_each_page(browser, django_assert_num_queries):
    browser.get("/ui/")
    (before,) = Session.objects.filter(session_key=sessions.digest(browser.cookies["entrepot-session"].value))
    with django_assert_num_queries(AS_SOMEBODY):
        browser.get("/ui/")
    user = User.objects.get(username="ann")
    assert sessions.of(user).count() == 20
    store = sessions.SessionStore(browser.cookies["entrepot-session"].value)
    store[sessions.SEEN_AT] = (timezone.now() - 2 * sessions.SEEN).isoformat()
    store.save()
    browser.get("/ui/")
    assert Session.objects.get(pk=before.pk).seen_at > before.seen_at


def test_a_session_does_not_outlive_a_week_however_much_it_is_used(browser):
    store = sessions.SessionStore(browser.cookies["entrepot-session"].value)
    store[sessions.BEGAN] = (timezone.now() - sessions.LONGEST + timedelta(hours=1)).isoformat()
    store.save()
    assert browser.get("/ui/account/").status_code == 200
    row = Session.objects.get(session_key=sessions.digest(browser.cookies["entrepot-session"].value))
    assert row.expire_date < timezone.now() + timedelta(hours=2)
    store[sessions.BEGAN] = (timezone.now() - sessions.LONGEST).isoformat()
    store.save()
    assert browser.get("/ui/account/").status_code == 303
