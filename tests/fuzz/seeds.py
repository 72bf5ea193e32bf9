"""What a fuzzer begins with, so that it need not find every syntax by itself."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import brotli  # type: ignore[import-untyped]  # its wheel has no types
import zstandard

from tests.fuzz.lines import LINES

FIXTURES = Path(__file__).parent.parent / "fixtures"
_FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"; filename*=utf-8\'\'f\r\n'
    b"Content-Type: audio/wav\r\n\r\nRIFF\r\n--b--\r\n"
)


def _deflated(window_bits: int) -> bytes:
    deflater = zlib.compressobj(wbits=window_bits)
    return deflater.compress(b"hello, hello, hello") + deflater.flush()


_SEEDS: dict[str, list[bytes]] = {
    "body_gzip": [_deflated(16 + zlib.MAX_WBITS)],
    "body_x-gzip": [_deflated(16 + zlib.MAX_WBITS)],
    "body_deflate": [_deflated(zlib.MAX_WBITS)],
    "body_br": [brotli.compress(b"hello, hello, hello")],
    "body_zstd": [zstandard.ZstdCompressor(write_checksum=True).compress(b"hello, hello, hello")],
    "multipart": [b"\n" + _FORM, b'multipart/form-data; boundary="b"\n' + _FORM],
}


def seeds(target: str) -> Iterator[bytes]:
    """Beginnings for a target, by its name."""
    yield from _SEEDS.get(target, [])
    if target == "strict_json":
        yield from (path.read_bytes() for path in sorted(FIXTURES.rglob("*.json")))
    elif target == "sse":
        yield from (path.read_bytes() for path in sorted(FIXTURES.rglob("*.sse")))
    elif target in ("requests", "classify", "answers"):
        yield from (bytes([number, 0, 0, 0]) for number in range(len(LINES)))
