"""Multipart form bodies that every parser on the way reads alike, or nothing.

Floor 1, pure. Source: RFC 7578.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A file of a form; its content is read only where a call's meaning is in it."""

    filename: str
    content_type: str
    content: bytes


Form = dict[str, str | FilePart]


def parse_form(data: bytes, content_type: str) -> Form:
    """The form that `data` is; a repeated field whose name ends in `[]` keeps its first value.

    Raises `RequestRefused` (400, 415) naming problem and field, never a value.
    """
    raise NotImplementedError
