"""Every URL: the formats' own mounts, and the server's health."""

from django.urls import path, re_path

from registry import health
from repos.format import installed
from repos.gate import door

handler400 = handler404 = "registry.health.nothing"
handler500 = "registry.health.broken"

urlpatterns = [
    path("", health.welcome),
    path("healthz", health.alive),
    path("readyz", health.ready),
    *(re_path(rf"^{form.mount}", door(form)) for form in installed().values()),
]
