"""The ledger as requests see it: they leave values, and a thread commits them in groups.

Floor 3. A group is cut on the event loop together with the counters that changed, so that the records
and the counters of one commit tell the same. What cannot be written waits, bounded, and is tried again;
what finds no room is dropped and counted. A killed process loses what was not committed, at most
`GROUP_S` of records nobody waited for; a power loss also what SQLite had not synced for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from extproc.decision import Decision, Settlement
from extproc.errors import LedgerUnavailable, SettingsInvalid
from extproc.ledger.base import Activation, Change, LedgerStatus
from extproc.ledger.book import Book
from extproc.ledger.pages import Entry, Place
from extproc.ledger.thread import LedgerThread
from extproc.ledger.writer import Writer
from extproc.measure.overrides import NO_PRICES, PriceBook
from extproc.store.base import CounterState

log = logging.getLogger(__name__)

# How long a record waits for others.
GROUP_S = 0.02
# Records that wait for a commit, and what they hold about together: a client chooses how long its names are.
CAPACITY = 20_000
CAPACITY_BYTES = 64 * 1024 * 1024
_RECORD_BYTES = 2_000
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
_UPKEEP_S = 60.0
# A shared store answers a settlement after its record was left here: its counter follows this late.
_IDLE_S = 1.0
_MORE_UPKEEP_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSettings:
    """What a journal is told besides where to write."""

    place: Place
    retention_us: int
    commit_timeout_s: float = 2.0  # for who waits
    start_timeout_s: float = 15.0
    capacity: int = CAPACITY
    capacity_bytes: int = CAPACITY_BYTES


@dataclass(slots=True)
class _Batch:
    entries: list[Entry] = field(default_factory=list)
    size_bytes: int = 0  # of the entries, about
    counters: tuple[CounterState, ...] = ()
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    watching: list[asyncio.Future[None]] = field(default_factory=list)  # in no hurry, and never told why not


class Journal:
    """A `Ledger` over a `Book`; call `start` before and `close` after everything else, on one event loop.

    `changed_counters` answers the counters that changed since its last call; `seed` takes up those of an
    earlier run, at the start or as soon as the database is there, None where a store keeps its own.
    `prices` are those of now, for what expires; it is asked on the ledger's thread.
    """

    def __init__(
        self,
        book: Book,
        settings: JournalSettings,
        *,
        changed_counters: Callable[[], tuple[CounterState, ...]],
        seed: Callable[[Iterable[CounterState]], Awaitable[None]] | None,
        clock_ns: Callable[[], int],
        prices: Callable[[], PriceBook] = lambda: NO_PRICES,
    ) -> None:
        self._settings = settings
        self._changed_counters = changed_counters
        self._seed = seed
        self._clock_ns = clock_ns
        self._writer = Writer(book, settings.place, began_at_us=self._now_us(), prices=prices)
        self._thread = LedgerThread()
        self._batch = _Batch()
        self._something = asyncio.Event()  # is there to be written
        self._somebody = asyncio.Event()  # waits for it
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._status = LedgerStatus(is_writing=True, has_counters=seed is None)
        self._retry_s = _FIRST_RETRY_S
        self._upkeep_due_s = 0.0

    @property
    def status(self) -> LedgerStatus:
        """See `Ledger.status`."""
        return replace(
            self._status,
            pending=self._pending,
            dropped=self._status.dropped + self._writer.refused,
            written=self._writer.written,
            expired=self._writer.expired,
        )

    async def start(self) -> None:
        """Open the database, take up an earlier run's counters and end what it left; later, if it is away.

        Raises `SettingsInvalid` where it never can be a ledger.
        """
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                await self._open()
                await self._look_after()
        except TimeoutError:
            self._failed(LedgerUnavailable("the database does not answer"))
        except LedgerUnavailable as error:
            self._failed(error)
        except SettingsInvalid:
            self._closing.set()
            self._thread.stop(self._writer.close)
            raise
        if not self._status.has_counters:
            log.error("nobody knows what was used: the ledger of the earlier run is out of reach")
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def close(self, timeout_s: float = 5.0) -> None:
        """Write what is left, and let go of the database; gives up after `timeout_s`."""
        if self._closing.is_set():
            return
        for event in (self._closing, self._something, self._somebody):
            event.set()
        try:
            async with asyncio.timeout(timeout_s):
                if self._task is not None:
                    await self._task
                await self._thread.run(self._writer.close)
        except TimeoutError:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})
        self._thread.stop(self._writer.close)
        _release(self._batch.waiting, "the ledger is closed")
        _release(self._batch.watching)
        if self._pending:
            log.error("records are lost: the ledger was closed", extra={"records": self._pending})

    def decided(self, decision: Decision) -> None:
        """See `Ledger.decided`."""
        self._put(decision)

    async def committed(self, decision: Decision) -> None:
        """See `Ledger.committed`. Fails at once while the ledger is known not to be written."""
        if self._status.error or self._closing.is_set():
            raise LedgerUnavailable(self._status.error or "the ledger is closed")
        if not self._put(decision):
            raise LedgerUnavailable("too many records wait for the ledger")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batch.waiting.append(done)
        self._somebody.set()
        try:
            async with asyncio.timeout(self._settings.commit_timeout_s):
                await done
        except TimeoutError:
            late = LedgerUnavailable("a commit takes too long")
            self._failed(late)
            raise late from None

    def settled(self, settlement: Settlement) -> None:
        """See `Ledger.settled`."""
        self._put(settlement)

    def changed(self, change: Change) -> None:
        """See `Ledger.changed`."""
        self._put(change)

    def activated(self, revision: str, at_ns: int, wording: Mapping[str, str]) -> None:
        """See `Ledger.activated`."""
        self._put(Activation(revision=revision, at_ns=at_ns, wording=wording))

    async def flushed(self, timeout_s: float) -> None:
        """Wait until what was left here before is committed; not longer than that, nor while nothing can be.

        The commit comes when it would have come anyway.
        """
        if not self._pending or self._status.error or self._closing.is_set():
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batch.watching.append(done)
        self._something.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await done

    async def counters(self) -> tuple[CounterState, ...]:
        """Every counter of this scope as last written down. Raises `LedgerUnavailable`."""
        return await self._thread.run(self._writer.counters)

    @property
    def _pending(self) -> int:
        return len(self._batch.entries) + self._writer.pending

    def _now_us(self) -> int:
        return self._clock_ns() // 1000

    def _put(self, entry: Entry) -> bool:
        size_bytes = self._batch.size_bytes + _size_bytes(entry)
        if self._pending >= self._settings.capacity or size_bytes > self._settings.capacity_bytes:
            self._status = replace(self._status, dropped=self._status.dropped + 1)
            return False
        self._batch.size_bytes = size_bytes
        self._batch.entries.append(entry)
        self._something.set()
        return True

    # --- beside the requests

    async def _open(self) -> None:
        await self._thread.run(self._writer.open)
        if self._status.has_counters or self._seed is None:
            return
        states = await self._thread.run(self._writer.counters)
        await self._seed(states)
        self._status = replace(self._status, has_counters=True)
        log.info("counters taken up", extra={"count": len(states)})

    async def _take_up_late(self) -> None:
        """Open the database at last; what comes meanwhile waits as rows, which are smaller."""
        entries, self._batch.entries, self._batch.size_bytes = self._batch.entries, [], 0
        self._writer.pending += len(entries)
        await self._thread.run(partial(self._writer.take, entries, self._now_us()))
        await self._open()

    async def _keep(self) -> None:
        while not self._closing.is_set():
            await self._due()
            await self._turn()
        await self._turn()

    async def _due(self) -> None:
        """Wait until there is something to do, and then for others to join."""
        if self._status.error:
            await self._pause(self._closing, self._retry_s)
            self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)
            return
        now_s = asyncio.get_running_loop().time()
        await self._pause(self._something, min(_IDLE_S, self._upkeep_due_s - now_s))
        if self._something.is_set():
            await self._pause(self._somebody, GROUP_S)

    async def _pause(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for the event, this long, and no longer than until the journal closes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await event.wait()

    async def _turn(self) -> None:
        """Write everything there is and look after the old, or say that it cannot be done."""
        try:
            if not self._status.has_counters:
                await self._take_up_late()
            await self._commit(self._cut())
            await self._look_after()
        except (LedgerUnavailable, SettingsInvalid) as error:
            self._failed(error)
        except Exception as error:
            log.exception("the ledger failed")
            self._failed(LedgerUnavailable(type(error).__name__))
        else:
            self._succeeded()

    def _cut(self) -> _Batch:
        """What was left so far, and the counters as they are now; nothing may come between the two."""
        batch, self._batch = self._batch, _Batch()
        self._something.clear()
        self._somebody.clear()
        self._writer.pending += len(batch.entries)
        batch.counters = self._changed_counters()
        return batch

    async def _commit(self, batch: _Batch) -> None:
        write = partial(
            self._writer.write,
            batch.entries,
            batch.counters,
            self._now_us(),
            is_durable=bool(batch.waiting),
            is_trial=bool(self._status.error),
        )
        try:
            await self._thread.run(write)
        except Exception:
            _release(batch.waiting, "the ledger could not be written")
            raise
        finally:
            _release(batch.watching)
        _release(batch.waiting)

    async def _look_after(self) -> None:
        """End what nobody will report any more, and forget what is old; a little at a time."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._upkeep_due_s or self._closing.is_set():
            return
        now_us = self._now_us()
        look_after = partial(self._writer.look_after, now_us, now_us - self._settings.retention_us)
        has_more = await self._thread.run(look_after)
        self._upkeep_due_s = now_s + (_MORE_UPKEEP_S if has_more else _UPKEEP_S)

    def _failed(self, error: Exception) -> None:
        if not self._status.error:
            log.error("the ledger is not written", extra={"why": str(error)})
        self._status = replace(self._status, is_writing=False, error=str(error))

    def _succeeded(self) -> None:
        if self._status.error:
            log.warning("the ledger is written again", extra={"dropped": self.status.dropped})
        self._status = replace(self._status, is_writing=True, error="")
        self._retry_s = _FIRST_RETRY_S


def _size_bytes(entry: Entry) -> int:
    """About what an entry holds until it is a row, which is smaller."""
    if isinstance(entry, Activation):
        return _RECORD_BYTES + sum(len(name) + len(text) for name, text in entry.wording.items())
    if not isinstance(entry, Decision):
        return _RECORD_BYTES
    head, request = entry.head, entry.request
    texts = sum(len(name) + len(value) for name, value in head.headers.items()) + len(head.path)
    if request is not None:
        texts += sum(map(len, request.models)) + sum(map(len, request.tools))
    return _RECORD_BYTES + texts


def _release(waiting: list[asyncio.Future[None]], why_not: str = "") -> None:
    """Tell who waits that it is done, or why not."""
    for done in waiting:
        if done.done():
            continue
        if why_not:
            done.set_exception(LedgerUnavailable(why_not))
        else:
            done.set_result(None)
