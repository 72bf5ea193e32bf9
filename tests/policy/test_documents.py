import math
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.policy import documents


def value_of(text: str) -> Any:
    found, problems = documents.read("f.yaml", text.encode())
    assert problems == []
    return found[0].value["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("2024-01-01", "2024-01-01"),
        ("12:30:00", "12:30:00"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("~", None),
        ("", None),
        ("TRUE", True),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ('!!int "12"', 12),
    ],
)
def test_only_the_core_types_of_yaml_1_2_are_not_strings(text: str, expected: object) -> None:
    value = value_of(f"a: {text}\n")

    assert (type(value), value) == (type(expected), expected)


def test_an_anchor_is_the_value_it_names() -> None:
    assert value_of("b: &x {q: [1]}\na: *x\n") == {"q": [1]}


def test_several_documents_and_none_in_comments() -> None:
    found, problems = documents.read("f.yaml", b"---\n# nothing\n---\na: 1\n---\na: 2\n")

    assert problems == []
    assert [document.value for document in found] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", 2, 11, "twice"),
        ("a: 1\n<<: {b: 2}\n", 2, 1, "merge keys"),
        ("a: 1\n2: x\n", 2, 1, "must be a string"),
        ("a: !foo 1\n", 1, 4, "!foo"),
        ("a: !!int x\n", 1, 4, "int"),
        ("a: !!binary aGk=\n", 1, 4, "binary"),
        ("a:\n\tb: 1\n", 2, 1, "use spaces"),
        ("a: [1\n", 2, 1, "not closed"),
        ("a: " + "9" * 5000, 1, 4, "too long"),
        ("[" * 5000, 1, 1, "nested"),
        ("&a [*a]", 1, 1, "nested"),
        ("a: \x01", 1, 1, "characters"),
    ],
)
def test_what_is_not_accepted_is_named_with_its_place(text: str, line: int, column: int, words: str) -> None:
    _, problems = documents.read("f.yaml", text.encode())

    assert [(p.file, p.line, p.column) for p in problems] == [("f.yaml", line, column)]
    assert words in problems[0].message


def test_bytes_that_are_not_utf_8_are_refused_with_their_line() -> None:
    _, problems = documents.read("f.yaml", b"a: 1\nb: \xff\n")

    assert [(p.line, p.message) for p in problems] == [(2, "this is not UTF-8 text")]


def test_aliases_cannot_unfold_into_a_huge_value() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    _, problems = documents.read("f.yaml", "\n".join(lines).encode())

    assert [p.message for p in problems] == ["more than 100000 values"]


SPELLINGS = {
    "plain": "m: one two FAULT three\n",
    "plain over lines": "m: one\n   two\n   FAULT three\n",
    "single quotes": "m: 'it''s FAULT'\n",
    "double quotes": 'm: "a \\"b\\" \\u00e9 \\t FAULT"\n',
    "double quotes over lines": 'm: "one \\\n   two\n   FAULT"\n',
    "literal block": "m: |\n  one\n    two FAULT\n",
    "literal block with a comment and chomping": "m: |-  # why\n\n  one\n  FAULT\n",
    "folded block": "m: >-\n  one\n  two\n\n  FAULT\n",
    "after other characters": "k: é€😀\nm: 'é😀 FAULT'\n",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_place_inside_a_string_is_where_it_was_written(spelling: str) -> None:
    text = SPELLINGS[spelling]
    found, _ = documents.read("f.yaml", text.encode())
    document = found[0]

    problem = document.problem_inside(("m",), document.value["m"].index("FAULT"), "x")

    assert text.splitlines()[problem.line - 1][problem.column - 1 :].startswith("FAULT")


@given(
    words=st.lists(st.sampled_from(["a", "bc", "é", "'", '"', "\\", "(", "&&"]), min_size=1, max_size=8),
    style=st.sampled_from(["'", '"', "|"]),
    data=st.data(),
)
def test_every_word_of_a_string_is_found_again(words: list[str], style: str, data: st.DataObject) -> None:
    value = " ".join(words)
    spelled = {
        "'": "'" + value.replace("'", "''") + "'",
        '"': '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"',
        "|": "|\n" + textwrap.indent(value, "    "),
    }[style]
    found, _ = documents.read("f.yaml", f"x: 1\nm: {spelled}\n".encode())
    index = data.draw(st.integers(0, len(words) - 1))
    offset = len(" ".join(words[:index])) + (1 if index else 0)

    problem = found[0].problem_inside(("m",), offset, "x")

    rest = f"x: 1\nm: {spelled}\n".splitlines()[problem.line - 1][problem.column - 1 :]
    assert rest.lstrip("\\")[:1] == words[index].lstrip("\\")[:1] or words[index] == "\\"


@given(st.binary(max_size=60))
def test_no_bytes_make_the_reader_raise(content: bytes) -> None:
    documents.read("f.yaml", content)


@given(st.text(alphabet="a: -[]{}&*|>'\"\n#!?,\t<%@`", max_size=40))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    documents.read("f.yaml", text.encode())
