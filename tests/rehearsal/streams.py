"""Requests one after another and at once, through sessions that share a store; and their records."""

import asyncio
import heapq
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from extproc.ledger import restored
from extproc.ledger.records import decision_record, usage_record
from extproc.pb.ai_policy.v1 import records_pb2 as pb
from extproc.policy import policyset
from extproc.policy.policyset import PolicySet
from extproc.rehearsal.again import Again
from extproc.rehearsal.recorded import Recording
from extproc.rehearsal.replay import Replayed, replay
from extproc.rehearsal.stage import Instruments
from extproc.store.memory import MemoryStore
from tests.session.playbook import KEY, START_NS, Playbook, chat_body, chat_head

DEFAULTS = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec: {access: allow}
"""
IDENTITY = """
apiVersion: ai-policy/v1
kind: Identity
metadata: {name: callers}
spec: {sources: [{apiKey: {}}], anonymous: allow}
---
apiVersion: ai-policy/v1
kind: ApiKey
metadata: {name: ada}
spec: {sha256: f3abf2a6cc4f00987743db5f544ba345b4899ae31f326d8ee9c4816de153c9e0, user: ada, team: demo}
"""
assert KEY == "sk-test"


def policy(kind: str, name: str, spec: str) -> str:
    return f"apiVersion: ai-policy/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


# Small enough for a few requests to reach each of them.
TIGHT = (
    policy("RateLimit", "bucket", "key: [identity.user], limit: {tokens: 900, per: 1m, burst: 1200}"),
    policy("RateLimit", "sliding", "limit: {requests: 6, per: 1m}, algorithm: slidingWindow"),
    policy("RateLimit", "trial", "limit: {outputTokens: 400, per: 1m}, mode: shadow"),
    policy("RateLimit", "declared", "key: [target.model], limit: {inputTokens: 80, per: 1m}"),
    policy(
        "UsageCap",
        "hour",
        'match: request.model == "gpt-5", limit: {tokens: 1000}, period: hour, '
        "onExceed: {useModel: gpt-4o-mini}",
    ),
    policy("UsageCap", "rolling", "key: [identity.team], limit: {outputTokens: 5000}, rolling: 1d"),
    policy("ConcurrencyLimit", "at-once", "max: 3"),
    policy("RequestCap", "answer", "outputTokens: 700, onExceed: clamp"),
    policy("Price", "ours", 'models: ["*"], usdPerMillion: {input: "500", output: "1000"}'),
    policy("UsageCap", "dollars", "key: [identity.user], limit: {costUsd: 3}, period: hour"),
    policy("AccessRule", "no-o1", 'effect: deny, match: request.model == "o1"'),
)


def folder(path: Path, *objects: str) -> PolicySet:
    path.mkdir(parents=True, exist_ok=True)
    (path / "all.yaml").write_text("\n---\n".join([DEFAULTS, IDENTITY, *objects]))
    return policyset.load(path)


@dataclass(frozen=True)
class Sent:
    """One request of a stream, and how it ends."""

    after_ms: int  # since the one before
    lasts_ms: int
    model: str = "gpt-4o-mini"
    max_tokens: int | None = 100
    output_tokens: int | None = 10  # None: the provider fails
    is_named: bool = True


SENT = st.builds(
    Sent,
    after_ms=st.sampled_from([0, 1, 250, 3_000, 30_000, 3_600_000]),
    lasts_ms=st.sampled_from([0, 900, 20_000, 50_000]),
    model=st.sampled_from(["gpt-4o-mini", "gpt-4o-mini", "gpt-5", "o1"]),
    max_tokens=st.sampled_from([None, 1, 100, 500, 900]),
    output_tokens=st.sampled_from([None, 0, 10, 100, 600]),
    is_named=st.booleans(),
)
STREAMS = st.lists(SENT, min_size=1, max_size=14)


def run(policies: PolicySet, sent: Sequence[Sent]) -> list[Recording]:
    """Send them all; what the ledger would keep, in the order of the decisions."""
    store = MemoryStore()
    numbers = itertools.count()
    ends: list[tuple[int, int, Playbook, Sent]] = []
    played: list[Playbook] = []
    now_ns = START_NS
    for place, each in enumerate(sent):
        now_ns += each.after_ms * 1_000_000
        while ends and ends[0][0] <= now_ns:
            _end(heapq.heappop(ends))
        book = Playbook(policies, store=store, now_ns=now_ns, decision_id=f"decision-{place:03}")
        played.append(book)
        body = {"model": each.model} | ({} if each.max_tokens is None else {"max_tokens": each.max_tokens})
        named = {"authorization": f"Bearer {KEY}"} if each.is_named else {}
        book.request(chat_head(headers={"content-type": "application/json", **named}), chat_body(**body))
        if book.decision.denial is None:
            heapq.heappush(ends, (now_ns + each.lasts_ms * 1_000_000, next(numbers), book, each))
    while ends:
        _end(heapq.heappop(ends))
    return [recorded(book) for book in played]


def _end(end: tuple[int, int, Playbook, Sent]) -> None:
    book, sent = end[2], end[3]
    book.now_ns = end[0]
    if sent.output_tokens is None:
        book.answer_headers(500)
        book.answer_body(b'{"error": {"message": "overloaded"}}')
        return
    usage = {"prompt_tokens": 9, "completion_tokens": sent.output_tokens}
    usage["total_tokens"] = sum(usage.values())
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": book.decision.upstream_model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": usage,
    }
    book.answer_headers()
    book.answer_body(json.dumps(answer).encode())


def recorded(book: Playbook) -> Recording:
    """The decision as the ledger gives it back."""
    record = pb.DecisionRecord.FromString(decision_record(book.decision, "one").SerializeToString())
    settlement = None
    if book.settled:
        ending = usage_record(book.settlement, "one").SerializeToString()
        settlement = restored.settlement(pb.UsageRecord.FromString(ending))
    return Recording(
        decision=restored.decision(record),
        instance=record.instance,
        shed=tuple(record.shed),
        settlement=settlement,
    )


def replayed(policies: PolicySet, recordings: Sequence[Recording]) -> Replayed:
    return asyncio.run(replay(recordings, Again(policies, Instruments()), most=1000))
