"""From the bytes of a request to what it asks for and costs: one pure call, inline or in a pool.

Floor between the functions and the session. It composes `formats` and `measure`, and turns a
refusal into a value; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from extproc.errors import RequestRefused
from extproc.formats import FORMATS, fields
from extproc.formats.base import CONTROL, NO_OUTPUT, BodyKind, Call, ParsedRequest
from extproc.formats.body import decode_body, is_signed, json_content_type
from extproc.formats.multipart import parse_form
from extproc.formats.strict_json import compact_json, malformed, parse_json
from extproc.measure.calibration import Calibration
from extproc.measure.ceilings import OPERATION_CEILINGS, call_ceiling
from extproc.measure.tokens import Tokenizer
from extproc.model import AIRequest, RequestHead, TokenEstimate

_PLAIN_TEXT = frozenset({"text"})
_AWS = "aws."
# What is no conversation reaches the model without a frame.
_UNFRAMED = NO_OUTPUT | {"image_generation", "text_completion"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Understanding:
    """What a request is. Either `request` or `refused` is set."""

    request: AIRequest | None = None
    tokens: TokenEstimate = field(default_factory=TokenEstimate)
    body_with_usage: bytes | None = None  # decoded: it goes upstream without a content-encoding
    content_type: str = ""  # what the body must go upstream as; empty: as it came
    refused: RequestRefused | None = None


def understand(
    head: RequestHead,
    call: Call,
    body: bytes,
    *,
    max_body_bytes: int,
    tokenizer: Tokenizer,
    calibration: Calibration | None = None,
    asks_for_usage: bool = True,
    counts: bool = True,
) -> Understanding:
    """Decode, parse and count the body of one call; never raises `RequestRefused`.

    `asks_for_usage` makes streamed answers report what they cost, where the API must be asked.
    Without `counts` the text is estimated by its bytes. `calibration` corrects what is no exact count.
    """
    try:
        decoded = decode_body(body, head.headers, max_body_bytes=max_body_bytes)
        return _READERS[call.body](_Body(head, call, decoded, tokenizer, calibration, asks_for_usage, counts))
    except RequestRefused as refused:
        return Understanding(refused=refused)


@dataclass(frozen=True, slots=True)
class _Body:
    """A decoded body with all that is needed to read it."""

    head: RequestHead
    call: Call
    data: bytes
    tokenizer: Tokenizer
    calibration: Calibration | None
    asks_for_usage: bool
    counts: bool


def _read_nothing(body: _Body) -> Understanding:
    if body.data:
        raise malformed("must be empty for this call")
    return Understanding(request=without_body(body.call))


def _pass_unread(body: _Body) -> Understanding:
    return Understanding(request=replace(without_body(body.call), body_bytes=len(body.data)))


def _read_form(body: _Body) -> Understanding:
    form = parse_form(body.data, body.head.headers.get("content-type", ""))
    return _measured(FORMATS[body.call.api].parse_request(form, body.call), body)


def _read_json(body: _Body) -> Understanding:
    content_type = "" if _has_signed_type(body) else json_content_type(body.head.headers)
    json_body = parse_json(body.data)
    wire_format = FORMATS[body.call.api]
    found = _measured(wire_format.parse_request(json_body, body.call), body)
    asks = body.asks_for_usage and body.call.operation != CONTROL
    with_usage = wire_format.ask_for_usage(json_body, body.call) if asks else None
    if with_usage is not None and is_signed(body.head.headers):
        what = "must be true: this request is signed, so that nothing can be added to it"
        raise fields.wrong("/stream_options/include_usage", what)
    return replace(
        found,
        body_with_usage=None if with_usage is None else compact_json(with_usage).encode(),
        content_type=content_type,
    )


def _has_signed_type(body: _Body) -> bool:
    """Whether AWS would see that we changed the content type; elsewhere a signature means nothing."""
    is_aws = body.call.provider.startswith(_AWS) or FORMATS[body.call.api].provider.startswith(_AWS)
    if not is_aws or not is_signed(body.head.headers):
        return False
    # One that holds no JSON is refused all the same.
    json_content_type(body.head.headers)
    return "content-type" in body.head.headers


def _measured(parsed: ParsedRequest, body: _Body) -> Understanding:
    request = replace(parsed.request, body_bytes=len(body.data))
    if request.operation == CONTROL:
        return Understanding(request=request)
    tokens = body.tokenizer.estimate(
        parsed.prompt,
        provider=request.provider,
        model=request.model,
        declared_max_output=_most_output(request),
        is_framed=request.operation not in _UNFRAMED,
        counts=body.counts,
    )
    if request.has_state or not _PLAIN_TEXT.issuperset(request.modalities):
        # What the provider adds from its own memory, and what is no text, no tokenizer sees.
        tokens = replace(tokens, exact=False)
    if body.calibration is not None:
        tokens = body.calibration.corrected(tokens, request)
    return Understanding(request=request, tokens=tokens)


def _most_output(request: AIRequest) -> int | None:
    """The ceiling of one choice where the request or its kind says so; None: the model's."""
    if request.operation in NO_OUTPUT:
        return 0
    if request.max_output_tokens is None and request.operation in OPERATION_CEILINGS:
        return call_ceiling(request.provider, request.model, request.operation)
    return request.max_output_tokens


def without_body(call: Call) -> AIRequest:
    """A call of which the request line says everything."""
    return AIRequest(
        api=call.api,
        provider=call.provider,
        operation=call.operation,
        model=call.model,
        models=(call.model,) if call.model else (),
        stream=bool(call.stream),
    )


_READERS: Mapping[BodyKind, Callable[[_Body], Understanding]] = MappingProxyType(
    {
        BodyKind.NONE: _read_nothing,
        BodyKind.JSON: _read_json,
        BodyKind.FORM: _read_form,
        BodyKind.OPAQUE: _pass_unread,
    }
)
