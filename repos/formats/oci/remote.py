"""Asking another registry, as its clients do.

tag        HEAD first, which counts against no limit of pulls: the digest that it tells is often here already, and the bytes
           are fetched by it, so that tag and bytes belong together
401        the challenge names a token service; a token of it is kept for as long as it says
library/   what the registry does not have by a name of one part is looked for there, as its own clients would; each time, so that
           what a name means does not depend on what was asked before, but for what a digest names, which is the same in both
lists      all pages of tags; referrers also from the tag in which registries without the API keep them

What the registry names beyond its own address, a token service or a redirect's target, must be outside (`basics.egress`) and
gets no credentials, unless the configuration names it (`auth`).
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

from basics import connector
from basics.connector import origin
from problems import UpstreamDenied, UpstreamFailed
from repos import circuit, rows, upstream
from repos.blobs.stores import store
from repos.catalogue import Upstream
from repos.format import Question
from repos.formats.oci import parse
from repos.upstream import Answer

LARGEST_PAGE, LARGEST_LIST = 16 * 1024 * 1024, 64 * 1024 * 1024
MOST_PAGES = 1000
MOST_TAGS = 1_000_000
LARGEST_TOKEN = 64 * 1024
PAGE = 1000
"""Tags that are asked for at once."""
USUAL_LIFE, MARGIN, MOST_TOKENS = 60, 10, 1000
"""Seconds that a token lives which does not say, those before its end in which it is not used, and tokens that are kept."""
MOST_IMAGES = 10_000
"""Images of which is kept where they were found."""
DENIED = (401, 403)
FINAL = (404, 429, 502, 503, 504, *DENIED)
"""Statuses of HEAD after which GET need not be tried."""
SHA256 = "sha256:[0-9a-f]{64}"
EMPTY_INDEX = {"schemaVersion": 2, "mediaType": parse.OCI_INDEX, "manifests": []}


def ask(source: Upstream, question: Question) -> Answer:
    """What the registry `source` has at the question's path. Raises UpstreamFailed, UpstreamDenied."""
    parts = parse.split(source.within(question.path))
    if parts is None:
        return _Said(404, {})
    registry = _Registry(source, question)
    if parts.kind == "tags":
        return registry.of_any_name(parts, registry.tags)
    if parts.kind == "referrers":
        answer = registry.of_any_name(parts, registry.referrers)
        return _document(EMPTY_INDEX, parse.OCI_INDEX) if answer.status == 404 else answer
    if parts.kind == "manifests" and not parts.by_digest:
        return registry.of_any_name(parts, registry.tag)
    return registry.of_any_name(parts, registry.get)


@dataclass(frozen=True)
class _Said(Answer):
    """An answer that is made here, from what the registry said or said before."""

    content: bytes = b""

    def chunks(self) -> Iterator[bytes]:
        yield self.content

    def discard(self) -> None:
        pass


def _document(value: Any, media_type: str) -> Answer:
    content = json.dumps(value).encode()
    return _Said(200, {"content-type": media_type, "content-length": str(len(content))}, content=content)


class _Registry:
    """One registry and one question to it."""

    def __init__(self, source: Upstream, question: Question):
        self._source = source
        self._question = question
        self._withheld = ""
        self._known = False  # whether its token service was asked: a 401 is about this image then, and no failure to sign in

    def of_any_name(self, parts: parse.Path, ask: Any) -> Answer:
        """The first answer under one of the image's names that is neither "not found" nor a denial; else the denial, if any.

        What is denied may well be there, so it is not called missing because another name is.
        """
        denial: Answer | None = None
        for name in _names(self._source, parts):
            answer: Answer = ask(name, parts)
            if answer.own and answer.status in DENIED:
                denial = denial or answer
            elif answer.status != 404:
                if answer.status in (200, 304):
                    _remember_name(self._source, name, parts.image)
                return answer
            answer.discard()
        if denial is not None and (denial.status == 403 or self._known):
            raise self._denied(denial)
        return denial or _Said(404, {})

    def _denied(self, answer: Answer) -> UpstreamDenied:
        hint = f"its token service {self._withheld} got no credentials; if it may have them, name it by `auth`"
        return UpstreamDenied(
            f"the upstream answered {answer.status}; {hint if self._withheld else 'ask who runs this registry'}",
            rule="upstream.denied",
        )

    # One document each

    def get(self, name: str, parts: parse.Path) -> Answer:
        headers = {"Accept": self._accept()} if parts.kind == "manifests" else {}
        return self._ask("GET", f"{name}/{parts.kind}/{parts.reference}", name, headers)

    def tag(self, name: str, parts: parse.Path) -> Answer:
        """By the digest that HEAD tells: unchanged, here already, or fetched; from a registry that tells none by the tag."""
        path, headers = f"{name}/manifests/{parts.reference}", {"Accept": self._accept()}
        head = self._ask("HEAD", path, name, headers)
        head.discard()
        digest = head.headers.get("docker-content-digest", "")
        if head.status in FINAL:
            return head
        if head.status != 200 or not re.fullmatch(SHA256, digest):
            answer = self._ask("GET", path, name, headers)
            return _stating(answer, answer.headers.get("docker-content-digest", ""))
        if digest == f"sha256:{self._question.standing}":
            return _Said(304, head.headers)
        standing = self._standing(digest)
        if standing is not None:
            return standing
        return _stating(self._ask("GET", f"{name}/manifests/{digest}", name, headers), digest)

    def _standing(self, digest: str) -> Answer | None:
        """The manifest of this digest, where it was fetched before."""
        repo, path = self._question.repo, self._question.path
        found = rows.look([repo], f"{parse.image_of(path)}/manifests/{digest}").assets.get(repo.id)
        if found is None:
            return None
        with store().open(found.key) as file:
            content = file.read()
        return _Said(200, {"content-type": found.media_type, "content-length": str(len(content))}, content=content)

    def tags(self, name: str, _: parse.Path) -> Answer:
        found: set[str] = set()
        for answer, page in self._pages(f"{name}/tags/list?n={PAGE}", name, {}):
            if page is None:
                return answer
            tags = page.get("tags") or []
            if not isinstance(tags, list):
                raise UpstreamFailed("the upstream sent tags that are no list", rule="upstream.malformed")
            found |= {tag for tag in tags if isinstance(tag, str) and re.fullmatch(parse.TAG, tag)}
            if len(found) > MOST_TAGS:
                raise UpstreamFailed(f"the upstream lists more than {MOST_TAGS} tags", rule="upstream.malformed")
        return _document({"name": name, "tags": sorted(found)}, "application/json")

    def referrers(self, name: str, parts: parse.Path) -> Answer:
        """By the API, else from the tag that stands for it (distribution-spec, referrers tag schema); 404 where none are."""
        found = self._manifests(f"{name}/referrers/{parts.reference}", name)
        if isinstance(found, Answer) and found.status not in (429, *DENIED) and found.status < 500:
            found.discard()
            found = self._manifests(f"{name}/manifests/{parts.reference.replace(':', '-', 1)}", name)
        if isinstance(found, Answer):
            return found
        if not found:
            return _Said(404, {})
        return _document({**EMPTY_INDEX, "manifests": found}, parse.OCI_INDEX)

    def _manifests(self, path: str, name: str) -> list[Any] | Answer:
        """The descriptors of an index and those of the pages that follow it; the answer itself where it is none."""
        found: list[Any] = []
        for answer, page in self._pages(path, name, {"Accept": parse.OCI_INDEX}):
            if page is None:
                return answer
            manifests = page.get("manifests")
            if not isinstance(manifests, list):
                return _Said(404, {})
            found += manifests
        return found

    def _pages(self, path: str, name: str, headers: Mapping[str, str]) -> Iterator[tuple[Answer, dict[str, Any] | None]]:
        """JSON objects that are linked by `next` (RFC 8288), on the registry itself; None where the answer is not 200."""
        seen = set()
        left = LARGEST_LIST
        url: str | None = self._url(path)
        while url is not None and url not in seen:
            seen.add(url)
            if len(seen) > MOST_PAGES:
                raise UpstreamFailed(f"the upstream's list has more than {MOST_PAGES} pages", rule="upstream.malformed")
            answer = self._ask_url("GET", url, name, headers)
            if answer.status != 200:
                yield answer, None
                return
            content = _read(answer, min(left, LARGEST_PAGE))
            left -= len(content)
            yield answer, json_object(content)
            url = self._next(url, answer.headers.get("link", ""))

    def _next(self, url: str, link: str) -> str | None:
        match = re.search(r"<([^<>]+)>\s*;\s*rel=\"?next\"?", link)
        if match is None:
            return None
        following = connector.led_to(url, match[1])
        if origin(following) != origin(self._source.url):
            raise UpstreamFailed("the upstream's list goes on at another host", rule="upstream.redirect")
        return following

    # Requests

    def _accept(self) -> str:
        """What is understood here, and what the client takes besides."""
        return ", ".join(dict.fromkeys((*parse.MEDIA_TYPES, *filter(None, map(str.strip, self._question.accept.split(","))))))

    def _url(self, path: str) -> str:
        parts = urlsplit(self._source.url)
        return f"{parts.scheme}://{parts.netloc}/v2/{self._prefix}{path}"

    @property
    def _prefix(self) -> str:
        """What the registry's names begin with for us: the URL's own path, with or without the API's."""
        path = re.sub("^/v2(?=/|$)", "", urlsplit(self._source.url).path).strip("/")
        return f"{path}/" if path else ""

    def _ask(self, method: str, path: str, name: str, headers: Mapping[str, str]) -> Answer:
        return self._ask_url(method, self._url(path), name, headers)

    def _ask_url(self, method: str, url: str, name: str, headers: Mapping[str, str]) -> Answer:
        """The registry's answer; a challenge is met once."""
        known = _tokens.get((self._source, name))
        answer = upstream.ask(self._source, url, {**headers, **_bearer(known)}, method=method)
        self._question.heard()
        if answer.status != 401 or not answer.own:
            return answer
        token = self._token(answer.headers.get("www-authenticate", ""), name)
        if token is None:
            return answer
        answer.discard()
        self._known = True
        return upstream.ask(self._source, url, {**headers, **_bearer(token)}, method=method)

    def _token(self, challenge: str, name: str) -> str | None:
        """A token of the service that a Bearer challenge names; None where it names none, or the service denies one."""
        if not re.match(r"\s*bearer\s", challenge, re.IGNORECASE):
            return None
        words = {key.lower(): value for key, value in re.findall(r'([a-zA-Z]+)="([^"]*)"', challenge)}
        realm = connector.led_to(self._source.url, words.get("realm", ""))
        query = {"service": words.get("service", ""), "scope": words.get("scope") or f"repository:{self._prefix}{name}:pull"}
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode({key: value for key, value in query.items() if value})}"
        answer = upstream.ask(self._token_service(realm), url, {"Accept": "application/json"})
        self._question.heard()
        if answer.status != 200:
            answer.discard()
            self._heed_refusal(answer)
            return None
        said = json_object(_read(answer, LARGEST_TOKEN))
        token = said.get("token") or said.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,16384}", token):
            raise UpstreamFailed("the upstream's token service gave no token", rule="upstream.auth")
        lifetime = said.get("expires_in")
        _tokens.put((self._source, name), token, lifetime if isinstance(lifetime, int) else USUAL_LIFE)
        return token

    def _heed_refusal(self, answer: Answer) -> None:
        """What a token service's status means: a denial of this image, or that none of the registry's can be had for now."""
        if answer.status == 429 or answer.status >= 500:
            raise circuit.refused(self._source, replace(answer, own=True))
        signed_in = self._has_login and not self._withheld
        if answer.status not in DENIED or (answer.status == 401 and signed_in):
            raise UpstreamFailed(
                f"the upstream's token service answered {answer.status}; check the upstream's credentials", rule="upstream.auth"
            )
        self._known = True

    @property
    def _has_login(self) -> bool:
        return bool(self._source.username or self._source.sealed_token)

    def _token_service(self, realm: str) -> Upstream:
        """Whom to ask there as: with the credentials where it is the registry's own address or the one that is configured."""
        if self._source.auth and origin(realm) == origin(self._source.auth):
            return replace(self._source, url=self._source.auth)
        if origin(realm) != origin(self._source.url) and self._has_login:
            self._withheld = realm.partition("?")[0]
        return self._source


def _bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _stating(answer: Answer, digest: str) -> Answer:
    """An answer whose bytes must have the digest that the registry tells, where that is one by SHA-256."""
    if not re.fullmatch(SHA256, digest):
        return answer
    return replace(answer, headers={**answer.headers, "x-checksum-sha256": digest.removeprefix("sha256:")})


def _read(answer: Answer, largest: int) -> bytes:
    content = b""
    for chunk in answer.chunks():
        content += chunk
        if len(content) > largest:
            answer.discard()
            raise UpstreamFailed("the upstream sent a list that is larger than any", rule="upstream.malformed")
    return content


def json_object(content: bytes) -> dict[str, Any]:
    """What an upstream sent as a JSON object. Raises UpstreamFailed."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UpstreamFailed("the upstream sent what is no JSON object", rule="upstream.malformed")
    return document


class _Tokens:
    """Tokens of this process until they expire, by whom they are for and for what."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[Upstream, str], tuple[str, float]] = {}

    def get(self, key: tuple[Upstream, str]) -> str | None:
        with self._lock:
            token, until = self._kept.get(key, ("", 0.0))
        return token if time.monotonic() < until else None

    def put(self, key: tuple[Upstream, str], token: str, seconds: int) -> None:
        with self._lock:
            if len(self._kept) >= MOST_TOKENS:
                self._kept.clear()
            self._kept[key] = token, time.monotonic() + min(max(seconds, 0), 3600) - MARGIN


_tokens = _Tokens()
_under_library: dict[tuple[Upstream, str], bool] = {}
"""Of which registries' images something was last found under library/."""


def _names(source: Upstream, parts: parse.Path) -> tuple[str, ...]:
    """Under which names to look, in this order."""
    if "/" in parts.image:
        return (parts.image,)
    names = (parts.image, f"library/{parts.image}")
    same_in_both = parts.kind in ("manifests", "blobs") and parts.by_digest
    return names[::-1] if same_in_both and _under_library.get((source, parts.image)) else names


def _remember_name(source: Upstream, name: str, image: str) -> None:
    if "/" in image:
        return
    if len(_under_library) >= MOST_IMAGES:
        _under_library.clear()
    _under_library[source, image] = name != image
