"""AWS event streams as they arrive: binary frames with two checksums, as Bedrock and SageMaker answer.

Floor 1, pure. A frame is its length, the length of its headers, their CRC-32, headers, payload, and
the CRC-32 of everything before. Source: Smithy specification, "Event stream encoding".
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from extproc.formats.sse import SSEEvent

CONTENT_TYPE = "application/vnd.amazon.eventstream"

# The specification's own bounds.
MAX_FRAME_BYTES = 24 * 1024 * 1024
MAX_HEADERS_BYTES = 128 * 1024

EXCEPTION = "exception"

_PRELUDE = struct.Struct("!III")
_CHECKSUM = struct.Struct("!I")
_OVERHEAD_BYTES = _PRELUDE.size + _CHECKSUM.size

HeaderValue = bool | int | str | bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """One message; timestamps are milliseconds of Unix time, UUIDs their 16 bytes."""

    headers: Mapping[str, HeaderValue]
    payload: bytes


class _IllegibleError(Exception):
    """Bytes that no frame has; it never leaves this module."""


class FrameParser:
    """Turns chunks of any size into frames; never raises.

    A wrong checksum, an impossible length or illegible headers stop it: `is_broken` is then true,
    and everything after is ignored, for nothing says where the next frame would begin.
    """

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self.is_broken = False
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._length = 0  # of the frame at the buffer's beginning; 0: its prelude is not here yet

    @property
    def held_bytes(self) -> int:
        """What waits for the end of its frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        if self.is_broken:
            return []
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        try:
            while (frame := self._next(start)) is not None:
                frames.append(frame)
                start += self._length
                self._length = 0
        except _IllegibleError:
            self.is_broken = True
            self._buffer.clear()
        del self._buffer[:start]
        return frames

    def _next(self, start: int) -> Frame | None:
        here = len(self._buffer) - start
        if not self._length and here >= _PRELUDE.size:
            self._length = _frame_length(self._buffer[start : start + _PRELUDE.size], self._max_frame_bytes)
        if not self._length or here < self._length:
            return None
        return _frame(bytes(self._buffer[start : start + self._length]))


def _frame_length(prelude: bytes | bytearray, max_frame_bytes: int) -> int:
    length, headers_length, checksum = _PRELUDE.unpack(prelude)
    if zlib.crc32(prelude[:-4]) != checksum or headers_length > MAX_HEADERS_BYTES:
        raise _IllegibleError
    if not _OVERHEAD_BYTES + headers_length <= length <= max_frame_bytes:
        raise _IllegibleError
    return int(length)


def _frame(data: bytes) -> Frame:
    end = len(data) - _CHECKSUM.size
    if zlib.crc32(memoryview(data)[:end]) != _CHECKSUM.unpack_from(data, end)[0]:
        raise _IllegibleError
    headers_end = _PRELUDE.size + _PRELUDE.unpack_from(data)[1]
    return Frame(_headers(data[_PRELUDE.size : headers_end]), data[headers_end:end])


def _headers(data: bytes) -> Mapping[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name = _exactly(data, at + 1, name_end).decode()
            read = _VALUE_READERS[data[name_end]]
            if name in headers:
                raise _IllegibleError
            headers[name], at = read(data, name_end + 1)
    except (IndexError, UnicodeDecodeError):
        raise _IllegibleError from None
    return headers


def _exactly(data: bytes, start: int, end: int) -> bytes:
    if end > len(data):
        raise IndexError(end)
    return data[start:end]


_ValueReader = Callable[[bytes, int], tuple[HeaderValue, int]]


def _constant(*, value: bool) -> _ValueReader:
    return lambda _data, at: (value, at)


def _integer(size: int) -> _ValueReader:
    def read(data: bytes, at: int) -> tuple[HeaderValue, int]:
        return int.from_bytes(_exactly(data, at, at + size), "big", signed=True), at + size

    return read


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    start = at + 2
    end = start + int.from_bytes(_exactly(data, at, start), "big")
    return _exactly(data, start, end), end


def _text(data: bytes, at: int) -> tuple[str, int]:
    value, end = _bytes(data, at)
    return value.decode(), end


def _uuid(data: bytes, at: int) -> tuple[bytes, int]:
    return _exactly(data, at, at + 16), at + 16


# By the number of the type.
_VALUE_READERS: tuple[_ValueReader, ...] = (
    _constant(value=True),
    _constant(value=False),
    _integer(1),
    _integer(2),
    _integer(4),
    _integer(8),
    _bytes,
    _text,
    _integer(8),
    _uuid,
)


class EventStreamParser:
    """Event streams in the words of `SSEParser`: an event has the frame's type and payload.

    Exceptions and errors are events named `EXCEPTION` whose data is `{"type": <the exception's>}`:
    what else they say may quote the prompt.
    """

    def __init__(self) -> None:
        self._frames = FrameParser()

    @property
    def held_bytes(self) -> int:
        """What waits for the end of its frame."""
        return self._frames.held_bytes

    @property
    def is_incomplete(self) -> bool:
        """Whether a damaged frame stopped it."""
        return self._frames.is_broken

    def feed(self, data: bytes) -> list[SSEEvent]:
        """The events that `data` completes."""
        return [_event(frame) for frame in self._frames.feed(data)]

    def finish(self) -> list[SSEEvent]:
        """Nothing: a frame that its length does not complete is none."""
        return []


# Where each kind of message that is no event names what went wrong.
_FAULTS: Mapping[object, str] = MappingProxyType({"exception": ":exception-type", "error": ":error-code"})


def _event(frame: Frame) -> SSEEvent:
    fault = _FAULTS.get(frame.headers.get(":message-type"))
    if fault:
        return SSEEvent(json.dumps({"type": str(frame.headers.get(fault, ""))}).encode(), EXCEPTION)
    return SSEEvent(frame.payload, str(frame.headers.get(":event-type", "")))
