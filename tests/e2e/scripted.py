"""A provider that answers exactly what the test put there, byte for byte, and what that was charged."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2 as httpx

from tests.e2e.callers import Caller, newcomer, settlements
from tests.e2e.stack import Stack
from tests.e2e.test_requests import HELLO, OPENAI, wait_until

SSE = {"content-type": "text/event-stream"}
USAGE = {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One answer; several pieces are sent one by one, chunked."""

    pieces: tuple[bytes, ...]
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    status: int = 200
    is_cut: bool = False  # the connection ends without the last chunk, once the client has all pieces


@dataclass(slots=True)
class ScriptedProvider:
    """Answers `script` to everything and remembers the newest request."""

    port: int = 0
    script: Script = field(default_factory=lambda: Script(pieces=(b"{}",)))
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    has_arrived: threading.Event = field(default_factory=threading.Event)


def whole(body: Any, **changes: Any) -> Script:
    """A JSON answer with its length."""
    return Script(pieces=(json.dumps(body).encode(),), **changes)


def events(*values: Any, end: bytes = b"data: [DONE]\n\n", **changes: Any) -> Script:
    """Server-sent events without names, one a piece."""
    pieces = tuple(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    return Script(pieces=(*pieces, end) if end else pieces, headers=SSE, **changes)


def chat(usage: dict[str, int]) -> Script:
    """A chat completion with this usage."""
    message = {"role": "assistant", "content": "hello"}
    return whole(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": OPENAI,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": usage,
        }
    )


@contextmanager
def scripted_provider() -> Iterator[ScriptedProvider]:
    """Serve HTTP/1.1."""
    state = ScriptedProvider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def _handler(state: ScriptedProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            state.has_arrived.clear()
            state.path = self.path
            state.headers = {name.lower(): value for name, value in self.headers.items()}
            state.body = self.rfile.read(int(self.headers.get("content-length", 0)))
            script = state.script
            is_chunked = len(script.pieces) > 1 or script.is_cut
            self.send_response(script.status)
            for name, value in script.headers.items():
                self.send_header(name, value)
            if is_chunked:
                self.send_header("transfer-encoding", "chunked")
            else:
                self.send_header("content-length", str(len(script.pieces[0])))
            self.end_headers()
            for piece in script.pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
                self.wfile.flush()
            if script.is_cut:
                state.has_arrived.wait(10)
                self.close_connection = True
            elif is_chunked:
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST  # noqa: N815  the name is the library's

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


@dataclass(slots=True, kw_only=True)
class Scene:
    """A stack in front of a scripted provider; nobody else uses it meanwhile."""

    stack: Stack
    provider: ScriptedProvider
    _settled: Counter[str] = field(default_factory=Counter)
    _untouched: int = 0

    def __post_init__(self) -> None:
        self._untouched = self._left(newcomer(self.stack))

    def charged(
        self, script: Script, ask: Callable[[httpx.Client], httpx.Response]
    ) -> tuple[int, str, httpx.Response]:
        """What one call of a newcomer costs, on which basis, and its answer."""
        caller = newcomer(self.stack)
        self.provider.script = script
        with caller.http() as client:
            answer = ask(client)
        asked = (self.provider.path, self.provider.headers, self.provider.body)
        basis = self._basis(answer)
        cost = self._untouched - self._left(caller)
        self.provider.path, self.provider.headers, self.provider.body = asked
        return cost, basis, answer

    def _left(self, caller: Caller) -> int:
        """What the team's budget has left; asking is answered with a usage of zero."""
        self.provider.script = chat(NO_USAGE)
        with caller.http() as client:
            answer = client.post("/v1/chat/completions", json=PROBE)
        self._basis(answer)
        return int(answer.headers["x-ratelimit-remaining-tokens"])

    def _basis(self, answer: httpx.Response) -> str:
        """Wait for one more settlement and return its basis."""
        assert answer.status_code not in {401, 403, 413, 415}, answer.read()
        found: list[str] = []

        def more() -> bool:
            now = settlements(self.stack)
            found[:] = (now - self._settled).elements()
            return bool(found)

        wait_until(more, f"a settlement of what was answered with {answer.status_code}")
        self._settled.update(found)
        (basis,) = found
        return basis


PROBE = {"model": OPENAI, "max_tokens": 1, "messages": HELLO}
