import contextlib
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]  # its wheel has no types
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.body import MAX_RATIO, RATIO_FREE_BYTES, AnswerDecoder, answer_decoder, decode_body

MIB = 1024 * 1024
BODY = b'{"model":"gpt-4o-mini","messages":[]}'


def gzipped(data: bytes) -> bytes:
    """Without the time: these bytes are in the names of tests, which all processes find alike."""
    return gzip.compress(data, mtime=0)


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(data)


def zstd_with_window(*, log: int) -> bytes:
    """Streamed, so that the window is what was asked for and not what the content needs."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(BODY) + stream.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzipped,
    "x-gzip": gzipped,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd,
}
EVERY_ENCODING = pytest.mark.parametrize(("encoding", "encode"), ENCODERS.items(), ids=ENCODERS)


def refused(data: bytes, headers: dict[str, str], *, max_body_bytes: int = MIB) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        decode_body(data, headers, max_body_bytes=max_body_bytes)
    return caught.value


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("", BODY),
        ("identity", BODY),
        ("gzip", gzipped(BODY)),
        (" GZIP ", gzipped(BODY)),
        ("x-gzip", gzipped(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("Br", brotli.compress(BODY)),
        ("zstd", zstd(BODY)),
        ("zstd", zstandard.compress(BODY)),
        ("zstd", zstd_with_window(log=23)),
    ],
)
def test_accepted_encodings_decode(encoding: str, data: bytes) -> None:
    assert decode_body(data, {"content-encoding": encoding}, max_body_bytes=MIB) == BODY


@pytest.mark.parametrize(
    "encoding", ["compress", "dcb", "gzip, br", "gzip, gzip", "identity, gzip", "gzip,", "nonsense"]
)
def test_other_and_stacked_encodings_are_415_and_name_what_is_accepted(encoding: str) -> None:
    error = refused(gzipped(BODY), {"content-encoding": encoding})

    assert (error.status, error.code) == (415, Reason.ENCODING_UNSUPPORTED)
    assert "identity, gzip, deflate, br, zstd" in error.message


@pytest.mark.parametrize("encoding", ["identity", *ENCODERS])
def test_the_size_cap_is_of_the_decoded_body(encoding: str) -> None:
    body = bytes(range(256)) * 4
    data = ENCODERS[encoding](body) if encoding in ENCODERS else body
    headers = {"content-encoding": encoding}

    assert decode_body(data, headers, max_body_bytes=1024) == body
    error = refused(data, headers, max_body_bytes=1023)
    assert (error.status, error.code) == (413, Reason.BODY_TOO_LARGE)


@EVERY_ENCODING
def test_a_bomb_is_refused_by_its_ratio_and_never_inflated(
    encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    bomb = encode(b"\0" * 50 * MIB)
    tracemalloc.start()

    error = refused(bomb, {"content-encoding": encoding}, max_body_bytes=1000 * MIB)

    inflated = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (error.status, error.code) == (413, Reason.BODY_TOO_LARGE)
    assert inflated < 3 * max(RATIO_FREE_BYTES, MAX_RATIO * len(bomb)) + 8 * MIB


@EVERY_ENCODING
def test_a_small_repetitive_body_may_exceed_the_ratio(
    encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    body = b"a" * RATIO_FREE_BYTES
    data = encode(body)
    assert len(body) > MAX_RATIO * len(data)

    assert decode_body(data, {"content-encoding": encoding}, max_body_bytes=MIB) == body


@EVERY_ENCODING
def test_truncated_trailing_and_corrupt_data_is_400(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    whole = encode(BODY)
    broken = [whole[:place] for place in range(1, len(whole))]
    broken += [whole + b"\0", whole + whole, b"\0" + whole, b"not compressed at all"]
    for data in broken:
        error = refused(data, {"content-encoding": encoding})
        assert (error.status, error.code) == (400, Reason.BODY_MALFORMED)


def trained_dictionary() -> zstandard.ZstdCompressionDict:
    return zstandard.train_dictionary(2000, [b"%d %d gpt-4o-mini %d" % (n, n * n, n**3) for n in range(2000)])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            zstandard.ZstdCompressor(dict_data=trained_dictionary()).compress(BODY), id="a dictionary"
        ),
        pytest.param(zstd_with_window(log=24), id="a window above 8 MiB"),
        pytest.param(b"\x50\x2a\x4d\x18\x02\0\0\0ab" + zstd(BODY), id="a skippable frame"),
        pytest.param(b"\x50\x2a\x4d\x18\xff\xff\xff\xff", id="an endless skippable frame"),
    ],
)
def test_zstd_that_another_decoder_might_not_read_is_400(data: bytes) -> None:
    assert refused(data, {"content-encoding": "zstd"}).status == 400


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


@given(st.binary(), st.sampled_from(sorted(ENCODERS)))
def test_an_encoded_body_survives_and_garbage_never_escapes_as_another_error(
    data: bytes, encoding: str
) -> None:
    assert decode_body(ENCODERS[encoding](data), {"content-encoding": encoding}, max_body_bytes=MIB) == data
    with contextlib.suppress(RequestRefused):
        decode_body(data, {"content-encoding": encoding}, max_body_bytes=MIB)


ENCODED_ANSWERS = [
    ("", BODY),
    ("identity", BODY),
    ("gzip", gzipped(BODY)),
    ("x-gzip", gzipped(BODY)),
    ("gzip", gzipped(BODY[:9]) + gzipped(BODY[9:])),
    ("deflate", zlib.compress(BODY)),
    ("deflate", raw_deflate(BODY)),
    ("br", brotli.compress(BODY)),
    ("zstd", zstd(BODY)),
    ("zstd", zstd(BODY[:9]) + b"\x50\x2a\x4d\x18\x02\0\0\0ab" + zstandard.compress(BODY[9:])),
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


@pytest.mark.parametrize("encoding", ["compress", "gzip, br"])
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
    assert decoder.feed(gzipped(BODY)) == b""


@EVERY_ENCODING
def test_an_answer_stops_at_the_output_cap(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    decoder = AnswerDecoder(encoding.removeprefix("x-"), max_bytes=1000)

    assert len(decoder.feed(encode(b"\0" * MIB))) == 1000
    assert decoder.is_broken


@pytest.mark.parametrize(("encoding", "tiny"), [("gzip", gzipped(b"")), ("zstd", zstd(b""))])
def test_an_answer_in_countless_parts_is_given_up(encoding: str, tiny: bytes) -> None:
    decoder = answer_decoder(encoding)
    assert decoder is not None

    for _ in range(11):
        decoder.feed(tiny * 1000)

    assert decoder.is_broken


@given(st.lists(st.binary()), st.sampled_from(["identity", *sorted(ENCODERS)]))
def test_a_decoder_never_raises(chunks: list[bytes], encoding: str) -> None:
    decoder = answer_decoder(encoding)
    assert decoder is not None

    for chunk in chunks:
        decoder.feed(chunk)
