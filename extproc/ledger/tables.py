"""The ledger's tables: what is written to them, found in them and taken away, in SQL of both databases.

Floor 3. Everything may be done again: after a commit that was not answered it will be.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from google.protobuf.message import DecodeError

from extproc.decision import Settlement
from extproc.ledger import restored
from extproc.ledger.book import Row, Transaction
from extproc.ledger.pages import (
    CHANGE_COLUMNS,
    DECISION_COLUMNS,
    REVISION_COLUMNS,
    USAGE_COLUMNS,
    Pages,
    Place,
    usage_row,
)
from extproc.ledger.records import usage_record
from extproc.measure.overrides import NO_PRICES, PriceBook
from extproc.model import Basis, Usage
from extproc.pb.ai_policy.v1 import records_pb2 as pb
from extproc.policy.accounting import Ending, settle
from extproc.store.base import CounterState

# What one transaction of upkeep touches: requests wait for it.
UPKEEP_ROWS = 500
# Databases bound how many parameters a statement has; SQLite's oldest bound is 999.
_IDS_AT_ONCE = 500
_COUNTERS_AT_ONCE = 10_000
# A revision counts as in force this much longer: how exactly it is kept, and requests that outlive it.
_IN_FORCE_US = 3_600_000_000
_STILL_USED_US = 86_400_000_000


def _insert(table: str, columns: Sequence[str], conflict: str) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT {conflict}"  # noqa: S608  our own names


# A request that could not be put on record in time is decided again, and then denied.
_NEWEST_VERDICT = ", ".join(
    f"{name} = excluded.{name}" for name in DECISION_COLUMNS if name not in ("id", "instance", "is_open")
)
# What has an end keeps it.
_STILL_OPEN = "is_open = decisions.is_open AND excluded.is_open"
_INSERT_DECISION = _insert(
    "decisions", DECISION_COLUMNS, f"(id) DO UPDATE SET {_NEWEST_VERDICT}, {_STILL_OPEN}"
)
_INSERT_USAGE = _insert(
    "usage",
    ("decision_id", "sequence", "kind", "basis", "occurred_at_us", *USAGE_COLUMNS, "nano_usd", "record"),
    "(decision_id, sequence) DO NOTHING",
)
_INSERT_CHANGE = _insert("changes", CHANGE_COLUMNS, "(id) DO NOTHING")
_INSERT_REVISION = _insert("revisions", REVISION_COLUMNS, "(revision) DO NOTHING")
_IN_FORCE = "UPDATE revisions SET in_force_at_us = ? WHERE revision = ? AND in_force_at_us < ?"
# The newest may be in force where nobody has told yet.
_FORGET_REVISIONS = (
    "DELETE FROM revisions WHERE in_force_at_us < ?"
    " AND activated_at_us < (SELECT MAX(activated_at_us) FROM revisions)"
)
_UPSERT_COUNTER = (
    _insert("counters", ("scope", "counter", "version", "state", "updated_at_us"), "(scope, counter)")
    + " DO UPDATE SET version = excluded.version, state = excluded.state,"
    " updated_at_us = excluded.updated_at_us WHERE excluded.version > counters.version"
)
_DELETE_COUNTER = "DELETE FROM counters WHERE scope = ? AND counter = ? AND version < ?"
_EXPIRED = "SELECT decision_id FROM usage WHERE sequence = 1 AND kind = 'EXPIRE'"
_CLOSE = "UPDATE decisions SET is_open = FALSE WHERE id = ? AND is_open"
_PAST_DEADLINE = (
    "SELECT id, record FROM decisions WHERE is_open AND deadline_us <= ? ORDER BY deadline_us LIMIT ?"
)
_LEFT_OPEN = (
    "SELECT id, record FROM decisions WHERE is_open AND instance = ? AND occurred_at_us < ?"
    " ORDER BY deadline_us LIMIT ?"
)
_OLD = "SELECT id FROM decisions WHERE occurred_at_us < ? AND NOT is_open ORDER BY occurred_at_us LIMIT ?"
_OLD_USAGE = (
    "SELECT decision_id FROM usage WHERE occurred_at_us < ? AND NOT EXISTS"
    " (SELECT 1 FROM decisions WHERE decisions.id = usage.decision_id) ORDER BY occurred_at_us LIMIT ?"
)
_DELETE_DECISION = "DELETE FROM decisions WHERE id = ?"
_DELETE_USAGE = "DELETE FROM usage WHERE decision_id = ?"
_COUNTERS = (
    "SELECT counter, version, state FROM counters WHERE scope = ? AND counter > ? ORDER BY counter LIMIT ?"
)


def write(transaction: Transaction, pages: Pages, place: Place, at_us: int) -> None:
    """Write everything down that is not there yet."""
    # In one order everywhere: whoever writes the same rows at the same time waits, and no two wait for
    # each other.
    if pages.decisions:
        transaction.run(_INSERT_DECISION, [pages.decisions[name] for name in sorted(pages.decisions)])
    if pages.usage:
        _settle(transaction, pages)
    if pages.changes:
        transaction.run(_INSERT_CHANGE, list(pages.changes.values()))
    if pages.revisions:
        transaction.run(_INSERT_REVISION, [pages.revisions[name] for name in sorted(pages.revisions)])
    if pages.counters:
        _count(transaction, pages, place.scope, at_us)


def _settle(transaction: Transaction, pages: Pages) -> None:
    rows = [pages.usage[name] for name in sorted(pages.usage)]
    if transaction.run(_INSERT_USAGE, rows) < len(rows):
        # Some are there already: written by an earlier try, or expired meanwhile.
        expired = _expired(transaction, sorted(pages.usage))
        late = [_adjusted(pages.usage[name]) for name in expired]
        if late:
            transaction.run(_INSERT_USAGE, late)
    earlier = [(name,) for name in sorted(pages.usage) if name not in pages.decisions]
    if earlier:
        transaction.run(_CLOSE, earlier)


def _expired(transaction: Transaction, names: list[str]) -> list[str]:
    found: list[str] = []
    for some in _chunks(names):
        marks = ", ".join("?" * len(some))
        rows = transaction.rows(f"{_EXPIRED} AND decision_id IN ({marks})", tuple(some))
        found += [name for (name,) in rows]
    return found


def _adjusted(row: Row) -> Row:
    """The settlement as the correction of what was set down provisionally."""
    record = pb.UsageRecord.FromString(row[-1])
    record.kind, record.sequence = pb.ADJUST, 2
    return usage_row(record, row[4])


def _count(transaction: Transaction, pages: Pages, scope: str, at_us: int) -> None:
    states = [pages.counters[name] for name in sorted(pages.counters)]
    kept = [(scope, state.counter, state.version, state.state, at_us) for state in states if state.state]
    gone = [(scope, state.counter, state.version) for state in states if not state.state]
    if kept:
        transaction.run(_UPSERT_COUNTER, kept)
    if gone:
        transaction.run(_DELETE_COUNTER, gone)


def counters(transaction: Transaction, scope: str) -> tuple[CounterState, ...]:
    """Every counter of the scope as it was last written down."""
    found: list[CounterState] = []
    last = ""
    while rows := transaction.rows(_COUNTERS, (scope, last, _COUNTERS_AT_ONCE)):
        found += [CounterState(counter=name, version=version, state=state) for name, version, state in rows]
        last = rows[-1][0]
    return tuple(found)


def expire(
    transaction: Transaction, place: Place, at_us: int, began_at_us: int, prices: PriceBook = NO_PRICES
) -> int:
    """Give some of the decisions that nobody reported an end; how many: `UPKEEP_ROWS` may not be all.

    Those past their deadline, and those that an earlier process in this one's place left open: it
    cannot report any more.
    """
    found: dict[str, bytes] = dict(transaction.rows(_PAST_DEADLINE, (at_us, UPKEEP_ROWS)))
    found |= dict(transaction.rows(_LEFT_OPEN, (place.instance, began_at_us, UPKEEP_ROWS)))
    names = sorted(found)
    if names:
        ends = [_end(name, bytes(found[name]), place, at_us, prices) for name in names]
        transaction.run(_INSERT_USAGE, ends)
        transaction.run(_CLOSE, [(name,) for name in names])
    return len(names)


def _end(name: str, record: bytes, place: Place, at_us: int, prices: PriceBook) -> Row:
    """What was reserved, as what it came to until somebody knows better."""
    try:
        account = settle(restored.decision(pb.DecisionRecord.FromString(record)), Ending(), prices)
        usage, amounts, cost = account.usage, account.amounts, account.cost
    except (ValueError, KeyError, DecodeError):
        # Written by a newer release, or half of it was shed: the end is known, the figures are not.
        usage, amounts, cost = Usage(), {}, None
    settlement = Settlement(
        decision_id=name,
        basis=Basis.EXPIRED,
        usage=usage,
        amounts=amounts,
        cost=cost,
        ended_at_ns=at_us * 1000,
    )
    return usage_row(usage_record(settlement, place.instance, pb.EXPIRE), at_us)


def prune(transaction: Transaction, before_us: int) -> bool:
    """Forget some of the records that are older and have an end; whether there may be more."""
    old = transaction.rows(_OLD, (before_us, UPKEEP_ROWS))
    orphans = transaction.rows(_OLD_USAGE, (before_us, UPKEEP_ROWS))
    if old or orphans:
        transaction.run(_DELETE_USAGE, [*old, *orphans])
    if old:
        transaction.run(_DELETE_DECISION, old)
    return max(len(old), len(orphans)) >= UPKEEP_ROWS


def keep_revisions(transaction: Transaction, in_force: str, at_us: int, before_us: int) -> None:
    """Note which revision is in force, and forget those under which no decision is left."""
    if in_force:
        transaction.run(_IN_FORCE, [(at_us, in_force, at_us - _IN_FORCE_US)])
    transaction.rows(_FORGET_REVISIONS, (before_us - _STILL_USED_US,))


def _chunks(names: list[str]) -> Iterator[list[str]]:
    left = iter(names)
    while some := list(itertools.islice(left, _IDS_AT_ONCE)):
        yield some
