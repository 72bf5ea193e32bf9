"""OpenAI Embeddings as the demo provider speaks them. Source: recorded answers of the real one."""

from __future__ import annotations

import base64
import hashlib
import random
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

from demo import asked as asking
from demo.answers import Part
from demo.asked import Asked, Refused
from demo.generation import Choice
from demo.openai_completions import prompts
from demo.openai_dialect import (
    PROVIDER,
    credential,
    error,
    error_event,
    error_headers,
    headers,
    request_id,
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

NAME = "openai_embeddings"

_DIMENSIONS = 1536
_MOST_DIMENSIONS = 4096


def read(body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:  # noqa: ARG001 - nothing is generated
    """What a body asks for. Raises `Refused` (400)."""
    texts, ids = prompts(asking.required(body, "input", (str, list)), "input")
    dimensions = asking.count(body, "dimensions") or _DIMENSIONS
    encoding = asking.field(body, "encoding_format", str, "float")
    if dimensions > _MOST_DIMENSIONS or encoding not in {"float", "base64"}:
        raise Refused(400, "Invalid value for 'dimensions' or 'encoding_format'.")
    return Asked(
        model=asking.required(body, "model", str),
        prompt=Prompt(messages=tuple(PromptMessage(role="", text=text) for text in texts), tokens=sum(ids)),
        stream=False,
        choices=0,
        own={"inputs": [*texts, *map(str, ids)], "dimensions": dimensions, "is_base64": encoding == "base64"},
    )


def whole(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> dict[str, Any]:  # noqa: ARG001 - nothing is generated
    """A JSON answer: a vector for each input, the same for the same text."""
    vectors = [_vector(text, asked.own["dimensions"]) for text in asked.own["inputs"]]
    encode = _base64 if asked.own["is_base64"] else list
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(vectors)
    ]
    answer = {"object": "list", "data": data, "model": asked.model}
    given = 0 if usage_mode == "zero" else input_tokens
    told = None if usage_mode == "null" else {"prompt_tokens": given, "total_tokens": given}
    return answer if usage_mode == "absent" else {**answer, "usage": told}


def events(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> Iterator[Part]:  # noqa: ARG001 - never streamed
    """Nothing: embeddings are not streamed."""
    return iter(())


def garbage() -> bytes:
    """The beginning of an answer, and no more."""
    return b'{"object":"list","data":[{"object":"embedding","embedding":['


def _vector(text: str, dimensions: int) -> array[float]:
    dice = random.Random(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    numbers = [dice.uniform(-1, 1) for _ in range(dimensions)]
    length = sum(number * number for number in numbers) ** 0.5
    return array("f", (number / length for number in numbers))


def _base64(vector: array[float]) -> str:
    return base64.b64encode(vector.tobytes()).decode()
