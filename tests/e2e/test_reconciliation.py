"""A team's month in small: the ledger, the counters, the metrics and the provider's books agree.

APIs streamed and not, each with every fault of the demo provider; denied, clamped, substituted, given up.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from extproc.pb.ai_policy.v1 import records_pb2 as pb
from tests.e2e import policies
from tests.e2e.ledgers import TOKEN, Written, counter
from tests.e2e.stack import Stack, check_often
from tests.e2e.test_requests import HELLO, wait_until
from tests.servers.redis import RedisServer

TEAM = policies.team(0)
CLAMPED = 40  # tokens, all choices together
OF_LARGE = 4  # requests; the others go to the small model
LARGE, SMALL, DENIED = "gpt-4.1", "gpt-4o-mini", "o1-pro"
UNITS = {
    "all-requests": "requests",
    "all-tokens": "tokens",
    "all-input": "inputTokens",
    "all-output": "outputTokens",
    "all-cost": "costUsd",
}
FOLDER = (
    "".join(
        f"""
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {{name: {name}}}
spec: {{key: [identity.team], limit: {{{unit}: 4000000}}, period: year}}
---
"""
        for name, unit in UNITS.items()
    )
    + f"""
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {{name: large-model}}
spec:
  match: target.model == "{LARGE}"
  limit: {{requests: {OF_LARGE}}}
  period: year
  onExceed: {{useModel: {SMALL}}}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {{name: trial}}
spec: {{key: [identity.team], limit: {{tokens: 50, per: 24h}}, mode: shadow}}
---
apiVersion: ai-policy/v1
kind: ConcurrencyLimit
metadata: {{name: in-flight}}
spec: {{key: [identity.team], max: 1000}}
---
apiVersion: ai-policy/v1
kind: RequestCap
metadata: {{name: answer-size}}
spec:
  match: request.operation != "embeddings"
  outputTokens: {CLAMPED}
  onExceed: clamp
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {{name: not-offered}}
spec: {{effect: deny, match: 'request.model == "{DENIED}"'}}
---
apiVersion: ai-policy/v1
kind: Identity
metadata: {{name: callers}}
spec: {{anonymous: deny, sources: [{{apiKey: {{header: authorization, scheme: Bearer}}}}]}}
---
apiVersion: ai-policy/v1
kind: Defaults
metadata: {{name: defaults}}
spec: {{access: allow, audit: AUDIT}}
"""
)

_TEXT = {"role": "user", "content": [{"text": "Say hello."}]}
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}
_CLAUDE = {"model": "claude-sonnet-4-5", "max_tokens": 30, "messages": HELLO}
CALLS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": SMALL, "messages": HELLO}),
    "chat of two": ("/v1/chat/completions", {"model": SMALL, "messages": HELLO, "n": 2, "max_tokens": 30}),
    "chat stream": ("/v1/chat/completions", {"model": SMALL, "messages": HELLO, "stream": True}),
    "chat stream with usage": (
        "/v1/chat/completions",
        {"model": SMALL, "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}},
    ),
    "large": ("/v1/chat/completions", {"model": LARGE, "messages": HELLO, "max_tokens": 20}),
    "large stream": ("/v1/chat/completions", {"model": LARGE, "messages": HELLO, "stream": True}),
    "responses": ("/v1/responses", {"model": SMALL, "input": "Say hello."}),
    "responses stream": ("/v1/responses", {"model": SMALL, "input": "Say hello.", "stream": True}),
    "messages": ("/v1/messages", _CLAUDE),
    "messages stream": ("/v1/messages", _CLAUDE | {"stream": True}),
    "gemini": ("/v1beta/models/gemini-2.5-flash:generateContent", _CONTENTS),
    "gemini stream": ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", _CONTENTS),
    "converse": ("/model/us.amazon.nova-micro-v1:0/converse", {"messages": [_TEXT]}),
    "converse stream": ("/model/us.amazon.nova-micro-v1:0/converse-stream", {"messages": [_TEXT]}),
    "embeddings": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["one", "two"]}),
    "denied": ("/v1/chat/completions", {"model": DENIED, "messages": HELLO}),
}
LEAVES = "hang=20"  # longer than its client stays
STAYS_S = 1.5  # long enough for a decision, also on a busy machine
FAULTS = (
    *("", "", "", "gzip", "usage=zero", "usage=null", "no-usage"),
    *("status=429", "status=500", "after=2", "error-after=2", LEAVES, "slow=5"),
)
ASKED = tuple(itertools.product(CALLS, FAULTS))
_AT_ONCE = 24


# What each must be charged of the units above, by its tokens and its nano-dollars.
Amounts = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """One decision that was allowed, as a finance department sees it."""

    record: pb.DecisionRecord
    usage: pb.UsageRecord

    @property
    def tokens(self) -> tuple[int, int]:
        return self.usage.usage.input_tokens, self.usage.usage.output_tokens

    @property
    def billed(self) -> Amounts:
        given, made = self.tokens
        is_request = self.usage.basis != "local_reply"
        return int(is_request), given + made, given, made, self.usage.nano_usd

    @property
    def charged(self) -> Amounts:
        # What is taken of no output, or of nothing at all, is not told.
        amounts = Counter({each.counter.partition("|")[0]: each.amount for each in self.usage.amounts})
        requests, tokens, given, made, cost = (amounts[f"UsageCap/{name}"] for name in UNITS)
        return requests, tokens, given, made, cost


class Month:
    """A running stack, and what everybody wrote down of it."""

    def __init__(self, stack: Stack, *, is_shared: bool) -> None:
        self.stack = stack
        self.is_shared = is_shared
        self.ledger = Written(stack.folder / "state" / "ledger.sqlite")

    async def ask_all(self, asked: tuple[tuple[str, str], ...]) -> Counter[int]:
        """Ask all of these, some at a time; how many had which status, 0 for those that left."""
        headers = {"authorization": f"Bearer {policies.key(0)}"}
        limits = httpx.Limits(max_connections=_AT_ONCE)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def ask(call: str, fault: str) -> int:
            async with turns:
                return await _ask(client, call, fault)

        async with httpx.AsyncClient(
            base_url=self.stack.gateway_url, headers=headers, limits=limits
        ) as client:
            return Counter(await asyncio.gather(*(ask(call, fault) for call, fault in asked)))

    def lines(self) -> list[Line]:
        """Every decision that was allowed, once all of them have come to something."""
        wait_until(lambda: self.ledger.open_decisions() == 0, "everything is settled")
        usages = {usage.decision_id: usage for usage in self.ledger.usages()}
        records = self.ledger.decisions()
        return [Line(record, usages[record.decision_id]) for record in records]

    def books(self) -> dict[str, dict[str, Any]]:
        """The provider's entries by decision."""
        entries = self.stack.books()["entries"]
        return {entry["request_headers"]["x-ai-policy-decision-id"]: entry for entry in entries}

    def used(self) -> list[int]:
        """What the counters of the units say; money in nano-dollars."""
        found = [counter(self.stack, f"UsageCap/{name}", TEAM)["used"] for name in UNITS]
        return [*found[:-1], int(Decimal(found[-1]) * 10**9)]

    def measured(self) -> Counter[tuple[str, str]]:
        """The metrics: tokens and nano-dollars by what they are and their basis."""
        sums: Counter[tuple[str, str]] = Counter()
        text = httpx.get(f"{self.stack.admin_url}/metrics").text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in ("ai_policy_tokens_total", "ai_policy_cost_nano_usd_total"):
                    sums[sample.labels.get("kind", "cost"), sample.labels["basis"]] += int(sample.value)
        return sums


async def _ask(client: httpx.AsyncClient, call: str, fault: str) -> int:
    path, body = CALLS[call]
    headers = {"x-demo-fault": fault, "x-demo-output-tokens": "25", "anthropic-version": "2023-06-01"}
    timeout_s = STAYS_S if fault == LEAVES else 60
    try:
        async with client.stream("POST", path, json=body, headers=headers, timeout=timeout_s) as answer:
            async for _ in answer.aiter_raw():
                pass
    except httpx.TransportError:
        return 0  # it left, or its answer was cut
    return answer.status_code


STREAM = "stream-1.38.3-required-redis"


@pytest.fixture(params=["native-1.40.0-best_effort-memory", STREAM])
def month(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    usage, version, audit, store = request.param.split("-")
    place = tmp_path_factory.mktemp(request.param)
    environment = {"EXTPROC_STATE": str(place / "state"), "EXTPROC_ADMIN_TOKEN": TOKEN}
    files = {"caps.yaml": FOLDER.replace("AUDIT", audit), "keys.yaml": policies.FILES["keys.yaml"]}
    with ExitStack() as running:
        if store == "redis":
            redis = running.enter_context(RedisServer())
            # A busy machine.
            environment |= {"EXTPROC_STORE": redis.url, "EXTPROC_STORE_TIMEOUT_MS": "500"}
        stack = Stack(
            place, envoy=version, usage=usage, policies=files, environment=environment, edit=check_often
        )
        yield Month(running.enter_context(stack), is_shared=store == "redis")


def totals(lines: list[Line]) -> list[int]:
    return [sum(amounts) for amounts in zip(*(line.charged for line in lines), strict=True)]


@pytest.mark.parametrize("month", [STREAM], indirect=True)  # test_thousand has native usage and memory
async def test_usage_enforcement_and_billing_are_the_same_numbers(month: Month) -> None:
    answered = await month.ask_all(ASKED)
    lines, books = month.lines(), month.books()

    # Nobody is forgotten, and nobody is there twice.
    denied = len([call for call, _ in ASKED if call == "denied"])
    assert answered[403] == denied
    assert month.ledger.verdicts() == {"deny": denied, "allow": len(ASKED) - denied}
    assert sorted(line.record.decision_id for line in lines) == sorted(books)
    # What each was charged is what it is billed, and that is what the counters have.
    assert [line.charged for line in lines] == [line.billed for line in lines]
    wait_until(lambda: month.used() == totals(lines), "the counters are the ledger's sum")
    given, made, cost, unpriced = month.ledger.spent()
    assert [given + made, given, made, cost] == totals(lines)[1:]
    assert not unpriced
    # The metrics say the same by basis.
    by_basis: Counter[tuple[str, str]] = Counter()
    for line in lines:
        for kind, amount in zip(("input", "output", "cost"), line.billed[2:], strict=True):
            by_basis[kind, line.usage.basis] += amount
    assert +month.measured() == +by_basis
    # And so do the provider's books, wherever it told us.
    for line in lines:
        _agrees(line, books[line.record.decision_id])
    substituted = [line for line in lines if line.record.target_model == SMALL]
    assert len(substituted) == len([call for call, _ in ASKED if call.startswith("large")]) - OF_LARGE
    assert counter(month.stack, "RateLimit/trial", TEAM)["remaining"] == 0


def _agrees(line: Line, entry: Mapping[str, Any]) -> None:
    """The settlement table, against what the provider generated."""
    given, made = entry["input_tokens"], entry["output_tokens"]
    fault = entry["request_headers"]["x-demo-fault"]
    match line.usage.basis:
        case "provider":
            assert line.tokens == ((0, 0) if fault == "usage=zero" else (given, made)), (line, entry)
        case "upstream_error":
            assert line.billed == (1, 0, 0, 0, 0), (line, entry)
        case "reserved" | "tokenizer" | "partial":
            # Never less; a word or two more where the vocabulary is not public.
            assert line.tokens[1] >= made, (line, entry)
        case _:
            assert line.usage.basis == "bytes", (line, entry)


async def test_a_sidecar_killed_at_work_leaves_books_that_balance(month: Month) -> None:
    asking = asyncio.create_task(month.ask_all(ASKED))
    wanted = len(ASKED) // 4
    while month.stack.books()["totals"]["requests"] < wanted:  # noqa: ASYNC110  another process's
        await asyncio.sleep(0.02)
    month.stack.kill_sidecar()
    await asking
    month.stack.start_sidecar()
    await month.ask_all(ASKED[: len(ASKED) // 4])
    lines, books = month.lines(), month.books()

    assert "expired" in {line.usage.basis for line in lines}
    assert [line.charged for line in lines] == [line.billed for line in lines]
    recorded = {line.record.decision_id for line in lines}
    if not month.is_shared:
        # Written in one transaction, whatever it holds.
        wait_until(lambda: month.used() == totals(lines), "the counters are the ledger's sum")
        return
    # Counters elsewhere know what the ledger was not told any more; no request went without its record.
    assert books.keys() <= recorded
    assert month.used()[0] >= totals(lines)[0]
