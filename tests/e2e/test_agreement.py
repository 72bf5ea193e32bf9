"""The checker itself: it accepts what agrees, and finds every record that was altered, lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from tests.e2e.agreement import (
    SOURCES,
    Accounts,
    Answered,
    Booked,
    Decided,
    Ended,
    Logged,
    Recorded,
    Worked,
    disagreements,
)

CAP, DEFAULT = "RateLimit/small", "Defaults/main"


def request(
    name: str, *, basis: str = "provider", given: int = 9, made: int = 20, status: int = 200
) -> dict[str, Any]:
    """An allowed request as each source has it."""
    nano_usd = given * 150 + made * 600
    trace, is_read = f"trace of {name}", basis == "provider"
    verdict: dict[str, Any] = {
        "decision_id": name,
        "trace_id": trace,
        "effect": "allow",
        "enforced_effect": "allow",
        "reason": "allowed",
        "policy": DEFAULT,
        "team": "support",
        "provider": "openai",
        "input_estimate": 8,
    }
    came_to: dict[str, Any] = {
        "decision_id": name,
        "basis": basis,
        "status": status,
        "input_tokens": given,
        "output_tokens": made,
        "nano_usd": nano_usd,
    }
    return {
        "clients": Answered(
            decision_id=name,
            status=status,
            input_tokens=given if is_read else None,
            output_tokens=made if is_read else None,
        ),
        "access_log": Logged(
            decision_id=name,
            status=status,
            flags="-",
            enforced_effect="allow",
            policy=DEFAULT,
            team="support",
            model="gpt-4o-mini",
            input_tokens=given if is_read else 8,
            output_tokens=made if is_read else 0,
            nano_usd=nano_usd if is_read else None,
        ),
        "decide_spans": Decided(**verdict),
        "work_spans": Worked(**came_to, trace_id=trace),
        "decisions": Recorded(**verdict, model="gpt-4o-mini", denied_with=0),
        "endings": Ended(**came_to, charged=(1, given + made, given, made, nano_usd)),
        "books": Booked(
            decision_id=name,
            status=status,
            model="gpt-4o-mini",
            input_tokens=9,
            output_tokens=0 if basis == "upstream_error" else 20,
        ),
    }


def denied(name: str) -> dict[str, Any]:
    verdict: dict[str, Any] = {
        "decision_id": name,
        "trace_id": f"trace of {name}",
        "effect": "deny",
        "enforced_effect": "deny",
        "reason": "rate_limited",
        "policy": CAP,
        "team": "batch",
        "provider": "openai",
        "input_estimate": 8,
    }
    return {
        "clients": Answered(decision_id=name, status=429, body_ids=(name,)),
        "access_log": Logged(
            decision_id=name,
            status=429,
            flags="-",
            enforced_effect="deny",
            policy=CAP,
            team="batch",
            model="gpt-4o-mini",
            input_tokens=8,
            output_tokens=0,
            nano_usd=None,
        ),
        "decide_spans": Decided(**verdict),
        "decisions": Recorded(
            **verdict,
            model="gpt-4o-mini",
            denied_with=429,
            would_deny=("RateLimit/trial",),
        ),
    }


def accounts() -> Accounts:
    """Everybody's account of four requests."""
    told = [
        request("reported"),
        request("counted", basis="tokenizer", made=21),
        request("failed", basis="upstream_error", given=0, made=0, status=500),
        denied("denied"),
    ]
    by_source = {source: tuple(each[source] for each in told if source in each) for source in SOURCES}
    endings: tuple[Ended, ...] = by_source["endings"]
    sums = {
        ("decisions", "allow", "allow", "allowed"): 3,
        ("decisions", "deny", "deny", "rate_limited"): 1,
        ("denials", CAP, "rate_limited"): 1,
        ("divergence", "RateLimit/trial"): 1,
    }
    for ended in endings:
        key = ended.basis, "openai"
        sums["settlements", *key] = 1
        if ended.nano_usd:
            sums["tokens", *key, "input"] = ended.input_tokens
            sums["tokens", *key, "output"] = ended.output_tokens
            sums["cost", *key] = ended.nano_usd
    charged: Any = tuple(sum(column) for column in zip(*(each.charged for each in endings), strict=True))
    return Accounts(**by_source, books_totals=(3, 27, 40), metrics=sums, counters={"support": charged})


AGREED = accounts()


def altered(value: Any) -> Iterator[Any]:
    """Other values in its place."""
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, value - 1)
        case str():
            yield from ("another", "")
        case tuple():
            yield (
                (*value, "another") if not value or isinstance(value[0], str) else (value[0] + 1, *value[1:])
            )
            if value:
                yield from (
                    (*value[:place], each, *value[place + 1 :])
                    for place, one in enumerate(value)
                    for each in altered(one)
                )
        case None:
            yield 1


def alterations(told: Accounts, source: str, place: int) -> Iterator[tuple[str, Accounts]]:
    """One record lost, doubled, or with one of its fields altered."""
    records = list(getattr(told, source))

    def instead(*others: Any) -> Accounts:
        given: dict[str, Any] = {source: others}
        return replace(told, **given)

    record = records[place]
    yield "lost", instead(*records[:place], *records[place + 1 :])
    yield "doubled", instead(*records, record)
    for name in (field.name for field in fields(record)):
        for value in altered(getattr(record, name)):
            other = replace(record, **{name: value})
            if other != record:
                yield f"{name}={value!r}", instead(*records[:place], other, *records[place + 1 :])


def test_accounts_that_agree_are_accepted() -> None:
    assert disagreements(AGREED) == []


@pytest.mark.parametrize("source", SOURCES)
def test_every_altered_lost_or_doubled_record_is_found(source: str) -> None:
    missed = [
        (record.decision_id, what)
        for place, record in enumerate(getattr(AGREED, source))
        for what, told in alterations(AGREED, source, place)
        if not disagreements(told)
    ]

    assert missed == []


@pytest.mark.parametrize("name", AGREED.metrics)
def test_every_altered_sum_of_the_metrics_is_found(name: tuple[str, ...]) -> None:
    others = {other: count for other, count in AGREED.metrics.items() if other != name}
    for sums in (others, others | {name: AGREED.metrics[name] + 1}, others | {(*name, "another"): 1}):
        assert disagreements(replace(AGREED, metrics=sums))


def test_every_altered_total_of_books_and_counters_is_found() -> None:
    for totals in altered(AGREED.books_totals):
        assert disagreements(replace(AGREED, books_totals=totals))
    for charged in altered(AGREED.counters["support"]):
        assert disagreements(replace(AGREED, counters={"support": charged}))
    assert disagreements(replace(AGREED, counters={}))


def test_a_disagreement_names_the_decision_the_sources_and_their_figures() -> None:
    (ended, *others) = AGREED.endings
    told = replace(AGREED, endings=(replace(ended, output_tokens=21), *others))

    assert "reported: output_tokens: ledger says 21, work_span 20" in disagreements(told)
