"""A browser without JavaScript: keeps cookies, follows links and sends forms, and shows each answer as it came."""

from __future__ import annotations

import ssl
import urllib.request
from dataclasses import dataclass, field
from email.message import Message
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin

from tests.parts.server import Server


@dataclass
class Form:
    """What a form sends: where, and its fields as they stand."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.tags.append((tag, said))
        if tag == "form":
            self.forms.append(Form(said.get("action") or ""))
        elif tag == "a" and said.get("href"):
            self.links.append(str(said["href"]))
        elif tag in ("input", "textarea") and said.get("name") and self.forms:
            self.forms[-1].fields[str(said["name"])] = said.get("value") or ""

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


@dataclass
class Page:
    """One answer."""

    url: str
    status: int
    headers: Message
    body: bytes

    def __post_init__(self) -> None:
        self._read = _Reader()
        if "html" in self.headers.get("Content-Type", ""):
            self._read.feed(self.body.decode())

    @property
    def text(self) -> str:
        """The words on it, without the tags."""
        return " ".join(word for word in self._read.words if word)

    @property
    def tags(self) -> list[tuple[str, dict[str, str | None]]]:
        return self._read.tags

    @property
    def links(self) -> list[str]:
        return self._read.links

    def form(self, action: str) -> Form:
        """The form that goes to an address that ends so."""
        return next(form for form in self._read.forms if form.action.endswith(action))

    @property
    def location(self) -> str:
        return urljoin(self.url, self.headers["Location"])

    @property
    def cookies(self) -> dict[str, str]:
        """What it sets, as it says it."""
        return {line.partition("=")[0]: line for line in self.headers.get_all("Set-Cookie", [])}


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Browser:
    """`browser.get("/ui/")` at a server; redirects are followed by `go` alone."""

    def __init__(self, server: Server):
        self.server = server
        self.jar = CookieJar()
        handlers: list[Any] = [urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.jar), _Stay()]
        if server.tls:
            context = ssl.create_default_context(cafile=str(server.data / "tls" / "cert.pem"))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def ask(self, method: str, url: str, form: dict[str, str] | None = None, **headers: str) -> Page:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        body = urlencode(form).encode() if form is not None else None
        request = urllib.request.Request(urljoin(self.server.url, url), body, sent, method=method)
        try:
            answer = self._opener.open(request, timeout=60)
        except HTTPError as error:
            answer = error
        with answer:
            return Page(answer.url, answer.status, answer.headers, answer.read())

    def get(self, url: str, **headers: str) -> Page:
        return self.ask("GET", url, **headers)

    def go(self, page: Page | str) -> Page:
        """Follow redirects to their end."""
        found = self.get(page) if isinstance(page, str) else page
        for _ in range(10):
            if found.status not in (302, 303):
                return found
            found = self.get(found.location)
        raise AssertionError(f"{found.url} redirects without end")

    def send(self, page: Page, action: str, fields: dict[str, str] | None = None, **headers: str) -> Page:
        """Send the form of a page that goes to an address that ends with `action`."""
        form = page.form(action)
        return self.ask("POST", urljoin(page.url, form.action), {**form.fields, **(fields or {})}, **headers)

    def sign_in(self, name: str, password: str) -> Page:
        return self.send(self.get("/ui/sign-in/"), "/ui/sign-in/", {"name": name, "password": password})

    def name(self) -> str:
        """Who is signed in here; empty: nobody."""
        page = self.get("/ui/account/")
        return "" if page.status == 303 else page.text.partition("Name ")[2].partition(" ")[0]

    def cookie(self, name: str) -> str | None:
        return next((cookie.value for cookie in self.jar if cookie.name == name), None)
