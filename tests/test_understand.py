import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from extproc.decision import Reason
from extproc.formats.classify import claim
from extproc.measure.tokens import Tokenizer
from extproc.model import RequestHead, TokenEstimate
from extproc.understand import Understanding, understand

FIXTURES = Path(__file__).parent / "fixtures"
HELLO: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Grüße 🌍"}]}


def head(method: str = "POST", path: str = "/v1/chat/completions", **headers: str) -> RequestHead:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return RequestHead(method=method, host="api.example.com", path=path, headers=named)


def understood(
    body: bytes, request_head: RequestHead | None = None, *, max_body_bytes: int = 1 << 20
) -> Understanding:
    request_head = request_head or head()
    call = claim(request_head)
    assert call is not None
    return understand(request_head, call, body, max_body_bytes=max_body_bytes, tokenizer=Tokenizer())


def dumped(**changes: Any) -> bytes:
    return json.dumps(HELLO | changes).encode()


def test_a_request_is_decoded_parsed_and_estimated() -> None:
    body = dumped(max_tokens=50)
    found = understood(gzip.compress(body), head(content_encoding="gzip"))

    assert found.refused is None
    assert found.request is not None
    assert (found.request.api, found.request.model) == ("openai_chat", "gpt-4o-mini")
    assert found.request.body_bytes == len(body)
    assert found.tokens.input > 0
    assert found.tokens.max_output == 50


def test_a_body_that_needs_no_change_passes_byte_for_byte() -> None:
    assert understood(dumped()).body_with_usage is None
    assert understood(dumped(stream=True, stream_options={"include_usage": True})).body_with_usage is None
    recorded = (FIXTURES / "anthropic_messages" / "request.json").read_bytes()
    assert understood(recorded, head(path="/v1/messages")).body_with_usage is None


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_stream_is_rewritten_as_compact_json_to_report_usage(encoding: str) -> None:
    body = dumped(stream=True)
    sent = gzip.compress(body) if encoding == "gzip" else body
    found = understood(sent, head(content_encoding=encoding))

    assert (
        found.body_with_usage
        == (
            '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Grüße 🌍"}],"stream":true,'
            '"stream_options":{"include_usage":true}}'
        ).encode()
    )
    assert found.request is not None
    assert not found.request.wants_usage_chunk


@pytest.mark.parametrize(
    ("body", "request_head", "status", "reason"),
    [
        (b"", None, 400, Reason.BODY_MISSING),
        (b"{", None, 400, Reason.BODY_MALFORMED),
        (b'{"model":"a"}', None, 400, Reason.UNCLASSIFIED),
        (b"x" * 2000, None, 413, Reason.BODY_TOO_LARGE),
        (dumped(), head(content_encoding="compress"), 415, Reason.ENCODING_UNSUPPORTED),
        (dumped(), head(content_type="multipart/form-data; boundary=x"), 415, Reason.ENCODING_UNSUPPORTED),
        (b"{}", head("GET", "/v1/models"), 400, Reason.BODY_MALFORMED),
    ],
)
def test_a_refusal_is_a_value(
    body: bytes, request_head: RequestHead | None, status: int, reason: Reason
) -> None:
    found = understood(body, request_head, max_body_bytes=1000)

    assert found.refused is not None
    assert (found.refused.status, found.refused.code) == (status, reason)
    assert found == Understanding(refused=found.refused)


@pytest.mark.parametrize(
    ("request_head", "api"),
    [
        (head("GET", "/v1/models"), "openai_chat"),
        (head("GET", "/v1/models", anthropic_version="2023-06-01"), "anthropic_messages"),
        (head("OPTIONS", access_control_request_method="POST"), "openai_chat"),
    ],
)
def test_a_call_that_spends_nothing_needs_no_body(request_head: RequestHead, api: str) -> None:
    found = understood(b"", request_head)

    assert found.request is not None
    assert (found.request.api, found.request.operation) == (api, "control")
    assert found.tokens == TokenEstimate()


def test_counting_tokens_names_its_model_and_costs_nothing() -> None:
    found = understood(dumped(model="claude-sonnet-4-5"), head(path="/v1/messages/count_tokens"))

    assert found.request is not None
    assert (found.request.operation, found.request.model) == ("control", "claude-sonnet-4-5")
    assert found.tokens == TokenEstimate()
