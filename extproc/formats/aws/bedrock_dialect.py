"""How Bedrock answers a denial: the error shape of AWS's REST-JSON protocol.

Floor 1, pure. Sources: Bedrock API reference, "Common errors"; botocore's parser of it; recorded errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from extproc.decision import Denial
from extproc.formats.advice import denial_headers, facts, request_id, told, waiting_helps
from extproc.formats.base import Reply

_SERVER_ERRORS = 500
_TOO_MANY_REQUESTS = 429
# Clients raise the exception of this name, and retry by it.
_EXCEPTIONS: Mapping[int, str] = MappingProxyType(
    {
        401: "AccessDeniedException",
        403: "AccessDeniedException",
        404: "ResourceNotFoundException",
        503: "ServiceUnavailableException",
    }
)


def exception_name(denial: Denial) -> str:
    """The exception that a denial stands for.

    Clients try again whatever is throttled, within seconds; of a quota they tell their caller at once.
    """
    if denial.status == _TOO_MANY_REQUESTS:
        return "ThrottlingException" if waiting_helps(denial) else "ServiceQuotaExceededException"
    is_theirs = denial.status >= _SERVER_ERRORS
    return _EXCEPTIONS.get(denial.status, "InternalServerException" if is_theirs else "ValidationException")


def error_headers(denial: Denial) -> dict[str, str]:
    """The headers in which AWS's SDKs look for an error's name and the request's id."""
    named = {"x-amzn-errortype": exception_name(denial)}
    return denial_headers(denial) | named | request_id("x-amzn-requestid", denial)


def render_denial(denial: Denial) -> Reply:
    """The reply from which AWS's SDKs raise the exception of `denial.status`."""
    body = {"message": told(denial), **facts(denial)}
    return Reply(status=denial.status, headers=error_headers(denial), body=json.dumps(body).encode())
