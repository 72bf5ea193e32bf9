"""What Envoy 1.40's ai_protocol_manager does with the session, shape by shape; see envoy/envoy.yaml.

These pin what surprised us: each failed in some other placement of the filter.
"""

import gzip
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import httpx2 as httpx
import pytest

from tests.e2e import policies
from tests.e2e.callers import Caller, call, settlements
from tests.e2e.stack import Stack
from tests.e2e.test_requests import HELLO, OPENAI, wait_until


class ScriptedProvider(BaseHTTPRequestHandler):
    """Answers exactly what the test put here, byte for byte."""

    protocol_version = "HTTP/1.1"
    status: ClassVar[int] = 200
    headers_out: ClassVar[dict[str, str]] = {}
    pieces: ClassVar[list[bytes]] = []
    chunked: ClassVar[bool] = False

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        cls = type(self)
        self.send_response(cls.status)
        for name, value in cls.headers_out.items():
            self.send_header(name, value)
        if cls.chunked:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("content-length", str(sum(map(len, cls.pieces))))
        self.end_headers()
        for piece in cls.pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if cls.chunked else piece)
            self.wfile.flush()
        if cls.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's name
        """Say nothing."""


@pytest.fixture(scope="module")
def provider() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), ScriptedProvider)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory, provider: int) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("scripted"), usage="native", policies=policies.FILES, provider_port=provider
    ) as stack:
        yield stack


def answer(body: Any, **changes: Any) -> None:
    """Script the next answers."""
    ScriptedProvider.pieces = [json.dumps(body).encode()] if not isinstance(body, list) else body
    ScriptedProvider.status = changes.get("status", 200)
    ScriptedProvider.headers_out = {"content-type": "application/json"} | changes.get("headers", {})
    ScriptedProvider.chunked = changes.get("chunked", False)


def chat_json(**changes: Any) -> dict[str, Any]:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}
        ],
        "usage": {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11},
    }
    return body | changes


CHUNK = {
    "id": "c",
    "object": "chat.completion.chunk",
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": None}],
}
USAGE_CHUNK = CHUNK | {
    "choices": [],
    "usage": {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11},
}
SSE = {"content-type": "text/event-stream"}


def events(*values: Any) -> list[bytes]:
    return [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values] + [b"data: [DONE]\n\n"]


def post(stack: Stack, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    request = {"model": OPENAI, "messages": HELLO} | body
    with call_client(stack) as client:
        return client.post(path, json=request)


def call_client(stack: Stack) -> httpx.Client:
    return Caller(stack=stack, key=policies.key(0), team=policies.team(0), untouched=0).http()


def settled_as(stack: Stack, basis: str, **body: Any) -> httpx.Response:
    """Send a request and wait until one more settlement has this basis."""
    before = settlements(stack).get(basis, 0)
    response = post(stack, **body)
    wait_until(lambda: settlements(stack).get(basis, 0) == before + 1, f"one more settlement by {basis}")
    return response


def test_json_with_content_length_in_one_packet_keeps_its_trailers_message(scripted: Stack) -> None:
    """From the listener's chain this message gets lost every time."""
    answer(chat_json())

    assert settled_as(scripted, "provider").json()["usage"]["total_tokens"] == 11


def test_a_stream_on_the_native_path_ends_and_is_reported(scripted: Stack) -> None:
    answer(events(CHUNK, USAGE_CHUNK), headers=SSE, chunked=True)

    response = settled_as(scripted, "provider", stream=True, stream_options={"include_usage": True})

    assert response.text.endswith("data: [DONE]\n\n")
    assert '"usage"' in response.text


def test_a_stream_read_by_override_ends_too(scripted: Stack) -> None:
    """From the listener's chain the client would hang."""
    answer(events(CHUNK, USAGE_CHUNK), headers=SSE, chunked=True)

    response = settled_as(scripted, "provider", stream=True)

    assert response.text.endswith("data: [DONE]\n\n")
    assert '"usage"' not in response.text


def test_an_answer_without_usage_is_charged_as_reserved(scripted: Stack) -> None:
    body = chat_json()
    del body["usage"]
    answer(body)

    assert settled_as(scripted, "reserved").status_code == 200


def test_a_429_of_the_provider_passes_and_returns_the_tokens(scripted: Stack) -> None:
    answer({"error": {"message": "slow down", "type": "tokens"}}, status=429, headers={"retry-after": "7"})

    response = settled_as(scripted, "upstream_error")

    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert response.json()["error"]["message"] == "slow down"


def test_a_compressed_answer_that_envoy_does_not_inspect_is_read_by_the_session(scripted: Stack) -> None:
    answer([gzip.compress(json.dumps(chat_json()).encode())], headers={"content-encoding": "gzip"})

    assert settled_as(scripted, "provider").json()["usage"]["total_tokens"] == 11


def test_an_answer_of_five_megabytes_passes_and_is_reported(scripted: Stack) -> None:
    answer(chat_json(padding="x" * 5_000_000))

    response = settled_as(scripted, "provider")

    assert len(response.content) > 5_000_000


@pytest.mark.parametrize("version", ["1.38.3", "1.40.0"])
def test_an_answer_over_the_buffer_limit_passes_where_the_session_reads_it(
    tmp_path: Path, provider: int, version: str
) -> None:
    """Asked for BUFFERED, it would be a 500."""
    answer(chat_json(padding="x" * 12_000_000))
    with Stack(
        tmp_path, envoy=version, usage="stream", policies=policies.FILES, provider_port=provider
    ) as stack:
        response = settled_as(stack, "provider")

    assert response.status_code == 200
    assert len(response.content) > 12_000_000


def test_nesting_beyond_envoys_sixteen_levels_is_charged_as_reserved(scripted: Stack) -> None:
    deep: Any = 1
    for _ in range(17):
        deep = {"deeper": deep}
    answer(chat_json(extra=deep))

    assert settled_as(scripted, "reserved").status_code == 200


def test_reasoning_that_is_only_in_the_total_is_charged(scripted: Stack) -> None:
    """XAI counts 12 + 1 + 228 of reasoning = 241."""
    fresh = call_budget(scripted)
    answer(
        chat_json(
            usage={
                "prompt_tokens": 12,
                "completion_tokens": 1,
                "total_tokens": 241,
                "completion_tokens_details": {"reasoning_tokens": 228},
            }
        )
    )
    with fresh.http() as client:
        response = client.post("/v1/chat/completions", json={"model": OPENAI, "messages": HELLO})

    left = int(response.headers["x-ratelimit-remaining-tokens"])
    answer(chat_json(usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}))
    with fresh.http() as client:
        again = client.post("/v1/chat/completions", json={"model": OPENAI, "messages": HELLO})
    assert left - int(again.headers["x-ratelimit-remaining-tokens"]) == 241


def call_budget(stack: Stack) -> Caller:
    return Caller(stack=stack, key=policies.key(1), team=policies.team(1), untouched=0)


def test_null_cache_fields_of_anthropic_are_no_failure(scripted: Stack) -> None:
    answer(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": [{"type": "text", "text": "hello"}],
            "stop_reason": "end_turn",
            "usage": {
                "input_tokens": 8,
                "output_tokens": 3,
                "cache_creation_input_tokens": None,
                "cache_read_input_tokens": None,
            },
        }
    )

    response = settled_as(scripted, "partial", path="/v1/messages", model="claude-sonnet-4-5", max_tokens=16)

    assert response.status_code == 200


def test_a_client_that_leaves_before_the_provider_ends_is_charged(tmp_path: Path) -> None:
    """Envoy publishes nothing for it, so what was reserved is charged: never zero."""
    with Stack(tmp_path, usage="native", policies=policies.FILES) as stack:
        caller = call(stack)
        with (
            caller.http(**{"x-demo-output-tokens": "100", "x-demo-interval-ms": "30"}) as client,
            client.stream(
                "POST",
                "/v1/chat/completions",
                json={
                    "model": OPENAI,
                    "messages": HELLO,
                    "max_tokens": 100,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                },
            ) as response,
        ):
            next(response.iter_bytes())

        wait_until(lambda: settlements(stack).get("reserved", 0) == 1, "settled as reserved")
        # 10 tokens of input and the declared ceiling.
        assert caller.tokens_used() == 110
