"""Gemini's generateContent as the demo provider speaks it. Source: recorded answers of the real one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from demo import asked as asking
from demo.answers import CUT, Part
from demo.asked import Asked, Refused, Tool
from demo.generation import Choice
from demo.ids import base62
from extproc.model import Prompt, PromptMessage

NAME = "gemini"
PROVIDER = "gcp.gemini"

_STATUSES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# As the API's reference and as its own SDK spell them.
_SCHEMAS = ("parameters", "parametersJsonSchema", "parameters_json_schema")
# Without alt=sse a stream is one JSON array.
_ARRAY = "application/json; charset=UTF-8"
_EVENT_START, _EVENT_END = b"data: ", b"\r\n\r\n"


def request_id() -> str:
    """An id as this dialect writes it."""
    return base62(22)


def headers(request_id: str) -> dict[str, str]:
    """What every answer carries."""
    return {"x-request-id": request_id, "server-timing": "gfet4t7; dur=12", "vary": "X-Origin, Referer"}


def credential(headers: Mapping[str, str]) -> str:
    """The key a caller presents; empty where there is none."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    return headers.get("x-goog-api-key", bearer if scheme == "Bearer" else "")


def error(status: int, message: str, *, param: str | None, request_id: str) -> dict[str, Any]:  # noqa: ARG001 - another dialect's body names it
    """An error's body."""
    text = message if param is None else f"{param}: {message}"
    return {"error": {"code": status, "message": text, "status": _STATUSES.get(status, "UNKNOWN")}}


def error_headers(status: int) -> dict[str, str]:  # noqa: ARG001 - another dialect's say it
    """What an answer with an error carries besides."""
    return {}


def error_event(request_id: str) -> bytes:
    """An error in the middle of a stream."""
    return _event(error(503, "The model is overloaded.", param=None, request_id=request_id))


def read(body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:
    """What a body asks for; path and query say `model`, `method` and `alt`. Raises `Refused` (400)."""
    if body["method"] not in {"generateContent", "streamGenerateContent"}:
        raise Refused(404, f"models/{body['model']} does not support {body['method']}.")
    contents = asking.objects(asking.required(body, "contents", list))
    config: Mapping[str, Any] = asking.field(body, "generationConfig", dict, {})
    thinking: Mapping[str, Any] = asking.field(config, "thinkingConfig", dict, {})
    system = asking.objects(asking.field(body, "systemInstruction", dict, {}).get("parts"))
    tools = asking.objects(asking.field(body, "tools", list, []))
    wanted = headers.get("x-demo-tool") or _wanted_tool(asking.field(body, "toolConfig", dict, {}))
    return Asked(
        model=body["model"],
        prompt=Prompt(
            messages=(
                *([asking.prompt_message("system", _texts(system))] if system else []),
                *(_message(content) for content in contents),
            ),
            tools=tuple(asking.compact(tool) for tool in tools),
            images=(asking.IMAGE,) * sum("inlineData" in part for each in contents for part in _parts(each)),
        ),
        stream=body["method"] == "streamGenerateContent",
        choices=asking.count(config, "candidateCount") or 1,
        ceiling=asking.count(config, "maxOutputTokens"),
        tool=asking.pick_tool(_tools(tools), wanted),
        thinks=bool(thinking),
        stream_type="text/event-stream" if body.get("alt") == "sse" else _ARRAY,
        own={"shows_thoughts": thinking.get("includeThoughts") is True},
    )


def usage(mode: str, input_tokens: int, made: int, thought: int) -> dict[str, Any] | None:
    """The usage object; thoughts are not among the candidates' tokens. `mode` is `true`, `zero` or `null`."""
    if mode == "null":
        return None
    given = input_tokens
    if mode == "zero":
        given = made = thought = 0
    return {
        "promptTokenCount": given,
        "candidatesTokenCount": made,
        "totalTokenCount": given + made + thought,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": given}],
        **({"thoughtsTokenCount": thought} if thought else {}),
    }


def whole(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> dict[str, Any]:
    """A JSON answer."""
    candidates = [_candidate(asked, number, choice, ended=choice) for number, choice in enumerate(choices)]
    thought = sum(len(choice.thinking) for choice in choices)
    made = sum(choice.tokens for choice in choices) - thought
    return _answer(asked, base62(22), candidates, usage_mode, (input_tokens, made, thought))


def events(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> Iterator[Part]:
    """A streamed answer, a chunk a token; usage is in every chunk and counts from the start."""
    answer_id, made, thought = base62(22), 0, 0
    for number, choice in enumerate(choices):
        for piece in _pieces(choice):
            thought += len(piece.thinking)
            made += piece.tokens - len(piece.thinking)
            counts = (input_tokens, made, thought)
            candidate = _candidate(asked, number, piece, ended=None)
            data = _event(_answer(asked, answer_id, [candidate], usage_mode, counts))
            yield Part(data=data, tokens=piece.tokens, chunks=1)
    last = [_candidate(asked, number, Choice(), ended=choice) for number, choice in enumerate(choices)]
    yield Part(data=_event(_answer(asked, answer_id, last, usage_mode, (input_tokens, made, thought))))


def garbage() -> bytes:
    """The beginning of an answer, and no more."""
    return b'{"candidates":[{"content":{"parts":[{"text":'


def as_array(parts: Iterator[Part]) -> Iterator[Part]:
    """A stream of events as the elements of one JSON array; a cut leaves it open."""
    opening = b"["
    for part in parts:
        if part == CUT:
            yield part
            return
        element = part.data.removeprefix(_EVENT_START).removesuffix(_EVENT_END)
        yield replace(part, data=opening + element)
        opening = b",\r\n"
    yield Part(data=b"]")


def _pieces(choice: Choice) -> Iterator[Choice]:
    """A choice token by token; a function call comes whole."""
    for piece in choice.thinking:
        yield Choice(thinking=(piece,))
    if choice.tool_name:
        yield replace(choice, thinking=(), text=())
    for piece in choice.text:
        yield Choice(text=(piece,))


def _candidate(asked: Asked, number: int, choice: Choice, *, ended: Choice | None) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    if choice.thinking and asked.own["shows_thoughts"]:
        parts.append({"text": "".join(choice.thinking), "thought": True})
    if choice.tool_name:
        parts.append({"functionCall": {"name": choice.tool_name, "args": _parsed("".join(choice.arguments))}})
    elif choice.text or not parts:
        parts.append({"text": "".join(choice.text)})
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": number}
    return candidate if ended is None else candidate | {"finishReason": _finish_reason(ended)}


def _answer(
    asked: Asked,
    answer_id: str,
    candidates: list[dict[str, Any]],
    usage_mode: str,
    counts: tuple[int, int, int],
) -> dict[str, Any]:
    told = {} if usage_mode == "absent" else {"usageMetadata": usage(usage_mode, *counts)}
    return {"candidates": candidates, **told, "modelVersion": asked.model, "responseId": answer_id}


def _finish_reason(choice: Choice) -> str:
    return "MAX_TOKENS" if choice.is_cut else "STOP"


def _message(content: Mapping[str, Any]) -> PromptMessage:
    return asking.prompt_message(str(content.get("role") or "user"), _texts(_parts(content)))


def _parts(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return asking.objects(content.get("parts"))


def _texts(parts: list[Mapping[str, Any]]) -> list[str]:
    texts = []
    for part in parts:
        text = part.get("text")
        texts += [text] if isinstance(text, str) else []
        texts += [asking.compact(part[name]) for name in ("functionCall", "functionResponse") if name in part]
    return texts


def _tools(tools: list[Mapping[str, Any]]) -> list[Tool]:
    declared = [each for tool in tools for each in asking.objects(tool.get("functionDeclarations"))]
    named = [
        {**tool, "schema": next((tool[name] for name in _SCHEMAS if name in tool), {})} for tool in declared
    ]
    return asking.named_tools(list(named), "schema")


def _wanted_tool(config: Mapping[str, Any]) -> str | None:
    calling: Mapping[str, Any] = asking.field(config, "functionCallingConfig", dict, {})
    names = calling.get("allowedFunctionNames") or ["*"]
    return str(names[0]) if calling.get("mode") == "ANY" else None


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:  # the ceiling ended it in the middle
        return {}


def _event(answer: Mapping[str, Any]) -> bytes:
    return _EVENT_START + json.dumps(answer).encode() + _EVENT_END
