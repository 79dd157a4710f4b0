"""Who gets what: every route of the server and each of its methods x everybody, as one table.

A route that the table does not know fails the first test: add its line. A line says what is asked, and what each of the cast
gets of what is there; `{repository}` and the like stand for that, and are asked again for what is private and for what is absent.
The rule for these is one for all routes: who may see what is private gets of it what they get of what is shared, and everybody
else gets exactly what they get of what is absent.

A line is (method, route): (address, body, statuses, status). The statuses are in the order of the cast; the last one is that of
what is absent, to the administrator. An address that does not begin with a slash is one of the API; a body of JSON stands in the
line, another is named in `content`.

The pages stand in it twice. An Authorization header counts for nothing there, so that with what the cast send elsewhere all of
them get what anonymous gets; `PAGES` has what each of those who can sign in with a browser gets then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from repos.format import installed
from repos.formats.oci import parse
from tests.contract.samples import url
from tests.gomodules import make_zip
from tests.parts import cast, oci
from tests.parts.api import PASSWORD
from tests.parts.cast import BLOB, BROWSING, CAST, World
from tests.parts.server import Answer

METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS")
JSON = {"Content-Type": "application/json"}
HERE = {"format": "raw", "kind": "local"}
READERS = cast.READERS
IMAGE, ONE = parse.NAME, "[^/]+"

STATES = ("shared", "private", "absent")
THINGS = {
    "repository": ("shared-raw", "hush-raw", "void-raw"),
    "spare-repository": ("shared-old-raw", "hush-old-raw", "void-old-raw"),
    "role": ("play-role", "mute-role", "void-role"),
    "spare-role": ("play-old", "mute-old", "void-old"),
    "group": ("play-group", "mute-group", "void-group"),
    "spare-group": ("play-old", "mute-old", "void-old"),
    "user": ("reader", "mute-user", "void-user"),
    "spare-user": ("play-old", "mute-old", "void-old"),
    "grant": ("grant play", "grant mute", "grant void"),
    "spare-grant": ("grant spare", "grant spare", "grant void"),
    "token": ("token play", "token mute", "token void"),
    "job": ("job play", "job mute", "job void"),
    "review": ("review play", "review mute", "review void"),
    "session": ("session play", "session mute", "session void"),
    "directory": ("play-directory", "mute-directory", "void-directory"),
    "spare-directory": ("play-directory-old", "mute-directory-old", "void-directory-old"),
    "provider": ("play-provider", "else-provider", "void-provider"),
    "spare-provider": ("play-provider-old", "else-provider-old", "void-provider-old"),
    "trust": ("play-trust", "mute-trust", "void-trust"),
    "spare-trust": ("play-trust-old", "mute-trust-old", "void-trust-old"),
}
"""By the placeholder in a line: what its readers may see, what is private to others, what is not there."""

#                                                                    admin owner developer reader outsider robot expired anonymous
TABLE: dict[tuple[str, str], tuple[str, Any, str, str]] = {
    # the server itself
    ("GET", ""): ("/", None, "200 200 200 200 200 200 200 200", ""),
    ("GET", "healthz"): ("/healthz", None, "200 200 200 200 200 200 200 200", ""),
    ("GET", "readyz"): ("/readyz", None, "200 200 200 200 200 200 200 200", ""),
    # the API
    ("GET", "api/v1/"): ("", None, "200 200 200 200 200 200 401 200", ""),
    ("GET", "api/v1/schema/"): ("schema/", None, "200 200 200 200 200 200 401 200", ""),
    ("GET", "api/v1/me/"): ("me/", None, "200 200 200 200 200 200 401 401", ""),
    ("GET", "api/v1/configuration/"): ("configuration/", None, "200 403 403 403 403 403 401 401", ""),
    ("PUT", "api/v1/configuration/"): ("configuration/", {"history": {}}, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/repositories/"): ("repositories/", None, "200 200 200 200 200 200 401 200", ""),
    ("GET", "api/v1/repositories/<path:name>/"): (
        "repositories/{repository}/", None, "200 200 200 200 404 200 401 401", "404"),
    ("PUT", "api/v1/repositories/<path:name>/"): (
        "repositories/{repository}/", HERE, "200 200 403 403 404 403 401 401", "201"),
    ("DELETE", "api/v1/repositories/<path:name>/"): (
        "repositories/{spare-repository}/", None, "204 204 403 403 404 403 401 401", "404"),
    ("GET", "api/v1/repositories/<str:key>/assets/"): (
        "repositories/{repository}/assets/", None, "200 200 200 200 404 200 401 401", "404"),
    ("GET", "api/v1/repositories/<str:key>/assets/<path:path>"): (
        "repositories/{repository}/assets/tool/lib", None, "200 200 200 200 404 200 401 401", "404"),
    ("GET", "api/v1/repositories/<str:key>/changes/"): (
        "repositories/{repository}/changes/", None, "200 200 200 200 404 200 401 401", "404"),
    ("GET", "api/v1/repositories/<str:key>/changes/<int:number>/"): (
        "repositories/{repository}/changes/2/", None, "200 200 200 200 404 200 401 401", "404"),
    ("GET", "api/v1/roles/"): ("roles/", None, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/roles/<path:name>/"): ("roles/{role}/", None, "200 404 404 404 404 404 401 401", "404"),
    ("PUT", "api/v1/roles/<path:name>/"): ("roles/{role}/", {}, "200 404 404 404 404 404 401 401", "201"),
    ("DELETE", "api/v1/roles/<path:name>/"): ("roles/{spare-role}/", None, "204 404 404 404 404 404 401 401", "404"),
    ("GET", "api/v1/groups/"): ("groups/", None, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/groups/<path:name>/"): ("groups/{group}/", None, "200 404 404 404 404 404 401 401", "404"),
    ("PUT", "api/v1/groups/<path:name>/"): ("groups/{group}/", {}, "200 404 404 404 404 404 401 401", "201"),
    ("DELETE", "api/v1/groups/<path:name>/"): ("groups/{spare-group}/", None, "204 404 404 404 404 404 401 401", "404"),
    ("GET", "api/v1/users/"): ("users/", None, "200 200 200 200 200 200 401 401", ""),
    ("GET", "api/v1/users/<path:name>/"): ("users/{user}/", None, "200 404 404 200 404 404 401 401", "404"),
    ("PUT", "api/v1/users/<path:name>/"): ("users/{user}/", {}, "200 404 404 403 404 404 401 401", "201"),
    ("DELETE", "api/v1/users/<path:name>/"): ("users/{spare-user}/", None, "204 404 404 404 404 404 401 401", "404"),
    ("GET", "api/v1/grants/"): ("grants/", None, "200 403 403 403 403 403 401 401", ""),
    ("POST", "api/v1/grants/"): ("grants/", READERS, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/grants/<path:name>/"): ("grants/{grant}/", None, "200 404 404 404 404 404 401 401", "404"),
    ("PUT", "api/v1/grants/<path:name>/"): ("grants/{grant}/", "grant", "200 404 404 404 404 404 401 401", "400"),
    ("DELETE", "api/v1/grants/<path:name>/"): ("grants/{spare-grant}/", None, "204 404 404 404 404 404 401 401", "404"),
    ("GET", "api/v1/directories/"): ("directories/", None, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/directories/<path:name>/"): ("directories/{directory}/", None, "200 404 404 404 404 404 401 401", "404"),
    ("PUT", "api/v1/directories/<path:name>/"): (
        "directories/{directory}/", "directory", "200 404 404 404 404 404 401 401", "201"),
    ("DELETE", "api/v1/directories/<path:name>/"): (
        "directories/{spare-directory}/", None, "204 404 404 404 404 404 401 401", "404"),
    ("GET", "api/v1/providers/"): ("providers/", None, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/providers/<path:name>/"): ("providers/{provider}/", None, "200 404 404 404 404 404 401 401", "404"),
    ("PUT", "api/v1/providers/<path:name>/"): ("providers/{provider}/", "provider", "200 404 404 404 404 404 401 401", "201"),
    ("DELETE", "api/v1/providers/<path:name>/"): (
        "providers/{spare-provider}/", None, "204 404 404 404 404 404 401 401", "404"),
    ("GET", "api/v1/trusts/"): ("trusts/", None, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/trusts/<path:name>/"): ("trusts/{trust}/", None, "200 404 404 404 404 404 401 401", "404"),
    ("PUT", "api/v1/trusts/<path:name>/"): ("trusts/{trust}/", "trust", "200 404 404 404 404 404 401 401", "201"),
    ("DELETE", "api/v1/trusts/<path:name>/"): (
        "trusts/{spare-trust}/", None, "204 404 404 404 404 404 401 401", "404"),
    ("GET", "api/v1/history/"): ("history/", None, "200 403 403 403 403 403 401 401", ""),
    ("PUT", "api/v1/history/"): ("history/", {}, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/egress/"): ("egress/", None, "200 403 403 403 403 403 401 401", ""),
    ("PUT", "api/v1/egress/"): ("egress/", {}, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/hosts/"): ("hosts/", None, "200 403 403 403 403 403 401 401", ""),
    ("PUT", "api/v1/hosts/"): ("hosts/", {}, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/tokens/"): ("tokens/", None, "200 200 200 200 200 200 401 401", ""),
    ("POST", "api/v1/tokens/"): ("tokens/", {}, "201 201 201 201 201 201 401 401", ""),
    ("GET", "api/v1/tokens/<int:number>/"): ("tokens/{token}/", None, "200 404 404 200 404 404 401 401", "404"),
    ("DELETE", "api/v1/tokens/<int:number>/"): ("tokens/{token}/", None, "204 404 404 204 404 404 401 401", "404"),
    ("GET", "api/v1/sessions/"): ("sessions/?user={user}", None, "200 200 200 200 200 200 401 401", "200"),
    ("DELETE", "api/v1/sessions/"): ("sessions/?user={user}", None, "200 200 200 200 200 200 401 401", "200"),
    ("GET", "api/v1/sessions/<str:key>/"): ("sessions/{session}/", None, "200 404 404 200 404 404 401 401", "404"),
    ("DELETE", "api/v1/sessions/<str:key>/"): ("sessions/{session}/", None, "204 404 404 204 404 404 401 401", "404"),
    ("POST", "api/v1/exchange/"): ("exchange/", "form", "400 400 400 400 400 400 400 400", ""),
    ("GET", "api/v1/explain/"): (
        "explain/?action=read&repository={repository}", None, "200 200 200 200 200 200 401 401", "200"),
    ("GET", "api/v1/audit/"): ("audit/", None, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/audit/export/"): ("audit/export/", None, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/audit/settings/"): ("audit/settings/", None, "200 403 403 403 403 403 401 401", ""),
    ("PUT", "api/v1/audit/settings/"): ("audit/settings/", {}, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/reviews/"): ("reviews/", None, "200 200 200 200 200 200 401 401", ""),
    ("POST", "api/v1/reviews/"): ("reviews/", {}, "201 409 403 403 403 403 401 401", ""),
    ("GET", "api/v1/reviews/<int:number>/"): ("reviews/{review}/", None, "200 200 404 404 404 404 401 401", "404"),
    ("GET", "api/v1/reviews/<int:number>/items/<int:item>/"): (
        "reviews/{review}/items/1/", None, "200 200 404 404 404 404 401 401", "404"),
    ("PUT", "api/v1/reviews/<int:number>/items/<int:item>/decision/"): (
        "reviews/{review}/items/1/decision/", {"decision": "approve"}, "200 200 404 404 404 404 401 401", "404"),
    ("GET", "api/v1/reviews/settings/"): ("reviews/settings/", None, "200 403 403 403 403 403 401 401", ""),
    ("PUT", "api/v1/reviews/settings/"): ("reviews/settings/", {}, "200 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/jobs/"): ("jobs/", None, "200 200 200 200 200 200 401 401", ""),
    ("POST", "api/v1/jobs/"): ("jobs/", {"kind": "gc"}, "202 403 403 403 403 403 401 401", ""),
    ("GET", "api/v1/jobs/<int:number>/"): ("jobs/{job}/", None, "200 404 404 200 404 404 401 401", "404"),
    ("GET", "api/v1/jobs/<int:number>/log/"): ("jobs/{job}/log/", None, "200 404 404 200 404 404 401 401", "404"),
    ("POST", "api/v1/jobs/<int:number>/cancel/"): ("jobs/{job}/cancel/", {}, "409 404 404 409 404 404 401 401", "404"),
    ("POST", "api/v1/jobs/<int:number>/retry/"): ("jobs/{job}/retry/", {}, "202 404 404 202 404 404 401 401", "404"),
    ("GET", "api/*"): ("/api/nothing-of-this-name", None, "404 404 404 404 404 404 404 404", ""),
    # the pages, to who has no session
    ("GET", "ui/"): ("/ui/", None, "303 303 303 303 303 303 303 303", ""),
    ("GET", "ui/style.css"): ("/ui/style.css", None, "200 200 200 200 200 200 200 200", ""),
    ("GET", "ui/sign-in/"): ("/ui/sign-in/", None, "200 200 200 200 200 200 200 200", ""),
    ("POST", "ui/sign-in/"): ("/ui/sign-in/", {"name": "outsider", "password": PASSWORD}, "303 303 303 303 303 303 303 303", ""),
    ("GET", "ui/sign-in/<slug:name>/"): ("/ui/sign-in/play-provider/", None, "503 503 503 503 503 503 503 503", ""),
    ("GET", "ui/sign-in/<slug:name>/done/"): (
        "/ui/sign-in/play-provider/done/", None, "400 400 400 400 400 400 400 400", ""),
    ("POST", "ui/sign-out/"): ("/ui/sign-out/", {}, "303 303 303 303 303 303 303 303", ""),
    ("GET", "ui/account/"): ("/ui/account/", None, "303 303 303 303 303 303 303 303", ""),
    ("GET", "ui/account/password/"): ("/ui/account/password/", None, "303 303 303 303 303 303 303 303", ""),
    ("POST", "ui/account/password/"): ("/ui/account/password/", {}, "303 303 303 303 303 303 303 303", ""),
    ("GET", "ui/tokens/"): ("/ui/tokens/", None, "303 303 303 303 303 303 303 303", ""),
    ("POST", "ui/tokens/"): ("/ui/tokens/", {}, "303 303 303 303 303 303 303 303", ""),
    ("POST", "ui/tokens/<int:number>/revoke/"): ("/ui/tokens/{token}/revoke/", {}, "303 303 303 303 303 303 303 303", "303"),
    ("GET", "ui/sessions/"): ("/ui/sessions/", None, "303 303 303 303 303 303 303 303", ""),
    ("POST", "ui/sessions/end/"): ("/ui/sessions/end/", {}, "303 303 303 303 303 303 303 303", ""),
    ("POST", "ui/sessions/<str:key>/end/"): ("/ui/sessions/{session}/end/", {}, "303 303 303 303 303 303 303 303", "303"),
    ("GET", "ui/explain/"): ("/ui/explain/?action=read&repository={repository}", None, "303 303 303 303 303 303 303 303", "303"),
    ("GET", "ui/reviews/"): ("/ui/reviews/", None, "303 303 303 303 303 303 303 303", ""),
    ("POST", "ui/reviews/"): ("/ui/reviews/", {}, "303 303 303 303 303 303 303 303", ""),
    ("GET", "ui/reviews/<int:number>/"): ("/ui/reviews/{review}/", None, "303 303 303 303 303 303 303 303", "303"),
    ("POST", "ui/reviews/<int:number>/items/<int:item>/"): (
        "/ui/reviews/{review}/items/1/", {}, "303 303 303 303 303 303 303 303", "303"),
    ("GET", "ui/*"): ("/ui/nothing-of-this-name", None, "404 404 404 404 404 404 404 404", ""),
    ("POST", "ui/*"): ("/ui/nothing-of-this-name", {}, "404 404 404 404 404 404 404 404", ""),
    # files
    ("GET", r"raw/.*[^/]"): ("/raw/{repository}/tool/lib", None, "200 200 200 200 404 200 401 401", "404"),
    ("PUT", r"raw/.*[^/]"): ("/raw/{repository}/new/{who}", "file", "201 201 201 403 404 201 401 401", "404"),
    ("DELETE", r"raw/.*[^/]"): ("/raw/{repository}/tool/old", None, "204 204 403 403 404 403 401 401", "404"),
    # Go modules
    ("GET", r"go/"): ("/go/{repository}/", None, "200 200 200 200 404 200 401 401", "404"),
    ("GET", r"go/[^@]+/@v/list"): ("/go/{repository}/corp.example/lib/@v/list", None, "200 200 200 200 404 200 401 401", "404"),
    ("GET", r"go/[^@]+/@latest"): ("/go/{repository}/corp.example/lib/@latest", None, "200 200 200 200 404 200 401 401", "404"),
    ("GET", r"go/[^@]+/@v/.+\.(?:info|mod|zip)"): (
        "/go/{repository}/corp.example/lib/@v/v1.0.0.info", None, "200 200 200 200 404 200 401 401", "404"),
    ("GET", r"go/sumdb/.+/supported"): (
        "/go/{repository}/sumdb/sum.example.org/supported", None, "404 404 404 404 404 404 401 401", "404"),
    ("GET", r"go/sumdb/.+"): ("/go/{repository}/sumdb/sum.example.org/latest", None, "404 404 404 404 404 404 401 401", "404"),
    ("PUT", r"go/[^@]+/@v/[^/]+\.zip"): (
        "/go/{repository}/corp.example/new/@v/v1.0.{n}.zip", "zip", "201 201 201 403 404 201 401 401", "404"),
    ("PUT", r"go/[^@]+/@v/[^/]+\.mod"): (
        "/go/{repository}/corp.example/lib/@v/v2.0.{n}.mod", "mod", "400 400 400 403 404 400 401 401", "404"),
    ("PUT", r"go/[^@]+/@v/[^/]+\.info"): (
        "/go/{repository}/corp.example/lib/@v/v1.1.{n}.info", "info", "202 202 202 403 404 202 401 401", "404"),
    ("DELETE", r"go/[^@]+/@v/[^/]+\.zip"): (
        "/go/{repository}/corp.example/lib/@v/v1.0.1.zip", None, "204 204 403 403 404 403 401 401", "404"),
    # images
    ("GET", "v2/"): ("/v2/", None, "200 200 200 200 200 200 401 401", ""),
    ("GET", "v2/_catalog"): ("/v2/_catalog", None, "200 200 200 200 200 200 401 401", ""),
    ("GET", "v2/token"): ("/v2/token?scope=repository:{repository}/lib:pull", None, "200 200 200 200 200 200 401 200", "200"),
    ("POST", "v2/token"): ("/v2/token", "form", "400 400 400 400 400 400 400 400", ""),
    ("GET", "v2/{setup}"): ("/v2/{repository}/", None, "200 200 200 200 404 200 401 401", "404"),
    ("GET", f"v2/{IMAGE}/manifests/{ONE}"): ("/v2/{repository}/lib/manifests/v1", None, "200 200 200 200 404 200 401 401", "404"),
    ("PUT", f"v2/{IMAGE}/manifests/{ONE}"): (
        "/v2/{repository}/lib/manifests/new-{who}", "manifest", "201 201 201 403 404 201 401 401", "404"),
    ("DELETE", f"v2/{IMAGE}/manifests/{ONE}"): (
        "/v2/{repository}/lib/manifests/old", None, "202 202 403 403 404 403 401 401", "404"),
    ("GET", f"v2/{IMAGE}/blobs/{ONE}"): ("/v2/{repository}/lib/blobs/{blob}", None, "200 200 200 200 404 200 401 401", "404"),
    ("DELETE", f"v2/{IMAGE}/blobs/{ONE}"): ("/v2/{repository}/lib/blobs/{blob}", None, "202 202 403 403 404 403 401 401", "404"),
    ("POST", f"v2/{IMAGE}/blobs/uploads/?"): (
        "/v2/{repository}/lib/blobs/uploads/", None, "202 202 202 403 404 202 401 401", "404"),
    ("GET", f"v2/{IMAGE}/blobs/uploads/{ONE}"): (
        "/v2/{repository}/lib/blobs/uploads/{upload}", None, "204 204 204 403 404 204 401 401", "404"),
    ("PATCH", f"v2/{IMAGE}/blobs/uploads/{ONE}"): (
        "/v2/{repository}/lib/blobs/uploads/{upload}", "bytes", "202 202 202 403 404 202 401 401", "404"),
    ("PUT", f"v2/{IMAGE}/blobs/uploads/{ONE}"): (
        "/v2/{repository}/lib/blobs/uploads/{upload}?digest={digest}", "bytes", "201 201 201 403 404 201 401 401", "404"),
    ("DELETE", f"v2/{IMAGE}/blobs/uploads/{ONE}"): (
        "/v2/{repository}/lib/blobs/uploads/{upload}", None, "204 204 204 403 404 204 401 401", "404"),
    ("GET", f"v2/{IMAGE}/tags/list"): ("/v2/{repository}/lib/tags/list", None, "200 200 200 200 404 200 401 401", "404"),
    ("GET", f"v2/{IMAGE}/referrers/{ONE}"): (
        "/v2/{repository}/lib/referrers/{blob}", None, "200 200 200 200 404 200 401 401", "404"),
}  # fmt: skip

#                                               admin owner developer reader outsider
PAGES: dict[tuple[str, str], tuple[str, Any, str, str]] = {
    ("GET", "ui/"): ("/ui/", None, "303 303 303 303 303", ""),
    ("GET", "ui/style.css"): ("/ui/style.css", None, "200 200 200 200 200", ""),
    ("GET", "ui/sign-in/"): ("/ui/sign-in/", None, "303 303 303 303 303", ""),
    ("POST", "ui/sign-in/"): ("/ui/sign-in/", {"name": "{who}", "password": "none of theirs"}, "403 403 403 403 403", ""),
    ("GET", "ui/sign-in/<slug:name>/"): ("/ui/sign-in/play-provider/", None, "503 503 503 503 503", ""),
    ("GET", "ui/sign-in/<slug:name>/done/"): ("/ui/sign-in/play-provider/done/", None, "400 400 400 400 400", ""),
    ("POST", "ui/sign-out/"): ("/ui/sign-out/", {}, "303 303 303 303 303", ""),
    ("GET", "ui/account/"): ("/ui/account/", None, "200 200 200 200 200", ""),
    ("GET", "ui/account/password/"): ("/ui/account/password/", None, "200 200 200 200 200", ""),
    ("POST", "ui/account/password/"): ("/ui/account/password/", {}, "400 400 400 400 400", ""),
    ("GET", "ui/tokens/"): ("/ui/tokens/", None, "200 200 200 200 200", ""),
    ("POST", "ui/tokens/"): ("/ui/tokens/", {"lifetime": "7d"}, "201 201 201 201 201", ""),
    ("POST", "ui/tokens/<int:number>/revoke/"): ("/ui/tokens/{token}/revoke/", {}, "404 404 404 303 404", "404"),
    ("GET", "ui/sessions/"): ("/ui/sessions/", None, "200 200 200 200 200", ""),
    ("POST", "ui/sessions/end/"): ("/ui/sessions/end/", {}, "303 303 303 303 303", ""),
    ("POST", "ui/sessions/<str:key>/end/"): ("/ui/sessions/{session}/end/", {}, "404 404 404 303 404", "404"),
    ("GET", "ui/explain/"): ("/ui/explain/?action=read&repository={repository}", None, "200 200 200 200 200", "200"),
    ("GET", "ui/reviews/"): ("/ui/reviews/", None, "200 200 200 200 200", ""),
    ("POST", "ui/reviews/"): ("/ui/reviews/", {}, "303 409 403 403 403", ""),
    ("GET", "ui/reviews/<int:number>/"): ("/ui/reviews/{review}/", None, "200 200 404 404 404", "404"),
    ("POST", "ui/reviews/<int:number>/items/<int:item>/"): (
        "/ui/reviews/{review}/items/1/", {"decision": "approve"}, "303 303 404 404 404", "404"),
    ("GET", "ui/*"): ("/ui/nothing-of-this-name", None, "404 404 404 404 404", ""),
    ("POST", "ui/*"): ("/ui/nothing-of-this-name", {}, "404 404 404 404 404", ""),
}  # fmt: skip
"""Of those who are signed in with a browser."""


# What there is


def routes(entries: Any = None, above: str = "") -> Iterator[tuple[str | None, str]]:
    """Every method and address of the server; None for a method: its view does not say which it has."""
    mounts = {form.mount: form for form in installed().values()}
    for entry in get_resolver().url_patterns if entries is None else entries:
        address = above + ("*" if is_rest(entry) else str(entry.pattern).removeprefix("^"))
        if isinstance(entry, URLResolver):
            yield from routes(entry.url_patterns, address)
        elif address in mounts and str(entry.pattern).startswith("^"):
            yield from of_format(mounts[address])
        else:
            yield from ((method, address) for method in methods(entry))


def is_rest(entry: Any) -> bool:
    """Whether it is what answers for all addresses at which there is nothing."""
    return getattr(entry, "name", "") == "nothing"


def of_format(form: Any) -> Iterator[tuple[str, str]]:
    pages = {(page.method, f"{form.mount}{page.name}") for page in form.pages()}
    yield from pages
    for route in form.routes():
        address = f"{form.mount}{route.pattern.pattern}"
        yield route.method, f"{address}{{setup}}" if (route.method, address) in pages else address


def methods(entry: URLPattern) -> list[str | None]:
    """Those of a view that is a class, among the methods that it lets through."""
    view = getattr(entry.callback, "cls", None) or getattr(entry.callback, "view_class", None)
    if view is None:
        return [None]
    if is_rest(entry):
        return ["GET"]
    return [name.upper() for name in view.http_method_names if name not in ("head", "options") and hasattr(view, name)]


def test_every_route_and_method_of_the_server_is_in_the_table():
    """Add a line for what is missing; take out what is no more."""
    there = set(routes())
    unsaid = {address for method, address in there if method is None}
    assert {line for line in there if line[0]} <= set(TABLE), "routes without a line"
    assert unsaid <= {address for _, address in TABLE}, "routes without a line"
    assert {line for line in TABLE if line[1] not in unsaid} <= there, "lines without a route"
    assert {line for line in TABLE if line[1].startswith("ui/")} == set(PAGES)


# What is asked


@dataclass(frozen=True)
class Line:
    """One line of the table, with how it is asked."""

    method: str
    route: str
    table: ClassVar = TABLE
    cast: ClassVar[tuple[str, ...]] = CAST

    @property
    def entry(self) -> tuple[str, Any, str, str]:
        return self.table[self.method, self.route]

    @property
    def thing(self) -> str:
        """The placeholder of what it is about; empty: nothing in particular."""
        return next((name for name in THINGS if f"{{{name}}}" in self.entry[0]), "")

    @property
    def form(self) -> str:
        """The format of an artefact's address."""
        return next((form.key for form in installed().values() if self.route.startswith(form.mount)), "")

    def sees(self, who: str, state: str) -> bool:
        """Whether somebody may know of what is asked for in this state."""
        if state == "shared":
            return self.expected(who, state) not in (401, 404) or self.is_told_absent
        if self.is_page:
            return False
        if "repository" in self.thing:
            return who in ("admin", "owner") if state == "private" else who == "admin"
        return who == "admin"

    @property
    def is_page(self) -> bool:
        return self.route.startswith("ui/")

    @property
    def is_told_absent(self) -> bool:
        """Whether who may see it is told that it is not there."""
        return self.entry[2].startswith("404")

    @property
    def of_other_length(self) -> bool:
        """Whether two answers that say the same may be of different length: by a number in them, or a pass."""
        return self.thing in ("token", "job", "review") or any(word in self.route for word in ("token", "audit"))

    def expected(self, who: str, state: str) -> int:
        row = dict(zip(self.cast, map(int, self.entry[2].split()), strict=True))
        if state == "shared":
            return row[who]
        if self.sees(who, state):
            return row[self.like(who)] if state == "private" else int(self.entry[3])
        return row["outsider"] if who not in ("expired", "anonymous") else row[who]

    def like(self, who: str) -> str:
        """Who gets of what is shared what somebody who sees what is private gets of that."""
        return who

    def name(self, world: World, state: str) -> str:
        """What stands for the placeholder."""
        name = THINGS[self.thing][STATES.index(state)]
        if " " in name:
            return str(world.ids[name])
        return re.sub("raw$", self.form, name) if self.form else name

    def headers(self, world: World, who: str) -> dict[str, str]:
        """By which somebody is known, and forms as a page's own."""
        return {**world.headers[who], **({"Cookie": CSRF_COOKIE} if self.is_page else {})}

    @property
    def label(self) -> str:
        return f"{self.method} {self.route.replace(IMAGE, 'IMAGE')}"


@dataclass(frozen=True)
class PageLine(Line):
    """A line of who is signed in with a browser."""

    table: ClassVar = PAGES
    cast: ClassVar[tuple[str, ...]] = BROWSING

    def sees(self, who: str, state: str) -> bool:
        if state == "private" and self.thing == "repository":
            return who in ("admin", "owner")
        return super().sees(who, state) if state == "shared" else who == "admin"

    def like(self, who: str) -> str:
        """Tokens and sessions are there for their own users alone: the shared ones are the reader's."""
        return "reader" if self.thing in ("token", "session") else who

    def headers(self, world: World, who: str) -> dict[str, str]:
        """The credentials of another beside the session count for nothing."""
        other = world.headers["outsider" if who == "admin" else "admin"]
        return {**other, "Cookie": f"{CSRF_COOKIE}; entrepot-session={world.keys[who]}"}

    @property
    def label(self) -> str:
        return f"{super().label} with a session"


@dataclass(frozen=True)
class Asked:
    """A question, `name` being the thing that it was about, with its answer."""

    who: str
    path: str
    name: str
    answer: Answer


CSRF = "a" * 32
CSRF_COOKIE = f"entrepot-csrf={CSRF}"
LINES = [*(Line(*key) for key in TABLE), *(PageLine(*key) for key in PAGES)]
CONTENT = {"file": b"a file\n", "bytes": b"some bytes", "manifest": oci.index(text="new"), "form": b"grant_type=none"}
SOURCES = ("directory", "provider", "trust")
TYPES = {"manifest": {"Content-Type": oci.INDEX}, "form": {"Content-Type": "application/x-www-form-urlencoded"}}


def address(world: World, line: Line, state: str, who: str, method: str = "") -> str:
    asks = line.entry[0]
    path = asks if asks.startswith("/") else f"/api/v1/{asks}"
    said = words(world, line, state, who)
    if "{upload}" in path:
        said["upload"] = upload(world, f"/v2/{said['repository']}/lib/blobs/uploads/", who) if not method else "0" * 64
    return filled(path, said)


def words(world: World, line: Line, state: str, who: str) -> dict[str, str]:
    """What stands for the placeholders of a line."""
    name = line.name(world, state) if line.thing else ""
    digests = {"blob": oci.digest(BLOB), "digest": oci.digest(CONTENT["bytes"])}
    return {line.thing or "-": name, "who": who, "n": str(CAST.index(who)), **digests}


def filled(text: str, said: dict[str, str]) -> str:
    return re.sub(r"\{([a-z-]+)\}", lambda found: said[found[1]], text)


def upload(world: World, path: str, who: str) -> str:
    """One's own session; for who may begin none, a name that it could have."""
    begun = world.ask(who, "POST", path)
    return begun.headers["Docker-Upload-UUID"] if begun.status == 202 else "0" * 64


def content(world: World, line: Line, state: str, who: str) -> tuple[bytes | None, dict[str, str]]:
    body = line.entry[1]
    if body is None:
        return None, {}
    if line.is_page:
        form = {name: filled(value, {"who": who}) for name, value in body.items()}
        return urlencode({**form, "csrfmiddlewaretoken": CSRF}).encode(), TYPES["form"]
    if body == "grant":
        body = cast.MUTE if state == "private" else READERS
    elif body in SOURCES:
        body = cast.source(body, line.name(world, state))
    if isinstance(body, dict):
        return json.dumps(body).encode(), JSON
    n = CAST.index(who)
    modules = {
        "zip": make_zip("corp.example/new", f"v1.0.{n}", {"x.go": b"package x\n"}),
        "mod": b"module corp.example/other\n",
        "info": json.dumps({"Version": f"v1.1.{n}", "Time": "2024-01-01T00:00:00Z"}).encode(),
    }
    return {**CONTENT, **modules}[body], TYPES.get(body, {})


def send(world: World, line: Line, who: str, method: str, path: str, body: bytes | None = None, kind: Any = None) -> Answer:
    return world.server.request(method, path, body, {**(kind or {}), **line.headers(world, who)})


def ask(world: World, line: Line, who: str, state: str) -> Asked:
    """What was changed is made as it was before."""
    path, name = address(world, line, state, who), line.name(world, state) if line.thing else ""
    kept = line.method == "DELETE" and not any(word in path for word in ("/uploads/", "/tokens/", "/sessions/"))
    before = world.ask("admin", "GET", path) if kept else None
    answer = send(world, line, who, line.method, path, *content(world, line, state, who))
    if answer.status < 400 and line.method != "GET":
        restore(world, line, state, path, before)
    return Asked(who, path, name, answer)


def restore(world: World, line: Line, state: str, path: str, before: Answer | None) -> None:
    if state == "absent" and line.method == "PUT":
        assert world.ask("admin", "DELETE", path).status == 204
    elif "/retry/" in path:
        number = line.name(world, state)
        world.api("admin").post(f"jobs/{number}/cancel/")  # else it waits until it is its turn again
        cast.ended(world.api("admin"), int(number))
    elif "/blobs/sha256:" in path and line.method == "DELETE":
        cast.put_blob(world, line.form, line.name(world, state))
    elif "/sessions/" in path or "/sign-out/" in path:
        world.sign_in()
    elif before is not None:
        again = world.ask("admin", "PUT", path, before.body, {"Content-Type": before.headers["Content-Type"]})
        assert again.status in (200, 201), again


@pytest.fixture(scope="module")
def world(server, upstream) -> World:
    return cast.build(server(), upstream())


@pytest.fixture(scope="module")
def answers(world):
    """All answers to a line, by who asked for what in which state; each is asked once."""

    @cache
    def answers(line: Line) -> dict[tuple[str, str], Asked]:
        return {(who, state): ask(world, line, who, state) for state in states(line) for who in line.cast}

    return answers


def states(line: Line) -> tuple[str, ...]:
    return STATES if line.thing else STATES[:1]


def of(lines: list[Line]) -> Any:
    """Run the test with each of these lines."""
    needs_ldap = pytest.mark.skipif(not cast.LDAP, reason="python-ldap is not installed, so there is no LDAP")
    marked = [pytest.param(one, id=one.label, marks=needs_ldap if "directories" in one.route else ()) for one in lines]
    return pytest.mark.parametrize("line", marked)


# What everybody gets


@of(LINES)
def test_everybody_gets_what_the_table_says(answers, line):
    got = answers(line)
    for state in states(line):
        row = " ".join(str(got[who, state].answer.status) for who in line.cast)
        assert row == " ".join(str(line.expected(who, state)) for who in line.cast), state
    for asked in got.values():
        assert ("WWW-Authenticate" in asked.answer.headers) == (asked.answer.status == 401)


@of([line for line in LINES if line.thing])
def test_what_is_private_is_told_exactly_as_what_is_absent(answers, line):
    """Status, reason, headers and body, to each who may not see it, but for the name that they asked for themselves."""
    for who in line.cast:
        if not line.sees(who, "private"):
            assert_alike(line, answers(line)[who, "private"], answers(line)[who, "absent"])


@of(LINES)
def test_no_answer_names_what_is_private_to_others(answers, line):
    """Not in a list, an error, a header, nor anywhere else, unless the question did."""
    for (who, _), asked in answers(line).items():
        said = f"{asked.answer.reason} {asked.answer.headers} {asked.answer.body.decode(errors='replace')}"
        secrets = {"admin": (), "owner": ("mute",)}.get(who, ("mute", "hush"))
        assert not [word for word in secrets if word in said and word not in asked.path], (who, asked.path)


@of([line for line in LINES if line.method == "GET"])
def test_head_tells_what_get_does_and_nothing_more(world, line):
    for state, who in product(states(line), line.cast):
        path, name = address(world, line, state, who), line.name(world, state) if line.thing else ""
        get, head = (Asked(who, path, name, send(world, line, who, method, path)) for method in ("GET", "HEAD"))
        assert told(line, head, [])[:2] == told(line, get, [])[:2], (who, state)
        assert {"Content-Length"} & set(head.answer.headers) <= set(get.answer.headers)
        assert not head.answer.body, (who, state)


@of(LINES)
def test_a_method_that_a_route_has_not_is_refused_or_hidden(world, line):
    """And by this nobody learns either what is private."""
    had = methods_at(line, address(world, line, "shared", "admin", "OPTIONS"))
    for method, who in product((one for one in METHODS if one not in had), line.cast):
        answered = {}
        for state in states(line):
            path, name = address(world, line, state, who, method), line.name(world, state) if line.thing else ""
            answered[state] = Asked(who, path, name, send(world, line, who, method, path))
            hidden = {401, 404} if who in ("expired", "anonymous") else {404}
            assert answered[state].answer.status in {405} | hidden, (method, who, state)
        if line.thing and not line.sees(who, "private"):
            assert_alike(line, answered["private"], answered["absent"])


def methods_at(line: Line, path: str) -> set[str]:
    """What the routes that match an address have together."""
    path = path.partition("?")[0]
    if line.form:
        form = installed()[line.form]
        rest = path.removeprefix(f"/{form.mount}").partition("/")[2]
        had = {route.method for route in form.routes() if line.thing and route.pattern.fullmatch(rest)}
        had |= {page.method for page in form.pages() if path == f"/{form.mount}{page.name}"}
    else:
        had = {method for method, route in TABLE if route == line.route}
    return had | ({"HEAD"} if "GET" in had else set())


def assert_alike(line: Line, private: Asked, absent: Asked) -> None:
    """They say the same, but for the name that was asked for."""
    names = [private.name, absent.name]
    assert told(line, private, names) == told(line, absent, names), private.who


def told(line: Line, asked: Asked, names: list[str]) -> tuple[str, tuple, str]:
    """What an answer says, with one word for its address and one for each of these names."""
    any_of = re.compile(rf"\b(?:{'|'.join(map(re.escape, names or [NOTHING]))})\b")

    def plain(text: str) -> str:
        text = text.replace(asked.path, "ADDRESS").replace(quote(asked.path, safe=""), "ADDRESS")
        return any_of.sub("NAME", CHANGING.sub("CHANGING", text))

    answer = asked.answer
    skipped = OF_EACH | ({"Content-Length"} if line.of_other_length else set())
    headers = tuple(sorted((key, plain(value)) for key, value in answer.headers.items() if key not in skipped))
    return f"{answer.status} {plain(answer.reason)}", headers, plain(answer.body.decode(errors="replace"))


NOTHING = "\0"
OF_EACH = {"Date", "Server", "X-Request-Id", "Transfer-Encoding", "Retry-After"}
"""Headers that say nothing of what was asked."""
CHANGING = re.compile(r'"(?:token|access_token|issued_at)": "[^"]+"|name="csrfmiddlewaretoken" value="\w+"|cursor=[^&>"]+')
"""What is another each time."""


@pytest.mark.parametrize("whose", ["robot", "expired"])
@pytest.mark.parametrize("name", ["robot", "admin"])
def test_no_token_begins_a_session(world, whose, name):
    """Neither one that is good elsewhere nor one that has expired, whoever it is said to be of; and robots have no password."""
    secret = world.headers[whose]["Authorization"].removeprefix("Bearer ")
    before = world.server.query("SELECT count(*) FROM accounts_session")
    form = {"name": name, "password": secret, "csrfmiddlewaretoken": CSRF}
    headers = {**TYPES["form"], "Cookie": CSRF_COOKIE}
    answer = world.server.request("POST", "/ui/sign-in/", urlencode(form).encode(), headers)
    assert (answer.status, "entrepot-session" in answer.headers.get("Set-Cookie", "")) == (403, False)
    assert world.server.query("SELECT count(*) FROM accounts_session") == before


# What everybody gets of the other kinds of repositories


#                    admin owner developer reader outsider robot expired anonymous
KINDS = {
    ("GET", "open"): "200 200 200 200 200 404 401 200",
    ("PUT", "open"): "201 403 403 403 403 404 401 401",
    ("GET", "cache"): "200 200 200 200 200 404 401 200",
    ("PUT", "cache"): "405 405 405 405 405 404 401 405",
    ("DELETE", "cache"): "405 405 405 405 405 404 401 405",
    ("GET", "all"): "200 200 200 200 200 404 401 200",
    ("PUT", "all"): "405 405 405 405 405 404 401 405",
    ("DELETE", "all"): "405 405 405 405 405 404 401 405",
}
"""Of a local one that is open to all, a remote, and a virtual that takes no uploads. The robot's token says nothing of them."""


@pytest.mark.parametrize("form", cast.FORMATS)
@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_everybody_gets_of_an_open_repository_what_its_kind_allows(world, form, kind):
    method, name = kind
    path, content, headers = cast.CONTENTS[form][0]
    address = url(form, f"{name}-{form}", path)
    got = [world.ask(who, method, address, content if method == "PUT" else None, headers).status for who in CAST]
    if (form, *kind) == ("go", "PUT", "open"):
        got[0] += 1  # of the same bytes again it says that they stand already
    assert " ".join(map(str, got)) == KINDS[kind]
