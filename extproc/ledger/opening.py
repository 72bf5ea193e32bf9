"""Which ledger a URL means.

Floor 3. A new database is one file that keeps `book.Book`, and one line here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from extproc.errors import SettingsInvalid
from extproc.ledger.book import Book
from extproc.ledger.journal import Journal, JournalSettings
from extproc.ledger.pages import Place
from extproc.ledger.postgres import PostgresBook
from extproc.ledger.sqlite import SqliteBook
from extproc.measure.overrides import NO_PRICES, PriceBook
from extproc.store.base import CounterState

# Longer than any answer takes; a report that comes later still is one correction.
_DEADLINE_US = 3_600_000_000
_DAY_US = 86_400_000_000

_BOOKS: Mapping[str, Callable[[str], Book]] = MappingProxyType(
    {
        "sqlite": lambda url: SqliteBook(Path(url.removeprefix("sqlite:")).expanduser()),
        "postgresql": PostgresBook,
        "postgres": PostgresBook,
    }
)


def open_book(url: str) -> Book:
    """The database that a URL names; nothing is connected yet. Raises `SettingsInvalid`."""
    make = _BOOKS.get(url.partition(":")[0])
    if make is None or url == "sqlite:":
        raise SettingsInvalid(
            "--ledger (EXTPROC_LEDGER) names no ledger; set sqlite:PATH, postgresql:// or postgres://"
        )
    return make(url)


def open_ledger(
    url: str,
    *,
    instance: str,
    scope: str,
    changed_counters: Callable[[], tuple[CounterState, ...]],
    seed: Callable[[Iterable[CounterState]], Awaitable[None]] | None,
    retention_days: int,
    prices: Callable[[], PriceBook] = lambda: NO_PRICES,
) -> Journal:
    """The ledger at a URL, to be started; see `Journal`.

    `instance` is the same for every process that takes this one's place, and nobody else's meanwhile;
    `scope` says whose the counters are: the instance's own, or everybody's of a shared store. Needs a
    running event loop. Raises `SettingsInvalid`.
    """
    place = Place(instance=instance, scope=scope, deadline_us=_DEADLINE_US)
    return Journal(
        open_book(url),
        JournalSettings(place=place, retention_us=retention_days * _DAY_US),
        changed_counters=changed_counters,
        seed=seed,
        clock_ns=time.time_ns,
        prices=prices,
    )
