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

GENERATION: dict[str, Any] = {"model_id": "Google/Flan-UL2", "input": "hi", "project_id": "p"}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/ml/v1/text/generation?version=2024-05-01", ("text_completion", False, "")),
        ("POST", "/ml/v1-beta/generation/text", ("text_completion", False, "")),
        ("POST", "/ml/v1/text/generation_stream", ("text_completion", True, "")),
        ("POST", "/ml/v1-beta/generation/text_stream", ("text_completion", True, "")),
        ("POST", "/ml/v1/text/chat", ("chat", False, "")),
        ("POST", "/ml/v1/text/chat_stream", ("chat", True, "")),
        ("POST", "/ml/v1/deployments/Dep-1/text/chat_stream", ("chat", True, "dep-1")),
        ("POST", "/ml/v1/deployments/dep-1/text/generation", ("text_completion", False, "dep-1")),
        ("POST", "/ml/v1/text/embeddings", ("embeddings", False, "")),
        ("POST", "/ml/v1/text/rerank", ("rerank", False, "")),
        ("POST", "/ml/v1/text/tokenization", ("control", False, "")),
        ("GET", "/ml/v1/foundation_model_specs", ("control", None, "")),
        ("GET", "/ml/v1/text/chat", None),
        ("POST", "/ml/v1/deployments/dep-1/ai_service", None),
        ("POST", "/ml/v1/deployments/a%2Fb/text/chat", None),
        ("POST", "/ml/v2/text/chat", None),
        ("POST", "/ml", None),
    ],
)
def test_a_call_is_its_method_and_path(
    method: str, path: str, expected: tuple[str, bool | None, str] | None
) -> None:
    for host in ("us-south.ml.cloud.ibm.com", "gateway.example"):
        call = claimed(path, method=method, host=host)
        assert (call and (call.operation, call.stream, call.model)) == expected
        assert call is None or (call.api, call.provider) == ("watsonx", "ibm.watsonx.ai")


def test_a_generation_is_read_in_the_words_of_policies() -> None:
    body = GENERATION | {"parameters": {"max_new_tokens": 50, "temperature": 0.5}}
    found = parsed("/ml/v1/text/generation_stream", body)
    request = found.request

    assert (request.model, request.models, request.stream) == (
        "google/flan-ul2",
        ("google/flan-ul2",),
        True,
    )
    assert (request.max_output_tokens, request.temperature) == (50, 0.5)
    assert found.prompt.messages[0].text == "hi"


def test_a_chat_is_openai_s_under_its_own_name() -> None:
    body = {
        "model_id": "ibm/Granite",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "tools": [{"type": "function", "function": {"name": "find"}}],
        "max_tokens": 9,
    }
    request = parsed("/ml/v1/text/chat", body).request

    assert (request.api, request.operation, request.stream) == ("watsonx", "chat", False)
    assert (request.model, request.models) == ("ibm/granite", ("ibm/granite",))
    assert (request.tools, request.max_output_tokens) == (("find",), 9)
    assert request.wants_usage_chunk


def test_a_deployment_and_a_body_may_both_name_models() -> None:
    request = parsed("/ml/v1/deployments/dep-1/text/generation", GENERATION).request

    assert (request.model, request.models) == ("dep-1", ("dep-1", "google/flan-ul2"))


def test_every_input_is_counted() -> None:
    embedded = parsed("/ml/v1/text/embeddings", {"model_id": "m", "inputs": ["a", "b"]})
    ranked = parsed("/ml/v1/text/rerank", {"model_id": "m", "query": "q", "inputs": [{"text": "c"}]})

    assert [each.text for each in embedded.prompt.messages] == ["a", "b"]
    assert ranked.prompt.messages[0].text == "q\nc"


@pytest.mark.parametrize(
    ("noun", "body", "pointer"),
    [
        ("generation", {"input": "hi"}, "/model_id "),
        ("generation", {"model_id": "m"}, "/input "),
        ("generation", GENERATION | {"input": ["hi"]}, "/input "),
        ("generation", GENERATION | {"parameters": {"max_new_tokens": 1.5}}, "/parameters/max_new_tokens "),
        ("generation", GENERATION | {"parameters": {"Max_New_Tokens": 1}}, "/parameters "),
        ("chat", {"model_id": "m"}, "/messages "),
        ("embeddings", {"model_id": "m"}, "/inputs "),
        ("embeddings", {"model_id": "m", "inputs": [5]}, "/inputs "),
        ("rerank", {"model_id": "m", "inputs": []}, "/query and /inputs "),
        ("rerank", {"model_id": "m", "query": "q", "inputs": ["x"]}, "/inputs/0 "),
    ],
)
def test_a_wrong_body_is_400_and_names_its_place(noun: str, body: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed(f"/ml/v1/text/{noun}", body)

    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)


def results(text: str, given: int, generated: int, reason: str) -> dict[str, Any]:
    counts = {"input_token_count": given, "generated_token_count": generated}
    return {"model_id": "m", "results": [{"generated_text": text, "stop_reason": reason} | counts]}


def test_a_stream_counts_input_once_and_output_up() -> None:
    events = [
        results("", 8, 0, "not_finished"),
        results("Grüße", 0, 1, "not_finished"),
        results("!", 0, 2, "eos_token"),
    ]
    data = b"".join(b"id: 1\nevent: message\ndata: " + json.dumps(each).encode() + b"\n\n" for each in events)
    expected = Observation(
        usage=Usage(input_tokens=8, output_tokens=2),
        finished=True,
        is_legible=True,
        model="m",
        finish_reasons=("eos_token",),
        output_text="Grüße!",
    )

    for chunks in split_everywhere(data):
        assert observed("watsonx", *chunks, headers=SSE_ANSWER, operation="text_completion") == expected
    cut = observed("watsonx", data[: data.index(b"eos_token")], headers=SSE_ANSWER)
    assert (cut.finished, cut.usage) == (False, Usage(input_tokens=8, output_tokens=1))


def test_a_chat_reports_as_openai_does() -> None:
    body = {
        "model_id": "m",
        "choices": [{"message": {"content": "Hi"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
    seen = observed("watsonx", json.dumps(body).encode())

    assert (seen.usage, seen.model) == (Usage(input_tokens=3, output_tokens=1), "m")


def test_embeddings_have_no_output() -> None:
    seen = observed(
        "watsonx", b'{"model_id":"m","input_token_count":4,"results":[{}]}', operation="embeddings"
    )

    assert seen.usage == Usage(input_tokens=4, output_tokens=0)


def test_errors_are_a_list() -> None:
    body = {"errors": [{"code": "model_not_supported", "message": "no"}], "status_code": 404}
    denial = Denial(status=429, reason=Reason.RATE_LIMITED, message="No.", decision_id="d", retry_after_ms=5)

    assert observed("watsonx", json.dumps(body).encode()).error == "model_not_supported"
    assert json.loads(FORMATS["watsonx"].render_denial(denial).body) == {
        "errors": [
            {
                "code": "rate_limit",
                "message": "No. (decision d)",
                "reason": "rate_limited",
                "decision_id": "d",
                "retry_after": 1,
            }
        ],
        "trace": "d",
        "status_code": 429,
    }


PATHS = st.sampled_from([f"/ml/v1/text/{noun}" for noun in ("generation", "chat", "embeddings", "rerank")])


@given(
    PATHS, bodies("model_id", "input", "inputs", "parameters", "max_new_tokens", "query", "text", "messages")
)
def test_no_body_raises_anything_but_a_refusal(path: str, body: dict[str, Any]) -> None:
    read(path, body)
