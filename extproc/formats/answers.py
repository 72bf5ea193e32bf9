"""Reading an answer's body, whole or as events, whatever its dialect; a `Tally` knows the dialect.

Floor 1, pure. Nothing here raises on what an upstream sends: what is not understood is not seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from extproc.formats.aws.event_stream import CONTENT_TYPE as EVENT_STREAM
from extproc.formats.aws.event_stream import EventStreamParser
from extproc.formats.base import AnswerReader
from extproc.formats.body import MAX_ANSWER_BYTES, media_type
from extproc.formats.ndjson import LineParser
from extproc.formats.sse import SSEEvent, SSEParser
from extproc.model import Observation, Usage

# Far above any output ceiling; only a runaway upstream reaches it.
MAX_TEXT_CHARS = 16 * 1024 * 1024

# Ten times the largest context window. A count above it is an upstream's mistake, and would be a debt
# that no limit ever gets rid of.
MAX_TOKENS = 100_000_000

JSON = Mapping[str, Any]
_NONE: JSON = {}
_WORD = re.compile(r"[\x21-\x7e]{1,128}")
_COUNT = re.compile(r"[0-9]{1,9}")


@dataclass(slots=True)
class Tally:
    """What was seen of an answer so far; text is kept apart by where it belongs."""

    usage: Usage | None = None
    finished: bool = False
    is_legible: bool = False
    is_incomplete: bool = False
    error: str = ""
    model: str = ""
    response_id: str = ""
    finish_reasons: dict[int, str] = field(default_factory=dict)  # "": seen, not stopped
    _texts: dict[object, list[str]] = field(default_factory=dict)
    _text_chars: int = 0

    def say(self, where: object, text: Any) -> None:
        """Add generated text to the stretch it belongs to; anything but text is ignored."""
        if not isinstance(text, str) or not text:
            return
        if self._text_chars >= MAX_TEXT_CHARS:
            self.is_incomplete = True
            return
        self._text_chars += len(text)
        self._texts.setdefault(where, []).append(text)

    def name(self, *, model: Any = None, response_id: Any = None) -> None:
        """Note who answered; the last that says so wins."""
        self.model = word(model) or self.model
        self.response_id = word(response_id) or self.response_id

    def fail(self, error: Any) -> None:
        """Note an error object of the body; only its type is kept, its text may quote the prompt."""
        said = as_object(error)
        self.error = self.error or word(said.get("type")) or word(said.get("code")) or "error"

    def observation(self) -> Observation:
        """The tally so far as a value."""
        return Observation(
            usage=self.usage,
            finished=self.finished,
            is_legible=self.is_legible,
            is_incomplete=self.is_incomplete,
            error=self.error,
            model=self.model,
            response_id=self.response_id,
            finish_reasons=tuple(reason for _, reason in sorted(self.finish_reasons.items()) if reason),
            output_text=_encodable("\n".join("".join(texts) for texts in self._texts.values())),
        )


def _encodable(text: str) -> str:
    """The text with surrogate halves joined, which deltas may split, or replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Dialect(Protocol):
    """How one wire format's answers change a tally."""

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole JSON answer."""

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one event of a stream."""


class JSONAnswer:
    """Reads a JSON answer once it is whole; a body above the bound is not read.

    A list is several answers, as some servers write them even where there is one.
    """

    def __init__(self, dialect: Dialect, *, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._dialect = dialect
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._chunks: list[bytes] = []
        self._is_over = False
        self._tally = Tally()

    def feed(self, data: bytes) -> None:
        """Take the next bytes; ignored after `finish`."""
        if self._is_over:
            return
        if self._held_bytes + len(data) > self._max_bytes:
            self._is_over = True
            self._let_go()
        else:
            self._held_bytes += len(data)
            self._chunks.append(data)

    def finish(self) -> None:
        """Read what came. Idempotent."""
        if self._is_over:
            return
        self._is_over = True
        data = b"".join(self._chunks)
        self._let_go()
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            return
        self._tally.finished = self._tally.is_legible = True
        for each in body if isinstance(body, list) else [body]:
            self._dialect.read_whole(as_object(each), self._tally)

    def observation(self) -> Observation:
        """What was seen; everything or nothing."""
        return self._tally.observation()

    def pending_bytes(self, *, is_last: bool) -> int:
        """Everything, and only at the end."""
        return self._held_bytes if is_last else 0

    def _let_go(self) -> None:
        self._chunks.clear()
        self._held_bytes = 0


class EventParser(Protocol):
    """Cuts a stream into events, whatever it is framed in."""

    @property
    def held_bytes(self) -> int:
        """What waits for the end of its event."""

    @property
    def is_incomplete(self) -> bool:
        """Whether some of the stream could not be read: an event was damaged, or too large to hold."""

    def feed(self, data: bytes) -> list[SSEEvent]:
        """The events that `data` completes."""

    def finish(self) -> list[SSEEvent]:
        """The events that only the end of the stream completes."""


class EventAnswer:
    """Reads a streamed answer event by event; server-sent events unless `parser` reads others."""

    def __init__(self, dialect: Dialect, parser: EventParser | None = None) -> None:
        self._dialect = dialect
        self._parser: EventParser = parser or SSEParser()
        self._is_over = False
        self._tally = Tally()

    def feed(self, data: bytes) -> None:
        """Take the next bytes; ignored after `finish`."""
        if not self._is_over:
            self._read(self._parser.feed(data))

    def finish(self) -> None:
        """Read what only the end completes. Idempotent."""
        if not self._is_over:
            self._is_over = True
            self._read(self._parser.finish())

    def observation(self) -> Observation:
        """What was seen so far."""
        return self._tally.observation()

    def pending_bytes(self, *, is_last: bool) -> int:  # noqa: ARG002  any chunk may complete the event
        """The beginning of an event whose end has not come."""
        return self._parser.held_bytes

    def _read(self, events: list[SSEEvent]) -> None:
        for event in events:
            self._tally.is_legible = True
            self._dialect.read_event(event, self._tally)
        self._tally.is_incomplete |= self._parser.is_incomplete


def _line_answer(dialect: Dialect) -> AnswerReader:
    return EventAnswer(dialect, LineParser())


_READERS: Mapping[str, Callable[[Dialect], AnswerReader]] = MappingProxyType(
    {
        "application/x-ndjson": _line_answer,
        "application/ndjson": _line_answer,
        "application/jsonl": _line_answer,
        "application/stream+json": _line_answer,
        "text/event-stream": EventAnswer,
        EVENT_STREAM: lambda dialect: EventAnswer(dialect, EventStreamParser()),
    }
)


def reader(dialect: Dialect, headers: Mapping[str, str]) -> AnswerReader:
    """The reader for an answer by its content type; whatever is no stream is read as one JSON body."""
    return _READERS.get(media_type(headers), JSONAnswer)(dialect)


def event_object(data: bytes) -> JSON:
    """The object of an event's data, empty where it is none."""
    try:
        return as_object(json.loads(data))
    except (ValueError, RecursionError):
        return _NONE


def as_object(value: Any) -> JSON:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else _NONE


def as_objects(value: Any) -> list[JSON]:
    """The objects of a list, empty where it is none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def as_text(value: Any) -> str:
    """What a model wrote as JSON, near enough: without needless space; empty where it nests too deep."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else ""
    except RecursionError:
        return ""


def place(value: Any, otherwise: int = 0) -> int:
    """A position in a list, as far as it is one."""
    return value if type(value) is int else otherwise


def tokens(value: Any) -> int | None:
    """A token count; None for whatever is no whole number from 0 to `MAX_TOKENS`. An explicit 0 is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # NaN fails every comparison, so it is refused before int() would raise on it.
    return int(value) if 0 <= value <= MAX_TOKENS and value == int(value) else None


def header_count(headers: Mapping[str, str], name: str) -> int | None:
    """A token count that a header tells; None where it does not."""
    value = headers.get(name, "")
    return tokens(int(value)) if _COUNT.fullmatch(value) else None


def word(value: Any) -> str:
    """A provider's identifier if it is one: visible ASCII, at most 128 characters; else empty."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""
