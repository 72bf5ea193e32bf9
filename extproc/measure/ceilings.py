"""The most output tokens a model gives when a request does not say. Source: vendors' model pages.

A ceiling that is too high reserves too much and is returned; one that is too low lets a request pass
that a limit should have stopped. So where in doubt, the higher figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from extproc.measure.families import REMEMBERED_MODELS, normalised

# Newer models of both vendors stay at or below this.
_VENDOR_DEFAULTS = {"openai": 128_000, "azure.ai.openai": 128_000, "anthropic": 128_000}
_DEFAULT = 65_536

# What no call of a kind exceeds, whatever its model is called: deployments have names of their own. An
# image, what is said in half an hour, one answer of a conversation.
OPERATION_CEILINGS: Mapping[str, int] = MappingProxyType(
    {"image_generation": 16_384, "transcription": 16_384, "realtime": 4_096}
)

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
    "text-moderation": 0,
    "omni-moderation": 0,
    "whisper": 0,
    "distil-whisper": 0,
    "tts-": 0,
    "dall-e": 0,
    # An image of the highest quality has some 6,200; partial images and newer sizes double it.
    "gpt-image": 16_384,
    "chatgpt-image": 16_384,
    "gpt-4o-transcribe": 2_048,
    "gpt-4o-mini-transcribe": 2_048,
    "gpt-4o-mini-tts": 0,
    "gpt-realtime": 4_096,
    "gpt-audio": 16_384,
    "computer-use-preview": 1_024,
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
    "gemini-2.5-flash-image": 32_768,
    "gemini-3-pro-image": 32_768,
    "gemini-embedding": 0,
    "imagen": 0,
    "imagegeneration": 0,
    "veo-": 0,
    "virtual-try-on": 0,
    "embed-": 0,
    "rerank": 0,
    "voyage": 0,
    "mistral-embed": 0,
    "codestral-embed": 0,
    "titan-embed": 0,
    "nova-2-multimodal-embed": 0,
    "command": 4_096,
    "command-r7b": 4_096,
    "command-a": 8_192,
    "command-a-reasoning": 32_768,
    "c4ai-aya": 4_096,
    # As long as the context: Mistral names no ceiling of its own.
    "mistral-large": 262_144,
    "mistral-medium": 262_144,
    "mistral-small": 262_144,
    "magistral": 131_072,
    "ministral": 262_144,
    "devstral": 262_144,
    "codestral": 262_144,
    "open-mistral-7b": 32_768,
    "open-mixtral": 65_536,
    "nova-micro": 10_000,
    "nova-lite": 10_000,
    "nova-pro": 10_000,
    "nova-premier": 32_768,
    "nova-2": 65_536,
    "nova-canvas": 0,
    "stability.": 0,
    "stable-": 0,
    "flux": 0,
    "nova-reel": 0,
    "titan-image": 0,
    "titan-text-lite": 4_096,
    "titan-text-express": 8_192,
    "titan-text-premier": 3_072,
    "llama2": 4_096,
    "llama-2": 4_096,
    "llama3-8b": 8_192,
    "llama3-70b": 8_192,
    "llama-3-": 8_192,
    "llama": 131_072,
    "deepseek": 65_536,
    "grok": 131_072,
    "grok-2-image": 0,
    "grok-imagine": 0,
    "palmyra": 8_192,
}
_LONGEST_FIRST = tuple(sorted(_CEILINGS.items(), key=lambda entry: -len(entry[0])))


@lru_cache(REMEMBERED_MODELS)
def model_ceiling(provider: str, model: str) -> int:
    """The most output tokens of one choice of `model`; 0 where it generates none."""
    name = normalised(model)
    known = (ceiling for prefix, ceiling in _LONGEST_FIRST if name.startswith(prefix))
    return next(known, _VENDOR_DEFAULTS.get(provider, _DEFAULT))


def call_ceiling(provider: str, model: str, operation: str) -> int:
    """The most output tokens of one choice of a call: its model's, or less where its kind has a ceiling."""
    ceiling = model_ceiling(provider, model)
    return min(ceiling, OPERATION_CEILINGS.get(operation, ceiling))
