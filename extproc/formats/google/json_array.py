"""Answers that are one JSON array of events, which Google streams where no `alt=sse` was asked for.

Floor 1, pure. An array may be cut anywhere: its whole elements count. A body that is no array is read
as one JSON object. Source: recorded answers, RFC 8259.
"""

from __future__ import annotations

import re

from extproc.formats.answers import Dialect, JSONAnswer, Tally
from extproc.formats.sse import MAX_EVENT_BYTES, SSEEvent
from extproc.model import Observation

_SPACE = b" \t\r\n"
_QUOTE_OR_BRACKET = re.compile(rb'["{}\[\]]')
# Possessive: the bytes of a string are looked at once, however many escapes it has.
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_OPENING = b"{["
_QUOTE = ord('"')


class ArrayParser:
    """Cuts a JSON array into its objects; one above the bound is left out, never an error."""

    def __init__(self, *, max_element_bytes: int = MAX_EVENT_BYTES) -> None:
        self.is_closed = False
        self.is_incomplete = False  # an element was left out
        self._max_element_bytes = max_element_bytes
        self._buffer = bytearray()
        self._at = 0  # how far the buffer was looked at
        self._start = 0  # where the current element begins, while `_depth` is above 0
        self._depth = 0
        self._is_in_string = False
        self._is_oversized = False

    @property
    def held_bytes(self) -> int:
        """What waits for the end of its element."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The elements that `data` completes; the opening bracket of the array is not part of it."""
        elements: list[bytes] = []
        if self.is_closed:
            return elements
        self._buffer += data
        goes_on = True
        while goes_on:
            goes_on = self._skip_string() if self._is_in_string else self._step(elements)
        self._cut()
        return elements

    def _skip_string(self) -> bool:
        match = _IN_STRING.match(self._buffer, self._at)
        self._at = match.end() if match else self._at
        if self._at < len(self._buffer) and self._buffer[self._at] == _QUOTE:
            self._at += 1
            self._is_in_string = False
            return True
        # The end of what came, or a backslash whose second half is still to come.
        return False

    def _step(self, elements: list[bytes]) -> bool:
        match = _QUOTE_OR_BRACKET.search(self._buffer, self._at)
        if match is None:
            self._at = len(self._buffer)
            return False
        self._at = match.end()
        found = match.group()
        if found == b'"':
            self._is_in_string = True
        elif found in _OPENING:
            if self._depth == 0:
                self._start = match.start()
            self._depth += 1
        elif self._depth == 0:
            self.is_closed = True
            return False
        else:
            self._depth -= 1
            if self._depth == 0:
                self._end(elements)
        return True

    def _end(self, elements: list[bytes]) -> None:
        if not self._is_oversized and self._at - self._start <= self._max_element_bytes:
            elements.append(bytes(self._buffer[self._start : self._at]))
        else:
            self.is_incomplete = True
        self._is_oversized = False

    def _cut(self) -> None:
        """Forget what is no part of an open element, or of one that became too large."""
        if self._depth and self._at - self._start > self._max_element_bytes:
            self._is_oversized = self.is_incomplete = True
        cut = self._start if self._depth and not self._is_oversized else self._at
        del self._buffer[:cut]
        self._at -= cut
        self._start = max(0, self._start - cut)


class ArrayAnswer:
    """Reads an answer that is an array of a dialect's events, or one object of it."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._parser: ArrayParser | None = None
        self._whole: JSONAnswer | None = None
        self._is_over = False
        self._tally = Tally()

    def feed(self, data: bytes) -> None:
        """Take the next bytes; ignored after `finish`."""
        if self._is_over:
            return
        if self._whole is None and self._parser is None:
            data = data.lstrip(_SPACE)
            if data.startswith(b"["):
                self._parser, data = ArrayParser(), data[1:]
            elif data:
                self._whole = JSONAnswer(self._dialect)
        if self._whole is not None:
            self._whole.feed(data)
        elif self._parser is not None:
            self._read(self._parser, data)

    def finish(self) -> None:
        """The body ended. Idempotent."""
        self._is_over = True
        if self._whole is not None:
            self._whole.finish()

    def observation(self) -> Observation:
        """What was seen so far; of an object everything or nothing."""
        return (self._whole or self._tally).observation()

    def pending_bytes(self, *, is_last: bool) -> int:
        """Of an array the beginning of its next element, of an object everything."""
        if self._whole is not None:
            return self._whole.pending_bytes(is_last=is_last)
        return self._parser.held_bytes if self._parser is not None else 0

    def _read(self, parser: ArrayParser, data: bytes) -> None:
        for element in parser.feed(data):
            self._tally.is_legible = True
            self._dialect.read_event(SSEEvent(element), self._tally)
        self._tally.is_incomplete |= parser.is_incomplete
        if parser.is_closed:
            self._tally.finished = self._tally.is_legible = True
