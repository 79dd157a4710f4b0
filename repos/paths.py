"""Artefact paths: checked once, at the door, and then a plain str that every room may trust."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from problems import Malformed

LONGEST = 1024
"""Bytes of UTF-8; the columns that hold paths are this long."""

BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
UNUSABLE = re.compile(r"[\\\x00-\x1f\x7f-\x9f]")
ENCODED_SEPARATOR = re.compile(r"%(2f|5c|00)", re.IGNORECASE)


def parse(raw: str) -> str:
    """The artefact path of a request target's path part, percent-decoded and in NFC.

    Refuses malformed escapes, encoded separators, back-slashes, control characters, `.` and `..` segments, empty segments
    (but for one trailing slash, which asks for a folder), and what is longer than `LONGEST` (RFC 3986 sections 2.1, 3.3).
    """
    if BAD_ESCAPE.search(raw):
        raise Malformed("the path holds a malformed %-escape; send %25 for a percent sign", rule="path.escape")
    if ENCODED_SEPARATOR.search(raw):
        raise Malformed("the path holds an encoded slash, back-slash or NUL; these never name an artefact", rule="path.separator")
    try:
        path = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the path is not UTF-8", rule="path.utf8") from None
    return check(path)


def check(path: str) -> str:
    """`path` in NFC, or Malformed as `parse` tells."""
    path = unicodedata.normalize("NFC", path)
    if len(path.encode()) > LONGEST:
        raise Malformed(f"the path is longer than {LONGEST} bytes", rule="path.length")
    if UNUSABLE.search(path):
        raise Malformed("the path holds a back-slash or a control character", rule="path.character")
    segments = path.removesuffix("/").split("/")
    if path and any(segment in ("", ".", "..") for segment in segments):
        raise Malformed("the path holds an empty segment, '.' or '..'", rule="path.segment")
    return path
