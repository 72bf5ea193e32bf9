from typing import Any

import pytest

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import BodyKind
from tests.formats.calls import claimed, observed, parsed

HOST = "us-central1-aiplatform.googleapis.com"
PROJECT = "/v1/projects/p/locations/us-central1"
GOOGLE = f"{PROJECT}/publishers/google/models/"
GEMINI = GOOGLE + "gemini-2.5-pro:generateContent"
ANTHROPIC = f"{PROJECT}/publishers/anthropic/models/"
CLAUDE = ANTHROPIC + "claude-sonnet-4-5@20250929:"
MISTRAL = f"{PROJECT}/publishers/mistralai/models/mistral-medium-3:"
HELLO: dict[str, Any] = {"contents": {"role": "user", "parts": {"text": "hi"}}}
MESSAGE: dict[str, Any] = {
    "anthropic_version": "vertex-2023-10-16",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "hi"}],
}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("path", "operation", "model", "stream"),
    [
        (GEMINI, "generate_content", "gemini-2.5-pro", False),
        (GEMINI.replace("/v1/", "/v1beta1/"), "generate_content", "gemini-2.5-pro", False),
        (
            GOOGLE + "gemini-2.5-pro:streamGenerateContent?%24alt=json%3Benum-encoding%3Dint",
            "generate_content",
            "gemini-2.5-pro",
            True,
        ),
        (
            "/v1/publishers/google/models/gemini-2.5-pro:generateContent?key=k",
            "generate_content",
            "gemini-2.5-pro",
            False,
        ),
        (f"{PROJECT}/endpoints/4567:generateContent", "generate_content", "endpoints/4567", False),
        (GOOGLE + "text-embedding-005:predict", "embeddings", "text-embedding-005", False),
        (GOOGLE + "gemini-embedding-2:embedContent", "embeddings", "gemini-embedding-2", False),
        (GOOGLE + "imagen-4.0:predict", "image_generation", "imagen-4.0", False),
        (GOOGLE + "veo-3.0:predictLongRunning", "image_generation", "veo-3.0", False),
        (f"{PROJECT}/endpoints/4567:predict", "prediction", "endpoints/4567", False),
        (GOOGLE + "gemini-2.5-pro:countTokens", "control", "gemini-2.5-pro", False),
        (GOOGLE + "veo-3.0:fetchPredictOperation", "control", "veo-3.0", False),
        (f"{PROJECT}/batchPredictionJobs", "batch", "", None),
    ],
)
@pytest.mark.parametrize("host", [HOST, "aiplatform.eu.rep.googleapis.com", "gateway.example"])
def test_the_path_names_method_and_model(
    *, path: str, operation: str, model: str, stream: bool | None, host: str
) -> None:
    call = claimed(path, host=host)

    assert call is not None
    assert (call.api, call.provider, call.operation) == ("vertex", "gcp.vertex_ai", operation)
    assert (call.model, call.stream) == (model, stream)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{PROJECT}/cachedContents", BodyKind.NONE),
        ("PATCH", f"{PROJECT}/cachedContents/5?updateMask=ttl", BodyKind.JSON),
        ("DELETE", f"{PROJECT}/batchPredictionJobs/5", BodyKind.NONE),
        ("POST", f"{PROJECT}/batchPredictionJobs/5:cancel", BodyKind.OPAQUE),
        ("GET", f"{PROJECT}/operations/5", BodyKind.NONE),
        ("GET", "/v1beta1/publishers/google/models", BodyKind.NONE),
    ],
)
def test_what_generates_nothing_is_control(method: str, path: str, body: BodyKind) -> None:
    call = claimed(path, method=method, host=HOST)

    assert call is not None
    assert (call.api, call.operation, call.body) == ("vertex", "control", body)


@pytest.mark.parametrize(
    "path",
    [
        GOOGLE + "gemini-2.5-pro:rawPredict",
        GOOGLE + "gemini-2.5-pro",
        ANTHROPIC + "claude-sonnet-4-5:predict",
        ANTHROPIC + "claude-sonnet-4-5:generateContent",
        ANTHROPIC + "count-tokens:streamRawPredict",
        f"{PROJECT}/reasoningEngines/5:query",
        f"{PROJECT}/batchPredictionJobs/5:run",
        "/v1/projects/p/publishers/google/models/gemini-2.5-pro:generateContent",
        "/v1/projects",
    ],
)
def test_whatever_else_is_nobodys(path: str) -> None:
    assert claimed(path, host=HOST) is None


@pytest.mark.parametrize("path", [GEMINI, CLAUDE + "rawPredict", MISTRAL + "rawPredict"])
def test_parameters_that_change_the_answer_are_refused_on_every_publishers_path(path: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        claimed(f"{path}?$fields=candidates", host=HOST)

    assert caught.value.code == Reason.UNCLASSIFIED


def test_googles_bodies_are_those_of_gemini() -> None:
    request = parsed(GEMINI, HELLO | {"labels": {"team": "a"}}, host=HOST).request

    assert (request.api, request.provider, request.models) == ("vertex", "gcp.vertex_ai", ("gemini-2.5-pro",))
    assert (request.message_count, request.modalities) == (1, ("text",))


def test_inputs_of_embeddings_are_their_instances() -> None:
    body = {"instances": [{"content": "hi", "task_type": "RETRIEVAL_QUERY"}, {"content": "ho"}]}
    read = parsed(GOOGLE + "text-embedding-005:predict", body, host=HOST)

    assert [(message.role, message.text) for message in read.prompt.messages] == [("", "hi"), ("", "ho")]
    assert (read.request.operation, read.request.message_count) == ("embeddings", 2)


def test_a_batch_job_names_its_model_and_keeps_its_requests_in_files() -> None:
    body = {"model": "publishers/google/models/gemini-2.5-pro", "inputConfig": {"gcsSource": {}}}
    request = parsed(f"{PROJECT}/batchPredictionJobs", body, host=HOST).request

    assert (request.operation, request.model, request.has_state) == ("batch", "gemini-2.5-pro", True)
    with pytest.raises(RequestRefused, match=r"^/model "):
        parsed(f"{PROJECT}/batchPredictionJobs", {"inputConfig": {}}, host=HOST)


@pytest.mark.parametrize(("method", "stream"), [("rawPredict", False), ("streamRawPredict", True)])
def test_claude_is_messages_whose_model_is_in_the_path(*, method: str, stream: bool) -> None:
    call = claimed(CLAUDE + method, host=HOST)
    request = parsed(CLAUDE + method, MESSAGE | {"stream": stream}, host=HOST).request

    assert call is not None
    assert (call.api, call.provider, call.operation) == ("vertex_anthropic", "gcp.vertex_ai", "chat")
    assert (request.api, request.model, request.stream) == (call.api, "claude-sonnet-4-5@20250929", stream)
    assert request.max_output_tokens == 10


def test_a_model_in_the_body_is_seen_beside_the_paths() -> None:
    request = parsed(CLAUDE + "rawPredict", MESSAGE | {"model": "claude-opus-4-5"}, host=HOST).request

    assert request.models == ("claude-sonnet-4-5@20250929", "claude-opus-4-5")


@pytest.mark.parametrize("start", [CLAUDE, MISTRAL])
@pytest.mark.parametrize(
    ("method", "stream"), [("rawPredict", True), ("streamRawPredict", False), ("streamRawPredict", None)]
)
def test_a_body_that_streams_otherwise_than_its_path_is_refused(
    *, start: str, method: str, stream: bool | None
) -> None:
    with pytest.raises(RequestRefused, match=r"^/stream must agree"):
        parsed(start + method, MESSAGE | {"stream": stream}, host=HOST)


def test_counting_claudes_tokens_is_control() -> None:
    body = MESSAGE | {"model": "claude-sonnet-4-5"}
    request = parsed(ANTHROPIC + "count-tokens:rawPredict", body, host=HOST).request

    assert (request.api, request.operation, request.model) == (
        "vertex_anthropic",
        "control",
        "claude-sonnet-4-5",
    )


def test_answers_of_claude_are_anthropics() -> None:
    seen = observed(
        "vertex_anthropic",
        b'{"type":"message","id":"msg_1","model":"claude-sonnet-4-5","stop_reason":"end_turn",'
        b'"content":[{"type":"text","text":"hi"}],"usage":{"input_tokens":8,"output_tokens":2}}',
    )

    assert seen.usage is not None
    assert (seen.usage.input_tokens, seen.usage.output_tokens, seen.finished) == (8, 2, True)


def test_other_publishers_are_chat_whose_model_is_in_the_path() -> None:
    call = claimed(MISTRAL + "streamRawPredict", host=HOST)
    body = CHAT | {"model": "mistral-medium-3", "stream": True}
    request = parsed(MISTRAL + "streamRawPredict", body, host=HOST).request

    assert call is not None
    assert (call.api, call.provider) == ("vertex_openai", "gcp.vertex_ai")
    assert (request.model, request.models, request.stream) == (
        "mistral-medium-3",
        ("mistral-medium-3",),
        True,
    )


def test_only_who_does_not_report_usage_unasked_is_asked() -> None:
    llama = claimed(MISTRAL.replace("mistralai", "meta").replace("mistral-", "llama-") + "streamRawPredict")
    mistral = claimed(MISTRAL + "streamRawPredict")
    body = CHAT | {"stream": True}
    assert llama is not None
    assert mistral is not None

    asked = FORMATS["vertex_openai"].ask_for_usage(body, llama)
    assert asked is not None
    assert asked["stream_options"] == {"include_usage": True}
    assert FORMATS["vertex_openai"].ask_for_usage(body, mistral) is None


@pytest.mark.parametrize("endpoint", ["openapi", "4567"])
def test_openais_api_is_read_below_an_endpoint(endpoint: str) -> None:
    call = claimed(f"{PROJECT}/endpoints/{endpoint}/chat/completions", host=HOST)

    assert call is not None
    assert (call.api, call.provider) == ("openai_chat", "gcp.vertex_ai")
    assert call.model == ("" if endpoint == "openapi" else endpoint)
