"""Frames of Amazon's event stream. Source: the AWS SDKs' specification of vnd.amazon.eventstream."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_STRING = 7  # the type of a header's value
_OVERHEAD_BYTES = 16  # two lengths and two checksums


def frame(headers: Mapping[str, str], payload: Mapping[str, Any]) -> bytes:
    """One message with its checksums."""
    data = json.dumps(payload, separators=(",", ":")).encode()
    named = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack(">II", len(named) + len(data) + _OVERHEAD_BYTES, len(named))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + named + data
    return message + struct.pack(">I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    said, text = name.encode(), value.encode()
    return bytes([len(said)]) + said + bytes([_STRING]) + struct.pack(">H", len(text)) + text


def event(kind: str, payload: Mapping[str, Any]) -> bytes:
    """A message of that event type."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, payload)


def exception(kind: str, message: str) -> bytes:
    """A message that ends the stream in an error."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, {"message": message})
