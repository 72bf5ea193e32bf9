"""What the official SDKs do of themselves when they are denied: how often they ask, and what they raise.

All three ask at once, each on a route of its own; Envoy's access log counts what they asked.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest
from google import genai
from google.genai import errors
from google.genai.types import HttpOptions, HttpRetryOptions

from tests.e2e.stack import Stack
from tests.servers.redis import RedisServer

POLICIES = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec: {access: allow, maxBodyBytes: 100000}
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: not-for-you}
spec: {effect: deny, match: request.model.endsWith("-denied")}
---
apiVersion: ai-policy/v1
kind: RequestCap
metadata: {name: short-prompts}
spec: {match: request.model.endsWith("-large"), inputTokens: 1}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: one-in-two-seconds}
spec:
  match: request.model.endsWith("-short")
  key: [request.model]
  limit: {requests: 1, per: 2s, burst: 1}
---
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {name: one-in-thirty-days}
spec:
  match: request.model.endsWith("-spent")
  key: [request.model]
  limit: {requests: 1}
  rolling: 30d
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: never-uncounted}
spec:
  match: request.model.endsWith("-counted")
  limit: {requests: 1000, per: 1m}
  onError: deny
"""


HELLO = [{"role": "user", "content": "Say hello."}]
# Google's SDK retries where it is told to and reads no header: this is longer than the short window.
PATIENCE_S = 2.5


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one call, with the SDK's own retries."""

    error: Any  # what its user catches; None: it was answered
    statuses: list[int]  # of every request that Envoy saw, in order
    told_ms: list[int]  # what each answer said about coming back
    slept_ms: list[int]  # what the SDK made of that

    @property
    def decision(self) -> str:
        """The decision of the last answer, by its header."""
        return str(self.error.response.headers["x-ai-policy-decision-id"])


class Sleeps(logging.Handler):
    """How long SDKs say that they wait before they ask again."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.slept_ms: defaultdict[str, list[int]] = defaultdict(list)

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("Retrying request") and isinstance(record.args, tuple):
            (seconds,) = (each for each in record.args if isinstance(each, float))
            self.slept_ms[record.name.partition(".")[0]].append(round(seconds * 1000))


Hooks = dict[str, list[Callable[[httpx.Response], None]]]


def ask_openai(url: str, model: str, hooks: Hooks) -> None:
    http = openai.DefaultHttpxClient(event_hooks=hooks)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=1, http_client=http) as client:
        untyped: Any = client
        untyped.chat.completions.create(model=model, messages=HELLO)


def ask_anthropic(url: str, model: str, hooks: Hooks) -> None:
    http = anthropic.DefaultHttpxClient(event_hooks=hooks)
    with anthropic.Anthropic(base_url=url, api_key="k", max_retries=1, http_client=http) as client:
        untyped: Any = client
        untyped.messages.create(model=model, max_tokens=9, messages=HELLO)


def ask_google(url: str, model: str, _: Hooks) -> None:
    delay_s = PATIENCE_S if model.endswith("-short") else 0.01
    retry = HttpRetryOptions(attempts=2, initial_delay=delay_s, max_delay=delay_s)
    options = HttpOptions(base_url=url, retry_options=retry)
    with genai.Client(api_key="k", vertexai=False, http_options=options) as client:
        client.models.generate_content(model=model, contents="Say hello.")


SDKS: dict[str, Callable[[str, str, Hooks], None]] = {
    "openai": ask_openai,
    "anthropic": ask_anthropic,
    "google": ask_google,
}
ROUTES = {"openai": "openai_chat", "anthropic": "anthropic_messages", "google": "gemini_v1"}


@dataclass(slots=True)
class Gate:
    """A whole stack on a Redis, and the three SDKs before it."""

    stack: Stack
    redis: RedisServer
    sleeps: Sleeps

    def ask(self, kind: str, requests: Mapping[str, int]) -> dict[str, Asked]:
        """Each SDK once, for its model of this kind; `requests` is how many Envoy must see of each."""
        seen = len(self.stack.access_log(0))
        self.sleeps.slept_ms.clear()
        with ThreadPoolExecutor(len(SDKS)) as threads:
            errors_and_waits = list(threads.map(lambda sdk: self._call(sdk, kind), SDKS))
        entries = self.stack.access_log(seen + sum(requests.values()))[seen:]
        return {
            sdk: Asked(
                error=error,
                statuses=[entry["status"] for entry in entries if entry["route"] == ROUTES[sdk]],
                told_ms=told_ms,
                slept_ms=self.sleeps.slept_ms[sdk],
            )
            for sdk, (error, told_ms) in zip(SDKS, errors_and_waits, strict=True)
        }

    def _call(self, sdk: str, kind: str) -> tuple[Exception | None, list[int]]:
        told_ms: list[int] = []

        def heard(answer: httpx.Response) -> None:
            if "retry-after-ms" in answer.headers:
                told_ms.append(int(answer.headers["retry-after-ms"]))

        try:
            SDKS[sdk](self.stack.gateway_url, f"{sdk}-{kind}", {"response": [heard]})
        except (openai.APIError, anthropic.APIError, errors.APIError) as raised:
            return raised, told_ms
        return None, told_ms


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    sleeps = Sleeps()
    loggers = [logging.getLogger(f"{name}._base_client") for name in ("openai", "anthropic")]
    for logger in loggers:
        logger.addHandler(sleeps)
        logger.setLevel(logging.INFO)
    folder = tmp_path_factory.mktemp("retries")
    with RedisServer() as redis:
        # A busy machine.
        environment = {"EXTPROC_STORE": redis.url, "EXTPROC_STORE_TIMEOUT_MS": "500"}
        with Stack(folder, policies={"all.yaml": POLICIES}, environment=environment) as stack:
            yield Gate(stack, redis, sleeps)
    for logger in loggers:
        logger.removeHandler(sleeps)
        logger.setLevel(logging.NOTSET)


def times(number: int, **others: int) -> dict[str, int]:
    """How often each SDK asks."""
    return dict.fromkeys(SDKS, number) | others


def test_a_short_limit_is_waited_for_as_long_as_it_says_and_then_answered(gate: Gate) -> None:
    gate.ask("short", times(1))
    asked = gate.ask("short", times(2))

    assert [(each.error, each.statuses) for each in asked.values()] == [(None, [429, 200])] * len(SDKS)
    for sdk in ("openai", "anthropic"):
        assert len(asked[sdk].told_ms) == 1
        assert asked[sdk].slept_ms == asked[sdk].told_ms


def test_a_budget_that_is_used_up_is_not_asked_for_again(gate: Gate) -> None:
    """Google's SDK obeys its user's options alone: no header and no body keeps it from asking."""
    gate.ask("spent", times(1))
    asked = gate.ask("spent", times(1, google=2))

    assert asked["openai"].statuses == asked["anthropic"].statuses == [429]
    assert asked["google"].statuses == [429, 429]
    spent = asked["openai"]
    assert isinstance(spent.error, openai.RateLimitError)
    assert (spent.error.code, spent.error.type) == ("insufficient_quota", "insufficient_quota")
    assert spent.error.request_id == spent.decision
    assert isinstance(spent.error.body, dict)
    numbers = [spent.error.body[name] for name in ("limit", "used", "requested", "unit")]
    assert numbers == [1, 1, 1, "requests"]
    spent = asked["anthropic"]
    assert isinstance(spent.error, anthropic.RateLimitError)
    assert spent.error.request_id == spent.decision
    assert isinstance(asked["google"].error, errors.ClientError)
    assert asked["google"].error.status == "RESOURCE_EXHAUSTED"


def test_what_is_not_allowed_is_not_asked_for_again(gate: Gate) -> None:
    asked = gate.ask("denied", times(1))

    assert [each.statuses for each in asked.values()] == [[403]] * len(SDKS)
    denied = asked["openai"]
    assert isinstance(denied.error, openai.PermissionDeniedError)
    assert (denied.error.code, denied.error.type) == ("access_denied", "permission_error")
    assert denied.error.request_id == denied.decision
    denied = asked["anthropic"]
    assert isinstance(denied.error, anthropic.PermissionDeniedError)
    assert isinstance(denied.error.body, dict)
    assert denied.error.body["error"]["type"] == "permission_error"
    assert denied.error.body["error"]["decision_id"] == denied.error.request_id == denied.decision
    refused = asked["google"].error
    assert isinstance(refused, errors.ClientError)
    assert (refused.code, refused.status) == (403, "PERMISSION_DENIED")
    assert refused.details["error"]["details"][0]["reason"] == "ACCESS_DENIED"


def test_what_is_too_large_is_not_asked_for_again(gate: Gate) -> None:
    asked = gate.ask("large", times(1))

    assert [each.statuses for each in asked.values()] == [[413]] * len(SDKS)
    assert isinstance(asked["openai"].error, openai.APIStatusError)
    assert asked["openai"].error.code == "request_exceeds_limit"
    assert isinstance(asked["anthropic"].error, anthropic.RequestTooLargeError)
    assert isinstance(asked["google"].error, errors.ClientError)


def test_a_store_that_is_down_is_asked_for_again(gate: Gate) -> None:
    gate.redis.kill()
    try:
        asked = gate.ask("counted", times(2))
    finally:
        gate.redis.start()

    assert [each.statuses for each in asked.values()] == [[503, 503]] * len(SDKS)
    assert asked["openai"].slept_ms == asked["anthropic"].slept_ms == [1000]
    assert isinstance(asked["openai"].error, openai.InternalServerError)
    assert asked["openai"].error.code == "store_unavailable"
    assert isinstance(asked["anthropic"].error, anthropic.InternalServerError)
    assert isinstance(asked["google"].error, errors.ServerError)
    assert asked["google"].error.status == "UNAVAILABLE"


def test_a_sidecar_that_is_gone_is_asked_for_again(gate: Gate) -> None:
    # Nobody asks here after this test: a start takes longer than all of it.
    gate.stack.kill_sidecar()
    asked = gate.ask("any", times(2))

    assert [each.statuses for each in asked.values()] == [[503, 503]] * len(SDKS)
    assert asked["openai"].slept_ms == asked["anthropic"].slept_ms == [1000]
    assert isinstance(asked["openai"].error, openai.InternalServerError)
    assert asked["openai"].error.code == "policy_unavailable"
    assert isinstance(asked["anthropic"].error, anthropic.InternalServerError)
    assert isinstance(asked["google"].error, errors.ServerError)
    assert (asked["google"].error.code, asked["google"].error.status) == (503, "UNAVAILABLE")
