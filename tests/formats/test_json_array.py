import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from extproc.formats.answers import Tally
from extproc.formats.google.json_array import ArrayAnswer, ArrayParser
from extproc.formats.sse import SSEEvent
from tests.formats.calls import split_everywhere

STREAM = (
    b'  [{"a": "]}\\"[{", "b": [1, {"c": "\\\\"}]},\r\n'
    b'{"d": "\xc3\xa9\\u00e9"}\n,\n"a, [word]", 5, [[]],{}]\n'
)
ELEMENTS = [b'{"a": "]}\\"[{", "b": [1, {"c": "\\\\"}]}', b'{"d": "\xc3\xa9\\u00e9"}', b"[[]]", b"{}"]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


class Recorder:
    """A dialect that keeps what it was shown."""

    def __init__(self) -> None:
        self.whole: list[Any] = []
        self.events: list[bytes] = []

    def read_whole(self, body: Any, _tally: Tally) -> None:
        self.whole.append(body)

    def read_event(self, event: SSEEvent, _tally: Tally) -> None:
        self.events.append(event.data)


def read(*chunks: bytes) -> tuple[Recorder, ArrayAnswer]:
    recorder = Recorder()
    answer = ArrayAnswer(recorder)
    for chunk in chunks:
        answer.feed(chunk)
    answer.finish()
    answer.finish()
    return recorder, answer


def test_elements_come_out_whole_wherever_the_array_is_split() -> None:
    for before, after in split_everywhere(STREAM):
        recorder, answer = read(before, after)
        assert recorder.events == ELEMENTS
        assert answer.observation().finished


def test_bytes_may_come_one_by_one() -> None:
    recorder, _ = read(*(bytes([byte]) for byte in STREAM))

    assert recorder.events == ELEMENTS


def test_a_cut_array_yields_its_whole_elements() -> None:
    recorder, answer = read(STREAM[: STREAM.index(b'"d"') + 8])

    assert recorder.events == ELEMENTS[:1]
    assert not answer.observation().finished
    assert answer.observation().is_legible


def test_an_element_above_the_bound_is_left_out() -> None:
    parser = ArrayParser(max_element_bytes=20)
    large = b'{"a": "' + b"x" * 50 + b'"}'

    found = [
        element for byte in large + b',{"b":1},' + large + b"]" for element in parser.feed(bytes([byte]))
    ]
    at_once = ArrayParser(max_element_bytes=20).feed(large + b',{"b":1}]')

    assert found == at_once == [b'{"b":1}']
    assert parser.is_incomplete
    assert parser.is_closed
    assert parser.held_bytes == 0


def test_what_is_held_of_a_large_element_is_let_go() -> None:
    parser = ArrayParser(max_element_bytes=20)
    parser.feed(b'{"a": "' + b"x" * 50)

    assert parser.held_bytes < 20


def test_a_body_that_is_no_array_is_one_object() -> None:
    for before, after in split_everywhere(b' {"a": [1]}'):
        recorder, answer = read(before, after)
        assert (recorder.whole, recorder.events) == ([{"a": [1]}], [])
        assert answer.observation().finished


def test_a_reader_says_how_much_it_holds() -> None:
    answer = ArrayAnswer(Recorder())
    assert answer.pending_bytes(is_last=True) == 0
    answer.feed(b'[{"a":')
    assert answer.pending_bytes(is_last=False) == 5

    answer = ArrayAnswer(Recorder())
    answer.feed(b'{"a":')
    assert (answer.pending_bytes(is_last=False), answer.pending_bytes(is_last=True)) == (0, 5)


@given(
    objects=st.lists(st.dictionaries(st.text(), VALUES), max_size=4),
    indent=st.integers(0, 4),
    ensure_ascii=st.booleans(),
)
def test_every_array_of_objects_is_cut_at_its_objects(
    *, objects: list[dict[str, Any]], indent: int, ensure_ascii: bool
) -> None:
    data = json.dumps(objects, indent=indent or None, ensure_ascii=ensure_ascii).encode()
    middle = len(data) // 2
    recorder, answer = read(data[:middle], data[middle:])

    assert [json.loads(event) for event in recorder.events] == objects
    assert answer.observation().finished


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"[", b"{", b'"', b"\\", b"]", b"}"]), max_size=30))
def test_no_bytes_raise(chunks: list[bytes]) -> None:
    read(b"[", *chunks)
    read(*chunks)
