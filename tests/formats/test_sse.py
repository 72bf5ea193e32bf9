from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.formats.sse import EventFilter, SSEEvent, SSEParser

FIXTURES = Path(__file__).parent.parent / "fixtures"
BOM = b"\xef\xbb\xbf"


def parsed(*chunks: bytes, max_event_bytes: int = 1 << 20) -> list[SSEEvent]:
    parser = SSEParser(max_event_bytes=max_event_bytes)
    return [event for chunk in chunks for event in parser.feed(chunk)] + parser.finish()


def filtered(*chunks: bytes, max_event_bytes: int = 1 << 20) -> bytes:
    events = EventFilter(lambda data: b"drop" in data, max_event_bytes=max_event_bytes)
    return b"".join(events.feed(chunk) for chunk in chunks) + events.flush()


def bytewise(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: a\n\n", [SSEEvent(b"a")]),
        (b"data:a\n\n", [SSEEvent(b"a")]),
        (b"data:  a \n\n", [SSEEvent(b" a ")]),
        (b"data: a\r\n\r\n", [SSEEvent(b"a")]),
        (b"data: a\r\r", [SSEEvent(b"a")]),
        (b"data: a\n\r\ndata: b\r\r\n", [SSEEvent(b"a"), SSEEvent(b"b")]),
        (b"data: a\r\ndata: b\n\n", [SSEEvent(b"a\nb")]),
        (b"data\ndata\n\n", [SSEEvent(b"\n")]),
        (b"data\n\n", [SSEEvent(b"")]),
        (b": comment\n\ndata: a\n: another\n\n", [SSEEvent(b"a")]),
        (b"event: ping\ndata: {}\n\n", [SSEEvent(b"{}", "ping")]),
        (b"data: {}\nevent:ping\n\n", [SSEEvent(b"{}", "ping")]),
        (b"event: ping\n\ndata: a\n\n", [SSEEvent(b"a")]),
        (b"event:\ndata: a\n\n", [SSEEvent(b"a")]),
        (b"id: 7\nretry: 10\ndata: a\n\n", [SSEEvent(b"a")]),
        (b"dataset: x\n data: y\n\n", []),
        (b"\n\n\n\r\n\r\rdata: a\n\n\n", [SSEEvent(b"a")]),
        (BOM + b"data: a\n\n", [SSEEvent(b"a")]),
        (BOM + b"\ndata: a\n\n", [SSEEvent(b"a")]),
        (b"data: a\n\n" + BOM + b"data: b\n\n", [SSEEvent(b"a")]),
        ("data: Grüße 🌍\n\n".encode(), [SSEEvent("Grüße 🌍".encode())]),
        (b"data: cut", [SSEEvent(b"cut")]),
        (b"data: cut\n", [SSEEvent(b"cut")]),
        (b"data: a\r\n\r", [SSEEvent(b"a")]),
        (b"", []),
    ],
)
def test_events_follow_the_rules_whole_and_byte_by_byte(data: bytes, events: list[SSEEvent]) -> None:
    assert parsed(data) == events
    assert parsed(*bytewise(data)) == events


def test_an_event_leaves_as_soon_as_it_is_complete() -> None:
    parser = SSEParser()

    assert parser.feed(b"data: a\n\nda") == [SSEEvent(b"a")]
    assert parser.feed(b"ta: b\n") == []
    assert parser.feed(b"\n") == [SSEEvent(b"b")]
    assert parser.finish() == []


def test_an_event_beyond_the_bound_is_left_out_and_the_next_one_is_read() -> None:
    data = b"data: a\n\ndata: " + b"x" * 100 + b"\ndata: y\n\ndata: b\n\n"

    assert parsed(data, max_event_bytes=50) == [SSEEvent(b"a"), SSEEvent(b"b")]
    assert parsed(*bytewise(data), max_event_bytes=50) == [SSEEvent(b"a"), SSEEvent(b"b")]


def test_a_filter_drops_whole_events_and_nothing_else() -> None:
    data = b": hi\r\n\r\ndata: a\n\nevent: x\r\ndata: drop\r\n\r\ndata: b\n\ndata: tail drop"

    assert filtered(data) == b": hi\r\n\r\ndata: a\n\ndata: b\n\ndata: tail drop"


def test_a_filter_holds_an_event_until_it_is_complete() -> None:
    events = EventFilter(lambda data: b"drop" in data)

    assert events.feed(b"data: a\n\ndata: d") == b"data: a\n\n"
    assert events.feed(b"rop\n") == b""
    assert events.feed(b"\ndata: b\n\n") == b"data: b\n\n"
    assert events.flush() == b""


def test_a_filter_lets_go_of_an_event_that_is_too_large_to_hold() -> None:
    events = EventFilter(lambda data: b"drop" in data, max_event_bytes=20)
    beginning = b"data: drop " + b"x" * 30

    assert events.feed(beginning) == beginning
    assert events.feed(b"\n") == b"\n"
    assert events.feed(b"\ndata: drop\n\ndata: b\n\n") == b"\ndata: b\n\n"


def test_a_filter_of_objects_holds_nothing_else() -> None:
    """Where trailers end an answer, nothing comes after that could bring what is held."""
    events = EventFilter(lambda data: b"drop" in data, objects_only=True)

    assert events.feed(b"data: ") == b""
    assert events.feed(b"[DO") == b"data: [DO"
    assert events.feed(b"NE]\n") == b"NE]\n"
    assert events.feed(b'\ndata: {"drop": 1}\n') == b"\n"
    assert events.feed(b'\ndata:{"b": 1}\n\n') == b'data:{"b": 1}\n\n'


lines = st.sampled_from(
    [
        b"data: a",
        b"data:drop",
        b"data: \xc3\xbc",
        b"event: e",
        b": c",
        b"",
        b"",
        b"data",
        BOM,
        b"data: " + b"x" * 40,
    ]
)
streams = (
    st.lists(st.tuples(lines, st.sampled_from([b"\n", b"\r", b"\r\n"]))).map(
        lambda pairs: b"".join(line + end for line, end in pairs)
    )
    | st.binary()
)
cut_streams = streams.flatmap(
    lambda data: st.tuples(st.just(data), st.lists(st.integers(0, len(data)), max_size=8).map(sorted))
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(cut_streams, st.sampled_from([3, 20, 1 << 20]))
def test_chunks_do_not_matter(cut_stream: tuple[bytes, list[int]], bound: int) -> None:
    data, places = cut_stream
    chunks = cut(data, places)

    assert parsed(*chunks, max_event_bytes=bound) == parsed(data, max_event_bytes=bound)
    assert filtered(*chunks, max_event_bytes=bound) == filtered(data, max_event_bytes=bound)
    assert parsed(*bytewise(data), max_event_bytes=bound) == parsed(data, max_event_bytes=bound)
    assert filtered(*bytewise(data), max_event_bytes=bound) == filtered(data, max_event_bytes=bound)


@given(cut_streams)
def test_a_filter_of_objects_passes_the_same_bytes_however_they_are_cut(
    cut_stream: tuple[bytes, list[int]],
) -> None:
    data, places = cut_stream
    data = data.replace(b"data:drop", b"data:{drop")
    events = EventFilter(lambda value: value.startswith(b"{drop"), max_event_bytes=40, objects_only=True)

    passed = b"".join(events.feed(chunk) for chunk in cut(data, places)) + events.flush()

    whole = EventFilter(lambda value: value.startswith(b"{drop"), max_event_bytes=40)
    assert passed == whole.feed(data) + whole.flush()


@given(streams)
def test_a_filter_that_drops_nothing_changes_no_byte(data: bytes) -> None:
    events = EventFilter(lambda _data: False, max_event_bytes=20)

    assert events.feed(data) + events.flush() == data


@given(streams)
def test_lines_agree_with_a_reading_of_the_rules_line_by_line(data: bytes) -> None:
    """The standard's own algorithm, on whole input; the tail is ours."""
    rest = data.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[SSEEvent] = []
    pending: list[bytes] = []
    name = "message"
    for line in [*rest.split(b"\n"), b""]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line == b"":
            events += [SSEEvent(b"\n".join(pending), name)] if pending else []
            pending, name = [], "message"
        elif field == b"data":
            pending.append(value)
        elif field == b"event":
            name = value.decode(errors="replace") or "message"

    assert parsed(data) == events
