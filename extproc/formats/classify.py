"""Which wire format a request line speaks; bodies are read by the format it finds.

Floor 1, pure. A path is decoded exactly once and must then be what it looks like: every spelling
that another parser on the way could read as another path is nobody's path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from urllib.parse import parse_qsl, unquote_to_bytes

from extproc.formats import FORMATS
from extproc.formats.base import CONTROL, BodyKind, Call, RequestLine, WireFormat
from extproc.formats.fields import MAX_NAME_CHARS
from extproc.formats.providers import Provider, known_at
from extproc.model import RequestHead

# Frameworks obey these in place of the method we see.
_METHOD_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")
_METHOD_PARAMETERS = frozenset({"$httpmethod", "_method", "x-http-method-override"})
_VISIBLE_ASCII = re.compile(r"/[\x21-\x7e]*")
# Encoded backslash, dot, percent and semicolon, every control character, and an encoded slash that
# makes an empty part or one of dots: whoever decodes it could then read another path.
_ENCODED_TRICK = re.compile(
    r"%(?:5c|2e|25|3b|[01][0-9a-f]|7f|2f\.{0,2}(?:%2f|/|$))|/\.{0,2}%2f", re.IGNORECASE
)
_BAD_ESCAPE = re.compile(r"%(?![0-9a-f]{2})", re.IGNORECASE)
_TRICK = re.compile(r"//|[\\;#]|/\.{1,2}(?:/|$)")
# More names than any API has.
_MAX_PARAMETERS = 64
# The longest name that DNS has.
_MAX_HOST_CHARS = 253

# Where the path says nothing, a header does; `openai_chat` speaks to everybody else.
_DIALECT_PATHS = (
    (re.compile(r"/v1/(?:messages|complete)\b"), "anthropic_messages"),
    (re.compile(r"/v1/chat/"), "openai_chat"),
    (re.compile(r"/v1(?:beta|alpha)\d*/(?:models|interactions|tunedModels)"), "gemini"),
    (re.compile(r"/v1\w*/projects/"), "vertex"),
    (re.compile(r"/model/"), "bedrock_converse"),
    (re.compile(r"/endpoints/[^/]+/\w*-?invocations"), "tgi"),
    (re.compile(r"/v2/(?:chat|embed|rerank)\b"), "cohere_v2"),
    (re.compile(r"/api/(?:chat|generate|embed)"), "ollama"),
    (re.compile(r"/mcp\b"), "mcp"),
)
_DIALECT_HEADERS = (
    ("anthropic-version", "anthropic_messages"),
    ("x-goog-api-key", "gemini"),
    ("mcp-protocol-version", "mcp"),
    ("x-amz-date", "bedrock_converse"),
    ("x-api-key", "anthropic_messages"),
)
_DEFAULT_DIALECT = "openai_chat"


@dataclass(frozen=True, slots=True)
class _Clean:
    """A path and query that can be read in one way only."""

    segments: tuple[str, ...]  # without the empty one that a slash at the end leaves
    query: Mapping[str, str]


def claim(head: RequestHead, providers: Iterable[Provider] = ()) -> Call | None:
    """What a request line means, or None where no format knows it; `providers` come before the known.

    Raises `RequestRefused` where a format knows the call and it must not pass whatever its body says.
    """
    clean = _clean(head)
    if clean is None or any(name in head.headers for name in _METHOD_OVERRIDES):
        return None
    is_preflight = head.method == "OPTIONS"
    method = head.headers.get("access-control-request-method", "") if is_preflight else head.method
    host = _without_port(head.host.lower())
    if len(host) > _MAX_HOST_CHARS:
        return None
    own = (each for each in providers if each.matches_host(host))
    candidates = chain(own, known_at(host))
    found = (_claim(each, method, host, clean, head.headers) for each in candidates)
    call = next(filter(None, found), None)
    # A browser asking whether it may call spends nothing, whatever the call would.
    return replace(call, operation=CONTROL, body=BodyKind.NONE) if call and is_preflight else call


def _claim(
    provider: Provider, method: str, host: str, clean: _Clean, headers: Mapping[str, str]
) -> Call | None:
    stripped = provider.strip(clean.segments)
    if stripped is None:
        return None
    # A path that ends with the base path is that path's root, and `/` has one empty segment.
    rest, model = stripped[0] or ("",), stripped[1]
    is_flat = not any("/" in segment for segment in rest)
    line = RequestLine(
        method=method,
        path="/" + "/".join(rest) if is_flat else "",
        segments=rest,
        query=clean.query,
        headers=headers,
        host=host,
        provider=provider.name,
    )
    for name in provider.formats:
        wire_format = FORMATS[name]
        call = wire_format.claim(line)
        if call:
            model = (model or call.model).lower()
            if not _is_name(model):
                return None
            return replace(
                call,
                provider=provider.name or call.provider or wire_format.provider,
                model=model,
                # A format may have put in what it must compare with the body.
                query={**clean.query, **call.query} if call.query else clean.query,
            )
    return None


def _is_name(model: str) -> bool:
    """Whether it may end up in rules, counters and messages: as `fields.name`."""
    return len(model) <= MAX_NAME_CHARS and model.isprintable() and model == model.strip()


def _clean(head: RequestHead) -> _Clean | None:
    raw = head.path_only
    if not _VISIBLE_ASCII.fullmatch(raw) or _ENCODED_TRICK.search(raw) or _BAD_ESCAPE.search(raw):
        return None
    if _TRICK.search(raw):
        return None
    try:
        segments = tuple(unquote_to_bytes(part).decode() for part in raw[1:].removesuffix("/").split("/"))
    except UnicodeDecodeError:
        return None
    query = _parameters(head.query)
    return None if query is None else _Clean(segments, query)


def _parameters(query: str) -> Mapping[str, str] | None:
    """The query's parameters; None where two readers could see different ones, or another method."""
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS, encoding="utf-8"
        )
    except ValueError:
        return None
    parameters = dict(pairs)
    folded = {name.lower() for name in parameters}
    if len(folded) != len(pairs) or folded & _METHOD_PARAMETERS:
        return None
    return parameters


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def dialect(head: RequestHead) -> WireFormat:
    """The format in which to tell this caller of an error, whoever's path it is."""
    for pattern, name in _DIALECT_PATHS:
        if pattern.match(head.path_only):
            return FORMATS[name]
    for header, name in _DIALECT_HEADERS:
        if header in head.headers:
            return FORMATS[name]
    return FORMATS[_DEFAULT_DIALECT]
