"""Sums are exact, the same however they are grouped, and follow the clock of any zone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.decision import Cost, Decision, Effect, Settlement
from extproc.errors import QuestionInvalid
from extproc.ledger.opening import open_book
from extproc.ledger.pages import Pages, Place
from extproc.ledger.tables import expire, write
from extproc.model import Basis, Identity, Usage
from extproc.questions import sums
from extproc.questions.base import COLUMNS, GROUPS, DecisionFilter, UsageQuery, UsageRow, UsageTable
from extproc.questions.sums import offsets
from tests.ledger.conftest import postgres, url
from tests.ledger.running import look
from tests.ledger.samples import SECOND_NS, allowed, denied, settlement

__all__ = ["postgres", "url"]
PLACE = Place(instance="here", scope="here", deadline_us=3_600_000_000)
FIGURES = [field.name for field in fields(UsageRow) if field.name != "group"]
# Half an hour of summer time; three quarters from UTC; a day that never was; a midnight that never was.
ZONES = ("UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "America/Santiago")
BEGIN_S = int(datetime(2025, 9, 1, tzinfo=UTC).timestamp())
END_S = int(datetime(2026, 5, 1, tzinfo=UTC).timestamp())
HUGE = 2**63 - 1  # what is kept of a number of any size

counts = st.none() | st.integers(0, 5_000) | st.sampled_from([0, HUGE])


@st.composite
def entries(draw: st.DrawFn) -> tuple[Decision | None, Settlement | None]:
    """A decision and what it came to, or one of them alone."""
    at_s = draw(st.integers(BEGIN_S, END_S))
    team, model = draw(st.sampled_from(["", "a", "b"])), draw(st.sampled_from(["small", "large"]))
    plain = allowed()
    assert plain.request is not None
    changes: dict[str, Any] = {
        "identity": Identity(id=team, team=team, user=team * 2),
        "request": replace(plain.request, model=model),
        "decided_at_ns": at_s * SECOND_NS + draw(st.sampled_from([0, 1_000, 999_999_000])),
    }
    if draw(st.integers(0, 4)) == 0:
        return denied(**changes), None
    decision = allowed(**changes)
    if draw(st.integers(0, 4)) == 0:
        return decision, None
    usage = Usage(
        input_tokens=draw(counts), output_tokens=draw(counts), cache_read_input_tokens=draw(counts),
        cache_creation_input_tokens=draw(counts), reasoning_output_tokens=draw(counts),
    )  # fmt: skip
    cost = draw(st.none() | st.integers(0, HUGE).map(lambda nano: Cost(nano, "prices")))
    basis = draw(st.sampled_from(Basis))
    end = settlement(usage=usage, cost=cost, basis=basis, ended_at_ns=(at_s + 60) * SECOND_NS)
    return (None if draw(st.integers(0, 9)) == 0 else decision), end


ledgers = st.lists(entries(), max_size=25).map(
    lambda drawn: [
        (
            decision and replace(decision, id=f"decision-{number:06}"),
            end and replace(end, decision_id=f"decision-{number:06}"),
        )
        for number, (decision, end) in enumerate(drawn)
    ]
)


def fill(url: str, ledger: list[tuple[Decision | None, Settlement | None]]) -> None:
    pages = Pages()
    pages.add((entry for pair in ledger for entry in pair if entry is not None), PLACE, 0)
    with closing(open_book(url)) as book, book.transaction() as transaction:
        for table in ("decisions", "usage"):
            transaction.rows(f"DELETE FROM {table}")
        write(transaction, pages, PLACE, 0)


def asked(url: str, query: UsageQuery) -> UsageTable:
    with closing(open_book(url)) as book, book.reading(timeout_s=60) as reading:
        return sums.usage(reading, query)


def folded(
    ledger: list[tuple[Decision | None, Settlement | None]], query: UsageQuery
) -> dict[tuple[str, ...], dict[str, int]]:
    """The same sums, record by record."""
    found: dict[tuple[str, ...], dict[str, int]] = defaultdict(lambda: dict.fromkeys(FIGURES, 0))
    for decision, end in ledger:
        at_us = decision.decided_at_ns // 1000 if decision else end.ended_at_ns // 1000 if end else None
        if at_us is None or not _is_wanted(decision, at_us, query.only):
            continue
        names = _names(decision, end) | _periods(at_us, query.zone)
        into = found[tuple(names[name] for name in query.by)]
        if decision is not None:
            is_denied = decision.enforced_effect is Effect.DENY
            into["requests"] += 1
            into["denied"] += is_denied
            into["is_open"] += not is_denied and end is None
        if end is not None:
            into["unpriced"] += end.cost is None
            into["nano_usd"] += end.cost.nano_usd if end.cost else 0
            for name in FIGURES[5:-1]:
                into[name] += getattr(end.usage, name) or 0
    return {group: figures for group, figures in found.items() if any(figures.values())}


def _is_wanted(decision: Decision | None, at_us: int, only: DecisionFilter) -> bool:
    if decision is None and only.team:
        return False
    is_of_team = not only.team or (decision is not None and decision.identity.team == only.team)
    return is_of_team and (only.since_us or 0) <= at_us < (only.until_us or 2**62)


def _names(decision: Decision | None, end: Settlement | None) -> dict[str, str]:
    names = dict.fromkeys(COLUMNS, "") | {"basis": end.basis if end else ""}
    if decision is None or decision.request is None:
        return names
    identity, request = decision.identity, decision.request
    return names | {
        "team": identity.team, "user": identity.user, "identity": identity.id, "key": identity.key,
        "provider": request.provider, "model": request.model, "operation": request.operation,
        "policy": str(decision.determining or ""), "reason": decision.reason,
    }  # fmt: skip


def _periods(at_us: int, zone: str) -> dict[str, str]:
    moment = datetime.fromtimestamp(at_us // 10**6, ZoneInfo(zone))
    hour = moment.replace(minute=0, second=0, tzinfo=None).isoformat(timespec="minutes")
    offset = f"{moment:%z}"
    return {
        "hour": f"{hour}{offset[:3]}:{offset[3:]}",
        "day": f"{moment:%Y-%m-%d}",
        "month": f"{moment:%Y-%m}",
    }


def figures(row: UsageRow) -> dict[str, int]:
    return {name: getattr(row, name) for name in FIGURES}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shelf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One ledger of each kind, filled anew for every example."""
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path_factory.mktemp('ledger') / 'ledger.sqlite'}"
        return
    with request.getfixturevalue("postgres").database() as found:
        yield found


@settings(max_examples=30)
@given(
    ledger=ledgers,
    by=st.lists(st.sampled_from(GROUPS), unique=True, max_size=4).map(tuple),
    zone=st.sampled_from(ZONES),
    only=st.builds(
        DecisionFilter,
        team=st.sampled_from(["", "", "a"]),
        since_us=st.none() | st.integers(BEGIN_S, END_S).map(lambda s: s * 10**6),
        until_us=st.none() | st.integers(BEGIN_S, END_S).map(lambda s: s * 10**6),
    ),
)
def test_sums_are_those_of_the_records_however_grouped(
    shelf: str,
    ledger: list[tuple[Decision | None, Settlement | None]],
    by: tuple[str, ...],
    zone: str,
    only: DecisionFilter,
) -> None:
    fill(shelf, ledger)
    query = UsageQuery(by=by, zone=zone, only=only)
    table = asked(shelf, query)

    assert {row.group: figures(row) for row in table.rows} == folded(ledger, query)
    whole = asked(shelf, UsageQuery(only=only)).total
    assert table.total == whole
    assert figures(whole) == {name: sum(getattr(row, name) for row in table.rows) for name in FIGURES}


def test_an_hour_that_the_clock_shows_twice_is_two(url: str) -> None:
    """Clocks in Berlin go back at 01:00 UTC; rows are in the order of time, not of their names."""
    begin = int(datetime(2026, 10, 24, 23, 30, tzinfo=UTC).timestamp())
    fill(url, [(allowed(number, at_s=begin + 3600 * number), None) for number in range(4)])
    table = asked(url, UsageQuery(by=("hour",), zone="Europe/Berlin"))

    assert [row.group for row in table.rows] == [
        ("2026-10-25T01:00+02:00",),
        ("2026-10-25T02:00+02:00",),
        ("2026-10-25T02:00+01:00",),
        ("2026-10-25T03:00+01:00",),
    ]
    assert [row.group for row in asked(url, UsageQuery(by=("month", "day"))).rows] == [
        ("2026-10", "2026-10-24"),
        ("2026-10", "2026-10-25"),
    ]


def test_a_clock_that_was_never_set_is_in_the_first_hours_of_1970(url: str) -> None:
    fill(url, [(allowed(1, at_s=0), None), (allowed(2, at_s=100), None)])

    for zone, hour in (("America/New_York", "1969-12-31T19:00-05:00"), ("UTC", "1970-01-01T00:00+00:00")):
        assert [row.group for row in asked(url, UsageQuery(by=("hour",), zone=zone)).rows] == [(hour,)]


def test_what_costs_most_comes_first(url: str) -> None:
    def spent(number: int, team: str, nano_usd: int, tokens: int) -> tuple[Decision, Settlement]:
        usage = Usage(input_tokens=tokens, output_tokens=0)
        end = settlement(number, cost=Cost(nano_usd, ""), usage=usage)
        return allowed(number, identity=Identity(team=team)), end

    fill(url, [spent(1, "d", 5, 1), spent(2, "c", 5, 1), spent(3, "b", 5, 9), spent(4, "a", 4, 99)])
    again = asked(url, UsageQuery(by=("team",)))
    assert [row.group[0] for row in again.rows] == ["b", "c", "d", "a"]
    fill(url, [spent(5, "e", 6, 1)])
    assert [row.group[0] for row in asked(url, UsageQuery(by=("team",))).rows] == ["e"]


def test_what_expired_is_provisional_until_it_is_corrected(url: str) -> None:
    fill(url, [(allowed(1), None), (allowed(2), None)])
    with closing(open_book(url)) as book:
        with book.transaction() as transaction:
            expire(transaction, PLACE, 9_000_000_000, 0)
        pages = Pages()
        pages.add([settlement(1)], PLACE, 0)
        with book.transaction() as transaction:
            write(transaction, pages, PLACE, 0)
    by_basis = {row.group[0]: row for row in asked(url, UsageQuery(by=("basis",))).rows}

    assert (by_basis["expired"].provisional, by_basis["expired"].input_tokens) == (1, 100)
    assert (by_basis["provider"].provisional, by_basis["provider"].input_tokens) == (0, 90)
    assert asked(url, UsageQuery()).total.requests == 2


def test_nothing_comes_to_nothing(url: str) -> None:
    look(url, "SELECT 1")
    for by in ((), ("team", "hour")):
        table = asked(url, UsageQuery(by=by))
        assert (table.rows, table.total) == ((), UsageRow())
    with pytest.raises(QuestionInvalid, match="allow or deny"):
        asked(url, UsageQuery(only=DecisionFilter(enforced_effect="maybe")))
    fill(url, [(allowed(1), None)])
    assert asked(url, UsageQuery(only=DecisionFilter(since_us=5, until_us=4))).total == UsageRow()


def test_more_rows_than_anybody_reads_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "MOST_ROWS", 2)
    fill(url, [(allowed(number, identity=Identity(user=f"u{number}")), None) for number in range(3)])

    with pytest.raises(QuestionInvalid, match="more than 2 rows"):
        asked(url, UsageQuery(by=("user",)))
    assert asked(url, UsageQuery(by=("team",))).total.requests == 3


@pytest.mark.parametrize("name", ZONES)
def test_offsets_are_those_of_the_zone_at_every_time(name: str) -> None:
    zone = ZoneInfo(name)
    begin = datetime(2011, 6, 1, tzinfo=UTC)
    first_us, last_us = (int(moment.timestamp()) * 10**6 for moment in (begin, begin + timedelta(days=400)))
    stretches = offsets(zone, first_us, last_us)

    ends = [stretch.until_us for stretch in stretches[:-1] if stretch.until_us is not None]
    edges = [edge_us + shift_us for edge_us in ends for shift_us in (-(10**6), 0)]
    for at_us in (*range(first_us, last_us, 7 * 3600 * 10**6), *edges):
        own = next(each for each in stretches if each.until_us is None or at_us < each.until_us)
        wanted = datetime.fromtimestamp(at_us // 10**6, zone).utcoffset()
        assert timedelta(microseconds=own.offset_us) == wanted
