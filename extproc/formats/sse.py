"""Server-sent events as they arrive, by the WHATWG rules: a parser, and a filter that keeps bytes.

Floor 1, pure. Both cut the stream into blocks, each ended by a blank line; only complete blocks
leave. Lines end with CR, LF or CRLF, which never occur inside a UTF-8 sequence, so bytes suffice.
Source: HTML Living Standard, section 9.2.6.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

# The largest events are generated images in base64.
MAX_EVENT_BYTES = 16 * 1024 * 1024
# What a filter holds back: chunks of usage have about 1 kB.
MAX_HELD_BYTES = 64 * 1024

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
# Atomic, so that CRLF is never taken for two line ends.
_BLOCK_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
# Where that may begin; the engine finds it twice as fast in the megabytes of an image.
_TWO_ENDS = re.compile(rb"[\r\n][\r\n]")
_LONGEST_BLOCK_END = 4
_NO_OBJECT = re.compile(rb"data: ?[^ {\r\n]")


@dataclass(frozen=True, slots=True)
class SSEEvent:
    """One dispatched event; `data` joins its data lines by LF, undecoded."""

    data: bytes
    event: str = "message"


class _Kind(Enum):
    BLOCK = "one whole block of a bearable size"
    TAIL = "the unfinished block that the stream ended in"
    PART = "some of a block that is too large to hold"


@dataclass(frozen=True, slots=True)
class _Piece:
    raw: bytes
    kind: _Kind
    is_first: bool

    def event(self) -> SSEEvent | None:
        if self.kind is _Kind.PART:
            return None
        return parse_block(self.raw.removeprefix(_BOM) if self.is_first else self.raw)


class _Blocks:
    """Cuts a stream into pieces; every byte comes out exactly once, in order.

    A block whose beginning matches `let_go` is not held until its end.
    """

    def __init__(self, max_event_bytes: int, let_go: re.Pattern[bytes] | None = None) -> None:
        self._max_event_bytes = max_event_bytes
        self._let_go = let_go
        self._buffer = bytearray()
        self._searched = 0
        self._left = 0  # how much of the buffer is out already, and kept only to find the block's end
        self._is_first = True
        self._has_cr = False  # without any, a block ends with LF LF, which is found at once
        self._is_oversized = False  # the current block's beginning has already left

    @property
    def held_bytes(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes, *, is_last: bool = False) -> list[_Piece]:
        self._buffer += data
        self._has_cr = self._has_cr or b"\r" in data
        pieces: list[_Piece] = []
        start = 0
        while (end := self._block_end(start, is_last=is_last)) is not None:
            is_held = not self._is_oversized and end - start <= self._max_event_bytes
            pieces.append(self._piece(start, end, _Kind.BLOCK if is_held else _Kind.PART))
            self._is_first = self._is_oversized = False
            start = self._searched = end
        self._cut(start)
        tail_bytes = min(len(self._buffer), _LONGEST_BLOCK_END - 1)  # may be the beginning of its end
        if is_last:
            pieces.append(self._piece(0, len(self._buffer), _Kind.PART if self._is_oversized else _Kind.TAIL))
            self._cut(len(self._buffer))
        elif self._is_oversized or self._is_not_held():
            self._is_oversized = True
            pieces.append(self._piece(0, len(self._buffer), _Kind.PART))
            self._left = len(self._buffer)
            self._cut(len(self._buffer) - tail_bytes)
        self._searched = max(0, len(self._buffer) - tail_bytes)
        return pieces

    def _is_not_held(self) -> bool:
        is_of_no_interest = self._let_go is not None and self._let_go.match(self._buffer) is not None
        return is_of_no_interest or len(self._buffer) > self._max_event_bytes

    def _cut(self, end: int) -> None:
        del self._buffer[:end]
        self._left = max(0, self._left - end)

    def _piece(self, start: int, end: int, kind: _Kind) -> _Piece:
        with memoryview(self._buffer) as buffer:
            return _Piece(bytes(buffer[max(start, self._left) : end]), kind, self._is_first)

    def _block_end(self, start: int, *, is_last: bool) -> int | None:
        if not self._is_oversized:
            content = start
            if self._is_first and self._buffer.startswith(_BOM, start):
                content += len(_BOM)
            if blank := _LINE_END.match(self._buffer, content):
                return self._settled(blank.end(), is_last=is_last)
        found = self._two_ends(max(start, self._searched))
        return None if found is None else self._settled(found, is_last=is_last)

    def _two_ends(self, at: int) -> int | None:
        if not self._has_cr:
            found = self._buffer.find(b"\n\n", at)
            return None if found < 0 else found + 2
        if self._buffer.find(b"\n", at) < 0 and self._buffer.find(b"\r", at) < 0:
            return None
        while pair := _TWO_ENDS.search(self._buffer, at):
            if block_end := _BLOCK_END.match(self._buffer, pair.start()):
                return block_end.end()
            at = pair.start() + 1
        return None

    def _settled(self, end: int, *, is_last: bool) -> int | None:
        """A CR at the very end may be half of a CRLF: then the block has not ended yet."""
        is_open = end == len(self._buffer) and self._buffer.endswith(b"\r") and not is_last
        return None if is_open else end


def parse_block(block: bytes) -> SSEEvent | None:
    """The event of one block, or None for comments, blank lines and blocks without data."""
    data: list[bytes] = []
    event = ""
    lines = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block
    for line in lines.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            event = value.removeprefix(b" ").decode(errors="replace")
    return SSEEvent(b"\n".join(data), event or "message") if data else None


class SSEParser:
    """Turns chunks of any size into events; an event above the bound is left out, never an error."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.is_incomplete = False  # an event was left out
        self._blocks = _Blocks(max_event_bytes)

    def feed(self, data: bytes) -> list[SSEEvent]:
        """The events that `data` completes."""
        return self._events(self._blocks.feed(data))

    @property
    def held_bytes(self) -> int:
        """What waits for the end of its event."""
        return self._blocks.held_bytes

    def finish(self) -> list[SSEEvent]:
        """The events that only the end of the stream completes.

        WHATWG drops a last event without its blank line. A browser must; whoever looks for usage
        in a cut answer wants it.
        """
        return self._events(self._blocks.feed(b"", is_last=True))

    def _events(self, pieces: list[_Piece]) -> list[SSEEvent]:
        self.is_incomplete |= any(piece.kind is _Kind.PART for piece in pieces)
        return [event for piece in pieces if (event := piece.event())]


class EventFilter:
    """Passes a stream through byte for byte, without the whole events whose data `drop` accepts.

    An event is held until its end arrives or `flush`; above the bound it leaves as it comes. With
    `objects_only`, `drop` accepts JSON objects alone, and an event that is none is not held.
    """

    def __init__(
        self,
        drop: Callable[[bytes], bool],
        *,
        max_event_bytes: int = MAX_HELD_BYTES,
        objects_only: bool = False,
    ) -> None:
        self._drop = drop
        self._blocks = _Blocks(max_event_bytes, _NO_OBJECT if objects_only else None)

    def feed(self, chunk: bytes) -> bytes:
        """What may leave now."""
        return b"".join(piece.raw for piece in self._blocks.feed(chunk) if not self._is_dropped(piece))

    def flush(self) -> bytes:
        """What was held; the stream is over."""
        pieces = self._blocks.feed(b"", is_last=True)
        return b"".join(piece.raw for piece in pieces if not self._is_dropped(piece))

    def _is_dropped(self, piece: _Piece) -> bool:
        event = piece.event() if piece.kind is _Kind.BLOCK else None
        return event is not None and self._drop(event.data)
