"""Envoy's messages in and out; what we write is read back by a second, independent codec."""

from importlib import metadata
from typing import Any

import pytest
from envoy_data_plane.envoy.service.ext_proc.v3 import ProcessingResponse
from google.protobuf import any_pb2

from extproc import wire
from extproc.errors import ProtocolViolation
from extproc.model import Usage
from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb
from extproc.pb.ai_policy.v1.token_usage_pb2 import TokenUsage
from extproc.session.actions import Continue, RespondImmediately
from extproc.session.events import (
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)

AT = 5
MODES: dict[str, Any] = dict(wire.Mode.BodySendMode.items())


def header_map(*headers: tuple[str, str]) -> pb.HeaderMap:
    return pb.HeaderMap(headers=[pb.HeaderValue(key=key, raw_value=value.encode()) for key, value in headers])


def attributes(message: pb.ProcessingRequest, **values: Any) -> pb.ProcessingRequest:
    struct = message.attributes[wire.ATTRIBUTES]
    struct.update({name.replace("__", "."): value for name, value in values.items()})
    return message


def request_headers(*headers: tuple[str, str], end: bool = False, **attrs: Any) -> pb.ProcessingRequest:
    message = pb.ProcessingRequest(
        request_headers=pb.HttpHeaders(headers=header_map(*headers), end_of_stream=end)
    )
    return attributes(message, **attrs) if attrs else message


def response_headers(status: str = "200", **attrs: Any) -> pb.ProcessingRequest:
    message = pb.ProcessingRequest(response_headers=pb.HttpHeaders(headers=header_map((":status", status))))
    return attributes(message, **attrs) if attrs else message


def parsed(action: Continue | RespondImmediately) -> ProcessingResponse:
    """Our bytes as betterproto2 reads them."""
    return ProcessingResponse.parse(wire.encode(action))


# --- in


def test_request_headers_become_a_head() -> None:
    event = wire.decode(
        request_headers(
            (":method", "POST"),
            (":path", "/v1/messages?a=b"),
            (":authority", "gateway:10000"),
            ("x-api-key", "k"),
            source__address="10.1.2.3:4567",
            xds__route_name="anthropic",
            connection__uri_san_peer_certificate="spiffe://a/b",
        ),
        AT,
    )

    assert isinstance(event, RequestHeaders)
    head = event.head
    assert (head.method, head.path_only, head.query, head.host) == (
        "POST",
        "/v1/messages",
        "a=b",
        "gateway:10000",
    )
    assert head.headers == {"x-api-key": "k"}
    assert (head.source.address, head.source.route, head.source.principal) == (
        "10.1.2.3",
        "anthropic",
        "spiffe://a/b",
    )
    assert head.has_body


def with_metadata(message: pb.ProcessingRequest, namespace: str, **values: Any) -> pb.ProcessingRequest:
    message.metadata_context.filter_metadata[namespace].update(values)
    return message


PAYLOAD = {
    "sub": "ann",
    "exp": 1_800_000_000,
    "verified": True,
    "nothing": None,
    "groups": ["a", "b"],
    "realm": {"roles": ["c"], "team": "red"},
}


def test_what_jwt_authn_verified_comes_with_the_head() -> None:
    message = with_metadata(
        request_headers((":path", "/")), "envoy.filters.http.jwt_authn", jwt_payload=PAYLOAD, other={}
    )

    event = wire.decode(message, AT)

    assert isinstance(event, RequestHeaders)
    assert event.head.source.jwt_payloads == {"jwt_payload": PAYLOAD, "other": {}}


def test_metadata_of_other_filters_and_what_is_no_payload_are_not_read() -> None:
    message = request_headers((":path", "/"), ("envoy.filters.http.jwt_authn", "{}"))
    with_metadata(message, "jwt_payload", sub="ann")
    with_metadata(message, "ai_policy", jwt_payload=PAYLOAD)
    with_metadata(message, "envoy.filters.http.jwt_authn", status="ok", code=1, many=[PAYLOAD])

    event = wire.decode(message, AT)

    assert isinstance(event, RequestHeaders)
    assert event.head.source.jwt_payloads == {}


def test_a_payload_is_read_to_a_bounded_depth() -> None:
    nested: dict[str, Any] = {"sub": "ann"}
    for _ in range(20):
        nested = {"in": nested, "list": [[[[[[[[[1]]]]]]]]]}
    message = with_metadata(
        request_headers((":path", "/")), "envoy.filters.http.jwt_authn", jwt_payload=nested
    )

    event = wire.decode(message, AT)

    assert isinstance(event, RequestHeaders)
    value: Any = event.head.source.jwt_payloads["jwt_payload"]
    assert value["list"] == [[[[[[[None]]]]]]]
    for _ in range(8):
        value = value["in"]
    assert value is None


def test_headers_that_end_the_request_have_no_body() -> None:
    event = wire.decode(request_headers((":method", "GET"), end=True), AT)

    assert isinstance(event, RequestHeaders)
    assert not event.head.has_body


def test_repeated_headers_are_joined_so_that_none_hides_behind_the_other() -> None:
    event = wire.decode(request_headers(("x-api-key", "a"), ("x-api-key", "b")), AT)

    assert isinstance(event, RequestHeaders)
    assert event.head.headers["x-api-key"] == "a, b"


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"M\xc3\xbcnchen", "M\u00fcnchen"),
        ("\u6771\u4eac \U0001f5fc".encode(), "\u6771\u4eac \U0001f5fc"),
        (b"M\xfcnchen", "M\u00fcnchen"),
        (b"\xff\xfe", "\xff\xfe"),
        # Half a character, and a surrogate: no UTF-8.
        (b"a\xc3", "a\xc3"),
        (b"\xed\xa0\x80", "\xed\xa0\x80"),
        (b"", ""),
    ],
)
def test_a_header_is_utf_8_where_it_can_be_and_never_fails(sent: bytes, read: str) -> None:
    """A policy is written in UTF-8, so a team's name must be read as that to be equal to it."""
    pair = pb.HeaderValue(key="x-team", raw_value=sent)
    message = pb.ProcessingRequest(request_headers=pb.HttpHeaders(headers=pb.HeaderMap(headers=[pair])))

    event = wire.decode(message, AT)

    assert isinstance(event, RequestHeaders)
    assert event.head.headers == {"x-team": read}


def test_what_is_set_is_written_as_it_is_read() -> None:
    value = "M\u00fcnchen \u6771\u4eac"
    common = parsed(Continue(phase=RequestHeaders, set_headers={"x-team": value})).request_headers

    assert common is not None
    assert common.response is not None
    assert common.response.header_mutation is not None
    (option,) = common.response.header_mutation.set_headers
    assert option.header is not None
    assert option.header.raw_value.decode() == value


def test_what_no_encoding_can_write_breaks_no_answer() -> None:
    action = RespondImmediately(
        status=403, headers={"x-name": "a\ud800"}, body=b"{}", details="", metadata={}
    )

    immediate = parsed(action).immediate_response

    assert immediate is not None
    assert immediate.headers is not None
    assert [o.header.raw_value for o in immediate.headers.set_headers if o.header] == [b"a?"]


@pytest.mark.parametrize(
    ("attrs", "local", "reached", "timed_out"),
    [
        ({}, False, True, False),
        ({"response__code_details": "via_upstream", "upstream__address": "1.2.3.4:1"}, False, True, False),
        ({"response__code_details": "request_payload_too_large"}, True, False, False),
        (
            {"response__code_details": "upstream_response_timeout", "response__flags": 4.0}
            | {"upstream__address": "1.2.3.4:1"},
            True,
            True,
            True,
        ),
        (
            {"response__code_details": "upstream_reset_before_response_started{connection_failure}"}
            | {"response__flags": 32.0, "upstream__address": "1.2.3.4:1"},
            True,
            False,
            False,
        ),
        ({"response__code_details": "no_healthy_upstream", "response__flags": 2.0}, True, False, False),
    ],
)
def test_who_made_an_answer_is_told_by_envoys_attributes(
    attrs: dict[str, Any],
    local: bool,  # noqa: FBT001
    reached: bool,  # noqa: FBT001
    timed_out: bool,  # noqa: FBT001
) -> None:
    event = wire.decode(response_headers("503", **attrs), AT)

    assert isinstance(event, ResponseHeaders)
    assert (event.is_local_reply, event.reached_upstream, event.timed_out) == (local, reached, timed_out)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (pb.ProcessingRequest(request_body=pb.HttpBody(body=b"x", end_of_stream=True)), RequestBody),
        (pb.ProcessingRequest(request_trailers=pb.HttpTrailers()), RequestTrailers),
        (pb.ProcessingRequest(response_body=pb.HttpBody(body=b"x")), ResponseBody),
        (pb.ProcessingRequest(response_trailers=pb.HttpTrailers()), ResponseTrailers),
    ],
)
def test_every_message_becomes_its_event(message: pb.ProcessingRequest, kind: type) -> None:
    assert type(wire.decode(message, AT)) is kind


def test_a_message_of_a_later_protocol_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation):
        wire.decode(pb.ProcessingRequest(), AT)


# The record of one chat answer exactly as Envoy 1.40.0 put it on the wire.
NATIVE = (
    bytes.fromhex("08011211")
    + b"gpt-4o-2024-08-06"
    + bytes.fromhex("1a0208132202080a2a02081d32040a0208053a040a0208034202081d4801")
)


def trailers(value: bytes) -> ResponseTrailers:
    message = pb.ProcessingRequest(response_trailers=pb.HttpTrailers())
    message.metadata_context.typed_filter_metadata[wire.USAGE_NAMESPACE].CopyFrom(
        any_pb2.Any(type_url="type.googleapis.com/envoy.data.ai.v3.TokenUsage", value=value)
    )
    event = wire.decode(message, AT)
    assert isinstance(event, ResponseTrailers)
    return event


def test_envoys_own_usage_record_is_read() -> None:
    event = trailers(NATIVE)

    assert event.model == "gpt-4o-2024-08-06"
    assert not event.usage_is_partial
    assert event.usage == Usage(
        input_tokens=19, output_tokens=10, cache_read_input_tokens=5, reasoning_output_tokens=3
    )


def test_a_count_of_zero_is_a_count() -> None:
    record = TokenUsage(extraction_status=TokenUsage.COMPLETE)
    record.input_tokens.value = 0
    record.output_tokens.value = 0

    usage = trailers(record.SerializeToString()).usage

    assert usage == Usage(input_tokens=0, output_tokens=0)


def test_reasoning_outside_the_completion_tokens_is_output() -> None:
    record = TokenUsage(extraction_status=TokenUsage.COMPLETE)
    record.input_tokens.value, record.output_tokens.value = 12, 1
    record.provider_total_tokens.value = 241

    usage = trailers(record.SerializeToString()).usage

    assert usage == Usage(input_tokens=12, output_tokens=229)


def test_a_count_that_no_answer_can_reach_is_no_count() -> None:
    """One such figure would be a debt for longer than any limit lives."""
    record = TokenUsage(extraction_status=TokenUsage.COMPLETE)
    record.input_tokens.value = 7
    record.output_tokens.value = 2**53

    assert wire.native_usage(record) == Usage(input_tokens=7)


def test_a_failed_extraction_is_no_usage() -> None:
    record = TokenUsage(extraction_status=TokenUsage.FAILED)

    assert trailers(record.SerializeToString()).usage is None


def test_a_record_that_cannot_be_read_is_no_usage_and_no_failure() -> None:
    assert trailers(b"\xff\xff\xff").usage is None


# --- out


def test_a_changed_body_and_its_length_are_one_answer() -> None:
    action = Continue(
        phase=RequestBody,
        body=b"{}",
        set_headers={"content-length": "2"},
        remove_headers=("content-encoding",),
        metadata={"decision_id": "d", "input_tokens": 3},
    )

    response = parsed(action)

    assert response.request_body is not None
    common = response.request_body.response
    assert common is not None
    assert common.body_mutation is not None
    assert common.body_mutation.body == b"{}"
    assert common.header_mutation is not None
    assert common.header_mutation.remove_headers == ["content-encoding"]
    (option,) = common.header_mutation.set_headers
    assert option.header is not None
    # `value` must be empty: Envoy refuses a header with both, and drops one with `value` alone.
    assert (option.header.key, option.header.raw_value, option.header.value) == ("content-length", b"2", "")


def test_an_unchanged_chunk_is_an_empty_answer_of_its_phase() -> None:
    response = parsed(Continue(phase=ResponseBody))

    assert response.response_body is not None
    assert response.response_body.response is None


def test_a_chunk_that_vanishes_is_cleared() -> None:
    response = parsed(Continue(phase=ResponseBody, body=b""))

    assert response.response_body is not None
    assert response.response_body.response is not None
    assert response.response_body.response.body_mutation is not None
    assert response.response_body.response.body_mutation.clear_body is True


def test_the_body_is_asked_for_by_an_explicit_override() -> None:
    response = parsed(Continue(phase=ResponseHeaders, read_response_body="STREAMED"))

    assert response.response_headers is not None
    assert response.mode_override is not None
    assert response.mode_override.response_body_mode == 1  # STREAMED


@pytest.mark.parametrize("phase", [RequestTrailers, ResponseTrailers])
def test_trailers_are_answered_in_kind(phase: type) -> None:
    response = parsed(Continue(phase=phase))

    answered = response.request_trailers if phase is RequestTrailers else response.response_trailers
    assert answered is not None


def test_an_immediate_response_carries_status_headers_body_and_details() -> None:
    action = RespondImmediately(
        status=429,
        headers={"content-type": "application/json", "retry-after": "1"},
        body=b"{}",
        details="ai_policy_denied[RateLimit/x]",
        metadata={"effect": "deny"},
    )

    immediate = parsed(action).immediate_response

    assert immediate is not None
    assert immediate.status is not None
    assert int(immediate.status.code) == 429
    assert immediate.body == b"{}"
    assert immediate.details == "ai_policy_denied[RateLimit/x]"
    assert immediate.headers is not None
    sent = {o.header.key: o.header.raw_value for o in immediate.headers.set_headers if o.header}
    assert sent == {"content-type": b"application/json", "retry-after": b"1"}


# --- processing modes


@pytest.mark.parametrize(
    ("request_mode", "response_mode", "supported"),
    [
        ("BUFFERED", "NONE", True),
        ("BUFFERED", "STREAMED", True),
        ("NONE", "NONE", False),
        ("STREAMED", "NONE", False),
        ("BUFFERED_PARTIAL", "NONE", False),
        ("FULL_DUPLEX_STREAMED", "NONE", False),
        ("BUFFERED", "FULL_DUPLEX_STREAMED", False),
        ("BUFFERED", "BUFFERED", False),
    ],
)
def test_modes_that_cannot_be_protected_are_refused(
    request_mode: str,
    response_mode: str,
    supported: bool,  # noqa: FBT001
) -> None:
    message = request_headers((":method", "POST"))
    message.protocol_config.request_body_mode = MODES[request_mode]
    message.protocol_config.response_body_mode = MODES[response_mode]

    problem = wire.unsupported(message)

    assert (problem is None) is supported
    assert supported or "set " in (problem or "")


def test_observability_mode_ignores_verdicts_and_is_refused() -> None:
    message = request_headers((":method", "POST"))
    message.observability_mode = True

    assert wire.unsupported(message) is not None


def test_no_two_wheels_own_one_file_of_what_we_run_on() -> None:
    """Two wheels in one package overwrite each other in the order of their installation."""
    owners: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        for file in distribution.files or ():
            if file.suffix == ".py" and file.parts[0] in {"google", "opentelemetry", "envoy", "grpc"}:
                owners.setdefault(str(file), set()).add(distribution.metadata["Name"])

    assert {file: names for file, names in owners.items() if len(names) > 1} == {}
