"""OpenAI Embeddings, and the inputs of several kinds that Voyage, Jina and vLLM take.

Floor 1, pure. Answers are `answers`, denials `dialect`. Sources: openai-python
`types/embedding_create_params`; Voyage's, Jina's and vLLM's references.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.base import JSON, AnswerReader, Call, ParsedRequest, RequestLine
from extproc.formats.content import Content
from extproc.formats.images import size_of_base64, size_of_url
from extproc.formats.openai import answers as openai_answers
from extproc.formats.openai import request as openai_request
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.formats.strict_json import compact_json
from extproc.model import AIRequest

_PATHS = frozenset({"/embeddings", "/multimodalembeddings", "/contextualizedembeddings"})
# The names of the one field that holds what is embedded: OpenAI's, Voyage's, vLLM's.
_INPUT_KEYS = ("input", "inputs", "messages")
_ITEM_KEYS = frozenset({"text", "image", "content", "type", "image_url"})


class OpenAIEmbeddings(OpenAIFormat):
    """The wire format `openai_embeddings`."""

    name = "openai_embeddings"

    def claim(self, line: RequestLine) -> Call | None:
        """Embeddings are POST."""
        if line.method == "POST" and line.path in _PATHS:
            return Call(api=self.name, operation="embeddings")
        return None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read an embedding body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        model = fields.model(body, call)
        content = Content()
        count = _read_inputs(body, content)
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=model,
            models=openai_request.models(body, call),
            message_count=count,
            modalities=tuple(sorted(content.modalities)),
            end_user=openai_request.end_user(body),
        )
        return ParsedRequest(request=request, prompt=content.prompt())

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(openai_answers.InputAnswers(), headers)


def _read_inputs(body: JSON, content: Content) -> int:
    given = [key for key in _INPUT_KEYS if body.get(key) is not None]
    if not given:
        raise fields.not_this_call("/input is required: this path takes texts to embed")
    if len(given) > 1:
        raise fields.wrong(f"/{given[1]}", f"must not be given beside /{given[0]}")
    if given == ["messages"]:
        return openai_request.read_messages(body, content)
    body = {given[0]: [_flat(item) for item in items] if isinstance(items := body[given[0]], list) else items}
    return openai_request.read_inputs(body, given[0], content, _read_item)


def _flat(item: Any) -> Any:
    """Voyage embeds the chunks of a document, a list of texts, in each other's context."""
    is_chunks = isinstance(item, list) and item and all(isinstance(chunk, str) for chunk in item)
    return "\n".join(item) if is_chunks else item


def _read_item(item: JSON, at: str, content: Content) -> None:
    """An object in place of a text: a part, a list of parts, or a text or image by name."""
    fields.check_case(item, _ITEM_KEYS, at)
    if item.get("content") is not None:
        openai_request.read_parts(item, "content", at, content)
    elif item.get("type") is not None:
        openai_request.read_part(item, at, content)
    elif item.get("image") is not None:
        image = fields.string(item, "image", at)
        content.image(size_of_url(image) or size_of_base64(image))
    elif item.get("text") is not None:
        content.text(fields.string(item, "text", at))
    else:
        content.text(compact_json(item))
