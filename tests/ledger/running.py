"""A journal that runs, the counters behind it, and a look into its tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from extproc.ledger.book import Row
from extproc.ledger.journal import Journal, JournalSettings
from extproc.ledger.opening import open_book
from extproc.ledger.pages import Place
from extproc.measure.overrides import NO_PRICES, PriceBook
from extproc.pb.ai_policy.v1 import records_pb2 as pb
from extproc.store.base import CounterState
from tests.ledger.samples import SECOND_NS

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000


class Counters:
    """A store as far as the ledger knows it."""

    def __init__(self) -> None:
        self.dirty: dict[str, CounterState] = {}
        self.seeded: list[CounterState] = []
        self.is_seeded = False
        self.version = 0

    def use(self, counter: str, state: str) -> None:
        self.version += 1
        self.dirty[counter] = CounterState(counter=counter, version=self.version, state=state)

    def changed(self) -> tuple[CounterState, ...]:
        changed, self.dirty = tuple(self.dirty.values()), {}
        return changed

    async def seed(self, states: Iterable[CounterState]) -> None:
        self.seeded = list(states)
        self.is_seeded = True


class Clock:
    """Unix time that stands still until it is set."""

    def __init__(self, at_s: int) -> None:
        self.at_s = at_s

    def __call__(self) -> int:
        return self.at_s * SECOND_NS


@asynccontextmanager
async def running(
    url: str,
    *,
    counters: Counters | None = None,
    instance: str = "here",
    scope: str = "here",
    at_s: int = 900,
    clock: Clock | None = None,
    is_shared: bool = False,
    prices: PriceBook = NO_PRICES,
    **settings: Any,
) -> AsyncIterator[Journal]:
    counters = counters or Counters()
    place = Place(instance=instance, scope=scope, deadline_us=HOUR_US)
    journal = Journal(
        open_book(url),
        JournalSettings(place=place, **({"retention_us": 30 * DAY_US} | settings)),
        changed_counters=counters.changed,
        seed=None if is_shared else counters.seed,
        clock_ns=clock or Clock(at_s),
        prices=lambda: prices,
    )
    await journal.start()
    try:
        yield journal
    finally:
        await journal.close()


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread or process does; the test's own time-out ends it."""
    while not is_so():  # noqa: ASYNC110  nothing there tells an event
        await asyncio.sleep(0.005)


async def written(journal: Journal) -> None:
    """Wait until nothing waits."""
    await until(lambda: not journal.status.pending)


def look(url: str, statement: str, *parameters: Any) -> list[Row]:
    """What one statement finds."""
    book = open_book(url)
    try:
        with book.transaction() as transaction:
            return transaction.rows(statement, parameters)
    finally:
        book.close()


def usage(url: str, name: str) -> list[pb.UsageRecord]:
    """What a decision came to, in order."""
    found = look(url, "SELECT record FROM usage WHERE decision_id = ? ORDER BY sequence", name)
    return [pb.UsageRecord.FromString(bytes(record)) for (record,) in found]


def verdict(url: str, name: str) -> pb.DecisionRecord:
    ((record,),) = look(url, "SELECT record FROM decisions WHERE id = ?", name)
    return pb.DecisionRecord.FromString(bytes(record))


def open_ones(url: str) -> list[str]:
    return [name for (name,) in look(url, "SELECT id FROM decisions WHERE is_open ORDER BY id")]
