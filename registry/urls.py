"""Every URL: the formats' own mounts, the API, the pages for people, and the server's health."""

from django.urls import include, path, re_path

from registry import health
from repos.format import installed
from repos.gate import door

handler400 = handler404 = "registry.health.nothing"
handler500 = "registry.health.broken"

urlpatterns = [
    path("", health.welcome),
    path("healthz", health.alive),
    path("readyz", health.ready),
    path("api/", include("repos.api.urls")),
    path("ui/", include("repos.ui.urls")),
    *(re_path(rf"^{form.mount}", door(form)) for form in installed().values()),
]
