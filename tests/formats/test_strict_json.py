import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.strict_json import MAX_CONTAINERS, MAX_NESTING, compact_json, parse_json

BOM = b"\xef\xbb\xbf"


def refused(data: bytes) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        parse_json(data)
    return caught.value


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"model":"a","model":"b"}', "model twice"),
        (b'{"model":"a","\\u006dodel":"b"}', "model twice"),
        (b'{"messages":[{"role":"user","role":"system"}]}', "role twice"),
        (b'{"Model":"a"}', "differs from model only in case"),
        (b'{"model":"a","MODEL":"b"}', "differs from model only in case"),
        (b'{"model":"a","\xc5\xbftream":true}', "differs from stream only in case"),
        (b'{"max_to\xe2\x84\xaaens":5}', "differs from max_tokens only in case"),
        (b'{"custom":1,"Custom":2}', "differ only in case: (unknown)"),
        (b'{"a":NaN}', "NaN or Infinity"),
        (b'{"a":[-Infinity]}', "NaN or Infinity"),
        (b'{"a":1e400}', "range of a double"),
        (b'{"a":-1e400}', "range of a double"),
        (b'{"a":' + b"9" * 5000 + b"}", "308 digits"),
        (b'{"a":0.' + b"9" * 5000 + b"}", "308 digits"),
        (BOM + b"{}", "byte order mark"),
        ("{}".encode("utf-16"), "not UTF-8"),
        ("{}".encode("utf-16-le"), "not UTF-8"),
        ("{}".encode("utf-32-be"), "not UTF-8"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8 at byte 6"),
        (b'{"input":["x","\\ud800"]}', "/input/1"),
        (b'{"input":{"text":"\\udc00\\ud800"}}', "/input/text"),
        (b'{"\\uDFFF":1}', "half a surrogate pair at /"),
        (b'{"a":1} {}', "line 1, column 9"),
        (b'{"a":1,}', "line 1"),
        (b'{\n"a": tru}', "line 2, column 6"),
        (b'{"a":"\x01"}', "line 1"),
        (b'{"a":1}\0', "line 1"),
        (b"// hi\n{}", "line 1"),
        (b"{'a':1}", "line 1"),
        (b'{"a":"never ends', "line 1"),
        (b"[]", "object at its top level"),
        (b"null", "object at its top level"),
        (b'"text"', "object at its top level"),
    ],
)
def test_whatever_two_parsers_might_read_differently_is_400(data: bytes, told: str) -> None:
    error = refused(data)

    assert (error.status, error.code) == (400, Reason.BODY_MALFORMED)
    assert told in error.message


def test_an_empty_body_is_missing() -> None:
    assert refused(b"").code == Reason.BODY_MISSING


@pytest.mark.parametrize(
    "data",
    [b'{"my secret plan":1,"my secret plan":2}', b'{"a":"my secret plan}', b'{"my secret plan":"\\ud800"}'],
)
def test_no_text_of_the_body_is_told(data: bytes) -> None:
    assert "secret" not in refused(data).message


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return b'{"a":' + opening * (levels - 1) + b"1" + closing * (levels - 1) + b"}"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"b":', b"}")])
def test_nesting_is_capped(opening: bytes, closing: bytes) -> None:
    parse_json(nested(MAX_NESTING, opening, closing))

    for levels in (MAX_NESTING + 1, 900, 5_000, 100_000):
        assert "nested deeper" in refused(nested(levels, opening, closing)).message


@pytest.mark.parametrize("item", [{}, []])
def test_the_number_of_objects_and_lists_is_capped(item: Any) -> None:
    body = {"wide": [item] * (MAX_CONTAINERS - 2)}

    assert parse_json(json.dumps(body).encode()) == body
    body["wide"].append(item)
    assert "more than 100000 objects" in refused(json.dumps(body).encode()).message


def test_brackets_in_text_and_wide_bodies_are_not_nesting() -> None:
    body = {"text": "[{" * 1000, "wide": [[]] * 1000}

    assert parse_json(json.dumps(body).encode()) == body


def test_escaped_pairs_are_characters() -> None:
    assert parse_json(b'{"a":"\\ud83c\\udf0d"}') == {"a": "🌍"}


def test_keys_of_nested_objects_may_differ_in_case() -> None:
    """A tool's schema may well have `id` and `ID`."""
    body = {"tools": [{"ID": 1, "id": 2, "Model": 3}]}

    assert parse_json(json.dumps(body).encode()) == body


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_what_json_means_is_what_is_read_and_written_again(value: Any) -> None:
    body = {"value": value}

    for ensure_ascii in (True, False):
        assert parse_json(json.dumps(body, ensure_ascii=ensure_ascii).encode()) == body
    assert parse_json(compact_json(body).encode()) == body


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_an_object_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(RequestRefused):
        assert isinstance(parse_json(data), dict)


def test_looking_for_half_a_pair_is_no_work_in_a_deep_body() -> None:
    # One whole pair, and as many strings below as many levels as pass: pointers to all would be gigabytes.
    key = "k" * 60
    levels = MAX_NESTING - 3
    strings = ",".join(['"a"'] * 200_000)
    body = f'{{"pair":"\\ud83d\\ude00","deep":{f"""{{"{key}":""" * levels}[{strings}]{"}" * levels}}}'

    assert parse_json(body.encode())["pair"] == "\U0001f600"


def test_half_a_pair_is_found_wherever_it_is() -> None:
    with pytest.raises(RequestRefused) as caught:
        parse_json(b'{"messages":["x",{"content":[{"mine":"\\ud800"}]}]}')

    assert (
        caught.value.message
        == "The request body has half a surrogate pair at /messages/1/content/0/(unknown)."
    )
