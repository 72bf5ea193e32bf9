"""Model Context Protocol over streamable HTTP: JSON-RPC 2.0, one message a POST.

Floor 1, pure. Calling a tool is `execute_tool`; everything else spends nothing. Batches of
messages left the protocol in its version 2025-06-18, and a body that is a list is refused by
`strict_json`. Sources: MCP specification 2025-03-26 to 2026-07-28, basic/transports; SEP-2243.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from types import MappingProxyType

from extproc.decision import Denial, Reason
from extproc.errors import RequestRefused
from extproc.formats import fields
from extproc.formats.advice import denial_headers, facts, told
from extproc.formats.answers import Tally, event_object, reader
from extproc.formats.base import (
    CONTROL,
    JSON,
    AnswerReader,
    BodyKind,
    Call,
    ParsedRequest,
    Reply,
    RequestLine,
)
from extproc.formats.sse import SSEEvent
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest, Prompt

_PATH = "/mcp"
# GET opens the stream of the server's own messages, DELETE ends a session.
_WITHOUT_BODY = frozenset({"GET", "DELETE"})

_VERSION = "2.0"
_CALL_TOOL = "tools/call"
_OF_RESOURCES = "resources/"
_PARAMETER_KEYS = frozenset({"name", "uri", "arguments"})

_METHOD_HEADER = "mcp-method"
_NAME_HEADER = "mcp-name"
# A value that no header can carry comes between these, in base64.
_ENCODED_START, _ENCODED_END = "=?base64?", "?="

# JSON-RPC's own, MCP's own, and one of those that are left to servers.
_INVALID_REQUEST = -32600
_HEADER_MISMATCH = -32020
_DENIED = -32001
_CODES: Mapping[Reason, int] = MappingProxyType(
    {
        Reason.HEADER_MISMATCH: _HEADER_MISMATCH,
        Reason.BODY_MALFORMED: _INVALID_REQUEST,
        Reason.BODY_MISSING: _INVALID_REQUEST,
        Reason.UNCLASSIFIED: _INVALID_REQUEST,
    }
)


class MCP(Unasked):
    """The wire format `mcp`."""

    name = "mcp"
    provider = "mcp"

    def claim(self, line: RequestLine) -> Call | None:
        """`/mcp` anywhere; exactly the base path where a provider is said to listen there."""
        if line.path != _PATH and not (line.path == "/" and line.provider):
            return None
        if line.method in _WITHOUT_BODY:
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        if line.method != "POST":
            return None
        # Both always, so that no parameter of the URL can pass for a header.
        sent = {name: line.headers.get(name, "") for name in (_METHOD_HEADER, _NAME_HEADER)}
        return Call(api=self.name, operation="execute_tool", query=sent)

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a message. Raises `RequestRefused` (400) naming the JSON pointer or header that is wrong."""
        method = _read_method(body)
        parameters = fields.mapping(body, "params")
        fields.check_case(parameters, _PARAMETER_KEYS, "/params")
        subject = fields.string(parameters, "uri" if method.startswith(_OF_RESOURCES) else "name", "/params")
        _check_header(call, _METHOD_HEADER, method)
        _check_header(call, _NAME_HEADER, subject)
        calls_tool = method == _CALL_TOOL
        if calls_tool and not subject:
            raise fields.wrong("/params/name", "is required and must be a string that is not empty")
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation if calls_tool else CONTROL,
            tools=(subject,) if calls_tool else (),
        )
        return ParsedRequest(request=request, prompt=Prompt())

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(_MCPAnswers(), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """A JSON-RPC error; whose message it answers is not said, as it may not have been read."""
        code = _CODES.get(denial.reason, _DENIED)
        error = {"code": code, "message": told(denial), "data": facts(denial)}
        body = {"jsonrpc": _VERSION, "id": None, "error": error}
        return Reply(status=denial.status, headers=denial_headers(denial), body=json.dumps(body).encode())


def _read_method(body: JSON) -> str:
    """The method of a request or notification; empty for the answer to a request of the server."""
    if body.get("jsonrpc") != _VERSION:
        raise fields.not_this_call("/jsonrpc must be 2.0: this path takes one JSON-RPC message")
    method = fields.string(body, "method")
    if not method and "result" not in body and "error" not in body:
        raise fields.not_this_call("/method is required: this path takes one JSON-RPC message")
    return method


def _check_header(call: Call, name: str, in_body: str) -> None:
    """Servers before 2026-07-28 do not compare, so whoever reads the header would see another call."""
    sent = call.query.get(name, "")
    if sent and _decoded(sent) != in_body:
        raise RequestRefused(
            status=400,
            code=Reason.HEADER_MISMATCH,
            message=f"The header {name} does not say what the body does.",
        )


def _decoded(value: str) -> str | None:
    """What a header's value stands for; None where it cannot be read."""
    if not (value.startswith(_ENCODED_START) and value.endswith(_ENCODED_END)):
        return value
    encoded = value.removeprefix(_ENCODED_START).removesuffix(_ENCODED_END)
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return None


class _MCPAnswers:
    """Reads whether an answer came, and whether it is an error; results hold no count of anything."""

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take one message."""
        if body.get("error"):
            tally.fail(body["error"])

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one message of a stream: notifications may come before the answer."""
        message = event_object(event.data)
        self.read_whole(message, tally)
        tally.finished = tally.finished or "result" in message or "error" in message
