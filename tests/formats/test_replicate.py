import json
from typing import Any

import pytest
from hypothesis import given

from extproc.decision import Denial, Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.model import Observation, Usage
from tests.formats.calls import claimed, observed, parsed
from tests.formats.shapes import bodies, read

HOST = "api.replicate.com"
PREDICTION: dict[str, Any] = {"version": "AC73", "input": {"prompt": "robots"}}
LLAMA = "/v1/models/Meta/llama-2-70b-chat/predictions"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/predictions", ("prediction", "", "json")),
        ("POST", LLAMA, ("prediction", "meta/llama-2-70b-chat", "json")),
        ("POST", "/v1/deployments/me/mine/predictions", ("prediction", "me/mine", "json")),
        ("POST", "/v1/predictions/abc/cancel", ("control", "", "none")),
        ("GET", "/v1/predictions/abc", ("control", "", "none")),
        ("GET", "/v1/models/meta/llama/versions/1", ("control", "", "none")),
        ("GET", "/v1/account", ("control", "", "none")),
        ("POST", "/v1/models/a%2Fb/c/predictions", None),
        ("POST", "/v1/models/a/predictions", None),
        ("POST", "/v1/models/a/b/versions/1/trainings", None),
        ("POST", "/v1/trainings", None),
        ("DELETE", "/v1/models/a/b", None),
        ("GET", "/v2/predictions", None),
    ],
)
def test_a_call_is_its_method_and_path(method: str, path: str, expected: tuple[str, str, str] | None) -> None:
    call = claimed(path, method=method, host=HOST)

    assert (call and (call.operation, call.model, call.body)) == expected
    assert call is None or (call.api, call.provider) == ("replicate", "replicate")


def test_output_streams_from_another_address_for_nothing() -> None:
    call = claimed("/v1/streams/56o7", method="GET", host="streaming-api.svc.us.c.replicate.net")

    assert call is not None
    assert (call.api, call.operation) == ("replicate", "control")


def test_a_prediction_is_read_in_the_words_of_policies() -> None:
    given = {
        "prompt": "hi",
        "system_prompt": "Be brief.",
        "image": "https://x/y.png",
        "messages": [{"role": "user"}],
        "max_new_tokens": 50,
        "max_tokens": 20,
        "num_outputs": 2,
        "temperature": 0.5,
        "seed": 7,
    }
    found = parsed(LLAMA, {"input": given, "stream": True}, host=HOST)
    request = found.request

    assert (request.operation, request.model, request.models) == (
        "prediction",
        "meta/llama-2-70b-chat",
        ("meta/llama-2-70b-chat",),
    )
    assert (request.stream, request.choices, request.max_output_tokens) == (True, 2, 50)
    assert request.modalities == ("file", "text")
    assert found.prompt.messages[0].text == 'hi\nBe brief.\n[{"role":"user"}]'


@pytest.mark.parametrize(
    ("version", "models"),
    [
        ("AC73", ("ac73",)),
        ("Owner/Name:AC73", ("owner/name:ac73", "owner/name", "ac73")),
        ("owner/name", ("owner/name",)),
    ],
)
def test_a_version_may_bring_its_model_s_name(version: str, models: tuple[str, ...]) -> None:
    request = parsed("/v1/predictions", PREDICTION | {"version": version}, host=HOST).request

    assert (request.model, request.models) == (version.lower(), models)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"version": "x"}, "/input "),
        ({"version": "x", "input": "robots"}, "/input "),
        ({"input": {}}, "/version "),
        (PREDICTION | {"version": 5}, "/version "),
        (PREDICTION | {"input": {"prompt": "x", "Prompt": "y"}}, "/input "),
        (PREDICTION | {"input": {"max_tokens": "many"}}, "/input/max_tokens "),
        (PREDICTION | {"stream": 1}, "/stream "),
    ],
)
def test_a_wrong_body_is_400_and_names_its_place(body: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed("/v1/predictions", body, host=HOST)

    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)


def answer(**changes: Any) -> Observation:
    return observed("replicate", json.dumps({"id": "p-1", "model": "m", "error": None} | changes).encode())


@pytest.mark.parametrize("status", ["starting", "processing", None, 5])
def test_what_is_not_over_is_charged_as_reserved(status: Any) -> None:
    assert answer(status=status, output=["so far"]) == Observation(model="m", response_id="p-1")


def test_who_waited_gets_the_counts() -> None:
    metrics = {"input_token_count": 9, "output_token_count": 2, "predict_time": 0.5}
    seen = answer(status="succeeded", output=["Hel", "lo"], metrics=metrics)

    assert seen == Observation(
        usage=Usage(input_tokens=9, output_tokens=2),
        finished=True,
        is_legible=True,
        model="m",
        response_id="p-1",
        finish_reasons=("succeeded",),
        output_text="Hello",
    )


def test_files_are_no_text() -> None:
    seen = answer(
        status="succeeded", output=["https://replicate.delivery/out.png"], metrics={"predict_time": 2}
    )

    assert (seen.usage, seen.output_text, seen.is_legible) == (None, "", True)


def test_a_failure_is_seen() -> None:
    seen = answer(status="failed", error="CUDA out of memory")

    assert (seen.error, seen.finished) == ("error", True)


def test_a_denial_is_a_problem() -> None:
    denial = Denial(status=403, reason=Reason.ACCESS_DENIED, message="No.", decision_id="d-1")

    assert json.loads(FORMATS["replicate"].render_denial(denial).body) == {
        "title": "access_denied",
        "detail": "No. (decision d-1)",
        "status": 403,
        "reason": "access_denied",
        "decision_id": "d-1",
    }


@given(
    bodies("version", "input", "prompt", "max_tokens", "max_new_tokens", "num_outputs", "stream", "PROMPT")
)
def test_no_body_raises_anything_but_a_refusal(body: dict[str, Any]) -> None:
    read("/v1/predictions", body, host=HOST)
    read(LLAMA, body, host=HOST)
