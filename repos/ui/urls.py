"""Every page's address."""

from __future__ import annotations

from django.urls import path, re_path

from repos.ui import account, explain, password, reviews, sign_in, style

app_name = "ui"

urlpatterns = [
    path("", account.home, name="home"),
    path("style.css", style.sheet, name="style"),
    path("sign-in/", sign_in.sign_in, name="sign-in"),
    path("sign-in/<slug:name>/", sign_in.begin, name="provider"),
    path("sign-in/<slug:name>/done/", sign_in.done, name="provider-done"),
    path("sign-out/", sign_in.sign_out, name="sign-out"),
    path("account/", account.account, name="account"),
    path("account/password/", password.password, name="password"),
    path("tokens/", account.tokens, name="tokens"),
    path("tokens/<int:number>/revoke/", account.revoke, name="token-revoke"),
    path("sessions/", account.sessions, name="sessions"),
    path("sessions/end/", account.end_sessions, name="sessions-end"),
    path("sessions/<str:key>/end/", account.end_session, name="session-end"),
    path("explain/", explain.ask, name="explain"),
    path("reviews/", reviews.overview, name="reviews"),
    path("reviews/<int:number>/", reviews.review, name="review"),
    path("reviews/<int:number>/items/<int:item>/", reviews.decide, name="review-decide"),
    re_path("", account.nothing, name="nothing"),
]
