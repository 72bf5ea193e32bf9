"""Cohere's second chat as the demo provider speaks it. Source: recorded answers of the real one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from demo import asked as asking
from demo.answers import Part
from demo.asked import Asked
from demo.generation import Choice
from demo.ids import base62
from demo.openai_dialect import credential
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

NAME = "cohere_v2"
PROVIDER = "cohere"

# The model reads its own template too, which nobody is billed for.
_TEMPLATE_TOKENS = 62


def request_id() -> str:
    """An id as this dialect writes it."""
    return str(uuid.uuid4())


def headers(request_id: str) -> dict[str, str]:
    """What every answer carries."""
    return {"x-debug-trace-id": request_id, "x-endpoint-monthly-call-limit": "1000", "num_chars": "12"}


def error(status: int, message: str, *, param: str | None, request_id: str) -> dict[str, Any]:  # noqa: ARG001 - another dialect's body names it
    """An error's body."""
    return {"id": request_id, "message": message if param is None else f"{param}: {message}"}


def error_headers(status: int) -> dict[str, str]:  # noqa: ARG001 - another dialect's say it
    """What an answer with an error carries besides."""
    return {}


def error_event(request_id: str) -> bytes:  # noqa: ARG001 - another dialect's names it
    """An error in the middle of a stream: it ends, and says why."""
    delta = {"finish_reason": "ERROR", "error": "The server had an error."}
    return _event({"type": "message-end", "delta": delta})


def read(body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:
    """What a body asks for. Raises `Refused` (400)."""
    conversation = asking.messages(body)
    tools = asking.objects(asking.field(body, "tools", list, []))
    functions = [tool.get("function", {}) for tool in tools]
    required = "*" if body.get("tool_choice") == "REQUIRED" else None
    wanted = headers.get("x-demo-tool") or required
    thinking: Mapping[str, Any] = asking.field(body, "thinking", dict, {})
    return Asked(
        model=asking.required(body, "model", str),
        prompt=Prompt(
            messages=tuple(_message(message) for message in conversation),
            tools=tuple(asking.compact(tool) for tool in tools),
            images=(asking.IMAGE,) * sum(_images(message) for message in conversation),
        ),
        stream=asking.field(body, "stream", bool, default=False),
        ceiling=asking.count(body, "max_tokens"),
        tool=asking.pick_tool(asking.named_tools(functions, "parameters"), wanted),
        thinks=thinking.get("type") == "enabled",
    )


def usage(mode: str, input_tokens: int, output_tokens: int) -> dict[str, Any] | None:
    """The usage object; `mode` is `true`, `zero` or `null`."""
    if mode == "null":
        return None
    given, made, template = input_tokens, output_tokens, _TEMPLATE_TOKENS
    if mode == "zero":
        given = made = template = 0
    return {
        "billed_units": {"input_tokens": given, "output_tokens": made},
        "tokens": {"input_tokens": given + template, "output_tokens": made},
    }


def whole(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> dict[str, Any]:  # noqa: ARG001 - the answer does not name its model
    """A JSON answer."""
    (choice,) = choices
    message: dict[str, Any] = {"role": "assistant"}
    content = [{"type": kind, kind: "".join(pieces)} for kind, pieces in _contents(choice)]
    message |= {"content": content} if content else {}
    if choice.tool_name:
        message["tool_calls"] = [_call(choice.tool_name, "".join(choice.arguments))]
    return {"id": str(uuid.uuid4()), "message": message, **_ending(choice, input_tokens, usage_mode)}


def events(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> Iterator[Part]:  # noqa: ARG001 - the answer does not name its model
    """A streamed answer: an event a token, block by block."""
    (choice,) = choices
    empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield _part({"id": str(uuid.uuid4()), "type": "message-start", "delta": {"message": empty}})
    for index, (kind, pieces) in enumerate(_contents(choice)):
        yield _part(_said("content-start", index, {"content": {"type": kind, kind: ""}}))
        for piece in pieces:
            yield _part(_said("content-delta", index, {"content": {kind: piece}}), tokens=1)
        yield _part({"type": "content-end", "index": index})
    if choice.tool_name:
        yield _part(_said("tool-call-start", 0, {"tool_calls": _call(choice.tool_name, "")}), tokens=1)
        for piece in choice.arguments:
            arguments = {"tool_calls": {"function": {"arguments": piece}}}
            yield _part(_said("tool-call-delta", 0, arguments), tokens=1)
        yield _part({"type": "tool-call-end", "index": 0})
    yield _part({"type": "message-end", "delta": _ending(choice, input_tokens, usage_mode)})
    yield Part(data=b"data: [DONE]\n\n")


def garbage() -> bytes:
    """The beginning of an answer, and no more."""
    return b'{"id":"demo","message":{"role":"assistant","content":[{"type":'


def _contents(choice: Choice) -> list[tuple[str, tuple[str, ...]]]:
    """The blocks of an answer that have text: their kind, and their pieces."""
    blocks = [("thinking", choice.thinking), ("text", choice.text)]
    return [(kind, pieces) for kind, pieces in blocks if pieces]


def _ending(choice: Choice, input_tokens: int, usage_mode: str) -> dict[str, Any]:
    reason = "MAX_TOKENS" if choice.is_cut else "TOOL_CALL" if choice.tool_name else "COMPLETE"
    told = {} if usage_mode == "absent" else {"usage": usage(usage_mode, input_tokens, choice.tokens)}
    return {"finish_reason": reason, **told}


def _call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"{name}_{base62(12)}", "type": "function", "function": function}


def _said(kind: str, index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": kind, "index": index, "delta": {"message": message}}


def _message(message: Mapping[str, Any]) -> PromptMessage:
    content = message.get("content")
    texts = [content] if isinstance(content, str) else []
    texts += [str(block["text"]) for block in asking.objects(content) if "text" in block]
    calls = [asking.compact(call.get("function")) for call in asking.objects(message.get("tool_calls"))]
    return asking.prompt_message(str(message["role"]), [*texts, *calls])


def _images(message: Mapping[str, Any]) -> int:
    return sum(block.get("type") == "image_url" for block in asking.objects(message.get("content")))


def _part(event: Mapping[str, Any], *, tokens: int = 0) -> Part:
    return Part(data=_event(event), tokens=tokens, chunks=tokens)


def _event(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
