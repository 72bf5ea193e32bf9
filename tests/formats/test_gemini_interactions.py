import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import BodyKind, Call, ParsedRequest
from extproc.model import Observation, PromptImage, PromptMedia, Usage
from tests.formats.calls import JSON_ANSWER, SSE_ANSWER, claimed, observed, parsed, split_everywhere

PATH = "/v1beta/interactions"
VERTEX = "/v1beta1/projects/p/locations/global/interactions"
HELLO: dict[str, Any] = {"model": "gemini-3-flash", "input": "hi"}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAYAAAA10dzk"

USAGE = {
    "total_input_tokens": 10,
    "input_tokens_by_modality": [{"modality": "image", "tokens": 4}, {"modality": "text", "tokens": 6}],
    "total_cached_tokens": 2,
    "total_output_tokens": 5,
    "total_thought_tokens": 7,
    "total_tool_use_tokens": 0,
    "total_tokens": 22,
}
TOTALS = Usage(
    input_tokens=10,
    output_tokens=12,
    cache_read_input_tokens=2,
    image_input_tokens=4,
    tool_input_tokens=0,
    reasoning_output_tokens=7,
)
DONE = {"id": "int_1", "model": "gemini-3-flash", "status": "completed", "usage": USAGE}
STREAM: list[dict[str, Any]] = [
    {"event_type": "interaction.created", "interaction": {"id": "int_1", "status": "in_progress"}},
    {"event_type": "step.start", "index": 0, "step": {"type": "thought"}},
    {
        "event_type": "step.delta",
        "index": 0,
        "delta": {"type": "thought_summary", "content": {"type": "text", "text": "Hm."}},
    },
    {"event_type": "step.stop", "index": 0, "step_usage": {"total_input_tokens": 99}},
    {"event_type": "step.delta", "index": 1, "delta": {"type": "text", "text": "Hé"}},
    {"event_type": "step.delta", "index": 1, "delta": {"type": "text", "text": "llo"}},
    {"event_type": "step.start", "index": 2, "step": {"type": "function_call", "name": "f", "arguments": {}}},
    {"event_type": "step.delta", "index": 2, "delta": {"type": "arguments_delta", "arguments": '{"a":1}'}},
    {"event_type": "interaction.completed", "interaction": DONE},
]


def parse(body: dict[str, Any]) -> ParsedRequest:
    return parsed(PATH, body)


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (event["event_type"].encode(), json.dumps(event).encode())
        for event in events
    )


def seen(*chunks: bytes, headers: Any = SSE_ANSWER) -> Observation:
    return observed("gemini_interactions", *chunks, headers=headers)


def whole(body: Any) -> Observation:
    return seen(json.dumps(body).encode(), headers=JSON_ANSWER)


@pytest.mark.parametrize(
    ("path", "host", "provider"),
    [
        (PATH, "generativelanguage.googleapis.com", "gcp.gemini"),
        (PATH, "gateway.example", "gcp.gemini"),
        (VERTEX, "aiplatform.googleapis.com", "gcp.vertex_ai"),
    ],
)
def test_a_new_interaction_generates(path: str, host: str, provider: str) -> None:
    call = claimed(path, host=host)

    assert call is not None
    assert (call.api, call.operation, call.provider) == (
        "gemini_interactions",
        "generate_content",
        provider,
    )
    assert (call.body, call.stream) == (BodyKind.JSON, None)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{PATH}/int_1?stream=true", BodyKind.NONE),
        ("DELETE", f"{PATH}/int_1", BodyKind.NONE),
        ("POST", f"{PATH}/int_1/cancel", BodyKind.OPAQUE),
        ("GET", f"{VERTEX}/int_1", BodyKind.NONE),
    ],
)
def test_reading_cancelling_and_deleting_is_control(method: str, path: str, body: BodyKind) -> None:
    call = claimed(path, method=method)

    assert call is not None
    assert (call.api, call.operation, call.body) == ("gemini_interactions", "control", body)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PATH),
        ("PUT", PATH),
        ("POST", f"{PATH}/int_1"),
        ("POST", f"{PATH}/int_1/x"),
        ("POST", "/v1beta"),
    ],
)
def test_whatever_else_is_nobodys(method: str, path: str) -> None:
    assert claimed(path, method=method) is None


def test_parameters_that_change_the_answer_are_refused() -> None:
    with pytest.raises(RequestRefused, match="parameter fields "):
        claimed(f"{PATH}?fields=steps")


def test_a_full_body_is_read_in_the_words_of_policies() -> None:
    read = parse(
        HELLO
        | {
            "stream": True,
            "system_instruction": "Be brief.",
            "input": [
                {"type": "user_input", "content": [{"type": "text", "text": "What is it?"}]},
                {"type": "thought", "signature": "c2ln"},
                {"type": "function_call", "id": "1", "name": "look_up", "arguments": {"term": "milk"}},
                {"type": "function_result", "call_id": "1", "result": [{"type": "text", "text": "White."}]},
                {"role": "model", "content": "Milk."},
                {"type": "image", "data": PNG, "mime_type": "image/png"},
                {"type": "document", "uri": "https://example.com/x.pdf"},
            ],
            "tools": [
                {"type": "function", "name": "look_up", "parameters": {"type": "object"}},
                {"type": "google_search"},
                {"type": "mcp_server", "name": "tickets", "url": "https://example.com"},
            ],
            "generation_config": {"max_output_tokens": 100, "temperature": 0.5},
            "response_format": {"type": "text", "schema": {}},
            "previous_interaction_id": "int_0",
        }
    )
    request, prompt = read.request, read.prompt

    assert (request.operation, request.model, request.models) == (
        "generate_content",
        "gemini-3-flash",
        ("gemini-3-flash",),
    )
    assert (request.stream, request.has_state, request.message_count) == (True, True, 7)
    assert (request.max_output_tokens, request.temperature) == (100, 0.5)
    assert request.tools == ("look_up", "google_search", "tickets")
    assert request.modalities == ("file", "image", "text")
    assert [(message.role, message.text) for message in prompt.messages if message.text] == [
        ("system", "Be brief."),
        ("user", "What is it?"),
        ("model", 'look_up\n{"term":"milk"}'),
        ("model", "White."),
        ("model", "Milk."),
        ("response_schema", '{"type":"text","schema":{}}'),
    ]
    assert prompt.images == (PromptImage(width_px=640, height_px=480),)
    assert prompt.media == (PromptMedia(modality="file", size_bytes=None),)
    assert len(prompt.tools) == 1


@pytest.mark.parametrize("given_input", ["hi", ["hi"], {"type": "text", "text": "hi"}])
def test_the_input_may_be_text_or_one_content(given_input: Any) -> None:
    (message,) = parse(HELLO | {"input": given_input}).prompt.messages

    assert (message.role, message.text) == ("user", "hi")


def test_an_agent_is_invoked_and_the_model_it_uses_is_seen() -> None:
    body = {
        "agent": "deep-research",
        "input": "hi",
        "agent_config": {"type": "antigravity", "model": "models/Gemini-3-Pro"},
    }
    request = parse(body).request

    assert (request.operation, request.model) == ("invoke_agent", "deep-research")
    assert request.models == ("deep-research", "gemini-3-pro")


def test_a_model_that_ranks_is_seen() -> None:
    store = {"rag_retrieval_config": {"ranking": {"llm_ranker": {"model_name": "ranker"}}}}

    assert parse(HELLO | {"tools": [{"type": "retrieval", "vertex_rag_store": store}]}).request.models == (
        "gemini-3-flash",
        "ranker",
    )


@pytest.mark.parametrize("body", [{}, {"model": "m"}, {"input": "hi"}, {"contents": []}])
def test_a_body_of_another_call_is_unclassified(body: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(body)

    assert (caught.value.status, caught.value.code) == (400, Reason.UNCLASSIFIED)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"model": 5}, "/model "),
        ({"agent": 5}, "/agent "),
        ({"input": 5}, "/input "),
        ({"input": [5]}, "/input/0 "),
        ({"input": [{"content": [5]}]}, "/input/0/content/0 "),
        ({"input": [{"type": "text", "text": 5}]}, "/input/0/text "),
        ({"input": [{"result": [{"type": 5}]}]}, "/input/0/result/0/type "),
        ({"stream": "yes"}, "/stream "),
        ({"generation_config": {"max_output_tokens": "9"}}, "/generationConfig/maxOutputTokens "),
        ({"generation_config": {}, "generationConfig": {}}, "/generationConfig "),
        ({"tools": [{"type": 5}]}, "/tools/0/type "),
    ],
)
def test_a_wrong_type_or_spelling_is_400_and_names_its_place(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(HELLO | change)

    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)


def test_a_stream_is_read_however_it_is_split() -> None:
    data = sse(*STREAM)
    expected = seen(data)

    assert (expected.model, expected.response_id) == ("gemini-3-flash", "int_1")
    assert (expected.finished, expected.finish_reasons) == (True, ("completed",))
    assert expected.output_text == 'Hm.\nHéllo\nf\n{"a":1}'
    assert expected.usage == TOTALS
    for before, after in split_everywhere(data):
        assert seen(before, after) == expected


def test_a_cut_stream_is_not_finished_and_knows_no_step_for_the_whole() -> None:
    cut = seen(sse(*STREAM[:-1]))

    assert (cut.finished, cut.usage) == (False, None)
    assert "Héllo" in cut.output_text


def test_the_first_version_of_the_events_is_read_too() -> None:
    events: list[dict[str, Any]] = [
        {"event_type": "content.delta", "index": 0, "delta": {"type": "text", "text": "hi"}},
        {"event_type": "interaction.complete", "interaction": DONE},
    ]

    old = seen(sse(*events) + b"event: done\ndata: [DONE]\n\n")
    assert (old.finished, old.output_text, old.usage) == (True, "hi", TOTALS)


def test_a_whole_interaction_is_read() -> None:
    steps = [
        {"type": "user_input", "content": [{"type": "text", "text": "not generated"}]},
        {"type": "thought", "summary": [{"type": "text", "text": "Hm."}]},
        {"type": "model_output", "content": [{"type": "text", "text": "Hi."}]},
        {"type": "function_call", "name": "f", "arguments": {"a": 1}},
    ]
    read = whole(DONE | {"steps": steps})

    assert (read.finished, read.usage, read.finish_reasons) == (True, TOTALS, ("completed",))
    assert read.output_text == 'Hm.\nHi.\nf{"a":1}'


@pytest.mark.parametrize(
    ("counts", "totals"),
    [
        ({"total_input_tokens": 10, "total_output_tokens": 5}, (10, 5)),
        ({"total_input_tokens": 10, "total_output_tokens": 5, "total_thought_tokens": 3}, (10, 8)),
        (
            {
                "total_input_tokens": 10,
                "total_output_tokens": 5,
                "total_thought_tokens": 3,
                "total_tokens": 15,
            },
            (10, 5),
        ),
        (
            {
                "total_input_tokens": 10,
                "total_output_tokens": 5,
                "total_tool_use_tokens": 4,
                "total_tokens": 19,
            },
            (14, 5),
        ),
        (
            {
                "total_input_tokens": 10,
                "total_output_tokens": 5,
                "total_tool_use_tokens": 4,
                "total_tokens": 15,
            },
            (10, 5),
        ),
        ({"total_input_tokens": 0, "total_output_tokens": 0, "total_tokens": 0}, (0, 0)),
    ],
)
def test_the_total_tells_what_is_part_of_what(counts: dict[str, int], totals: tuple[int, int]) -> None:
    found = whole({"usage": counts}).usage

    assert found is not None
    assert (found.input_tokens, found.output_tokens) == totals


def test_an_error_is_named() -> None:
    event = {"event_type": "error", "error": {"code": "gateway_timeout", "message": "secret"}}

    assert seen(sse(event)).error == "gateway_timeout"
    assert whole({"error": {"code": 400, "status": "INVALID_ARGUMENT"}}).error == "INVALID_ARGUMENT"


_WORDS = st.sampled_from(
    [
        *("input", "type", "text", "content", "role", "steps", "usage", "total_tokens", "total_input_tokens"),
        *("interaction", "event_type", "delta", "model", "agent", "tools", "result", "arguments", "index"),
        *("agent_config", "generation_config", "error", "metadata", "total_usage", "data", "summary"),
    ]
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["text", "image", "thought", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_WORDS, _ANY, max_size=6))
def test_any_object_is_read_or_refused(body: dict[str, Any]) -> None:
    call = Call(api="gemini_interactions", operation="generate_content")

    with suppress(RequestRefused):
        FORMATS["gemini_interactions"].parse_request(body, call)


@given(_ANY)
def test_no_answer_raises(body: Any) -> None:
    text = json.dumps(body).encode()

    seen(b"data: " + text + b"\n\n")
    seen(text, headers=JSON_ANSWER)


@pytest.mark.parametrize("status", ["in_progress", "queued"])
def test_an_interaction_that_runs_on_says_nothing_of_its_cost(status: str) -> None:
    seen_of_it = whole({"id": "int_1", "status": status, "usage": {"total_input_tokens": 0}})

    assert (seen_of_it.usage, seen_of_it.finished, seen_of_it.is_legible) == (None, False, False)
    assert seen_of_it.response_id == "int_1"
