"""The ledger from its oldest decision on, page by page: each with what it came to.

Floor 3. Nothing is held but one page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from extproc.decision import Decision, Settlement
from extproc.ledger import restored
from extproc.ledger.book import Book, LedgerChanged, Reading, Row
from extproc.pb.ai_policy.v1 import records_pb2 as pb

_PAGE = 500
_TIMEOUT_S = 60.0
_TRIES = 5
_END_US = 2**62

_DECISIONS = (
    "SELECT occurred_at_us, id, record FROM decisions"
    " WHERE occurred_at_us >= ? AND occurred_at_us < ? AND (occurred_at_us > ? OR id > ?)"
    " ORDER BY occurred_at_us, id LIMIT ?"
)
_ENDINGS = "SELECT decision_id, record FROM usage WHERE decision_id IN ({}) ORDER BY decision_id, sequence"
_SCOPES = "SELECT DISTINCT scope FROM counters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One decision as it is on record."""

    decision: Decision
    instance: str
    shed: tuple[str, ...] = ()
    settlement: Settlement | None = None  # None: it has no end yet, or nobody reported one


def scopes(book: Book) -> frozenset[str]:
    """Whose counters the ledger keeps: those of an instance that has its own, or a shared store's."""
    with book.reading(timeout_s=_TIMEOUT_S) as reading:
        return frozenset(scope for (scope,) in reading.rows(_SCOPES))


def recordings(
    book: Book, *, since_us: int | None = None, until_us: int | None = None
) -> Iterator[Recording | None]:
    """Every decision from `since_us` until before `until_us`, in the order of time.

    None stands for a record that this release does not understand.
    """
    at_us, last = since_us or 0, ""
    while page := _page(book, (at_us, until_us or _END_US, at_us, last, _PAGE)):
        for at_us, last, recording in page:  # noqa: B007  where the next page begins
            yield recording


def _page(book: Book, parameters: Row) -> list[tuple[int, str, Recording | None]]:
    for _ in range(_TRIES - 1):
        try:
            return _read(book, parameters)
        except LedgerChanged:
            continue
    return _read(book, parameters)


def _read(book: Book, parameters: Row) -> list[tuple[int, str, Recording | None]]:
    with book.reading(timeout_s=_TIMEOUT_S) as reading:
        rows = reading.rows(_DECISIONS, parameters)
        endings = _endings(reading, tuple(name for _, name, _ in rows))
    return [(at_us, name, _recording(record, endings.get(name))) for at_us, name, record in rows]


def _endings(reading: Reading, names: tuple[str, ...]) -> dict[str, bytes]:
    """The last ending of each decision that has one: of a provisional one and its correction that."""
    if not names:
        return {}
    return dict(reading.rows(_ENDINGS.format(", ".join("?" * len(names))), names))


def _recording(record: bytes, ending: bytes | None) -> Recording | None:
    try:
        found = pb.DecisionRecord.FromString(record)
        return Recording(
            decision=restored.decision(found),
            instance=found.instance,
            shed=tuple(found.shed),
            settlement=_settlement(ending),
        )
    except (ValueError, KeyError, DecodeError):
        return None


def _settlement(ending: bytes | None) -> Settlement | None:
    if ending is None:
        return None
    record = pb.UsageRecord.FromString(ending)
    return None if record.provisional else restored.settlement(record)
