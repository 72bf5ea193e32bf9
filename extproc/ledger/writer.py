"""What the ledger's thread does with a book; every call belongs there.

Floor 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from extproc.ledger import tables
from extproc.ledger.book import Book, RecordRefused
from extproc.ledger.pages import Entry, Pages, Place
from extproc.measure.overrides import PriceBook
from extproc.store.base import CounterState


class Writer:
    """Keeps what could not be written until it is.

    The three counts may be read by anybody; who hands over work adds it to `pending`.
    """

    def __init__(
        self, book: Book, place: Place, *, began_at_us: int, prices: Callable[[], PriceBook]
    ) -> None:
        self._book = book
        self._place = place
        self._prices = prices
        self._began_at_us = began_at_us
        self._pages = Pages()
        self._in_force = ""  # which revision
        self.pending = 0
        self.written = 0
        self.expired = 0
        self.refused = 0  # that no later try will write

    def open(self) -> None:
        """Connect, and have the newest tables. Raises what `Book.transaction` does."""
        with self._book.transaction():
            pass

    def counters(self) -> tuple[CounterState, ...]:
        """Every counter of the scope. Raises what `Book.transaction` does."""
        with self._book.transaction() as transaction:
            return tables.counters(transaction, self._place.scope)

    def take(self, entries: Iterable[Entry], at_us: int) -> None:
        """Let these wait for the next commit."""
        self.refused += self._pages.add(entries, self._place, at_us)
        self.pending = len(self._pages)
        self._in_force = next(reversed(self._pages.revisions), self._in_force)

    def write(
        self,
        entries: Iterable[Entry],
        counters: Iterable[CounterState],
        at_us: int,
        *,
        is_durable: bool = False,
        is_trial: bool = False,
    ) -> None:
        """Commit these and all that waits from before; `is_trial` asks the database even for nothing.

        Raises what `Book.transaction` does; then everything waits.
        """
        self.take(entries, at_us)
        self._pages.count(counters)
        if not self._pages and not is_trial:
            return
        written, refused = self.pending, 0
        try:
            with self._book.transaction(is_durable=is_durable) as transaction:
                tables.write(transaction, self._pages, self._place, at_us)
        except RecordRefused:
            written, refused = self._write_one_by_one(at_us)
        self.written += written
        self.refused += refused
        self._pages, self.pending = Pages(), 0

    def look_after(self, at_us: int, before_us: int) -> bool:
        """Expire and forget some; whether there may be more. Raises what `Book.transaction` does."""
        with self._book.transaction() as transaction:
            expired = tables.expire(transaction, self._place, at_us, self._began_at_us, self._prices())
        self.expired += expired
        with self._book.transaction() as transaction:
            tables.keep_revisions(transaction, self._in_force, at_us, before_us)
            return tables.prune(transaction, before_us) or expired >= tables.UPKEEP_ROWS

    def close(self) -> None:
        """Let go of the database."""
        self._book.close()

    def _write_one_by_one(self, at_us: int) -> tuple[int, int]:
        """Find what the database refuses, so that it keeps nothing else from being written.

        How many records were written, and how many of them and of counters refused.
        """
        written = refused = 0
        for single in self._pages.singles():
            try:
                with self._book.transaction() as transaction:
                    tables.write(transaction, single, self._place, at_us)
            except RecordRefused:
                refused += 1
            else:
                written += len(single)
        return written, refused
