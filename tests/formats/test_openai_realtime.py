import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.base import BodyKind
from extproc.model import AIRequest, Observation
from tests.formats.calls import claimed, observed, parsed
from tests.formats.forms import parsed_form
from tests.formats.shapes import bodies, read

FIXTURES = Path(__file__).parent.parent / "fixtures/openai_realtime"
API = "openai_realtime"
SESSIONS = (
    "/v1/realtime/client_secrets",
    "/v1/realtime/sessions",
    "/v1/realtime/transcription_sessions",
    "/v1/realtime/translations/client_secrets",
    "/v1/realtime/calls/rtc_1/accept",
)
FORM = {"content-type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/realtime?model=GPT-Realtime", "gpt-realtime"),
        ("/v1/realtime/translations?model=m", "m"),
        ("/v1/realtime?intent=transcription", ""),
        ("/v1/realtime?call_id=rtc_1", ""),
        ("/openai/realtime?api-version=2025-04-01-preview&deployment=Mine", "mine"),
        ("/openai/v1/realtime?model=mine", "mine"),
        ("/v1/realtime?model=a&deployment=A", "a"),
    ],
)
def test_a_socket_names_its_model_in_the_query(path: str, model: str) -> None:
    call = claimed(path, method="GET", headers={"upgrade": "websocket"})

    assert call is not None
    assert (call.api, call.operation, call.model, call.body) == (API, "realtime", model, BodyKind.NONE)


@pytest.mark.parametrize(
    "query",
    ["", "?x=1", "?model=", "?intent=conversation", "?model=a&deployment=b", "?model=%20a", "?model=a%00"],
)
def test_a_socket_of_no_model_or_two_is_refused(query: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        claimed(f"/v1/realtime{query}", method="GET")

    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("method", "path", "operation", "body"),
    [
        *(("POST", path, "realtime", BodyKind.JSON) for path in SESSIONS),
        ("POST", "/v1/realtime/calls", "realtime", BodyKind.FORM),
        ("POST", "/v1/realtime/calls/rtc_1/hangup", "control", BodyKind.OPAQUE),
        ("POST", "/v1/realtime/calls/rtc_1/refer", "control", BodyKind.OPAQUE),
    ],
)
def test_sessions_and_calls_are_post(method: str, path: str, operation: str, body: BodyKind) -> None:
    call = claimed(path, method=method, headers=FORM)

    assert call is not None
    assert (call.api, call.operation, call.body) == (API, operation, body)
    assert claimed(path, method="PUT", headers=FORM) is None


@pytest.mark.parametrize("path", ["/v1/realtime/other", "/v1/realtime/calls/x/y/z", "/v1/realtimes"])
def test_other_paths_are_nobodys(path: str) -> None:
    assert claimed(path) is None
    assert claimed(path, method="GET") is None


@pytest.mark.parametrize("content_type", ["application/sdp", "", "application/json"])
def test_a_call_whose_session_cannot_be_seen_is_415(content_type: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        claimed("/v1/realtime/calls", headers={"content-type": content_type})

    assert (caught.value.status, caught.value.code) == (415, Reason.ENCODING_UNSUPPORTED)


def check(request: AIRequest) -> None:
    assert (request.api, request.operation) == (API, "realtime")
    assert (request.model, request.models) == ("gpt-realtime", ("gpt-realtime", "gpt-4o-mini-transcribe"))
    assert (request.tools, request.max_output_tokens) == (("look_up",), 1024)


def test_a_session_is_read_wherever_it_stands() -> None:
    body = json.loads((FIXTURES / "client_secret.json").read_bytes())

    for path, given_body in zip(SESSIONS, (body, body["session"], body, body, body["session"]), strict=True):
        found = parsed(path, given_body)
        check(found.request)
        assert "Speak slowly." in [message.text for message in found.prompt.messages]
    form = {"sdp": "v=0", "session": json.dumps(body["session"])}
    check(parsed_form("/v1/realtime/calls", data=form, files={"x": ("x", b"")}).request)


def test_a_transcription_is_of_its_transcriber() -> None:
    for session in (
        {"type": "transcription", "audio": {"input": {"transcription": {"model": "Whisper-1"}}}},
        {"input_audio_transcription": {"model": "whisper-1", "prompt": "cows"}},
    ):
        request = parsed("/v1/realtime/transcription_sessions", session).request
        assert request.models == ("whisper-1",)


def test_no_ceiling_and_stored_prompts_are_seen() -> None:
    session = {"model": "m", "max_output_tokens": "inf", "prompt": {"id": "pmpt_1"}}

    request = parsed("/v1/realtime/client_secrets", {"session": session}).request

    assert (request.max_output_tokens, request.has_state) == (None, True)
    both = {"model": "a", "session": {"model": "b"}}
    assert parsed("/v1/realtime/sessions", both).request.models == ("a", "b")


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/session/model ", Reason.UNCLASSIFIED),
        ({"session": {"type": "realtime"}}, "/session/model ", Reason.UNCLASSIFIED),
        ({"session": "x"}, "/session ", Reason.BODY_MALFORMED),
        ({"session": {"model": 5}}, "/session/model ", Reason.BODY_MALFORMED),
        ({"session": {"Model": "a", "model": "b"}}, "/session ", Reason.BODY_MALFORMED),
        ({"model": "m", "max_output_tokens": "many"}, "/max_output_tokens ", Reason.BODY_MALFORMED),
        ({"model": "m", "audio": {"Input": {}}}, "/audio ", Reason.BODY_MALFORMED),
        ({"model": "m", "audio": {"input": {"transcription": 5}}}, "/audio/input/tr", Reason.BODY_MALFORMED),
    ],
)
def test_what_cannot_be_read_is_400_and_names_its_place(
    body: dict[str, Any], pointer: str, code: Reason
) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed("/v1/realtime/client_secrets", body)

    assert (caught.value.status, caught.value.code) == (400, code)
    assert caught.value.message.startswith(pointer)


@pytest.mark.parametrize("session", ["", "{", '{"model":"a","model":"b"}', '{"Model":"a"}', "[]", "{}"])
def test_a_call_whose_session_cannot_be_read_is_400(session: str) -> None:
    form = {"sdp": "v=0", "session": session}

    with pytest.raises(RequestRefused) as caught:
        parsed_form("/v1/realtime/calls", data=form, files={"x": ("x", b"")})

    assert caught.value.status == 400


def test_a_session_that_is_a_file_is_refused() -> None:
    with pytest.raises(RequestRefused, match="/session"):
        parsed_form("/v1/realtime/calls", files={"session": ("s.json", b'{"model":"a"}')})


def test_a_new_session_says_nothing_of_its_cost() -> None:
    assert observed(API, b'{"value":"ek_1","session":{"model":"gpt-realtime"}}') == Observation()


@given(
    bodies(
        "session", "model", "audio", "input", "transcription", "tools", "max_output_tokens", "instructions"
    )
)
def test_no_shape_raises_anything_but_a_refusal(body: dict[str, Any]) -> None:
    for path in SESSIONS:
        read(path, body)
