"""What a provider answers in each wire format, whole and streamed, with the tokens that it reports."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tests.formats import frames

SAID = "Grüße 🌍!"

Event = dict[str, Any] | bytes


def _sse(event: Event) -> bytes:
    data = event if isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode()
    return b"data: " + data + b"\n\n"


def _line(event: Event) -> bytes:
    assert isinstance(event, dict)
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def _frame(event: Event) -> bytes:
    """An event of one member is what its name says."""
    assert isinstance(event, dict)
    ((name, payload),) = event.items()
    return frames.event(name, payload)


def _vendors(event: Event) -> bytes:
    return frames.chunk(event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How events become bytes, and what such an answer calls itself."""

    content_type: str
    write: Callable[[Event], bytes]


SSE = Framing(content_type="text/event-stream", write=_sse)
LINES = Framing(content_type="application/x-ndjson", write=_line)
FRAMES = Framing(content_type="application/vnd.amazon.eventstream", write=_frame)
VENDORS_FRAMES = Framing(content_type="application/vnd.amazon.eventstream", write=_vendors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """An answer as one JSON body and as events, if it streams; `counts` names the members with tokens.

    `spent` is what they come to; None: such an answer reports nothing. `operation` is the call it answers,
    where a format has several.
    """

    whole: dict[str, Any]
    events: tuple[Event, ...] = ()
    framing: Framing = SSE
    counts: frozenset[str] = frozenset()
    spent: int | None = None
    operation: str = ""

    def body(self, change: Callable[[Any], Any] | None = None) -> bytes:
        """The JSON body; each count as `change` makes it, and without those that become `...`."""
        return json.dumps(self._changed(self.whole, change), ensure_ascii=False).encode()

    def stream(self, change: Callable[[Any], Any] | None = None) -> list[bytes]:
        """The events as bytes, one by one."""
        return [self.framing.write(self._changed(event, change)) for event in self.events]

    def _changed(self, value: Any, change: Callable[[Any], Any] | None) -> Any:
        if change is None:
            return value
        if isinstance(value, list):
            return [self._changed(each, change) for each in value]
        if not isinstance(value, dict):
            return value
        changed = {
            name: change(each) if name in self.counts else self._changed(each, change)
            for name, each in value.items()
        }
        return {name: each for name, each in changed.items() if each is not ...}


def _counts(*names: str) -> frozenset[str]:
    return frozenset(names)


# --- OpenAI and those who speak its dialects

_OPENAI_COUNTS = _counts("prompt_tokens", "completion_tokens", "total_tokens")
_OPENAI_USAGE = {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}
_CHUNK = {"id": "c-1", "object": "chat.completion.chunk", "model": "m"}
_CHAT = Answers(
    whole={
        "id": "c-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": SAID}}],
        "usage": _OPENAI_USAGE,
    },
    events=(
        {**_CHUNK, "choices": [{"index": 0, "delta": {"content": SAID}, "finish_reason": None}]},
        {**_CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**_CHUNK, "choices": [], "usage": _OPENAI_USAGE},
        b"[DONE]",
    ),
    counts=_OPENAI_COUNTS,
    spent=11,
)
_COMPLETION = Answers(
    whole={
        "id": "c-1",
        "object": "text_completion",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "text": SAID}],
        "usage": _OPENAI_USAGE,
    },
    events=(
        {**_CHUNK, "choices": [{"index": 0, "text": SAID, "finish_reason": "stop"}]},
        {**_CHUNK, "choices": [], "usage": _OPENAI_USAGE},
        b"[DONE]",
    ),
    counts=_OPENAI_COUNTS,
    spent=11,
)
_IN_AND_OUT = _counts("input_tokens", "output_tokens", "total_tokens")
_USAGE = {"input_tokens": 8, "output_tokens": 3, "total_tokens": 11}
_RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "m",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": SAID}]}],
    "usage": _USAGE,
}
_EMBEDDINGS = Answers(
    whole={
        "object": "list",
        "model": "m",
        "data": [{"index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    },
    counts=_OPENAI_COUNTS,
    spent=8,
)
_RUN = {"id": "run_1", "object": "thread.run", "model": "m"}

# --- Anthropic

_CLAUDE_USAGE = {"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 3}
_CLAUDE_COUNTS = _counts("input_tokens", "cache_read_input_tokens", "output_tokens")
_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x"}
_MESSAGES = Answers(
    whole={
        **_MESSAGE,
        "content": [{"type": "text", "text": SAID}],
        "stop_reason": "end_turn",
        "usage": _CLAUDE_USAGE,
    },
    events=(
        {"type": "message_start", "message": {**_MESSAGE, "usage": {**_CLAUDE_USAGE, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": SAID}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ),
    counts=_CLAUDE_COUNTS,
    spent=11,
)

# --- Google

_GEMINI_COUNTS = _counts("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount")


def _candidate(text: str, **changes: Any) -> dict[str, Any]:
    return {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}, **changes}


_GEMINI_END = {
    "candidates": [_candidate("!", finishReason="STOP")],
    "usageMetadata": {
        "promptTokenCount": 4,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": 5,
        "totalTokenCount": 11,
    },
    "modelVersion": "gemini-x",
    "responseId": "r-1",
}
_GENERATED = Answers(
    whole=_GEMINI_END,
    events=({"candidates": [_candidate(SAID)], "modelVersion": "gemini-x"}, _GEMINI_END),
    counts=_GEMINI_COUNTS,
    spent=11,
)
_INTERACTION_USAGE = {"total_input_tokens": 4, "total_output_tokens": 7, "total_tokens": 11}
_INTERACTION = {
    "id": "int_1",
    "model": "gemini-x",
    "status": "completed",
    "outputs": [{"type": "text", "text": SAID}],
    "usage": _INTERACTION_USAGE,
}

# --- others

_CONVERSE_USAGE = {"inputTokens": 5, "outputTokens": 6, "totalTokens": 11}
_COHERE_USAGE = {"billed_units": {"input_tokens": 8, "output_tokens": 3}}
_COHERE_COUNTS = _counts("input_tokens", "output_tokens")
_OLLAMA_END = {"model": "m", "done": True, "done_reason": "stop", "prompt_eval_count": 8, "eval_count": 3}
_TGI_DETAILS = {"finish_reason": "length", "generated_tokens": 3, "input_length": 8}
_TGI_COUNTS = _counts("generated_tokens", "input_length")
_WATSONX = {"model_id": "m", "created_at": "2026-01-01"}
_GENERATION = {"generated_text": SAID, "generated_token_count": 3, "input_token_count": 8}

ANSWERS: Mapping[str, Answers] = MappingProxyType(
    {
        "openai_chat": _CHAT,
        "openai_completions": _COMPLETION,
        "openai_responses": Answers(
            whole=_RESPONSE,
            events=(
                {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
                {"type": "response.output_text.delta", "output_index": 0, "delta": SAID},
                {"type": "response.completed", "response": _RESPONSE},
            ),
            counts=_IN_AND_OUT,
            spent=11,
        ),
        "openai_embeddings": _EMBEDDINGS,
        "openai_moderations": Answers(whole={"id": "modr-1", "model": "m", "results": [{"flagged": False}]}),
        "openai_images": Answers(
            whole={"created": 1, "data": [{"b64_json": "AAAA"}], "usage": _USAGE},
            events=(
                {"type": "image_generation.partial_image", "b64_json": "AAAA"},
                {"type": "image_generation.completed", "b64_json": "AAAA", "usage": _USAGE},
            ),
            counts=_IN_AND_OUT,
            spent=11,
        ),
        "openai_audio": Answers(
            whole={"text": SAID, "usage": {"type": "tokens", **_USAGE}},
            events=(
                {"type": "transcript.text.delta", "delta": SAID},
                {"type": "transcript.text.done", "text": SAID, "usage": {"type": "tokens", **_USAGE}},
            ),
            counts=_IN_AND_OUT,
            spent=11,
        ),
        "openai_realtime": Answers(whole={"value": "ek_1", "session": {"id": "sess_1"}}),
        "openai_files": Answers(whole={"id": "file-1", "object": "file", "purpose": "batch"}),
        "openai_assistants": Answers(
            whole={**_RUN, "status": "completed", "usage": _OPENAI_USAGE},
            events=(
                {**_RUN, "status": "queued"},
                {
                    "id": "msg_1",
                    "object": "thread.message.delta",
                    "delta": {"content": [{"type": "text", "text": {"value": SAID}}]},
                },
                {**_RUN, "status": "completed", "usage": _OPENAI_USAGE},
                b"[DONE]",
            ),
            counts=_OPENAI_COUNTS,
            spent=11,
        ),
        "rerank": Answers(
            whole={
                "model": "m",
                "results": [{"index": 0, "relevance_score": 0.5}],
                "usage": {"total_tokens": 8},
            },
            counts=_OPENAI_COUNTS,
            spent=8,
        ),
        "anthropic_messages": _MESSAGES,
        "anthropic_batches": Answers(whole={"id": "msgbatch_1", "processing_status": "in_progress"}),
        "anthropic_complete": Answers(
            whole={"id": "compl_1", "model": "claude-2", "completion": SAID, "stop_reason": "stop_sequence"},
            events=(
                {"type": "completion", "completion": SAID, "stop_reason": None, "model": "claude-2"},
                {"type": "completion", "completion": "", "stop_reason": "stop_sequence", "model": "claude-2"},
            ),
        ),
        "gemini": _GENERATED,
        "gemini_interactions": Answers(
            whole=_INTERACTION,
            events=(
                {"event_type": "content.delta", "index": 0, "delta": {"type": "text", "text": SAID}},
                {"event_type": "interaction.complete", "interaction": _INTERACTION},
                b"[DONE]",
            ),
            counts=_counts("total_input_tokens", "total_output_tokens", "total_tokens"),
            spent=11,
        ),
        "vertex": _GENERATED,
        "vertex_anthropic": _MESSAGES,
        "vertex_openai": _CHAT,
        "cohere_v1": Answers(
            whole={"response_id": "r-1", "text": SAID, "finish_reason": "COMPLETE", "meta": _COHERE_USAGE},
            events=(
                {"event_type": "stream-start", "generation_id": "g-1"},
                {"event_type": "text-generation", "text": SAID},
                {
                    "event_type": "stream-end",
                    "finish_reason": "COMPLETE",
                    "response": {"response_id": "r-1", "text": SAID, "meta": _COHERE_USAGE},
                },
            ),
            framing=LINES,
            counts=_COHERE_COUNTS,
            spent=11,
        ),
        "cohere_v2": Answers(
            whole={
                "id": "c1",
                "finish_reason": "COMPLETE",
                "message": {"role": "assistant", "content": [{"type": "text", "text": SAID}]},
                "usage": _COHERE_USAGE,
            },
            events=(
                {"type": "message-start", "id": "c1"},
                {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": SAID}}}},
                {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": _COHERE_USAGE}},
            ),
            counts=_COHERE_COUNTS,
            spent=11,
        ),
        "bedrock_converse": Answers(
            whole={
                "output": {"message": {"role": "assistant", "content": [{"text": SAID}]}},
                "stopReason": "end_turn",
                "usage": _CONVERSE_USAGE,
            },
            events=(
                {"messageStart": {"role": "assistant"}},
                {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": SAID}}},
                {"messageStop": {"stopReason": "end_turn"}},
                {"metadata": {"usage": _CONVERSE_USAGE}},
            ),
            framing=FRAMES,
            counts=_counts("inputTokens", "outputTokens", "totalTokens"),
            spent=11,
        ),
        "bedrock_invoke": Answers(
            whole=_MESSAGES.whole,
            events=_MESSAGES.events,
            framing=VENDORS_FRAMES,
            counts=_CLAUDE_COUNTS,
            spent=11,
        ),
        "tgi": Answers(
            whole={"generated_text": SAID, "details": _TGI_DETAILS},
            events=(
                {"token": {"id": 1, "text": SAID}, "generated_text": None, "details": None},
                {"token": {"id": 2, "text": "!"}, "generated_text": SAID, "details": _TGI_DETAILS},
            ),
            counts=_TGI_COUNTS,
            spent=11,
        ),
        "ollama": Answers(
            whole={**_OLLAMA_END, "message": {"role": "assistant", "content": SAID}},
            events=({"model": "m", "message": {"content": SAID}, "done": False}, _OLLAMA_END),
            framing=LINES,
            counts=_counts("prompt_eval_count", "eval_count"),
            spent=11,
        ),
        "mcp": Answers(
            whole={"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": SAID}]}},
            events=({"jsonrpc": "2.0", "id": 1, "result": {"content": []}},),
        ),
        "writer": _CHAT,
        "mistral": Answers(
            whole={
                "conversation_id": "conv_1",
                "outputs": [{"type": "message.output", "model": "m", "content": SAID}],
                "usage": _OPENAI_USAGE,
            },
            events=(
                {"type": "conversation.response.started", "conversation_id": "conv_1"},
                {"type": "message.output.delta", "output_index": 0, "content": SAID, "model": "m"},
                {"type": "conversation.response.done", "usage": _OPENAI_USAGE},
            ),
            counts=_OPENAI_COUNTS,
            spent=11,
            operation="chat",
        ),
        "vllm": _CHAT,
        "watsonx": Answers(
            whole={**_WATSONX, "results": [{**_GENERATION, "stop_reason": "eos_token"}]},
            events=(
                {**_WATSONX, "results": [{**_GENERATION, "stop_reason": "not_finished"}]},
                {
                    **_WATSONX,
                    "results": [
                        {"generated_text": "", "generated_token_count": 3, "stop_reason": "eos_token"}
                    ],
                },
            ),
            counts=_counts("generated_token_count", "input_token_count"),
            spent=11,
        ),
        "replicate": Answers(
            whole={
                "id": "p1",
                "model": "m",
                "status": "succeeded",
                "output": [SAID],
                "metrics": {"input_token_count": 8, "output_token_count": 3},
            },
            counts=_counts("input_token_count", "output_token_count"),
            spent=11,
        ),
    }
)
