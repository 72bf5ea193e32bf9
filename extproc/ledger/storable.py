"""Values as records and databases take them. Pure.

What clients write ends up here: a model's name may hold a NUL or half a surrogate pair, and a number
as many digits as a body has room for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, TypeVar, cast

# What people group and filter by is shorter; an index entry of Postgres may have 2,700 bytes.
_LONGEST_COLUMN: Final = 200
_INT64_MAX: Final = 2**63 - 1

T = TypeVar("T")


def storable(value: T) -> T:
    """The same value with all its texts Unicode and all its numbers of 64 bits."""
    return cast("T", _storable(value))


def _storable(value: Any) -> Any:
    converted = value
    match value:
        case Enum() | bool():
            pass
        case str():
            converted = value.encode("utf-8", "replace").decode("utf-8")
        case int():
            converted = max(-_INT64_MAX, min(value, _INT64_MAX))
        case tuple():
            converted = tuple(_storable(each) for each in value)
        case Mapping():
            converted = {_storable(name): _storable(each) for name, each in value.items()}
        case _ if dataclasses.is_dataclass(value):
            fields = {each.name: _storable(getattr(value, each.name)) for each in dataclasses.fields(value)}
            made_like: Any = type(value)
            converted = made_like(**fields)
    return converted


def column(text: str) -> str:
    """The text as a column of either database holds it: no NUL, which Postgres refuses, and not long."""
    if text.isascii() and "\0" not in text:
        return text[:_LONGEST_COLUMN]
    return storable(text[:_LONGEST_COLUMN]).replace("\0", "\ufffd")
