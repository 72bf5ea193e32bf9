"""How OpenAI's APIs answer a denial and show limits; every format with its error body uses this.

Floor 1, pure. Sources: captured 429 answers of OpenAI and OpenRouter; error codes guide, read
2026-08; Mistral's error objects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from extproc.decision import Denial, LimitState, Reason, Unit
from extproc.formats.advice import (
    denial_headers,
    duration,
    facts,
    remaining,
    request_id,
    tightest,
    told,
    waiting_helps,
)
from extproc.formats.base import JSON, Call, OutputCeiling, Reply

# The dialect has one name for tokens, whichever way they flow.
_HEADER_NAMES: Mapping[Unit, str] = MappingProxyType(
    {
        Unit.REQUESTS: "requests",
        Unit.TOKENS: "tokens",
        Unit.INPUT_TOKENS: "tokens",
        Unit.OUTPUT_TOKENS: "tokens",
    }
)
_TYPES: Mapping[Unit, str] = MappingProxyType(
    {**_HEADER_NAMES, Unit.COST_USD: "tokens", Unit.CONCURRENT_REQUESTS: "requests"}
)
_NO_QUOTA = "insufficient_quota"
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
_MS = 1000


class OpenAIFormat:
    """What the formats of OpenAI's APIs have in common; each adds how it is claimed and read."""

    provider = "openai"
    model_field = "model"

    def output_ceiling(self, _body: JSON, _call: Call) -> OutputCeiling | None:
        """None: unless a format says more, nothing is generated or nothing can be said of it."""
        return None

    def ask_for_usage(self, _body: JSON, _call: Call) -> JSON | None:
        """None: answers report usage unasked, or not at all."""
        return None

    def is_usage_chunk(self, _event_data: bytes) -> bool:
        """False: no event is there only for its usage."""
        return False

    def render_denial(self, denial: Denial, provider: str = "") -> Reply:
        """An OpenAI error, as `provider` writes it."""
        return render_denial(denial, provider)

    def limit_headers(
        self, limits: tuple[LimitState, ...], _now_s: float, provider: str = ""
    ) -> Mapping[str, str]:
        """`x-ratelimit-*` of the tightest limit of requests and of tokens; resets are durations."""
        return _limit_headers(limits, provider)


def render_denial(denial: Denial, provider: str = "") -> Reply:
    """The reply from which OpenAI's SDKs raise the exception of `denial.status`."""
    headers = denial_headers(denial) | request_id("x-request-id", denial)
    if denial.status == _TOO_MANY_REQUESTS and denial.limit is not None:
        headers |= _limit_headers((denial.limit,), provider)
    body = _BODIES.get(provider, _openai_body)(denial, _error(denial))
    return Reply(status=denial.status, headers=headers, body=json.dumps(body).encode())


def _error(denial: Denial) -> dict[str, object]:
    if denial.status == _TOO_MANY_REQUESTS:
        error_type, code = _limit_words(denial)
    else:
        error_type, code = _error_type(denial.status), _CODES.get(denial.reason, str(denial.reason))
    return {
        "message": told(denial),
        "type": error_type,
        "param": None,
        "code": code,
        **facts(denial),
    }


def _limit_words(denial: Denial) -> tuple[str, str]:
    """Type and code: of a budget that is used up for long, those at which clients do not try again."""
    if denial.reason is Reason.CAP_REACHED and not waiting_helps(denial):
        return _NO_QUOTA, _NO_QUOTA
    return "tokens" if denial.limit is None else _TYPES[denial.limit.unit], "rate_limit_exceeded"


def _error_type(status: int) -> str:
    return "server_error" if status >= _SERVER_ERRORS else _ERROR_TYPES.get(status, "invalid_request_error")


def _openai_body(_denial: Denial, error: dict[str, object]) -> dict[str, object]:
    return {"error": error}


def _openrouter_body(denial: Denial, error: dict[str, object]) -> dict[str, object]:
    """Its code is the status, as a number; whatever else there is to say is metadata."""
    message = error.pop("message")
    return {"error": {"code": denial.status, "message": message, "metadata": error}, "user_id": None}


def _mistral_body(_denial: Denial, error: dict[str, object]) -> dict[str, object]:
    """Its error is the body itself."""
    return {"object": "error", **error}


_BODIES: Mapping[str, Callable[[Denial, dict[str, object]], dict[str, object]]] = MappingProxyType(
    {"openrouter": _openrouter_body, "mistral_ai": _mistral_body}
)


def _limit_headers(limits: tuple[LimitState, ...], provider: str) -> dict[str, str]:
    reset = _RESETS.get(provider, duration)
    headers: dict[str, str] = {}
    for name, limit in tightest(limits, _HEADER_NAMES).items():
        headers[f"x-ratelimit-limit-{name}"] = str(limit.limit)
        headers[f"x-ratelimit-remaining-{name}"] = remaining(limit)
        headers[f"x-ratelimit-reset-{name}"] = reset(limit.reset_ms)
    return headers


def _whole_seconds(ms: int) -> str:
    return str(max(0, math.ceil(ms / _MS)))


_RESETS: Mapping[str, Callable[[int], str]] = MappingProxyType({"azure.ai.openai": _whole_seconds})
