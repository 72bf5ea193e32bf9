"""Our counts against what the provider reported, on recorded exchanges (see the corpus's own README)."""

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extproc.measure.tokens import Tokenizer
from extproc.model import Prompt, PromptMessage, TokenEstimate

CORPUS = Path(__file__).parents[2] / "../shared/corpus"
ODD_MODELS = ("search", "audio")

Pair = tuple[TokenEstimate, int, str]


def exchanges(provider: str, operation: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    if not CORPUS.is_dir():
        pytest.skip("the recorded exchanges of shared/corpus are not beside this repository")
    for path in sorted(CORPUS.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                exchange = json.loads(line)
                if (exchange["provider"], exchange["operation"]) != (provider, operation):
                    continue
                if exchange["status"] == 200 and exchange["expected"]["usage"]:
                    yield exchange, json.loads(base64.b64decode(exchange["request_body_b64"]))


def is_plain(body: dict[str, Any]) -> bool:
    return (
        not any(body.get(key) for key in ("tools", "functions"))
        and body.get("response_format", {}).get("type") != "json_schema"
        and not any(odd in body["model"] for odd in ODD_MODELS)
        and all(
            isinstance(message.get("content"), str)
            and message["role"] in {"system", "developer", "user", "assistant"}
            and not message.get("tool_calls")
            for message in body["messages"]
        )
    )


def chat_prompt(body: dict[str, Any]) -> Prompt:
    return Prompt(
        messages=tuple(
            PromptMessage(role=message["role"], text=message.get("content") or "", name=message.get("name"))
            for message in body["messages"]
        ),
        tools=tuple(
            json.dumps(tool, separators=(",", ":"))
            for tool in body.get("tools") or body.get("functions") or ()
        ),
    )


def estimated(tokenizer: Tokenizer, body: dict[str, Any], prompt: Prompt) -> TokenEstimate:
    return tokenizer.estimate(prompt, provider="openai", model=body["model"], declared_max_output=None)


def plain_chats(tokenizer: Tokenizer) -> list[Pair]:
    return [
        (
            estimated(tokenizer, body, chat_prompt(body)),
            exchange["expected"]["usage"]["prompt_tokens"],
            exchange["id"],
        )
        for exchange, body in exchanges("openai", "chat")
        if is_plain(body)
    ]


def share_within(pairs: list[Pair], tokens: int) -> float:
    return sum(abs(found.input - reported) <= tokens for found, reported, _ in pairs) / len(pairs)


def test_plain_chats_are_counted_as_the_provider_counts(tokenizer: Tokenizer) -> None:
    pairs = plain_chats(tokenizer)

    assert len(pairs) > 100
    assert share_within(pairs, 1) >= 0.98
    assert share_within(pairs, 0) >= 0.98


def test_the_upper_bound_holds_for_every_recorded_chat(tokenizer: Tokenizer) -> None:
    too_low = [pair for pair in plain_chats(tokenizer) if pair[0].input_upper_bound < pair[1]]

    assert too_low == []


def test_chats_with_tools_are_within_five_tokens(tokenizer: Tokenizer) -> None:
    pairs = [
        (
            estimated(tokenizer, body, chat_prompt(body)),
            exchange["expected"]["usage"]["prompt_tokens"],
            exchange["id"],
        )
        for exchange, body in exchanges("openai", "chat")
        if (body.get("tools") or body.get("functions"))
        and is_plain({**body, "tools": None, "functions": None})
    ]

    assert len(pairs) > 20
    assert share_within(pairs, 5) == 1.0
    assert not any(found.exact for found, _, _ in pairs)


@pytest.mark.parametrize(("operation", "key"), [("completions", "prompt"), ("embeddings", "input")])
def test_bare_texts_are_counted_as_the_provider_counts(
    tokenizer: Tokenizer, operation: str, key: str
) -> None:
    pairs = []
    for exchange, body in exchanges("openai", operation):
        texts = [body[key]] if isinstance(body[key], str) else body[key]
        if all(isinstance(text, str) for text in texts):
            prompt = Prompt(messages=tuple(PromptMessage(role="", text=text) for text in texts))
            reported = exchange["expected"]["usage"]["prompt_tokens"]
            pairs.append((estimated(tokenizer, body, prompt), reported, exchange["id"]))

    assert len(pairs) > 20
    assert share_within(pairs, 0) >= 0.95
