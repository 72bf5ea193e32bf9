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


SIGNED = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/us-east-1/bedrock/aws4_request, SignedHeaders=host"
CONVERSE = json.dumps({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}).encode()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/model/anthropic.claude-v2/converse", CONVERSE),
        ("/endpoints/mine/invocations", b'{"inputs":"hi"}'),
    ],
)
def test_a_signed_request_goes_to_aws_as_it_was_signed(path: str, body: bytes) -> None:
    typed = head(path=path, authorization=SIGNED, content_type="application/octet-stream")
    untyped = head(path=path, authorization=SIGNED)
    by_key = head(path=path, authorization="Bearer x", content_type="application/octet-stream")

    assert (understood(body, typed).content_type, understood(body, typed).body_with_usage) == ("", None)
    # A type that is not there was not signed either.
    assert understood(body, untyped).content_type == "application/json"
    assert understood(body, by_key).content_type == "application/json"


def test_a_signed_request_of_a_type_that_holds_no_json_is_refused_all_the_same() -> None:
    signed = head(
        path="/model/anthropic.claude-v2/converse", authorization=SIGNED, content_type="application/xml"
    )
    refused = understood(CONVERSE, signed).refused

    assert refused is not None
    assert refused.status == 415


def test_what_looks_signed_is_typed_all_the_same_where_no_one_checks() -> None:
    found = understood(dumped(), head(authorization=SIGNED, content_type="application/x-www-form-urlencoded"))

    assert found.content_type == "application/json"


def test_a_signed_stream_that_cannot_be_asked_for_usage_is_refused() -> None:
    """A signature is no way around being counted."""
    refused = understood(dumped(stream=True), head(authorization=SIGNED)).refused
    asking = understood(
        dumped(stream=True, stream_options={"include_usage": True}), head(authorization=SIGNED)
    )

    assert refused is not None
    assert (refused.status, refused.code) == (400, Reason.BODY_MALFORMED)
    assert refused.message.startswith("/stream_options/include_usage must be true: this request is signed")
    assert (asking.refused, asking.body_with_usage) == (None, None)


def test_an_image_of_an_unknown_model_sets_no_conversation_aside() -> None:
    found = understood(b'{"model":"my-deployment","prompt":"a cat"}', head(path="/v1/images/generations"))

    assert found.tokens.max_output == 16_384
