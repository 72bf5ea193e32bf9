"""What waits to be written, as rows: projected once, however often the writing is tried.

Floor 3, no I/O. Of several records with one id the last decision and the first settlement count, as
they do in the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from extproc.decision import Decision, Effect, Settlement
from extproc.ledger.base import Activation, Change
from extproc.ledger.book import Row
from extproc.ledger.records import change_record, decision_record, usage_record
from extproc.ledger.shedding import fitting
from extproc.ledger.storable import column
from extproc.pb.ai_policy.v1 import records_pb2 as pb
from extproc.store.base import CounterState

# As many as a store keeps in memory; of those beyond, the ledger stays behind.
_MOST_COUNTERS = 1_000_000

Entry = Decision | Settlement | Change | Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Who writes."""

    instance: str  # the same for every process that takes its place one after another
    scope: str  # whose counters these are: the instance's own, or a shared store's
    deadline_us: int  # how long after its decision a settlement is waited for


@dataclass(slots=True)
class Pages:
    """Rows by id, and the counters that go with them."""

    decisions: dict[str, Row] = field(default_factory=dict)
    usage: dict[str, Row] = field(default_factory=dict)
    changes: dict[str, Row] = field(default_factory=dict)
    revisions: dict[str, Row] = field(default_factory=dict)
    counters: dict[str, CounterState] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.decisions) + len(self.usage) + len(self.changes) + len(self.revisions)

    def __bool__(self) -> bool:
        return len(self) > 0 or bool(self.counters)

    def add(self, entries: Iterable[Entry], place: Place, at_us: int) -> int:
        """Take more; how many had to be left out, because they can be no record."""
        unfit = 0
        for entry in entries:
            try:
                self._add(entry, place, at_us)
            except (ValueError, TypeError, KeyError):
                unfit += 1
        return unfit

    def count(self, states: Iterable[CounterState]) -> None:
        """Take counters as they are after everything added so far."""
        self.counters |= {state.counter: state for state in states}
        while len(self.counters) > _MOST_COUNTERS:
            del self.counters[next(iter(self.counters))]

    def singles(self) -> Iterator[Pages]:
        """Each row on a page of its own."""
        yield from (Pages(decisions={name: row}) for name, row in self.decisions.items())
        yield from (Pages(usage={name: row}) for name, row in self.usage.items())
        yield from (Pages(changes={name: row}) for name, row in self.changes.items())
        yield from (Pages(revisions={name: row}) for name, row in self.revisions.items())
        yield from (Pages(counters={name: state}) for name, state in self.counters.items())

    def _add(self, entry: Entry, place: Place, at_us: int) -> None:
        if isinstance(entry, Decision):
            self.decisions[entry.id] = _decision_row(entry, place, is_settled=entry.id in self.usage)
        elif isinstance(entry, Settlement):
            self._settle(entry, place, at_us)
        elif isinstance(entry, Change):
            self.changes[entry.change_id] = _change_row(entry, place)
        else:
            self.revisions.pop(entry.revision, None)  # the last one is in force
            self.revisions[entry.revision] = _revision_row(entry)

    def _settle(self, settlement: Settlement, place: Place, at_us: int) -> None:
        name = settlement.decision_id
        if name in self.usage:
            return
        self.usage[name] = usage_row(usage_record(settlement, place.instance), at_us)
        if name in self.decisions:
            self.decisions[name] = _closed(self.decisions[name])


def usage_row(record: pb.UsageRecord, at_us: int) -> Row:
    """The columns of `usage`; `at_us` stands in where nobody saw the end."""
    usage = record.usage
    tokens = [getattr(usage, name) if usage.HasField(name) else None for name in USAGE_COLUMNS]
    return (
        record.decision_id,
        record.sequence,
        pb.UsageKind.Name(record.kind),
        record.basis,
        record.ended_at_ns // 1000 or at_us,
        *tokens,
        record.nano_usd if record.HasField("nano_usd") else None,
        fitting(record),
    )


def _decision_row(decision: Decision, place: Place, *, is_settled: bool) -> Row:
    request, identity = decision.request, decision.identity
    at_us = decision.decided_at_ns // 1000
    return (
        decision.id,
        at_us,
        place.instance,
        decision.effect.value,
        decision.enforced_effect.value,
        decision.reason.value,
        column(str(decision.determining or "")),
        column(identity.team),
        column(identity.user),
        column(identity.key),
        column(identity.id),
        column(request.provider) if request else "",
        column(decision.upstream_model),
        column(request.operation) if request else "",
        decision.would_deny,
        decision.enforced_effect is Effect.ALLOW and not is_settled,
        at_us + place.deadline_us,
        fitting(decision_record(decision, place.instance)),
    )


def _closed(row: Row) -> Row:
    return (*row[:_IS_OPEN], False, *row[_IS_OPEN + 1 :])


def _change_row(change: Change, place: Place) -> Row:
    record = fitting(change_record(change, place.instance))
    return (
        change.change_id,
        change.at_ns // 1000,
        place.instance,
        column(change.action),
        column(change.subject),
        record,
    )


def _revision_row(activation: Activation) -> Row:
    at_us = activation.at_ns // 1000
    # Escaped, so that both databases take every character that YAML can spell.
    return (activation.revision, at_us, at_us, json.dumps(dict(activation.wording)))


# The columns of each table, in the order of its rows.
DECISION_COLUMNS = (
    *("id", "occurred_at_us", "instance", "effect", "enforced_effect", "reason", "policy"),
    *("team", "user_name", "key_name", "identity", "provider", "model", "operation"),
    *("would_deny", "is_open", "deadline_us", "record"),
)
_IS_OPEN = DECISION_COLUMNS.index("is_open")
USAGE_COLUMNS = (
    *("input_tokens", "output_tokens", "cache_read_input_tokens"),
    *("cache_creation_input_tokens", "reasoning_output_tokens"),
)
REVISION_COLUMNS = ("revision", "activated_at_us", "in_force_at_us", "wording")
CHANGE_COLUMNS = ("id", "occurred_at_us", "instance", "action", "subject", "record")
