import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Denial, Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.model import Usage
from tests.formats.calls import SSE_ANSWER, claimed, observed, parsed, split_everywhere
from tests.formats.shapes import bodies, read

HOST = "localhost:8000"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/invocations", ("vllm", "chat", "json")),
        ("POST", "/inference/v1/generate", ("vllm", "text_completion", "json")),
        ("POST", "/pooling", ("vllm", "embeddings", "json")),
        ("POST", "/classify", ("vllm", "embeddings", "json")),
        ("POST", "/tokenize", ("vllm", "control", "json")),
        ("POST", "/detokenize", ("vllm", "control", "json")),
        ("POST", "/score", ("rerank", "rerank", "json")),
        ("POST", "/rerank", ("rerank", "rerank", "json")),
        ("GET", "/health", ("vllm", "control", "none")),
        ("GET", "/ping", ("vllm", "control", "none")),
        ("POST", "/ping", ("vllm", "control", "none")),
        ("GET", "/version", ("vllm", "control", "none")),
        ("POST", "/v1/messages", ("anthropic_messages", "chat", "json")),
        ("POST", "/cohere/v2/chat", ("cohere_v2", "chat", "json")),
        ("POST", "/health", None),
        ("GET", "/invocations", None),
        ("POST", "/sleep", None),
        ("POST", "/inference/v1/other", None),
    ],
)
def test_a_call_is_its_method_and_path(method: str, path: str, expected: tuple[str, str, str] | None) -> None:
    call = claimed(path, method=method, host=HOST)

    assert (call and (call.api, call.operation, call.body)) == expected


@pytest.mark.parametrize(
    ("body", "operation", "text"),
    [
        ({"messages": MESSAGES}, "chat", "hi"),
        ({"prompt": "p"}, "text_completion", "p"),
        ({"input": ["i"]}, "embeddings", "i"),
    ],
)
def test_the_body_decides_what_an_invocation_is(body: dict[str, Any], operation: str, text: str) -> None:
    found = parsed("/invocations", body | {"model": "M"}, host=HOST)

    assert (found.request.api, found.request.operation, found.request.models) == ("vllm", operation, ("m",))
    assert found.prompt.messages[0].text == text


@pytest.mark.parametrize(
    "body",
    [{}, {"inputs": "x"}, {"messages": MESSAGES, "prompt": "p"}, {"prompt": "p", "input": "i"}],
)
def test_an_invocation_that_could_be_two_things_or_none_is_nobodys(body: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed("/invocations", {"model": "m"} | body, host=HOST)

    assert caught.value.code == Reason.UNCLASSIFIED


@pytest.mark.parametrize(
    ("path", "body", "asked"),
    [
        ("/invocations", {"messages": MESSAGES}, True),
        ("/invocations", {"prompt": "p"}, True),
        ("/invocations", {"input": "i"}, False),
        ("/inference/v1/generate", {"token_ids": [1]}, False),
    ],
)
def test_a_streamed_invocation_is_asked_for_usage(path: str, body: dict[str, Any], *, asked: bool) -> None:
    call = claimed(path, host=HOST)
    assert call is not None
    changed = FORMATS["vllm"].ask_for_usage({"model": "m", "stream": True} | body, call)

    assert (changed is not None) is asked
    assert FORMATS["vllm"].is_usage_chunk(b'{"choices":[],"usage":{}}')


def test_tokens_in_are_counted_exactly() -> None:
    parameters = {"max_tokens": 50, "n": 2, "temperature": 0}
    body = {"model": "m", "token_ids": [1, 2, 3], "sampling_params": parameters, "features": {"x": 1}}
    found = parsed("/inference/v1/generate", body, host=HOST)

    assert (found.prompt.tokens, found.request.choices, found.request.max_output_tokens) == (3, 2, 50)
    assert found.request.modalities == ("file", "text")


def test_calls_that_spend_nothing_may_name_a_model() -> None:
    assert parsed("/tokenize", {"model": "M", "prompt": "p"}, host=HOST).request.models == ("m",)
    assert parsed("/detokenize", {"tokens": [1]}, host=HOST).request.models == ()


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/invocations", {"messages": MESSAGES}, "/model "),
        ("/inference/v1/generate", {"model": "m", "prompt": "x"}, "/token_ids "),
        ("/inference/v1/generate", {"model": "m", "token_ids": "x"}, "/token_ids "),
        ("/inference/v1/generate", {"model": "m", "token_ids": [True]}, "/token_ids "),
        (
            "/inference/v1/generate",
            {"model": "m", "token_ids": [1], "sampling_params": {"MAX_TOKENS": 5}},
            "/sampling_params ",
        ),
        ("/pooling", {"model": "m", "data": {}}, "/input "),
        ("/tokenize", {"model": "m", "inputs": "x"}, "One of /prompt, /messages, /tokens "),
    ],
)
def test_a_wrong_body_is_400_and_names_its_place(path: str, body: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed(path, body, host=HOST)

    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)


def test_tokens_out_are_counted_where_no_usage_is_reported() -> None:
    chunks = [
        {"choices": [{"index": 0, "token_ids": [5, 6]}]},
        {"choices": [{"index": 0, "token_ids": [7], "finish_reason": "stop"}]},
    ]
    data = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks) + b"data: [DONE]\n\n"

    for pieces in split_everywhere(data):
        seen = observed("vllm", *pieces, headers=SSE_ANSWER, operation="text_completion")
        assert (seen.usage, seen.finished) == (Usage(output_tokens=3), True)
    whole = observed(
        "vllm", b'{"choices":[{"token_ids":[5,6]},{"token_ids":[7]}]}', operation="text_completion"
    )
    assert whole.usage == Usage(output_tokens=3)


def test_reported_usage_beats_a_count() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    body = {"choices": [{"message": {"content": "Hi"}, "token_ids": [1, 2]}], "usage": usage}

    assert observed("vllm", json.dumps(body).encode()).usage == Usage(input_tokens=3, output_tokens=1)


def test_embeddings_have_no_output() -> None:
    body = b'{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}'

    assert observed("vllm", body, operation="embeddings").usage == Usage(input_tokens=3, output_tokens=0)


def test_a_denial_is_openai_s() -> None:
    denial = Denial(status=403, reason=Reason.ACCESS_DENIED, message="No.", decision_id="d-1")

    assert json.loads(FORMATS["vllm"].render_denial(denial).body)["error"]["code"] == "access_denied"


PATHS = st.sampled_from(["/invocations", "/inference/v1/generate", "/pooling", "/tokenize"])
KEYS = (
    *("model", "messages", "role", "content", "prompt", "input", "token_ids", "sampling_params"),
    *("max_tokens", "n", "stream", "features", "tokens"),
)


@given(PATHS, bodies(*KEYS))
def test_no_body_raises_anything_but_a_refusal(path: str, body: dict[str, Any]) -> None:
    read(path, body, host=HOST)
