"""Answers as JSON, and back. Floor 3. The names are those of the values; times and money stay integers."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from extproc.errors import LedgerUnavailable

T = TypeVar("T")

# To make one takes milliseconds.
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def written(answer: object) -> bytes:
    """The answer as JSON; a frozen dataclass of this room."""
    return to_json(answer)


def read(kind: type[T], content: bytes) -> T:
    """The answer of this kind. Raises `LedgerUnavailable` for anything else."""
    adapter = _ADAPTERS.get(kind) or _ADAPTERS.setdefault(kind, TypeAdapter(kind))
    try:
        answer: T = adapter.validate_json(content)
    except ValidationError:
        # Its words repeat what was read.
        raise LedgerUnavailable(
            f"the answer is no {kind.__name__} of this release: is it another release, or no sidecar?"
        ) from None
    return answer
