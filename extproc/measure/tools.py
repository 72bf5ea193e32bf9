"""Tool definitions as the text a model reads; for counting only.

OpenAI's models see tools as a TypeScript namespace. The shape is known from counts, not from a
document, so what is counted from it is an estimate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# A schema that nests deeper than this is cut off; its JSON bytes stay the upper bound.
_DEEPEST = 16
_SCALARS = {
    "integer": "number",
    "number": "number",
    "string": "string",
    "boolean": "boolean",
    "null": "null",
    "object": "object",
}

# The tools that a provider runs itself, by type or name, with or without a version: what they read is
# billed as input and was never in the prompt. A client's own tools have other names, or lose little.
_BUILT_IN = re.compile(
    r"((web|file|x|collections|browser|google|enterprise_?web|live|tool)_?search(_?(preview|retrieval))?"
    r"|web_fetch|url_?context|google_?maps|code_?(interpreter|execution)|image_generation|retrieval|mcp"
    r"|computer(_use)?(_preview)?)(_\d+)*",
    re.IGNORECASE,
)
# Agents that bring their own search call it so; the providers' have no capitals at their start.
_CLIENTS = frozenset({"WebSearch", "WebFetch", "ToolSearch"})


def has_built_in(name: str) -> bool:
    """Whether a tool's name is one that a provider runs itself, as far as names tell."""
    return name not in _CLIENTS and _BUILT_IN.fullmatch(name) is not None


def typescript(tools: Iterable[str]) -> str:
    """Every function of `tools` (JSON objects) as TypeScript types; what is no function stays JSON."""
    lines = ["namespace functions {", ""]
    for definition in tools:
        function = _function(definition)
        lines += [definition] if function is None else [*_type_lines(function), ""]
    return "\n".join([*lines, "} // namespace functions"])


def _function(definition: str) -> Mapping[str, Any] | None:
    try:
        tool = json.loads(definition)
    except (ValueError, RecursionError):
        return None
    if not isinstance(tool, dict):
        return None
    # Chat nests the function; Responses and the older `functions` do not.
    function = tool.get("function", tool)
    return function if isinstance(function, dict) and isinstance(function.get("name"), str) else None


def _type_lines(function: Mapping[str, Any]) -> Iterator[str]:
    if description := _text(function, "description"):
        yield f"// {description}"
    given = function.get("parameters")
    parameters: Mapping[str, Any] = given if isinstance(given, dict) else {}
    properties = parameters.get("properties")
    if not isinstance(properties, dict) or not properties:
        yield f"type {function['name']} = () => any;"
        return
    yield f"type {function['name']} = (_: {{"
    yield from _members(parameters, _definitions(parameters), depth=1)
    yield "}) => any;"


def _definitions(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The schemas that others refer to, by what they are referred to as."""
    return {
        f"#/{key}/{name}": schema
        for key in ("$defs", "definitions")
        if isinstance(schemas := parameters.get(key), dict)
        for name, schema in schemas.items()
    }


def _members(schema: Any, definitions: dict[str, Any], *, depth: int) -> Iterator[str]:
    required = schema.get("required")
    needed = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
    for name, member in schema["properties"].items():
        if title := _text(member, "title"):
            yield from (f"// {title}", "//")
        if description := _text(member, "description"):
            yield f"// {description}"
        mark = "" if name in needed else "?"
        default = f" // default: {member['default']}" if _has_default(member) else ""
        yield f"{name}{mark}: {_type(member, definitions, depth=depth)},{default}"


def _type(schema: Any, definitions: dict[str, Any], *, depth: int) -> str:
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return "any"
    if isinstance(reference := schema.get("$ref"), str):
        # Written out once: a schema that refers to itself would never end.
        return _type(definitions.pop(reference, None), definitions, depth=depth + 1)
    if isinstance(choices := schema.get("enum"), list):
        return " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    if alternatives := _alternatives(schema):
        return " | ".join(_type(one, definitions, depth=depth + 1) for one in alternatives)
    return _single_type(schema, definitions, depth=depth)


def _single_type(schema: Mapping[str, Any], definitions: dict[str, Any], *, depth: int) -> str:
    kind = schema.get("type")
    if kind == "array":
        return f"{_type(schema.get('items'), definitions, depth=depth + 1)}[]"
    if kind == "object" and isinstance(schema.get("properties"), dict):
        return "\n".join(["{", *_members(schema, definitions, depth=depth + 1), "}"])
    return _SCALARS.get(kind, "any") if isinstance(kind, str) else "any"


def _alternatives(schema: Mapping[str, Any]) -> list[Any]:
    for key in ("anyOf", "oneOf"):
        if isinstance(given := schema.get(key), list):
            return given
    kinds = schema.get("type")
    if not isinstance(kinds, list):
        return []
    # Each kind once: one that is repeated would show what is below it as often, at every level.
    names = dict.fromkeys(one if isinstance(one, str) else "any" for one in kinds)
    return [{**schema, "type": one} for one in names]


def _has_default(schema: Any) -> bool:
    default = schema.get("default") if isinstance(schema, dict) else None
    return isinstance(default, str | int | float)


def _text(schema: Any, key: str) -> str:
    value = schema.get(key) if isinstance(schema, dict) else None
    return value if isinstance(value, str) else ""
