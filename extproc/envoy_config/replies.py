"""What Envoy itself tells a caller where the sidecar could not: a table of reasons by dialects.

The dialects are those of `formats`, so that Envoy and the sidecar speak alike. `expression` is CEL over
Envoy's attributes; the first line that holds answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from extproc.decision import Denial, Reason
from extproc.formats import FORMATS

DECISION_ID = "%DYNAMIC_METADATA(ai_policy:decision_id)%"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReply:
    """One reason for an answer of Envoy's own, recognised by its response code details."""

    why: str
    expression: str
    status: int
    code: str
    message: str
    retry_after_ms: int | None = None  # None: trying again does not help
    is_decided: bool = False  # the sidecar had its say before, so there is a decision to name


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """Whose words a path is answered in: those of the `formats` with this name."""

    name: str
    expression: str  # empty: every other path


NO_UPGRADE = "WebSockets and other upgrades are not served here."
TWO_READINGS = (
    "This path can be read in two ways. Send it without escaped slashes, backslashes and semicolons."
)

# The sidecar's own answers match this, and pass as they are: none of the lines below is looked at.
OURS = 'response.code_details.startsWith("ai_policy_")'

LOCAL_REPLIES = (
    LocalReply(
        why="The sidecar is down, slow or broken: one status, also for its time-out, and retrying is right.",
        expression=(
            'response.code_details.startsWith("ext_proc_") ||'
            ' response.code_details.startsWith("header_mutation_")'
        ),
        status=503,
        retry_after_ms=1000,
        code="policy_unavailable",
        message="The AI policy service did not answer. Please try again.",
    ),
    LocalReply(
        why="A body that grew past the route's limit without saying so in content-length.",
        expression='response.code_details == "request_payload_too_large"',
        status=413,
        code="request_too_large",
        message="The request body is larger than this gateway takes.",
    ),
    LocalReply(
        why="A caller that sends its request more slowly than this gateway waits.",
        expression=(
            'response.code_details == "request_overall_timeout" ||'
            ' (response.code_details == "stream_idle_timeout" && response.code == 408)'
        ),
        status=408,
        retry_after_ms=1000,
        code="request_timeout",
        message="The request did not arrive in time. Please try again.",
    ),
    LocalReply(
        why="Envoy's own filter refused the caller's token; the sidecar never saw the request.",
        expression='response.code_details.startsWith("jwt_authn_access_denied")',
        status=401,
        code="invalid_token",
        message="The token of this request is missing, expired or not one of this gateway's.",
    ),
    LocalReply(
        why="No key for the provider: the operator's fault, and a 401 would blame the caller's key.",
        expression='response.code_details == "failed_to_inject_credential"',
        status=503,
        code="provider_key_missing",
        message="This gateway has no key for the provider. Its operator must set one.",
        is_decided=True,
    ),
    LocalReply(
        why="Refused before any route, as long as this listener allows no upgrade; else by the route.",
        expression=(
            'response.code_details == "upgrade_failed" ||'
            ' (response.code_details == "direct_response" && xds.route_name == "no_upgrade")'
        ),
        status=400,
        code="upgrade_not_supported",
        message=NO_UPGRADE,
    ),
    LocalReply(
        why="A path that the next server may read as another one.",
        expression='response.code_details == "direct_response" && xds.route_name == "two_readings"',
        status=400,
        code="path_ambiguous",
        message=TWO_READINGS,
    ),
    LocalReply(
        why="The provider was asked and said nothing for as long as this gateway waits.",
        expression=(
            'response.code_details in ["stream_idle_timeout", "upstream_response_timeout",'
            ' "upstream_per_try_timeout", "upstream_max_stream_duration_reached"]'
        ),
        status=504,
        retry_after_ms=1000,
        code="provider_timeout",
        message="The provider did not answer in time. Please try again.",
        is_decided=True,
    ),
    LocalReply(
        why="The provider was not reached, or broke off before it answered.",
        expression=(
            'response.code_details.startsWith("upstream_") ||'
            ' response.code_details in ["no_healthy_upstream", "cluster_not_found"]'
        ),
        status=503,
        retry_after_ms=1000,
        code="provider_unavailable",
        message="The provider could not be reached or did not answer. Please try again.",
        is_decided=True,
    ),
)


def _below(*prefixes: str) -> str:
    return " || ".join(f'request.url_path.startsWith("{prefix}")' for prefix in prefixes)


def _one_of(*paths: str) -> str:
    return f"request.url_path in {json.dumps(paths)}"


def _matches(pattern: str) -> str:
    # Envoy takes no long expression.
    return f"request.url_path.matches({json.dumps(pattern)})"


def _models_asked_with(header: str) -> str:
    """Three vendors list models at one path; who sends this header asks its vendor."""
    return f'({_below("/v1/models")} && "{header}" in request.headers)'


# OpenAI's API is at other vendors' base paths too.
_NOT_OPENAI = f"!({_below('/v1beta/openai/', '/api/v1/')} || {_matches('/endpoints/openapi/')})"
_COHERE_V1 = ("chat", "generate", "summarize", "embed", "classify", "tokenize", "detokenize")
_OTHERS = ("/model/", "/guardrail/", "/async-invoke/", "/endpoints/", "/v2/", "/cohere/", "/api/")
_MODEL_SERVERS = ("/generate", "/generate_stream")

DIALECTS = (
    Dialect(
        name="anthropic_messages",
        expression=" || ".join(
            (
                _below("/v1/messages"),
                _one_of("/v1/complete"),
                _matches("/publishers/anthropic/"),
                _models_asked_with("anthropic-version"),
            )
        ),
    ),
    Dialect(
        name="gemini",
        expression=(
            f"({_below('/upload/v1', '/v1beta', '/v1alpha', '/v1/projects/', '/v1/publishers/')} ||"
            f" {_models_asked_with('x-goog-api-key')} ||"
            f" {_matches('^/v1/(models|tunedModels)/[^/]+(:|%3[Aa])[a-z]+[A-Z]')}) && {_NOT_OPENAI}"
        ),
    ),
    Dialect(name="mcp", expression=f"{_one_of('/mcp')} || {_below('/mcp/')}"),
    # AWS, Cohere, Ollama and servers of open models: one body has the members that their clients look for.
    Dialect(
        name="tgi",
        expression=(
            f"({_below(*_OTHERS)} ||"
            f" {_one_of(*_MODEL_SERVERS, *(f'/v1/{name}' for name in _COHERE_V1))}) && {_NOT_OPENAI}"
        ),
    ),
    Dialect(name="openai_chat", expression=""),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapper:
    """One line of Envoy's table."""

    expression: str
    status: int
    headers: dict[str, str]
    body: str  # JSON, with Envoy's own words for what only it knows


def mappers(reply: LocalReply) -> Iterator[Mapper]:
    """One line for each dialect; the last one is for every path that no other line names."""
    denial = Denial(
        status=reply.status,
        # Never a verdict of ours, so it is no `Reason`; dialects write whatever word is there.
        reason=cast("Reason", reply.code),
        message=reply.message,
        decision_id=DECISION_ID if reply.is_decided else "",
        retry_after_ms=reply.retry_after_ms,
    )
    for dialect in DIALECTS:
        told = FORMATS[dialect.name].render_denial(denial)
        yield Mapper(
            expression=" && ".join(f"({each})" for each in (reply.expression, dialect.expression) if each),
            status=told.status,
            headers={name: value for name, value in told.headers.items() if name != "content-type"},
            body=told.body.decode(),
        )


def error_body(code: str, message: str, *, type_: str) -> str:
    """A direct response's JSON body, in words that OpenAI's and Anthropic's clients both parse."""
    error: dict[str, Any] = {"type": type_, "code": code, "message": message}
    return json.dumps({"type": "error", "error": error})


NO_UPGRADE_BODY = error_body("upgrade_not_supported", NO_UPGRADE, type_="invalid_request_error")
TWO_READINGS_BODY = error_body("path_ambiguous", TWO_READINGS, type_="invalid_request_error")
NOT_AI_BODY = error_body(
    "not_found",
    "This gateway serves AI APIs at their providers' own paths, such as /v1/ and /v1beta/, and nothing else.",
    type_="not_found_error",
)
QUESTIONS_BODY = error_body(
    "questions_unanswered",
    "This gateway's AI policy service answers no questions at the moment. Please try again.",
    type_="api_error",
)
