"""Every URL: the formats' own mounts, and the server's health."""

from django.urls import path, re_path

from registry import health
from repos.format import installed
from repos.gate import door

urlpatterns = [
    path("", health.welcome),
    path("healthz", health.alive),
    path("readyz", health.ready),
    *(re_path(rf"^{form.mount}", door(form)) for form in installed().values()),
]
