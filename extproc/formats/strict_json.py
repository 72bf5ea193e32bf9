"""JSON that every parser on the way reads alike, or nothing.

Floor 1, pure. Two parsers that disagree about a body are a way around policy: the sidecar reads
one `model`, the upstream another. So whatever RFC 8259 leaves open is refused here. The standard
library's parser is used because it shows duplicate keys; faster ones silently keep the last.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from extproc.decision import Reason
from extproc.errors import RequestRefused

# Far above any real request, far below every parser's own limit (1000 in CPython and serde).
MAX_NESTING = 128
# Of objects and lists together; every one costs microseconds to read. The largest real bodies have some
# ten thousand.
MAX_CONTAINERS = 100_000
# A double ends at 309 digits; a longer number is infinity to half of all parsers.
MAX_NUMBER_CHARS = 308

# Go's encoding/json matches keys without regard to case, so `Model` reaches such an upstream as
# `model`. Every top-level field that any format here reads.
KNOWN_FIELDS = frozenset(
    {
        *("model", "models", "fallbacks", "messages", "system", "input", "instructions", "prompt"),
        *("stream", "stream_options", "n", "best_of", "max_tokens", "max_completion_tokens"),
        *("max_output_tokens", "temperature", "tools", "functions", "mcp_servers", "web_search_options"),
        *("user", "safety_identifier", "metadata", "response_format", "thinking", "reasoning"),
        *("output_format", "output_config"),
        *("previous_response_id", "conversation", "container"),
        *("purpose", "file", "image", "mask", "voice", "session", "sdp", "stream_format"),
        *("chat_template", "chat_template_kwargs", "features", "background"),
        *("input_file_id", "endpoint", "input_audio_transcription", "max_response_output_tokens", "url"),
        *("method", "body", "svg", "markup", "bytes", "training_file", "audio"),
        *("suffix", "prompt_embeds", "text", "moderation", "items", "inputs", "preset", "plugins"),
        *("search_parameters", "data_sources", "query", "queries", "documents", "data_1", "data_2"),
        *("text_1", "text_2", "assistant_id", "additional_instructions", "additional_messages"),
        *("thread", "tool_outputs", "content", "role"),
        # Bedrock, SageMaker and text-generation-inference
        *("inferenceConfig", "toolConfig", "additionalModelRequestFields", "promptVariables"),
        *("requestMetadata", "outputConfig", "anthropic_version", "schemaVersion", "max_tokens_to_sample"),
        *("max_gen_len", "maxTokens", "numResults", "num_generations", "images", "samples"),
        *("inputText", "inputImage", "textGenerationConfig", "imageGenerationConfig", "taskType"),
        *("message", "chat_history", "preamble", "documents", "query", "texts", "inputs", "input_type"),
        *("text_prompts", "negative_prompt", "parameters", "tool_results", "singleEmbeddingParams"),
        *("image", "init_image", "mask", "mask_image"),
        # Cohere
        *("connectors", "conversation_id", "text", "examples", "tool_results", "preset"),
        *("additional_command", "tokens"),
        # Mistral, and vLLM's own paths
        *("document", "agent_id", "agent", "completion_args", "data", "token_ids", "sampling_params"),
        *("text_1", "text_2", "queries"),
        # Ollama
        *("options", "format", "suffix", "template", "context", "name", "source", "destination", "from"),
        *("modelfile", "dimensions"),
        # MCP, Anthropic's batches and old completions, watsonx, Replicate
        *("jsonrpc", "id", "method", "params", "result", "error", "requests", "model_id", "version"),
    }
)
_SPELLED = {name.casefold(): name for name in KNOWN_FIELDS}

_MAYBE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(data: bytes) -> dict[str, Any]:
    """The object that `data` is, if every JSON parser would read the same one.

    Raises `RequestRefused` (400) naming problem and place, never the text found there.
    """
    text = _utf8(data)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        problem = error.msg.partition(":")[0]
        raise malformed(f"is not JSON: {problem} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        # The parser itself stops at about a thousand levels, long before the stack ends.
        raise _nested() from None
    if not isinstance(value, dict):
        raise malformed("is not a JSON object at its top level")
    _check_structure(data, value)
    check_body_keys(value)
    if _MAYBE_SURROGATE.search(data):
        _check_surrogates(value)
    return value


def compact_json(value: Any) -> str:
    """The shortest JSON text of a parsed value, keys in their order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def malformed(what: str) -> RequestRefused:
    """A 400 that says what is wrong with the body."""
    return RequestRefused(status=400, code=Reason.BODY_MALFORMED, message=f"The request body {what}.")


def _utf8(data: bytes) -> str:
    if not data:
        raise RequestRefused(status=400, code=Reason.BODY_MISSING, message="This call needs a request body.")
    encoding = json.detect_encoding(data)
    if encoding == "utf-8-sig":
        raise malformed("starts with a byte order mark")
    if encoding != "utf-8":
        raise malformed("is not UTF-8")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise malformed(f"is not UTF-8 at byte {error.start}") from None


def _check_structure(data: bytes, value: dict[str, Any]) -> None:
    if data.count(b"[") + data.count(b"{") <= MAX_NESTING:
        return
    level: list[Any] = [value]
    containers = 0
    for _ in range(MAX_NESTING):
        containers += len(level)
        if containers > MAX_CONTAINERS:
            raise malformed(f"has more than {MAX_CONTAINERS} objects and lists")
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
    if level:
        raise _nested()


def _nested() -> RequestRefused:
    return malformed(f"is nested deeper than {MAX_NESTING} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise malformed(f"has the key {shown(key)} twice in one object")
            seen.add(key)
    return members


def check_body_keys(members: Mapping[str, Any]) -> None:
    """Refuse keys of a body that some upstream would read as a known field, or as another of them.

    `parse_json` asks this of what it returns; who finds a body inside a body must.
    """
    folded: set[str] = set()
    for key in members:
        fold = key.casefold()
        if key not in KNOWN_FIELDS and (spelled := _SPELLED.get(fold)):
            raise malformed(f"has a key that differs from {spelled} only in case")
        if fold in folded:
            raise malformed(f"has keys that differ only in case: {shown(fold)}")
        folded.add(fold)


def shown(key: str) -> str:
    """A key as far as it may be shown: a field of some API. People write keys too."""
    return key if key in KNOWN_FIELDS or key in _SPELLED else "(unknown)"


def _check_surrogates(value: Any) -> None:
    try:
        compact_json(value).encode()
    except UnicodeEncodeError:
        # Only now is the place worth looking for: in a deep body that takes long.
        raise malformed(f"has half a surrogate pair at {_surrogate_at(value, '') or '/'}") from None


def _surrogate_at(value: Any, pointer: str) -> str | None:
    """Where the first half of a pair is; None where there is none."""
    if isinstance(value, str):
        return pointer if _is_broken(value) else None
    if isinstance(value, dict):
        if any(map(_is_broken, value)):
            return pointer
        items: Iterable[tuple[str, Any]] = ((shown(key), item) for key, item in value.items())
    elif isinstance(value, list):
        items = ((str(number), item) for number, item in enumerate(value))
    else:
        return None
    for key, item in items:
        if isinstance(item, dict | list) or (isinstance(item, str) and _is_broken(item)):
            found = _surrogate_at(item, f"{pointer}/{key}")
            if found is not None:
                return found
    return None


def _is_broken(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def _integer(digits: str) -> int:
    _check_length(digits)
    return int(digits)


def _float(digits: str) -> float:
    _check_length(digits)
    number = float(digits)
    if not math.isfinite(number):
        raise malformed("has a number beyond the range of a double")
    return number


def _check_length(digits: str) -> None:
    if len(digits) > MAX_NUMBER_CHARS:
        raise malformed(f"has a number of more than {MAX_NUMBER_CHARS} digits")


def _constant(_name: str) -> NoReturn:
    raise malformed("has NaN or Infinity, which JSON does not know")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
