"""Changing one's own password with a browser."""

from __future__ import annotations

import pytest

from tests.parts.api import PASSWORD
from tests.parts.browser import Browser, Page
from tests.parts.server import Server

NEW = "another-long-enough-password"
PAGE = "/ui/account/password/"


@pytest.fixture(scope="module")
def world(server) -> Server:
    here = server()
    people = [{"name": name, "password": PASSWORD} for name in ("ann", "bea")]
    here.apply({"users": [*people, {"name": "without"}]})
    return here


def signed_in(world: Server, name: str, password: str = PASSWORD) -> Browser:
    browser = Browser(world)
    assert browser.sign_in(name, password).status == 303
    return browser


def change(browser: Browser, old: str, new: str, again: str | None = None) -> Page:
    return browser.send(browser.get(PAGE), PAGE, {"old": old, "new": new, "again": new if again is None else again})


def me(world: Server, name: str, password: str) -> int:
    return world.request("GET", "/api/v1/me/", user=(name, password)).status


def test_a_new_password_counts_at_once_and_ends_every_session_but_this(world):
    here, elsewhere = signed_in(world, "ann"), signed_in(world, "ann")
    assert me(world, "ann", PASSWORD) == 200  # and remembered as right by the processes that checked it
    assert change(here, PASSWORD, NEW).status == 303
    assert here.name() == "ann"
    assert elsewhere.get("/ui/account/").status == 303
    assert (me(world, "ann", PASSWORD), me(world, "ann", NEW)) == (401, 200)
    assert world.rows("SELECT actor, subject FROM accounts_event WHERE action = 'user.password'") == [("ann", "ann")]
    assert NEW not in str(world.rows("SELECT detail FROM accounts_event"))


@pytest.mark.parametrize(
    ("old", "new", "again", "told"),
    [
        ("wrong", NEW, NEW, "your password now is another one"),
        (PASSWORD, NEW, f"{NEW}.", "not the same both times"),
        (PASSWORD, "short", "short", "at least 12 characters"),
        (PASSWORD, "password1234", "password1234", "too common"),
        (PASSWORD, "", "", "at least 12 characters"),
    ],
)
def test_what_is_no_new_password_changes_nothing_and_is_told(world, old, new, again, told):
    page = change(signed_in(world, "bea"), old, new, again)
    assert page.status == 400 and told in page.text
    assert me(world, "bea", PASSWORD) == 200


def test_who_is_not_signed_in_is_led_to_where_they_can(world):
    assert Browser(world).get(PAGE).status == 303
