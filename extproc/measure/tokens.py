"""Counting the tokens of a prompt before anyone answered, and of a text that was answered.

Counts of OpenAI's models on plain text follow a formula and are exact; all others are estimates and
say so. No count exceeds the bytes of its text: byte-level encodings never make two tokens of a byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import tiktoken

from extproc.measure.ceilings import model_ceiling
from extproc.measure.counts import CACHED_CHARS, CountCache
from extproc.measure.families import Family, ToolForm, family, is_odd, normalised
from extproc.measure.images import image_tokens, largest_image_tokens
from extproc.measure.media import largest_media_tokens, media_tokens
from extproc.measure.tools import typescript
from extproc.model import Prompt, TokenEstimate

NO_ENCODINGS: Mapping[str, tiktoken.Encoding] = MappingProxyType({})

# At the slowest measured speed (5 MB/s) this much takes 0.4 s; the rest is extrapolated.
COUNTED_BYTES = 2_000_000
# Without an encoding: what English prose comes to.
_BYTES_PER_TOKEN = 4
_PLAIN_ROLES = frozenset({"system", "developer", "user", "assistant", ""})
_SYSTEM_ROLES = frozenset({"system", "developer"})
# Each of these is one token in both encodings.
_TOOL_ROLES = frozenset({"tool", "function"})
# Not a message: the schema of the answer, which the system message shows.
_SCHEMA_ROLES = frozenset({"response_format", "response_schema"})
_SHORT_ROLES = _PLAIN_ROLES | _TOOL_ROLES | {"model"}
# What a family adds to a prompt beyond its text, generously: no framing we measured comes near it.
_BOUND_PER_MESSAGE = 16
_BOUND_PER_PROMPT = 100
_BOUND_PER_TOOLS = 1_000
# The encoder gives up on a million blanks in a row; a tenth of that is far from its limit.
_PIECE_CHARS = 100_000
# The system message shares its frame with the tools and with the schema of the answer.
_SHARED_FRAME = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    """Tokens of some texts, and whether every byte was counted rather than extrapolated."""

    tokens: int
    is_whole: bool


class Tokenizer:
    """Counts by the encodings it was given; without any it estimates by bytes. Safe in threads.

    With a `cache`, what was counted before is not counted again; the counts are the same.
    """

    def __init__(
        self, encodings: Mapping[str, tiktoken.Encoding] = NO_ENCODINGS, cache: CountCache | None = None
    ) -> None:
        self._encodings = dict(encodings)
        self._cache = cache

    def estimate(
        self,
        prompt: Prompt,
        *,
        provider: str,
        model: str,
        declared_max_output: int | None,
        is_framed: bool = True,
        counts: bool = True,
    ) -> TokenEstimate:
        """What a prompt will cost, and the most one choice of its answer may.

        A message with an empty role is bare text and carries no framing, nor does any message of what
        `is_framed` says is no conversation (a completion's prompt, an embedding's input). Without
        `counts` the text is estimated by its bytes, at next to no cost.
        """
        constants = family(provider, model)
        encoding = self._encodings.get(constants.encoding) if counts else None
        count = self._count(_texts(prompt), encoding)
        tools = self._tools_tokens(prompt, constants, encoding)
        other = sum(image_tokens(image, model=model) for image in prompt.images)
        other += sum(media_tokens(media, model=model) for media in prompt.media) + prompt.tokens
        bound = _upper_bound(prompt, model)
        total = _with_slope(count.tokens, constants) + tools + other
        total += _framing(prompt, constants) if is_framed else 0
        ceiling = model_ceiling(provider, model) if declared_max_output is None else declared_max_output
        found = min(total, bound)
        return TokenEstimate(
            input=found,
            uncalibrated=found,
            input_upper_bound=bound,
            max_output=max(0, ceiling),
            exact=count.is_whole and _is_exact(prompt, constants, provider, model),
            estimator="bytes" if encoding is None else f"tiktoken:{encoding.name}",
        )

    def count(self, text: str, *, provider: str, model: str) -> int:
        """The tokens of a bare text, such as what a model has generated."""
        constants = family(provider, model)
        encoding = self._encodings.get(constants.encoding)
        return _with_slope(self._count((text,), encoding).tokens, constants)

    def _tools_tokens(self, prompt: Prompt, constants: Family, encoding: tiktoken.Encoding | None) -> int:
        if not prompt.tools:
            return 0
        is_typescript = constants.tool_form is ToolForm.TYPESCRIPT
        if is_typescript and encoding is not None:
            tokens = self._typescript_tokens(prompt.tools, encoding)
        else:
            tokens = self._count(prompt.tools, encoding).tokens
        return _with_slope(tokens * constants.tools_percent // 100, constants) + constants.per_tools

    def _typescript_tokens(self, tools: tuple[str, ...], encoding: tiktoken.Encoding) -> int:
        """An agent sends the same tools with every turn: they are written out and counted once."""
        if self._cache is None:
            return self._count((typescript(tools),), encoding).tokens
        digest = self._cache.digest(f"{encoding.name} tools", tools)
        tokens = self._cache.find(digest)
        if tokens is None:
            tokens = self._count((typescript(tools),), encoding).tokens
            self._cache.note(digest, tokens)
        return tokens

    def _count(self, texts: Iterable[str], encoding: tiktoken.Encoding | None) -> _Count:
        if encoding is None:
            size = sum(_size_bytes(text) for text in texts)
            return _Count(tokens=-(-size // _BYTES_PER_TOKEN), is_whole=False)
        tokens, left, counted, skipped = 0, COUNTED_BYTES, 0, 0
        is_whole = True
        for text in texts:
            size = _size_bytes(text)
            part = text if size <= left else _first_bytes(text, left)
            part_size = min(size, left)
            found = self._length(part, encoding)
            is_whole = is_whole and found is not None
            tokens += _pieced_length(encoding, part) if found is None else found
            counted, left, skipped = counted + part_size, left - part_size, skipped + size - part_size
        if not skipped:
            return _Count(tokens=tokens, is_whole=is_whole)
        return _Count(tokens=tokens + -(-tokens * skipped // counted), is_whole=False)

    def _length(self, text: str, encoding: tiktoken.Encoding) -> int | None:
        """As `_encoded_length`, from the cache where the text is long enough for it."""
        if self._cache is None or len(text) < CACHED_CHARS:
            return _encoded_length(encoding, text)
        digest = self._cache.digest(encoding.name, (text,))
        tokens = self._cache.find(digest)
        if tokens is None:
            tokens = _encoded_length(encoding, text)
            if tokens is not None:
                self._cache.note(digest, tokens)
        return tokens


def _encoded_length(encoding: tiktoken.Encoding, text: str) -> int | None:
    """The tokens of `text`, special tokens taken as text; None where the encoder gave up."""
    try:
        return len(encoding.encode_ordinary(text))
    except BaseException as failure:
        # A regex that runs out of stack panics in Rust; pyo3 raises that past `Exception`.
        if type(failure).__name__ != "PanicException":
            raise
        return None


def _pieced_length(encoding: tiktoken.Encoding, text: str) -> int:
    """About the tokens of a text the encoder gave up on: a cut may split a token, so rather too many."""
    pieces = [text[start : start + _PIECE_CHARS] for start in range(0, len(text), _PIECE_CHARS)]
    lengths = ((piece, _encoded_length(encoding, piece)) for piece in pieces)
    return sum(_size_bytes(piece) if length is None else length for piece, length in lengths)


def _texts(prompt: Prompt) -> tuple[str, ...]:
    known = _SHORT_ROLES | _SCHEMA_ROLES
    odd_roles = (message.role for message in prompt.messages if message.role not in known)
    names = (message.name for message in prompt.messages if message.name)
    return (*(message.text for message in prompt.messages), *names, *odd_roles)


def _framing(prompt: Prompt, constants: Family) -> int:
    unframed = _SCHEMA_ROLES if constants.frames_system else _SCHEMA_ROLES | _SYSTEM_ROLES
    framed = [m for m in prompt.messages if m.role and m.role not in unframed]
    if not framed:
        return 0
    # The role is part of a frame; families without frames do not count it either.
    roles = sum(message.role in _SHORT_ROLES for message in framed) if constants.per_message else 0
    names = sum(bool(message.name) for message in framed)
    results = constants.per_tool_result * sum(message.role in _TOOL_ROLES for message in framed)
    shared = _SHARED_FRAME if _shares_frame(prompt, constants) else 0
    return constants.per_prompt + constants.per_message * len(framed) + roles + names + results - shared


def _shares_frame(prompt: Prompt, constants: Family) -> bool:
    roles = {message.role for message in prompt.messages}
    shows_more = bool(prompt.tools) or not _SCHEMA_ROLES.isdisjoint(roles)
    is_openai = constants.tool_form is ToolForm.TYPESCRIPT
    return is_openai and shows_more and not roles.isdisjoint(_SYSTEM_ROLES)


def _upper_bound(prompt: Prompt, model: str) -> int:
    texts = sum(_size_bytes(text) for text in _texts(prompt))
    frames = _BOUND_PER_MESSAGE * sum(bool(message.role) for message in prompt.messages)
    once = _BOUND_PER_PROMPT if frames else 0
    tools = sum(_size_bytes(tool) for tool in prompt.tools) + _BOUND_PER_TOOLS if prompt.tools else 0
    images = largest_image_tokens(model=model) * len(prompt.images)
    media = sum(largest_media_tokens(media) for media in prompt.media)
    return texts + tools + frames + once + images + media + prompt.tokens


def _is_exact(prompt: Prompt, constants: Family, provider: str, model: str) -> bool:
    return (
        constants.is_exact
        and provider == "openai"
        and not prompt.tools
        and not prompt.images
        and not prompt.media
        and not is_odd(normalised(model))
        and all(message.role in _PLAIN_ROLES for message in prompt.messages)
    )


def _with_slope(tokens: int, constants: Family) -> int:
    return (tokens * constants.slope_percent + 50) // 100


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _first_bytes(text: str, size: int) -> str:
    return text.encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore")
