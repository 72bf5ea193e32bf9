"""Content codings undone step by step, never far beyond a limit: gzip, deflate, br and zstd.

Floor 1, pure. Sources: RFC 1950-1952, RFC 7932 (brotli), RFC 8878 and 9659 (zstd).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import brotli  # type: ignore[import-untyped]  # its wheel has no types
import zstandard

# What corrupt data raises, whatever the coding.
CORRUPT = (zlib.error, brotli.error, zstandard.ZstdError)

GZIP = 16 + zlib.MAX_WBITS
ZLIB = zlib.MAX_WBITS
RAW_DEFLATE = -zlib.MAX_WBITS

# RFC 9659: more must not be used for content.
_MAX_WINDOW_BYTES = 8 * 1024 * 1024
# The most that one block of zstd becomes, and the least that it comes in.
_BLOCK_BYTES = 128 * 1024
_LEAST_BLOCK_BYTES = 4
_LEAST_STEP_BYTES = 64
# What brotli makes in one call; its buffers grow to a multiple of what is asked for.
_BROTLI_STEP_BYTES = 256 * 1024


class Inflater(Protocol):
    """One compressed stream, decoded as it arrives."""

    @property
    def is_over(self) -> bool:
        """Whether the stream ended, by its own account."""

    @property
    def rest(self) -> bytes:
        """What came after its end; a coding that cannot tell raises one of `CORRUPT` instead."""

    def feed(self, data: bytes, limit_bytes: int) -> bytes:
        """What `data` decodes to; a little more than `limit_bytes`, of more than that.

        Raises one of `CORRUPT`. A result beyond the limit is the last: the stream is then given up.
        """


class _Zlib:
    """Gzip, zlib and raw deflate, which differ in their frame."""

    def __init__(self, window_bits: int) -> None:
        self._inflater = zlib.decompressobj(window_bits)

    @property
    def is_over(self) -> bool:
        return self._inflater.eof

    @property
    def rest(self) -> bytes:
        return self._inflater.unused_data

    def feed(self, data: bytes, limit_bytes: int) -> bytes:
        return self._inflater.decompress(data, limit_bytes + 1)


class _Brotli:
    rest = b""  # it raises

    def __init__(self) -> None:
        self._inflater = brotli.Decompressor()

    @property
    def is_over(self) -> bool:
        return bool(self._inflater.is_finished())

    def feed(self, data: bytes, limit_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            piece = self._inflater.process(data, output_buffer_limit=_BROTLI_STEP_BYTES)
            pieces.append(piece)
            size += len(piece)
            if size > limit_bytes or self._inflater.can_accept_more_data():
                return b"".join(pieces)
            data = b""


class _Zstd:
    """One frame; a frame that needs a dictionary or a larger window is corrupt."""

    def __init__(self) -> None:
        self._inflater = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
        self._unused = b""

    @property
    def is_over(self) -> bool:
        return self._inflater.eof

    @property
    def rest(self) -> bytes:
        return self._inflater.unused_data + self._unused

    def feed(self, data: bytes, limit_bytes: int) -> bytes:
        pieces: list[bytes] = []
        room, at = limit_bytes, 0
        while at < len(data) and room >= 0 and not self._inflater.eof:
            # The library has no limit of its own, so each step is one that cannot inflate far.
            step = max(_LEAST_STEP_BYTES, room // _BLOCK_BYTES * _LEAST_BLOCK_BYTES)
            piece = self._inflater.decompress(data[at : at + step])
            pieces.append(piece)
            room -= len(piece)
            at += step
        self._unused += data[at:]
        return b"".join(pieces)


_INFLATERS: Mapping[str, Callable[[], Inflater]] = MappingProxyType(
    {
        "gzip": lambda: _Zlib(GZIP),
        "x-gzip": lambda: _Zlib(GZIP),
        "deflate": lambda: _Zlib(ZLIB),
        "br": _Brotli,
        "zstd": _Zstd,
    }
)

CODINGS = frozenset(_INFLATERS)


def inflater(coding: str) -> Inflater:
    """A decoder for one stream of one of `CODINGS`."""
    return _INFLATERS[coding]()


def deflate_inflater(data: bytes) -> Inflater:
    """A decoder for what servers call deflate, by its first two bytes.

    RFC 9110 means zlib by it, but some send it raw; a zlib header says method 8 and is a multiple
    of 31 (RFC 1950, section 2.2).
    """
    is_zlib = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0  # noqa: PLR2004 - RFC 1950
    return _Zlib(ZLIB if is_zlib else RAW_DEFLATE)
