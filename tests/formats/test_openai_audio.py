from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.openai.audio_answers import read_usage
from extproc.model import Observation, PromptMedia, Usage
from tests.formats.calls import SSE_ANSWER, claimed, observed, parsed, split_everywhere
from tests.formats.corpus import CORPUS, MISSING, call_of, exchanges, observations
from tests.formats.forms import parsed_form
from tests.formats.shapes import bodies, read

FIXTURES = Path(__file__).parent.parent / "fixtures/openai_audio"
API = "openai_audio"
TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
SPEECH = "/v1/audio/speech"
WAV = b"RIFF" + bytes(1000)


@pytest.mark.parametrize("path", [TRANSCRIPTIONS, TRANSLATIONS])
def test_a_recording_is_read(path: str) -> None:
    found = parsed_form(
        path,
        data={"model": "GPT-4o-Transcribe", "prompt": "Names: Ada", "stream": "true", "keywords[]": ["cow"]},
        files={"file": ("speech.wav", WAV, "audio/wav")},
    )

    request = found.request
    assert (request.api, request.operation) == (API, "transcription")
    assert (request.model, request.models) == ("gpt-4o-transcribe", ("gpt-4o-transcribe",))
    assert (request.stream, request.modalities) == (True, ("audio", "text"))
    assert [message.text for message in found.prompt.messages] == ["Names: Ada\ncow"]
    assert found.prompt.media == (PromptMedia(modality="audio", size_bytes=len(WAV)),)


def test_a_recording_behind_a_url_has_no_size() -> None:
    form = {"model": "whisper-large-v3", "url": "https://audio.example/a.mp3"}

    found = parsed_form(TRANSCRIPTIONS, data=form, files={"x": ("x", b"")})

    assert found.prompt.media == (PromptMedia(modality="audio"),)


def test_samples_of_voices_are_sound() -> None:
    form = {
        "model": "gpt-4o-transcribe-diarize",
        "known_speaker_references[]": ["data:audio/wav;base64,AAAA"],
    }

    media = parsed_form(TRANSCRIPTIONS, data=form, files={"file": ("a.wav", WAV)}).prompt.media

    assert [each.size_bytes for each in media] == [len(WAV), 19]


def test_the_deployment_in_the_path_is_the_model() -> None:
    path = "/openai/deployments/Whisper/audio/transcriptions?api-version=2024-06-01"

    request = parsed_form(path, data={"model": "x"}, files={"file": ("a.wav", WAV)}).request

    assert (request.model, request.models) == ("whisper", ("whisper", "x"))


def test_text_to_speak_is_read() -> None:
    found = parsed(
        SPEECH,
        {
            "model": "TTS-1",
            "input": "Grüße",
            "voice": {"id": "v1"},
            "instructions": "slow",
            "stream_format": "sse",
        },
    )

    assert (found.request.operation, found.request.model, found.request.stream) == ("speech", "tts-1", True)
    assert [message.text for message in found.prompt.messages] == ["Grüße\nslow"]


@pytest.mark.parametrize(
    ("data", "pointer", "code"),
    [
        ({"model": "m"}, "/file ", Reason.UNCLASSIFIED),
        ({"model": "m", "file": "text"}, "/file ", Reason.UNCLASSIFIED),
        ({"file": WAV}, "/model ", Reason.BODY_MALFORMED),
        ({"model": b"m", "file": WAV}, "/model ", Reason.BODY_MALFORMED),
        ({"model": " m", "file": WAV}, "/model ", Reason.BODY_MALFORMED),
        ({"model": "m", "stream": "on", "file": WAV}, "The request body must say", Reason.BODY_MALFORMED),
        ({"model": "m", "prompt": b"p", "file": WAV}, "/prompt ", Reason.BODY_MALFORMED),
    ],
)
def test_a_form_that_cannot_be_read_is_400(data: dict[str, Any], pointer: str, code: Reason) -> None:
    """Bytes stand for files here."""
    fields = {name: value for name, value in data.items() if isinstance(value, str)}
    files = {name: ("f", value) for name, value in data.items() if isinstance(value, bytes)}

    with pytest.raises(RequestRefused) as caught:
        parsed_form(TRANSCRIPTIONS, data=fields, files=files or {"other": ("f", b"")})

    assert (caught.value.status, caught.value.code) == (400, code)
    assert caught.value.message.startswith(pointer)


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"model": "tts-1"}, "/input ", Reason.UNCLASSIFIED),
        ({"input": "x"}, "/model ", Reason.BODY_MALFORMED),
        ({"model": "tts-1", "input": ["x"]}, "/input ", Reason.BODY_MALFORMED),
    ],
)
def test_speech_that_cannot_be_read_is_400(body: dict[str, Any], pointer: str, code: Reason) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed(SPEECH, body)

    assert caught.value.code == code
    assert caught.value.message.startswith(pointer)


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", TRANSCRIPTIONS, "transcription"),
        ("POST", SPEECH, "speech"),
        ("GET", "/v1/audio/voices", "control"),
        ("POST", "/v1/audio/voice_consents", "control"),
        ("DELETE", "/v1/audio/voice_consents/cons_1", "control"),
        ("GET", TRANSCRIPTIONS, None),
        ("POST", "/v1/audio/other", None),
        ("GET", "/v1/audio/voicesx", None),
    ],
)
def test_a_call_is_its_method_and_path(method: str, path: str, operation: str | None) -> None:
    call = claimed(path, method=method)

    assert (None if call is None else call.operation) == operation


def test_an_answer_billed_by_duration_costs_no_tokens() -> None:
    assert observed(API, (FIXTURES / "answer.json").read_bytes()) == Observation(
        usage=Usage(input_tokens=0, output_tokens=0, input_audio_ms=7000),
        finished=True,
        is_legible=True,
        output_text="The sun rises in the east.",
    )


def test_a_stream_is_observed_alike_wherever_it_is_cut() -> None:
    data = (FIXTURES / "stream.sse").read_bytes()
    whole = Observation(
        usage=Usage(input_tokens=74, output_tokens=11, audio_input_tokens=70),
        finished=True,
        is_legible=True,
        output_text="The sun rises: Grüße 🌍.",
    )

    for first, second in split_everywhere(data):
        assert observed(API, first, second, headers=SSE_ANSWER) == whole


def test_segments_are_text_where_there_are_no_deltas() -> None:
    data = (
        b'data: {"type":"transcript.text.segment","speaker":"A","text":"Hello."}\n\n'
        b'data: {"type":"transcript.text.done","text":"Hello."}\n\n'
    )

    seen = observed(API, data, headers=SSE_ANSWER)

    assert (seen.output_text, seen.finished, seen.usage) == ("Hello.", True, None)


def test_plain_text_is_the_answer_itself() -> None:
    data = "1\n00:00:00,000 --> 00:00:02,000\nGrüße 🌍\n".encode()

    for kind in ("text/plain; charset=utf-8", "application/x-subrip", "text/vtt"):
        for first, second in split_everywhere(data):
            seen = observed(API, first, second, headers={"content-type": kind})
            assert seen == Observation(finished=True, is_legible=True, output_text=data.decode())
    assert observed(API, headers={"content-type": "text/plain"}) == Observation()


def test_speech_is_sound_that_nobody_reads_or_events_with_usage() -> None:
    seen = observed(API, b"\xff\xfb" * 100, headers={"content-type": "audio/mpeg"}, operation="speech")
    assert seen == Observation()

    for first, second in split_everywhere((FIXTURES / "speech.sse").read_bytes()):
        seen = observed(API, first, second, headers=SSE_ANSWER, operation="speech")
        assert seen == Observation(
            usage=Usage(input_tokens=14, output_tokens=101), finished=True, is_legible=True
        )


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"type": "duration", "seconds": 0.0301}, Usage(input_tokens=0, output_tokens=0, input_audio_ms=31)),
        ({"type": "duration", "seconds": -1}, None),
        ({"type": "duration", "seconds": True}, None),
        ({"type": "duration", "seconds": float("inf")}, None),
        ({"type": "duration", "seconds": float("nan")}, None),
        ({"type": "duration"}, None),
        ({"type": "tokens", "input_tokens": 1}, Usage(input_tokens=1)),
        ({"input_tokens": 0, "output_tokens": 0}, Usage(input_tokens=0, output_tokens=0)),
        ({}, None),
    ],
)
def test_usage_is_of_tokens_or_of_time(usage: dict[str, Any], read: Usage | None) -> None:
    assert read_usage(usage) == read


@given(bodies("input", "instructions", "model", "stream_format", "voice"))
def test_no_shape_raises_anything_but_a_refusal(body: dict[str, Any]) -> None:
    read(SPEECH, body)


@pytest.mark.skipif(not CORPUS.is_dir(), reason=MISSING)
def test_recorded_answers_are_read() -> None:
    recorded = [each for each in exchanges() if each["operation"].startswith("audio.")]
    assert len(recorded) == 2

    for each in recorded:
        call = call_of(each)
        assert (call.api, call.operation) == (API, "transcription")
        with pytest.raises(RequestRefused):
            FORMATS[API].parse_request({}, call)  # the recorder left the form out
        for seen in observations(API, "transcription", each):
            assert seen.output_text.startswith("The sun rises in the east")
            assert seen.finished
            billed = each["expected"]["usage"]
            assert (seen.usage.input_audio_ms if seen.usage else None) == (7000 if billed else None)


@pytest.mark.parametrize("key", ["url", "file_url", "file_id"])
def test_one_recording_does_not_hide_another(key: str) -> None:
    form = {"model": "whisper-1", key: "https://audio.example/ten-hours.mp3"}

    with pytest.raises(RequestRefused, match=f"/{key} must not be given beside another recording"):
        parsed_form(TRANSCRIPTIONS, data=form, files={"file": ("a.wav", WAV, "audio/wav")})


def test_a_voice_is_stored_from_a_sample_and_generated_from_a_description() -> None:
    stored = claimed("/v1/audio/voices", headers={"content-type": "multipart/form-data; boundary=x"})
    described = parsed("/v1/audio/voices", {"name": "Ada", "type": "prompt", "prompt": "calm, low"})

    assert stored is not None
    assert stored.operation == "control"
    assert (described.request.operation, described.request.models) == ("speech", ())
    assert [message.text for message in described.prompt.messages] == ["calm, low"]
