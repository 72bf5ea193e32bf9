"""What would have let a denied request pass: whoever had done it would have passed."""

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.decision import Decision
from extproc.policy.policyset import PolicySet
from extproc.policy.wording import wording
from extproc.questions.base import Story
from extproc.questions.explained import Explanation, Remedy, Way
from extproc.questions.explanation import explain
from extproc.store.memory import MemoryStore
from tests.rehearsal.streams import STREAMS, TIGHT, Sent, folder, policy
from tests.session.playbook import KEY, START_NS, Playbook, chat_body, chat_head

NUMBERS = itertools.count()
LIMITS = (
    *(each for each in TIGHT if "kind: Identity" not in each),
    policy("RequestCap", "small", "outputTokens: 600"),
    policy("RateLimit", "half", "limit: {tokens: 400, per: 1m}, reserve: declared"),
    policy(
        "RateLimit",
        "answers",
        "limit: {outputTokens: 500, per: 1m}, algorithm: slidingWindow, reserve: declared",
    ),
    policy("RateLimit", "rare", "limit: {requests: 2, per: 7m, burst: 3}"),
    policy("UsageCap", "half-past", "limit: {tokens: 1500}, period: hour, timezone: Asia/Kolkata"),
)


def ask(policies: PolicySet, store: MemoryStore, now_ns: int, sent: Sent, **changes: Any) -> Decision:
    book = Playbook(policies, store=store, now_ns=now_ns, decision_id=f"decision-{next(NUMBERS)}")
    named = {"authorization": f"Bearer {KEY}"} if sent.is_named else {}
    declared = {} if sent.max_tokens is None else {"max_tokens": sent.max_tokens}
    body = chat_body(**({"model": sent.model} | declared | changes))
    book.request(chat_head(headers={"content-type": "application/json", **named}), body)
    return book.decision


def again(policies: PolicySet, store: MemoryStore, now_ns: int, sent: Sent, remedy: Remedy) -> Decision:
    """The request as it would have been, had its caller known."""
    if remedy.at_us is not None:
        return ask(policies, store, remedy.at_us * 1_000, sent)
    return ask(policies, store, now_ns, sent, max_tokens=remedy.max_output_tokens)


def passes(decision: Decision, told: Explanation, remedy: Remedy) -> bool:
    """Whether nobody denies it any more who was asked before; what never fitted may have to wait for room."""
    if decision.denial is None or str(decision.denial.policy) in told.not_asked:
        return True
    may_wait = any(words in remedy.text for words in ("just then", "in flight"))
    return may_wait and decision.denial.retry_after_ms is not None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=STREAMS, objects=st.sets(st.sampled_from(LIMITS), min_size=1))
def test_whoever_had_done_what_is_told_would_have_passed(
    tmp_path: Path, sent: Sequence[Sent], objects: set[str]
) -> None:
    policies, store, now_ns = folder(tmp_path, *sorted(objects)), MemoryStore(), START_NS

    for number, each in enumerate(sent):
        now_ns += each.after_ms * 1_000_000 + number
        before = copy.deepcopy(store)
        decision = ask(policies, store, now_ns, each)
        told = explain(Story(decision=decision, instance="one", wording=wording(policies.objects)))
        for remedy in told.remedies:
            if remedy.at_us is not None or remedy.way is Way.LESS_OUTPUT:
                found = again(policies, copy.deepcopy(before), now_ns, each, remedy)
                assert passes(found, told, remedy), (remedy.text, decision.denial, found.denial)


@pytest.mark.parametrize(
    ("used", "text"),
    [
        (0, "An output limit (max_tokens) of at most 392"),
        (200, "An output limit (max_tokens) of at most 392; just then, of at most 192"),
        (392, "An output limit (max_tokens) of at most 392, once there is room: just then there was none"),
    ],
)
def test_what_never_fits_is_told_what_fits_ever_and_what_fitted_then(
    tmp_path: Path, used: int, text: str
) -> None:
    limit = policy("RateLimit", "half", "limit: {tokens: 400, per: 1m}, reserve: declared")
    policies, store = folder(tmp_path, limit), MemoryStore()
    if used:
        ask(policies, store, START_NS, Sent(after_ms=0, lasts_ms=0, max_tokens=used - 8))

    decision = ask(policies, store, START_NS, Sent(after_ms=0, lasts_ms=0, max_tokens=500))

    (remedy,) = explain(Story(decision=decision, instance="one")).remedies
    assert (remedy.text, remedy.max_output_tokens) == (text, 392)


def test_nobody_knows_when_requests_in_flight_end(tmp_path: Path) -> None:
    one = Sent(after_ms=0, lasts_ms=0)
    policies, store = folder(tmp_path, policy("ConcurrencyLimit", "at-once", "max: 1")), MemoryStore()
    ask(policies, store, START_NS, one)

    told = explain(Story(decision=ask(policies, store, START_NS, one), instance="one"))

    (remedy,) = told.remedies
    assert (remedy.way, remedy.at_us) == (Way.WAIT, None)
    assert remedy.text == "The same request once one that is in flight has ended"
    (limit,) = [line.limit for line in told.policies if line.limit]
    assert limit.room_at_us is None
    assert limit.line.endswith("1 too many; room again once one of them ends")


def test_a_wait_is_told_together_with_what_must_end_first(tmp_path: Path) -> None:
    limits = (
        policy("ConcurrencyLimit", "at-once", "max: 1"),
        policy("RateLimit", "rare", "limit: {requests: 1, per: 1h}"),
    )
    policies, store = folder(tmp_path, *limits), MemoryStore()
    ask(policies, store, START_NS, Sent(after_ms=0, lasts_ms=0))

    told = explain(
        Story(decision=ask(policies, store, START_NS, Sent(after_ms=0, lasts_ms=0)), instance="one")
    )

    (remedy,) = told.remedies
    assert remedy.text.startswith("The same request 1 h later, at ")
    assert remedy.text.endswith(", and once one that is in flight has ended")


@pytest.mark.parametrize(
    ("caps", "asked", "text"),
    [
        (
            ("outputTokens: 600", "outputTokens: 500"),
            {"max_tokens": 900},
            "An output limit (max_tokens) of at most 500",
        ),
        (
            ("inputTokens: 50, outputTokens: 600",),
            {"max_tokens": 900, "content": "word " * 200},
            "A shorter input, of at most 50 tokens, and an output limit (max_tokens) of at most 600",
        ),
        (
            ("inputTokens: 50", "outputTokens: 600"),
            {"max_tokens": 900, "content": "word " * 200},
            "A shorter input, of at most 50 tokens, and an output limit (max_tokens) of at most 600",
        ),
        (
            ("inputTokens: 50, outputTokens: 600, onExceed: clamp",),
            {"max_tokens": 900, "content": "word " * 200},
            "A shorter input, of at most 50 tokens",
        ),
        (("outputTokens: 3",), {"max_tokens": 9, "n": 4}, "Fewer choices"),
        (("outputTokens: 3, onExceed: clamp",), {"max_tokens": 9, "n": 4}, "Fewer choices"),
    ],
)
def test_one_remedy_satisfies_all_caps_on_the_size_of_a_request(
    tmp_path: Path, caps: Sequence[str], asked: dict[str, Any], text: str
) -> None:
    objects = [policy("RequestCap", f"cap-{number}", spec) for number, spec in enumerate(caps)]
    policies, one = folder(tmp_path, *objects), Sent(after_ms=0, lasts_ms=0, max_tokens=None)
    body = {name: value for name, value in asked.items() if name != "content"}
    body["messages"] = [{"role": "user", "content": asked.get("content", "hi")}]

    decision = ask(policies, MemoryStore(), START_NS, one, **body)

    words = wording(policies.objects)
    (remedy,) = explain(Story(decision=decision, instance="one", wording=words)).remedies
    assert remedy.text == text
    short = body | {"messages": [{"role": "user", "content": "hi"}]}
    if remedy.max_output_tokens is not None:
        short["max_tokens"] = remedy.max_output_tokens
    passed = ask(policies, MemoryStore(), START_NS, one, **short)
    assert passed.denial is None or "choices" in text
