"""JSON of any shape, with the keys a format looks for: what no parser may stumble over."""

from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

from extproc.errors import RequestRefused
from tests.formats.calls import parsed


def values(*keys: str) -> st.SearchStrategy[Any]:
    """Any JSON value; objects use these keys."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=4),
        max_leaves=12,
    )


def bodies(*keys: str) -> st.SearchStrategy[dict[str, Any]]:
    """Any JSON object with these keys, at every level."""
    return st.dictionaries(st.sampled_from(keys), values(*keys), max_size=6)


def read(path: str, body: dict[str, Any], *, host: str = "gateway.example:10000") -> None:
    """Read a body; whatever is wrong with it is a refusal, and every other exception a failure."""
    with suppress(RequestRefused):
        parsed(path, body, host=host)
