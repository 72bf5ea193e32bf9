"""Real exchanges of the smaller dialects: every request is understood, every usage found.

Expected figures are the provider's own counts; the arithmetic to inclusive counts is done here a
second time, from the providers' documentation.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.formats.corpus import CORPUS, MISSING, Exchange, call_of, exchanges, observations, request_of

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason=MISSING)

Totals = tuple[int | None, int | None] | None


def by_cohere(usage: dict[str, Any] | None, operation: str) -> Totals:
    """What is billed; searches are no tokens."""
    billed = (usage or {}).get("billed_units", {})
    if "input_tokens" not in billed:
        return None
    return billed["input_tokens"], billed["output_tokens"] if operation != "embeddings" else 0


def by_ollama(usage: dict[str, Any] | None, _operation: str) -> Totals:
    """Ollama left the input out where its cache had it all."""
    return (usage.get("prompt_eval_count"), usage["eval_count"]) if usage else None


def by_openai(usage: dict[str, Any] | None, _operation: str) -> Totals:
    return (usage["prompt_tokens"], usage["completion_tokens"]) if usage else None


def by_watsonx(usage: dict[str, Any] | None, _operation: str) -> Totals:
    return (usage["input_token_count"], usage["generated_token_count"]) if usage else None


def unreported(usage: dict[str, Any] | None, _operation: str) -> Totals:
    assert usage is None
    return None


# Part of the URL, the format, its operation, how many were recorded, and what their usage comes to.
ROWS: tuple[tuple[str, str, str, int, Callable[[dict[str, Any] | None, str], Totals]], ...] = (
    ("//api.cohere.com/v1/chat", "cohere_v1", "chat", 18, by_cohere),
    ("//api.cohere.com/v1/generate", "cohere_v1", "text_completion", 1, by_cohere),
    ("//api.cohere.com/v1/rerank", "cohere_v1", "rerank", 2, by_cohere),
    ("//api.cohere.com/v2/chat", "cohere_v2", "chat", 18, by_cohere),
    ("//api.cohere.com/v2/embed", "cohere_v2", "embeddings", 2, by_cohere),
    ("//api.cohere.com/v2/rerank", "cohere_v2", "rerank", 2, by_cohere),
    ("//api.anthropic.com/v1/complete", "anthropic_complete", "text_completion", 1, unreported),
    (":11434/api/chat", "ollama", "chat", 6, by_ollama),
    (":11434/api/generate", "ollama", "text_completion", 5, by_ollama),
    ("//api.writer.com/v1/chat", "writer", "chat", 8, by_openai),
    ("//api.writer.com/v1/completions", "writer", "text_completion", 1, unreported),
    (".ml.cloud.ibm.com/ml/v1-beta/generation/text?", "watsonx", "text_completion", 2, by_watsonx),
    (".ml.cloud.ibm.com/ml/v1-beta/generation/text_stream?", "watsonx", "text_completion", 2, by_watsonx),
    ("//api.replicate.com/v1/predictions", "replicate", "prediction", 2, unreported),
    ("//api.replicate.com/v1/models/", "replicate", "prediction", 1, unreported),
    (":11434/api/embeddings", "ollama", "embeddings", 1, by_ollama),
)


def recorded(part: str, count: int) -> list[Exchange]:
    found = [each for each in exchanges() if part in each["url"] and each["method"] == "POST"]
    assert len(found) == count, part
    return found


@pytest.mark.parametrize(("part", "api", "operation", "count", "_totals"), ROWS)
def test_every_request_is_understood(
    part: str, api: str, operation: str, count: int, _totals: Callable[..., Totals]
) -> None:
    for each in recorded(part, count):
        request = request_of(each).request
        expected = each["expected"]
        assert (request.api, request.operation) == (api, operation), each["id"]
        assert request.stream is expected["stream"], each["id"]
        if expected["model_request"] is not None:
            assert request.model == expected["model_request"].lower(), each["id"]


@pytest.mark.parametrize(("part", "api", "operation", "count", "totals"), ROWS)
def test_every_usage_is_found_however_the_answer_is_cut(
    part: str, api: str, operation: str, count: int, totals: Callable[..., Totals]
) -> None:
    for each in recorded(part, count):
        expected = totals(each["expected"]["usage"], operation)
        whole, pieces = observations(api, operation, each)
        assert whole == pieces, each["id"]
        seen = whole.usage and (whole.usage.input_tokens, whole.usage.output_tokens)
        assert seen == expected, each["id"]
        assert bool(whole.error) is (each["status"] >= 400), each["id"]
        assert call_of(each).api == api


def test_what_is_fetched_from_replicate_spends_nothing() -> None:
    found = [each for each in exchanges() if "replicate." in each["url"] and each["method"] == "GET"]
    assert len(found) == 8

    for each in found:
        assert call_of(each).operation == "control", each["id"]
