"""The most output tokens a model gives when a request does not say. Source: vendors' model pages.

A ceiling that is too high reserves too much and is returned; one that is too low lets a request pass
that a limit should have stopped. So where in doubt, the higher figure.
"""

from __future__ import annotations

from functools import lru_cache

from extproc.measure.families import REMEMBERED_MODELS, normalised

# Newer models of both vendors stay at or below this.
_VENDOR_DEFAULTS = {"openai": 128_000, "azure.ai.openai": 128_000, "anthropic": 128_000}
_DEFAULT = 65_536

# Prefixes of normalised names; the longest that matches decides.
_CEILINGS = {
    "gpt-3.5": 4_096,
    "gpt-35": 4_096,
    "gpt-4": 8_192,
    "gpt-4-0125": 4_096,
    "gpt-4-1106": 4_096,
    "gpt-4-32k": 32_768,
    "gpt-4-turbo": 4_096,
    "gpt-4-vision": 4_096,
    "gpt-4.1": 32_768,
    "gpt-4.5": 16_384,
    "gpt-4o": 16_384,
    "gpt-4o-2024-05-13": 4_096,
    "gpt-4o-mini-realtime": 4_096,
    "gpt-4o-realtime": 4_096,
    "chatgpt-4o": 16_384,
    "gpt-5": 128_000,
    "gpt-5-chat": 16_384,
    "gpt-5-pro": 272_000,
    "gpt-oss": 131_072,
    "o1": 100_000,
    "o1-mini": 65_536,
    "o1-preview": 32_768,
    "o3": 100_000,
    "o4": 100_000,
    "codex-mini": 100_000,
    "davinci-002": 16_384,
    "babbage-002": 16_384,
    "text-embedding-": 0,
    "claude-2": 4_096,
    "claude-instant": 4_096,
    "claude-v2": 4_096,
    "claude-3-haiku": 4_096,
    "claude-3-opus": 4_096,
    "claude-3-sonnet": 4_096,
    "claude-3-5": 8_192,
    "claude-3-7": 128_000,
    "claude-haiku-4-5": 64_000,
    "claude-opus-4": 32_000,
    "claude-opus-4-5": 64_000,
    "claude-opus-4-6": 128_000,
    "claude-opus-4-7": 128_000,
    "claude-opus-4-8": 128_000,
    "claude-opus-4-9": 128_000,
    "claude-sonnet-4": 64_000,
    "claude-sonnet-4-6": 128_000,
    "gemini-1": 8_192,
    "gemini-2.0": 8_192,
    "gemini-": 65_536,
}
_LONGEST_FIRST = tuple(sorted(_CEILINGS.items(), key=lambda entry: -len(entry[0])))


@lru_cache(REMEMBERED_MODELS)
def model_ceiling(provider: str, model: str) -> int:
    """The most output tokens of one choice of `model`; 0 where it generates none."""
    name = normalised(model)
    known = (ceiling for prefix, ceiling in _LONGEST_FIRST if name.startswith(prefix))
    return next(known, _VENDOR_DEFAULTS.get(provider, _DEFAULT))
