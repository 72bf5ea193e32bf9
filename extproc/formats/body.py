"""Content encodings of bodies: one bounded step for requests, a bounded stream for answers.

Floor 1, pure. Requests are refused rather than guessed at; answers are read as far as they go.
JSON is `strict_json`'s business.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from extproc.decision import Reason
from extproc.errors import RequestRefused

ACCEPTED_ENCODINGS = ("identity", "gzip", "deflate")

# Real AI bodies compress about 3:1 to 20:1; deflate's own ceiling is about 1000:1.
MAX_RATIO = 100
# Below this a high ratio costs nothing and short repetitive prompts do reach it.
RATIO_FREE_BYTES = 256 * 1024
# The largest answers are generated images in base64, below 32 MiB.
MAX_ANSWER_BYTES = 64 * 1024 * 1024

# What clients send JSON as by default or by habit.
_MISTAKEN_FOR_JSON = frozenset(
    {"", "text/plain", "text/json", "application/x-www-form-urlencoded", "application/octet-stream"}
)

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS
_WINDOW_BITS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


def decode_body(data: bytes, headers: Mapping[str, str], *, max_body_bytes: int) -> bytes:
    """The body without its content encoding, never inflated beyond `max_body_bytes`.

    Raises `RequestRefused`: 415 for an encoding or charset that is not read, 413 beyond the cap
    or the ratio, 400 for corrupt, truncated or trailing data.
    """
    _check_content_type(headers.get("content-type", ""))
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        if len(data) > max_body_bytes:
            raise _too_large(f"has {len(data)} bytes; at most {max_body_bytes} are accepted")
        return data
    if encoding not in _WINDOW_BITS:
        raise _unsupported("content-encoding", ", ".join(ACCEPTED_ENCODINGS) + ", one at a time")
    if not data:
        return data
    return _inflate(data, _WINDOW_BITS[encoding], max_body_bytes)


def _inflate(data: bytes, window_bits: int, max_body_bytes: int) -> bytes:
    ratio_limit = max(RATIO_FREE_BYTES, MAX_RATIO * len(data))
    limit = min(max_body_bytes, ratio_limit)
    inflater = zlib.decompressobj(window_bits)
    try:
        decoded = inflater.decompress(data, limit + 1)
    except zlib.error:
        raise _malformed("does not decode as its content-encoding says") from None
    if len(decoded) > limit:
        if limit < max_body_bytes:
            raise _too_large(f"inflates more than {MAX_RATIO} times")
        raise _too_large(f"decodes to more than the accepted {max_body_bytes} bytes")
    if not inflater.eof:
        raise _malformed("ends before its content-encoding does")
    if inflater.unused_data:
        raise _malformed("goes on after its content-encoding ended")
    return decoded


def _check_content_type(content_type: str) -> None:
    """One media type, in UTF-8: an upstream that obeys another charset would read another body."""
    if "," in content_type:
        raise _unsupported("content-type", "one media type")
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            raise _unsupported("charset of content-type", "utf-8")


def json_content_type(headers: Mapping[str, str]) -> str:
    """What a JSON body must go upstream as; empty where its content type says so already.

    curl sends JSON as a form unless told otherwise, and many servers read it all the same. The
    provider must read it as we do. Raises `RequestRefused` (415) for a type that can hold no JSON.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        return ""
    if media_type not in _MISTAKEN_FOR_JSON:
        raise _unsupported("content-type", "application/json")
    return "application/json"


def _unsupported(what: str, accepted: str) -> RequestRefused:
    return RequestRefused(
        status=415,
        code=Reason.ENCODING_UNSUPPORTED,
        message=f"This {what} is not read here. Accepted: {accepted}.",
    )


def _too_large(what: str) -> RequestRefused:
    return RequestRefused(status=413, code=Reason.BODY_TOO_LARGE, message=f"The request body {what}.")


def _malformed(what: str) -> RequestRefused:
    return RequestRefused(status=400, code=Reason.BODY_MALFORMED, message=f"The request body {what}.")


class AnswerDecoder:
    """Decodes an answer's body as it arrives; never raises.

    Corrupt data, or more than `max_bytes` of output, stops it: `is_broken` is then true, and
    everything after is ignored.
    """

    def __init__(self, encoding: str, *, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self.is_broken = False
        self._encoding = encoding
        self._room_bytes = max_bytes
        self._head = b""
        self._inflater: zlib._Decompress | None = None

    def feed(self, data: bytes) -> bytes:
        """The bytes that `data` completes; empty once broken."""
        if self.is_broken or not data:
            return b""
        if self._encoding == "identity":
            return self._take(data)
        if self._inflater is None:
            self._head += data
            if len(self._head) < 2:  # noqa: PLR2004 - the two bytes of a zlib header
                return b""
            data, self._head = self._head, b""
            self._inflater = zlib.decompressobj(self._window_bits(data))
        try:
            return self._inflate(self._inflater, data)
        except zlib.error:
            self.is_broken = True
            return b""

    def _inflate(self, inflater: zlib._Decompress, data: bytes) -> bytes:
        decoded = [self._take(inflater.decompress(data, self._room_bytes + 1))]
        # RFC 1952 allows several gzip members in a row; they are one body.
        while inflater.eof and inflater.unused_data and not self.is_broken:
            if self._encoding != "gzip":
                self.is_broken = True
                break
            data, inflater = inflater.unused_data, zlib.decompressobj(_GZIP)
            self._inflater = inflater
            decoded.append(self._take(inflater.decompress(data, self._room_bytes + 1)))
        return b"".join(decoded)

    def _take(self, decoded: bytes) -> bytes:
        if len(decoded) > self._room_bytes:
            self.is_broken = True
            return decoded[: self._room_bytes]
        self._room_bytes -= len(decoded)
        return decoded

    def _window_bits(self, head: bytes) -> int:
        if self._encoding == "gzip":
            return _GZIP
        # RFC 9110 means zlib by "deflate", but some servers send it raw; a zlib header says
        # method 8 and is a multiple of 31 (RFC 1950, section 2.2).
        is_zlib = head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0  # noqa: PLR2004 - RFC 1950
        return _ZLIB if is_zlib else _RAW_DEFLATE


_DECODABLE = {"": "identity", "identity": "identity", "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}


def answer_decoder(content_encoding: str) -> AnswerDecoder | None:
    """A decoder for one answer, or None where its `content-encoding` is not read here."""
    encoding = _DECODABLE.get(content_encoding.strip().lower())
    return None if encoding is None else AnswerDecoder(encoding)
