"""Multipart form bodies that every parser on the way reads alike, or nothing.

Floor 1, pure. Frameworks disagree about duplicates, quoting, preambles, lone line feeds and what
makes a part a file; whatever two of them could read differently is refused. Source: RFC 7578.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import multipart  # type: ignore[import-untyped]  # its wheel has no types

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.part_headers import PartHeaders, read_boundary, read_headers
from extproc.formats.strict_json import KNOWN_FIELDS, malformed, shown

# Real forms have below twenty; every part costs a microsecond or ten.
MAX_PARTS = 128
_MAX_HEADERS = 8
_MAX_HEADER_BYTES = 4096

# What a call means depends on these: one value each, under their plain name.
_SINGLE = frozenset({"model", "purpose", "stream", "file", "session", "sdp", "n", "prompt", "max_tokens"})
# HTML's own field, by which a form declares another charset.
_CHARSET_FIELD = "_charset_"
_HEADER_NAME = re.compile(rb"[A-Za-z-]{1,64}")
_DIGITS = re.compile(r"[1-9][0-9]{0,9}")
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A file of a form; its content is read only where a call's meaning is in it."""

    filename: str
    content_type: str
    content: bytes


Value = str | FilePart
# A field whose name ends in `[]` holds a list, however often it comes; every other comes once.
Form = dict[str, Value | list[Value]]


def parse_form(data: bytes, content_type: str) -> Form:
    """The form that `data` is.

    Raises `RequestRefused` (400, 415) naming problem and field, never a value.
    """
    boundary = read_boundary(content_type)
    if not data:
        raise RequestRefused(status=400, code=Reason.BODY_MISSING, message="This call needs a request body.")
    parts = _parts(data, boundary)
    _check_delimiters(data, b"--" + boundary, len(parts))
    _check_header_names(data, b"--" + boundary + b"\r\n")
    form: Form = {}
    seen: dict[str, str] = {}
    for headers, content in parts:
        _check_name(headers.name, seen)
        value = _value(headers, content)
        listed = form.setdefault(headers.name, []) if headers.name.endswith("[]") else None
        if isinstance(listed, list):
            listed.append(value)
        else:
            form[headers.name] = value
    return form


def typed(form: Mapping[str, Any], *, flags: frozenset[str], counts: frozenset[str]) -> dict[str, Any]:
    """The form as the JSON body it stands for: `flags` as booleans, `counts` as numbers.

    Raises `RequestRefused` (400) for a spelling that one upstream would take and another would not.
    """
    body = dict(form)
    for name in flags & form.keys():
        value = form[name]
        body[name] = _FLAGS.get(value.lower()) if isinstance(value, str) else None
        if body[name] is None:
            raise malformed(f"must say true or false in the form field {name}")
    for name in counts & form.keys():
        value = form[name]
        if not isinstance(value, str) or not _DIGITS.fullmatch(value):
            raise malformed(f"must have a whole number in the form field {name}")
        body[name] = int(value)
    return body


def _parts(data: bytes, boundary: bytes) -> list[tuple[PartHeaders, bytes]]:
    parser = multipart.PushMultipartParser(
        boundary,
        max_header_size=_MAX_HEADER_BYTES,
        max_header_count=_MAX_HEADERS,
        max_segment_count=MAX_PARTS,
        strict=True,
    )
    parts: list[tuple[PartHeaders, bytes]] = []
    contents: list[bytes] = []
    headers: PartHeaders | None = None
    try:
        with parser:
            for event in parser.parse(data):
                if isinstance(event, multipart.MultipartSegment):
                    headers, contents = read_headers(event.headerlist), []
                elif event:
                    contents.append(bytes(event))
                elif headers is not None:
                    parts.append((headers, b"".join(contents)))
    except multipart.ParserLimitReached:
        raise malformed(
            f"has more than {MAX_PARTS} form fields, or one with more than {_MAX_HEADERS} headers or "
            f"{_MAX_HEADER_BYTES} bytes of them"
        ) from None
    except multipart.MultipartError:
        raise malformed("is not the multipart form that its content-type says") from None
    return parts


def _check_delimiters(data: bytes, delimiter: bytes, parts: int) -> None:
    """Nothing before the first delimiter or after the last, and none that only some parsers see."""
    if not data.startswith(delimiter):
        raise malformed("has text before its first form field")
    end = len(data) - (2 if data.endswith(b"--\r\n") else 0)
    if not data.endswith(delimiter + b"--", 0, end):
        raise malformed("has text after its last form field, or no end")
    if data.count(delimiter) != parts + 1:
        raise malformed("has its form's boundary inside a form field")


def _check_header_names(data: bytes, opening: bytes) -> None:
    """Our parser trims the names of headers; one that does not would miss the header."""
    at = 0
    while (at := data.find(opening, at)) >= 0:
        at += len(opening)
        for line in data[at : data.find(b"\r\n\r\n", at)].split(b"\r\n"):
            if not _HEADER_NAME.fullmatch(line.partition(b":")[0]):
                raise malformed("has a form field with a doubtful header")


def _check_name(name: str, seen: dict[str, str]) -> None:
    """`seen` maps each name without case and brackets to how it was spelled first."""
    base, bracket, _ = name.partition("[")
    fold = base.lower()
    if fold == _CHARSET_FIELD:
        raise malformed("declares a charset in a form field")
    if base != fold and fold in KNOWN_FIELDS and base not in KNOWN_FIELDS:
        raise malformed(f"has a form field that differs from {fold} only in case")
    if bracket and fold in _SINGLE:
        raise malformed(f"has the form field {fold} under a name with brackets")
    key = fold + name[len(base) :].lower() if bracket and not name.endswith("[]") else fold
    if key not in seen:
        seen[key] = name
    elif seen[key] != name:
        raise malformed(f"has form fields that differ only in case or brackets: {shown(fold)}")
    elif not name.endswith("[]"):
        raise malformed(f"has the form field {shown(name)} twice")


def _value(headers: PartHeaders, content: bytes) -> str | FilePart:
    if headers.filename is not None:
        return FilePart(filename=headers.filename, content_type=headers.content_type, content=content)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise malformed(f"is not UTF-8 in the form field {shown(headers.name)}") from None
