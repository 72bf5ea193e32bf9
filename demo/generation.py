"""Inventing an answer: text of an exact number of tokens, the same for the same request."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demo.asked import Asked, Tool

DEFAULT_TOKENS = 32

# Each word is one token with a space before it, in o200k_base and in cl100k_base.
_WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "with",
    "as",
    "on",
    "be",
    "at",
    "by",
    "this",
    "from",
    "or",
    "have",
    "an",
    "they",
    "which",
    "one",
    "you",
    "all",
    "her",
    "would",
    "there",
    "their",
    "will",
    "when",
    "who",
    "make",
    "can",
    "like",
    "time",
    "just",
    "him",
    "know",
    "take",
    "people",
    "into",
    "year",
    "good",
    "some",
    "could",
    "them",
    "see",
)
_SAMPLES: Mapping[str, Any] = {
    "integer": 7,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}
_SAMPLE_WORDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One invented answer in pieces of one token each; a tool's name counts as the first piece."""

    thinking: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    tool_name: str = ""
    arguments: tuple[str, ...] = ()
    is_cut: bool = False  # the request's ceiling ended it

    @property
    def tokens(self) -> int:
        """What this choice costs."""
        return len(self.thinking) + len(self.text) + len(self.arguments) + bool(self.tool_name)


def generate(asked: Asked, body: bytes, wanted_tokens: int) -> tuple[Choice, ...]:
    """Every choice of the answer; the same body gives the same text."""
    return tuple(_choice(asked, body, number, wanted_tokens) for number in range(asked.choices))


def _choice(asked: Asked, body: bytes, number: int, wanted_tokens: int) -> Choice:
    dice = random.Random(hashlib.sha256(body + bytes([number % 256])).digest())
    if asked.tool is not None:
        return _tool_choice(asked.tool, dice, asked.ceiling)
    tokens = wanted_tokens if asked.ceiling is None else min(wanted_tokens, asked.ceiling)
    thinking = tokens // 4 if asked.thinks else 0
    return Choice(
        thinking=_words(dice, thinking),
        text=_words(dice, tokens - thinking),
        is_cut=tokens < wanted_tokens,
    )


def _words(dice: random.Random, count: int) -> tuple[str, ...]:
    words = [" " + word for word in dice.choices(_WORDS, k=count)]
    return (words[0].lstrip(), *words[1:]) if words else ()


def _tool_choice(tool: Tool, dice: random.Random, ceiling: int | None) -> Choice:
    text = json.dumps(_sample(tool.schema, dice), separators=(",", ":"))
    pieces = tuple(re.findall(r"\w+|\W+", text))
    kept = pieces if ceiling is None else pieces[: ceiling - 1]
    return Choice(tool_name=tool.name, arguments=kept, is_cut=len(kept) < len(pieces))


def _sample(schema: Mapping[str, Any], dice: random.Random) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {name: _sample_value(member, dice) for name, member in properties.items()}


def _sample_value(schema: Any, dice: random.Random) -> Any:
    if not isinstance(schema, dict):
        return None
    if choices := schema.get("enum"):
        return choices[0]
    kind = str(schema.get("type", "string")).lower()  # Gemini writes it in capitals
    if kind == "object":
        return _sample(schema, dice)
    return _SAMPLES[kind] if kind in _SAMPLES else "".join(_words(dice, _SAMPLE_WORDS))
