import base64
import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped]  # it has no types
from hypothesis import given
from hypothesis import strategies as st

from extproc.formats.aws.event_stream import EventStreamParser, Frame, FrameParser, HeaderValue
from extproc.formats.sse import SSEEvent
from tests.formats.calls import randomly_chunked, split_everywhere
from tests.formats.frames import chunk, event, exception, frame

CORPUS = Path(__file__).parent.parent.parent.parent / "shared" / "corpus"

ALL_TYPES: dict[str, tuple[int, HeaderValue]] = {
    "true": (0, True),
    "false": (1, False),
    "byte": (2, -128),
    "short": (3, -32768),
    "integer": (4, -(2**31)),
    "long": (5, -(2**63)),
    "bytes": (6, b"\x00\xff"),
    "text": (7, "Grüße 🌍"),
    "time": (8, 1_790_000_000_000),
    "uuid": (9, bytes(range(16))),
}
STREAM = event("messageStart", {"role": "assistant"}) + chunk({"outputText": "hi"}) + frame(ALL_TYPES, b"end")


def parsed(*chunks: bytes) -> tuple[list[Frame], bool]:
    parser = FrameParser()
    return [found for data in chunks for found in parser.feed(data)], parser.is_broken


def reference(data: bytes) -> tuple[list[Frame], bool]:
    """What botocore reads, up to what it refuses."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    frames: list[Frame] = []
    try:
        frames.extend(Frame(message.headers, message.payload) for message in buffer)
    except Exception:  # noqa: BLE001  botocore raises its own, struct's, KeyError and UnicodeDecodeError
        return frames, True
    return frames, False


def test_all_ten_types_of_headers_are_read() -> None:
    frames, is_broken = parsed(frame(ALL_TYPES, b"payload"))

    assert not is_broken
    assert frames == [Frame({name: value for name, (_, value) in ALL_TYPES.items()}, b"payload")]


def test_a_stream_split_at_every_byte_has_the_same_frames() -> None:
    whole = parsed(STREAM)

    assert len(whole[0]) == 3
    assert all(parsed(*parts) == whole for parts in split_everywhere(STREAM))
    assert parsed(*(bytes([byte]) for byte in STREAM)) == whole


def test_a_cut_stream_has_the_frames_that_are_whole() -> None:
    ends = [len(event("messageStart", {"role": "assistant"})), len(STREAM) - len(frame(ALL_TYPES, b"end"))]

    for place in range(len(STREAM)):
        frames, is_broken = parsed(STREAM[:place])
        assert not is_broken
        assert len(frames) == sum(end <= place for end in ends)


def test_any_wrong_byte_stops_it_and_frames_before_count() -> None:
    first, second = event("messageStart", {"role": "assistant"}), chunk({"outputText": "hi"})
    for place in range(len(second)):
        damaged = bytearray(second)
        damaged[place] ^= 0x10
        frames, is_broken = parsed(first + bytes(damaged) + first)
        assert is_broken
        assert len(frames) == 1


def with_prelude(length: int, headers_length: int) -> bytes:
    prelude = struct.pack(">II", length, headers_length)
    return prelude + struct.pack(">I", zlib.crc32(prelude))


@pytest.mark.parametrize(
    ("length", "headers_length"),
    [
        (0, 0),
        (15, 0),
        (16, 1),
        (2**32 - 1, 0),
        (25 * 1024 * 1024, 0),
        (200_000, 128 * 1024 + 1),
        (16, 2**32 - 1),
    ],
)
def test_an_impossible_length_stops_it_before_anything_is_held(length: int, headers_length: int) -> None:
    parser = FrameParser()

    assert parser.feed(with_prelude(length, headers_length)) == []
    assert parser.is_broken
    assert parser.feed(STREAM) == []
    assert parser.held_bytes == 0


def test_a_frame_above_the_bound_stops_it() -> None:
    parser = FrameParser(max_frame_bytes=100)

    assert parser.feed(frame({}, b"x" * 85)) == []
    assert parser.is_broken


def rest_of(headers: bytes) -> bytes:
    """A sound frame around these header bytes."""
    message = with_prelude(16 + len(headers), len(headers)) + headers
    return message + struct.pack(">I", zlib.crc32(message))


@pytest.mark.parametrize(
    "headers",
    [
        b"\x01",  # the name is not there
        b"\x01a",  # no type
        b"\x01a\x0a",  # no such type
        b"\x01a\x07",  # no length
        b"\x01a\x07\x00\x05abc",  # cut text
        b"\x01a\x06\x00\x05abc",  # cut bytes
        b"\x01a\x05\x00\x00",  # cut number
        b"\x01a\x09\x00\x00",  # cut UUID
        b"\x01a\x07\x00\x01\xff",  # not UTF-8
        b"\x01\xff\x00",  # a name that is not UTF-8
        b"\x01a\x00\x01a\x01",  # twice
    ],
)
def test_illegible_headers_stop_it(headers: bytes) -> None:
    assert parsed(STREAM + rest_of(headers) + STREAM) == (parsed(STREAM)[0], True)


NAMES = st.text(min_size=1, max_size=20)
VALUES = st.one_of(
    st.booleans().map(lambda value: (0 if value else 1, value)),
    st.integers(-(2**7), 2**7 - 1).map(lambda value: (2, value)),
    st.integers(-(2**15), 2**15 - 1).map(lambda value: (3, value)),
    st.integers(-(2**31), 2**31 - 1).map(lambda value: (4, value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: (5, value)),
    st.binary(max_size=50).map(lambda value: (6, value)),
    st.text(max_size=50).map(lambda value: (7, value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: (8, value)),
    st.binary(min_size=16, max_size=16).map(lambda value: (9, value)),
)
FRAMES = st.builds(frame, st.dictionaries(NAMES, VALUES, max_size=5), st.binary(max_size=200))


@given(st.lists(FRAMES, max_size=4), st.binary(max_size=20))
def test_frames_are_read_as_botocore_reads_them(frames: list[bytes], tail: bytes) -> None:
    data = b"".join(frames) + tail

    assert parsed(data) == reference(data)
    assert len(parsed(data)[0]) >= len(frames)


@given(FRAMES, FRAMES, st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_damaged_frames_stop_it_where_they_stop_botocore(
    first: bytes, second: bytes, place: int, change: int
) -> None:
    damaged = bytearray(first + second)
    damaged[place % len(damaged)] ^= change

    assert parsed(bytes(damaged)) == reference(bytes(damaged))


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_bytes_raise(chunks: list[bytes]) -> None:
    parser = EventStreamParser()
    for data in chunks:
        parser.feed(data)

    assert parser.finish() == []


def recorded_streams() -> Iterator[tuple[str, bytes]]:
    for path in sorted(CORPUS.glob("*.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            each = json.loads(line)
            if each["response_headers"].get("content-type") == "application/vnd.amazon.eventstream":
                yield each["id"], base64.b64decode(each["response_body_b64"])


@pytest.mark.skipif(not CORPUS.is_dir(), reason="../shared/corpus is not on this machine")
def test_recorded_streams_are_read_as_botocore_reads_them() -> None:
    streams = list(recorded_streams())
    assert len(streams) == 43

    for identity, data in streams:
        whole = parsed(data)
        assert whole == reference(data), identity
        assert not whole[1], identity
        assert parsed(*randomly_chunked(data, identity)) == whole, identity


def test_a_frame_is_an_event_of_its_type() -> None:
    parser = EventStreamParser()

    assert parser.feed(event("metadata", {"usage": {}})) == [SSEEvent(b'{"usage": {}}', "metadata")]
    assert parser.feed(frame({}, b"bare")) == [SSEEvent(b"bare", "")]


def test_exceptions_and_errors_are_events_without_their_message() -> None:
    error = frame({":message-type": (7, "error"), ":error-code": (7, "InternalFailure")}, b"")
    parser = EventStreamParser()

    assert parser.feed(exception("throttlingException", "your prompt was ...") + error) == [
        SSEEvent(b'{"type": "throttlingException"}', "exception"),
        SSEEvent(b'{"type": "InternalFailure"}', "exception"),
    ]


def test_what_waits_for_its_end_is_known() -> None:
    parser = EventStreamParser()
    parser.feed(STREAM[:-3])

    assert parser.held_bytes == len(frame(ALL_TYPES, b"end")) - 3
