"""Vertex AI: Google's own models, by project and location or, in express mode, without.

Floor 1, pure. Bodies and answers are those of the Gemini API. Models of other publishers are
`vertex_anthropic` and `vertex_openai`. Source: the discovery document of aiplatform.googleapis.com.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from extproc.formats.base import CONTROL, BodyKind, Call, RequestLine
from extproc.formats.google import gemini_body
from extproc.formats.google import line as google_line
from extproc.formats.google.gemini import GoogleFormat

_STORED = {"GET": BodyKind.NONE, "DELETE": BodyKind.NONE}
_CONTROL: Mapping[str, Mapping[str, BodyKind]] = MappingProxyType(
    {
        "operations": _STORED,
        "endpoints": {"GET": BodyKind.NONE},
        "models": {"GET": BodyKind.NONE},
        "publishers": {"GET": BodyKind.NONE},
        "batchPredictionJobs": _STORED,
        "cachedContents": {**_STORED, "PATCH": BodyKind.JSON},  # to keep one for longer
    }
)
_JOBS = "batchPredictionJobs"
_LOCATION_SEGMENTS = 4


def below_location(line: RequestLine) -> tuple[str, ...]:
    """What follows version, project and location; express mode has no project. Empty: not Vertex's."""
    segments = line.segments
    if len(segments) < 3 or segments[0] not in google_line.VERSIONS:  # noqa: PLR2004 - version, collection, id
        return ()
    if segments[1] == "publishers":
        return segments[1:]
    is_location = segments[1] == "projects" and segments[3:4] == ("locations",)
    return segments[1 + _LOCATION_SEGMENTS :] if is_location else ()


class Vertex(GoogleFormat):
    """The wire format `vertex`."""

    name = "vertex"
    provider = "gcp.vertex_ai"

    def claim(self, line: RequestLine) -> Call | None:
        """Custom methods of Google's models and of endpoints generate; jobs are batches.

        Raises `RequestRefused` (400) for parameters that change how the answer is written.
        """
        rest = below_location(line)
        if not rest or not line.path:
            return None
        call = self._claim_method(rest) if line.method == "POST" else None
        call = call or self._claim_control(line, rest)
        if call and line.method == "POST":
            google_line.check_parameters(line)
        return call

    def _claim_method(self, rest: tuple[str, ...]) -> Call | None:
        if rest == (_JOBS,):
            return Call(api=self.name, operation="batch")
        if rest == (google_line.CACHE,):
            return Call(api=self.name, operation="generate_content")
        is_model = rest[:-1] == ("publishers", "google", "models") or rest[:-1] == ("endpoints",)
        name, method = google_line.split_method(rest[-1])
        if not is_model or not name:
            return None
        model = gemini_body.model_name(f"{rest[-2]}/{name}")
        operation = google_line.operation_of(method, model)
        if not operation:
            return None
        return Call(api=self.name, operation=operation, model=model, stream=method == google_line.STREAMED)

    def _claim_control(self, line: RequestLine, rest: tuple[str, ...]) -> Call | None:
        body = google_line.control_body(_CONTROL, line, rest[0])
        return None if body is None else Call(api=self.name, operation=CONTROL, body=body)
