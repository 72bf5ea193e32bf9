"""How Anthropic's API answers a denial and shows limits.

Floor 1, pure. Sources: errors and rate limits pages of the API's documentation, read 2026-08.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from extproc.decision import Denial, LimitState, Unit
from extproc.formats.advice import denial_headers, facts, moment, remaining, request_id, tightest, told
from extproc.formats.base import Reply

_HEADER_NAMES: Mapping[Unit, str] = MappingProxyType(
    {
        Unit.REQUESTS: "requests",
        Unit.TOKENS: "tokens",
        Unit.INPUT_TOKENS: "input-tokens",
        Unit.OUTPUT_TOKENS: "output-tokens",
    }
)
_ERROR_TYPES: Mapping[int, str] = MappingProxyType(
    {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        529: "overloaded_error",
    }
)
_SERVER_ERRORS = 500
_TOO_MANY_REQUESTS = 429
_NS = 1_000_000_000


def render_denial(denial: Denial) -> Reply:
    """The reply from which Anthropic's SDKs raise the exception of `denial.status`."""
    headers = denial_headers(denial) | request_id("request-id", denial)
    if denial.status == _TOO_MANY_REQUESTS and denial.limit is not None:
        headers |= _limit_headers((denial.limit,), denial.at_ns / _NS if denial.at_ns else None)
    error = {"type": _error_type(denial.status), "message": told(denial), **facts(denial)}
    body = {"type": "error", "error": error, "request_id": denial.decision_id or None}
    return Reply(status=denial.status, headers=headers, body=json.dumps(body).encode())


def _error_type(status: int) -> str:
    return _ERROR_TYPES.get(status, "api_error" if status >= _SERVER_ERRORS else "invalid_request_error")


def limit_headers(limits: tuple[LimitState, ...], now_s: float) -> Mapping[str, str]:
    """`anthropic-ratelimit-*` of the tightest limit of each unit; resets are moments."""
    return _limit_headers(limits, now_s)


def _limit_headers(limits: tuple[LimitState, ...], now_s: float | None) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, limit in tightest(limits, _HEADER_NAMES).items():
        prefix = f"anthropic-ratelimit-{name}"
        headers |= {f"{prefix}-limit": str(limit.limit), f"{prefix}-remaining": remaining(limit)}
        if now_s is not None:
            headers[f"{prefix}-reset"] = moment(now_s, limit.reset_ms)
    return headers
