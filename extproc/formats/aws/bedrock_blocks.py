"""The content blocks of Bedrock Converse, which Nova's native bodies share.

Floor 1, pure. A block is an object with one member, named after its kind. Source: `ContentBlock` in
Bedrock Runtime's service model (2023-09-30), as botocore ships it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from extproc.formats import fields
from extproc.formats.base import JSON
from extproc.formats.content import Content
from extproc.formats.images import size_of_base64
from extproc.formats.strict_json import compact_json


def read_blocks(holder: JSON, key: str, at: str, content: Content) -> None:
    """Tell `content` what the list of blocks at `key` holds; nothing where it is absent."""
    for here, block in fields.objects(holder, key, at):
        fields.check_case(block, _BLOCK_KEYS, here)
        for kind, value in block.items():
            if value is None:
                continue
            read = _BLOCK_READERS.get(kind)
            if read is None:
                # A block of a kind we do not know is counted as the text it is written in.
                content.text(compact_json(value))
            else:
                read(block, kind, here, content)


def _read_text(holder: JSON, key: str, at: str, content: Content) -> None:
    content.text(fields.string(holder, key, at))


def _read_json(holder: JSON, key: str, _at: str, content: Content) -> None:
    content.text(compact_json(holder.get(key)))


def _read_image(holder: JSON, key: str, at: str, content: Content) -> None:
    source = fields.mapping(fields.mapping(holder, key, at), "source", f"{at}/{key}")
    content.image(size_of_base64(fields.string(source, "bytes", f"{at}/{key}/source")))


def _read_document(holder: JSON, key: str, at: str, content: Content) -> None:
    here = f"{at}/{key}"
    document = fields.mapping(holder, key, at)
    source = fields.mapping(document, "source", here)
    for name in ("name", "context"):
        content.text(fields.string(document, name, here))
    content.text(fields.string(source, "text", f"{here}/source"))
    read_blocks(source, "content", f"{here}/source", content)
    if source.get("text") is None and source.get("content") is None:
        content.other("file", _size(source, f"{here}/source"))


def _media(modality: str) -> Callable[[JSON, str, str, Content], None]:
    def read(holder: JSON, key: str, at: str, content: Content) -> None:
        source = fields.mapping(fields.mapping(holder, key, at), "source", f"{at}/{key}")
        content.other(modality, _size(source, f"{at}/{key}/source"))

    return read


def _size(source: JSON, at: str) -> int | None:
    """How large a file is that the body holds in base64; one that S3 holds is of unknown size."""
    data = fields.string(source, "bytes", at)
    return len(data) * 3 // 4 if data else None


def _read_tool_use(holder: JSON, key: str, at: str, content: Content) -> None:
    use = fields.mapping(holder, key, at)
    content.text(fields.string(use, "name", f"{at}/{key}"))
    if use.get("input") is not None:
        content.text(compact_json(use["input"]))


def _read_nested(holder: JSON, key: str, at: str, content: Content) -> None:
    inner = fields.mapping(holder, key, at)
    for name in ("source", "title"):
        content.text(fields.string(inner, name, f"{at}/{key}"))
    read_blocks(inner, "content", f"{at}/{key}", content)
    if isinstance(inner.get("citations"), list):
        content.text(compact_json(inner["citations"]))


def _read_guarded(holder: JSON, key: str, at: str, content: Content) -> None:
    guarded = fields.mapping(holder, key, at)
    content.text(fields.string(fields.mapping(guarded, "text", f"{at}/{key}"), "text", f"{at}/{key}/text"))
    if guarded.get("image") is not None:
        _read_image(guarded, "image", f"{at}/{key}", content)


def _read_reasoning(holder: JSON, key: str, at: str, content: Content) -> None:
    here = f"{at}/{key}"
    reasoning = fields.mapping(fields.mapping(holder, key, at), "reasoningText", here)
    content.text(fields.string(reasoning, "text", f"{here}/reasoningText"))


def _skip(_holder: JSON, _key: str, _at: str, _content: Content) -> None:
    """A mark that the model does not read."""


_BLOCK_READERS: Mapping[str, Callable[[JSON, str, str, Content], None]] = MappingProxyType(
    {
        "text": _read_text,
        "json": _read_json,
        "image": _read_image,
        "document": _read_document,
        "video": _media("video"),
        "audio": _media("audio"),
        "toolUse": _read_tool_use,
        "toolResult": _read_nested,
        "searchResult": _read_nested,
        "citationsContent": _read_nested,
        "guardContent": _read_guarded,
        "reasoningContent": _read_reasoning,
        "cachePoint": _skip,
    }
)
_BLOCK_KEYS = frozenset(_BLOCK_READERS)
