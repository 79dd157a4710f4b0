"""Everything Entrepot refuses or fails to do, as one hierarchy.

    Problem
    ├── Malformed            400  the request itself is wrong
    ├── Unauthenticated      401  who are you? (with a challenge)
    ├── Forbidden            403  you may not, or a rule of the repository says no
    │   └── UpstreamDenied   403  the upstream does not let this server have it
    ├── NotFound             404  absent, or hidden from you: the two look alike
    ├── MethodRefused        405  this kind of repository does not do that
    ├── NotAcceptable        406  not in a form that the client takes
    ├── Conflict             409  it stands already, with other bytes
    ├── PreconditionFailed   412  it is not as the client last saw it
    ├── TooLarge             413  over a limit
    ├── MediaRefused         415  not in a form that is taken here
    ├── RangeRefused         416  no such range of bytes
    ├── TooMany              429  enough of it is under way already
    ├── Interrupted          500  the answer cannot be completed; the connection is ended
    ├── UpstreamFailed       502  the upstream answered wrongly or not at all
    │   ├── UpstreamTimeout  504  the upstream did not answer in time
    │   └── UpstreamOut      503  the upstream is not asked for a while, since it failed again and again or wants it so
    ├── Unavailable          503  try again later
    └── StorageFull          507  no room for the bytes

Code that finds a problem raises it; the doors alone turn it into HTTP: `repos.gate` in the words of a format's own clients,
`repos.api` as problem details.
An upstream's failure is never a NotFound: a client that sees 404 goes elsewhere or gives up for good.
"""

from __future__ import annotations


class Problem(Exception):
    """One refusal or failure, told in one line.

    `detail` says what was refused and what to do; `rule` names the rule that decided, so that an administrator can find it
    (for example `immutable`, `repository.private`, `zip.prefix`). Both are shown to the client, so neither may hold a secret,
    nor tell apart what is absent from what is hidden.
    """

    status = 500
    title = "Internal Error"
    rule = ""

    def __init__(self, detail: str, *, rule: str = "", headers: dict[str, str] | None = None):
        super().__init__(detail)
        self.detail = " ".join(detail.split())
        self.rule = rule or self.rule
        self.headers = headers or {}

    @property
    def reason(self) -> str:
        """The refusal and its rule as one line."""
        return f"{self.detail} (rule: {self.rule})" if self.rule else self.detail


class Malformed(Problem):
    status, title = 400, "Bad Request"


class Unauthenticated(Problem):
    status, title = 401, "Unauthorized"


class Forbidden(Problem):
    status, title = 403, "Forbidden"


class UpstreamDenied(Forbidden):
    pass


class NotFound(Problem):
    status, title = 404, "Not Found"


class MethodRefused(Problem):
    status, title = 405, "Method Not Allowed"


class NotAcceptable(Problem):
    status, title = 406, "Not Acceptable"


class Conflict(Problem):
    status, title = 409, "Conflict"


class PreconditionFailed(Problem):
    status, title = 412, "Precondition Failed"


class TooLarge(Problem):
    status, title = 413, "Content Too Large"


class MediaRefused(Problem):
    status, title = 415, "Unsupported Media Type"


class RangeRefused(Problem):
    status, title = 416, "Range Not Satisfiable"


class TooMany(Problem):
    status, title = 429, "Too Many Requests"


class Interrupted(Problem):
    status, title = 500, "Interrupted"


class UpstreamFailed(Problem):
    status, title = 502, "Bad Gateway"


class UpstreamTimeout(UpstreamFailed):
    status, title = 504, "Gateway Timeout"


class UpstreamOut(UpstreamFailed):
    status, title = 503, "Service Unavailable"


class Unavailable(Problem):
    status, title = 503, "Service Unavailable"


class StorageFull(Problem):
    status, title = 507, "Insufficient Storage"


def silent() -> UpstreamTimeout:
    """What is told of an upstream to which one has waited long enough, in one wording."""
    return UpstreamTimeout("the upstream did not answer in time; try again later", rule="upstream.timeout")


def absent(path: str) -> NotFound:
    """What is not there, in the one wording that also answers for what is hidden, so that the two cannot be told apart."""
    return NotFound(f"{path or '/'} is not here, or not for you to read")
