"""What both versions of Cohere's API take alike: embeds, reranks, documents, tools.

Floor 1, pure. Source: cohere-python `v2/client` and `base_client`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from extproc.formats import fields
from extproc.formats.base import JSON, Call, ParsedRequest
from extproc.formats.content import Content
from extproc.formats.images import size_of_url
from extproc.formats.strict_json import compact_json
from extproc.model import AIRequest

_PART_KEYS = frozenset({"type", "text", "thinking", "image_url", "document"})


def read_embed(body: JSON, call: Call) -> ParsedRequest:
    """Texts, images and mixed inputs become vectors; `max_tokens` cuts the input here."""
    if all(body.get(key) is None for key in ("texts", "images", "inputs")):
        raise fields.not_this_call("/texts, /images or /inputs is required: this path takes an embed")
    content = Content()
    inputs = [*strings(body, "texts"), *strings(body, "images")]
    for at, text in inputs:
        if at.startswith("/images"):
            content.image(size_of_url(text))
        else:
            content.text(text)
            content.end_message("")
    mixed = list(fields.objects(body, "inputs"))
    for at, item in mixed:
        read_parts(item, "content", at, content)
        content.end_message("")
    return parsed(body, call, content, message_count=len(inputs) + len(mixed))


def read_rerank(body: JSON, call: Call) -> ParsedRequest:
    """A query and what is ranked by it; the query is read with every document."""
    if body.get("query") is None or body.get("documents") is None:
        raise fields.not_this_call("/query and /documents are required: this path takes a rerank")
    content = Content()
    content.text(fields.string(body, "query"))
    content.end_message("")
    count = read_documents(body, "documents", content)
    content.end_message("")
    return parsed(body, call, content, message_count=count)


def parsed(
    body: JSON,
    call: Call,
    content: Content,
    *,
    message_count: int,
    tools: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
    **declared: Any,
) -> ParsedRequest:
    """A request of whichever operation; `declared` are further fields of `AIRequest`."""
    names, definitions = tools
    request = AIRequest(
        api=call.api,
        provider=call.provider,
        operation=call.operation,
        model=fields.model(body, call),
        models=fields.models(fields.models_of(body, call)),
        message_count=message_count,
        tools=names,
        modalities=tuple(sorted(content.modalities)),
        **declared,
    )
    return ParsedRequest(request=request, prompt=content.prompt(definitions))


def strings(body: JSON, key: str, at: str = "") -> list[tuple[str, str]]:
    """Pointer and value of each string in the list at `key`; nothing where absent."""
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise fields.wrong(f"{at}/{key}", "must be a list")
    for position, item in enumerate(value):
        if not isinstance(item, str):
            raise fields.wrong(f"{at}/{key}/{position}", "must be a string")
    return [(f"{at}/{key}/{position}", item) for position, item in enumerate(value)]


def read_documents(body: JSON, key: str, content: Content) -> int:
    """Documents are strings, or objects of any fields, which are read as the text they are written in."""
    value = body.get(key)
    if value is None:
        return 0
    if not isinstance(value, list):
        raise fields.wrong(f"/{key}", "must be a list")
    for position, item in enumerate(value):
        if not isinstance(item, str | dict):
            raise fields.wrong(f"/{key}/{position}", "must be a string or an object")
        content.text(item if isinstance(item, str) else compact_json(item))
    return len(value)


def read_parts(holder: JSON, key: str, at: str, content: Content) -> None:
    """A string, or a list of parts."""
    value = holder.get(key)
    if isinstance(value, str):
        content.text(value)
    elif isinstance(value, list):
        for here, part in fields.objects(holder, key, at):
            fields.check_case(part, _PART_KEYS, here)
            _PART_READERS.get(fields.string(part, "type", here), _read_unknown)(part, here, content)
    elif value is not None:
        raise fields.wrong(f"{at}/{key}", "must be a string or a list of parts")


def _read_text(part: JSON, at: str, content: Content) -> None:
    for key in ("text", "thinking"):
        content.text(fields.string(part, key, at))


def _read_image(part: JSON, at: str, content: Content) -> None:
    image = fields.mapping(part, "image_url", at)
    url = fields.string(image, "url", f"{at}/image_url")
    content.image(size_of_url(url), fields.string(image, "detail", f"{at}/image_url") or "auto")


def _read_unknown(part: JSON, _at: str, content: Content) -> None:
    """Documents, and parts of a kind we do not know, are counted as the text they are written in."""
    content.text(compact_json(part))


_PART_READERS: Mapping[str, Callable[[JSON, str, Content], None]] = MappingProxyType(
    {"text": _read_text, "thinking": _read_text, "image_url": _read_image}
)
