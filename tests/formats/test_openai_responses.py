import json
from pathlib import Path
from typing import Any

import pytest

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.base import BodyKind, ParsedRequest
from extproc.formats.strict_json import parse_json
from extproc.model import Observation, PromptImage, Usage
from tests.formats.calls import JSON_ANSWER, SSE_ANSWER, claimed, observed, parsed, split_everywhere

FIXTURES = Path(__file__).parent.parent / "fixtures" / "openai_responses"
HELLO: dict[str, Any] = {"model": "gpt-5", "input": "hi"}
USAGE = Usage(
    input_tokens=320,
    output_tokens=61,
    cache_read_input_tokens=256,
    cache_creation_input_tokens=0,
    reasoning_output_tokens=32,
)


def parse(body: dict[str, Any], path: str = "/v1/responses") -> ParsedRequest:
    return parsed(path, body)


def recorded() -> ParsedRequest:
    return parse(parse_json((FIXTURES / "request.json").read_bytes()))


def observe(*chunks: bytes, stream: bool = True) -> Observation:
    return observed("openai_responses", *chunks, headers=SSE_ANSWER if stream else JSON_ANSWER)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/responses", ("chat", BodyKind.JSON)),
        ("POST", "/responses/compact", ("chat", BodyKind.JSON)),
        ("POST", "/responses/input_tokens", ("control", BodyKind.JSON)),
        ("POST", "/responses/resp_1/cancel", ("control", BodyKind.OPAQUE)),
        ("GET", "/responses/resp_1", ("control", BodyKind.NONE)),
        ("GET", "/responses/resp_1?stream=true", ("control", BodyKind.NONE)),
        ("GET", "/responses/resp_1/input_items", ("control", BodyKind.NONE)),
        ("DELETE", "/responses/resp_1", ("control", BodyKind.NONE)),
        ("POST", "/conversations", ("control", BodyKind.JSON)),
        ("POST", "/conversations/conv_1/items", ("control", BodyKind.JSON)),
        ("GET", "/conversations/conv_1/items/msg_1", ("control", BodyKind.NONE)),
        ("GET", "/responses", None),
        ("POST", "/responses/resp_1", None),
        ("POST", "/responses/resp_1/steer", None),
        ("GET", "/responses/resp_1%2Fx", None),
        ("PUT", "/responses", None),
    ],
)
def test_creating_and_compacting_spend(method: str, path: str, expected: tuple[str, BodyKind] | None) -> None:
    call = claimed("/v1" + path, method=method)

    assert (call and (call.operation, call.body)) == expected
    if call:
        assert call.api == "openai_responses"


@pytest.mark.parametrize(
    ("path", "host", "provider"),
    [
        ("/openai/v1/responses", "x.openai.azure.com", "azure.ai.openai"),
        ("/openai/responses?api-version=2025-04-01-preview", "x.openai.azure.com", "azure.ai.openai"),
        ("/api/v1/responses", "openrouter.ai", "openrouter"),
        ("/v1/responses", "gateway.example", "openai"),
    ],
)
def test_vendors_are_told_apart(path: str, host: str, provider: str) -> None:
    call = claimed(path, host=host)

    assert call is not None
    assert (call.api, call.provider) == ("openai_responses", provider)


def test_a_full_body_is_read_in_the_words_of_policies() -> None:
    request = recorded().request

    assert (request.api, request.provider, request.operation) == ("openai_responses", "openai", "chat")
    assert (request.model, request.models) == ("gpt-5", ("gpt-5", "gpt-image-2"))
    assert (request.stream, request.wants_usage_chunk, request.choices) == (True, True, 1)
    assert (request.message_count, request.max_output_tokens, request.temperature) == (11, 400, 1.0)
    assert request.tools == (
        "run_sql",
        "get_weather",
        "web_search",
        "file_search",
        "mcp",
        "deepwiki",
        "code_interpreter",
        "image_generation",
        "crm",
        "find_customer",
        "shell",
    )
    assert request.modalities == ("audio", "file", "image", "text")
    assert request.end_user == "hash-of-user-7"
    assert not request.has_state


def test_the_prompt_holds_everything_the_model_reads() -> None:
    prompt = recorded().prompt

    assert [(message.role, message.text) for message in prompt.messages] == [
        ("developer", "Answer in German."),
        ("user", "Was zeigt das Bild? 🌍"),
        ("reasoning", "A picture."),
        ("assistant", 'get_weather\n{"city":"Bern"}'),
        ("tool", "sunny"),
        ("assistant", "shell\nls"),
        ("tool", "a.txt"),
        ("tool", ""),
        (
            "item",
            '{"type":"web_search_call","id":"ws_0","action":{"type":"search","query":"bern"}}',
        ),
        ("assistant", "Ein Haus."),
        ("system", "Be brief."),
        ("response_format", 'answer\n{"type":"object"}'),
    ]
    assert prompt.images == (
        PromptImage(width_px=640, height_px=480, detail="low"),
        PromptImage(width_px=None, height_px=None),
        PromptImage(width_px=640, height_px=480),
    )
    assert [(media.modality, media.size_bytes) for media in prompt.media] == [("file", 9), ("audio", 3)]
    assert prompt.tokens == 6  # of 32 sealed characters
    assert len(prompt.tools) == 9


def test_a_bare_body_gets_the_defaults() -> None:
    found = parse(HELLO)
    request = found.request

    assert [(message.role, message.text) for message in found.prompt.messages] == [("user", "hi")]
    assert (request.stream, request.choices, request.max_output_tokens) == (False, 1, None)
    assert (request.models, request.modalities, request.message_count) == (("gpt-5",), ("text",), 1)
    assert not request.has_state


@pytest.mark.parametrize(
    "change",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"id": "msg_1"}]},
        {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
        {"tools": [{"type": "shell", "environment": {"container_id": "cntr_1"}}]},
        {"model": "@preset/mine"},
        {"preset": "mine"},
    ],
)
def test_state_kept_by_the_provider_is_noticed(change: dict[str, Any]) -> None:
    assert parse(HELLO | change).request.has_state


def test_a_stored_prompt_brings_its_model_and_its_variables_are_input() -> None:
    found = parse(
        {
            "prompt": {
                "id": "pmpt_1",
                "variables": {"city": "Bern", "photo": {"type": "input_image", "file_id": "file-1"}},
            }
        }
    )

    assert (found.request.model, found.request.models) == ("", ())
    assert [message.text for message in found.prompt.messages] == ["Bern"]
    assert found.request.modalities == ("image", "text")


def test_a_model_for_every_purpose_is_listed() -> None:
    request = parse(
        HELLO
        | {
            "moderation": {"model": "Omni-Moderation"},
            "models": ["gpt-5-mini"],
            "tools": [{"type": "image_generation", "model": "gpt-image-2", "svg": {"model": "gpt-5.6"}}],
        }
    ).request

    assert request.models == ("gpt-5", "gpt-5-mini", "gpt-image-2", "gpt-5.6", "omni-moderation")


def test_what_continues_needs_no_input() -> None:
    assert parse(
        {"model": "gpt-5", "previous_response_id": "resp_1"}, "/v1/responses/compact"
    ).request.has_state


def test_counting_tokens_needs_no_model() -> None:
    request = parse({"input": "hi", "tools": [{"type": "web_search"}]}, "/v1/responses/input_tokens").request

    assert (request.operation, request.model, request.tools) == ("control", "", ("web_search",))


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"model": "gpt-5"}, "/input ", Reason.UNCLASSIFIED),
        ({"model": "gpt-5", "messages": []}, "/input ", Reason.UNCLASSIFIED),
        ({"model": "gpt-5", "input": []}, "/input ", Reason.UNCLASSIFIED),
        ({"input": "hi"}, "/model ", Reason.BODY_MALFORMED),
        (HELLO | {"input": 5}, "/input ", Reason.BODY_MALFORMED),
        (HELLO | {"input": ["hi"]}, "/input/0 ", Reason.BODY_MALFORMED),
        (HELLO | {"input": [{"role": "user", "content": 5}]}, "/input/0/content ", Reason.BODY_MALFORMED),
        (HELLO | {"input": [{"type": "function_call_output", "output": 5}]}, "/input/0/output ", None),
        (HELLO | {"input": [{"type": "message", "role": "user", "Role": "x"}]}, "/input/0 ", None),
        (HELLO | {"instructions": ["hi"]}, "/instructions ", Reason.BODY_MALFORMED),
        (HELLO | {"max_output_tokens": -1}, "/max_output_tokens ", Reason.BODY_MALFORMED),
        (HELLO | {"tools": [{"type": "image_generation", "model": 5}]}, "/tools/0/model ", None),
        (HELLO | {"tools": [{"type": "mcp", "server_label": 5}]}, "/tools/0/server_label ", None),
        (HELLO | {"tools": [{"type": "web_search", "Type": "x"}]}, "/tools/0 ", None),
        (HELLO | {"prompt": {"version": "2"}}, "/prompt/id ", Reason.BODY_MALFORMED),
        (HELLO | {"prompt": {"id": "p", "variables": {"x": 5}}}, "/prompt/variables/x ", None),
        (HELLO | {"text": {"format": "json"}}, "/text/format ", Reason.BODY_MALFORMED),
        (HELLO | {"stream": 1}, "/stream ", Reason.BODY_MALFORMED),
        (HELLO | {"moderation": {"model": 5}}, "/moderation/model ", Reason.BODY_MALFORMED),
        (HELLO | {"moderation": {"model": "m", "MODEL": "n"}}, "/moderation ", Reason.BODY_MALFORMED),
    ],
)
def test_what_cannot_be_read_is_400_and_names_its_place(
    body: dict[str, Any], pointer: str, code: Reason | None
) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(body)

    assert (caught.value.status, caught.value.code) == (400, code or Reason.BODY_MALFORMED)
    assert caught.value.message.startswith(pointer)


SEEN = {
    "stream.sse": Observation(
        is_legible=True,
        finished=True,
        usage=USAGE,
        model="gpt-5-2025-08-07",
        response_id="resp_1",
        finish_reasons=("completed",),
        output_text='Two steps.\nGrüße 🌍\nget_weather\n{"city":"Bern"}',
    ),
    "stream_incomplete.sse": Observation(
        is_legible=True,
        finished=True,
        usage=USAGE,
        model="gpt-5-2025-08-07",
        response_id="resp_1",
        finish_reasons=("max_output_tokens",),
        output_text="Two steps.\nGrüße 🌍",
    ),
    "stream_failed.sse": Observation(
        is_legible=True,
        finished=True,
        usage=Usage(input_tokens=320, output_tokens=9),
        error="server_error",
        model="gpt-5-2025-08-07",
        response_id="resp_1",
        finish_reasons=("failed",),
        output_text="Two steps.\nGrüße ",
    ),
    "stream_error.sse": Observation(
        is_legible=True,
        error="rate_limit_exceeded",
        model="gpt-5-2025-08-07",
        response_id="resp_1",
        output_text="Two steps.\nGrüße ",
    ),
    "stream_background.sse": Observation(
        is_legible=True,
        finished=True,
        usage=USAGE,
        model="gpt-5-2025-08-07",
        response_id="resp_1",
        finish_reasons=("completed",),
        output_text='Two steps.\nGrüße 🌍\nget_weather\n{"city":"Bern"}',
    ),
    "answer.json": Observation(
        is_legible=True,
        finished=True,
        usage=USAGE,
        model="gpt-5-2025-08-07",
        response_id="resp_1",
        finish_reasons=("completed",),
        output_text='Two steps.\n{"type":"search","query":"bern weather"}\nHello.\nNo more.\n'
        'get_weather\n{"city":"Bern"}',
    ),
}


@pytest.mark.parametrize("name", SEEN)
def test_an_answer_is_observed_alike_whole_and_split_at_every_byte(name: str) -> None:
    data, stream = (FIXTURES / name).read_bytes(), name.endswith(".sse")

    assert observe(data, stream=stream) == SEEN[name]
    for pieces in split_everywhere(data):
        assert observe(*pieces, stream=stream) == SEEN[name]


def test_a_stream_cut_anywhere_is_never_finished_early() -> None:
    data = (FIXTURES / "stream.sse").read_bytes()

    for place in range(data.index(b"event: response.completed")):
        seen = observe(data[:place])
        assert (seen.finished, seen.usage) == (False, None)


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_response_that_goes_on_behind_its_answer_says_nothing_of_its_cost(status: str) -> None:
    """Taken for a whole answer without text, it would be charged no output at all."""
    body = {
        "id": "resp_1",
        "status": status,
        "background": True,
        "model": "gpt-5",
        "usage": None,
        "output": [],
    }

    assert observe(json.dumps(body).encode(), stream=False) == Observation(
        model="gpt-5", response_id="resp_1"
    )


def test_a_background_stream_that_is_cut_says_nothing_of_its_cost() -> None:
    data = (FIXTURES / "stream_background.sse").read_bytes()
    cut = observe(data.partition(b"event: response.output_text.done")[0])

    assert (cut.is_legible, cut.finished, cut.usage) == (False, False, None)


def test_neither_sound_nor_what_commands_printed_is_generated_text() -> None:
    events = (
        {"type": "response.audio.delta", "delta": "UklGRg=="},
        {"type": "response.audio.transcript.delta", "delta": "Hello."},
        {"type": "response.shell_call_output_content.delta", "delta": {"stdout": "a.txt"}},
        {"type": "response.shell_call_command.delta", "output_index": 1, "delta": "ls"},
        {"type": "response.output_text.delta", "output_index": [1], "delta": "Odd place."},
    )
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)

    assert observe(data).output_text == "Hello.\nls\nOdd place."


def test_a_compaction_reports_what_it_cost() -> None:
    body = {
        "id": "resp_1",
        "object": "response.compaction",
        "output": [{"type": "compaction", "encrypted_content": "gAAAAABo"}],
        "usage": {"input_tokens": 900, "output_tokens": 120, "total_tokens": 1020},
    }
    seen = observe(json.dumps(body).encode(), stream=False)

    assert (seen.usage, seen.finished) == (Usage(input_tokens=900, output_tokens=120), True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/conversations", {"inputs": "hi", "model": "m"}),
        ("/v1/conversations", {"items": [], "stream": True}),
        ("/v1/conversations/conv_1", {"tool_confirmations": [{"tool_call_id": "t"}], "stream": True}),
        ("/v1/conversations/conv_1", {"metadata": {}, "completion_args": {}}),
        ("/v1/conversations/conv_1", {}),
        ("/v1/conversations/conv_1", {"metadata": None}),
        ("/v1/conversations/conv_1?conversation=new", {}),
    ],
)
def test_a_conversation_that_another_vendor_would_go_on_with_is_refused(
    path: str, body: dict[str, Any]
) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(body, path)

    assert caught.value.code is Reason.UNCLASSIFIED


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/conversations", {}),
        ("/v1/conversations", {"items": [{"role": "user", "content": "hi"}], "metadata": {"a": "b"}}),
        ("/v1/conversations/conv_1", {"metadata": {"a": "b"}}),
        ("/v1/conversations/conv_1/items", {"items": [{"role": "user", "content": "hi"}]}),
    ],
)
def test_what_openai_keeps_of_a_conversation_is_control(path: str, body: dict[str, Any]) -> None:
    assert parse(body, path).request.operation == "control"
