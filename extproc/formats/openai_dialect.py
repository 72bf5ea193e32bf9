"""How OpenAI's APIs answer a denial and show limits; every format with its error body uses this.

Floor 1, pure. Sources: captured 429 answers of the API; error codes guide, read 2026-08.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from extproc.decision import Denial, LimitState, Reason, Unit
from extproc.formats.advice import denial_headers, duration, remaining, tightest, told
from extproc.formats.base import Reply

# The dialect has one name for tokens, whichever way they flow.
_HEADER_NAMES: Mapping[Unit, str] = MappingProxyType(
    {
        Unit.REQUESTS: "requests",
        Unit.TOKENS: "tokens",
        Unit.INPUT_TOKENS: "tokens",
        Unit.OUTPUT_TOKENS: "tokens",
    }
)
_ERROR_TYPES: Mapping[int, str] = MappingProxyType({403: "permission_error"})
_SERVER_ERRORS = 500
# Clients branch on these two words; every other code is our own reason.
_CODES: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.CREDENTIAL_INVALID: "invalid_api_key",
        Reason.CREDENTIAL_MISSING: "invalid_api_key",
        Reason.CREDENTIAL_EXPIRED: "invalid_api_key",
        Reason.CREDENTIAL_DISABLED: "invalid_api_key",
    }
)
_TOO_MANY_REQUESTS = 429


def render_denial(denial: Denial, _provider: str = "") -> Reply:
    """The reply from which OpenAI's SDKs raise the exception of `denial.status`."""
    is_limit = denial.status == _TOO_MANY_REQUESTS
    headers = denial_headers(denial)
    if is_limit and denial.limit is not None:
        headers |= limit_headers((denial.limit,), 0)
    error: dict[str, object] = {
        "message": told(denial),
        "type": _limit_type(denial) if is_limit else _error_type(denial.status),
        "param": None,
        "code": "rate_limit_exceeded" if is_limit else _CODES.get(denial.reason, str(denial.reason)),
        "reason": str(denial.reason),
        "decision_id": denial.decision_id,
    }
    if "retry-after" in headers:
        error["retry_after"] = int(headers["retry-after"])
    return Reply(status=denial.status, headers=headers, body=json.dumps({"error": error}).encode())


def _limit_type(denial: Denial) -> str:
    return "tokens" if denial.limit is None else _HEADER_NAMES[denial.limit.unit]


def _error_type(status: int) -> str:
    return "server_error" if status >= _SERVER_ERRORS else _ERROR_TYPES.get(status, "invalid_request_error")


def limit_headers(limits: tuple[LimitState, ...], _now_s: float) -> Mapping[str, str]:
    """`x-ratelimit-*` of the tightest limit of requests and of tokens; resets are durations."""
    headers: dict[str, str] = {}
    for name, limit in tightest(limits, _HEADER_NAMES).items():
        headers[f"x-ratelimit-limit-{name}"] = str(limit.limit)
        headers[f"x-ratelimit-remaining-{name}"] = remaining(limit)
        headers[f"x-ratelimit-reset-{name}"] = duration(limit.reset_ms)
    return headers
