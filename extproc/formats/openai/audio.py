"""OpenAI Audio: recordings to text, text to speech.

Floor 1, pure. Answers are `audio_answers`, denials `dialect`. Source: openai-python
`types/audio`, and Groq's `url` in place of a file.
"""

from __future__ import annotations

from collections.abc import Mapping

from extproc.formats import fields
from extproc.formats.base import CONTROL, JSON, AnswerReader, BodyKind, Call, ParsedRequest, RequestLine
from extproc.formats.body import media_type
from extproc.formats.content import Content
from extproc.formats.multipart import FilePart, typed
from extproc.formats.openai import audio_answers as openai_audio_answers
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.model import AIRequest

_SPEECH = "speech"
_TRANSCRIPTION = "transcription"
_POSTS = {
    "/audio/transcriptions": (_TRANSCRIPTION, BodyKind.FORM),
    "/audio/translations": (_TRANSCRIPTION, BodyKind.FORM),
    "/audio/speech": (_SPEECH, BodyKind.JSON),
    "/audio/voices": (CONTROL, BodyKind.OPAQUE),
    "/audio/voice_consents": (CONTROL, BodyKind.OPAQUE),
}
_VOICES = "/audio/voices"
_FORM = "multipart/form-data"
# A voice or consent is stored, not used.
_STORED = (_VOICES, "/audio/voice_consents")
_FLAGS = frozenset({"stream"})
# Where Groq and Mistral find a recording that is not in the form.
_REFERENCES = ("url", "file_url", "file_id")


class OpenAIAudio(OpenAIFormat):
    """The wire format `openai_audio`."""

    name = "openai_audio"

    def claim(self, line: RequestLine) -> Call | None:
        """Transcriptions, translations and speech are POST; voices are stored."""
        is_stored = line.path.startswith(tuple(f"{path}/" for path in _STORED)) or line.path in _STORED
        if is_stored and line.method in ("GET", "DELETE"):
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        if line.method != "POST":
            return None
        operation, body = _POSTS.get(line.path, (CONTROL if is_stored else "", BodyKind.OPAQUE))
        if line.path == _VOICES and media_type(line.headers) != _FORM:
            # From a sample a voice is stored; from a description it is generated.
            operation, body = _SPEECH, BodyKind.JSON
        return Call(api=self.name, operation=operation, body=body) if operation else None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a form or a body. Raises `RequestRefused` (400) naming the field that is wrong."""
        content = Content()
        is_voice = call.operation == _SPEECH and body.get("input") is None and body.get("prompt") is not None
        if is_voice:
            stream = _read_description(body, content)
        elif call.operation == _SPEECH:
            stream = _read_speech(body, content)
        else:
            body = typed(body, flags=_FLAGS, counts=frozenset())
            stream = _read_recording(body, content)
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            # The API has one model for voices, and versions of it.
            model=call.model or fields.name(body, "model") if is_voice else fields.model(body, call),
            models=fields.models(fields.models_of(body, call)),
            stream=stream,
            message_count=1,
            modalities=tuple(sorted(content.modalities)),
        )
        return ParsedRequest(request=request, prompt=content.prompt())

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return openai_audio_answers.answer_reader(headers)


def _read_description(body: JSON, content: Content) -> bool:
    content.text(fields.string(body, "prompt"))
    content.text(fields.string(body, "script_hint"))
    content.end_message("user")
    return False


def _read_speech(body: JSON, content: Content) -> bool:
    if body.get("input") is None:
        raise fields.not_this_call("/input is required: this path takes text to speak")
    content.text(fields.string(body, "input"))
    content.text(fields.string(body, "instructions"))
    content.end_message("user")
    return fields.string(body, "stream_format") == "sse"


def _read_recording(form: JSON, content: Content) -> bool:
    recording = form.get("file")
    referred = [key for key in _REFERENCES if fields.string(form, key)]
    if len(referred) + isinstance(recording, FilePart) > 1:
        raise fields.wrong(f"/{referred[-1]}", "must not be given beside another recording")
    if isinstance(recording, FilePart):
        content.other("audio", len(recording.content))
    elif referred:
        content.other("audio")
    else:
        raise fields.not_this_call("/file is required: this path takes a recording")
    content.text(fields.string(form, "prompt"))
    for word in _texts(form, "keywords[]"):
        content.text(word)
    # Samples of voices, as data URLs.
    for sample in _texts(form, "known_speaker_references[]"):
        content.other("audio", len(sample) * 3 // 4)
    content.end_message("user")
    return fields.flag(form, "stream")


def _texts(form: JSON, key: str) -> list[str]:
    values = form.get(key)
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
