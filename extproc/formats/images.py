"""Width and height of images that a request carries, from the first bytes of the file.

Floor 1, pure. Nothing is ever fetched: an image behind a URL has no known size.
Sources: PNG section 11.2.2, GIF89a section 18, ITU T.81 section B.2.2, RFC 9649 (WebP).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

# Cameras put thumbnails and profiles before a JPEG's frame header; 48 KiB covers nearly all.
HEADER_BYTES = 48 * 1024
_HEADER_BASE64_CHARS = HEADER_BYTES // 3 * 4

Size = tuple[int, int]


def size_of_url(url: str) -> Size | None:
    """Width and height in pixels of a base64 `data:` URL; None for every other."""
    head, comma, data = url.partition(",")
    if not comma or not head.lower().startswith("data:") or not head.lower().endswith(";base64"):
        return None
    return size_of_base64(data)


def size_of_base64(data: str) -> Size | None:
    """Width and height in pixels of a base64 image; None where its header does not say."""
    head = data[:_HEADER_BASE64_CHARS]
    try:
        return size_of_bytes(base64.b64decode(head[: len(head) // 4 * 4]))
    except (binascii.Error, ValueError):
        return None


def size_of_bytes(data: bytes) -> Size | None:
    """Width and height in pixels from a file's beginning; None for other or cut formats."""
    for magic, read in _READERS:
        if data.startswith(magic):
            try:
                width, height = read(data)
            except (IndexError, ValueError):
                return None
            return (width, height) if width > 0 and height > 0 else None
    return None


def _big(data: bytes, start: int, length: int) -> int:
    return int.from_bytes(_exactly(data, start, length), "big")


def _little(data: bytes, start: int, length: int) -> int:
    return int.from_bytes(_exactly(data, start, length), "little")


def _exactly(data: bytes, start: int, length: int) -> bytes:
    if start + length > len(data):
        raise IndexError(start)
    return data[start : start + length]


def _png(data: bytes) -> Size:
    return _big(data, 16, 4), _big(data, 20, 4)


def _gif(data: bytes) -> Size:
    return _little(data, 6, 2), _little(data, 8, 2)


# Start-of-frame markers; C4, C8 and CC in that range are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: TEM and the restarts.
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_FILL = 0xFF


# Far more than cameras write; who writes thousands wants to keep us busy.
_MOST_SEGMENTS = 256


def _jpeg(data: bytes) -> Size:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if data[at] != _FILL:
            raise ValueError(at)
        marker = data[at + 1]
        if marker == _FILL:
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            return _big(data, at + 7, 2), _big(data, at + 5, 2)
        else:
            at += 2 + _big(data, at + 2, 2)
    raise ValueError(at)


def _webp(data: bytes) -> Size:
    if _exactly(data, 8, 4) != b"WEBP":
        raise ValueError(8)
    chunk = _exactly(data, 12, 4)
    if chunk == b"VP8X":
        return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
    if chunk == b"VP8L":
        bits = _little(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    raise ValueError(12)


_READERS: tuple[tuple[bytes, Callable[[bytes], Size]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"GIF8", _gif),
    (b"\xff\xd8", _jpeg),
    (b"RIFF", _webp),
)
