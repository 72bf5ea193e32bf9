"""Contents and their parts, read alike in every body of Google's generative calls.

Floor 1, pure. Sources: google-genai `types.Part`, recorded requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from extproc.formats import fields
from extproc.formats.base import JSON
from extproc.formats.content import Content
from extproc.formats.fields import wrong
from extproc.formats.google.proto_json import camel, messages, names, repeated
from extproc.formats.images import size_of_base64
from extproc.formats.strict_json import compact_json

_CONTENT = names("role", "parts")
_PART = names(
    *("text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode"),
    *("codeExecutionResult", "toolCall", "toolResponse"),
)
_BLOB = names("mimeType", "data", "fileUri")
_FUNCTION = names("name", "args", "response", "parts", "code", "output")
# What a part says about itself; the model does not read it as text.
_ABOUT_A_PART = frozenset({"thought", "thoughtSignature", "videoMetadata", "mediaResolution", "partMetadata"})
_URL_SAFE = str.maketrans("-_", "+/")
# Far beyond what the header of an image needs; the rest of its data is not copied.
_HEAD_CHARS = 64 * 1024


def read_content(value: Any, at: str, content: Content, role: str) -> None:
    """Read one message: an object with parts, or what SDKs take in its place, parts or a string.

    An empty `role` is text that nobody says; a content's own role wins over "user".
    """
    if isinstance(value, str):
        content.text(value)
    elif isinstance(value, list):
        _read_parts({"parts": value}, at, content)
    elif isinstance(value, dict):
        found = _CONTENT.read(value, at)
        said = fields.name(found, "role", at)
        role = said if said and role == "user" else role
        _read_parts(found, at, content)
    else:
        raise wrong(at, "must be an object with parts, or a string")
    content.end_message(role)


def _read_parts(holder: JSON, at: str, content: Content) -> None:
    for here, part in repeated(holder, "parts", at):
        if isinstance(part, str):
            content.text(part)
        elif isinstance(part, dict):
            _read_part(part, here, content)
        else:
            raise wrong(here, "must be an object or a string")


def _read_part(part: JSON, at: str, content: Content) -> None:
    """Read one part of a message."""
    found = _PART.read(part, at)
    for key in found:
        if key == "text":
            content.text(fields.string(found, key, at))
        else:
            _PART_READERS[key](fields.mapping(found, key, at), f"{at}/{key}", content)
    if not found:
        rest = {key: value for key, value in part.items() if camel(key) not in _ABOUT_A_PART}
        # A part of a kind we do not know is counted as the text it is written in.
        content.text(compact_json(rest) if rest else "")


def _read_inline(blob: JSON, at: str, content: Content) -> None:
    found = _BLOB.read(blob, at)
    data = fields.string(found, "data", at)
    read_media(fields.string(found, "mimeType", at), data, content)


def _read_file(blob: JSON, at: str, content: Content) -> None:
    read_media(fields.string(_BLOB.read(blob, at), "mimeType", at), "", content)


def read_media(mime_type: str, data: str, content: Content) -> None:
    """Media by its type; `data` is base64 in either alphabet, empty where it is not in the body."""
    kind = mime_type.partition("/")[0].strip().lower()
    if kind == "image":
        content.image(size_of_base64(data[:_HEAD_CHARS].translate(_URL_SAFE)) if data else None)
    else:
        modality = kind if kind in ("audio", "video") else "file"
        content.other(modality, len(data) * 3 // 4 if data else None)


def _read_function(call: JSON, at: str, content: Content) -> None:
    found = _FUNCTION.read(call, at)
    content.text(fields.string(found, "name", at))
    for key in ("args", "response"):
        if key in found:
            content.text(compact_json(found[key]))
    for here, part in messages(found, "parts", at):
        _read_part(part, here, content)


def _read_code(code: JSON, at: str, content: Content) -> None:
    found = _FUNCTION.read(code, at)
    for key in ("code", "output"):
        content.text(fields.string(found, key, at))


def _read_as_text(value: JSON, _at: str, content: Content) -> None:
    content.text(compact_json(value))


_PART_READERS: Mapping[str, Callable[[JSON, str, Content], None]] = MappingProxyType(
    {
        "inlineData": _read_inline,
        "fileData": _read_file,
        "functionCall": _read_function,
        "functionResponse": _read_function,
        "executableCode": _read_code,
        "codeExecutionResult": _read_code,
        "toolCall": _read_as_text,
        "toolResponse": _read_as_text,
    }
)
