"""What is answered to requests that do not pass."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

from tests.e2e.stack import Stack
from tests.readme.markdown import code, table
from tests.readme.normal import Normal
from tests.readme.ours import HELLO, client

Row = tuple[object, ...]

CHAT = "/v1/chat/completions"
FITS = {"model": "gpt-4o-mini", "messages": HELLO}
# RateLimit/team-tokens holds 250,000 tokens, and a RequestCap lowers any output limit to 100,000.
LONG = [{"role": "user", "content": "x " * 160_000}]
HALF = [{"role": "user", "content": "x " * 40_000}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request that does not pass."""

    what: str
    body: Any = field(default_factory=lambda: FITS)
    path: str = CHAT
    method: str = "POST"
    key: str = "sk-demo"
    headers: Mapping[str, str] = field(default_factory=dict)

    def answer(self, stack: Stack) -> httpx.Response:
        """Send it."""
        content = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        with client(stack, self.key) as http:
            return http.request(self.method, self.path, content=content, headers=dict(self.headers))


REQUESTS = (
    Sent(what="no key", key=""),
    Sent(what="a key that nobody has", key="sk-unknown"),
    Sent(what="a model that a rule denies", body=FITS | {"model": "o1-pro"}),
    Sent(what="a model that no rule allows", body=FITS | {"model": "gpt-5"}),
    Sent(what="a path below `/v1/` that is no call we read", path="/v1/nobodys"),
    Sent(what="no body", body=b""),
    Sent(what="not JSON", body=b'{"model": '),
    Sent(what="UTF-16", body=json.dumps(FITS).encode("utf-16")),
    Sent(
        what="a key that is there twice", body=b'{"model": "gpt-4o-mini", "model": "o1-pro", "messages": []}'
    ),
    Sent(
        what="keys that differ in case", body=b'{"model": "gpt-4o-mini", "Model": "o1-pro", "messages": []}'
    ),
    Sent(what="a model that is no string", body=FITS | {"model": 5}),
    Sent(what="no messages", body={"model": "gpt-4o-mini"}),
    Sent(what="`NaN`", body=b'{"model": "gpt-4o-mini", "messages": [], "temperature": NaN}'),
    Sent(what="nested 5,000 levels", body=b'{"model": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    Sent(what="an unknown `content-encoding`", body=b"x", headers={"content-encoding": "lzma"}),
    Sent(what="gzip that is none", body=b"x", headers={"content-encoding": "gzip"}),
    Sent(what="one byte more than `maxBodyBytes`", body=b" " * (32 * 1024 * 1024 + 1)),
    Sent(what="more than a limit ever holds", body=FITS | {"messages": LONG, "max_tokens": 100_000}),
)
FULL = Sent(what="more than a limit holds now", body=FITS | {"messages": HALF, "max_tokens": 100_000})
AFTER = (
    Sent(
        what="a WebSocket",
        method="GET",
        body=b"",
        headers={"connection": "upgrade", "upgrade": "websocket"},
    ),
    Sent(what="a path where no provider has an AI API", path="/index.html"),
)


def rows(stack: Stack) -> list[Row]:
    """Each request, and what it was answered."""
    found = [_row(sent, sent.answer(stack)) for sent in REQUESTS]
    found.append(_row(FULL, _while_another_holds_most(stack)))
    return found + [_row(sent, sent.answer(stack)) for sent in AFTER]


def rows_without_sidecar(stack: Stack) -> list[Row]:
    """The same for a good request while the sidecar is dead."""
    stack.kill_sidecar()
    sent = Sent(what="anything, while the sidecar is down")
    return [_row(sent, sent.answer(stack))]


def table_of(found: list[Row]) -> str:
    """The rows as a table."""
    return table(("what is sent", "status", "`code`", "what the caller reads"), found)


def _while_another_holds_most(stack: Stack) -> httpx.Response:
    slow = {"x-demo-output-tokens": "200", "x-demo-interval-ms": "50"}
    with (
        client(stack) as http,
        http.stream("POST", CHAT, json=FULL.body | {"stream": True}, headers=slow) as held,
    ):
        chunks = held.iter_bytes()  # kept: without it the answer would be closed
        next(chunks)
        return FULL.answer(stack)


def _row(sent: Sent, answer: httpx.Response) -> Row:
    error = answer.json()["error"]
    message = re.sub(r" \(decision [0-9a-f-]+\)$", "", error["message"])
    return sent.what, answer.status_code, code(error["code"]), Normal({}).text(message)
