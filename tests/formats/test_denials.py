"""Denials and limit headers, and what the official SDKs make of them over a real socket."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Denial, LimitState, Reason, Unit
from extproc.formats import FORMATS
from extproc.formats.advice import duration, moment
from extproc.formats.base import Reply

CHAT, MESSAGES = FORMATS["openai_chat"], FORMATS["anthropic_messages"]
NOW_S = 1_790_000_000  # 2026-09-21T14:13:20Z
ID = "d-01HZX"


def limit(unit: Unit = Unit.TOKENS, **changes: Any) -> LimitState:
    state: dict[str, Any] = {
        "unit": unit,
        "limit": 200_000,
        "window_s": 60,
        "used": 170_633,
        "requested": 180_002,
        "reserved": 0,
        "remaining": 29_367,
        "reset_ms": 51_189,
    }
    return LimitState(**(state | changes))


def denial(status: int, reason: Reason, **changes: Any) -> Denial:
    told: dict[str, Any] = {"message": "No.", "decision_id": ID, "at_ns": NOW_S * 10**9}
    return Denial(status=status, reason=reason, **(told | changes))


RATE = denial(
    429,
    Reason.RATE_LIMITED,
    message="Limit 200000, used 170633, requested 180002. Please try again in 45.19s.",
    retry_after_ms=45_190,
    limit=limit(),
)


def test_an_openai_rate_denial_is_exact() -> None:
    reply = CHAT.render_denial(RATE)

    assert reply.status == 429
    assert reply.headers == {
        "content-type": "application/json",
        "x-ai-policy-decision-id": ID,
        "x-request-id": ID,
        "retry-after": "46",
        "retry-after-ms": "45190",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "29367",
        "x-ratelimit-reset-tokens": "51.189s",
    }
    assert json.loads(reply.body) == {
        "error": {
            "message": f"{RATE.message} (decision {ID})",
            "type": "tokens",
            "param": None,
            "code": "rate_limit_exceeded",
            "reason": "rate_limited",
            "decision_id": ID,
            "retry_after": 46,
            "unit": "tokens",
            "limit": 200_000,
            "used": 170_633,
            "requested": 180_002,
            "reset": "2026-09-21T14:14:12Z",
        }
    }


def test_an_anthropic_rate_denial_is_exact() -> None:
    reply = MESSAGES.render_denial(RATE)

    assert reply.status == 429
    assert reply.headers == {
        "content-type": "application/json",
        "x-ai-policy-decision-id": ID,
        "request-id": ID,
        "retry-after": "46",
        "retry-after-ms": "45190",
        "anthropic-ratelimit-tokens-limit": "200000",
        "anthropic-ratelimit-tokens-remaining": "29367",
        "anthropic-ratelimit-tokens-reset": "2026-09-21T14:14:12Z",
    }
    assert json.loads(reply.body) == {
        "type": "error",
        "error": {
            "type": "rate_limit_error",
            "message": f"{RATE.message} (decision {ID})",
            "reason": "rate_limited",
            "decision_id": ID,
            "retry_after": 46,
            "unit": "tokens",
            "limit": 200_000,
            "used": 170_633,
            "requested": 180_002,
            "reset": "2026-09-21T14:14:12Z",
        },
        "request_id": ID,
    }


def test_a_denial_without_its_time_shows_no_absolute_reset() -> None:
    reply = MESSAGES.render_denial(denial(429, Reason.RATE_LIMITED, limit=limit(), at_ns=0))

    assert "anthropic-ratelimit-tokens-limit" in reply.headers
    assert "anthropic-ratelimit-tokens-reset" not in reply.headers


@pytest.mark.parametrize(
    ("status", "reason", "openai_words", "anthropic_type"),
    [
        (400, Reason.BODY_MALFORMED, ("invalid_request_error", "body_malformed"), "invalid_request_error"),
        (
            401,
            Reason.CREDENTIAL_MISSING,
            ("invalid_request_error", "invalid_api_key"),
            "authentication_error",
        ),
        (
            401,
            Reason.CREDENTIAL_EXPIRED,
            ("invalid_request_error", "invalid_api_key"),
            "authentication_error",
        ),
        (403, Reason.ACCESS_DENIED, ("permission_error", "access_denied"), "permission_error"),
        (413, Reason.BODY_TOO_LARGE, ("invalid_request_error", "body_too_large"), "request_too_large"),
        (
            413,
            Reason.REQUEST_EXCEEDS_LIMIT,
            ("invalid_request_error", "request_exceeds_limit"),
            "request_too_large",
        ),
        (
            415,
            Reason.ENCODING_UNSUPPORTED,
            ("invalid_request_error", "encoding_unsupported"),
            "invalid_request_error",
        ),
        (429, Reason.RATE_LIMITED, ("tokens", "rate_limit_exceeded"), "rate_limit_error"),
        (500, Reason.POLICY_ERROR, ("server_error", "policy_error"), "api_error"),
        (503, Reason.STORE_UNAVAILABLE, ("server_error", "store_unavailable"), "overloaded_error"),
        (504, Reason.DEADLINE_EXCEEDED, ("server_error", "deadline_exceeded"), "api_error"),
    ],
)
def test_each_denial_has_the_words_of_its_dialect(
    status: int, reason: Reason, openai_words: tuple[str, str], anthropic_type: str
) -> None:
    told = denial(status, reason)
    ours = json.loads(CHAT.render_denial(told).body)["error"]
    theirs = json.loads(MESSAGES.render_denial(told).body)["error"]

    assert (ours["type"], ours["code"]) == openai_words
    assert theirs["type"] == anthropic_type
    assert ours["reason"] == theirs["reason"] == str(reason)


def test_a_denial_by_requests_says_so() -> None:
    reply = CHAT.render_denial(denial(429, Reason.RATE_LIMITED, limit=limit(Unit.REQUESTS)))

    assert json.loads(reply.body)["error"]["type"] == "requests"
    assert "x-ratelimit-limit-requests" in reply.headers


@pytest.mark.parametrize(
    ("retry_after_ms", "headers"),
    [
        (None, (None, None, "false")),
        (0, ("1", "1", None)),
        (1, ("1", "1", None)),
        (1000, ("1", "1000", None)),
        (1001, ("2", "1001", None)),
        (60_000, ("60", "60000", None)),
        (60_001, ("61", "60001", "false")),
        (2_592_000_000, ("2592000", "2592000000", "false")),
    ],
)
def test_clients_are_told_when_to_come_back_or_not_to(
    retry_after_ms: int | None, headers: tuple[str | None, str | None, str | None]
) -> None:
    for wire_format in FORMATS.values():
        told = wire_format.render_denial(
            denial(429, Reason.RATE_LIMITED, retry_after_ms=retry_after_ms)
        ).headers
        assert (told.get("retry-after"), told.get("retry-after-ms"), told.get("x-should-retry")) == headers


def strings(value: Any) -> Iterator[str]:
    """Every string of a JSON body: dialects keep their message in different places."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


@given(st.text(), st.text(min_size=1))
def test_any_text_makes_a_reply_that_http_and_json_can_carry(message: str, decision_id: str) -> None:
    for wire_format in FORMATS.values():
        reply = wire_format.render_denial(
            denial(403, Reason.ACCESS_DENIED, message=message, decision_id=decision_id)
        )
        assert reply.body.isascii()
        assert f"{message} (decision {decision_id})" in strings(json.loads(reply.body))
        assert all(name == name.lower() for name in reply.headers)
        assert all(value.isascii() and value.isprintable() for value in reply.headers.values())


def test_the_tightest_limit_of_each_unit_wins() -> None:
    limits = (
        limit(Unit.TOKENS, limit=1000, remaining=900, reset_ms=1000),
        limit(Unit.TOKENS, limit=100_000, remaining=10, reset_ms=360_000),
        limit(Unit.OUTPUT_TOKENS, limit=50, remaining=25, reset_ms=12),
        limit(Unit.REQUESTS, limit=60, remaining=-3, reset_ms=59_500),
    )

    assert CHAT.limit_headers(limits, NOW_S) == {
        "x-ratelimit-limit-tokens": "100000",
        "x-ratelimit-remaining-tokens": "10",
        "x-ratelimit-reset-tokens": "6m0s",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "59.5s",
    }
    assert MESSAGES.limit_headers(limits, NOW_S) == {
        "anthropic-ratelimit-tokens-limit": "100000",
        "anthropic-ratelimit-tokens-remaining": "10",
        "anthropic-ratelimit-tokens-reset": "2026-09-21T14:19:20Z",
        "anthropic-ratelimit-output-tokens-limit": "50",
        "anthropic-ratelimit-output-tokens-remaining": "25",
        "anthropic-ratelimit-output-tokens-reset": "2026-09-21T14:13:21Z",
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-09-21T14:14:20Z",
    }


@pytest.mark.parametrize("unit", [Unit.COST_USD, Unit.CONCURRENT_REQUESTS])
def test_what_no_dialect_has_a_name_for_has_no_header(unit: Unit) -> None:
    nameless = limit(unit, remaining=0, window_s=0)

    for wire_format in FORMATS.values():
        assert not wire_format.limit_headers((nameless,), NOW_S)
        assert wire_format.limit_headers((nameless, limit()), NOW_S) == wire_format.limit_headers(
            (limit(),), NOW_S
        )


@pytest.mark.parametrize("window_s", [0, 60, 2_678_400])
@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("reason", [Reason.RATE_LIMITED, Reason.CAP_REACHED, Reason.CONCURRENCY_LIMITED])
def test_a_denial_by_any_unit_is_told_in_every_dialect(reason: Reason, unit: Unit, window_s: float) -> None:
    told = denial(429, reason, limit=limit(unit, window_s=window_s), retry_after_ms=1000)
    for wire_format in FORMATS.values():
        reply = wire_format.render_denial(told)
        assert reply.status == 429
        assert f"No. (decision {ID})" in strings(json.loads(reply.body))


@pytest.mark.parametrize(
    ("reason", "unit", "retry_after_ms", "words"),
    [
        (Reason.CAP_REACHED, Unit.COST_USD, 864_000_000, ("insufficient_quota", "insufficient_quota")),
        (Reason.CAP_REACHED, Unit.COST_USD, 5_000, ("tokens", "rate_limit_exceeded")),
        (Reason.RATE_LIMITED, Unit.COST_USD, 864_000_000, ("tokens", "rate_limit_exceeded")),
        (Reason.CONCURRENCY_LIMITED, Unit.CONCURRENT_REQUESTS, 1_000, ("requests", "rate_limit_exceeded")),
    ],
)
def test_openai_clients_tell_a_budget_that_is_used_up_from_a_rate(
    reason: Reason, unit: Unit, retry_after_ms: int, words: tuple[str, str]
) -> None:
    told = denial(429, reason, limit=limit(unit), retry_after_ms=retry_after_ms)
    error = json.loads(CHAT.render_denial(told).body)["error"]

    assert (error["type"], error["code"], error["reason"]) == (*words, str(reason))


def test_no_limit_is_no_header() -> None:
    assert all(not wire_format.limit_headers((), NOW_S) for wire_format in FORMATS.values())


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0ms"),
        (-5, "0ms"),
        (12, "12ms"),
        (999, "999ms"),
        (1000, "1s"),
        (51_189, "51.189s"),
        (360_000, "6m0s"),
        (61_500, "1m1.5s"),
        (3_600_000, "1h0m0s"),
        (90_061_001, "25h1m1.001s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(ms: int, text: str) -> None:
    assert duration(ms) == text


def test_a_reset_beyond_the_calendar_is_its_last_second() -> None:
    assert moment(NOW_S, 10**18) == "9999-12-31T23:59:59Z"


@contextmanager
def serving(reply: Reply) -> Iterator[tuple[str, list[str]]]:
    """A real server that answers everything with `reply`; yields its address and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_args: object) -> None:
            """A test's output is not the place for an access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


SDK_DENIALS = [
    (denial(401, Reason.CREDENTIAL_MISSING), "AuthenticationError", 1),
    (denial(403, Reason.ACCESS_DENIED), "PermissionDeniedError", 1),
    (denial(400, Reason.BODY_MALFORMED), "BadRequestError", 1),
    (denial(429, Reason.RATE_LIMITED, retry_after_ms=5), "RateLimitError", 3),
    (denial(429, Reason.RATE_LIMITED, retry_after_ms=86_400_000), "RateLimitError", 1),
    (denial(429, Reason.REQUEST_EXCEEDS_LIMIT), "RateLimitError", 1),
    (
        denial(429, Reason.CAP_REACHED, retry_after_ms=864_000_000, limit=limit(Unit.COST_USD)),
        "RateLimitError",
        1,
    ),
    (
        denial(429, Reason.CONCURRENCY_LIMITED, retry_after_ms=5, limit=limit(Unit.CONCURRENT_REQUESTS)),
        "RateLimitError",
        3,
    ),
    (denial(503, Reason.STORE_UNAVAILABLE), "InternalServerError", 1),
]


@pytest.mark.parametrize(("told", "exception", "requests"), SDK_DENIALS)
def test_the_openai_sdk_raises_its_own_exception_and_retries_as_told(
    told: Denial, exception: str, requests: int
) -> None:
    with (
        serving(CHAT.render_denial(told)) as (address, asked),
        openai.OpenAI(base_url=f"{address}/v1", api_key="sk-test", max_retries=2) as client,
        pytest.raises(getattr(openai, exception)) as caught,
    ):
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])

    assert isinstance(caught.value, openai.APIStatusError)
    assert caught.value.request_id == ID
    assert f"(decision {ID})" in caught.value.message
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["reason"] == str(told.reason)
    assert len(asked) == requests


OPENAI_CALLS: dict[str, Callable[[openai.OpenAI], object]] = {
    "openai_completions": lambda client: client.completions.create(model="babbage-002", prompt="hi"),
    "openai_responses": lambda client: client.responses.create(model="gpt-5", input="hi"),
    "openai_embeddings": lambda client: client.embeddings.create(model="text-embedding-3-small", input="hi"),
    "openai_moderations": lambda client: client.moderations.create(input="hi"),
    "openai_assistants": lambda client: client.post("/threads/runs", cast_to=object, body={}),
}


@pytest.mark.parametrize("provider", ["openai", "azure.ai.openai", "openrouter", "mistral_ai"])
@pytest.mark.parametrize("api", OPENAI_CALLS)
def test_the_openai_sdk_raises_its_own_exception_whatever_the_call_and_the_vendor(
    api: str, provider: str
) -> None:
    told = denial(429, Reason.RATE_LIMITED, retry_after_ms=5)
    with (
        serving(FORMATS[api].render_denial(told, provider)) as (address, asked),
        openai.OpenAI(base_url=f"{address}/v1", api_key="sk-test", max_retries=1) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        OPENAI_CALLS[api](client)

    assert f"(decision {ID})" in caught.value.message
    assert len(asked) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_denied_stream_of_responses_raises_like_any_other(*, stream: bool) -> None:
    told = denial(403, Reason.ACCESS_DENIED)
    with (
        serving(FORMATS["openai_responses"].render_denial(told)) as (address, asked),
        openai.OpenAI(base_url=f"{address}/v1", api_key="sk-test") as client,
        pytest.raises(openai.PermissionDeniedError) as caught,
    ):
        client.responses.create(model="gpt-5", input="hi", stream=stream)

    assert caught.value.code == "access_denied"
    assert len(asked) == 1


def test_openrouter_writes_the_status_where_openai_writes_a_word() -> None:
    reply = CHAT.render_denial(RATE, "openrouter")

    assert json.loads(reply.body) == {
        "error": {
            "code": 429,
            "message": f"{RATE.message} (decision {ID})",
            "metadata": {
                "type": "tokens",
                "param": None,
                "code": "rate_limit_exceeded",
                "reason": "rate_limited",
                "decision_id": ID,
                "retry_after": 46,
                "unit": "tokens",
                "limit": 200_000,
                "used": 170_633,
                "requested": 180_002,
                "reset": "2026-09-21T14:14:12Z",
            },
        },
        "user_id": None,
    }
    assert reply.headers == CHAT.render_denial(RATE).headers


def test_mistrals_error_is_the_body_itself() -> None:
    body = json.loads(CHAT.render_denial(RATE, "mistral_ai").body)

    assert body == {"object": "error", **json.loads(CHAT.render_denial(RATE).body)["error"]}


def test_azure_counts_resets_in_whole_seconds() -> None:
    ours, azures = CHAT.render_denial(RATE), CHAT.render_denial(RATE, "azure.ai.openai")

    assert ours.headers["x-ratelimit-reset-tokens"] == "51.189s"
    assert azures.headers["x-ratelimit-reset-tokens"] == "52"
    assert azures.body == ours.body
    assert CHAT.limit_headers((limit(),), NOW_S)["x-ratelimit-reset-tokens"] == "51.189s"
    assert CHAT.limit_headers((limit(),), NOW_S, "azure.ai.openai")["x-ratelimit-reset-tokens"] == "52"


@pytest.mark.parametrize(("told", "exception", "requests"), SDK_DENIALS)
def test_the_anthropic_sdk_raises_its_own_exception_and_retries_as_told(
    told: Denial, exception: str, requests: int
) -> None:
    with (
        serving(MESSAGES.render_denial(told)) as (address, asked),
        anthropic.Anthropic(base_url=address, api_key="sk-test", max_retries=2) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        client.messages.create(
            model="claude-haiku-4-5", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        )

    assert exception in {each.__name__ for each in type(caught.value).__mro__}
    assert caught.value.request_id == ID
    assert f"(decision {ID})" in str(caught.value)
    assert len(asked) == requests
