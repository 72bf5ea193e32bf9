"""What outlives a request: the counters and the ledger, opened and closed together.

Floor 3. Either may be away while the sidecar runs; what that means is the policies' to say, and
`notices` tells people.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from extproc.ledger.journal import Journal
from extproc.ledger.opening import open_book, open_ledger
from extproc.measure.overrides import NO_PRICES, PriceBook
from extproc.questions.reader import LedgerReader
from extproc.settings import Settings
from extproc.store.base import CounterState
from extproc.store.memory import MemoryStore
from extproc.store.opening import open_store
from extproc.store.redis import RedisStore
from extproc.telemetry import Figure

_LEDGER_FIGURES = (
    ("ledger.written", "{record}", "Records in the ledger.", True),
    ("ledger.dropped", "{record}", "Records that found no room in the ledger's queue.", True),
    ("ledger.pending", "{record}", "Records that wait for a commit.", False),
    ("ledger.is_writing", "{ledger}", "1 while the ledger is written.", False),
    ("reservations.expired", "{reservation}", "Charged as reserved, because nobody reported an end.", True),
)

_STORE_FIGURES = (
    ("store.is_connected", "{store}", "1 while the counter store answers.", False),
    ("store.pending", "{settlement}", "Settlements that wait for the counter store.", False),
    ("store.dropped", "{settlement}", "Settlements given up; they stay charged as reserved.", True),
)


class Keeping:
    """The store and the ledger of one process; needs a running event loop. Raises `SettingsInvalid`.

    `prices` are those of now, for what expires.
    """

    def __init__(self, settings: Settings, *, prices: Callable[[], PriceBook] = lambda: NO_PRICES) -> None:
        instance = settings.instance or _instance(settings)
        self.store: MemoryStore | RedisStore = open_store(
            settings.store,
            prefix=settings.store_prefix,
            timeout_s=settings.store_timeout_ms / 1000,
            states=self._written_down,
            awaits_seed=bool(settings.ledger_url),
        )
        self.journal: Journal | None = None
        self.reader: LedgerReader | None = None  # for who asks; on a connection of its own
        if settings.ledger_url:
            self.journal = open_ledger(
                settings.ledger_url,
                instance=instance,
                scope=f"store/{settings.store_prefix}" if self.store.is_shared else instance,
                changed_counters=self.store.changed,
                seed=None if self.store.is_shared else self.store.seed,
                retention_days=settings.retention_days,
                prices=prices,
            )
            self.reader = LedgerReader(open_book(settings.ledger_url), flushed=self.journal.flushed)

    async def start(self) -> None:
        """Open what is there, and take up what an earlier run used. Raises `SettingsInvalid`."""
        if self.journal is not None:
            await self.journal.start()
        if isinstance(self.store, RedisStore):
            await self.store.start()

    async def close(self) -> None:
        """Send and write what is left, for a moment; then let go."""
        if self.reader is not None:
            self.reader.close()
        await self.store.close()
        if self.journal is not None:
            await self.journal.close()

    @property
    def is_writing(self) -> bool:
        """Whether a decision can be put on record now."""
        return self.journal is not None and self.journal.status.is_writing

    def figures(self) -> Iterator[Figure]:
        """What is exported of both."""
        journal, store = self.journal, self.store
        if journal is not None:
            yield from (_figure(journal, *each) for each in _LEDGER_FIGURES)
        if isinstance(store, RedisStore):
            yield from (_figure(store, *each) for each in _STORE_FIGURES)

    def notices(self, *, needs_records: bool = False) -> Iterator[str]:
        """What somebody should know; `needs_records` says that policy lets nothing pass without a record."""
        if isinstance(self.store, RedisStore):
            yield from _of_store(self.store)
        if self.journal is not None:
            yield from _of_ledger(self.journal)
        elif needs_records:
            yield "audit: required denies every request, for there is no ledger; set --ledger or --state"
        elif not self.store.is_shared:
            yield "there is no ledger: a restart forgets what was used; set --ledger or --state"

    async def _written_down(self) -> Iterable[CounterState]:
        if self.journal is None:
            return ()
        return await self.journal.counters()


def _instance(settings: Settings) -> str:
    """The same for whoever takes this one's place, and nobody else's meanwhile: it takes up the counters.

    A file is found by those who have its disk, whatever their host is called this time; a database by hosts
    of any name.
    """
    host = "" if settings.ledger_url.startswith("sqlite:") else os.uname().nodename
    return f"{host}/{settings.grpc}"


def _figure(source: Journal | RedisStore, name: str, unit: str, told: str, only_rises: bool) -> Figure:  # noqa: FBT001  a row of the tables above
    """A number of its status, which has the last part of the name."""
    field = name.rpartition(".")[2]
    return Figure(f"ai_policy.{name}", unit, told, lambda: int(getattr(source.status, field)), only_rises)


def _of_store(store: RedisStore) -> Iterator[str]:
    status = store.status
    if not status.is_connected:
        why = f" ({status.error})" if status.error else ""
        yield f"the counter store does not answer{why}: each limit's onError decides"
    if status.pending:
        yield f"{status.pending} settlements wait for the counter store"
    if status.dropped:
        yield f"{status.dropped} settlements were given up; they stay charged as reserved"


def _of_ledger(journal: Journal) -> Iterator[str]:
    status = journal.status
    if not status.is_writing:
        yield f"the ledger is not written: {status.error}; {status.pending} records wait"
    if not status.has_counters:
        yield "nobody knows what was used: the ledger of the earlier run is out of reach; onError decides"
    if status.dropped:
        yield f"{status.dropped} records found no room in the ledger's queue and are lost"
