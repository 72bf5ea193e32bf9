"""Frames of AWS event streams, written as the specification says; the product only reads them."""

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from extproc.formats.aws.event_stream import HeaderValue

EVENT_STREAM_ANSWER = {"content-type": "application/vnd.amazon.eventstream"}

_NUMBERS = {2: ">b", 3: ">h", 4: ">i", 5: ">q", 8: ">q"}


def frame(headers: Mapping[str, tuple[int, HeaderValue]], payload: bytes) -> bytes:
    """One frame; each header is the number of its type and its value."""
    packed = b"".join(_header(name, kind, value) for name, (kind, value) in headers.items())
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _header(name: str, kind: int, value: HeaderValue) -> bytes:
    head = bytes([len(name.encode())]) + name.encode() + bytes([kind])
    if kind in _NUMBERS:
        return head + struct.pack(_NUMBERS[kind], value)
    raw = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b""
    return head + (struct.pack(">H", len(raw)) + raw if kind in (6, 7) else raw)


def event(name: str, payload: Any) -> bytes:
    """A frame of one JSON event."""
    kind = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame({key: (7, value) for key, value in kind.items()}, json.dumps(payload).encode())


def chunk(vendor_event: Any) -> bytes:
    """A frame as invoke streams wrap what the vendor says."""
    return event("chunk", {"bytes": base64.b64encode(json.dumps(vendor_event).encode()).decode()})


def exception(kind: str, message: str = "no") -> bytes:
    """A frame that ends a stream in an error."""
    headers = {":exception-type": (7, kind), ":message-type": (7, "exception")}
    return frame(headers, json.dumps({"message": message}).encode())
