"""Sample objects with one thing changed that a hurried author would change."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from extproc.policy import documents

SAMPLES = Path(__file__).parent.parent.parent / "policies"
OBJECTS: tuple[dict[str, Any], ...] = tuple(
    document.value
    for path in sorted(SAMPLES.glob("*.yaml"))
    for document in documents.read(path.name, path.read_bytes())[0]
)
# Of every type that YAML has, and texts that are something elsewhere.
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    3,
    0.5,
    10**30,
    "",
    "on",
    "yes",
    "1m",
    "é\u2028",
    [],
    {},
    [None],
    [[]],
    {"a": 1},
)

Place = tuple[str | int, ...]


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    """Everywhere in a value below its top."""
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, step)
            yield from places(inner, (*path, step))


@st.composite
def mutated(draw: st.DrawFn) -> tuple[dict[str, Any], Place]:
    """An object with one field dropped, renamed, added or retyped, and where."""
    value = copy.deepcopy(draw(st.sampled_from(OBJECTS)))
    place = draw(st.sampled_from(list(places(value))))
    block: Any = value
    for step in place[:-1]:
        block = block[step]
    last, change = place[-1], draw(st.sampled_from(["drop", "rename", "retype", "add"]))
    if change == "drop":
        del block[last]
    elif change == "retype":
        block[last] = draw(st.sampled_from(VALUES))
    elif isinstance(block, dict):
        name = draw(st.sampled_from([f"{last}s", str(last).upper(), "x", ""]))
        block[name] = block.pop(last) if change == "rename" else draw(st.sampled_from(VALUES))
        place = (*place[:-1], name)
    return value, place
