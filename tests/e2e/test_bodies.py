"""Request bodies and lines that lie about themselves, in the newer dialects, through the real Envoy."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx2 as httpx
import pytest

from tests.e2e.callers import Caller, newcomer
from tests.e2e.samples import GEMINI, NOVA, SAMPLES, Sample
from tests.e2e.scripted import Scene, whole
from tests.e2e.test_hostile import DENIED, Reply, bearer, check_denied, chunked, request

JSON_CALLS = ("openai_chat", "openai_responses", "gemini", "bedrock_converse", "ollama", "cohere_v2")


@pytest.fixture
def caller(scene: Scene) -> Caller:
    return newcomer(scene.stack)


def lines(caller: Caller, sample: Sample, *headers: str, body: bytes | None = None) -> bytes:
    """A sample's request as it goes over the wire."""
    data = json.dumps(sample.body).encode() if body is None else body
    return request(bearer(caller.key), *headers, path=sample.path, body=data)


def posted(sample: Sample, content_type: str | None) -> Callable[[httpx.Client], httpx.Response]:
    headers = {} if content_type is None else {"content-type": content_type}
    body = json.dumps(sample.body).encode()
    return lambda client: client.post(sample.path, content=body, headers=headers)


# --- what a body says it is


@pytest.mark.parametrize("content_type", ["text/plain", None, "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("name", JSON_CALLS)
def test_json_under_another_name_goes_upstream_under_its_own(
    scene: Scene, name: str, content_type: str | None
) -> None:
    """Else a provider could read another body than the policies did, or none."""
    sample = SAMPLES[name]

    cost, basis, _ = scene.charged(sample.script, posted(sample, content_type))

    assert scene.provider.headers["content-type"] == "application/json"
    assert json.loads(scene.provider.body) == sample.body
    assert (cost, basis) == (sample.tokens, "provider")


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/json; charset=utf-16",
        "application/json, text/plain",
    ],
)
@pytest.mark.parametrize("name", JSON_CALLS)
def test_a_body_that_claims_to_be_no_json_is_415(caller: Caller, name: str, content_type: str) -> None:
    answer = check_denied(caller.stack, lines(caller, SAMPLES[name], f"content-type: {content_type}"))

    assert answer.status == 415
    assert message_of(answer)


def message_of(answer: Reply) -> str:
    """The message in any dialect."""
    said = json.loads(answer.body)
    error = said.get("error", said)
    return str(error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize("name", JSON_CALLS)
def test_a_call_without_its_body_is_400_in_its_dialect(caller: Caller, name: str) -> None:
    sample = SAMPLES[name]
    empty = (
        request(bearer(caller.key), "transfer-encoding: chunked", path=sample.path, length=False)
        + b"0\r\n\r\n"
    )

    for data in (lines(caller, sample, body=b""), empty):
        answer = check_denied(caller.stack, data)
        assert answer.status == 400
        assert message_of(answer)


@pytest.mark.parametrize("name", JSON_CALLS)
def test_a_body_in_chunks_is_read_whole(scene: Scene, caller: Caller, name: str) -> None:
    sample = SAMPLES[name]
    denied = json.dumps(sample.body | {"model": DENIED}).encode()
    head = request(bearer(caller.key), "transfer-encoding: chunked", path=sample.path, length=False)
    if "model" in sample.body:
        assert check_denied(caller.stack, head + chunked(denied)).status == 403

    half = json.dumps(sample.body).encode()
    _, basis, _ = scene.charged(
        sample.script,
        lambda client: client.post(sample.path, content=iter((half[:10], half[10:]))),
    )

    assert basis == "provider"


# --- forms


def form(*parts: tuple[str, bytes]) -> bytes:
    """A multipart body; the part named file is one."""
    text = b""
    for name, value in parts:
        also = '; filename="a.wav"\r\ncontent-type: audio/wav' if name == "file" else ""
        text += f'--x\r\ncontent-disposition: form-data; name="{name}"{also}\r\n\r\n'.encode()
        text += value + b"\r\n"
    return text + b"--x--\r\n"


RECORDING = ("file", b"\x00RIFF" * 200_000)
TRANSCRIPTIONS = "/v1/audio/transcriptions"
FORM = {"content-type": "multipart/form-data; boundary=x"}


def test_a_model_after_a_long_file_is_found(scene: Scene, caller: Caller) -> None:
    body = form(RECORDING, ("model", b"gpt-4o-transcribe"))
    answer = {
        "text": "hello",
        "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17},
    }

    cost, basis, _ = scene.charged(
        whole(answer),
        lambda client: client.post(TRANSCRIPTIONS, content=body, headers=FORM),
    )

    assert scene.provider.body == body
    assert (cost, basis) == (17, "provider")
    denied = form(RECORDING, ("model", DENIED.encode()))
    with caller.http(**FORM) as client:
        assert client.post(TRANSCRIPTIONS, content=denied).status_code == 403


@pytest.mark.parametrize(
    "parts",
    [
        (("model", b"gpt-4o-transcribe"), RECORDING, ("model", DENIED.encode())),
        (RECORDING,),
        (("model", b"gpt-4o-transcribe"),),
    ],
    ids=["two models", "no model", "no file"],
)
def test_a_form_that_names_no_one_model_and_file_is_400(
    caller: Caller, parts: tuple[tuple[str, bytes], ...]
) -> None:
    data = request(
        bearer(caller.key), f"content-type: {FORM['content-type']}", path=TRANSCRIPTIONS, body=form(*parts)
    )

    assert check_denied(caller.stack, data).status == 400


def test_json_where_a_form_belongs_is_refused(caller: Caller) -> None:
    data = request(bearer(caller.key), path=TRANSCRIPTIONS, body=b'{"model": "gpt-4o-transcribe"}')

    assert check_denied(caller.stack, data).status in {400, 415}


# --- request lines


GENERATE = f"/v1beta/models/{GEMINI}:generateContent"
LINES = {
    # What would change how the call or its answer is read.
    f"{GENERATE}?alt=proto": (),
    f"{GENERATE}?$alt=media": (),
    f"{GENERATE}?fields=candidates": (),
    f"{GENERATE}?$ct=application/x-protobuf": (),
    f"{GENERATE}?callback=x": (),
    f"{GENERATE}?$httpMethod=DELETE": (),
    f"{GENERATE}?alt=sse&alt=json": (),
    GENERATE: ("x-goog-fieldmask: candidates",),
    f"{GENERATE}?": ("x-http-method-override: GET",),
    # Models that are not offered.
    f"/v1beta/models/{DENIED}:generateContent": (),
    f"/v1beta/models/{DENIED}%3AgenerateContent": (),
    f"/v1/models/{DENIED}:generateContent": (),
    f"/v1beta/models/{GEMINI}:generateContent/../{DENIED}:generateContent": (),
    f"/v1beta/models/{GEMINI}%2F..%2F{DENIED}:generateContent": (),
    f"/v1beta/models/{GEMINI}:generateContent:generateContent": (),
    f"/v1beta/tunedModels/{DENIED}:generateContent": (),
    f"/v1/projects/p/locations/l/publishers/google/models/{DENIED}:generateContent": (),
    f"/model/{DENIED}/converse": (),
    f"/model/{NOVA}/../{DENIED}/converse": (),
    f"/model/{NOVA}%2F..%2F{DENIED}/converse": (),
    f"/model/{NOVA}%2f..%2f..%2fv1%2fchat/converse": (),
    f"/model/{NOVA}/unheard-of": (),
}


@pytest.mark.parametrize("path", LINES)
def test_a_line_that_policy_refuses_reaches_no_provider(caller: Caller, path: str) -> None:
    sample = SAMPLES["bedrock_converse" if path.startswith("/model") else "gemini"]
    data = request(bearer(caller.key), *LINES[path], path=path, body=json.dumps(sample.body).encode())

    assert check_denied(caller.stack, data).status in {400, 403}


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("path", ["/v1beta/models", "/api/tags"])
def test_a_body_under_a_method_that_has_none_is_refused_in_every_dialect(
    caller: Caller, path: str, method: str
) -> None:
    body = json.dumps(SAMPLES["ollama"].body).encode()

    check_denied(caller.stack, request(bearer(caller.key), path=path, method=method, body=body))
