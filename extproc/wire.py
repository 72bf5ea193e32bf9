"""Envoy's ext_proc messages on one side, the session's events and actions on the other.

Floor 3. The only room, with `server`, that knows protobuf's ext_proc types. Facts about Envoy that
surprised us are pinned in tests/e2e.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError

from extproc.errors import ProtocolViolation
from extproc.formats.answers import MAX_TOKENS
from extproc.model import RequestHead, Source, Usage
from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb
from extproc.pb.ai_policy.v1 import token_usage_pb2
from extproc.session.actions import Continue, RespondImmediately
from extproc.session.events import (
    Event,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)

METADATA_NAMESPACE = "ai_policy"
USAGE_NAMESPACE = "envoy.ai.token_usage"
# Envoy files the attributes under the filter's type, whatever the filter is called.
ATTRIBUTES = "envoy.filters.http.ext_proc"
# Where Envoy's jwt_authn puts what it verified; no header reaches it.
JWT_NAMESPACE = "envoy.filters.http.jwt_authn"
# Claims nest a level or two; what lies deeper is left out.
_MAX_CLAIM_DEPTH = 8

Mode = pb.ProcessingMode

# Bits of Envoy's `response.flags` (CoreResponseFlag in stream_info.h).
_UPSTREAM_REQUEST_TIMEOUT = 0x4
_UPSTREAM_CONNECTION_FAILURE = 0x20

_PHASES: Mapping[str, type[Event]] = {
    "request_headers": RequestHeaders,
    "request_body": RequestBody,
    "request_trailers": RequestTrailers,
    "response_headers": ResponseHeaders,
    "response_body": ResponseBody,
    "response_trailers": ResponseTrailers,
}
_PHASE_FIELD = {event: field for field, event in _PHASES.items()}

_BODY_MODES = {"BUFFERED": Mode.BUFFERED, "STREAMED": Mode.STREAMED}

# The commonest answer of a streamed response, encoded once.
_BODY_UNCHANGED: bytes = pb.ProcessingResponse(response_body=pb.BodyResponse()).SerializeToString()


def unsupported(request: pb.ProcessingRequest) -> str | None:
    """Say what is wrong with the processing modes that the first message announces, if anything."""
    if request.observability_mode:
        return "observability_mode ignores verdicts; remove it"
    if not request.HasField("protocol_config"):
        return None
    config = request.protocol_config
    if config.request_body_mode != Mode.BUFFERED:
        mode = Mode.BodySendMode.Name(config.request_body_mode)
        return f"request_body_mode is {mode}; set BUFFERED"
    if config.response_body_mode not in (Mode.NONE, Mode.STREAMED):
        mode = Mode.BodySendMode.Name(config.response_body_mode)
        return f"response_body_mode is {mode}; set NONE"
    return None


def decode(request: pb.ProcessingRequest, at_ns: int) -> Event:
    """Read one message of Envoy's. Raises `ProtocolViolation` for one this version does not know."""
    field = request.WhichOneof("request")
    if field == "request_headers":
        return _request_headers(request, at_ns)
    if field == "request_body":
        return RequestBody(at_ns=at_ns, body=request.request_body.body)
    if field == "request_trailers":
        return RequestTrailers(at_ns=at_ns)
    if field == "response_headers":
        return _response_headers(request, at_ns)
    if field == "response_body":
        part = request.response_body
        return ResponseBody(at_ns=at_ns, body=part.body, end_of_stream=part.end_of_stream)
    if field == "response_trailers":
        return _response_trailers(request, at_ns)
    raise ProtocolViolation("a ProcessingRequest without a known message")


def _request_headers(request: pb.ProcessingRequest, at_ns: int) -> RequestHeaders:
    message = request.request_headers
    headers = _headers(message.headers)
    attributes = _attributes(request)
    source = Source(
        address=_without_port(_text(attributes, "source.address")),
        principal=_text(attributes, "connection.uri_san_peer_certificate"),
        route=_text(attributes, "xds.route_name"),
        jwt_payloads=_jwt_payloads(request),
    )
    head = RequestHead(
        method=headers.get(":method", ""),
        host=headers.get(":authority", ""),
        path=headers.get(":path", ""),
        headers={name: value for name, value in headers.items() if not name.startswith(":")},
        source=source,
        has_body=not message.end_of_stream,
    )
    return RequestHeaders(at_ns=at_ns, head=head)


def _response_headers(request: pb.ProcessingRequest, at_ns: int) -> ResponseHeaders:
    message = request.response_headers
    headers = _headers(message.headers)
    attributes = _attributes(request)
    details = _text(attributes, "response.code_details")
    flags = int(attributes["response.flags"].number_value) if "response.flags" in attributes else 0
    is_local_reply = details not in ("", "via_upstream")
    host_picked = bool(_text(attributes, "upstream.address"))
    status = headers.get(":status", "")
    return ResponseHeaders(
        at_ns=at_ns,
        status=int(status) if status.isdigit() else 0,
        headers=headers,
        end_of_stream=message.end_of_stream,
        is_local_reply=is_local_reply,
        reached_upstream=not is_local_reply or (host_picked and not flags & _UPSTREAM_CONNECTION_FAILURE),
        timed_out=is_local_reply and bool(flags & _UPSTREAM_REQUEST_TIMEOUT),
    )


def _response_trailers(request: pb.ProcessingRequest, at_ns: int) -> ResponseTrailers:
    metadata = request.metadata_context.typed_filter_metadata
    if USAGE_NAMESPACE not in metadata:
        return ResponseTrailers(at_ns=at_ns)
    try:
        native = token_usage_pb2.TokenUsage.FromString(metadata[USAGE_NAMESPACE].value)
    except DecodeError:
        # The message is work in progress upstream; an answer must not be cut because it changed.
        return ResponseTrailers(at_ns=at_ns)
    complete = native.extraction_status == token_usage_pb2.TokenUsage.COMPLETE
    return ResponseTrailers(
        at_ns=at_ns, usage=native_usage(native), model=native.model, usage_is_partial=not complete
    )


def native_usage(native: token_usage_pb2.TokenUsage) -> Usage | None:
    """Envoy's record in our words; None where it holds no count."""

    def count(message: token_usage_pb2.TokenUsage, field: str) -> int | None:
        value = getattr(message, field).value if message.HasField(field) else None
        return value if value is not None and value <= MAX_TOKENS else None

    input_tokens, output_tokens = count(native, "input_tokens"), count(native, "output_tokens")
    if input_tokens is None and output_tokens is None:
        return None
    provider_total = count(native, "provider_total_tokens")
    if None not in (provider_total, input_tokens, output_tokens) and (
        provider_total > input_tokens + output_tokens  # type: ignore[operator]  # none of them is None
    ):
        # xAI and Gemini's OpenAI endpoint count reasoning outside the completion tokens.
        output_tokens = provider_total - input_tokens  # type: ignore[operator]  # as above
    details, output_details = native.input_token_details, native.output_token_details
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_input_tokens=count(details, "cached_tokens"),  # type: ignore[arg-type]  # any message
        cache_creation_input_tokens=count(details, "cache_creation_tokens"),  # type: ignore[arg-type]  # as above
        reasoning_output_tokens=count(output_details, "reasoning_tokens"),  # type: ignore[arg-type]  # as above
    )


def encode(action: Continue | RespondImmediately) -> bytes:
    """One serialized ProcessingResponse."""
    if isinstance(action, RespondImmediately):
        return _immediate(action).SerializeToString()
    if action.phase is ResponseBody and action.body is None and not action.metadata:
        return _BODY_UNCHANGED
    response = pb.ProcessingResponse()
    phase = getattr(response, _PHASE_FIELD[action.phase])
    phase.SetInParent()
    if action.phase not in (RequestTrailers, ResponseTrailers):
        _mutate(phase.response, action)
    if action.skip_request_body:
        response.mode_override.request_body_mode = Mode.NONE
        response.mode_override.response_header_mode = Mode.SEND
    if action.read_response_body:
        # Body modes of an override are always explicit; NONE for the request changes nothing here.
        response.mode_override.response_body_mode = _BODY_MODES[action.read_response_body]
    _add_metadata(response, action.metadata)
    return response.SerializeToString()


def _mutate(common: pb.CommonResponse, action: Continue) -> None:
    common.header_mutation.set_headers.extend(_set_headers(action.set_headers))
    common.header_mutation.remove_headers.extend(action.remove_headers)
    if action.body is not None:
        if action.body:
            common.body_mutation.body = action.body
        else:
            # An empty `body` is indistinguishable from "unchanged".
            common.body_mutation.clear_body = True


def _immediate(action: RespondImmediately) -> pb.ProcessingResponse:
    response = pb.ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = action.status
    immediate.headers.set_headers.extend(_set_headers(action.headers))
    immediate.body = action.body
    immediate.details = action.details
    _add_metadata(response, action.metadata)
    return response


def _add_metadata(response: pb.ProcessingResponse, metadata: Mapping[str, str | int]) -> None:
    if not metadata:
        return
    # Field by field: Struct.update() takes three times as long.
    fields = response.dynamic_metadata.fields[METADATA_NAMESPACE].struct_value.fields
    for name, value in metadata.items():
        if isinstance(value, str):
            fields[name].string_value = value
        else:
            fields[name].number_value = value


def _set_headers(headers: Mapping[str, str]) -> Iterable[pb.HeaderValueOption]:
    # Only raw_value: a header with `value` alone arrives empty, on 1.38 to 1.40.
    pairs = ((name, value.encode("utf-8", "replace")) for name, value in headers.items())
    return (pb.HeaderValueOption(header=pb.HeaderValue(key=name, raw_value=value)) for name, value in pairs)


def _headers(message: pb.HeaderMap) -> dict[str, str]:
    """Lower-case names; repeated headers joined as RFC 9110, section 5.3 allows."""
    headers: dict[str, str] = {}
    for header in message.headers:
        value = _field_value(header.raw_value) if header.raw_value else header.value
        headers[header.key] = f"{headers[header.key]}, {value}" if header.key in headers else value
    return headers


def _field_value(sent: bytes) -> str:
    """UTF-8, so that a name equals the one a policy spells; Latin-1, which never fails, where it is none."""
    try:
        return sent.decode("utf-8")
    except UnicodeDecodeError:
        return sent.decode("latin-1")


def _attributes(request: pb.ProcessingRequest) -> Mapping[str, struct_pb2.Value]:
    return request.attributes[ATTRIBUTES].fields if ATTRIBUTES in request.attributes else {}


def _text(attributes: Mapping[str, struct_pb2.Value], name: str) -> str:
    return attributes[name].string_value if name in attributes else ""


def _jwt_payloads(request: pb.ProcessingRequest) -> dict[str, dict[str, Any]]:
    """Verified payloads by the name that the filter's provider gives them."""
    metadata = request.metadata_context.filter_metadata
    if JWT_NAMESPACE not in metadata:
        return {}
    return {
        name: _plain_struct(value.struct_value, _MAX_CLAIM_DEPTH)
        for name, value in metadata[JWT_NAMESPACE].fields.items()
        if value.HasField("struct_value")
    }


def _plain_struct(struct: struct_pb2.Struct, depth: int) -> dict[str, Any]:
    return {name: _plain(value, depth - 1) for name, value in struct.fields.items()}


def _plain(value: struct_pb2.Value, depth: int) -> Any:
    """The JSON value; None for null, and for what is nested deeper."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_struct(value.struct_value, depth) if depth else None
    if kind == "list_value":
        return [_plain(each, depth - 1) for each in value.list_value.values] if depth else None
    return getattr(value, kind) if kind and kind != "null_value" else None


def _without_port(address: str) -> str:
    """`127.0.0.1` of `127.0.0.1:5`, `::1` of `[::1]:5`; an address without port is left alone."""
    host, colon, port = address.rpartition(":")
    return host.strip("[]") if colon and port.isdigit() else address
