"""Taking in what a client sends: streamed to the store, counted, hashed, checked against what the client claimed."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterator

from django.http import HttpRequest

from problems import Malformed, Problem, TooLarge
from repos import database
from repos.blobs import CHUNK, Incoming
from repos.blobs.stores import store
from repos.call import Call

CLAIMS = {
    "X-Checksum-Sha256": "sha256",
    "X-Checksum-Sha1": "sha1",
    "X-Checksum-Md5": "md5",
    "X-Checksum-Sha512": "sha512",
}
LENGTHS = {"sha256": 64, "sha1": 40, "md5": 32, "sha512": 128}


@contextlib.contextmanager
def receive(call: Call, limit: int | None = None, *, digests: tuple[str, ...] = ()) -> Iterator[Incoming]:
    """The whole body of the request, verified against its length and the digests that its headers claim.

    `digests`: what is computed besides those of the format, as hashlib names.

    Raises Malformed for a body that ends early or has another digest, TooLarge past `limit` bytes or the format's.
    Leaving the block without having kept the bytes discards them.
    """
    claims = claimed_digests(call.request)
    form = call.repo.format
    names = tuple(dict.fromkeys((*form.digests, *digests, *(name for name in claims if name != "sha256"))))
    limit = form.largest if limit is None else limit
    with store().receive(limit, names) as incoming:
        database.release()
        for chunk in body_stream(call.request, limit):
            incoming.write(chunk)
        _check_claims(claims, {"sha256": incoming.sha256, **incoming.digests})
        yield incoming


def body_stream(request: HttpRequest, limit: int | None = None, *, part: bool = False) -> Iterator[bytes]:
    """The request's body in pieces. Django reads a chunked body as empty, so the server's own stream is used.

    `part`: it is one of several, and may have a Content-Range, which is the caller's to judge, or nothing in it at all.

    Raises Malformed where the body is shorter than its Content-Length or its last chunk is missing, TooLarge past `limit`.
    """
    left = length_of(request)
    if not part and left == 0 and not request.META.get("CONTENT_LENGTH"):
        raise Malformed("the upload has neither Content-Length nor chunks; send one of them", rule="body.length")
    if not part and "Content-Range" in request.headers:
        raise Malformed("a part cannot be put; send the whole without Content-Range", rule="body.range")
    if limit is not None and left is not None and left > limit:
        raise TooLarge(f"{left} bytes are more than the {limit} that are taken here", rule="size.limit")
    stream = request.META["wsgi.input"]
    while left is None or left > 0:
        try:
            chunk = stream.read(CHUNK if left is None else min(CHUNK, left))
        except Problem:
            raise
        except Exception as error:  # each server has its own exceptions for a body that breaks off
            raise Malformed("the body broke off before its end; send it again", rule="body.incomplete") from error
        if not chunk:
            break
        if left is not None:
            left -= len(chunk)
        yield chunk
    if left:
        raise Malformed(f"the body ended {left} bytes before its Content-Length; send it again", rule="body.incomplete")


def length_of(request: HttpRequest) -> int | None:
    """Bytes that the body is said to have; None: it ends with its last chunk. Raises Malformed."""
    said = request.META.get("CONTENT_LENGTH")
    if said and not said.isdigit():
        raise Malformed("Content-Length is no number", rule="body.length")
    if said:
        return int(said)
    return None if "chunked" in request.headers.get("Transfer-Encoding", "").lower() else 0


def claimed_digests(request: HttpRequest) -> dict[str, str]:
    """The digests, by hashlib name and as hex, that the request's headers claim for its body (RFC 9530 for Content-Digest)."""
    claims = {}
    for header, name in CLAIMS.items():
        value = request.headers.get(header)
        if value is not None:
            claims[name] = _hex(value.strip().lower(), name, header)
    for member in request.headers.get("Content-Digest", "").split(","):
        name, _, value = member.strip().partition("=")
        if (known := {"sha-256": "sha256", "sha-512": "sha512"}.get(name.lower())) is not None:
            with contextlib.suppress(binascii.Error):
                value = base64.b64decode(value.strip(":"), validate=True).hex()
            claims[known] = _hex(value, known, "Content-Digest")
    return claims


def _hex(value: str, name: str, header: str) -> str:
    if len(value) != LENGTHS[name] or not all(character in "0123456789abcdef" for character in value):
        raise Malformed(f"{header} is no {name} digest", rule="digest.form")
    return value


def _check_claims(claims: dict[str, str], digests: dict[str, str]) -> None:
    for name, claimed in claims.items():
        if digests[name] != claimed:
            raise Malformed(
                f"the body's {name} is {digests[name]} and not {claimed}, as the headers claim; it was damaged on its way or"
                " the claim is of another file",
                rule="digest.mismatch",
            )
