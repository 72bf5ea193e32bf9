"""Anthropic Messages as the demo provider speaks it. Source: recorded answers of the real one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from demo import asked as asking
from demo.answers import Part
from demo.asked import Asked, Refused, Tool
from demo.generation import Choice
from demo.ids import base62
from extproc.model import Prompt

NAME = "anthropic_messages"
PROVIDER = "anthropic"
MODELS = ("claude-sonnet-4-6", "claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-8")

_ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_HEADERS = {
    "anthropic-ratelimit-requests-limit": "4000",
    "anthropic-ratelimit-requests-remaining": "3999",
    "anthropic-ratelimit-tokens-limit": "480000",
    "anthropic-ratelimit-tokens-remaining": "480000",
}
_MODELS_SINCE = "2025-09-29T00:00:00Z"


def request_id() -> str:
    """An id as this dialect writes it."""
    return "req_01" + base62(22)


def headers(request_id: str) -> dict[str, str]:
    """What every answer carries."""
    return {"request-id": request_id, **_HEADERS}


def credential(headers: Mapping[str, str]) -> str:
    """The key a caller presents; empty where there is none.

    Anthropic's SDK sends it as a bearer token since version 2; `x-api-key` goes before.
    """
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key", bearer if scheme == "Bearer" else "")


def error(status: int, message: str, *, param: str | None, request_id: str) -> dict[str, Any]:
    """An error's body."""
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004 - HTTP's error class
    text = message if param is None else f"{param}: {message}"
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": request_id}


def error_headers(status: int) -> dict[str, str]:  # noqa: ARG001 - another dialect's say it
    """What an answer with an error carries besides."""
    return {}


def error_event(request_id: str) -> bytes:
    """An error in the middle of a stream."""
    return _event(error(529, "Overloaded", param=None, request_id=request_id))


def models() -> dict[str, Any]:
    """The list of models."""
    return {
        "data": [model(name) for name in MODELS],
        "has_more": False,
        "first_id": MODELS[0],
        "last_id": MODELS[-1],
    }


def model(name: str) -> dict[str, Any]:
    """One model."""
    return {"type": "model", "id": name, "display_name": name, "created_at": _MODELS_SINCE}


def read(body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:
    """What a body asks for. Raises `Refused` (400)."""
    check_version(headers)
    ceiling = asking.count(body, "max_tokens")
    if ceiling is None:
        raise Refused(400, "Field required", param="max_tokens")
    wanted = headers.get("x-demo-tool") or _wanted_tool(body.get("tool_choice"))
    thinking: Mapping[str, Any] = asking.field(body, "thinking", dict, {})
    return Asked(
        model=asking.required(body, "model", str),
        prompt=prompt(body),
        stream=asking.field(body, "stream", bool, default=False),
        ceiling=ceiling,
        tool=asking.pick_tool(_tools(body), wanted),
        thinks=thinking.get("type") in {"enabled", "adaptive"},
    )


def check_version(headers: Mapping[str, str]) -> None:
    """Raises `Refused` (400) where the caller does not say which version it speaks."""
    if "anthropic-version" not in headers:
        raise Refused(400, "header is required", param="anthropic-version")


def prompt(body: Mapping[str, Any]) -> Prompt:
    """What the tokenizer needs."""
    conversation = asking.messages(body)
    system = asking.field(body, "system", (str, list))
    first = [asking.prompt_message("system", _texts(system))] if system else []
    rest = [
        asking.prompt_message(message["role"], _texts(message.get("content"))) for message in conversation
    ]
    tools = asking.field(body, "tools", list, [])
    return Prompt(
        messages=(*first, *rest),
        tools=tuple(json.dumps(tool, ensure_ascii=False, separators=(",", ":")) for tool in tools),
        images=(asking.IMAGE,) * sum(_images(message.get("content")) for message in conversation),
    )


def usage(mode: str, input_tokens: int, output_tokens: int) -> dict[str, Any] | None:
    """The usage object; `mode` is `true`, `zero` or `null`."""
    if mode == "null":
        return None
    given, made = (0, 0) if mode == "zero" else (input_tokens, output_tokens)
    return {
        "input_tokens": given,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": made,
        "service_tier": "standard",
    }


def whole(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> dict[str, Any]:
    """A JSON answer."""
    choice = choices[0]
    message = _message(asked, _whole_blocks(choice), _stop_reason(choice))
    return (
        message
        if usage_mode == "absent"
        else {**message, "usage": usage(usage_mode, input_tokens, choice.tokens)}
    )


def events(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> Iterator[Part]:
    """A streamed answer: an event a token, block by block, with a ping as the real one sends it."""
    choice = choices[0]
    tells = usage_mode != "absent"
    message = _message(asked, [], None)
    yield _part(
        {"type": "message_start", "message": {**message, **_told(tells, usage(usage_mode, input_tokens, 1))}}
    )
    for index, (block, deltas) in enumerate(_blocks(choice)):
        # A tool's name stands in the block that opens.
        tokens = int(block["type"] == "tool_use")
        yield _part({"type": "content_block_start", "index": index, "content_block": block}, tokens=tokens)
        if index == 0:
            yield _part({"type": "ping"})
        for delta in deltas:
            tokens = int(delta["type"] != "signature_delta")
            yield _part({"type": "content_block_delta", "index": index, "delta": delta}, tokens=tokens)
        yield _part({"type": "content_block_stop", "index": index})
    stop = {"stop_reason": _stop_reason(choice), "stop_sequence": None}
    final = usage(usage_mode, input_tokens, choice.tokens)
    yield _part(
        {
            "type": "message_delta",
            "delta": stop,
            **_told(tells, final and {"output_tokens": final["output_tokens"]}),
        }
    )
    yield _part({"type": "message_stop"})


def garbage() -> bytes:
    """The beginning of an answer, and no more."""
    return b'{"id":"msg_demo","type":"message","role":"assistant","content":[{"type":"text",'


def _told(tells: bool, usage: dict[str, Any] | None) -> dict[str, Any]:  # noqa: FBT001 - private, and named at both calls
    return {"usage": usage} if tells else {}


def _message(asked: Asked, content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
    return {
        "id": "msg_01" + base62(22),
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
    }


def _whole_blocks(choice: Choice) -> list[dict[str, Any]]:
    return [block | _filled(block, deltas) for block, deltas in _blocks(choice)]


def _filled(block: Mapping[str, Any], deltas: list[dict[str, Any]]) -> dict[str, Any]:
    if block["type"] == "tool_use":
        return {"input": _parsed("".join(delta["partial_json"] for delta in deltas))}
    if block["type"] == "thinking":
        return {"thinking": "".join(delta.get("thinking", "") for delta in deltas), "signature": _SIGNATURE}
    return {"text": "".join(delta["text"] for delta in deltas)}


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:  # the ceiling ended it in the middle
        return {}


_SIGNATURE = "ZGVtbw=="


def _blocks(choice: Choice) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each content block as it opens, and what is added to it."""
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if choice.thinking:
        thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in choice.thinking]
        signed = {"type": "signature_delta", "signature": _SIGNATURE}
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, signed]))
    if choice.tool_name:
        opened = {"type": "tool_use", "id": "toolu_01" + base62(22), "name": choice.tool_name, "input": {}}
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in choice.arguments]
        blocks.append((opened, pieces))
    else:
        blocks.append(
            ({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in choice.text])
        )
    return blocks


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return []
    return [text for block in content if isinstance(block, dict) for text in _block_texts(block)]


def _block_texts(block: Mapping[str, Any]) -> list[str]:
    if block.get("type") == "tool_use":
        return [
            str(block.get("name", "")),
            json.dumps(block.get("input"), ensure_ascii=False, separators=(",", ":")),
        ]
    if block.get("type") == "tool_result":
        return _texts(block.get("content"))
    return [text for text in (block.get("text"), block.get("thinking")) if isinstance(text, str)]


def _images(content: Any) -> int:
    blocks = content if isinstance(content, list) else []
    return sum(isinstance(block, dict) and block.get("type") == "image" for block in blocks)


def _tools(body: Mapping[str, Any]) -> list[Tool]:
    found = asking.field(body, "tools", list, [])
    if not all(isinstance(tool, dict) and isinstance(tool.get("name"), str) for tool in found):
        raise Refused(400, "Field required", param="tools.0.name")
    return [Tool(name=tool["name"], schema=tool.get("input_schema") or {}) for tool in found]


def _wanted_tool(choice: Any) -> str | None:
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "tool":
        return str(choice.get("name", "*"))
    return "*" if kind == "any" else None


def _stop_reason(choice: Choice) -> str:
    if choice.is_cut:
        return "max_tokens"
    return "tool_use" if choice.tool_name else "end_turn"


def _part(event: Mapping[str, Any], *, tokens: int = 0) -> Part:
    return Part(data=_event(event), tokens=tokens, chunks=tokens)


def _event(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
