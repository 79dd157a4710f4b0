"""The one stylesheet, which the server itself serves."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from django.http import HttpRequest, HttpResponse

from repos.ui.door import address

FILE = Path(__file__).parent / "style.css"


@lru_cache(maxsize=1)
def _style() -> tuple[bytes, str]:
    content = FILE.read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()}"'


@address("GET")
def sheet(request: HttpRequest) -> HttpResponse:
    content, tag = _style()
    headers = {"ETag": tag, "Cache-Control": "public, max-age=600"}
    if request.headers.get("If-None-Match") == tag:
        return HttpResponse(status=304, headers=headers)
    return HttpResponse(content, content_type="text/css; charset=utf-8", headers=headers)
