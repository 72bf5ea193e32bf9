import base64
import json
from typing import Any

import pytest
from hypothesis import given

from extproc.decision import Denial, Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import ParsedRequest
from extproc.formats.providers import Provider
from extproc.formats.strict_json import parse_json
from extproc.measure.tokens import Tokenizer
from extproc.model import Observation
from extproc.understand import understand
from tests.formats.calls import SSE_ANSWER, claimed, head, observed, split_everywhere
from tests.formats.shapes import bodies, read

CALL: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "Find_Tickets", "arguments": {"q": "milk"}},
}
TOOLS = Provider(name="tickets", hosts=("tools.example",), base_path="/tickets/rpc", formats=("mcp",))


def parse(
    body: dict[str, Any], *, path: str = "/mcp", headers: dict[str, str] | None = None
) -> ParsedRequest:
    call = claimed(path, headers=headers)
    assert call is not None
    return FORMATS["mcp"].parse_request(body, call)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/mcp", ("mcp", "execute_tool", "json")),
        ("POST", "/mcp/", ("mcp", "execute_tool", "json")),
        ("GET", "/mcp", ("mcp", "control", "none")),
        ("DELETE", "/mcp", ("mcp", "control", "none")),
        ("PUT", "/mcp", None),
        ("POST", "/mcp/x", None),
        ("GET", "/", None),
    ],
)
def test_a_call_is_its_method_and_path(method: str, path: str, expected: tuple[str, str, str] | None) -> None:
    call = claimed(path, method=method)

    assert (call and (call.api, call.operation, call.body)) == expected


@pytest.mark.parametrize(
    ("path", "is_claimed"),
    [("/tickets/rpc", True), ("/tickets/rpc/", True), ("/tickets/rpc/mcp", True), ("/tickets/rpc/x", False)],
)
def test_a_provider_may_listen_at_any_base_path(path: str, *, is_claimed: bool) -> None:
    call = claimed(path, host="tools.example", providers=(TOOLS,))

    assert (call is not None) is is_claimed
    if call is not None:
        assert (call.api, call.provider) == ("mcp", "tickets")


def test_calling_a_tool_reserves_no_tokens() -> None:
    call = claimed("/mcp")
    assert call is not None
    found = understand(
        head("/mcp"), call, json.dumps(CALL).encode(), max_body_bytes=1 << 20, tokenizer=Tokenizer()
    )

    assert found.refused is None
    assert (found.tokens.input, found.tokens.max_output) == (0, 0)


def test_calling_a_tool_names_it_as_it_was_written() -> None:
    found = parse(CALL)

    assert (found.request.operation, found.request.tools) == ("execute_tool", ("Find_Tickets",))
    assert (found.request.model, found.request.models) == ("", ())
    assert found.prompt.messages == ()


@pytest.mark.parametrize(
    "body",
    [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": "x", "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 2, "method": "prompts/get", "params": {"name": "p"}},
        {"jsonrpc": "2.0", "id": 3, "result": {}},
        {"jsonrpc": "2.0", "id": 3, "error": {"code": -1, "message": "no"}},
    ],
)
def test_every_other_message_is_control(body: dict[str, Any]) -> None:
    request = parse(body).request

    assert (request.operation, request.tools) == ("control", ())


ENCODED = "=?base64?" + base64.b64encode("träge".encode()).decode() + "?="


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"mcp-method": "tools/call", "mcp-name": "Find_Tickets"}, CALL),
        ({"mcp-method": "tools/call"}, CALL),
        ({"mcp-method": "tools/list"}, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
        (
            {"mcp-method": "resources/read", "mcp-name": "file:///x"},
            {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "file:///x"}},
        ),
        ({"mcp-name": ENCODED}, CALL | {"params": {"name": "träge"}}),
    ],
)
def test_headers_that_say_what_the_body_says_pass(headers: dict[str, str], body: dict[str, Any]) -> None:
    parse(body, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp-method": "tools/list"},
        {"mcp-method": "Tools/Call"},
        {"mcp-name": "find_tickets"},
        {"mcp-name": "Find_Tickets, other"},
        {"mcp-name": ENCODED},
        {"mcp-name": "=?base64?%%%?="},
        {"mcp-name": "=?base64?/w==?="},
    ],
)
def test_headers_that_say_something_else_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(CALL, headers=headers)

    assert (caught.value.status, caught.value.code) == (400, Reason.HEADER_MISMATCH)


def test_a_parameter_of_the_url_is_no_header() -> None:
    parse(CALL, path="/mcp?mcp-name=other")
    with pytest.raises(RequestRefused):
        parse(CALL, path="/mcp?mcp-name=Find_Tickets", headers={"mcp-name": "other"})


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"jsonrpc": "1.0"}, "/jsonrpc "),
        ({"jsonrpc": None}, "/jsonrpc "),
        ({"method": None}, "/method "),
        ({"method": 5}, "/method "),
        ({"params": []}, "/params "),
        ({"params": {}}, "/params/name "),
        ({"params": {"name": ""}}, "/params/name "),
        ({"params": {"name": ["x"]}}, "/params/name "),
        ({"params": {"name": "x", "Name": "y"}}, "/params "),
    ],
)
def test_a_wrong_message_is_400_and_names_its_place(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(CALL | change)

    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)


def test_a_batch_of_messages_is_refused() -> None:
    with pytest.raises(RequestRefused, match="not a JSON object at its top level"):
        parse_json(json.dumps([CALL, CALL]).encode())


PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}


def as_events(*messages: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(message).encode() + b"\n\n" for message in messages)


def test_an_answer_says_that_it_came_and_nothing_of_tokens() -> None:
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "hello"}]}}
    expected = Observation(finished=True, is_legible=True)

    assert observed("mcp", json.dumps(answer).encode()) == expected
    for chunks in split_everywhere(as_events(PROGRESS, answer)):
        assert observed("mcp", *chunks, headers=SSE_ANSWER) == expected
    assert not observed("mcp", as_events(PROGRESS), headers=SSE_ANSWER).finished


def test_an_error_is_seen_wherever_it_is() -> None:
    answer = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no such tool"}}
    expected = Observation(finished=True, is_legible=True, error="error")

    assert observed("mcp", json.dumps(answer).encode()) == expected
    assert observed("mcp", as_events(PROGRESS, answer), headers=SSE_ANSWER) == expected


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (400, Reason.HEADER_MISMATCH, -32020),
        (400, Reason.BODY_MALFORMED, -32600),
        (403, Reason.ACCESS_DENIED, -32001),
        (429, Reason.RATE_LIMITED, -32001),
    ],
)
def test_a_denial_is_a_json_rpc_error(status: int, reason: Reason, code: int) -> None:
    retry_after_ms = 900 if status == 429 else None
    denial = Denial(
        status=status, reason=reason, message="No.", decision_id="d-1", retry_after_ms=retry_after_ms
    )
    reply = FORMATS["mcp"].render_denial(denial)
    waits = {"retry_after": 1} if status == 429 else {}

    assert reply.status == status
    assert json.loads(reply.body) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {
            "code": code,
            "message": "No. (decision d-1)",
            "data": {"reason": str(reason), "decision_id": "d-1"} | waits,
        },
    }


@given(bodies("jsonrpc", "method", "params", "name", "uri", "result", "Name"))
def test_no_body_raises_anything_but_a_refusal(body: dict[str, Any]) -> None:
    read("/mcp", {"jsonrpc": "2.0", "method": "tools/call"} | body)
