"""Our usage readers against genai-prices' extractors, on every recorded answer that is one JSON body.

Theirs read a parsed body, whole; streams, events and frames are ours alone.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from genai_prices.data import providers
from genai_prices.types import Provider

from extproc.formats.base import Call
from extproc.formats.body import answer_decoder
from extproc.model import Usage
from tests.formats.calls import JSON_ANSWER, observed
from tests.formats.corpus import CORPUS, MISSING, Exchange, call_of, exchanges

BY_ID: dict[str, Provider] = {provider.id: provider for provider in providers}
# Whose extractor reads an answer: the recording's provider and our format -> theirs and its flavors.
EXTRACTORS = {
    ("anthropic", "anthropic_messages"): ("anthropic", "default"),
    ("azure", "openai_chat"): ("azure", "chat"),
    ("azure", "openai_embeddings"): ("azure", "embeddings"),
    ("bedrock", "bedrock_converse"): ("aws", "default"),
    ("bedrock", "bedrock_invoke"): ("aws", "anthropic", "default"),
    ("cohere", "cohere_v1"): ("cohere", "embeddings"),
    ("cohere", "cohere_v2"): ("cohere", "default", "embeddings"),
    ("gemini", "gemini"): ("google", "default"),
    ("groq", "openai_chat"): ("groq", "default"),
    ("mistral", "openai_chat"): ("mistral", "default"),
    ("mistral", "openai_embeddings"): ("mistral", "default"),
    ("openai", "openai_assistants"): ("openai", "chat"),
    ("openai", "openai_audio"): ("openai", "live"),
    ("openai", "openai_chat"): ("openai", "chat"),
    ("openai", "openai_completions"): ("openai", "chat"),
    ("openai", "openai_embeddings"): ("openai", "embeddings"),
    ("openai", "openai_responses"): ("openai", "responses"),
    ("vertex", "vertex"): ("google", "default"),
}
# Our count -> theirs. Both are inclusive: parts are parts of the whole.
NAMES = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_input_tokens": "cache_read_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
    "cache_creation_1h_input_tokens": "cache_write_1h_tokens",
    "audio_input_tokens": "input_audio_tokens",
    "image_input_tokens": "input_image_tokens",
    "tool_input_tokens": "input_tool_tokens",
    "reasoning_output_tokens": "output_reasoning_tokens",
    "audio_output_tokens": "output_audio_tokens",
    "image_output_tokens": "output_image_tokens",
}


def theirs(provider_id: str, *flavors: str, body: Any) -> dict[str, Any] | None:
    """What the first of their extractors finds that does not raise; None where all do."""
    for flavor in flavors:
        # An attribute error where Vertex writes modalities as numbers.
        with suppress(ValueError, AttributeError):
            return dict(vars(BY_ID[provider_id].extract_usage(body, api_flavor=flavor)[1]))
    return None


def differing(ours: Usage, found: dict[str, Any]) -> list[str]:
    """Counts that are not the same; absent is 0."""
    return [name for name, other in NAMES.items() if (getattr(ours, name) or 0) != float(found.get(other, 0))]


def seen(api: str, body: Any, *, operation: str = "chat", model: str = "") -> Usage | None:
    data = json.dumps(body).encode()
    return observed(api, data, headers=JSON_ANSWER, operation=operation, model=model).usage


# --- recorded answers


def whole_answers() -> Iterator[tuple[Exchange, Call, Any]]:
    """Every answer that is one JSON body of a successful call that somebody's extractor may read."""
    vendors = {provider for provider, _ in EXTRACTORS}
    for each in exchanges():
        headers, data = each["response_headers"], each["response_body_b64"]
        # Cohere's old streams are lines of JSON by JSON's name.
        is_json = "json" in headers.get("content-type", "") and not each["expected"]["stream"]
        if each["status"] < 300 and data and is_json and each["provider"] in vendors:
            decoder = answer_decoder(headers.get("content-encoding", ""))
            assert decoder is not None
            yield each, call_of(each), json.loads(decoder.feed(base64.b64decode(data)))


@pytest.mark.skipif(not CORPUS.is_dir(), reason=MISSING)
def test_whoever_reads_a_recorded_usage_reads_the_same() -> None:
    """Whether both read it, and where only one did."""
    both: Counter[tuple[str, str]] = Counter()
    only_ours: Counter[tuple[str, str]] = Counter()
    for each, call, body in whole_answers():
        key = (each["provider"], call.api)
        model = (each["expected"]["model_request"] or "").lower()
        ours = seen(call.api, body, operation=call.operation, model=model)
        found = theirs(*EXTRACTORS[key], body=body) if key in EXTRACTORS else None
        if ours is not None and found is not None:
            both[key] += 1
            assert differing(ours, found) in ([], KNOWN.get(key)), each["id"]
            heard_ms = found.get("audio_seconds")
            assert (ours.input_audio_ms or 0) == (heard_ms or 0) * 1000, each["id"]
        elif ours is not None:
            only_ours[key] += 1
        else:
            assert found is None, each["id"]

    assert both == BOTH
    assert only_ours == ONLY_OURS


# Cohere's first API has no extractor; the one for embeddings finds the input alone.
KNOWN = {("cohere", "cohere_v1"): ["output_tokens"]}
BOTH = {
    ("anthropic", "anthropic_messages"): 23,
    ("azure", "openai_chat"): 33,
    ("azure", "openai_embeddings"): 1,
    ("bedrock", "bedrock_converse"): 13,
    ("bedrock", "bedrock_invoke"): 27,
    ("cohere", "cohere_v1"): 15,
    ("cohere", "cohere_v2"): 10,
    ("gemini", "gemini"): 2,
    ("groq", "openai_chat"): 12,
    ("mistral", "openai_chat"): 6,
    ("mistral", "openai_embeddings"): 6,
    ("openai", "openai_assistants"): 10,
    ("openai", "openai_audio"): 1,
    ("openai", "openai_chat"): 234,
    ("openai", "openai_completions"): 38,
    ("openai", "openai_embeddings"): 28,
    ("openai", "openai_responses"): 46,
    ("vertex", "vertex"): 8,
}
# Llama, Titan and others on Bedrock have bodies of their own; Vertex wrote modalities as numbers.
ONLY_OURS = {("bedrock", "bedrock_invoke"): 11, ("vertex", "vertex"): 10}


# --- what no recording shows: bodies after the vendors' references


@dataclass(frozen=True, kw_only=True)
class Case:
    api: str
    extractor: tuple[str, str]
    body: dict[str, Any]
    ours: dict[str, int]
    differs: tuple[str, ...] = ()  # what they read otherwise


def openai_body(usage: dict[str, Any]) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [], "usage": usage}


CASES = {
    "xAI keeps reasoning out of the completion": Case(
        api="openai_chat",
        extractor=("x-ai", "chat"),
        body=openai_body(
            {
                "prompt_tokens": 12,
                "completion_tokens": 1,
                "total_tokens": 241,
                "completion_tokens_details": {"reasoning_tokens": 228},
            }
        ),
        ours={"input_tokens": 12, "output_tokens": 229, "reasoning_output_tokens": 228},
    ),
    "and a chat extractor that does not know xAI loses it": Case(
        api="openai_chat",
        extractor=("openai", "chat"),
        body=openai_body(
            {
                "prompt_tokens": 12,
                "completion_tokens": 1,
                "total_tokens": 241,
                "completion_tokens_details": {"reasoning_tokens": 228},
            }
        ),
        ours={"input_tokens": 12, "output_tokens": 229, "reasoning_output_tokens": 228},
        differs=("output_tokens",),
    ),
    "DeepSeek says beside the details what came from the cache": Case(
        api="openai_chat",
        extractor=("deepseek", "chat"),
        body=openai_body(
            {
                "prompt_tokens": 30,
                "completion_tokens": 9,
                "total_tokens": 39,
                "prompt_cache_hit_tokens": 20,
                "prompt_cache_miss_tokens": 10,
            }
        ),
        ours={"input_tokens": 30, "output_tokens": 9, "cache_read_input_tokens": 20},
        differs=("cache_read_input_tokens",),
    ),
    "OpenAI counts sound, caches and reasoning": Case(
        api="openai_chat",
        extractor=("openai", "chat"),
        body=openai_body(
            {
                "prompt_tokens": 30,
                "completion_tokens": 9,
                "total_tokens": 39,
                "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 20, "cache_write_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 4},
            }
        ),
        ours={
            "input_tokens": 30,
            "output_tokens": 9,
            "cache_read_input_tokens": 5,
            "cache_creation_input_tokens": 3,
            "audio_input_tokens": 20,
            "reasoning_output_tokens": 2,
            "audio_output_tokens": 4,
        },
    ),
    "Anthropic's input leaves its caches out, and they have two lifetimes": Case(
        api="anthropic_messages",
        extractor=("anthropic", "default"),
        body={
            "id": "m",
            "type": "message",
            "model": "claude-sonnet-4-6",
            "content": [],
            "usage": {
                "input_tokens": 10,
                "output_tokens": 5,
                "cache_creation_input_tokens": 7,
                "cache_read_input_tokens": 3,
                "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 2},
                "output_tokens_details": {"thinking_tokens": 2},
            },
        },
        ours={
            "input_tokens": 20,
            "output_tokens": 5,
            "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 7,
            "cache_creation_1h_input_tokens": 2,
            "reasoning_output_tokens": 2,
        },
    ),
    "Gemini's thoughts and tools are beside its totals": Case(
        api="gemini",
        extractor=("google", "default"),
        body={
            "modelVersion": "gemini-2.5-pro",
            "candidates": [],
            "usageMetadata": {
                "promptTokenCount": 100,
                "candidatesTokenCount": 10,
                "thoughtsTokenCount": 30,
                "toolUsePromptTokenCount": 15,
                "cachedContentTokenCount": 40,
                "totalTokenCount": 155,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 60},
                    {"modality": "AUDIO", "tokenCount": 30},
                    {"modality": "IMAGE", "tokenCount": 10},
                ],
            },
        },
        ours={
            "input_tokens": 115,
            "output_tokens": 40,
            "cache_read_input_tokens": 40,
            "audio_input_tokens": 30,
            "image_input_tokens": 10,
            "tool_input_tokens": 15,
            "reasoning_output_tokens": 30,
        },
    ),
    "Converse leaves its caches out of the input": Case(
        api="bedrock_converse",
        extractor=("aws", "default"),
        body={
            "usage": {
                "inputTokens": 10,
                "outputTokens": 5,
                "totalTokens": 25,
                "cacheReadInputTokens": 6,
                "cacheWriteInputTokens": 4,
            }
        },
        ours={
            "input_tokens": 20,
            "output_tokens": 5,
            "cache_read_input_tokens": 6,
            "cache_creation_input_tokens": 4,
        },
    ),
    "Cohere bills less than it reads": Case(
        api="cohere_v2",
        extractor=("cohere", "tokens"),
        body={
            "id": "c",
            "usage": {
                "billed_units": {"input_tokens": 7, "output_tokens": 88},
                "tokens": {"input_tokens": 69, "output_tokens": 89},
            },
        },
        ours={"input_tokens": 7, "output_tokens": 88},
        differs=("input_tokens", "output_tokens"),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_body_after_its_vendors_reference_is_read_alike(case: Case) -> None:
    ours, found = seen(case.api, case.body), theirs(*case.extractor, body=case.body)

    assert ours is not None
    assert found is not None
    reported = {name: getattr(ours, name) for name in NAMES if getattr(ours, name) is not None}
    assert reported == case.ours
    assert tuple(differing(ours, found)) == case.differs


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": "12"}, {"prompt_tokens": True}])
def test_theirs_raise_on_what_ours_read_over(usage: Any) -> None:
    """A reader may not raise on what an upstream sends."""
    body = openai_body(usage)

    assert seen("openai_chat", body) is None
    with pytest.raises(ValueError, match=r"usage|Missing|Expected"):
        BY_ID["openai"].extract_usage(body, api_flavor="chat")
