"""What a request asked the demo provider for, whatever its dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as own_field
from typing import Any

from extproc.model import Prompt, PromptImage, PromptMessage

# No pixels are looked at: every image counts as one of this size.
IMAGE = PromptImage(width_px=512, height_px=512)


SSE = "text/event-stream; charset=utf-8"


class Refused(Exception):
    """The provider will not answer this; the dialect turns it into its own error."""

    def __init__(self, status: int, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function the answer is to call; `schema` is the JSON schema of its arguments."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, as far as an invented answer depends on it."""

    model: str
    prompt: Prompt
    stream: bool
    choices: int = 1
    ceiling: int | None = None  # output tokens of one choice
    tool: Tool | None = None
    thinks: bool = False
    include_usage: bool = True
    stream_type: str = SSE  # content type of a streamed answer
    own: Mapping[str, Any] = own_field(default_factory=dict)  # what only its own dialect looks at


def field(body: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    """A member of a body. Raises `Refused` (400) where it has another type; null is absent."""
    value = body.get(name)
    if value is None:
        return default
    # True is an int in Python, and not in JSON.
    is_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not is_kind:
        raise Refused(400, f"Invalid type for '{name}'.", param=name)
    return value


def required(body: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A member that must be there."""
    value = field(body, name, kind)
    if value is None:
        raise Refused(400, f"Missing required parameter: '{name}'.", param=name)
    return value


def count(body: Mapping[str, Any], name: str) -> int | None:
    """A member that is a whole number of at least 1."""
    value: int | None = field(body, name, int)
    if value is not None and value < 1:
        raise Refused(400, f"Invalid value for '{name}': must be at least 1.", param=name)
    return value


def messages(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The conversation, which must have at least one message."""
    found: list[Mapping[str, Any]] = required(body, "messages", list)
    if not found or not all(isinstance(message, dict) and message.get("role") for message in found):
        raise Refused(400, "Invalid 'messages': a list of messages with a role is needed.", param="messages")
    return found


def prompt_message(role: str, texts: list[str], name: str | None = None) -> PromptMessage:
    """One message for the tokenizer."""
    return PromptMessage(role=role, text="\n".join(text for text in texts if text), name=name)


def pick_tool(tools: list[Tool], wanted: str | None) -> Tool | None:
    """The tool of that name, the first one where any will do ("*"), or none."""
    if not tools or wanted is None:
        return None
    return next((tool for tool in tools if tool.name == wanted), tools[0])


def compact(value: Any) -> str:
    """JSON without needless space, as it is counted."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list; empty where it is none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def named_tools(tools: list[Mapping[str, Any]], schema: str) -> list[Tool]:
    """Tools that say their name and, under `schema`, their arguments. Raises `Refused` (400)."""
    if not all(isinstance(tool.get("name"), str) for tool in tools):
        raise Refused(400, "Every tool needs a name.", param="tools")
    return [Tool(name=tool["name"], schema=tool.get(schema) or {}) for tool in tools]
