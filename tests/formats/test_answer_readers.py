import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.formats import FORMATS, answers
from extproc.formats.base import WireFormat
from extproc.formats.sse import EventFilter
from extproc.model import Observation, Usage
from tests.formats.calls import JSON_ANSWER, SSE_ANSWER, observed

FIXTURES = Path(__file__).parent.parent / "fixtures"
CHAT, MESSAGES = FORMATS["openai_chat"], FORMATS["anthropic_messages"]


def observe(wire_format: WireFormat, *chunks: bytes, stream: bool) -> Observation:
    return observed(wire_format.name, *chunks, headers=SSE_ANSWER if stream else JSON_ANSWER)


def observe_events(wire_format: WireFormat, *events: dict[str, Any]) -> Observation:
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return observe(wire_format, data, stream=True)


def observe_whole(wire_format: WireFormat, body: Any) -> Observation:
    return observe(wire_format, json.dumps(body).encode(), stream=False)


RECORDED = {
    "openai_chat/answer.json": Observation(
        is_legible=True,
        usage=Usage(
            input_tokens=1200,
            output_tokens=90,
            cache_read_input_tokens=1024,
            cache_creation_input_tokens=0,
            reasoning_output_tokens=64,
        ),
        finished=True,
        model="gpt-4o-mini-2024-07-18",
        response_id="chatcmpl-A1",
        finish_reasons=("stop", "content_filter", "tool_calls"),
        output_text='Hello there.\nI cannot help with that.\nget_weather{"city":"Bern"}',
    ),
    "openai_chat/stream.sse": Observation(
        is_legible=True,
        usage=Usage(input_tokens=20, output_tokens=9),
        finished=True,
        model="gpt-4o-mini-2024-07-18",
        response_id="chatcmpl-S1",
        finish_reasons=("stop",),
        output_text="Grüße 🌍!",
    ),
    "openai_chat/stream_two_choices.sse": Observation(
        is_legible=True,
        usage=Usage(input_tokens=20, output_tokens=9),
        finished=True,
        model="gpt-4o-mini-2024-07-18",
        response_id="chatcmpl-S1",
        finish_reasons=("tool_calls", "length"),
        output_text='Hm. \nOne more\nTwo\nfind{"q":1}',
    ),
    "openai_chat/stream_error.sse": Observation(
        is_legible=True,
        error="server_error",
        model="gpt-4o-mini-2024-07-18",
        response_id="chatcmpl-S1",
        output_text="Half an",
    ),
    "openai_chat/stream_azure.sse": Observation(
        is_legible=True,
        finished=True,
        model="gpt-4o-mini-2024-07-18",
        response_id="chatcmpl-S1",
        finish_reasons=("stop",),
        output_text="Hi",
    ),
    "anthropic_messages/answer.json": Observation(
        is_legible=True,
        usage=Usage(
            input_tokens=3210,
            output_tokens=55,
            cache_read_input_tokens=3000,
            cache_creation_input_tokens=200,
            cache_creation_1h_input_tokens=0,
        ),
        finished=True,
        model="claude-sonnet-4-5-20250929",
        response_id="msg_A1",
        finish_reasons=("tool_use",),
        output_text='Short.\nMilk.\nlook_up{"term":"cow"}',
    ),
    "anthropic_messages/stream.sse": Observation(
        is_legible=True,
        usage=Usage(
            input_tokens=3210, output_tokens=48, cache_read_input_tokens=3000, cache_creation_input_tokens=200
        ),
        finished=True,
        model="claude-sonnet-4-5-20250929",
        response_id="msg_S1",
        finish_reasons=("tool_use",),
        output_text='Let me see.\nGrüße 🌍\nlook_up{"term": "cow"}',
    ),
    "anthropic_messages/stream_error.sse": Observation(
        is_legible=True,
        usage=Usage(
            input_tokens=3210, output_tokens=1, cache_read_input_tokens=3000, cache_creation_input_tokens=200
        ),
        error="overloaded_error",
        model="claude-sonnet-4-5-20250929",
        response_id="msg_S1",
        output_text="Half an",
    ),
}


@pytest.mark.parametrize("path", RECORDED)
def test_an_answer_is_observed_alike_whole_and_split_at_every_byte(path: str) -> None:
    wire_format, data = FORMATS[path.partition("/")[0]], (FIXTURES / path).read_bytes()
    stream = path.endswith(".sse")

    assert observe(wire_format, data, stream=stream) == RECORDED[path]
    assert observe(wire_format, *(bytes([byte]) for byte in data), stream=stream) == RECORDED[path]
    for place in range(0, len(data), 7):
        assert observe(wire_format, data[:place], data[place:], stream=stream) == RECORDED[path]


@pytest.mark.parametrize("wire_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("data", [b"", b"<html>", b'{"id": "x", "usage": {"prompt_tokens": 1'])
def test_what_cannot_be_read_is_not_legible(wire_format: WireFormat, data: bytes, *, stream: bool) -> None:
    assert observe(wire_format, data, stream=stream) == Observation()


@pytest.mark.parametrize("path", [path for path in RECORDED if path.endswith("stream.sse")])
def test_a_stream_cut_anywhere_is_never_finished_early(path: str) -> None:
    wire_format, data = FORMATS[path.partition("/")[0]], (FIXTURES / path).read_bytes()
    whole = RECORDED[path]

    for place in range(len(data)):
        seen = observe(wire_format, data[:place], stream=True)
        assert whole.output_text.startswith(seen.output_text)
        if seen.finished:
            assert (seen.usage, seen.finish_reasons) == (whole.usage, whole.finish_reasons)


def test_a_json_answer_cut_anywhere_is_not_finished() -> None:
    data = (FIXTURES / "openai_chat/answer.json").read_bytes().strip()

    assert all(observe(CHAT, data[:place], stream=False) == Observation() for place in range(len(data)))


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (
            {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5},
            Usage(input_tokens=5, output_tokens=0),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(input_tokens=0, output_tokens=0)),
        ({"prompt_tokens": 5}, Usage(input_tokens=5)),
        ({"prompt_tokens": 5, "total_tokens": 5}, Usage(input_tokens=5)),
        ({"completion_tokens": 5}, Usage(output_tokens=5)),
        ({}, None),
        (None, None),
        ("lots", None),
        ({"prompt_tokens": None, "completion_tokens": "5"}, None),
        ({"prompt_tokens": -1, "completion_tokens": True}, None),
        ({"prompt_tokens": 5.0, "completion_tokens": 0.5}, Usage(input_tokens=5)),
        ({"prompt_tokens": 10**8, "completion_tokens": 10**8 + 1}, Usage(input_tokens=10**8)),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, None),
        (
            {
                "prompt_tokens": 12,
                "completion_tokens": 1,
                "total_tokens": 241,
                "completion_tokens_details": {"reasoning_tokens": 228},
            },
            Usage(input_tokens=12, output_tokens=229, reasoning_output_tokens=228),
        ),
        (
            {"prompt_tokens": 12, "completion_tokens": 10, "total_tokens": 15},
            Usage(input_tokens=12, output_tokens=10),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 1,
                "prompt_cache_hit_tokens": 4,
                "prompt_tokens_details": [],
            },
            Usage(input_tokens=9, output_tokens=1, cache_read_input_tokens=4),
        ),
    ],
)
def test_openai_usage_is_inclusive(usage: Any, read: Usage | None) -> None:
    assert observe_whole(CHAT, {"choices": [], "usage": usage}).usage == read


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"input_tokens": 0, "output_tokens": 0}, Usage(input_tokens=0, output_tokens=0)),
        ({"output_tokens": 3}, Usage(output_tokens=3)),
        ({"input_tokens": None, "output_tokens": []}, None),
        (
            {
                "input_tokens": 1,
                "output_tokens": 20,
                "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 30},
                "cache_read_input_tokens": 0,
                "output_tokens_details": {"thinking_tokens": 15},
            },
            Usage(
                input_tokens=41,
                output_tokens=20,
                cache_creation_input_tokens=40,
                cache_creation_1h_input_tokens=30,
                cache_read_input_tokens=0,
                reasoning_output_tokens=15,
            ),
        ),
    ],
)
def test_anthropic_usage_adds_the_cache(usage: Any, read: Usage | None) -> None:
    assert observe_whole(MESSAGES, {"type": "message", "usage": usage}).usage == read


def test_openai_usage_on_every_chunk_is_cumulative() -> None:
    def chunk(output: int, reason: str | None = None) -> dict[str, Any]:
        return {
            "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": reason}],
            "usage": {"prompt_tokens": 7, "completion_tokens": output, "total_tokens": 7 + output},
        }

    seen = observe_events(CHAT, chunk(1), chunk(2), chunk(3, "stop"), {"choices": [], "usage": None})

    assert seen.usage == Usage(input_tokens=7, output_tokens=3)
    assert seen.finished


def test_groq_reports_beside_the_standard_place() -> None:
    seen = observe_events(
        CHAT, {"choices": [], "x_groq": {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}}
    )

    assert seen.usage == Usage(input_tokens=1, output_tokens=2)


def test_anthropic_input_may_come_only_at_the_end() -> None:
    seen = observe_events(
        MESSAGES,
        {"type": "message_start", "message": {"usage": {"input_tokens": 0, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 4}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"input_tokens": 9, "cache_read_input_tokens": 5, "output_tokens": 6},
        },
    )

    assert seen.usage == Usage(input_tokens=14, output_tokens=6, cache_read_input_tokens=5)
    assert (seen.finished, seen.finish_reasons) == (False, ("end_turn",))


def test_text_beyond_what_is_held_makes_the_answer_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not kept cannot be counted, and must not be free."""
    monkeypatch.setattr(answers, "MAX_TEXT_CHARS", 6)

    def spoken(text: str) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"content": text}}]}

    assert not observe_events(CHAT, spoken("abc"), spoken("def")).is_incomplete
    seen = observe_events(CHAT, spoken("abc"), spoken("def"), spoken("g"), {"choices": []})
    assert (seen.output_text, seen.is_incomplete) == ("abcdef", True)


def test_a_stop_without_usage_is_not_the_end() -> None:
    """The usage chunk follows it."""
    assert not observe_events(
        CHAT, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    ).finished


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            {"error": {"message": "no", "type": "invalid_request_error", "code": None}},
            "invalid_request_error",
        ),
        ({"error": {"message": "no", "code": "DeploymentNotFound"}}, "DeploymentNotFound"),
        ({"error": {"message": "no", "code": 429}}, "error"),
        ({"error": "the prompt was: hello"}, "error"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, "overloaded_error"),
        ({"error": {"type": "the prompt was: hello"}}, "error"),
        ({"error": None, "choices": []}, ""),
    ],
)
def test_only_the_type_of_an_error_is_kept(body: dict[str, Any], error: str) -> None:
    for wire_format in (CHAT, MESSAGES):
        seen = observe_whole(wire_format, body)
        assert (seen.error, seen.usage, seen.output_text) == (error, None, "")
    for wire_format in FORMATS.values():
        assert observe_whole(wire_format, body).error in {error, "error", ""}, wire_format.name


def test_mistral_thoughts_and_parts_are_text() -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "yes"},
        5,
    ]

    assert observe_whole(CHAT, {"choices": [{"message": {"content": content}}]}).output_text == "hm\nyes"


def test_a_surrogate_pair_split_over_deltas_is_one_character() -> None:
    halves = [
        {"choices": [{"index": 0, "delta": {"content": half}}]} for half in ("\ud83c", "\udf0d", "\ud83c")
    ]

    assert observe_events(CHAT, *halves).output_text == "🌍\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("data", "is_usage_chunk"),
    [
        (b'{"id":"x","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}', True),
        (b'{"choices" : [ ], "usage": {}}', True),
        (b'{"choices":[],"prompt_filter_results":[]}', False),
        (b'{"choices":[],"usage":null}', False),
        (b'{"choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":1}}', False),
        (b'{"choices":[{"delta":{"content":"\\"choices\\":[]"}}],"usage":{}}', False),
        (b'{"choices":[],"usage":{},"error":{"type":"x"}}', False),
        (b'{"usage":{}}', False),
        (b'"choices":[] "usage":{}', False),
        (b"[DONE]", False),
        (b"", False),
    ],
)
def test_only_a_chunk_that_holds_nothing_but_usage_is_one(data: bytes, *, is_usage_chunk: bool) -> None:
    assert CHAT.is_usage_chunk(data) is is_usage_chunk


def test_stripping_the_usage_chunk_leaves_every_other_byte() -> None:
    data = (FIXTURES / "openai_chat/stream.sse").read_bytes()
    chunk = next(block for block in data.split(b"\n\n") if b'"choices":[]' in block) + b"\n\n"
    events = EventFilter(CHAT.is_usage_chunk)

    assert b"".join(events.feed(bytes([byte])) for byte in data) + events.flush() == data.replace(chunk, b"")


@pytest.mark.parametrize(
    ("api", "before", "after"),
    [
        ("anthropic_messages", '{"content": [{"type": "tool_use", "name": "f", "input": ', "}]}"),
        ("bedrock_converse", '{"output": {"message": {"content": [{"toolUse": {"input": ', "}}]}}}"),
        ("bedrock_invoke", '{"tool_calls": [{"name": "f", "parameters": ', "}]}"),
        ("cohere_v2", '{"message": {"tool_calls": [{"function": {"parameters": ', "}}]}}"),
        ("gemini", '{"candidates": [{"content": {"parts": [{"functionCall": {"args": ', "}}]}}]}"),
        ("gemini_interactions", '{"outputs": [{"type": "function_call", "arguments": ', "}]}"),
        ("ollama", '{"message": {"tool_calls": [{"function": {"arguments": ', "}}]}}"),
        ("openai_responses", '{"output": [{"action": ', "}]}"),
    ],
)
def test_arguments_that_nest_as_deep_as_json_can_raise_nothing(api: str, before: str, after: str) -> None:
    """What could just be read may not be written again."""
    for depth in range(900, 1_010):
        nested = '{"a":' * depth + "1" + "}" * depth
        observed(api, f"{before}{nested}{after}".encode())


KEYS = st.sampled_from(
    [
        *("type", "error", "code", "message", "usage", "x_groq", "model", "id", "choices", "delta", "index"),
        *("finish_reason", "stop_reason", "content", "content_block", "text", "tool_calls", "function"),
        *("prompt_tokens", "completion_tokens", "prompt_tokens_details", "input_tokens", "cache_creation"),
    ]
)
WORDS = st.sampled_from(
    ["message_start", "message_delta", "content_block_start", "content_block_delta", "error", "text_delta"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | WORDS,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@given(values, st.sampled_from(sorted(FORMATS)))
def test_no_shape_raises(value: Any, name: str) -> None:
    observe_events(FORMATS[name], value)
    observe_whole(FORMATS[name], value)


@given(st.binary(), st.sampled_from(sorted(FORMATS)))
def test_no_bytes_raise(data: bytes, name: str) -> None:
    for stream in (True, False):
        observe(FORMATS[name], data, b"data: " + data + b"\n\n", stream=stream)
