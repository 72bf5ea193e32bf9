import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from extproc.measure.tools import typescript


def render(parameters: dict[str, Any] | None, **function: Any) -> str:
    return typescript([json.dumps({"function": {"name": "f", "parameters": parameters, **function}})])


def test_a_function_is_a_type_with_its_parameters() -> None:
    text = render(
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where."},
                "unit": {"enum": ["c", "f"]},
                "days": {"type": "array", "items": {"type": "integer"}},
                "place": {"type": "object", "properties": {"x": {"type": ["number", "null"]}}},
            },
            "required": ["city"],
        },
        description="Weather.",
    )

    assert text.splitlines() == [
        "namespace functions {",
        "",
        "// Weather.",
        "type f = (_: {",
        "// Where.",
        "city: string,",
        'unit?: "c" | "f",',
        "days?: number[],",
        "place?: {",
        "x?: number | null,",
        "},",
        "}) => any;",
        "",
        "} // namespace functions",
    ]


def test_a_function_without_parameters_takes_nothing() -> None:
    assert "type f = () => any;" in render(None)
    assert "type f = () => any;" in render({"type": "object", "properties": {}})


def test_a_flat_definition_reads_like_a_nested_one() -> None:
    nested = typescript(['{"type": "function", "function": {"name": "f"}}'])

    assert typescript(['{"type": "function", "name": "f"}']) == nested


def test_titles_and_defaults_are_shown_as_comments() -> None:
    text = render({"properties": {"city": {"title": "City", "type": "string", "default": "Rome"}}})

    assert text.splitlines()[3:6] == ["// City", "//", "city?: string, // default: Rome"]


def test_a_reference_is_written_out_once() -> None:
    text = render(
        {
            "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
            "properties": {"first": {"$ref": "#/$defs/Node"}, "second": {"$ref": "#/$defs/Node"}},
        }
    )

    assert text.splitlines()[3:7] == ["first?: {", "next?: any,", "},", "second?: any,"]


def test_alternatives_are_shown_side_by_side() -> None:
    assert "x?: string | null," in render(
        {"properties": {"x": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}
    )


def test_repeated_kinds_never_make_a_text_larger_than_its_schema() -> None:
    repeated = ["object"] * 4
    for kinds in (repeated, [*repeated, *[repeated] * 4], ["object", "array"]):
        schema: dict[str, Any] = {"type": "string"}
        for _ in range(7):
            schema = {"type": kinds, "properties": {"a": schema}, "items": {"type": "string"}}

        assert len(render(schema)) <= len(json.dumps(schema)) + len(render(None))


def test_a_schema_that_never_ends_is_cut_off() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        schema = {"type": "array", "items": schema}

    assert "any[][]" in render({"properties": {"deep": schema}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "enum", "required", "description", "anyOf", "default", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_no_schema_breaks_the_rendering(schema: Any) -> None:
    text = typescript([json.dumps({"name": "f", "parameters": schema})])

    assert "type f = " in text
