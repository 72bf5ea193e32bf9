"""Content encodings of bodies: one bounded step for requests, a bounded stream for answers.

Floor 1, pure. Requests are refused rather than guessed at; answers are read as far as they go.
JSON is `strict_json`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.inflate import CODINGS, CORRUPT, Inflater, deflate_inflater, inflater

ACCEPTED_ENCODINGS = ("identity", "gzip", "deflate", "br", "zstd")

# Real AI bodies compress about 3:1 to 20:1; deflate's own ceiling is about 1000:1, that of br and zstd
# far above.
MAX_RATIO = 100
# Below this a high ratio costs nothing and short repetitive prompts do reach it.
RATIO_FREE_BYTES = 256 * 1024
# The largest answers are generated images in base64, below 32 MiB.
MAX_ANSWER_BYTES = 64 * 1024 * 1024

# What AWS's signatures begin with; they cover the body, and a content type that is there.
_SIGNATURE = "AWS4-"
# What clients send JSON as by default or by habit.
_MISTAKEN_FOR_JSON = frozenset(
    {"", "text/plain", "text/json", "application/x-www-form-urlencoded", "application/octet-stream"}
)


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
    if encoding not in CODINGS:
        raise _unsupported("content-encoding", ", ".join(ACCEPTED_ENCODINGS) + ", one at a time")
    if not data:
        return data
    return _inflate(data, inflater(encoding), max_body_bytes)


def _inflate(data: bytes, stream: Inflater, max_body_bytes: int) -> bytes:
    ratio_limit = max(RATIO_FREE_BYTES, MAX_RATIO * len(data))
    limit = min(max_body_bytes, ratio_limit)
    try:
        decoded = stream.feed(data, limit)
    except CORRUPT:
        raise _malformed("does not decode as its content-encoding says") from None
    if len(decoded) > limit:
        if limit < max_body_bytes:
            raise _too_large(f"inflates more than {MAX_RATIO} times")
        raise _too_large(f"decodes to more than the accepted {max_body_bytes} bytes")
    if not stream.is_over:
        raise _malformed("ends before its content-encoding does")
    if stream.rest:
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


def media_type(headers: Mapping[str, str]) -> str:
    """The media type of a message in lower case, without parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether AWS would see that anything in the body was changed."""
    return headers.get("authorization", "").startswith(_SIGNATURE)


def json_content_type(headers: Mapping[str, str]) -> str:
    """What a JSON body must go upstream as; empty where its content type says so already.

    curl sends JSON as a form unless told otherwise, and many servers read it all the same. The
    provider must read it as we do. Raises `RequestRefused` (415) for a type that can hold no JSON.
    """
    said = media_type(headers)
    if said == "application/json" or said.endswith("+json"):
        return ""
    if said not in _MISTAKEN_FOR_JSON:
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
        self._inflater: Inflater | None = None
        self._streams = 1

    def feed(self, data: bytes) -> bytes:
        """The bytes that `data` completes; empty once broken."""
        if self.is_broken or not data:
            return b""
        if self._encoding == "identity":
            return self._take(data)
        if self._inflater is None:
            self._head += data
            if len(self._head) < 2:  # noqa: PLR2004 - what tells deflate from deflate
                return b""
            data, self._head = self._head, b""
            self._inflater = self._started(data)
        return self._inflate(self._inflater, data)

    def _started(self, head: bytes) -> Inflater:
        return deflate_inflater(head) if self._encoding == "deflate" else inflater(self._encoding)

    def _inflate(self, stream: Inflater, data: bytes) -> bytes:
        decoded: list[bytes] = []
        try:
            decoded.append(self._take(stream.feed(data, self._room_bytes)))
            # Several gzip members or zstd frames in a row are one body (RFC 1952, RFC 8878).
            while stream.is_over and stream.rest and not self.is_broken:
                self._streams += 1
                if self._encoding not in _REPEATABLE or self._streams > _MAX_STREAMS:
                    self.is_broken = True
                    break
                data, stream = stream.rest, inflater(self._encoding)
                self._inflater = stream
                decoded.append(self._take(stream.feed(data, self._room_bytes)))
        except CORRUPT:
            self.is_broken = True
        return b"".join(decoded)

    def _take(self, decoded: bytes) -> bytes:
        if len(decoded) > self._room_bytes:
            self.is_broken = True
            return decoded[: self._room_bytes]
        self._room_bytes -= len(decoded)
        return decoded


_REPEATABLE = frozenset({"gzip", "zstd"})
# Who writes an answer in parts makes some hundred of them.
_MAX_STREAMS = 10_000
_DECODABLE = {"": "identity", "identity": "identity", "x-gzip": "gzip"} | {
    each: each for each in CODINGS - {"x-gzip"}
}


def answer_decoder(content_encoding: str) -> AnswerDecoder | None:
    """A decoder for one answer, or None where its `content-encoding` is not read here."""
    encoding = _DECODABLE.get(content_encoding.strip().lower())
    return None if encoding is None else AnswerDecoder(encoding)
