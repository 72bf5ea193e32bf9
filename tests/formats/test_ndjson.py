import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.formats.ndjson import LineParser
from tests.formats.calls import split_everywhere

STREAM = b'{"a":1}\n\n \r\n{"b":"\xc3\xbc"}\r\nhello\n[1]\n{"c":{}}'
EVENTS = [b'{"a":1}', b'{"b":"\xc3\xbc"}', b'{"c":{}}']


def lines(*chunks: bytes, max_line_bytes: int = 1024) -> list[bytes]:
    parser = LineParser(max_line_bytes=max_line_bytes)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return [event.data for event in (*events, *parser.finish())]


def test_each_object_is_an_event_wherever_chunks_end() -> None:
    for first, second in split_everywhere(STREAM):
        assert lines(first, second) == EVENTS
    assert lines(*(bytes([byte]) for byte in STREAM)) == EVENTS


@pytest.mark.parametrize("tail", [b'{"a":', b'{"a":1', b"{", b"", b"hello"])
def test_a_last_line_that_was_cut_is_no_event(tail: bytes) -> None:
    assert lines(b'{"a":1}\n' + tail) == [b'{"a":1}']


def test_a_line_above_the_bound_is_left_out_and_not_held() -> None:
    parser = LineParser(max_line_bytes=10)

    assert parser.feed(b'{"a":1}\n{"a":"' + b"x" * 10) != []
    assert parser.held_bytes == 0
    assert parser.feed(b"x" * 100 + b'"}\n{"b":2}\n')[0].data == b'{"b":2}'


def test_held_bytes_are_the_line_without_its_end() -> None:
    parser = LineParser()
    parser.feed(b'{"a":1}\n{"b"')

    assert parser.held_bytes == 4
    parser.feed(b":2}\n")
    assert parser.held_bytes == 0


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text())), st.integers(1, 20))
def test_what_was_written_line_by_line_is_read_so(written: list[dict[str, Any]], size: int) -> None:
    data = b"".join(json.dumps(each).encode() + b"\n" for each in written)
    chunks = [data[start : start + size] for start in range(0, len(data), size)]

    assert [json.loads(line) for line in lines(*chunks, max_line_bytes=1 << 20)] == written


@given(st.lists(st.binary()))
def test_no_bytes_raise(chunks: list[bytes]) -> None:
    lines(*chunks, max_line_bytes=8)
