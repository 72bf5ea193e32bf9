"""The recorded exchanges as values: what was asked, what was answered, what the recording says it was."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from extproc.errors import RequestRefused
from extproc.formats.base import Call
from extproc.formats.body import answer_decoder
from extproc.formats.classify import claim
from extproc.measure.tokens import Tokenizer
from extproc.model import AIRequest, Observation, RequestHead
from extproc.understand import Understanding, understand
from tests.formats.calls import observed

FOLDER = Path(__file__).parents[3] / "shared" / "corpus"
IS_HERE = FOLDER.is_dir()
# Far above any recorded body.
_MAX_BODY_BYTES = 64 * 1024 * 1024

Totals = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One recorded request with its answer; `usage` is the provider's own object."""

    id: str
    provider: str
    operation: str  # the recording's word, not ours
    head: RequestHead
    body: bytes
    status: int
    answer_headers: dict[str, str]
    answer: bytes
    model: str
    stream: bool | None
    usage: Any
    flags: tuple[str, ...]

    def call(self) -> Call | None:
        """What classification makes of the request line; a refusal is a value elsewhere, not here."""
        return claim(self.head)

    def understood(self, tokenizer: Tokenizer) -> Understanding:
        """What the product makes of the whole request."""
        try:
            call = self.call()
        except RequestRefused as refused:
            return Understanding(refused=refused)
        if call is None:
            return Understanding()
        return understand(self.head, call, self.body, max_body_bytes=_MAX_BODY_BYTES, tokenizer=tokenizer)

    def seen(self, request: AIRequest, chunks: list[bytes] | None = None) -> Observation:
        """What the answer's reader saw, of the body as one chunk or of these."""
        decoder = answer_decoder(self.answer_headers.get("content-encoding", ""))
        assert decoder is not None, self.id
        pieces = [decoder.feed(chunk) for chunk in ([self.answer] if chunks is None else chunks)]
        return observed(
            request.api,
            *pieces,
            headers=self.answer_headers,
            model=request.model,
            operation=request.operation,
        )


@cache
def exchanges() -> tuple[Exchange, ...]:
    """Every recorded exchange."""
    lines = (
        line
        for path in sorted(FOLDER.glob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    )
    return tuple(_exchange(json.loads(line)) for line in lines)


def _exchange(raw: dict[str, Any]) -> Exchange:
    url = urlsplit(raw["url"])
    body = base64.b64decode(raw["request_body_b64"] or "")
    return Exchange(
        id=raw["id"],
        provider=raw["provider"],
        operation=raw["operation"],
        head=RequestHead(
            method=raw["method"],
            host=url.netloc,
            path=f"{url.path}?{url.query}" if url.query else url.path,
            headers=raw["request_headers"],
            has_body=bool(body),
        ),
        body=body,
        status=raw["status"],
        answer_headers=raw["response_headers"],
        answer=base64.b64decode(raw["response_body_b64"] or ""),
        model=(raw["expected"]["model_request"] or "").lower(),
        stream=raw["expected"]["stream"],
        usage=raw["expected"]["usage"],
        flags=tuple(raw.get("flags", ())),
    )


def totals(each: Exchange) -> Totals | None:
    """Input and output in inclusive counts, from the provider's documentation of its own object.

    A second reading, independent of the product's. None: the answer carries no usage.
    """
    if not each.usage:
        return None
    for fields, read in _READINGS:
        if any(name in each.usage for name in fields):
            found: Totals = read(each.usage)
            return None if found == (None, None) else _completed(found, each.answer_headers)
    return None


def _completed(found: Totals, headers: dict[str, str]) -> Totals:
    """Some servers say in a header what their body leaves out."""
    said = [next((headers[name] for name in names if name in headers), None) for names in _TOTALS_HEADERS]
    given, made = (
        count if count is not None or word is None else int(word)
        for count, word in zip(found, said, strict=True)
    )
    return given, made


def _sum(usage: dict[str, Any], *names: str) -> int | None:
    counts = [usage[name] for name in names if usage.get(name) is not None]
    return sum(counts) if counts else None


def _openai(usage: dict[str, Any]) -> Totals:
    given, total = usage.get("prompt_tokens"), usage.get("total_tokens")
    made = usage.get("completion_tokens")
    # Embeddings have no completion; xAI leaves reasoning out of it but not out of the total.
    return given, made if total is None else max(total - given, made or 0)


def _anthropic_or_responses(usage: dict[str, Any]) -> Totals:
    # The Responses API's cached tokens are a subset, Anthropic's are beside.
    cached = (
        () if "input_tokens_details" in usage else ("cache_creation_input_tokens", "cache_read_input_tokens")
    )
    return _sum(usage, "input_tokens", *cached), usage.get("output_tokens")


def _google(usage: dict[str, Any]) -> Totals:
    return (
        _sum(usage, "promptTokenCount", "toolUsePromptTokenCount"),
        _sum(usage, "candidatesTokenCount", "thoughtsTokenCount"),
    )


def _converse(usage: dict[str, Any]) -> Totals:
    cached = ("cacheReadInputTokens", "cacheWriteInputTokens")
    if "cacheReadInputTokenCount" in usage:
        cached = ("cacheReadInputTokenCount", "cacheWriteInputTokenCount")
    return _sum(usage, "inputTokens", *cached), usage.get("outputTokens")


def _titan(usage: dict[str, Any]) -> Totals:
    results = usage.get("results")
    made = (
        sum(result["tokenCount"] for result in results) if results else usage.get("totalOutputTextTokenCount")
    )
    return usage["inputTextTokenCount"], made or 0


_TOTALS_HEADERS = (
    ("x-amzn-bedrock-input-token-count", "x-prompt-tokens"),
    ("x-amzn-bedrock-output-token-count", "x-generated-tokens"),
)
_COUNT_HEADER = "x-amzn-bedrock-{}-token-count"
_READINGS = (
    (
        (_COUNT_HEADER.format("input"),),
        lambda usage: (usage[_COUNT_HEADER.format("input")], usage[_COUNT_HEADER.format("output")]),
    ),
    # Paid for by the second: no tokens.
    (("seconds",), lambda _: (0, 0)),
    (("promptTokenCount",), _google),
    (("inputTextTokenCount",), _titan),
    (("inputTokens",), _converse),
    (
        ("billed_units",),
        lambda usage: (
            usage["billed_units"].get("input_tokens"),
            usage["billed_units"].get("output_tokens"),
        ),
    ),
    (
        ("prompt_eval_count", "eval_count"),
        lambda usage: (usage.get("prompt_eval_count"), usage.get("eval_count")),
    ),
    (
        ("prompt_token_count", "generation_token_count"),
        lambda usage: (usage.get("prompt_token_count"), usage.get("generation_token_count")),
    ),
    (
        ("input_token_count", "generated_token_count"),
        lambda usage: (usage.get("input_token_count"), usage.get("generated_token_count")),
    ),
    (("generated_tokens",), lambda usage: (None, usage["generated_tokens"])),
    (("prompt_tokens",), _openai),
    (("input_tokens",), _anthropic_or_responses),
    # Some embeddings, and rerankers: nothing is generated.
    (("total_tokens",), lambda usage: (usage["total_tokens"], 0)),
)
