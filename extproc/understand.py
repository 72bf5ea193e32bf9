"""From the bytes of a request to what it asks for and costs: one pure call, inline or in a pool.

Floor between the functions and the session. It composes `formats` and `measure`, and turns a
refusal into a value; it decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import Call
from extproc.formats.body import decode_body
from extproc.formats.classify import CONTROL, claim
from extproc.formats.strict_json import compact_json, malformed, parse_json
from extproc.measure.tokens import Tokenizer
from extproc.model import AIRequest, RequestHead, TokenEstimate

# Calls of these methods are read without a body.
_PLAIN_TEXT = frozenset({"text"})
_BODILESS_METHODS = ("GET", "OPTIONS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Understanding:
    """What a request is. Either `request` or `refused` is set."""

    request: AIRequest | None = None
    tokens: TokenEstimate = field(default_factory=TokenEstimate)
    body_with_usage: bytes | None = None  # decoded: it goes upstream without a content-encoding
    refused: RequestRefused | None = None


def understand(head: RequestHead, body: bytes, *, max_body_bytes: int, tokenizer: Tokenizer) -> Understanding:
    """Decode, parse, classify and count one request; never raises `RequestRefused`."""
    try:
        return _understand(head, body, max_body_bytes, tokenizer)
    except RequestRefused as refused:
        return Understanding(refused=refused)


def _understand(head: RequestHead, body: bytes, max_body_bytes: int, tokenizer: Tokenizer) -> Understanding:
    call = claim(head.method, head.path, head.headers)
    if call is None:
        raise RequestRefused(
            status=400,
            code=Reason.UNCLASSIFIED,
            message="This path and method were not found among the AI calls that policy can read.",
        )
    decoded = decode_body(body, head.headers, max_body_bytes=max_body_bytes)
    if head.method in _BODILESS_METHODS:
        return Understanding(request=_without_body(call, decoded))
    json_body = parse_json(decoded)
    wire_format = FORMATS[call.api]
    parsed = wire_format.parse_request(json_body, call)
    request = replace(parsed.request, body_bytes=len(decoded))
    if call.operation == CONTROL:
        return Understanding(request=request)
    with_usage = wire_format.ask_for_usage(json_body)
    tokens = tokenizer.estimate(
        parsed.prompt,
        provider=request.provider,
        model=request.model,
        declared_max_output=request.max_output_tokens,
    )
    if request.has_state or not _PLAIN_TEXT.issuperset(request.modalities):
        # What the provider adds from its own memory, and what is no text, no tokenizer sees.
        tokens = replace(tokens, exact=False)
    return Understanding(
        request=request,
        tokens=tokens,
        body_with_usage=None if with_usage is None else compact_json(with_usage).encode(),
    )


def _without_body(call: Call, body: bytes) -> AIRequest:
    if body:
        raise malformed("must be empty for this method")
    return AIRequest(api=call.api, provider=call.provider, operation=call.operation)
