"""Amazon Bedrock's Converse as the demo provider speaks it. Source: recorded answers of the real one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from demo import asked as asking
from demo import event_stream
from demo.answers import Part
from demo.asked import Asked, Refused, Tool
from demo.generation import Choice
from demo.ids import base62
from extproc.model import Prompt, PromptMessage

NAME = "bedrock_converse"
PROVIDER = "aws.bedrock"

_SIGNED = "AWS4-HMAC-SHA256 Credential="
_EXCEPTIONS: Mapping[int, str] = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
_LATENCY = {"latencyMs": 12}
_SIGNATURE = "ZGVtbw=="


def request_id() -> str:
    """An id as this dialect writes it."""
    return str(uuid.uuid4())


def headers(request_id: str) -> dict[str, str]:
    """What every answer carries."""
    return {"x-amzn-requestid": request_id}


def credential(headers: Mapping[str, str]) -> str:
    """The key a caller presents, or the name of the key it signed with; nobody checks a signature here."""
    said = headers.get("authorization", "")
    if said.startswith(_SIGNED):
        return said.removeprefix(_SIGNED).partition("/")[0]
    scheme, _, key = said.partition(" ")
    return key if scheme == "Bearer" else ""


def error(status: int, message: str, *, param: str | None, request_id: str) -> dict[str, Any]:  # noqa: ARG001 - another dialect's body names it
    """An error's body."""
    return {"message": message if param is None else f"{param}: {message}"}


def error_headers(status: int) -> dict[str, str]:
    """What an answer with an error carries besides: its type, which the SDK raises."""
    return {"x-amzn-errortype": _EXCEPTIONS.get(status, "InternalServerException")}


def error_event(request_id: str) -> bytes:  # noqa: ARG001 - another dialect's names it
    """An error in the middle of a stream."""
    return event_stream.exception("internalServerException", "The server had an error.")


def read(body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:
    """What a body asks for; `model` and `operation` are what the path says. Raises `Refused` (400)."""
    if body["operation"] not in {"converse", "converse-stream"}:
        raise Refused(404, f"The operation {body['operation']} does not exist here.")
    conversation = asking.messages(body)
    config: Mapping[str, Any] = asking.field(body, "inferenceConfig", dict, {})
    more: Mapping[str, Any] = asking.field(body, "additionalModelRequestFields", dict, {})
    tool_config: Mapping[str, Any] = asking.field(body, "toolConfig", dict, {})
    specs = [each.get("toolSpec", {}) for each in asking.objects(tool_config.get("tools"))]
    system = _texts(asking.field(body, "system", list, []))
    wanted = headers.get("x-demo-tool") or _wanted_tool(tool_config.get("toolChoice"))
    return Asked(
        model=body["model"],
        prompt=Prompt(
            messages=(
                *([asking.prompt_message("system", system)] if system else []),
                *(_message(message) for message in conversation),
            ),
            tools=tuple(asking.compact(spec) for spec in specs),
            images=(asking.IMAGE,) * sum(_images(message) for message in conversation),
        ),
        stream=body["operation"] == "converse-stream",
        ceiling=asking.count(config, "maxTokens"),
        tool=asking.pick_tool(_tools(specs), wanted),
        thinks="thinking" in more or "reasoningConfig" in more,
        stream_type=event_stream.CONTENT_TYPE,
    )


def usage(mode: str, input_tokens: int, output_tokens: int) -> dict[str, Any] | None:
    """The usage object; `mode` is `true`, `zero` or `null`."""
    if mode == "null":
        return None
    given, made = (0, 0) if mode == "zero" else (input_tokens, output_tokens)
    return {"inputTokens": given, "outputTokens": made, "totalTokens": given + made}


def whole(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> dict[str, Any]:  # noqa: ARG001 - the answer does not name its model
    """A JSON answer."""
    (choice,) = choices
    message = {"role": "assistant", "content": [_filled(*block) for block in _blocks(choice)]}
    answer = {"output": {"message": message}, "stopReason": _stop_reason(choice), "metrics": _LATENCY}
    told = usage(usage_mode, input_tokens, choice.tokens)
    return answer if usage_mode == "absent" else {**answer, "usage": told}


def events(asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str) -> Iterator[Part]:  # noqa: ARG001 - the answer does not name its model
    """A streamed answer, a frame a token; what it cost comes last."""
    (choice,) = choices
    yield _part("messageStart", {"role": "assistant"})
    for index, (start, deltas) in enumerate(_blocks(choice)):
        at = {"contentBlockIndex": index}
        if start:
            # A tool's name stands in the block that opens.
            yield _part("contentBlockStart", at | {"start": start}, tokens=1)
        for delta in deltas:
            is_signature = "signature" in delta.get("reasoningContent", ())
            yield _part("contentBlockDelta", at | {"delta": delta}, tokens=int(not is_signature))
        yield _part("contentBlockStop", at)
    yield _part("messageStop", {"stopReason": _stop_reason(choice)})
    told = usage(usage_mode, input_tokens, choice.tokens)
    yield _part("metadata", {"metrics": _LATENCY, **({} if usage_mode == "absent" else {"usage": told})})


def garbage() -> bytes:
    """The beginning of an answer, and no more."""
    return b'{"metrics":{"latencyMs":12},"output":{"message":{"content":[{"text":'


Block = tuple[dict[str, Any], list[dict[str, Any]]]


def _blocks(choice: Choice) -> list[Block]:
    """What opens each content block, if anything does, and what is added to it."""
    blocks: list[Block] = []
    if choice.thinking:
        thoughts = [{"reasoningContent": {"text": piece}} for piece in choice.thinking]
        blocks.append(({}, [*thoughts, {"reasoningContent": {"signature": _SIGNATURE}}]))
    if choice.tool_name:
        start = {"toolUse": {"toolUseId": "tooluse_" + base62(22), "name": choice.tool_name}}
        blocks.append((start, [{"toolUse": {"input": piece}} for piece in choice.arguments]))
    else:
        blocks.append(({}, [{"text": piece} for piece in choice.text]))
    return blocks


def _filled(start: Mapping[str, Any], deltas: list[dict[str, Any]]) -> dict[str, Any]:
    if start:
        arguments = "".join(delta["toolUse"]["input"] for delta in deltas)
        return {"toolUse": {**start["toolUse"], "input": _parsed(arguments)}}
    if deltas and "reasoningContent" in deltas[0]:
        text = "".join(delta["reasoningContent"].get("text", "") for delta in deltas)
        return {"reasoningContent": {"reasoningText": {"text": text, "signature": _SIGNATURE}}}
    return {"text": "".join(delta["text"] for delta in deltas)}


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:  # the ceiling ended it in the middle
        return {}


def _stop_reason(choice: Choice) -> str:
    if choice.is_cut:
        return "max_tokens"
    return "tool_use" if choice.tool_name else "end_turn"


def _message(message: Mapping[str, Any]) -> PromptMessage:
    return asking.prompt_message(str(message["role"]), _texts(message.get("content")))


def _texts(content: Any) -> list[str]:
    texts: list[str] = []
    for block in asking.objects(content):
        text = block.get("text")
        texts += [text] if isinstance(text, str) else []
        texts += [asking.compact(block[name]) for name in ("toolUse", "toolResult") if name in block]
    return texts


def _images(message: Mapping[str, Any]) -> int:
    return sum("image" in block for block in asking.objects(message.get("content")))


def _tools(specs: list[Mapping[str, Any]]) -> list[Tool]:
    flat = [{**spec, "schema": spec.get("inputSchema", {}).get("json")} for spec in specs]
    return asking.named_tools(list(flat), "schema")


def _wanted_tool(choice: Any) -> str | None:
    if not isinstance(choice, dict):
        return None
    return str(choice.get("tool", {}).get("name", "*")) if {"any", "tool"} & choice.keys() else None


def _part(kind: str, payload: Mapping[str, Any], *, tokens: int = 0) -> Part:
    # The real one pads its events, so that their sizes do not tell the tokens.
    return Part(data=event_stream.event(kind, {**payload, "p": "abcdefgh"}), tokens=tokens, chunks=tokens)
