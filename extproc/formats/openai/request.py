"""What the bodies of OpenAI's APIs share: messages and their parts, tools, models, bare inputs.

Floor 1, pure. Compatible servers mix the words of all of them, so there is one table of parts.
Source: openai-python `types`, and what OpenRouter, vLLM, xAI, Azure and Voyage add to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from extproc.formats import fields
from extproc.formats.base import JSON, Call
from extproc.formats.content import Content
from extproc.formats.images import size_of_base64, size_of_url
from extproc.formats.strict_json import compact_json

_MESSAGE_KEYS = frozenset({"role", "content", "name", "tool_calls", "function_call", "refusal", "audio"})
_PART_KEYS = frozenset(
    {
        *("type", "text", "refusal", "image_url", "input_audio", "file", "video_url", "audio_url"),
        *("file_data", "file_url", "file_id", "image_base64"),
    }
)
_ROUTE_KEYS = frozenset({"id", "model", "models", "enabled"})
_MODERATION_KEYS = frozenset({"model"})
_STREAM_OPTION_KEYS = frozenset({"include_usage"})
# No role of the API, so that no counter takes the prompt for plain text: recorded requests with a
# schema come to 5 to 10 % less than text and frame say.
_SCHEMA_ROLE = "response_format"
_SEARCH_ROLE = "search"
_STATE_KEYS = ("previous_response_id", "conversation", "preset")
_PRESET = "@preset/"
_ONLINE_SUFFIX = ":online"
# Azure learned `stream_options` and `max_completion_tokens` with 2024-09-01-preview, and answers 400 before.
_AZURE_LEARNED = "2024-09"
_AZURE = "azure."
# They report usage whether asked or not.
_REPORT_UNASKED = frozenset({"groq", "mistral_ai", "perplexity"})

# A list of token ids is told from a list of texts without looking at each.
_IDS = {int}

PartReader = Callable[[JSON, str, Content], None]


def models(body: JSON, call: Call, *also: str) -> tuple[str, ...]:
    """The model, the fallbacks that routers such as OpenRouter take from the body, and `also`."""
    named = [*fields.models_of(body, call), *_names(body, "models", "")]
    for key in ("fallbacks", "plugins"):
        for at, route in fields.objects(body, key):
            fields.check_case(route, _ROUTE_KEYS, at)
            named += [fields.name(route, "model", at), *_names(route, "models", at)]
    return fields.models([*named, *also])


def _names(body: JSON, key: str, at: str) -> list[str]:
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise fields.wrong(f"{at}/{key}", "must be a list")
    numbered = {str(number): name for number, name in enumerate(value)}
    return [fields.required_name(numbered, number, f"{at}/{key}") for number in numbered]


def moderator(body: JSON) -> str:
    """The model that judges prompt and answer on the way; empty where none is asked for."""
    moderation = fields.mapping(body, "moderation")
    fields.check_case(moderation, _MODERATION_KEYS, "/moderation")
    return fields.name(moderation, "model", "/moderation")


def end_user(body: JSON) -> str:
    """Who the caller says is behind the request."""
    return fields.string(body, "safety_identifier") or fields.string(body, "user")


def has_state(body: JSON, names: tuple[str, ...]) -> bool:
    """Whether the provider adds what it keeps: earlier turns, or a preset that one of `names` asks for."""
    return any(body.get(key) is not None for key in _STATE_KEYS) or any(_PRESET in name for name in names)


def asks_for_usage(body: JSON) -> bool:
    """Whether `stream_options` asks for a chunk of usage."""
    options = fields.mapping(body, "stream_options")
    fields.check_case(options, _STREAM_OPTION_KEYS, "/stream_options")
    return fields.flag(options, "include_usage", "/stream_options")


def is_older_azure(call: Call) -> bool:
    """Whether it goes to a version of Azure's API that knows neither of the two newer fields."""
    # Anywhere else it is a parameter that nobody reads, and would be a way not to be asked.
    version = call.query.get("api-version", _AZURE_LEARNED)
    return call.provider.startswith(_AZURE) and version < _AZURE_LEARNED


def may_be_asked_for_usage(call: Call) -> bool:
    """Whether `stream_options` is known where this call goes, and of use there."""
    return not is_older_azure(call) and call.provider not in _REPORT_UNASKED


def wants_usage_chunk(body: JSON, call: Call) -> bool:
    """False where the client gets a chunk that only we ask for."""
    return not fields.flag(body, "stream") or asks_for_usage(body) or not may_be_asked_for_usage(call)


def with_usage(body: JSON, call: Call) -> JSON | None:
    """A streamed body that asks for usage; None where nothing is to change."""
    if wants_usage_chunk(body, call):
        return None
    return {**body, "stream_options": {**fields.mapping(body, "stream_options"), "include_usage": True}}


def read_messages(body: JSON, content: Content, key: str = "messages", at: str = "") -> int:
    """The messages at `key`: how many there are."""
    messages = list(fields.objects(body, key, at))
    for here, message in messages:
        read_message(message, here, content)
    return len(messages)


def read_message(message: JSON, at: str, content: Content) -> None:
    """One message with its calls of tools."""
    fields.check_case(message, _MESSAGE_KEYS, at)
    role = fields.required_name(message, "role", at)
    read_parts(message, "content", at, content)
    for key in ("refusal", "reasoning_content"):
        content.text(fields.string(message, key, at))
    if message.get("audio") is not None:
        content.other("audio")
    _read_calls(message, at, content)
    content.end_message(role, fields.string(message, "name", at) or None)


def read_parts(holder: JSON, key: str, at: str, content: Content) -> None:
    """Content: a string, or a list of parts."""
    value = holder.get(key)
    if isinstance(value, str):
        content.text(value)
    elif isinstance(value, list):
        for here, part in fields.objects(holder, key, at):
            read_part(part, here, content)
    elif value is not None:
        raise fields.wrong(f"{at}/{key}", "must be a string or a list of parts")


def read_part(part: JSON, at: str, content: Content) -> None:
    """One part; one of a kind we do not know is counted as the text it is written in."""
    fields.check_case(part, _PART_KEYS, at)
    _PART_READERS.get(fields.string(part, "type", at), _read_unknown)(part, at, content)


def _read_calls(message: JSON, at: str, content: Content) -> None:
    calls = [
        (f"{here}/{kind}", fields.mapping(call, kind, here))
        for here, call in fields.objects(message, "tool_calls", at)
        for kind in ("function", "custom")
    ]
    calls.append((f"{at}/function_call", fields.mapping(message, "function_call", at)))
    for here, call in calls:
        for key in ("name", "arguments", "input"):
            content.text(fields.string(call, key, here))


def _read_text(part: JSON, at: str, content: Content) -> None:
    content.text(fields.string(part, "text", at))


def _read_refusal(part: JSON, at: str, content: Content) -> None:
    content.text(fields.string(part, "refusal", at))


def _read_image(part: JSON, at: str, content: Content) -> None:
    # Responses and several compatible servers take the URL itself in place of the object.
    short = part.get("image_url")
    if isinstance(short, str):
        content.image(size_of_url(short), fields.string(part, "detail", at) or "auto")
        return
    image, here = fields.mapping(part, "image_url", at), f"{at}/image_url"
    content.image(
        size_of_url(fields.string(image, "url", here)), fields.string(image, "detail", here) or "auto"
    )


def _read_image_base64(part: JSON, at: str, content: Content) -> None:
    data = fields.string(part, "image_base64", at)
    content.image(size_of_url(data) or size_of_base64(data))


def _read_audio(part: JSON, at: str, content: Content) -> None:
    data = fields.string(fields.mapping(part, "input_audio", at), "data", f"{at}/input_audio")
    content.other("audio", _decoded_bytes(data))


def _read_file(part: JSON, at: str, content: Content) -> None:
    """Chat nests the file, Responses does not; where only its name is there, its size is unknown."""
    nested = fields.mapping(part, "file", at)
    file, here = (nested, f"{at}/file") if nested else (part, at)
    content.other("file", _decoded_bytes(fields.string(file, "file_data", here)))


def _decoded_bytes(base64_data: str) -> int | None:
    return len(base64_data) * 3 // 4 or None


def _modality(name: str) -> PartReader:
    def read(_part: JSON, _at: str, content: Content) -> None:
        content.other(name)

    return read


def _read_unknown(part: JSON, _at: str, content: Content) -> None:
    content.text(compact_json(part))


def _read_file_image(_part: JSON, _at: str, content: Content) -> None:
    content.image(None)


_PART_READERS: Mapping[str, PartReader] = MappingProxyType(
    {
        **dict.fromkeys(("text", "input_text", "output_text", "summary_text", "reasoning_text"), _read_text),
        **dict.fromkeys(("image_url", "input_image", "computer_screenshot"), _read_image),
        **dict.fromkeys(("file", "input_file"), _read_file),
        "refusal": _read_refusal,
        "image_base64": _read_image_base64,
        "image_file": _read_file_image,
        "input_audio": _read_audio,
        "audio_url": _modality("audio"),
        "video_url": _modality("video"),
    }
)


def read_schema(holder: JSON, at: str, content: Content) -> None:
    """A JSON schema for the answer: it is part of the prompt that the provider bills."""
    for key in ("name", "description"):
        content.text(fields.string(holder, key, at))
    content.text(compact_json(holder.get("schema")))
    content.end_message(_SCHEMA_ROLE)


def read_searches(body: JSON, names: tuple[str, ...], content: Content) -> list[str]:
    """The searches a body asks for outside its tools, by the names that rules know them by.

    `names` are its models: OpenRouter searches the web for one that ends in `:online`.
    """
    found = ["web_search"] if body.get("web_search_options") is not None else []
    for at, plugin in fields.objects(body, "plugins"):
        if plugin.get("enabled") is not False:
            found.append(fields.string(plugin, "id", at))
    if any(name.endswith(_ONLINE_SUFFIX) for name in names):
        found.append("web")
    search = body.get("search_parameters")  # xAI
    if search is not None and fields.mapping(body, "search_parameters").get("mode") != "off":
        found.append("live_search")
    for at, source in fields.objects(body, "data_sources"):  # Azure
        found.append(fields.string(source, "type", at))
    if found:
        # What is found becomes part of the prompt; the definition itself, with its keys, does not.
        content.end_message(_SEARCH_ROLE)
    return found


def read_inputs(body: JSON, key: str, content: Content, read_other: PartReader | None = None) -> int:
    """Texts or their token ids, one or many: how many there are; `read_other` takes objects among them."""
    value = body.get(key)
    if isinstance(value, str):
        content.text(value)
        content.end_message("")
        return 1
    if not isinstance(value, list):
        raise fields.wrong(f"/{key}", "must be a string or a list")
    if set(map(type, value)) == _IDS:
        content.ids(len(value))
        return 1
    for position, item in enumerate(value):
        _read_input(item, f"/{key}/{position}", content, read_other)
    return len(value)


def _read_input(item: Any, at: str, content: Content, read_other: PartReader | None) -> None:
    if isinstance(item, str):
        content.text(item)
    elif isinstance(item, list) and set(map(type, item)) <= _IDS:
        content.ids(len(item))
    elif isinstance(item, dict) and read_other is not None:
        read_other(item, at, content)
    else:
        raise fields.wrong(at, "must be a string or a list of token ids")
    content.end_message("")
