"""Field names of protobuf's JSON mapping, which Google's APIs read in two spellings.

Floor 1, pure. `maxOutputTokens` and `max_output_tokens` are one field: either is taken, both at once
are refused, and so is every spelling that a lenient reader would take for it.
Source: protobuf, ProtoJSON format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from extproc.formats.fields import wrong

JSON = Mapping[str, Any]

_CAPITAL = re.compile(r"(?<=[a-z0-9])([A-Z])")
_UNDERSCORE = re.compile(r"(?<=[a-z0-9])_([a-z0-9])")


def camel(name: str) -> str:
    """The JSON name of a field: `google_search` is `googleSearch`."""
    return _UNDERSCORE.sub(lambda match: match.group(1).upper(), name)


def snake(name: str) -> str:
    """The proto name of a field: `googleSearch` is `google_search`."""
    return _CAPITAL.sub(lambda match: "_" + match.group(1).lower(), name)


def _fold(name: str) -> str:
    return name.replace("_", "").casefold()


_folded = lru_cache(maxsize=1024)(_fold)


@dataclass(frozen=True, slots=True)
class Names:
    """The fields that are read of one message, by every spelling that is taken."""

    canonical: Mapping[str, str]
    folded: frozenset[str]

    def read(self, message: JSON, at: str) -> JSON:
        """The named fields that are there, under their JSON names; `null` counts as absent.

        Raises `RequestRefused` (400) where one comes in two spellings, or in one that is only near.
        """
        found: dict[str, Any] = {}
        for key, value in message.items():
            name = self.canonical.get(key)
            if name is None:
                # A key of this length is no misspelt name, and must not push names out of the cache.
                if len(key) < _LONGEST_NAME and _folded(key) in self.folded:
                    raise wrong(at or "/", "has a key that differs from a field of this call only in case")
            elif name in found:
                raise wrong(f"{at}/{name}", "comes in two spellings")
            else:
                found[name] = value
        return {name: value for name, value in found.items() if value is not None}


_LONGEST_NAME = 64


def names(*fields: str) -> Names:
    """The names of these fields, given as JSON names."""
    canonical = {spelling: name for name in fields for spelling in (name, snake(name))}
    return Names(canonical, frozenset(_fold(name) for name in fields))


def repeated(message: JSON, key: str, at: str) -> Iterator[tuple[str, Any]]:
    """Pointer and value of each item at `key`; one that comes without a list around it is taken too."""
    value = message.get(key)
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield f"{at}/{key}/{position}", item
    elif value is not None:
        yield f"{at}/{key}", value


def messages(message: JSON, key: str, at: str) -> Iterator[tuple[str, JSON]]:
    """As `repeated`, and each an object."""
    for here, item in repeated(message, key, at):
        if not isinstance(item, dict):
            raise wrong(here, "must be an object")
        yield here, item
