"""Newline-delimited JSON as it arrives: one object a line, each as large as an event may be.

Floor 1, pure. Ollama streams so, and Cohere's first API. A line ends with LF; a CR before it is
white space to JSON. Source: the ndjson specification, section 3; recorded answers.
"""

from __future__ import annotations

from extproc.formats.sse import MAX_EVENT_BYTES, SSEEvent

_WHITE_SPACE = b" \t\r"


class LineParser:
    """Turns chunks of any size into events, one an object; other lines, and larger ones, are left out."""

    def __init__(self, *, max_line_bytes: int = MAX_EVENT_BYTES) -> None:
        self.is_incomplete = False  # a line was too large to hold
        self._max_line_bytes = max_line_bytes
        self._held: list[bytes] = []  # the beginning of a line whose end has not come
        self._held_bytes = 0
        self._is_oversized = False

    @property
    def held_bytes(self) -> int:
        """What waits for the end of its line."""
        return self._held_bytes

    def feed(self, data: bytes) -> list[SSEEvent]:
        """The events that `data` completes."""
        *ended, rest = data.split(b"\n")
        events = [event for part in ended if (event := self._end_line(part))]
        self._hold(rest)
        return events

    def finish(self) -> list[SSEEvent]:
        """The event of a last line without its end, if it is a whole object."""
        event = self._end_line(b"")
        return [event] if event and event.data.endswith(b"}") else []

    def _end_line(self, part: bytes) -> SSEEvent | None:
        self._hold(part)
        line = b"".join(self._held).strip(_WHITE_SPACE)
        is_read = not self._is_oversized and line.startswith(b"{")
        self._held.clear()
        self._held_bytes, self._is_oversized = 0, False
        return SSEEvent(line) if is_read else None

    def _hold(self, part: bytes) -> None:
        self._held_bytes += len(part)
        if self._is_oversized or self._held_bytes > self._max_line_bytes:
            self._is_oversized = self.is_incomplete = True
            self._held_bytes = 0
            self._held.clear()
        elif part:
            self._held.append(part)
