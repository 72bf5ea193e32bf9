"""OpenAI Responses as the demo provider speaks it. Source: recorded answers of the real one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from demo import asked as asking
from demo.answers import Part
from demo.asked import Asked
from demo.generation import Choice
from demo.ids import base62, hexadecimal
from demo.openai_dialect import (
    PROVIDER,
    credential,
    error,
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

NAME = "openai_responses"

_TEXTS = ("text", "refusal", "arguments", "output")


def read(body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:
    """What a body asks for. Raises `Refused` (400)."""
    given = asking.required(body, "input", (str, list))
    items = [{"role": "user", "content": given}] if isinstance(given, str) else asking.objects(given)
    instructions = asking.field(body, "instructions", str)
    system = [PromptMessage(role="system", text=instructions)] if instructions else []
    tools = asking.objects(asking.field(body, "tools", list, []))
    functions = [tool for tool in tools if tool.get("type") == "function"]
    wanted = headers.get("x-demo-tool") or _wanted_tool(body.get("tool_choice"))
    return Asked(
        model=asking.required(body, "model", str),
        prompt=Prompt(
            messages=(*system, *map(_message, items)),
            tools=tuple(asking.compact(tool) for tool in tools),
            images=(asking.IMAGE,) * sum(_images(item) for item in items),
        ),
        stream=asking.field(body, "stream", bool, default=False),
        ceiling=asking.count(body, "max_output_tokens"),
        tool=asking.pick_tool(asking.named_tools(functions, "parameters"), wanted),
        thinks=bool(asking.field(body, "reasoning", dict, {}).get("effort")),
        own={name: body.get(name) for name in ("instructions", "max_output_tokens", "previous_response_id")},
    )


def error_event(request_id: str) -> bytes:
    """An error in the middle of a stream."""
    said = error(500, "The server had an error.", param=None, request_id=request_id)["error"]
    return _event({"type": "error", "sequence_number": 0, **said, "error": said})


def usage(mode: str, input_tokens: int, choice: Choice) -> dict[str, Any] | None:
    """The usage object; `mode` is `true`, `zero` or `null`."""
    if mode == "null":
        return None
    given, made, thought = input_tokens, choice.tokens, len(choice.thinking)
    if mode == "zero":
        given = made = thought = 0
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": given + made,
    }


def whole(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> dict[str, Any]:
    """A JSON answer."""
    (choice,) = choices
    return _ended(_response(asked), choice, list(_items(choice)), input_tokens, usage_mode)


def events(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> Iterator[Part]:
    """A streamed answer: typed events, numbered, a delta a token."""
    (choice,) = choices
    response = _response(asked)
    for number, (event, tokens) in enumerate(_told(response, choice, input_tokens, usage_mode)):
        data = _event({"type": event["type"], "sequence_number": number, **event})
        yield Part(data=data, tokens=tokens, chunks=int(tokens > 0))


def garbage() -> bytes:
    """The beginning of an answer, and no more."""
    return b'{"id":"resp_demo","object":"response","status":"completed","output":[{"type":'


def _told(
    response: dict[str, Any], choice: Choice, input_tokens: int, usage_mode: str
) -> Iterator[tuple[dict[str, Any], int]]:
    """Each event, and the tokens that were generated for it."""
    yield {"type": "response.created", "response": response}, 0
    yield {"type": "response.in_progress", "response": response}, 0
    items = list(_items(choice))
    for index, item in enumerate(items):
        yield from _streamed_item(index, item, choice)
    ended = _ended(response, choice, items, input_tokens, usage_mode)
    yield {"type": f"response.{ended['status']}", "response": ended}, 0


def _streamed_item(index: int, item: dict[str, Any], choice: Choice) -> Iterator[tuple[dict[str, Any], int]]:
    place = {"item_id": item["id"], "output_index": index}
    tokens = {"reasoning": len(choice.thinking), "function_call": 1}.get(item["type"], 0)
    yield (
        {"type": "response.output_item.added", "output_index": index, "item": {**item, **_opening(item)}},
        tokens,
    )
    if item["type"] == "message":
        (part,) = item["content"]
        at = {**place, "content_index": 0}
        yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}, 0
        for piece in choice.text:
            yield {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}, 1
        yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}, 0
        yield {"type": "response.content_part.done", **at, "part": part}, 0
    elif item["type"] == "function_call":
        kind = "response.function_call_arguments"
        for piece in choice.arguments:
            yield {"type": f"{kind}.delta", **place, "delta": piece}, 1
        yield {"type": f"{kind}.done", **place, "name": item["name"], "arguments": item["arguments"]}, 0
    yield {"type": "response.output_item.done", "output_index": index, "item": item}, 0


def _opening(item: Mapping[str, Any]) -> dict[str, Any]:
    """What of an item is otherwise when it opens."""
    changes: Mapping[str, Any] = {"message": {"content": []}, "function_call": {"arguments": ""}}
    return {**changes[item["type"]], "status": "in_progress"} if item["type"] in changes else {}


def _items(choice: Choice) -> Iterator[dict[str, Any]]:
    if choice.thinking:
        yield {"id": "rs_" + hexadecimal(48), "type": "reasoning", "summary": []}
    status = "incomplete" if choice.is_cut else "completed"
    if choice.tool_name:
        yield {
            "id": "fc_" + hexadecimal(48),
            "type": "function_call",
            "status": status,
            "arguments": "".join(choice.arguments),
            "call_id": "call_" + base62(24),
            "name": choice.tool_name,
        }
    else:
        text = {"type": "output_text", "annotations": [], "logprobs": [], "text": "".join(choice.text)}
        message = {"id": "msg_" + hexadecimal(48), "type": "message", "status": status}
        yield {**message, "content": [text], "role": "assistant"}


def _response(asked: Asked) -> dict[str, Any]:
    """A response that has only begun."""
    return {
        "id": "resp_" + hexadecimal(48),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": True,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
        **asked.own,
    }


def _ended(
    response: dict[str, Any], choice: Choice, items: list[dict[str, Any]], input_tokens: int, usage_mode: str
) -> dict[str, Any]:
    ended = response | {
        "status": "incomplete" if choice.is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if choice.is_cut else None,
        "output": items,
        "usage": None if usage_mode == "absent" else usage(usage_mode, input_tokens, choice),
    }
    if usage_mode == "absent":
        del ended["usage"]
    return ended


def _message(item: Mapping[str, Any]) -> PromptMessage:
    content = item.get("content")
    texts = [content] if isinstance(content, str) else []
    for part in (item, *asking.objects(content)):
        texts += [part[name] for name in _TEXTS if isinstance(part.get(name), str)]
    is_result = item.get("type") == "function_call_output"
    role = "tool" if is_result else str(item.get("role") or "assistant")
    name = str(item.get("name", "")) if item.get("type") == "function_call" else ""
    return asking.prompt_message(role, [name, *texts])


def _images(item: Mapping[str, Any]) -> int:
    return sum(part.get("type") == "input_image" for part in asking.objects(item.get("content")))


def _wanted_tool(choice: Any) -> str | None:
    if isinstance(choice, dict):
        return str(choice.get("name", "*"))
    return "*" if choice == "required" else None


def _event(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
