"""A new password of one's own, for who has one that is kept here."""

from __future__ import annotations

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts import audit, authenticate
from accounts.models import User
from problems import Forbidden, Malformed, Problem, Unauthenticated
from repos.ui.door import page, refused, show, user_of
from repos.ui.sign_in import LONGEST_PASSWORD, begin_session


@page("GET", "POST")
def password(request: HttpRequest) -> HttpResponseBase:
    """A form for the password that one has and the one that is to be."""
    user = user_of(request)
    if not user.has_usable_password():
        raise Forbidden(_("your password is not kept here; change it where you sign in with it"), rule="password.elsewhere")
    return _change(request, user) if request.method == "POST" else show(request, "password.html")


def _change(request: HttpRequest, user: User) -> HttpResponse:
    """Every session ends with the old password; this browser gets another."""
    try:
        new = _new_password(request, user)
    except Problem as problem:
        return refused(request, problem, "password.html")
    with transaction.atomic():
        user.set_password(new)
        user.save()
        audit.record("user.password", subject=user.get_username())
    return begin_session(request, user, "password", reverse("ui:account"))


def _new_password(request: HttpRequest, user: User) -> str:
    """Raises Malformed, and TooMany where the old one was guessed too often."""
    old, new, again = (request.POST.get(word, "")[:LONGEST_PASSWORD] for word in ("old", "new", "again"))
    if new != again:
        raise Malformed(_("the new password is not the same both times; nothing was changed"), rule="password.again")
    try:
        validate_password(new, user)
    except ValidationError as error:
        raise Malformed(" ".join(error.messages), rule="password.weak") from None
    try:
        authenticate.by_password(user.get_username(), old)
    except Unauthenticated:
        raise Malformed(_("your password now is another one; nothing was changed"), rule="password.old") from None
    return new
