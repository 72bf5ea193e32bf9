"""Stories of real decisions: policies from text, requests that a session judges, records of how they ended.

`python -m tests.questions.stories` writes the pages anew that `test_explanation` compares with.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from extproc.decision import Decision
from extproc.ledger import restored
from extproc.ledger.records import decision_record, usage_record
from extproc.measure.prices import Prices
from extproc.model import Basis, Trace, Usage
from extproc.pb.ai_policy.v1 import records_pb2 as pb
from extproc.policy import policyset
from extproc.policy.policyset import PolicySet
from extproc.questions.base import Story
from extproc.questions.explanation import explain
from extproc.questions.page import page
from extproc.questions.text import Screen
from extproc.session.actions import Reserve
from extproc.session.events import StoreFailed
from tests.session.playbook import KEY, KEY_SHA256, SECOND_NS, START_NS, Playbook, chat_body, chat_head

PAGES = Path(__file__).parent / "pages"
TRACE = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
SIDECAR = "unix:/run/extproc.sock"

OPEN = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec: {access: allow}
"""
CLOSED = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec:
  description: Nothing passes unless a rule allows it.
"""
IDENTITY = f"""
apiVersion: ai-policy/v1
kind: Identity
metadata: {{name: callers}}
spec:
  sources: [{{apiKey: {{}}}}]
---
apiVersion: ai-policy/v1
kind: ApiKey
metadata: {{name: demo}}
spec: {{sha256: {KEY_SHA256}, user: ada, team: demo}}
"""
MODELS = """
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: demo-models}
spec:
  description: Team demo uses one model.
  effect: allow
  match: identity.team == "demo" && request.model == "gpt-4o-mini"
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: no-o1-pro}
spec:
  description: One model is for nobody.
  effect: deny
  match: request.model.startsWith("o1-pro")
  message: o1-pro is not offered here; ask the platform team.
"""
TOKENS = """
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: team-tokens}
spec:
  description: Each team gets a thousand tokens a minute.
  key: [identity.team]
  limit: {tokens: 1000, per: 1m}
  reserve: declared
"""
MONTH = """
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {name: team-month}
spec:
  key: [identity.team]
  limit: {costUsd: "0.001"}
  period: month
  timezone: Europe/Berlin
"""
TRIAL = """
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: trial}
spec:
  match: '!request.headers[?"x-batch"].hasValue() || request.stream'
  limit: {outputTokens: 50, per: 1m}
  mode: shadow
"""
SHORT = """
apiVersion: ai-policy/v1
kind: RequestCap
metadata: {name: short-answers}
spec: {outputTokens: 100, onExceed: clamp}
"""
SMALL = """
apiVersion: ai-policy/v1
kind: RequestCap
metadata: {name: small}
spec: {outputTokens: 300}
"""
CHEAPER = """
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {name: big-model}
spec: {limit: {requests: 1}, period: month, onExceed: {useModel: gpt-4o-mini}}
"""
MUST_COUNT = """
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: must-count}
spec: {limit: {requests: 100, per: 1m}, onError: deny}
"""
OFF = """
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: old}
spec: {limit: {requests: 1, per: 1m}, mode: disabled}
"""
HEAD = chat_head(
    headers={"content-type": "application/json", "authorization": f"Bearer {KEY}"},
    host="gateway.example.com",
)

Played = tuple[Playbook, tuple[pb.UsageRecord, ...]]


def load(folder: Path, *objects: str) -> PolicySet:
    folder.mkdir(parents=True)
    (folder / "all.yaml").write_text("\n---\n".join(objects))
    return policyset.load(folder)


def story(decision: Decision, policies: PolicySet, *endings: pb.UsageRecord, **changes: Any) -> Story:
    """What the ledger tells of the decision: through its record, as everything that is asked later."""
    record = pb.DecisionRecord.FromString(decision_record(decision, SIDECAR).SerializeToString())
    wording = {str(each.ref): each.wording for each in policies.objects if each.wording}
    values: dict[str, Any] = {"instance": SIDECAR, "endings": endings, "wording": wording}
    return Story(decision=restored.decision(record), shed=tuple(record.shed), **(values | changes))


def _asks(folder: Path, *objects: str, body: bytes | None = None, **changes: Any) -> Played:
    book = Playbook(load(folder, *objects), prices=Prices.bundled(), **changes)
    book.request(HEAD, body)
    return book, ()


def _denied_by_rule(folder: Path) -> Played:
    return _asks(folder, CLOSED, IDENTITY, MODELS, TOKENS, body=chat_body(model="o1-pro"))


def _not_granted(folder: Path) -> Played:
    return _asks(folder, CLOSED, IDENTITY, MODELS, TOKENS, body=chat_body(model="gpt-4o"))


def _full(folder: Path, *objects: str, first: bytes, second: bytes) -> Played:
    book = Playbook(load(folder, OPEN, IDENTITY, *objects), prices=Prices.bundled(), decision_id="earlier")
    book.request(HEAD, first)
    later = Playbook(book.policies, prices=book.prices, store=book.store, now_ns=START_NS + SECOND_NS)
    later.request(HEAD, second)
    return later, ()


def _rate_limited(folder: Path) -> Played:
    return _full(folder, TOKENS, OFF, first=chat_body(max_tokens=900), second=chat_body(max_tokens=200))


def _cap_reached(folder: Path) -> Played:
    return _full(folder, MONTH, first=chat_body(max_tokens=1500), second=chat_body(max_tokens=500))


def _never_fits(folder: Path) -> Played:
    return _asks(folder, OPEN, IDENTITY, TOKENS, body=chat_body(max_tokens=4000))


def _too_large(folder: Path) -> Played:
    return _asks(folder, OPEN, IDENTITY, SMALL, TOKENS, body=chat_body(max_tokens=4000))


def _nobody(folder: Path) -> Played:
    book = Playbook(load(folder, CLOSED, IDENTITY, MODELS, TOKENS))
    book.headers(chat_head(host="gateway.example.com"))
    return book, ()


def _unclassified(folder: Path) -> Played:
    book = Playbook(load(folder, CLOSED, IDENTITY, MODELS))
    book.headers(replace(HEAD, path="/v1/unheard-of"))
    return book, ()


def _uncounted(folder: Path) -> Played:
    book = Playbook(load(folder, OPEN, IDENTITY, TOKENS, MUST_COUNT), holds=(Reserve,))
    book.request(HEAD)
    book.play(StoreFailed(at_ns=book.now_ns))
    return book, ()


def _shadow(folder: Path) -> Played:
    return _answered(
        _asks(folder, CLOSED, IDENTITY, MODELS, TOKENS, TRIAL, body=chat_body(max_tokens=400))[0]
    )


def _clamped(folder: Path) -> Played:
    return _answered(_asks(folder, OPEN, IDENTITY, SHORT, TOKENS, body=chat_body(max_tokens=5000))[0])


def _substituted(folder: Path) -> Played:
    big = chat_body(model="gpt-4o", max_tokens=50)
    book, _ = _full(folder, CHEAPER, TOKENS, first=big, second=big)
    return _answered(book)


def _answered(book: Playbook) -> Played:
    book.now_ns += SECOND_NS // 4
    book.answer_headers()
    book.now_ns += SECOND_NS
    usage = {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}
    choice = {"index": 0, "message": {"role": "assistant", "content": "abc"}, "finish_reason": "stop"}
    answer = {"id": "c-1", "model": "gpt-4o-mini-2024-07-18", "choices": [choice], "usage": usage}
    book.answer_body(json.dumps(answer).encode())
    book.close()
    return book, (usage_record(book.settlement, SIDECAR),)


def _streamed(folder: Path) -> Played:
    body = chat_body(stream=True, max_tokens=600, stream_options={"include_usage": True})
    book, _ = _asks(folder, CLOSED, IDENTITY, MODELS, TOKENS, body=body)
    chunk = {"id": "c-1", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024-07-18"}
    choice = {"index": 0, "delta": {"content": "abc"}, "finish_reason": "stop"}
    usage = {
        "prompt_tokens": 1_200,
        "completion_tokens": 450,
        "prompt_tokens_details": {"cached_tokens": 1_024},
        "completion_tokens_details": {"reasoning_tokens": 320},
    }
    events = [chunk | {"choices": [choice]}, chunk | {"choices": [], "usage": usage}]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    book.now_ns += SECOND_NS // 4
    book.answer_headers(headers={"content-type": "text/event-stream"})
    book.now_ns += 90 * SECOND_NS
    book.answer_body(stream.encode())
    book.close()
    return book, (usage_record(book.settlement, SIDECAR),)


def _expired(folder: Path) -> Played:
    book, _ = _asks(folder, OPEN, IDENTITY, TOKENS, body=chat_body(max_tokens=400))
    (outcome,) = book.decision.outcomes
    settled = _answered(book)[0].settlement
    reserved = {outcome.charge.counter: outcome.reserved}
    gone = replace(
        settled, basis=Basis.EXPIRED, amounts=reserved, usage=Usage(), cost=None, status=0, model="",
        response_id="", finish_reasons=(), first_byte_at_ns=0,
    )  # fmt: skip
    late = usage_record(settled, SIDECAR)
    late.sequence, late.kind = 2, pb.ADJUST
    return book, (usage_record(gone, SIDECAR, pb.EXPIRE), late)


def _open(folder: Path) -> Played:
    return _asks(folder, OPEN, IDENTITY, TOKENS, body=chat_body(max_tokens=400))


STORIES: Mapping[str, Callable[[Path], Played]] = {
    "access_denied": _denied_by_rule,
    "access_not_granted": _not_granted,
    "rate_limited": _rate_limited,
    "cap_reached": _cap_reached,
    "never_fits": _never_fits,
    "too_large": _too_large,
    "credential_missing": _nobody,
    "unclassified": _unclassified,
    "store_unavailable": _uncounted,
    "shadow_would_deny": _shadow,
    "clamped": _clamped,
    "substituted": _substituted,
    "streamed": _streamed,
    "expired_and_adjusted": _expired,
    "open": _open,
}


def told(name: str, folder: Path) -> Story:
    """The story of this name."""
    book, endings = STORIES[name](folder / name)
    decision = replace(book.decision, trace=TRACE)
    return story(decision, book.policies, *endings)


def pages(name: str, folder: Path) -> str:
    """The page for whoever owns the gateway, and the one for the caller."""
    explained = explain(told(name, folder))
    screen = Screen(width=100)
    both = (page(explained, screen), page(explained.for_caller(), screen))
    # New prices are published every day.
    return f"\n{'-' * 40} to the caller\n\n".join(both).replace(Prices.bundled().revision, "PRICES")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        for each in STORIES:
            (PAGES / f"{each}.txt").write_text(pages(each, Path(made)))
