import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Denial, Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.strict_json import parse_json
from extproc.model import Observation, PromptImage, Usage
from tests.formats.calls import SSE_ANSWER, claimed, observed, parsed, split_everywhere
from tests.formats.shapes import bodies, read

FIXTURES = Path(__file__).parent.parent / "fixtures" / "cohere"
NDJSON_ANSWER = {"content-type": "application/stream+json"}
COHERE = "api.cohere.com"

CHAT_V1: dict[str, Any] = {"model": "Command-R", "message": "hi"}
CHAT_V2: dict[str, Any] = {"model": "Command-A", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("method", "path", "host", "expected"),
    [
        ("POST", "/v1/chat", "gateway", ("cohere_v1", "chat")),
        ("POST", "/v1/generate", "gateway", ("cohere_v1", "text_completion")),
        ("POST", "/v1/summarize", COHERE, ("cohere_v1", "text_completion")),
        ("POST", "/v1/embed", COHERE, ("cohere_v1", "embeddings")),
        ("POST", "/v1/classify", COHERE, ("cohere_v1", "embeddings")),
        ("POST", "/v1/rerank", COHERE, ("cohere_v1", "rerank")),
        ("POST", "/v1/tokenize", COHERE, ("cohere_v1", "control")),
        ("POST", "/v1/detokenize", COHERE, ("cohere_v1", "control")),
        ("POST", "/v2/chat", "gateway", ("cohere_v2", "chat")),
        ("POST", "/v2/embed", "api.cohere.ai", ("cohere_v2", "embeddings")),
        ("POST", "/v2/rerank", "gateway", ("cohere_v2", "rerank")),
        ("GET", "/v1/models", COHERE, ("cohere_v1", "control")),
        ("GET", "/v1/models", "gateway", ("openai_chat", "control")),
        ("GET", "/v1/modelsx", COHERE, None),
        ("GET", "/v2/chat", COHERE, None),
        ("POST", "/v2/models", COHERE, None),
    ],
)
def test_a_call_is_its_method_and_path(
    method: str, path: str, host: str, expected: tuple[str, str] | None
) -> None:
    call = claimed(path, method=method, host=host)

    assert (call and (call.api, call.operation)) == expected


def test_a_chat_of_version_1_is_read_in_the_words_of_policies() -> None:
    body = CHAT_V1 | {
        "stream": True,
        "preamble": "Be brief.",
        "chat_history": [
            {"role": "USER", "message": "before"},
            {"role": "CHATBOT", "message": "yes", "tool_calls": [{"name": "find", "parameters": {"q": 1}}]},
            {"role": "TOOL", "tool_results": [{"call": {"name": "find"}, "outputs": [{"x": 1}]}]},
        ],
        "documents": [{"title": "Notes", "snippet": "Buy milk."}],
        "connectors": [{"id": "web-search"}],
        "tools": [{"name": "find", "description": "d", "parameter_definitions": {}}],
        "response_format": {"type": "json_object", "schema": {"type": "object"}},
        "temperature": 0.5,
        "max_tokens": 100,
        "conversation_id": "c-1",
    }
    found = parsed("/v1/chat", body)
    request = found.request

    assert (request.api, request.provider, request.operation) == ("cohere_v1", "cohere", "chat")
    assert (request.model, request.models) == ("command-r", ("command-r",))
    assert (request.stream, request.temperature, request.max_output_tokens) == (True, 0.5, 100)
    assert (request.message_count, request.has_state) == (4, True)
    assert request.tools == ("find", "web-search")
    assert [(each.role, each.text) for each in found.prompt.messages] == [
        ("system", "Be brief."),
        ("user", "before"),
        ("assistant", 'yes\n{"name":"find","parameters":{"q":1}}'),
        ("tool", '{"call":{"name":"find"},"outputs":[{"x":1}]}'),
        ("user", "hi"),
        ("documents", '{"title":"Notes","snippet":"Buy milk."}'),
        ("response_format", '{"type":"object"}'),
    ]
    assert len(found.prompt.tools) == 1


def test_a_chat_of_version_2_is_read_in_the_words_of_policies() -> None:
    function = {"name": "find", "arguments": '{"q":1}'}
    url = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}
    body = CHAT_V2 | {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "what"}, url]},
            {"role": "assistant", "tool_plan": "look", "tool_calls": [{"id": "1", "function": function}]},
            {
                "role": "tool",
                "tool_call_id": "1",
                "content": [{"type": "document", "document": {"data": "x"}}],
            },
        ],
        "documents": ["one", {"data": {"text": "two"}}],
        "tools": [{"type": "function", "function": {"name": "find", "parameters": {}}}],
        "response_format": {"type": "json_object", "json_schema": {"type": "object"}},
        "max_tokens": 7,
    }
    found = parsed("/v2/chat", body)

    assert (found.request.message_count, found.request.max_output_tokens) == (4, 7)
    assert (found.request.tools, found.request.modalities) == (("find",), ("image", "text"))
    assert found.prompt.images == (PromptImage(width_px=None, height_px=None, detail="low"),)
    assert [(each.role, each.text) for each in found.prompt.messages] == [
        ("system", "Be brief."),
        ("user", "what"),
        ("assistant", 'look\nfind\n{"q":1}'),
        ("tool", '{"type":"document","document":{"data":"x"}}'),
        ("documents", 'one\n{"data":{"text":"two"}}'),
        ("response_format", '{"type":"object"}'),
    ]


def test_every_input_of_an_embed_is_counted() -> None:
    body = {
        "model": "embed-v4",
        "texts": ["one", "two"],
        "images": ["data:image/png;base64,xx"],
        "inputs": [{"content": [{"type": "text", "text": "three"}]}],
        "max_tokens": 128,
    }
    found = parsed("/v2/embed", body)

    assert [each.text for each in found.prompt.messages] == ["one", "two", "three"]
    assert (found.request.message_count, len(found.prompt.images)) == (4, 1)
    assert found.request.max_output_tokens is None


def test_completions_multiply_and_presets_are_state() -> None:
    request = parsed("/v1/generate", {"model": "m", "prompt": "p", "num_generations": 3, "preset": "x"})

    assert (request.request.choices, request.request.has_state) == (3, True)
    assert request.prompt.messages[0].text == "p"
    assert (
        parsed("/v1/summarize", {"model": "m", "text": "t", "additional_command": "c"})
        .prompt.messages[0]
        .text
        == "t\nc"
    )


def test_what_a_classification_reads_is_counted() -> None:
    body = {"model": "m", "inputs": ["a", "b"], "examples": [{"text": "c", "label": "d"}]}
    found = parsed("/v1/classify", body)

    assert [each.text for each in found.prompt.messages] == ["a", "b", "c\nd"]


def test_tokenizing_names_its_model() -> None:
    request = parsed("/v1/tokenize", {"model": "Command", "text": "t"}).request

    assert (request.operation, request.model) == ("control", "command")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat", {"model": "m", "messages": []}),
        ("/v2/chat", {"model": "m", "message": "hi"}),
        ("/v1/generate", {"model": "m"}),
        ("/v1/generate", {"model": "m", "prompt": "p", "text": "t"}),
        ("/v1/classify", {"model": "m", "inputs": ["x"], "texts": ["y"]}),
        ("/v2/embed", {"model": "m"}),
        ("/v2/rerank", {"model": "m", "query": "q"}),
        ("/v1/rerank", {"model": "m", "documents": ["q"]}),
    ],
)
def test_a_body_that_is_not_what_its_path_claims_is_nobodys(path: str, body: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed(path, body)

    assert (caught.value.status, caught.value.code) == (400, Reason.UNCLASSIFIED)


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/chat", CHAT_V1 | {"model": None}, "/model "),
        ("/v1/chat", CHAT_V1 | {"message": 5}, "/message "),
        ("/v1/chat", CHAT_V1 | {"chat_history": [{"role": "USER", "Message": "x"}]}, "/chat_history/0 "),
        ("/v1/chat", CHAT_V1 | {"chat_history": [{"message": "x"}]}, "/chat_history/0/role "),
        ("/v1/chat", CHAT_V1 | {"tools": [{"name": 5}]}, "/tools/0/name "),
        ("/v1/chat", CHAT_V1 | {"connectors": [5]}, "/connectors/0 "),
        ("/v1/chat", CHAT_V1 | {"documents": [5]}, "/documents/0 "),
        ("/v1/chat", CHAT_V1 | {"documents": "x"}, "/documents "),
        ("/v1/generate", {"model": "m", "prompt": "p", "num_generations": 0}, "/num_generations "),
        ("/v1/generate", {"model": "m", "prompt": ["p"]}, "/prompt "),
        ("/v2/chat", CHAT_V2 | {"messages": [{"role": "user", "CONTENT": "x"}]}, "/messages/0 "),
        ("/v2/chat", CHAT_V2 | {"messages": [{"role": "user", "content": 5}]}, "/messages/0/content "),
        ("/v2/chat", CHAT_V2 | {"max_tokens": "5"}, "/max_tokens "),
        ("/v2/chat", CHAT_V2 | {"stream": "true"}, "/stream "),
        ("/v2/chat", CHAT_V2 | {"tools": [{"function": {"NAME": "x"}}]}, "/tools/0/function "),
        ("/v2/embed", {"model": "m", "texts": "x"}, "/texts "),
        ("/v2/embed", {"model": "m", "texts": [5]}, "/texts/0 "),
        ("/v2/rerank", {"model": "m", "query": "q", "documents": [5]}, "/documents/0 "),
    ],
)
def test_a_wrong_type_is_400_and_names_its_place(path: str, body: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed(path, body)

    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)


def test_case_variants_of_a_field_are_refused_before_a_format_reads_them() -> None:
    with pytest.raises(RequestRefused, match="message only in case"):
        parse_json(b'{"model":"m","message":"a","Message":"b"}')


V1_TOOLS = Observation(
    usage=Usage(input_tokens=22, output_tokens=26),
    finished=True,
    is_legible=True,
    response_id="resp-1",
    finish_reasons=("COMPLETE",),
    output_text='I will look it up.\nfind{"q":"milk"}',
)
V2_TOOLS = Observation(
    usage=Usage(input_tokens=62, output_tokens=28),
    finished=True,
    is_legible=True,
    response_id="msg-2",
    finish_reasons=("TOOL_CALL",),
    output_text='Größe first.\nfind{"q":1}\nHm.',
)


@pytest.mark.parametrize(
    ("file", "api", "headers", "expected"),
    [
        ("v1_tools.ndjson", "cohere_v1", NDJSON_ANSWER, V1_TOOLS),
        ("v2_tools.sse", "cohere_v2", SSE_ANSWER, V2_TOOLS),
    ],
)
def test_a_stream_is_read_alike_wherever_it_is_cut(
    file: str, api: str, headers: dict[str, str], expected: Observation
) -> None:
    data = (FIXTURES / file).read_bytes()

    for chunks in split_everywhere(data):
        assert observed(api, *chunks, headers=headers) == expected
    for place in range(len(data) // 2):
        assert not observed(api, data[:place], headers=headers).finished


def test_version_1_may_stream_server_sent_events() -> None:
    lines = (FIXTURES / "v1_tools.ndjson").read_bytes().splitlines()

    assert (
        observed("cohere_v1", *(b"data: " + line + b"\n\n" for line in lines), headers=SSE_ANSWER) == V1_TOOLS
    )


def whole(api: str, body: dict[str, Any], operation: str = "chat") -> Observation:
    return observed(api, json.dumps(body).encode(), operation=operation)


def test_calls_that_come_whole_are_counted_once() -> None:
    event = {"event_type": "tool-calls-generation", "text": "plan", "tool_calls": [{"name": "find"}]}

    assert observed("cohere_v1", json.dumps(event).encode() + b"\n", headers=NDJSON_ANSWER).output_text == (
        "plan\nfind"
    )


def test_generations_are_choices() -> None:
    generations = [{"text": "a", "finish_reason": "COMPLETE"}, {"text": "b", "finish_reason": "MAX_TOKENS"}]
    seen = whole("cohere_v1", {"id": "g", "generations": generations}, "text_completion")

    assert (seen.output_text, seen.finish_reasons) == ("a\nb", ("COMPLETE", "MAX_TOKENS"))
    assert seen.usage is None


def test_where_nothing_is_billed_all_tokens_count() -> None:
    seen = whole("cohere_v2", {"usage": {"tokens": {"input_tokens": 9.0, "output_tokens": 2.0}}})

    assert seen.usage == Usage(input_tokens=9, output_tokens=2)


def test_an_embedding_has_no_output_and_a_search_no_tokens() -> None:
    embedded = whole("cohere_v2", {"meta": {"billed_units": {"input_tokens": 9}}}, "embeddings")
    ranked = whole("cohere_v2", {"meta": {"billed_units": {"search_units": 1}}}, "rerank")

    assert embedded.usage == Usage(input_tokens=9, output_tokens=0)
    assert (ranked.usage, ranked.finished) == (None, True)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message-end", "delta": {"error": "cut", "finish_reason": "ERROR"}},
        {"event_type": "stream-error", "err": "cut"},
        {"error": {"code": "x"}},
    ],
)
def test_an_error_inside_a_stream_is_seen(event: dict[str, Any]) -> None:
    assert observed("cohere_v2", b"data: " + json.dumps(event).encode() + b"\n\n", headers=SSE_ANSWER).error


def test_a_denial_is_a_message() -> None:
    denial = Denial(
        status=429, reason=Reason.RATE_LIMITED, message="No.", decision_id="d-1", retry_after_ms=1500
    )
    reply = FORMATS["cohere_v2"].render_denial(denial)

    assert (reply.status, reply.headers["retry-after"]) == (429, "2")
    assert json.loads(reply.body) == {
        "id": "d-1",
        "message": "No. (decision d-1)",
        "reason": "rate_limited",
        "decision_id": "d-1",
        "retry_after": 2,
    }


PATHS = st.sampled_from(
    ["/v1/chat", "/v1/generate", "/v1/embed", "/v1/classify", "/v1/rerank", "/v2/chat", "/v2/embed"]
)
KEYS = (
    *("model", "message", "messages", "role", "content", "type", "text", "tools", "function", "name"),
    *("chat_history", "documents", "query", "texts", "inputs", "images", "image_url", "url", "prompt"),
    *("tool_calls", "connectors", "response_format", "examples", "max_tokens", "stream"),
)


@given(PATHS, bodies(*KEYS))
def test_no_body_raises_anything_but_a_refusal(path: str, body: dict[str, Any]) -> None:
    read(path, body)
