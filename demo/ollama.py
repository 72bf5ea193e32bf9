"""Ollama's chat as the demo provider speaks it: a stream unless told otherwise. Source: recorded answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from demo import asked as asking
from demo.answers import Part
from demo.asked import Asked
from demo.generation import Choice
from demo.openai_dialect import credential, request_id
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

NAME = "ollama"
PROVIDER = "ollama"

_DURATIONS = {"total_duration": 12_000_000, "load_duration": 1_000_000}


def headers(request_id: str) -> dict[str, str]:
    """What every answer carries; the real one names no id."""
    return {"x-request-id": request_id}


def error(status: int, message: str, *, param: str | None, request_id: str) -> dict[str, Any]:  # noqa: ARG001 - another dialect's body names them
    """An error's body."""
    return {"error": message if param is None else f"{param}: {message}"}


def error_headers(status: int) -> dict[str, str]:  # noqa: ARG001 - another dialect's say it
    """What an answer with an error carries besides."""
    return {}


def error_event(request_id: str) -> bytes:
    """An error in the middle of a stream."""
    return _line(error(500, "The server had an error.", param=None, request_id=request_id))


def read(body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:
    """What a body asks for. Raises `Refused` (400)."""
    conversation = asking.messages(body)
    options: Mapping[str, Any] = asking.field(body, "options", dict, {})
    ceiling = asking.field(options, "num_predict", int)
    tools = asking.objects(asking.field(body, "tools", list, []))
    functions = [tool.get("function", {}) for tool in tools]
    return Asked(
        model=asking.required(body, "model", str),
        prompt=Prompt(
            messages=tuple(_message(message) for message in conversation),
            tools=tuple(asking.compact(tool) for tool in tools),
            images=(asking.IMAGE,) * sum(len(message.get("images") or ()) for message in conversation),
        ),
        stream=asking.field(body, "stream", bool, default=True),
        # Below zero means that there is none.
        ceiling=ceiling if ceiling and ceiling > 0 else None,
        tool=asking.pick_tool(asking.named_tools(functions, "parameters"), headers.get("x-demo-tool")),
        thinks=body.get("think") not in {None, False},  # or how much
        stream_type="application/x-ndjson",
    )


def whole(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> dict[str, Any]:
    """A JSON answer."""
    (choice,) = choices
    return _answer(asked, _said(choice)) | _ending(choice, input_tokens, usage_mode)


def events(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> Iterator[Part]:
    """A streamed answer, a line a token; a tool call comes whole."""
    (choice,) = choices
    for piece in choice.thinking:
        yield _part(_answer(asked, {"content": "", "thinking": piece}) | {"done": False}, tokens=1)
    if choice.tool_name:
        called = Choice(tool_name=choice.tool_name, arguments=choice.arguments)
        yield _part(_answer(asked, _said(called)) | {"done": False}, tokens=called.tokens)
    for piece in choice.text:
        yield _part(_answer(asked, {"content": piece}) | {"done": False}, tokens=1)
    yield _part(_answer(asked, {"content": ""}) | _ending(choice, input_tokens, usage_mode))


def garbage() -> bytes:
    """The beginning of an answer, and no more."""
    return b'{"model":"demo","message":{"role":"assistant","content":'


def _answer(asked: Asked, said: Mapping[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return {"model": asked.model, "created_at": now, "message": {"role": "assistant", **said}}


def _ending(choice: Choice, input_tokens: int, usage_mode: str) -> dict[str, Any]:
    counts: dict[str, Any] = {"prompt_eval_count": input_tokens, "eval_count": choice.tokens}
    if usage_mode != "true":
        told = 0 if usage_mode == "zero" else None
        counts = {} if usage_mode == "absent" else dict.fromkeys(counts, told)
    return {"done_reason": "length" if choice.is_cut else "stop", "done": True, **_DURATIONS, **counts}


def _said(choice: Choice) -> dict[str, Any]:
    said: dict[str, Any] = {"content": "".join(choice.text)}
    if choice.thinking:
        said["thinking"] = "".join(choice.thinking)
    if choice.tool_name:
        function = {"name": choice.tool_name, "arguments": _parsed("".join(choice.arguments))}
        said["tool_calls"] = [{"function": function}]
    return said


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:  # the ceiling ended it in the middle
        return {}


def _message(message: Mapping[str, Any]) -> PromptMessage:
    texts = [text for text in (message.get("content"), message.get("thinking")) if isinstance(text, str)]
    calls = [asking.compact(call.get("function")) for call in asking.objects(message.get("tool_calls"))]
    return asking.prompt_message(str(message["role"]), [*texts, *calls])


def _part(answer: Mapping[str, Any], *, tokens: int = 0) -> Part:
    return Part(data=_line(answer), tokens=tokens, chunks=int(tokens > 0))


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
