"""A connection to a directory, on which the service account is bound.

TCP and TLS are Python's, and libldap gets a socket on which the other side is who it says: its own handshake knows no timeout, so
a directory that accepts a connection and then says nothing would hold a thread for good; and what it trusts is for a file of the
machine to say. The certificate is always verified, with the name.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from accounts.directories.settings import Directory
from basics import egress
from problems import Problem, Unavailable

if TYPE_CHECKING:
    from ldap.ldapobject import LDAPObject

PAGE = 500
"""Entries that are asked for at once (RFC 2696): no more than any directory gives."""
MOST_PAGES = 2000
PORTS = {"ldap": 389, "ldaps": 636}
START_TLS = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
"""The extended request StartTLS, as message 1 (RFC 4511 section 4.14)."""
LONGEST_ANSWER = 64 * 1024
PIECE = 64 * 1024
AGAIN = "5"
"""Seconds after which a client may try again."""
LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts to which passwords may go as they are."""


class Failed(Unavailable):
    """The directory could not be asked. `why` is for the log: it may tell what is configured."""

    def __init__(self, directory: Directory, why: object):
        super().__init__(
            f"the directory {directory.name} does not answer, so nobody signs in by it; try again later",
            rule="directory.out",
            headers={"Retry-After": AGAIN},
        )
        self.why = str(why) or type(why).__name__


@dataclass(frozen=True)
class Entry:
    """`values` by the names of attributes in lower case, without their options."""

    dn: str
    values: dict[str, list[bytes]]

    def texts(self, attribute: str) -> list[str]:
        return [value.decode(errors="replace") for value in self.values.get(attribute.lower(), ())]

    def text(self, attribute: str) -> str:
        return next(iter(self.texts(attribute)), "")


@contextlib.contextmanager
def opened(directory: Directory) -> Iterator[Link]:
    """A connection to the first replica that answers. Raises Failed, also for what fails within the block."""
    import ldap

    try:
        with _connected(directory) as connection:
            link = Link(directory, connection)
            link.bind()
            yield link
    except ldap.LDAPError as error:
        raise Failed(directory, _told(error)) from error


class Link:
    def __init__(self, directory: Directory, connection: LDAPObject):
        self._directory, self._connection = directory, connection

    def bind(self) -> None:
        """As the service account."""
        try:
            password = self._directory.bind_password()
        except Unavailable as problem:  # it is told to whoever runs this server, and to nobody who signs in
            raise Failed(self._directory, problem.detail) from problem
        self._connection.simple_bind_s(self._directory.bind_dn, password)

    def is_password(self, dn: str, password: str) -> bool:
        """Whether who has this name binds with this password; from then on the connection is theirs, or anonymous.

        A bind without a password is no proof of anything, and succeeds (RFC 4513 section 5.1.2), so none is sent.
        """
        import ldap

        refusals = (
            ldap.INVALID_CREDENTIALS, ldap.INAPPROPRIATE_AUTH, ldap.UNWILLING_TO_PERFORM, ldap.CONSTRAINT_VIOLATION,
            ldap.INSUFFICIENT_ACCESS, ldap.NO_SUCH_OBJECT,
        )  # fmt: skip
        if not dn or not password:
            return False
        try:
            self._connection.simple_bind_s(dn, password)
        except refusals:
            return False
        return True

    def search(self, base: str, filter: str, attributes: Sequence[str], *, entry: bool = False) -> list[Entry]:
        """The entries below `base` that a filter matches, page by page (RFC 2696); `entry`: of the entry `base` alone."""
        import ldap
        from ldap.controls import SimplePagedResultsControl

        scope = ldap.SCOPE_BASE if entry else ldap.SCOPE_SUBTREE
        found: list[Entry] = []
        cookie: bytes | str = ""
        for _ in range(MOST_PAGES):
            page = SimplePagedResultsControl(criticality=False, size=PAGE, cookie=cookie)
            asked = self._connection.search_ext(base, scope, filter, list(attributes), serverctrls=[page])
            _, rows, _, controls = self._connection.result3(asked, timeout=self._directory.timeout)
            found += [_entry(dn, values) for dn, values in rows if dn]  # without a name it is a referral, which is not followed
            cookies = [one.cookie for one in controls if one.controlType == page.controlType]
            if not cookies or not cookies[0]:
                return found
            cookie = cookies[0]
        raise ldap.SIZELIMIT_EXCEEDED({"desc": f"more than {MOST_PAGES} pages"})

    def values(self, entry: Entry, attribute: str) -> Iterator[str]:
        """All values of an entry's attribute. Active Directory gives 1500 at a time and says which (MS-ADTS 3.1.1.3.1.3.3)."""
        here = entry
        while True:
            yield from here.texts(attribute)
            last = next((name for name in here.values if name.startswith(f"{attribute.lower()};range=")), None)
            if last is None:
                return
            yield from here.texts(last)
            if last.endswith("*"):
                return
            following = f"{attribute};range={int(last.rpartition('-')[2]) + 1}-*"
            here = next(iter(self.search(entry.dn, "(objectClass=*)", [following], entry=True)), Entry(entry.dn, {}))


def _entry(dn: str, values: dict[str, list[bytes]]) -> Entry:
    return Entry(dn, {name.lower(): found for name, found in values.items()})


@contextlib.contextmanager
def _connected(directory: Directory) -> Iterator[LDAPObject]:
    """libldap on a connection to the first replica that answers. Raises Failed."""
    import ldap
    from ldap.ldapobject import LDAPObject

    url, plain = _first(directory)
    try:
        # It closes what it was given.
        connection = LDAPObject(f"ldap://{urlsplit(url).hostname}", fileno=os.dup(plain.fileno()))
        connection.timeout = directory.timeout
        connection.set_option(ldap.OPT_REFERRALS, 0)
        connection.set_option(ldap.OPT_TIMEOUT, directory.timeout)
        try:
            yield connection
        finally:
            with contextlib.suppress(ldap.LDAPError):
                connection.unbind_s()
    finally:
        with contextlib.suppress(OSError):
            plain.shutdown(socket.SHUT_RDWR)
        plain.close()


def _first(directory: Directory) -> tuple[str, socket.socket]:
    """The first replica to which a connection is made, and that connection, as libldap may have it: without TLS."""
    why = ""
    for url in directory.urls:
        try:
            return url, _socket(directory, url)
        except Problem as problem:
            why = f"{url}: {problem.detail}"
        except (OSError, ValueError) as error:  # also ssl.SSLError, and a file of certificates that cannot be read
            why = f"{url}: {error}"
    raise Failed(directory, why)


def _trust(context: ssl.SSLContext, ca: str) -> None:
    """Trust the certificates in a file too. The errors of Python do not name it."""
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise ValueError(f"the file of certificates {ca}: {error.strerror or error}") from error


def _socket(directory: Directory, url: str) -> socket.socket:
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "ldaps" or directory.start_tls
    if not secure and host not in LOCAL:
        raise ValueError("passwords are not sent without TLS")
    raw = egress.connect(host, parts.port or PORTS[parts.scheme], allowed=None, timeout=directory.timeout)
    if not secure:
        return raw
    try:
        raw.settimeout(directory.timeout)
        if directory.start_tls:
            _start_tls(raw)
        context = ssl.create_default_context()
        if directory.ca:
            _trust(context, directory.ca)
        tls = context.wrap_socket(raw, server_hostname=host)
    except BaseException:
        raw.close()
        raise
    ours, libldaps = socket.socketpair()
    threading.Thread(target=_relay, args=(tls, ours, directory.timeout), name="directory", daemon=True).start()
    return libldaps


def _start_tls(raw: socket.socket) -> None:
    """Ask for TLS, before anything else (RFC 4511 section 4.14.2). What is not success is the end."""
    raw.sendall(START_TLS)
    answer = _exactly(raw, 2)
    length = answer[1]
    if length & 0x80:
        size = _exactly(raw, length & 0x7F)
        length = int.from_bytes(size, "big")
    if answer[0] != 0x30 or length > LONGEST_ANSWER:
        raise ValueError("the answer to StartTLS is no LDAP")
    # messageID 1, then [APPLICATION 24] with the resultCode, an ENUMERATED of one byte, as its first part.
    body = _exactly(raw, length)
    _, tagged, result = body.partition(b"\x02\x01\x01\x78")
    start = 1 + (result[0] & 0x7F if tagged and result and result[0] & 0x80 else 0)
    if result[start : start + 3] != b"\x0a\x01\x00":
        raise ValueError("the directory does not start TLS")


def _exactly(raw: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length:
        piece = raw.recv(length - len(got))
        if not piece:
            raise ValueError("the directory ended the connection")
        got += piece
    return got


def _relay(tls: ssl.SSLSocket, plain: socket.socket, timeout: float) -> None:
    """Pass on what comes on either side, until one ends."""
    tls.setblocking(False)
    try:
        with selectors.DefaultSelector() as waiting, contextlib.suppress(OSError):
            waiting.register(tls, selectors.EVENT_READ)
            waiting.register(plain, selectors.EVENT_READ)
            while True:
                ready: set[Any] = {key.fileobj for key, _ in waiting.select()}
                if tls in ready and not _pass_on(tls, plain):
                    return
                if plain in ready:
                    piece = plain.recv(PIECE)
                    if not piece:
                        return
                    _send(tls, piece, timeout)
    finally:
        tls.close()
        plain.close()


def _pass_on(tls: ssl.SSLSocket, plain: socket.socket) -> bool:
    """Whether there may be more."""
    while True:
        try:
            piece = tls.recv(PIECE)
        except ssl.SSLWantReadError:  # part of a record, or none of the data
            return True
        if not piece:
            return False
        plain.sendall(piece)


def _send(tls: ssl.SSLSocket, content: bytes, timeout: float) -> None:
    while content:
        try:
            content = content[tls.send(content) :]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wants:
            event = selectors.EVENT_READ if isinstance(wants, ssl.SSLWantReadError) else selectors.EVENT_WRITE
            with selectors.DefaultSelector() as waiting:
                waiting.register(tls, event)
                if not waiting.select(timeout):
                    raise TimeoutError from None


def _told(error: Exception) -> str:
    """What libldap says, in one line."""
    said = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return " ".join(filter(None, (type(error).__name__, said.get("desc"), said.get("info"))))
