"""Denials in Google's dialect, and what the official SDKs make of them over a real socket."""

import json

import anthropic
import pytest
from google import genai
from google.genai import errors
from google.genai.types import HttpOptions, HttpRetryOptions

from extproc.decision import Denial, Reason, Unit
from extproc.formats import FORMATS
from tests.formats.test_denials import ID, NOW_S, RATE, denial, limit, serving

GEMINI, CLAUDE = FORMATS["gemini"], FORMATS["vertex_anthropic"]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_rate_denial_is_exact() -> None:
    reply = GEMINI.render_denial(RATE)

    assert reply.status == 429
    assert reply.headers == {
        "content-type": "application/json",
        "x-ai-policy-decision-id": ID,
        "retry-after": "46",
        "retry-after-ms": "45190",
    }
    assert json.loads(reply.body) == {
        "error": {
            "code": 429,
            "message": f"{RATE.message} (decision {ID})",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "RATE_LIMITED",
                    "domain": "ai-policy",
                    "metadata": {
                        "decisionId": ID,
                        "retryAfter": "46",
                        "unit": "tokens",
                        "limit": "200000",
                        "used": "170633",
                        "requested": "180002",
                        "reset": "2026-09-21T14:14:12Z",
                    },
                },
                {
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [
                        {"quotaMetric": "tokens", "quotaId": "TokensPerMinute", "quotaValue": "200000"}
                    ],
                },
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "46s"},
            ],
        }
    }


@pytest.mark.parametrize(
    ("status", "reason", "word"),
    [
        (400, Reason.BODY_MALFORMED, "INVALID_ARGUMENT"),
        (401, Reason.CREDENTIAL_MISSING, "UNAUTHENTICATED"),
        (403, Reason.ACCESS_DENIED, "PERMISSION_DENIED"),
        (413, Reason.BODY_TOO_LARGE, "INVALID_ARGUMENT"),
        (415, Reason.ENCODING_UNSUPPORTED, "INVALID_ARGUMENT"),
        (429, Reason.REQUEST_EXCEEDS_LIMIT, "RESOURCE_EXHAUSTED"),
        (500, Reason.POLICY_ERROR, "INTERNAL"),
        (502, Reason.POLICY_ERROR, "INTERNAL"),
        (503, Reason.STORE_UNAVAILABLE, "UNAVAILABLE"),
        (504, Reason.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    ],
)
def test_each_denial_has_the_status_of_its_dialect(status: int, reason: Reason, word: str) -> None:
    for name in ("gemini", "gemini_interactions", "vertex"):
        error = json.loads(FORMATS[name].render_denial(denial(status, reason)).body)["error"]
        assert (error["code"], error["status"]) == (status, word)
        assert error["details"][0]["reason"] == reason.upper()


@pytest.mark.parametrize(
    ("unit", "window_s", "quota"),
    [
        (Unit.REQUESTS, 60, "RequestsPerMinute"),
        (Unit.INPUT_TOKENS, 3600, "InputTokensPerHour"),
        (Unit.OUTPUT_TOKENS, 86_400, "OutputTokensPerDay"),
        (Unit.TOKENS, 90, "TokensPer90Seconds"),
        (Unit.COST_USD, 82_800, "CostUsdPerDay"),
        (Unit.COST_USD, 90_000, "CostUsdPerDay"),
        (Unit.COST_USD, 2_592_000, "CostUsdPer2592000Seconds"),
        (Unit.CONCURRENT_REQUESTS, 0, "ConcurrentRequests"),
    ],
)
def test_a_quota_is_named_by_its_unit_and_window(unit: Unit, window_s: float, quota: str) -> None:
    told = denial(429, Reason.RATE_LIMITED, limit=limit(unit, window_s=window_s))
    details = json.loads(GEMINI.render_denial(told).body)["error"]["details"]

    assert details[1]["violations"][0]["quotaId"] == quota


def test_a_quota_of_money_has_no_number_that_could_be_taken_for_dollars() -> None:
    told = denial(429, Reason.CAP_REACHED, limit=limit(Unit.COST_USD))
    violation = json.loads(GEMINI.render_denial(told).body)["error"]["details"][1]["violations"][0]

    assert violation.keys() == {"quotaMetric", "quotaId"}


def test_waiting_that_does_not_help_is_not_advised() -> None:
    body = GEMINI.render_denial(denial(403, Reason.ACCESS_DENIED)).body

    assert b"RetryInfo" not in body


def test_no_limit_headers_are_documented_so_there_are_none() -> None:
    assert GEMINI.limit_headers((limit(),), NOW_S) == {}


@pytest.mark.parametrize(
    ("told", "exception", "requests"),
    [
        (denial(400, Reason.BODY_MALFORMED), errors.ClientError, 1),
        (denial(401, Reason.CREDENTIAL_MISSING), errors.ClientError, 1),
        (denial(403, Reason.ACCESS_DENIED), errors.ClientError, 1),
        (denial(429, Reason.RATE_LIMITED, retry_after_ms=5), errors.ClientError, 3),
        (denial(503, Reason.STORE_UNAVAILABLE), errors.ServerError, 3),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_google_sdk_raises_its_own_error_and_retries_where_it_is_set_to(
    *, told: Denial, exception: type[errors.APIError], requests: int, is_streamed: bool
) -> None:
    reply = GEMINI.render_denial(told)
    retry = HttpRetryOptions(attempts=3, initial_delay=0.001, max_delay=0.002)
    with serving(reply) as (address, asked):
        options = HttpOptions(base_url=address, retry_options=retry)
        client = genai.Client(api_key="k", vertexai=False, http_options=options)
        ask = client.models.generate_content_stream if is_streamed else client.models.generate_content
        with pytest.raises(exception) as caught:
            list(ask(model="gemini-2.5-flash", contents="hi"))
        client.close()

    assert (caught.value.code, caught.value.message) == (told.status, f"No. (decision {ID})")
    assert caught.value.status == json.loads(reply.body)["error"]["status"]
    assert len(asked) == requests


def test_the_anthropic_sdk_on_vertex_raises_its_own_exception() -> None:
    with (
        serving(CLAUDE.render_denial(denial(429, Reason.RATE_LIMITED, retry_after_ms=5))) as (address, asked),
        anthropic.AnthropicVertex(
            base_url=f"{address}/v1", region="us-east5", project_id="p", access_token="t", max_retries=1
        ) as client,
        pytest.raises(anthropic.RateLimitError) as caught,
    ):
        client.messages.create(
            model="claude-haiku-4-5", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        )

    assert f"(decision {ID})" in str(caught.value)
    assert (
        asked
        == ["/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-haiku-4-5:rawPredict"] * 2
    )
