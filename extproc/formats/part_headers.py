"""The headers of a multipart form and of its parts, in the one spelling that all parsers share.

Floor 1, pure. Sources: RFC 2046 section 5.1.1 (boundary), RFC 7578 section 4, RFC 5987 (`filename*`),
what SDKs send: openai-python and -node, .NET's HttpClient, curl, browsers.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.strict_json import malformed

_FORM = "multipart/form-data"

# A boundary that ends in a space, holds a comma, or needs quoting and has none is read differently.
_BOUNDARY = re.compile(r"[0-9A-Za-z'+_.-]{1,70}")
_QUOTED_BOUNDARY = re.compile(r'"([0-9A-Za-z\'()+_./:=? -]{0,69}[0-9A-Za-z\'()+_./:=?-])"')

_PARAMETER = re.compile(r""";[ \t]*([A-Za-z*-]+)=("[^"\\]*"|[A-Za-z0-9!#$%&'*+.^_`|~-]+)[ \t]*""")
# A percent sign or a backslash in a name is an escape to some parsers, and itself to others.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}(?:\[[A-Za-z0-9_.-]{0,64}\]){0,4}")
_EXTENDED = re.compile(r"utf-8'[A-Za-z-]*'((?:[A-Za-z0-9!#$&+.^_`|~-]|%[0-9A-Fa-f]{2})*)", re.IGNORECASE)
_ENCODED_WORD = re.compile(r"=\?utf-8\?B\?([A-Za-z0-9+/=]*)\?=", re.IGNORECASE)

# Of parts without a file name: busboy, for one, makes a file of any octet-stream.
_TEXT_TYPES = frozenset({"", "text/plain", "application/json", "application/sdp"})
# They leave the content as it is; the others change it for those who obey them.
_TRANSFER_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHeaders:
    """What a part says of itself; with a `filename` it is a file."""

    name: str
    filename: str | None
    content_type: str  # media type in lower case


def read_boundary(content_type: str) -> bytes:
    """The boundary of a form. Raises `RequestRefused`: 415 for another type, 400 for a doubtful one."""
    media_type, parameters = _parameters(content_type)
    if media_type != _FORM:
        message = f"This content-type is not read here. Accepted: {_FORM}."
        raise RequestRefused(status=415, code=Reason.ENCODING_UNSUPPORTED, message=message)
    if parameters is None or not parameters.keys() <= {"boundary", "charset"}:
        raise malformed("has a content-type with parameters that are not read here")
    boundary = parameters.get("boundary", "")
    quoted = _QUOTED_BOUNDARY.fullmatch(boundary)
    if not quoted and not _BOUNDARY.fullmatch(boundary):
        raise malformed("has no boundary in its content-type, or a doubtful one")
    return (quoted[1] if quoted else boundary).encode()


def read_headers(headers: list[tuple[str, str]]) -> PartHeaders:
    """The headers of one part. Raises `RequestRefused` (400, 415) for what two parsers could differ on."""
    named = {name.lower(): value for name, value in headers}
    if len(named) != len(headers) or not all(value.isprintable() for value in named.values()):
        raise malformed("has a form field with a repeated or unprintable header")
    kind, parameters = _parameters(named.get("content-disposition", ""))
    if kind != "form-data" or parameters is None or not parameters.keys() <= _DISPOSITION_PARAMETERS:
        raise malformed("has a form field whose content-disposition is not read here")
    name = parameters.get("name", "").strip('"')
    if not _NAME.fullmatch(name):
        raise malformed("has a form field without a plain name")
    filename = _filename(parameters, name)
    content_type = _content_type(named.get("content-type", ""), name)
    if filename is None and content_type not in _TEXT_TYPES:
        raise _unsupported("content-type", name)
    if named.get("content-transfer-encoding", "").strip().lower() not in _TRANSFER_ENCODINGS:
        raise _unsupported("content-transfer-encoding", name)
    return PartHeaders(name=name, filename=filename, content_type=content_type)


_DISPOSITION_PARAMETERS = frozenset({"name", "filename", "filename*"})


def _parameters(header: str) -> tuple[str, dict[str, str] | None]:
    """First value and parameters, quotes kept; None for those that cannot be read in one way only."""
    value, semicolon, rest = header.partition(";")
    parameters: dict[str, str] = {}
    at, text = 0, semicolon + rest
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None or match[1].lower() in parameters:
            return value.strip().lower(), None
        parameters[match[1].lower()] = match[2]
        at = match.end()
    return value.strip().lower(), parameters


def _filename(parameters: dict[str, str], name: str) -> str | None:
    """A part without `filename` is no file to some parsers, whatever `filename*` says."""
    plain, extended = parameters.get("filename"), parameters.get("filename*")
    if plain is None and extended is None:
        return None
    filename = (plain or "").strip('"')
    if not filename:
        raise malformed(f"has a file without a name in the form field {name}")
    if extended is not None and _decoded(filename) != _extended(extended):
        raise malformed(f"has a file with two names in the form field {name}")
    return filename


def _extended(value: str) -> str | None:
    match = _EXTENDED.fullmatch(value)
    return unquote_to_bytes(match[1]).decode(errors="replace") if match else None


def _decoded(filename: str) -> str:
    """.NET writes an encoded word beside `filename*` where a name is not ASCII."""
    match = _ENCODED_WORD.fullmatch(filename)
    if match is None:
        return filename
    try:
        return base64.b64decode(match[1], validate=True).decode(errors="replace")
    except binascii.Error:
        return filename


def _content_type(header: str, name: str) -> str:
    media_type, parameters = _parameters(header)
    charset = "utf-8" if parameters is None else parameters.get("charset", "utf-8").strip('"').lower()
    is_nested = media_type.startswith("multipart/")
    if (parameters is None and ";" in header) or charset not in ("utf-8", "utf8") or is_nested:
        raise _unsupported("content-type", name)
    return media_type


def _unsupported(header: str, name: str) -> RequestRefused:
    message = f"The form field {name} has a {header} that is not read here."
    return RequestRefused(status=415, code=Reason.ENCODING_UNSUPPORTED, message=message)
