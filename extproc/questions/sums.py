"""Usage: sums over decisions and what they came to, exact, by columns and by the clock of a zone.

Floor 3, pure but for the statements. Sums travel in two halves, because SQLite refuses one that has no
room in 64 bits, and a provider may report any number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import takewhile
from operator import add
from types import MappingProxyType
from typing import Final

from extproc.errors import QuestionInvalid
from extproc.ledger.book import Reading, Row
from extproc.questions import times
from extproc.questions.base import COLUMNS, GROUPS, PERIODS, DecisionFilter, UsageQuery, UsageRow, UsageTable
from extproc.questions.queries import COLUMN_OF, LAST_USAGE, is_about_decisions, span_us, where

# One answer: it is held in memory, and put in order in one go, in which no request gets its turn.
MOST_ROWS: Final = 20_000
_SECOND_US: Final = 1_000_000
_HOUR_US: Final = 3_600 * _SECOND_US
_DAY_US: Final = 24 * _HOUR_US
_EPOCH: Final = date(1970, 1, 1)
# 400 years: divisions round towards zero, and a clock may never have been set.
_ERA_US: Final = 146_097 * _DAY_US
_LOW_BITS: Final = 32
_LOW: Final = (1 << _LOW_BITS) - 1

_COUNTS: Final = ("requests", "denied", "is_open", "provisional", "unpriced")
_SUMS: Final = (
    *("input_tokens", "output_tokens", "cache_read_input_tokens"),
    *("cache_creation_input_tokens", "reasoning_output_tokens", "nano_usd"),
)
_OF_USAGE: Final = (
    "SUM(CASE WHEN u.kind = 'EXPIRE' THEN 1 ELSE 0 END)",
    "SUM(CASE WHEN u.decision_id IS NOT NULL AND u.nano_usd IS NULL THEN 1 ELSE 0 END)",
    *(half for name in _SUMS for half in (f"SUM(u.{name} >> {_LOW_BITS})", f"SUM(u.{name} & {_LOW})")),
)
_OF_DECISIONS: Final = (
    "COUNT(*)",
    "SUM(CASE WHEN d.enforced_effect = 'deny' THEN 1 ELSE 0 END)",
    "SUM(CASE WHEN d.is_open THEN 1 ELSE 0 END)",
)
_HALVES: Final = 2 * len(_SUMS)
_FIGURES: Final = len(_COUNTS) + _HALVES
_TIMES: Final = (
    "SELECT MIN(first), MAX(last) FROM ("
    "SELECT (SELECT MIN(occurred_at_us) FROM decisions) AS first,"
    " (SELECT MAX(occurred_at_us) FROM decisions) AS last UNION ALL "
    "SELECT (SELECT MIN(occurred_at_us) FROM usage), (SELECT MAX(occurred_at_us) FROM usage)) AS times"
)

Key = tuple[str, ...]
Totals = list[int]  # _COUNTS, then _SUMS


@dataclass(frozen=True, slots=True)
class Stretch:
    """A zone's offset from UTC until a time; the last one has no end."""

    until_us: int | None
    offset_us: int


def usage(reading: Reading, query: UsageQuery) -> UsageTable:
    """The sums of a query. Raises `QuestionInvalid`."""
    zone = _checked(query)
    where(query.only)  # an empty ledger refuses what a full one does
    only = _within(reading, query.only)
    groups: dict[Key, Totals] = {}
    if only is not None:
        stretches = offsets(zone, *span_us(only)) if set(query.by) & set(PERIODS) else ()
        for key, totals in _rows(reading, query, only, stretches):
            groups[key] = list(map(add, groups[key], totals)) if key in groups else totals
    total: Totals = [sum(column) for column in zip(*groups.values(), strict=True)]
    rows = [_row(key, totals) for key, totals in groups.items() if any(totals)]
    return UsageTable(query=query, rows=_in_order(rows, query.by), total=_row((), total))


def _checked(query: UsageQuery) -> tzinfo:
    zone = times.zone(query.zone)
    if len(set(query.by)) < len(query.by) or not set(query.by) <= set(GROUPS):
        raise QuestionInvalid(f"usage is grouped by any of {', '.join(GROUPS)}, each once")
    return zone


def _within(reading: Reading, only: DecisionFilter) -> DecisionFilter | None:
    """The filter with both ends of its time, no wider than what there is; None where nothing is left."""
    ((first_us, last_us),) = reading.rows(_TIMES)
    if first_us is None:
        return None
    since_us, until_us = span_us(only)
    since_us, until_us = max(since_us, first_us), min(until_us, last_us + 1)
    if since_us >= until_us:
        return None
    return replace(only, since_us=since_us, until_us=until_us)


# --- from rows to groups


def _rows(
    reading: Reading, query: UsageQuery, only: DecisionFilter, stretches: tuple[Stretch, ...]
) -> Iterator[tuple[Key, Totals]]:
    columns = [name for name in query.by if name in COLUMNS]
    period = next((name for name in PERIODS if name in query.by), "")  # the finest; it tells the others
    found = _of_decisions(reading, only, columns, _time("d", period, stretches))
    if not is_about_decisions(query.only):
        found += _of_orphans(reading, only, columns, _time("u", period, stretches))
    for row in found:
        of_column = dict(zip(columns, row, strict=False))
        times = row[len(columns) : -_FIGURES]
        labels = of_column | (_LABELS[period](*times) if period else {})
        yield tuple(labels[name] for name in query.by), _totals(row[-_FIGURES:])


def _of_decisions(
    reading: Reading, only: DecisionFilter, columns: list[str], time: tuple[str, ...]
) -> list[Row]:
    groups = (*(COLUMN_OF.get(name, "COALESCE(u.basis, '')") for name in columns), *time)
    conditions, parameters = where(only)
    return _grouped(
        reading,
        groups,
        (*_OF_DECISIONS, *_OF_USAGE),
        f"decisions AS d {LAST_USAGE} WHERE {conditions}",
        parameters,
    )


def _of_orphans(
    reading: Reading, only: DecisionFilter, columns: list[str], time: tuple[str, ...]
) -> list[Row]:
    """What decisions came to that are not on record: whoever they were, it was used."""
    groups = (*("u.basis" if name == "basis" else "''" for name in columns), *time)
    source = (
        "usage AS u WHERE u.occurred_at_us >= ? AND u.occurred_at_us < ?"
        " AND NOT EXISTS (SELECT 1 FROM decisions AS d WHERE d.id = u.decision_id) AND NOT EXISTS"
        " (SELECT 1 FROM usage AS later"
        " WHERE later.decision_id = u.decision_id AND later.sequence > u.sequence)"
    )
    return _grouped(reading, groups, ("0", "0", "0", *_OF_USAGE), source, span_us(only))


def _grouped(
    reading: Reading, groups: tuple[str, ...], figures: tuple[str, ...], source: str, parameters: Row
) -> list[Row]:
    places = ", ".join(str(number) for number in range(1, len(groups) + 1))
    # In an order that needs every group: Postgres would look for a way to the first few alone, by an index
    # of teams, and take eight times as long to all of them.
    by = f" GROUP BY {places} ORDER BY COUNT(*) DESC" if groups else ""
    statement = f"SELECT {', '.join((*groups, *figures))} FROM {source}{by} LIMIT {MOST_ROWS + 1}"  # noqa: S608  our own words
    found = reading.rows(statement, parameters)
    if len(found) > MOST_ROWS:
        raise QuestionInvalid(
            f"these are more than {MOST_ROWS:,} rows; ask about less time, or group by less"
        )
    return found


def _totals(figures: Row) -> Totals:
    exact = [int(figure or 0) for figure in figures]
    counts, halves = exact[: len(_COUNTS)], exact[len(_COUNTS) :]
    return [
        *counts,
        *((high << _LOW_BITS) + low for high, low in zip(halves[::2], halves[1::2], strict=True)),
    ]


def _row(key: Key, totals: Totals) -> UsageRow:
    return UsageRow(group=key, **dict(zip((*_COUNTS, *_SUMS), totals, strict=False)))


def _in_order(rows: Iterable[UsageRow], by: tuple[str, ...]) -> tuple[UsageRow, ...]:
    """By time where that comes first, else what matters most; then by name, so that answers are the same."""
    ranked = sorted(
        rows, key=lambda row: (-row.nano_usd, -row.input_tokens - row.output_tokens, -row.requests, row.group)
    )
    periods = len(list(takewhile(PERIODS.__contains__, by)))
    if not periods:
        return tuple(ranked)
    began = {label: _began_s(label) for row in ranked for label in row.group[:periods]}
    return tuple(sorted(ranked, key=lambda row: [began[label] for label in row.group[:periods]]))


# --- time


def _time(table: str, period: str, stretches: tuple[Stretch, ...]) -> tuple[str, ...]:
    """Expressions for which period it was on the zone's clock."""
    if not period:
        return ()
    offset = _offset(table, stretches)
    unit_us = _HOUR_US if period == "hour" else _DAY_US
    number = f"({table}.occurred_at_us + {_ERA_US} + {offset}) / {unit_us}"
    # An hour that the clock shows twice is two hours.
    return (number, offset) if period == "hour" else (number,)


def _offset(table: str, stretches: tuple[Stretch, ...]) -> str:
    *others, last = stretches
    if not others:
        # As a sum: a number alone would name a column to group by.
        return f"(0 + {last.offset_us})"
    cases = " ".join(
        f"WHEN {table}.occurred_at_us < {stretch.until_us} THEN {stretch.offset_us}" for stretch in others
    )
    return f"(CASE {cases} ELSE {last.offset_us} END)"


@lru_cache(maxsize=64)
def offsets(zone: tzinfo, since_us: int, until_us: int) -> tuple[Stretch, ...]:
    """The zone's offsets from UTC between two times, each with its end; no zone has two within a day."""
    found: list[Stretch] = []
    at_us, offset_us = since_us, _offset_us(zone, since_us)
    while at_us < until_us:
        next_us = min(at_us + _DAY_US, until_us)
        if (changed_us := _offset_us(zone, next_us)) != offset_us:
            found.append(Stretch(_change_us(zone, at_us, next_us), offset_us))
            offset_us = changed_us
        at_us = next_us
    return (*found, Stretch(None, offset_us))


def _change_us(zone: tzinfo, before_us: int, after_us: int) -> int:
    """When between two times the offset changes, which is at a whole second."""
    before_s, after_s = before_us // _SECOND_US, -(-after_us // _SECOND_US)
    old_us = _offset_us(zone, before_us)
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if _offset_us(zone, middle_s * _SECOND_US) == old_us:
            before_s = middle_s
        else:
            after_s = middle_s
    return after_s * _SECOND_US


def _offset_us(zone: tzinfo, at_us: int) -> int:
    offset = datetime.fromtimestamp(at_us // _SECOND_US, zone).utcoffset() or timedelta()
    return offset // timedelta(microseconds=1)


def _hour(number: int, offset_us: int) -> dict[str, str]:
    zone = timezone(timedelta(microseconds=int(offset_us)))
    shown_us = int(number) * _HOUR_US - _ERA_US
    shown = datetime(1970, 1, 1, tzinfo=zone) + timedelta(microseconds=shown_us)
    return {"hour": shown.isoformat(timespec="minutes"), **_days(shown.date())}


def _day(number: int) -> dict[str, str]:
    return _days(_EPOCH + timedelta(days=int(number) - _ERA_US // _DAY_US))


def _days(shown: date) -> dict[str, str]:
    return {"day": shown.isoformat(), "month": shown.isoformat()[:7]}


_LABELS: Final[Mapping[str, Callable[..., dict[str, str]]]] = MappingProxyType(
    {"hour": _hour, "day": _day, "month": _day}
)


def _began_s(label: str) -> float:
    """When a period began, to put it in order."""
    began = datetime.fromisoformat(label if len(label) > len("2026-01") else f"{label}-01")
    return (began if began.tzinfo else began.replace(tzinfo=UTC)).timestamp()
