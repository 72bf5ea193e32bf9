"""OpenAI Chat Completions as the demo provider speaks it. Source: recorded answers of the real one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from demo import asked as asking
from demo.answers import Part
from demo.asked import Asked, Refused, Tool
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
    "MODELS",
    "NAME",
    "PROVIDER",
    "credential",
    "error",
    "error_event",
    "error_headers",
    "events",
    "garbage",
    "headers",
    "model",
    "models",
    "read",
    "request_id",
    "whole",
)

NAME = "openai_chat"
MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-5", "o1-pro")

_MODELS_SINCE = 1_715_367_049


def models() -> dict[str, Any]:
    """The list of models."""
    return {"object": "list", "data": [model(name) for name in MODELS]}


def model(name: str) -> dict[str, Any]:
    """One model."""
    return {"id": name, "object": "model", "created": _MODELS_SINCE, "owned_by": "demo"}


def read(body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:
    """What a body asks for. Raises `Refused` (400)."""
    ceilings = [asking.count(body, name) for name in ("max_tokens", "max_completion_tokens")]
    stream, include_usage = asks_for_stream(body)
    tools = _tools(body)
    wanted = headers.get("x-demo-tool") or _wanted_tool(body.get("tool_choice"))
    return Asked(
        model=asking.required(body, "model", str),
        prompt=Prompt(
            messages=tuple(_message(message) for message in asking.messages(body)),
            tools=tuple(
                json.dumps(tool, ensure_ascii=False, separators=(",", ":"))
                for tool in body.get("tools") or ()
            ),
            images=(asking.IMAGE,) * sum(_images(message) for message in body["messages"]),
        ),
        stream=stream,
        choices=asking.count(body, "n") or 1,
        ceiling=min((ceiling for ceiling in ceilings if ceiling is not None), default=None),
        tool=asking.pick_tool(tools, wanted),
        include_usage=include_usage,
    )


def whole(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> dict[str, Any]:
    """A JSON answer."""
    answer = _shared(asked, "chat.completion") | {
        "choices": [_whole_choice(number, choice) for number, choice in enumerate(choices)]
    }
    output_tokens = sum(choice.tokens for choice in choices)
    return (
        answer
        if usage_mode == "absent"
        else {**answer, "usage": usage(usage_mode, input_tokens, output_tokens)}
    )


def events(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> Iterator[Part]:
    """A streamed answer: a chunk a token, choices in turn."""
    tells_usage = asked.include_usage and usage_mode != "absent"
    chunks = Chunks(_shared(asked, "chat.completion.chunk"), tells_usage=tells_usage)
    for number, choice in enumerate(choices):
        yield _part(chunks, number, _opening(choice), tokens=int(bool(choice.tool_name)))
    for position in range(max(len(_pieces(choice)) for choice in choices)):
        for number, choice in enumerate(choices):
            if position < len(_pieces(choice)):
                yield _part(chunks, number, _delta(choice, position), tokens=1)
    for number, choice in enumerate(choices):
        yield _part(chunks, number, {}, finish=_finish_reason(choice))
    if tells_usage:
        told = usage(usage_mode, input_tokens, sum(choice.tokens for choice in choices))
        yield Part(data=chunks.usage(told))
    yield Part(data=event("[DONE]"))


def garbage() -> bytes:
    """The beginning of an answer, and no more."""
    return b'{"id":"chatcmpl-demo","object":"chat.completion","choices":[{"index":0,'


def _part(
    chunks: Chunks, number: int, delta: Mapping[str, Any], *, tokens: int = 0, finish: str | None = None
) -> Part:
    choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": finish}
    return Part(data=chunks.choice(choice), tokens=tokens, chunks=tokens)


def _message(message: Mapping[str, Any]) -> PromptMessage:
    content = asking.field(message, "content", (str, list))
    texts = [content] if isinstance(content, str) else [_part_text(part) for part in content or ()]
    for call in message.get("tool_calls") or ():
        texts += [str(call.get("function", {}).get(key, "")) for key in ("name", "arguments")]
    return asking.prompt_message(message["role"], texts, message.get("name"))


def _part_text(part: Any) -> str:
    text = part.get("text", "") if isinstance(part, dict) else ""
    return text if isinstance(text, str) else ""


def _images(message: Mapping[str, Any]) -> int:
    parts = message.get("content")
    return sum(part.get("type") == "image_url" for part in parts) if isinstance(parts, list) else 0


def _tools(body: Mapping[str, Any]) -> list[Tool]:
    found = []
    for tool in asking.field(body, "tools", list, []):
        function = tool.get("function", {}) if isinstance(tool, dict) else {}
        if not isinstance(function.get("name"), str):
            raise Refused(400, "Missing required parameter: 'tools[].function.name'.", param="tools")
        found.append(Tool(name=function["name"], schema=function.get("parameters") or {}))
    return found


def _wanted_tool(choice: Any) -> str | None:
    if isinstance(choice, dict):
        return str(choice.get("function", {}).get("name", "*"))
    return "*" if choice == "required" else None


def _whole_choice(number: int, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(choice.text) or None, "refusal": None}
    if choice.tool_name:
        function = {"name": choice.tool_name, "arguments": "".join(choice.arguments)}
        message["tool_calls"] = [{"id": _call_id(), "type": "function", "function": function}]
    else:
        message["annotations"] = []
    return {"index": number, "message": message, "logprobs": None, "finish_reason": _finish_reason(choice)}


def _opening(choice: Choice) -> dict[str, Any]:
    if not choice.tool_name:
        return {"role": "assistant", "content": "", "refusal": None}
    function = {"name": choice.tool_name, "arguments": ""}
    call = {"index": 0, "id": _call_id(), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}


def _pieces(choice: Choice) -> tuple[str, ...]:
    return choice.arguments if choice.tool_name else choice.text


def _delta(choice: Choice, position: int) -> dict[str, Any]:
    piece = _pieces(choice)[position]
    if not choice.tool_name:
        return {"content": piece}
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _finish_reason(choice: Choice) -> str:
    if choice.is_cut:
        return "length"
    return "tool_calls" if choice.tool_name else "stop"


def _shared(asked: Asked, kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-" + base62(29),
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }


def _call_id() -> str:
    return "call_" + base62(24)
