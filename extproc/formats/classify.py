"""Which wire format a request line speaks; bodies are read by the format it finds.

Floor 1, pure. A path is decoded exactly once and must then be what it looks like: every spelling
that another parser on the way could read as another path is nobody's path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from extproc.formats import FORMATS
from extproc.formats.base import Call, WireFormat
from extproc.model import RequestHead

CONTROL = "control"

# Frameworks obey these in place of the method we see.
_METHOD_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")
_VISIBLE_ASCII = re.compile(r"/[\x21-\x7e]*")
# Encoded slash, backslash, dot, percent and semicolon, and every control character.
_ENCODED_TRICK = re.compile(r"%(?:2f|5c|2e|25|3b|[01][0-9a-f]|7f)", re.IGNORECASE)
_BAD_ESCAPE = re.compile(r"%(?![0-9a-f]{2})", re.IGNORECASE)
_TRICK = re.compile(r"//|[\\;#]|/\.{1,2}(?:/|$)")

_DIALECT_PATHS = (("/v1/messages", "anthropic_messages"), ("/v1/chat/", "openai_chat"))
_DIALECT_HEADERS = (("anthropic-version", "anthropic_messages"), ("x-api-key", "anthropic_messages"))
_DEFAULT_DIALECT = "openai_chat"


def claim(method: str, path: str, headers: Mapping[str, str]) -> Call | None:
    """What a request line means, or None where no format knows it; `path` may have a query."""
    clean = clean_path(path)
    if clean is None or any(name in headers for name in _METHOD_OVERRIDES):
        return None
    asked = headers.get("access-control-request-method", "") if method == "OPTIONS" else method
    call = next(filter(None, (each.claim(asked, clean, headers) for each in FORMATS.values())), None)
    # A browser asking whether it may call spends nothing, whatever the call would.
    return replace(call, operation=CONTROL) if call and method == "OPTIONS" else call


def clean_path(path: str) -> str | None:
    """The path decoded once and without its query, or None if it can be read in two ways."""
    raw = path.partition("?")[0]
    if not _VISIBLE_ASCII.fullmatch(raw) or _ENCODED_TRICK.search(raw) or _BAD_ESCAPE.search(raw):
        return None
    if _TRICK.search(raw):
        return None
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return None


def dialect(head: RequestHead) -> WireFormat:
    """The format in which to tell this caller of an error, whoever's path it is."""
    for prefix, name in _DIALECT_PATHS:
        if head.path_only.startswith(prefix):
            return FORMATS[name]
    for header, name in _DIALECT_HEADERS:
        if header in head.headers:
            return FORMATS[name]
    return FORMATS[_DEFAULT_DIALECT]
