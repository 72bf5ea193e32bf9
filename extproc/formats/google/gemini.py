"""The Gemini API: recognising a call; mounted at the root, version first.

Floor 1, pure. Bodies are `gemini_body`, answers `gemini_answers`, denials `dialect`. Sources:
the discovery document of generativelanguage.googleapis.com, google-genai `models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from extproc.decision import Denial
from extproc.formats.base import (
    CONTROL,
    JSON,
    AnswerReader,
    BodyKind,
    Call,
    OutputCeiling,
    ParsedRequest,
    Reply,
    RequestLine,
)
from extproc.formats.google import dialect as google_dialect
from extproc.formats.google import gemini_body
from extproc.formats.google import line as google_line
from extproc.formats.google.gemini_answers import GeminiAnswers, google_reader
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest

# What may be done with each collection without spending anything, and the body it takes.
_READ = {"GET": BodyKind.NONE}
_STORED = {"GET": BodyKind.NONE, "DELETE": BodyKind.NONE}
_CONTROL: Mapping[str, Mapping[str, BodyKind]] = MappingProxyType(
    {
        "models": _READ,
        "operations": _READ,
        "tunedModels": _STORED,
        "files": _STORED,
        "batches": _STORED,
        "fileSearchStores": _STORED,
        "cachedContents": {**_STORED, "PATCH": BodyKind.JSON},  # to keep one for longer
    }
)
# Where a file's bytes go; what they mean is said by the call that refers to them.
_UPLOADS = ("upload", "files")
_UPLOAD_METHODS = frozenset({"POST", "PUT"})
_MODEL_KINDS = frozenset({"models", "tunedModels"})
_PAIR, _TRIPLE = 2, 3


class GoogleFormat(Unasked):
    """What the Gemini API and Vertex AI have in common: bodies, answers and denials."""

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        return gemini_body.parse(body, call)

    def output_ceiling(self, _body: JSON, call: Call) -> OutputCeiling | None:
        """That of what the operation generates. Thoughts count as output, whatever their own budget is."""
        return gemini_body.CEILINGS.get(call.operation)

    def answer_reader(self, request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return google_reader(GeminiAnswers(request.operation), headers)

    def render_denial(self, denial: Denial, provider: str = "") -> Reply:
        """A Google error."""
        return google_dialect.render_denial(denial, provider)


class Gemini(GoogleFormat):
    """The wire format `gemini`."""

    name = "gemini"
    provider = "gcp.gemini"

    def claim(self, line: RequestLine) -> Call | None:
        """Custom methods of models generate; everything else is control, and needs a sign of Google.

        Raises `RequestRefused` (400) for parameters that change how the answer is written.
        """
        segments = line.segments
        if len(segments) < _PAIR or not line.path:
            return None
        if segments[0] == _UPLOADS[0]:
            return self._claim_upload(line)
        if segments[0] not in google_line.VERSIONS:
            return None
        is_call = line.method == "POST" and len(segments) == _TRIPLE and segments[1] in _MODEL_KINDS
        call = self._claim_method(line) if is_call else self._claim_control(line)
        if call and line.method == "POST":
            google_line.check_parameters(line)
        return call

    def _claim_method(self, line: RequestLine) -> Call | None:
        _, kind, segment = line.segments
        name, method = google_line.split_method(segment)
        model = gemini_body.model_name(f"{kind}/{name}")
        operation = google_line.operation_of(method, model)
        if not operation:
            return None
        return Call(api=self.name, operation=operation, model=model, stream=method == google_line.STREAMED)

    def _claim_control(self, line: RequestLine) -> Call | None:
        version, collection = line.segments[:_PAIR]
        # OpenAI's and Anthropic's APIs have collections of the same names below /v1.
        if version == "v1" and not line.provider and not _has_google_key(line):
            return None
        if line.method == "POST" and line.segments[1:] == (google_line.CACHE,):
            return Call(api=self.name, operation="generate_content")
        body = google_line.control_body(_CONTROL, line, collection)
        return None if body is None else Call(api=self.name, operation=CONTROL, body=body)

    def _claim_upload(self, line: RequestLine) -> Call | None:
        is_upload = line.segments[::2] == _UPLOADS and line.segments[1] in google_line.VERSIONS
        if not is_upload or line.method not in _UPLOAD_METHODS:
            return None
        return Call(api=self.name, operation=CONTROL, body=BodyKind.OPAQUE)


def _has_google_key(line: RequestLine) -> bool:
    return "x-goog-api-key" in line.headers or "key" in line.query
