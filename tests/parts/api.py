"""A client of the API, as somebody."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.parts.server import ADMIN_PASSWORD, Answer, Server, named

ADMIN = ("admin", ADMIN_PASSWORD)
PASSWORD = "the-password-of-everybody"


@dataclass(frozen=True)
class Api:
    """`api.get("repositories/")` as `user`; a body that is no bytes is sent as JSON."""

    server: Server
    user: tuple[str, str] | None = ADMIN

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        sent = named(headers)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        path = path.removeprefix(self.server.url).removeprefix("/api/v1/")
        return self.server.request(method, f"/api/v1/{path}", body, sent, self.user)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def put(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("PUT", path, body, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, {} if body is None else body, **headers)

    def delete(self, path: str, **headers: str) -> Answer:
        return self.ask("DELETE", path, **headers)

    def read(self, path: str) -> Any:
        """What a GET that succeeds says."""
        answer = self.get(path)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def pages(self, path: str) -> list[dict[str, Any]]:
        """The pages of a list, each reached by the one before."""
        found = [self.read(path)]
        while found[-1]["next"]:
            found.append(self.read(found[-1]["next"]))
        return found

    def items(self, path: str) -> list[dict[str, Any]]:
        return [item for page in self.pages(path) for item in page["items"]]


def rule(answer: Answer) -> str:
    return json.loads(answer.body)["rule"]
