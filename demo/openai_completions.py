"""OpenAI's legacy Completions as the demo provider speaks it. Source: recorded answers of the real one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from demo import asked as asking
from demo.answers import Part
from demo.asked import Asked, Refused
from demo.generation import Choice
from demo.ids import base62
from demo.openai_dialect import (
    PROVIDER,
    Chunks,
    asks_for_stream,
    credential,
    error,
    error_event,
    error_headers,
    event,
    headers,
    request_id,
    usage,
)
from extproc.model import Prompt, PromptMessage

__all__ = (
    "NAME",
    "PROVIDER",
    "credential",
    "error",
    "error_event",
    "error_headers",
    "events",
    "garbage",
    "headers",
    "read",
    "request_id",
    "whole",
)

NAME = "openai_completions"


def read(body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:  # noqa: ARG001 - no tool is ever called
    """What a body asks for. Raises `Refused` (400)."""
    stream, include_usage = asks_for_stream(body)
    texts, ids = prompts(asking.required(body, "prompt", (str, list)), "prompt")
    return Asked(
        model=asking.required(body, "model", str),
        prompt=Prompt(messages=tuple(PromptMessage(role="", text=text) for text in texts), tokens=sum(ids)),
        stream=stream,
        choices=(asking.count(body, "n") or 1) * (len(texts) + len(ids)),
        ceiling=asking.count(body, "max_tokens"),
        include_usage=include_usage,
    )


def prompts(value: str | list[Any], name: str) -> tuple[list[str], list[int]]:
    """The texts, and the sizes of what came as token ids. Raises `Refused` (400)."""
    items = [value] if isinstance(value, str) or _are_ids(value) else list(value)
    texts = [item for item in items if isinstance(item, str)]
    ids = [len(item) for item in items if _are_ids(item)]
    if not items or len(texts) + len(ids) != len(items):
        raise Refused(400, f"Invalid type for '{name}': expected text or token ids.", param=name)
    return texts, ids


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def whole(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> dict[str, Any]:
    """A JSON answer."""
    found = [_choice(number, "".join(choice.text), choice) for number, choice in enumerate(choices)]
    answer = _shared(asked) | {"choices": found}
    if usage_mode == "absent":
        return answer
    return answer | {"usage": usage(usage_mode, input_tokens, sum(choice.tokens for choice in choices))}


def events(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> Iterator[Part]:
    """A streamed answer: a chunk a token, choices in turn; the last one of each says why it ended."""
    tells_usage = asked.include_usage and usage_mode != "absent"
    chunks = Chunks(_shared(asked), tells_usage=tells_usage)
    for position in range(max(len(choice.text) for choice in choices)):
        for number, choice in enumerate(choices):
            if position < len(choice.text):
                piece = _choice(number, choice.text[position], None)
                yield Part(data=chunks.choice(piece), tokens=1, chunks=1)
    for number, choice in enumerate(choices):
        yield Part(data=chunks.choice(_choice(number, "", choice)))
    if tells_usage:
        told = usage(usage_mode, input_tokens, sum(choice.tokens for choice in choices))
        yield Part(data=chunks.usage(told))
    yield Part(data=event("[DONE]"))


def garbage() -> bytes:
    """The beginning of an answer, and no more."""
    return b'{"id":"cmpl-demo","object":"text_completion","choices":[{"text":'


def _shared(asked: Asked) -> dict[str, Any]:
    return {
        "id": "cmpl-" + base62(29),
        "object": "text_completion",
        "created": int(time.time()),
        "model": asked.model,
    }


def _choice(number: int, text: str, ended: Choice | None) -> dict[str, Any]:
    reason = None if ended is None else "length" if ended.is_cut else "stop"
    return {"text": text, "index": number, "logprobs": None, "finish_reason": reason}
