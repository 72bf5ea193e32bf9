import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Denial, Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.model import Observation, Usage
from tests.formats.calls import SSE_ANSWER, claimed, observed, parsed, split_everywhere
from tests.formats.shapes import bodies, read

HOST = "api.mistral.ai"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/ocr", ("mistral", "ocr", "json")),
        ("POST", "/v1/agents/completions", ("mistral", "chat", "json")),
        ("POST", "/v1/conversations", ("mistral", "chat", "json")),
        ("POST", "/v1/conversations/c-1", ("mistral", "chat", "json")),
        ("POST", "/v1/conversations/c-1/restart", ("mistral", "chat", "json")),
        ("GET", "/v1/conversations/c-1/history", ("mistral", "control", "none")),
        ("DELETE", "/v1/conversations/c-1", ("mistral", "control", "none")),
        ("POST", "/v1/agents", ("mistral", "control", "json")),
        ("PATCH", "/v1/agents/a-1", ("mistral", "control", "json")),
        ("POST", "/v1/chat/completions", ("openai_chat", "chat", "json")),
        ("POST", "/v1/fim/completions", ("openai_completions", "text_completion", "json")),
        ("POST", "/v1/conversations/c-1/other", None),
        ("GET", "/v1/ocr", None),
        ("POST", "/v1/agents/a-1", None),
    ],
)
def test_what_is_not_openai_s_is_mistral_s(
    method: str, path: str, expected: tuple[str, str, str] | None
) -> None:
    call = claimed(path, method=method, host=HOST)

    assert (call and (call.api, call.operation, call.body)) == expected
    assert call is None or call.provider == "mistral_ai"


def test_on_any_host_it_is_found_below_v1() -> None:
    call = claimed("/v1/ocr")

    assert call is not None
    assert (call.api, call.provider) == ("mistral", "mistral_ai")
    assert claimed("/v1/agents") is None


def test_on_any_host_a_conversation_of_mistral_s_is_not_taken_for_one_of_openai_s() -> None:
    """OpenAI's spend nothing, and share the path."""
    with pytest.raises(RequestRefused) as caught:
        parsed("/v1/conversations", {"model": "m", "inputs": "hi"})

    assert caught.value.code == Reason.UNCLASSIFIED


def test_a_conversation_is_read_in_the_words_of_policies() -> None:
    body = {
        "model": "Mistral-Medium",
        "instructions": "Be brief.",
        "inputs": [
            {"role": "user", "content": "what", "type": "message.input"},
            {"type": "function.call", "name": "find", "arguments": {"q": 1}},
            {"type": "function.result", "tool_call_id": "x", "result": "milk"},
            {"role": "user", "content": [{"type": "text", "text": "and?"}]},
        ],
        "tools": [{"type": "web_search"}, {"type": "function", "function": {"name": "find"}}],
        "completion_args": {"max_tokens": 50, "temperature": 0.5},
        "stream": True,
    }
    found = parsed("/v1/conversations", body, host=HOST)
    request = found.request

    assert (request.api, request.operation, request.model) == ("mistral", "chat", "mistral-medium")
    assert (request.stream, request.has_state, request.message_count) == (True, True, 4)
    assert (request.max_output_tokens, request.temperature) == (50, 0.5)
    assert request.tools == ("web_search", "find")
    assert [(each.role, each.text) for each in found.prompt.messages] == [
        ("system", "Be brief."),
        ("user", "what"),
        ("assistant", 'find\n{"q":1}'),
        ("assistant", "milk"),
        ("user", "and?"),
    ]


def test_an_agent_stands_in_place_of_a_model() -> None:
    both = parsed("/v1/conversations", {"agent_id": "Ag-1", "model": "M", "inputs": "hi"}, host=HOST).request
    later = parsed("/v1/conversations/c-1", {"inputs": "hi"}, host=HOST).request
    messages = [{"role": "user", "content": "hi"}]
    chat = parsed("/v1/agents/completions", {"agent_id": "Ag-1", "messages": messages}, host=HOST).request

    assert (both.model, both.models) == ("ag-1", ("ag-1", "m"))
    assert (later.model, later.models, later.has_state) == ("", (), True)
    assert (chat.api, chat.model, chat.models) == ("mistral", "ag-1", ("ag-1",))


def test_who_makes_an_agent_names_its_model() -> None:
    body = {"model": "M", "name": "x", "tools": [{"type": "code_interpreter"}]}
    request = parsed("/v1/agents", body, host=HOST).request

    assert (request.operation, request.models, request.tools) == ("control", ("m",), ("code_interpreter",))


@pytest.mark.parametrize(
    ("document", "modality"),
    [
        ({"type": "document_url", "document_url": "https://x/y.pdf"}, "file"),
        ({"type": "file", "file_id": "f"}, "file"),
        ({"type": "image_url", "image_url": "https://x/y.png"}, "image"),
        ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, "image"),
    ],
)
def test_a_document_is_a_file_or_an_image(document: dict[str, Any], modality: str) -> None:
    request = parsed("/v1/ocr", {"model": "mistral-ocr", "document": document}).request

    assert (request.operation, request.modalities) == ("ocr", (modality,))


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/ocr", {"model": "m"}, "This path takes one of /document"),
        ("/v1/ocr", {"model": "m", "document": "x"}, "/document "),
        ("/v1/ocr", {"document": {"type": "file"}}, "/model "),
        ("/v1/ocr", {"model": "m", "document": {"Image_URL": "x"}}, "/document "),
        ("/v1/ocr", {"model": "m", "document": {"image_url": 5}}, "/document/image_url/url "),
        ("/v1/conversations", {"model": "m"}, "This path takes one of /messages, /inputs"),
        ("/v1/conversations", {"inputs": "x", "messages": []}, "This path takes one of"),
        ("/v1/conversations", {"inputs": 5}, "/inputs "),
        ("/v1/conversations", {"inputs": [{"CONTENT": "x"}]}, "/inputs/0 "),
        (
            "/v1/conversations",
            {"inputs": "x", "completion_args": {"max_tokens": 0}},
            "/completion_args/max_t",
        ),
        ("/v1/conversations", {"inputs": "x", "completion_args": {"Max_Tokens": 1}}, "/completion_args "),
        ("/v1/agents/completions", {"messages": []}, "/agent_id "),
    ],
)
def test_a_wrong_body_is_400_and_names_its_place(path: str, body: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed(path, body, host=HOST)

    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)


USAGE = {"prompt_tokens": 188, "completion_tokens": 55, "total_tokens": 7355, "connector_tokens": 7112}
COUNTED = Usage(input_tokens=7300, output_tokens=55, tool_input_tokens=7112)


def test_what_connectors_found_is_input() -> None:
    outputs = [
        {"type": "tool.execution", "name": "web_search"},
        {"type": "function.call", "name": "find", "arguments": '{"q":1}'},
        {"type": "message.output", "model": "mistral-medium", "content": [{"type": "text", "text": "Yes."}]},
    ]
    seen = observed(
        "mistral", json.dumps({"conversation_id": "c-1", "outputs": outputs, "usage": USAGE}).encode()
    )

    assert seen == Observation(
        usage=COUNTED,
        finished=True,
        is_legible=True,
        model="mistral-medium",
        response_id="c-1",
        output_text='find{"q":1}\nYes.',
    )


def events(*data: dict[str, Any]) -> bytes:
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in data)


def test_a_streamed_turn_is_read_alike_wherever_it_is_cut() -> None:
    data = events(
        {"type": "conversation.response.started", "conversation_id": "c-1"},
        {"type": "message.output.delta", "output_index": 0, "model": "m", "content": "Grü"},
        {"type": "message.output.delta", "output_index": 0, "content": {"type": "text", "text": "ße"}},
        {"type": "function.call.delta", "output_index": 1, "name": "find", "arguments": "{}"},
        {"type": "conversation.response.done", "usage": USAGE},
    )
    expected = Observation(
        usage=COUNTED,
        finished=True,
        is_legible=True,
        model="m",
        response_id="c-1",
        output_text="Grüße\nfind{}",
    )

    for chunks in split_everywhere(data):
        assert observed("mistral", *chunks, headers=SSE_ANSWER) == expected


def test_an_error_in_a_stream_is_seen() -> None:
    seen = observed(
        "mistral", events({"type": "conversation.response.error", "code": 500}), headers=SSE_ANSWER
    )

    assert (bool(seen.error), seen.finished) == (True, False)


def test_a_chat_with_an_agent_is_answered_as_any_chat() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    whole = {"id": "x", "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": usage}
    chunk = {"id": "x", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    data = f"data: {json.dumps(chunk | {'usage': usage})}\n\ndata: [DONE]\n\n".encode()

    for seen in (
        observed("mistral", json.dumps(whole).encode()),
        observed("mistral", data, headers=SSE_ANSWER),
    ):
        assert (seen.usage, seen.output_text) == (Usage(input_tokens=3, output_tokens=1), "Hi")
        assert seen.finished


def test_pages_are_no_tokens() -> None:
    seen = observed(
        "mistral",
        b'{"pages":[{"markdown":"# x"}],"model":"ocr-1","usage_info":{"pages_processed":2}}',
        operation="ocr",
    )

    assert (seen.usage, seen.model, seen.output_text) == (Usage(input_tokens=0, output_tokens=0), "ocr-1", "")
    assert observed("mistral", b'{"pages":[]}', operation="ocr").usage is None


def test_a_denial_is_mistral_s() -> None:
    denial = Denial(status=429, reason=Reason.RATE_LIMITED, message="No.", decision_id="d-1")
    body = json.loads(FORMATS["mistral"].render_denial(denial, "mistral_ai").body)

    assert (body["object"], body["message"]) == ("error", "No. (decision d-1)")


PATHS = st.sampled_from(["/v1/ocr", "/v1/conversations", "/v1/agents/completions", "/v1/agents"])
KEYS = (
    *("model", "agent_id", "inputs", "content", "type", "text", "role", "document", "image_url", "url"),
    *("completion_args", "max_tokens", "tools", "function", "name", "arguments", "messages", "stream"),
)


@given(PATHS, bodies(*KEYS))
def test_no_body_raises_anything_but_a_refusal(path: str, body: dict[str, Any]) -> None:
    read(path, body, host=HOST)
