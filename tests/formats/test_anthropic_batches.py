import json
from typing import Any

import pytest
from hypothesis import given

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.anthropic import batches as anthropic_batches
from extproc.model import Observation
from tests.formats.calls import claimed, observed, parsed
from tests.formats.shapes import bodies, read

PATH = "/v1/messages/batches"


def entry(text: str = "hi", **changes: Any) -> dict[str, Any]:
    params = {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": "a", "params": params | changes}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", PATH, ("batch", "json")),
        ("GET", PATH, ("control", "none")),
        ("GET", PATH + "?limit=20", ("control", "none")),
        ("GET", f"{PATH}/msgbatch_1", ("control", "none")),
        ("GET", f"{PATH}/msgbatch_1/results", ("control", "none")),
        ("POST", f"{PATH}/msgbatch_1/cancel", ("control", "none")),
        ("DELETE", f"{PATH}/msgbatch_1", ("control", "none")),
        ("DELETE", PATH, None),
        ("POST", f"{PATH}/msgbatch_1", None),
        ("POST", f"{PATH}/msgbatch_1/results", None),
        ("GET", f"{PATH}/msgbatch_1/results/x", None),
    ],
)
def test_only_making_a_batch_spends(method: str, path: str, expected: tuple[str, str] | None) -> None:
    call = claimed(path, method=method, host="api.anthropic.com")

    assert (call and (call.operation, call.body)) == expected
    assert call is None or call.api == "anthropic_batches"


def test_a_batch_is_all_of_its_requests() -> None:
    tool = {"name": "find", "input_schema": {}}
    requests = [
        entry("one", system="s", tools=[tool]),
        entry("two", model="Claude-Opus-4", max_tokens=500, tools=[tool]),
        entry("three", container="c"),
    ]
    found = parsed(PATH, {"requests": requests})
    request = found.request

    assert (request.api, request.operation, request.provider) == ("anthropic_batches", "batch", "anthropic")
    assert (request.model, request.models) == ("claude-haiku-4-5", ("claude-haiku-4-5", "claude-opus-4"))
    assert (request.choices, request.message_count, request.max_output_tokens) == (3, 3, 500)
    assert (request.tools, request.modalities, request.has_state) == (("find",), ("text",), True)
    assert [each.text for each in found.prompt.messages] == ["s", "one", "two", "three"]
    assert len(found.prompt.tools) == 2


def test_a_request_without_a_ceiling_leaves_it_to_the_model() -> None:
    assert parsed(PATH, {"requests": [entry(), entry(max_tokens=None)]}).request.max_output_tokens is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "/requests is required"),
        ({"requests": []}, "/requests must not be empty"),
        ({"requests": {}}, "/requests must be a list"),
        ({"requests": [5]}, "/requests/0 must be an object"),
        ({"requests": [entry(), {"custom_id": "b"}]}, "/requests/1/params: /model is required"),
        ({"requests": [entry(messages=None)]}, "/requests/0/params: /messages is required"),
        ({"requests": [entry(max_tokens="5")]}, "/requests/0/params: /max_tokens must be"),
        ({"requests": [entry(Model="x")]}, "/requests/0/params has a key"),
        ({"requests": [entry() | {"Params": {}}]}, "/requests/0 has a key"),
        (
            {"requests": [entry(model=f"m{n}") for n in range(65)]},
            "The request body names more than 64 models",
        ),
    ],
)
def test_what_is_wrong_with_one_request_refuses_all(body: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed(PATH, body)

    assert caught.value.status == 400
    assert caught.value.message.startswith(message)


def test_no_more_requests_than_the_api_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic_batches, "MAX_REQUESTS", 2)

    assert parsed(PATH, {"requests": [entry()] * 2}).request.choices == 2
    with pytest.raises(RequestRefused, match="at most 2 requests"):
        parsed(PATH, {"requests": [entry()] * 3})


def test_the_reason_of_one_request_is_the_reason_of_all() -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed(PATH, {"requests": [entry(messages=None)]})

    assert caught.value.code == Reason.UNCLASSIFIED


def test_an_answer_tells_nothing_of_cost_and_so_is_charged_as_reserved() -> None:
    answer = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"}
    seen = observed("anthropic_batches", json.dumps(answer).encode(), operation="batch")

    assert seen == Observation(response_id="msgbatch_1")


def test_the_old_completions_are_read_in_the_words_of_policies() -> None:
    body = {
        "model": "Claude-2",
        "prompt": "\n\nHuman: hi",
        "max_tokens_to_sample": 9,
        "metadata": {"user_id": "u"},
    }
    found = parsed("/v1/complete", body)
    request = found.request

    assert (request.api, request.operation) == ("anthropic_complete", "text_completion")
    assert (request.models, request.max_output_tokens, request.end_user) == (("claude-2",), 9, "u")
    assert found.prompt.messages[0].text == "\n\nHuman: hi"
    with pytest.raises(RequestRefused, match=r"^/prompt"):
        parsed("/v1/complete", {"model": "claude-2", "messages": []})


def test_the_text_of_old_completions_is_there_to_be_counted() -> None:
    stop = {"completion": "!", "stop_reason": "stop_sequence", "model": "claude-2", "id": "c-1"}
    events = [{"type": "ping"}, {"completion": " Hel", "stop_reason": None}, {"completion": "lo"}, stop]
    data = b"".join(b"event: completion\ndata: " + json.dumps(each).encode() + b"\n\n" for each in events)
    sse = {"content-type": "text/event-stream"}

    seen = observed("anthropic_complete", data, headers=sse)
    assert (seen.output_text, seen.finished, seen.usage) == (" Hello!", True, None)
    assert (seen.model, seen.response_id, seen.finish_reasons) == ("claude-2", "c-1", ("stop_sequence",))
    assert not observed("anthropic_complete", data[:-2].rpartition(b"\n\n")[0], headers=sse).finished


@given(bodies("requests", "params", "model", "messages", "role", "content", "custom_id", "prompt", "stream"))
def test_no_body_raises_anything_but_a_refusal(body: dict[str, Any]) -> None:
    read(PATH, body)
    read("/v1/complete", body)
