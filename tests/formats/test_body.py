import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.body import MAX_RATIO, RATIO_FREE_BYTES, AnswerDecoder, answer_decoder, decode_body

MIB = 1024 * 1024
BODY = b'{"model":"gpt-4o-mini","messages":[]}'


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def refused(data: bytes, headers: dict[str, str], *, max_body_bytes: int = MIB) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        decode_body(data, headers, max_body_bytes=max_body_bytes)
    return caught.value


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("", BODY),
        ("identity", BODY),
        ("gzip", gzip.compress(BODY)),
        (" GZIP ", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
    ],
)
def test_accepted_encodings_decode(encoding: str, data: bytes) -> None:
    assert decode_body(data, {"content-encoding": encoding}, max_body_bytes=MIB) == BODY


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "identity, gzip", "gzip,", "nonsense"])
def test_other_and_stacked_encodings_are_415_and_name_what_is_accepted(encoding: str) -> None:
    error = refused(gzip.compress(BODY), {"content-encoding": encoding})

    assert (error.status, error.code) == (415, Reason.ENCODING_UNSUPPORTED)
    assert "identity, gzip, deflate" in error.message


@pytest.mark.parametrize("headers", [{}, {"content-encoding": "gzip"}])
def test_the_size_cap_is_of_the_decoded_body(headers: dict[str, str]) -> None:
    body = bytes(range(256)) * 4
    data = gzip.compress(body) if headers else body

    assert decode_body(data, headers, max_body_bytes=1024) == body
    error = refused(data, headers, max_body_bytes=1023)
    assert (error.status, error.code) == (413, Reason.BODY_TOO_LARGE)


def test_a_bomb_is_refused_by_its_ratio() -> None:
    bomb = gzip.compress(b"\0" * 50 * MIB)
    assert len(bomb) * MAX_RATIO > RATIO_FREE_BYTES

    error = refused(bomb, {"content-encoding": "gzip"}, max_body_bytes=1000 * MIB)

    assert (error.status, error.code) == (413, Reason.BODY_TOO_LARGE)


def test_a_small_repetitive_body_may_exceed_the_ratio() -> None:
    body = b"a" * RATIO_FREE_BYTES
    data = gzip.compress(body)
    assert len(body) > MAX_RATIO * len(data)

    assert decode_body(data, {"content-encoding": "gzip"}, max_body_bytes=MIB) == body


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(BODY)[:-1],
        gzip.compress(BODY)[:12],
        gzip.compress(BODY) + b"\0",
        gzip.compress(BODY) + gzip.compress(BODY),
        b"not gzip at all",
    ],
)
def test_truncated_trailing_and_corrupt_data_is_400(data: bytes) -> None:
    error = refused(data, {"content-encoding": "gzip"})

    assert (error.status, error.code) == (400, Reason.BODY_MALFORMED)


def test_raw_deflate_in_a_request_is_refused() -> None:
    """RFC 9110 means zlib by it; an upstream may read raw deflate differently."""
    assert refused(raw_deflate(BODY), {"content-encoding": "deflate"}).status == 400


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-16", "application/json, text/plain", "text/x; CHARSET=latin1"],
)
def test_a_body_that_another_charset_would_read_otherwise_is_415(content_type: str) -> None:
    assert refused(BODY, {"content-type": content_type}).status == 415


@pytest.mark.parametrize(
    "content_type", ["application/json", 'application/json; charset="UTF-8"', "text/plain"]
)
def test_the_media_type_itself_decides_nothing(content_type: str) -> None:
    assert decode_body(BODY, {"content-type": content_type}, max_body_bytes=MIB) == BODY


@given(st.binary())
def test_an_encoded_body_survives_and_garbage_never_escapes_as_another_error(data: bytes) -> None:
    assert decode_body(gzip.compress(data), {"content-encoding": "gzip"}, max_body_bytes=MIB) == data
    with contextlib.suppress(RequestRefused):
        decode_body(data, {"content-encoding": "gzip"}, max_body_bytes=MIB)


ENCODED_ANSWERS = [
    ("", BODY),
    ("identity", BODY),
    ("gzip", gzip.compress(BODY)),
    ("x-gzip", gzip.compress(BODY)),
    ("gzip", gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])),
    ("deflate", zlib.compress(BODY)),
    ("deflate", raw_deflate(BODY)),
]


@pytest.mark.parametrize(("encoding", "data"), ENCODED_ANSWERS)
def test_an_answer_decodes_alike_whole_and_byte_by_byte(encoding: str, data: bytes) -> None:
    whole, bytewise = answer_decoder(encoding), answer_decoder(encoding)
    assert whole is not None
    assert bytewise is not None

    assert whole.feed(data) == BODY
    assert b"".join(bytewise.feed(bytes([byte])) for byte in data) == BODY
    assert not whole.is_broken
    assert not bytewise.is_broken


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br"])
def test_an_answer_in_another_encoding_has_no_decoder(encoding: str) -> None:
    assert answer_decoder(encoding) is None


def test_a_corrupt_answer_keeps_what_came_before_and_stops() -> None:
    decoder = answer_decoder("gzip")
    assert decoder is not None
    deflater = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    good = deflater.compress(BODY) + deflater.flush(zlib.Z_SYNC_FLUSH)

    assert decoder.feed(good) == BODY
    assert decoder.feed(b"\xff" * 40) == b""
    assert decoder.is_broken
    assert decoder.feed(gzip.compress(BODY)) == b""


def test_an_answer_stops_at_the_output_cap() -> None:
    decoder = AnswerDecoder("gzip", max_bytes=1000)

    assert len(decoder.feed(gzip.compress(b"\0" * MIB))) == 1000
    assert decoder.is_broken


@given(st.lists(st.binary()), st.sampled_from(["gzip", "deflate", "identity"]))
def test_a_decoder_never_raises(chunks: list[bytes], encoding: str) -> None:
    decoder = answer_decoder(encoding)
    assert decoder is not None

    for chunk in chunks:
        decoder.feed(chunk)
