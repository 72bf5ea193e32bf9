"""OpenAI Realtime: spoken conversations over sockets and calls, and the sessions they begin with.

Floor 1, pure. What a session spends passes outside of HTTP; only how it begins is seen here. Denials
are `dialect`. Source: openai-python `resources/realtime`, `types/realtime`; Azure's reference.
"""

from __future__ import annotations

from collections.abc import Mapping

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.base import CONTROL, JSON, AnswerReader, BodyKind, Call, ParsedRequest, RequestLine
from extproc.formats.body import media_type
from extproc.formats.content import Content
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.formats.openai.tools import Tools
from extproc.formats.plain_answers import Receipts
from extproc.formats.strict_json import parse_json
from extproc.model import AIRequest

_OPERATION = "realtime"
_ROOT = "realtime"
_SOCKETS = frozenset({"/realtime", "/realtime/translations"})
_SESSIONS = frozenset(
    {
        "/realtime/client_secrets",
        "/realtime/sessions",
        "/realtime/transcription_sessions",
        "/realtime/translations/client_secrets",
    }
)
_FORM = "multipart/form-data"

_SESSION_KEYS = frozenset(
    {
        *("type", "model", "instructions", "tools", "audio", "prompt", "input_audio_transcription"),
        *("max_output_tokens", "max_response_output_tokens", "temperature"),
    }
)
_AUDIO_KEYS = frozenset({"input"})
_INPUT_KEYS = frozenset({"transcription"})
_TRANSCRIPTION_KEYS = frozenset({"model", "prompt"})
_CEILINGS = ("max_output_tokens", "max_response_output_tokens")
_NO_CEILING = "inf"


class OpenAIRealtime(OpenAIFormat):
    """The wire format `openai_realtime`."""

    name = "openai_realtime"

    def claim(self, line: RequestLine) -> Call | None:
        """A socket is GET and names its model in the query; sessions and calls are POST."""
        if not line.path or line.segments[0] != _ROOT:
            return None
        if line.method == "GET" and line.path in _SOCKETS:
            return Call(api=self.name, operation=_OPERATION, model=_model(line.query), body=BodyKind.NONE)
        if line.method != "POST":
            return None
        if line.path in _SESSIONS:
            return Call(api=self.name, operation=_OPERATION)
        return self._claim_call(line)

    def _claim_call(self, line: RequestLine) -> Call | None:
        match line.segments:
            case (_, "calls"):
                if media_type(line.headers) != _FORM:
                    # A bare SDP names no session: its model is in a token that we cannot read.
                    raise _unread_call()
                return Call(api=self.name, operation=_OPERATION, body=BodyKind.FORM)
            case (_, "calls", _, "accept"):
                return Call(api=self.name, operation=_OPERATION)
            case (_, "calls", _, "hangup" | "refer" | "reject"):
                return Call(api=self.name, operation=CONTROL, body=BodyKind.OPAQUE)
        return None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a session. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        session = _Session()
        if call.body is BodyKind.FORM:
            text = fields.string(body, "session")
            if not text:
                raise fields.not_this_call("/session is required: this path takes a call with its session")
            session.read(parse_json(text.encode()), "/session")
        else:
            session.read(body, "")
            session.read(fields.mapping(body, "session"), "/session")
        models = fields.models([call.model, *session.models])
        if not models:
            raise fields.not_this_call("/session/model is required: a session is of one model")
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=models[0],
            models=models,
            tools=fields.tools(session.tools.names, "/session/tools"),
            modalities=tuple(sorted(session.content.modalities)),
            has_state=session.has_state or session.tools.has_state,
            max_output_tokens=session.max_output_tokens,
        )
        return ParsedRequest(request=request, prompt=session.content.prompt(tuple(session.tools.definitions)))

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer: what the session will cost is not in it."""
        return reader(Receipts(), headers)


class _Session:
    """Gathers what a session may do, wherever the body says so."""

    def __init__(self) -> None:
        self.content = Content()
        self.tools = Tools()
        self.models: list[str] = []
        self.has_state = False
        self.max_output_tokens: int | None = None

    def read(self, session: JSON, at: str) -> None:
        fields.check_case(session, _SESSION_KEYS, at)
        self.models.append(fields.name(session, "model", at))
        self.content.text(fields.string(session, "instructions", at))
        self.content.end_message("system")
        self.tools.read(session, at=at)
        self.models += self.tools.models
        # A stored template: its text, and what it asks for, are the provider's to know.
        self.has_state = self.has_state or session.get("prompt") is not None
        for key in _CEILINGS:
            if session.get(key) != _NO_CEILING and (ceiling := fields.count(session, key, at)):
                self.max_output_tokens = max(ceiling, self.max_output_tokens or 0)
        self._read_transcription(session, "input_audio_transcription", at)
        audio = fields.mapping(session, "audio", at)
        fields.check_case(audio, _AUDIO_KEYS, f"{at}/audio")
        heard = fields.mapping(audio, "input", f"{at}/audio")
        fields.check_case(heard, _INPUT_KEYS, f"{at}/audio/input")
        self._read_transcription(heard, "transcription", f"{at}/audio/input")

    def _read_transcription(self, holder: JSON, key: str, at: str) -> None:
        wanted = fields.mapping(holder, key, at)
        fields.check_case(wanted, _TRANSCRIPTION_KEYS, f"{at}/{key}")
        self.models.append(fields.name(wanted, "model", f"{at}/{key}"))
        self.content.text(fields.string(wanted, "prompt", f"{at}/{key}"))


def _model(query: Mapping[str, str]) -> str:
    """The model of a socket; Azure calls it the deployment."""
    model, deployment = fields.name(query, "model"), fields.name(query, "deployment")
    if model and deployment and model != deployment:
        raise fields.refused_parameter("deployment")
    # A transcription learns its model from its first message; a call that is listened to has one.
    if model or deployment or query.get("intent") == "transcription" or query.get("call_id"):
        return model or deployment
    raise fields.not_this_call("The query parameter model is required: a session is of one model")


def _unread_call() -> RequestRefused:
    message = f"This content-type is not read here. Accepted: {_FORM} with the fields sdp and session."
    return RequestRefused(status=415, code=Reason.ENCODING_UNSUPPORTED, message=message)
