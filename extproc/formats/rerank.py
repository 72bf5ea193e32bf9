"""Rerankers: documents scored against a query, as Jina, Voyage, Together and vLLM take them.

Floor 1, pure. Answers are `openai.answers`, denials `openai.dialect`. Sources: the vendors' API
references; vLLM `entrypoints/pooling`.
"""

from __future__ import annotations

from collections.abc import Mapping

from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.base import JSON, AnswerReader, Call, ParsedRequest, RequestLine
from extproc.formats.content import Content
from extproc.formats.openai import answers as openai_answers
from extproc.formats.openai import request as openai_request
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.formats.strict_json import compact_json
from extproc.model import AIRequest

_PATHS = frozenset({"/rerank", "/score"})
# Beyond this much text the query is not written out for every document, but its tokens are added: by bytes.
_WRITTEN_OUT_CHARS = 2 * 1024 * 1024
_BYTES_PER_TOKEN = 4
# What is compared with what: rerankers, vLLM's scores, and the older spellings of those.
_PAIRS = (("query", "documents"), ("queries", "documents"), ("data_1", "data_2"), ("text_1", "text_2"))
_ITEM_KEYS = frozenset({"text", "content", "type", "image", "image_url"})


class Rerank(OpenAIFormat):
    """The wire format `rerank`."""

    name = "rerank"
    provider = "vllm"  # at nobody's address in particular

    def claim(self, line: RequestLine) -> Call | None:
        """Reranking and scoring are POST."""
        if line.method == "POST" and line.path in _PATHS:
            return Call(api=self.name, operation="rerank")
        return None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        model = fields.model(body, call)
        pairs = [pair for pair in _PAIRS if all(body.get(key) is not None for key in pair)]
        if not pairs:
            raise fields.not_this_call("/query and /documents are required: this path ranks documents")
        if len(pairs) > 1:
            raise fields.wrong(f"/{pairs[1][0]}", f"must not be given beside /{pairs[0][0]}")
        content = Content()
        count = _read_pair(body, pairs[0], content)
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


def _read_pair(body: JSON, keys: tuple[str, str], content: Content) -> int:
    """How many documents there are; each is read together with the query, which is billed as often."""
    queries, documents = (_read(body, key, content) for key in keys)
    if queries == 1 and documents > 1:
        _repeat_query(content, documents - 1)
    return documents


def _repeat_query(content: Content, times: int) -> None:
    query = content.messages[0]
    if (len(query.text) + 1) * times <= _WRITTEN_OUT_CHARS:
        content.messages.extend([query] * times)
    else:
        # Counting a long text again and again would take longer than the provider's answer.
        content.ids(times * -(-len(query.text.encode()) // _BYTES_PER_TOKEN))


def _read(body: JSON, key: str, content: Content) -> int:
    value = body[key]
    if not isinstance(value, str | dict | list):
        raise fields.wrong(f"/{key}", "must be a string, an object or a list")
    items = value if isinstance(value, list) else [value]
    return openai_request.read_inputs({key: items}, key, content, _read_document)


def _read_document(document: JSON, at: str, content: Content) -> None:
    """A text by name, parts, or any object: rerankers read all its fields."""
    fields.check_case(document, _ITEM_KEYS, at)
    if document.get("content") is not None:
        openai_request.read_parts(document, "content", at, content)
    elif set(document) == {"text"}:
        content.text(fields.string(document, "text", at))
    elif "image" in document:
        fields.string(document, "image", at)
        content.image(None)
    else:
        content.text(compact_json(document))
