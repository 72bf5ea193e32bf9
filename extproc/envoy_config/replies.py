"""What Envoy itself tells a caller where the sidecar could not: a table of bodies both SDK families parse.

`expression` is CEL over Envoy's attributes; the first one that holds answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReply:
    """One answer of Envoy's own, recognised by its response code details."""

    why: str
    expression: str
    type: str
    code: str
    message: str
    status: int | None = None  # None keeps Envoy's
    retry_after_s: int | None = None


NO_UPGRADE = "WebSockets and other upgrades are not served here."

LOCAL_REPLIES = (
    LocalReply(
        why="The sidecar is down, slow or broken: one status, also for its time-out, and retrying is right.",
        expression=(
            'response.code_details.startsWith("ext_proc_") ||'
            ' response.code_details.startsWith("header_mutation_")'
        ),
        status=503,
        retry_after_s=1,
        type="api_error",
        code="policy_unavailable",
        message="The AI policy service did not answer. Please try again.",
    ),
    LocalReply(
        why="A body that grew past the route's limit without saying so in content-length.",
        expression='response.code_details == "request_payload_too_large"',
        type="invalid_request_error",
        code="request_too_large",
        message="The request body is larger than this gateway takes.",
    ),
    LocalReply(
        why="Envoy's own filter refused the caller's token; the sidecar never saw the request.",
        expression='response.code_details.startsWith("jwt_authn_access_denied")',
        type="authentication_error",
        code="invalid_token",
        message="The token of this request is missing, expired or not one of this gateway's.",
    ),
    LocalReply(
        why="No key for the provider: the operator's fault, and a 401 would blame the caller's key.",
        expression='response.code_details == "failed_to_inject_credential"',
        status=503,
        type="api_error",
        code="provider_key_missing",
        message="This gateway has no key for the provider. Its operator must set one.",
    ),
    LocalReply(
        why="Refused before any route, as long as this listener allows no upgrade.",
        expression='response.code_details == "upgrade_failed"',
        status=400,
        type="invalid_request_error",
        code="upgrade_not_supported",
        message=NO_UPGRADE,
    ),
    LocalReply(
        why="The provider was not reached, or broke off before it answered.",
        expression=(
            'response.code_details.startsWith("upstream_") || response.code_details == "no_healthy_upstream"'
        ),
        retry_after_s=1,
        type="api_error",
        code="provider_unavailable",
        message="The provider could not be reached or did not answer. Please try again.",
    ),
)


def error_body(type_: str, code: str, message: str) -> str:
    """A direct response's JSON body, in the words both SDK families parse."""
    return json.dumps({"type": "error", "error": {"type": type_, "code": code, "message": message}})


NO_UPGRADE_BODY = error_body("invalid_request_error", "upgrade_not_supported", NO_UPGRADE)
NOT_AI_BODY = error_body(
    "not_found_error",
    "not_found",
    "This gateway serves AI APIs at their providers' own paths, such as /v1/ and /v1beta/, and nothing else.",
)
TWO_READINGS_BODY = error_body(
    "invalid_request_error",
    "path_ambiguous",
    "This path can be read in two ways. Send it without escaped slashes, backslashes and semicolons.",
)
QUESTIONS_BODY = error_body(
    "api_error",
    "questions_unanswered",
    "This gateway's AI policy service answers no questions at the moment. Please try again.",
)
