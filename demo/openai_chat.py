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
from demo.ids import base62, hexadecimal
from extproc.model import Prompt, PromptMessage

NAME = "openai_chat"
PROVIDER = "openai"
MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-5", "o1-pro")

_ERRORS: Mapping[int, tuple[str, str | None]] = {  # status -> type, code
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("tokens", "rate_limit_exceeded"),
}
_HEADERS = {
    "openai-version": "2020-10-01",
    "openai-processing-ms": "12",
    "x-ratelimit-limit-requests": "30000",
    "x-ratelimit-limit-tokens": "150000000",
    "x-ratelimit-remaining-requests": "29999",
    "x-ratelimit-remaining-tokens": "149999000",
    "x-ratelimit-reset-requests": "2ms",
    "x-ratelimit-reset-tokens": "0s",
}
_MODELS_SINCE = 1_715_367_049


def request_id() -> str:
    """An id as this dialect writes it."""
    return "req_" + hexadecimal(32)


def headers(request_id: str) -> dict[str, str]:
    """What every answer carries."""
    return {"x-request-id": request_id, **_HEADERS}


def credential(headers: Mapping[str, str]) -> str:
    """The key a caller presents; empty where there is none."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key if scheme == "Bearer" else ""


def error(status: int, message: str, *, param: str | None, request_id: str) -> dict[str, Any]:  # noqa: ARG001 - the other dialect's body names it
    """An error's body."""
    kind, code = _ERRORS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))  # noqa: PLR2004 - HTTP's error class
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_event(request_id: str) -> bytes:
    """An error in the middle of a stream."""
    return _event(json.dumps(error(500, "The server had an error.", param=None, request_id=request_id)))


def models() -> dict[str, Any]:
    """The list of models."""
    return {"object": "list", "data": [model(name) for name in MODELS]}


def model(name: str) -> dict[str, Any]:
    """One model."""
    return {"id": name, "object": "model", "created": _MODELS_SINCE, "owned_by": "demo"}


def read(body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:
    """What a body asks for. Raises `Refused` (400)."""
    ceilings = [asking.count(body, name) for name in ("max_tokens", "max_completion_tokens")]
    options: Mapping[str, Any] = asking.field(body, "stream_options", dict, {})
    stream = asking.field(body, "stream", bool, default=False)
    if options and not stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise Refused(400, message, param="stream_options")
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
        include_usage=not stream or asking.field(options, "include_usage", bool, default=False),
    )


def usage(mode: str, input_tokens: int, output_tokens: int) -> dict[str, Any] | None:
    """The usage object; `mode` is `true`, `zero` or `null`."""
    if mode == "null":
        return None
    given, made = (0, 0) if mode == "zero" else (input_tokens, output_tokens)
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def whole(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> dict[str, Any]:
    """A JSON answer."""
    answer = {
        "id": _answer_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.model,
        "choices": [_whole_choice(number, choice) for number, choice in enumerate(choices)],
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
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
    chunk = _Chunks(asked, tells_usage=tells_usage)
    for number, choice in enumerate(choices):
        yield chunk.part(number, _opening(choice), tokens=int(bool(choice.tool_name)))
    for position in range(max(len(_pieces(choice)) for choice in choices)):
        for number, choice in enumerate(choices):
            if position < len(_pieces(choice)):
                yield chunk.part(number, _delta(choice, position), tokens=1)
    for number, choice in enumerate(choices):
        yield chunk.part(number, {}, finish_reason=_finish_reason(choice))
    if tells_usage:
        yield chunk.usage_part(usage(usage_mode, input_tokens, sum(choice.tokens for choice in choices)))
    yield Part(data=_event("[DONE]"))


def garbage() -> bytes:
    """The beginning of an answer, and no more."""
    return b'{"id":"chatcmpl-demo","object":"chat.completion","choices":[{"index":0,'


class _Chunks:
    """Writes chunks; what they share is rendered once, for there are many."""

    def __init__(self, asked: Asked, *, tells_usage: bool) -> None:
        shared = {
            "id": _answer_id(),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": asked.model,
            "service_tier": "default",
            "system_fingerprint": "fp_demo",
        }
        self._start = json.dumps(shared, separators=(",", ":"))[:-1] + ',"choices":['
        self._end = '],"usage":null}' if tells_usage else "]}"

    def part(
        self, number: int, delta: Mapping[str, Any], *, tokens: int = 0, finish_reason: str | None = None
    ) -> Part:
        choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        text = self._start + json.dumps(choice, separators=(",", ":")) + self._end
        return Part(data=_event(text), tokens=tokens, chunks=tokens)

    def usage_part(self, usage: dict[str, Any] | None) -> Part:
        return Part(data=_event(self._start + '],"usage":' + json.dumps(usage, separators=(",", ":")) + "}"))


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


def _answer_id() -> str:
    return "chatcmpl-" + base62(29)


def _call_id() -> str:
    return "call_" + base62(24)


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()
