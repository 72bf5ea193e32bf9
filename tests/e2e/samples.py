"""One small call of each API and a provider's answer to it, whole and streamed, with what it must cost."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.e2e.scripted import SSE, USAGE, Script, events, whole
from tests.e2e.test_requests import CLAUDE, HELLO, OPENAI

GEMINI = "gemini-2.5-flash"
NOVA = "us.amazon.nova-micro-v1:0"
LLAMA = "llama3.2"
COMMAND = "command-r-08-2024"
EMBEDDING = "text-embedding-3-small"

EVENT_STREAM = "application/vnd.amazon.eventstream"
NDJSON = "application/x-ndjson"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A streamed answer whose end can be told in other ways: with `usage` in its last message, or none."""

    make: Callable[[Mapping[str, Any]], Script]
    usage: Mapping[str, Any]
    zero: Mapping[str, Any]
    null: Mapping[str, Any]
    error: bytes  # a message that ends the stream with an error
    tells_throughout: bool = False  # `usage` is in every message


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A request, its answer and the tokens that the answer reports; `is_native`: Envoy 1.40 reads it."""

    path: str
    body: dict[str, Any]
    script: Script
    tokens: int
    is_native: bool = False


def frame(event_type: str, payload: Any, *, message_type: str = "event") -> bytes:
    """One message of an AWS event stream."""
    kind = ":event-type" if message_type == "event" else ":exception-type"
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in (
            (kind, event_type),
            (":content-type", "application/json"),
            (":message-type", message_type),
        )
    )
    data = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(data), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + data
    return message + struct.pack(">I", zlib.crc32(message))


def frames(*messages: tuple[str, Any]) -> Script:
    """A whole event stream, one message a piece."""
    return Script(
        pieces=tuple(frame(kind, payload) for kind, payload in messages),
        headers={"content-type": EVENT_STREAM},
    )


def lines(*values: Any) -> Script:
    """Newline-delimited JSON, one object a piece."""
    return Script(
        pieces=tuple(json.dumps(value).encode() + b"\n" for value in values), headers={"content-type": NDJSON}
    )


def named(*values: Any) -> Script:
    """Server-sent events that carry their type as name too."""
    pieces = tuple(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in values)
    return Script(pieces=pieces, headers=SSE)


# --- OpenAI

_CHAT_BODY = {"model": OPENAI, "messages": HELLO}
_CHUNK: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion.chunk",
    "model": OPENAI,
    "choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": None}],
}
_TEXT: dict[str, Any] = {
    "id": "cmpl-1",
    "object": "text_completion",
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"index": 0, "text": "hello", "logprobs": None, "finish_reason": "stop"}],
}
_RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": OPENAI,
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "hello", "annotations": []}],
        }
    ],
    "usage": {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 13,
    },
}
_STARTED = _RESPONSE | {"status": "in_progress", "output": [], "usage": None}
_DELTA = {
    "type": "response.output_text.delta",
    "sequence_number": 1,
    "item_id": "msg_1",
    "output_index": 0,
    "content_index": 0,
    "delta": "hello",
}

# --- Google

_GEMINI_BODY = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}


def _gemini(text: str, *, is_last: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}
    usage = {"promptTokenCount": 4, "totalTokenCount": 4}
    if is_last:
        candidate["finishReason"] = "STOP"
        # 4 + 5 + 7 of reasoning, told beside the candidates.
        usage = {
            "promptTokenCount": 4,
            "candidatesTokenCount": 5,
            "thoughtsTokenCount": 7,
            "totalTokenCount": 16,
        }
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": GEMINI, "responseId": "r1"}


_GEMINI_CHUNKS = (_gemini("hel", is_last=False), _gemini("lo", is_last=True))
_GEMINI_ARRAY = Script(
    pieces=(
        b"[" + json.dumps(_GEMINI_CHUNKS[0]).encode(),
        b",\r\n" + json.dumps(_GEMINI_CHUNKS[1]).encode(),
        b"]",
    )
)
_VERTEX = "/v1/projects/p/locations/us-central1/publishers"

# --- Anthropic

_MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": CLAUDE,
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 8,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 1,
        "output_tokens": 3,
    },
}
_MESSAGES_BODY = {"model": CLAUDE, "max_tokens": 16, "messages": HELLO}
_MESSAGE_EVENTS = (
    {
        "type": "message_start",
        "message": _MESSAGE
        | {"content": [], "stop_reason": None, "usage": _MESSAGE["usage"] | {"output_tokens": 1}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 3},
    },
    {"type": "message_stop"},
)

# --- Amazon Bedrock

_CONVERSE_BODY = {"messages": [{"role": "user", "content": [{"text": "Say hello."}]}]}
_CONVERSE_USAGE = {"inputTokens": 5, "outputTokens": 6, "totalTokens": 11}
_INVOKED = {key: value for key, value in _MESSAGE.items() if key != "usage"} | {
    "usage": {"input_tokens": 8, "output_tokens": 3}
}
_INVOKE_BODY = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 16, "messages": HELLO}


def _chunk_of(event: dict[str, Any]) -> tuple[str, Any]:
    return "chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode()}


# --- Cohere

_COHERE_USAGE = {
    "billed_units": {"input_tokens": 4, "output_tokens": 2},
    "tokens": {"input_tokens": 70, "output_tokens": 2},
}

# --- streams that end in other ways


def _responses(usage: Mapping[str, Any]) -> Script:
    done = {key: value for key, value in _RESPONSE.items() if key != "usage"} | dict(usage)
    return named(
        {"type": "response.created", "sequence_number": 0, "response": _STARTED},
        _DELTA,
        {"type": "response.completed", "sequence_number": 2, "response": done},
    )


def _gemini_events(usage: Mapping[str, Any]) -> Script:
    chunks = [_gemini("hel", is_last=False), _gemini("lo", is_last=True)]
    for chunk in chunks:
        del chunk["usageMetadata"]
    return events(*(chunk | dict(usage) for chunk in chunks), end=b"")


def _converse(usage: Mapping[str, Any]) -> Script:
    return frames(
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "hello"}, "p": "abcd"}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"metrics": {"latencyMs": 1}} | dict(usage)),
    )


def _ollama(usage: Mapping[str, Any]) -> Script:
    said = {"role": "assistant", "content": "hello"}
    ending = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    return lines({"model": LLAMA, "message": said, "done": False}, {"model": LLAMA} | ending | dict(usage))


def _cohere(usage: Mapping[str, Any]) -> Script:
    return named(
        {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "hello"}}}},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE"} | dict(usage)},
    )


STREAMS: dict[str, Stream] = {
    "openai_responses": Stream(
        make=_responses,
        usage={"usage": _RESPONSE["usage"]},
        zero={"usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}},
        null={"usage": None},
        error=b'event: error\ndata: {"type":"error","code":"server_error","message":"no","param":null}\n\n',
    ),
    "gemini": Stream(
        make=_gemini_events,
        usage={"usageMetadata": _GEMINI_CHUNKS[1]["usageMetadata"]},
        zero={"usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}},
        null={"usageMetadata": None},
        error=b'data: {"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}\r\n\r\n',
        tells_throughout=True,
    ),
    "bedrock_converse": Stream(
        make=_converse,
        usage={"usage": _CONVERSE_USAGE},
        zero={"usage": {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}},
        null={"usage": None},
        error=frame("internalServerException", {"message": "no"}, message_type="exception"),
    ),
    "ollama": Stream(
        make=_ollama,
        usage={"prompt_eval_count": 12, "eval_count": 3},
        zero={"prompt_eval_count": 0, "eval_count": 0},
        null={"prompt_eval_count": None, "eval_count": None},
        error=b'{"error":"the model runner stopped"}\n',
    ),
    "cohere_v2": Stream(
        make=_cohere,
        usage={"usage": _COHERE_USAGE},
        zero={"usage": {"billed_units": {"input_tokens": 0, "output_tokens": 0}}},
        null={"usage": None},
        error=b'event: error\ndata: {"type":"error","message":"no"}\n\n',
    ),
}


def _streamed(name: str) -> Script:
    return STREAMS[name].make(STREAMS[name].usage)


SAMPLES: dict[str, Sample] = {
    "openai_chat": Sample(
        path="/v1/chat/completions",
        body=_CHAT_BODY,
        script=whole(
            _CHUNK
            | {
                "object": "chat.completion",
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
                ],
                "usage": USAGE,
            }
        ),
        tokens=11,
        is_native=True,
    ),
    "openai_chat, streamed": Sample(
        path="/v1/chat/completions",
        body=_CHAT_BODY | {"stream": True, "stream_options": {"include_usage": True}},
        script=events(_CHUNK, _CHUNK | {"choices": [], "usage": USAGE}),
        tokens=11,
        is_native=True,
    ),
    "openai_responses": Sample(
        path="/v1/responses",
        body={"model": OPENAI, "input": "Say hello."},
        script=whole(_RESPONSE),
        tokens=13,
        is_native=True,
    ),
    "openai_responses, streamed": Sample(
        path="/v1/responses",
        body={"model": OPENAI, "input": "Say hello.", "stream": True},
        script=_streamed("openai_responses"),
        tokens=13,
        is_native=True,
    ),
    "openai_completions": Sample(
        path="/v1/completions",
        body={"model": "gpt-3.5-turbo-instruct", "prompt": "Say hello."},
        script=whole(_TEXT | {"usage": USAGE}),
        tokens=11,
    ),
    "openai_completions, streamed": Sample(
        path="/v1/completions",
        body={
            "model": "gpt-3.5-turbo-instruct",
            "prompt": "Say hello.",
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        script=events(_TEXT, _TEXT | {"choices": [], "usage": USAGE}),
        tokens=11,
    ),
    "openai_embeddings": Sample(
        path="/v1/embeddings",
        body={"model": EMBEDDING, "input": "Say hello."},
        script=whole(
            {
                "object": "list",
                "model": EMBEDDING,
                "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
                "usage": {"prompt_tokens": 3, "total_tokens": 3},
            }
        ),
        tokens=3,
    ),
    "anthropic_messages": Sample(
        path="/v1/messages", body=_MESSAGES_BODY, script=whole(_MESSAGE), tokens=14, is_native=True
    ),
    "anthropic_messages, streamed": Sample(
        path="/v1/messages",
        body=_MESSAGES_BODY | {"stream": True},
        script=named(*_MESSAGE_EVENTS),
        tokens=14,
        is_native=True,
    ),
    "gemini": Sample(
        path=f"/v1beta/models/{GEMINI}:generateContent",
        body=_GEMINI_BODY,
        script=whole(_GEMINI_CHUNKS[1]),
        tokens=16,
        is_native=True,
    ),
    "gemini, streamed": Sample(
        path=f"/v1beta/models/{GEMINI}:streamGenerateContent?alt=sse",
        body=_GEMINI_BODY,
        script=events(*_GEMINI_CHUNKS, end=b""),
        tokens=16,
        is_native=True,
    ),
    "gemini, streamed as an array": Sample(
        path=f"/v1beta/models/{GEMINI}:streamGenerateContent",
        body=_GEMINI_BODY,
        script=_GEMINI_ARRAY,
        tokens=16,
        is_native=True,
    ),
    "vertex, streamed": Sample(
        path=f"{_VERTEX}/google/models/{GEMINI}:streamGenerateContent?alt=sse",
        body=_GEMINI_BODY,
        script=events(*_GEMINI_CHUNKS, end=b""),
        tokens=16,
        is_native=True,
    ),
    "bedrock_converse": Sample(
        path=f"/model/{NOVA}/converse",
        body=_CONVERSE_BODY,
        script=whole(
            {
                "output": {"message": {"role": "assistant", "content": [{"text": "hello"}]}},
                "stopReason": "end_turn",
                "usage": _CONVERSE_USAGE,
                "metrics": {"latencyMs": 1},
            }
        ),
        tokens=11,
    ),
    "bedrock_converse, streamed": Sample(
        path=f"/model/{NOVA}/converse-stream",
        body=_CONVERSE_BODY,
        script=_streamed("bedrock_converse"),
        tokens=11,
    ),
    "bedrock_invoke": Sample(
        path="/model/anthropic.claude-sonnet-4-5-20250929-v1:0/invoke",
        body=_INVOKE_BODY,
        script=whole(_INVOKED),
        tokens=11,
    ),
    "bedrock_invoke, streamed": Sample(
        path="/model/anthropic.claude-sonnet-4-5-20250929-v1:0/invoke-with-response-stream",
        body=_INVOKE_BODY,
        script=frames(*(_chunk_of(event) for event in _MESSAGE_EVENTS)),
        tokens=14,
    ),
    "cohere_v2": Sample(
        path="/v2/chat",
        body={"model": COMMAND, "messages": HELLO, "stream": False},
        script=whole(
            {
                "id": "c1",
                "finish_reason": "COMPLETE",
                "message": {"role": "assistant", "content": [{"type": "text", "text": "hello"}]},
                "usage": _COHERE_USAGE,
            }
        ),
        tokens=6,
    ),
    "cohere_v2, streamed": Sample(
        path="/v2/chat",
        body={"model": COMMAND, "messages": HELLO, "stream": True},
        script=_streamed("cohere_v2"),
        tokens=6,
    ),
    "ollama": Sample(
        path="/api/chat",
        body={"model": LLAMA, "messages": HELLO, "stream": False},
        script=whole(
            {
                "model": LLAMA,
                "message": {"role": "assistant", "content": "hello"},
                "done_reason": "stop",
                "done": True,
                "prompt_eval_count": 12,
                "eval_count": 3,
            }
        ),
        tokens=15,
    ),
    "ollama, streamed": Sample(
        path="/api/chat",
        body={"model": LLAMA, "messages": HELLO},
        script=_streamed("ollama"),
        tokens=15,
    ),
}
