"""How Google's APIs answer a denial.

Floor 1, pure. They document no headers for limits, so there are none: what is to be told of a limit
is in the error's details. Sources: google.rpc `code`, `error_details`; error guide of the Gemini API.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from extproc.decision import Denial, LimitState, Unit
from extproc.formats.advice import denial_headers, facts, told
from extproc.formats.base import Reply

_TYPE = "type.googleapis.com/google.rpc."
_DOMAIN = "ai-policy"
_STATUSES: Mapping[int, str] = MappingProxyType(
    {
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        500: "INTERNAL",
        501: "UNIMPLEMENTED",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }
)
_OTHER_CLIENT_ERROR, _OTHER_SERVER_ERROR = "INVALID_ARGUMENT", "INTERNAL"
_SERVER_ERRORS = 500
# Clients take an id with `PerDay` in it for the end of the day's work, and do not retry. A day has an hour
# less or more where clocks are changed; what has no length is counted at once.
_WINDOWS: Mapping[float, str] = MappingProxyType(
    {
        0: "",
        1: "PerSecond",
        60: "PerMinute",
        3600: "PerHour",
        82_800: "PerDay",
        86_400: "PerDay",
        90_000: "PerDay",
    }
)


def render_denial(denial: Denial, _provider: str = "") -> Reply:
    """The reply from which Google's SDKs raise the error of `denial.status`."""
    headers = denial_headers(denial)
    details: list[dict[str, object]] = [
        {
            "@type": _TYPE + "ErrorInfo",
            "reason": denial.reason.upper(),
            "domain": _DOMAIN,
            "metadata": _metadata(denial),
        }
    ]
    if denial.limit is not None:
        details.append({"@type": _TYPE + "QuotaFailure", "violations": [_violation(denial.limit)]})
    if "retry-after" in headers:
        details.append({"@type": _TYPE + "RetryInfo", "retryDelay": headers["retry-after"] + "s"})
    default = _OTHER_SERVER_ERROR if denial.status >= _SERVER_ERRORS else _OTHER_CLIENT_ERROR
    error = {
        "code": denial.status,
        "message": told(denial),
        "status": _STATUSES.get(denial.status, default),
        "details": details,
    }
    return Reply(status=denial.status, headers=headers, body=json.dumps({"error": error}).encode())


def _metadata(denial: Denial) -> dict[str, str]:
    """Names in camel case and texts: nothing else may be there."""
    told = {name: str(value) for name, value in facts(denial).items() if name != "reason"}
    return {_camel_case(name): value for name, value in told.items()}


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def _violation(limit: LimitState) -> dict[str, object]:
    window = _WINDOWS.get(limit.window_s, f"Per{limit.window_s:.15g}Seconds")
    unit = str(limit.unit)
    violation: dict[str, object] = {"quotaMetric": unit, "quotaId": unit.title().replace("_", "") + window}
    if limit.unit is not Unit.COST_USD:
        # A whole number in their types, which dollars are not.
        violation["quotaValue"] = str(limit.limit)
    return violation
