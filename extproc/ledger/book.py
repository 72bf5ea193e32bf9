"""What a database promises to the ledger: transactions, and errors that say what to do about them.

Floor 3. One file a database, `sqlite` and `postgres`. A book belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from extproc.errors import LedgerUnavailable

Row = tuple[Any, ...]


class RecordRefused(LedgerUnavailable):
    """The database will never take one of these values; everything else is worth another try."""


class Transaction(Protocol):
    """Statements that count all together or not at all; parameters are question marks."""

    def rows(self, statement: str, parameters: Row = ()) -> list[Row]:
        """Run one statement; what it returns, nothing where it returns no rows."""

    def run(self, statement: str, rows: Sequence[Row]) -> int:
        """Run a statement once for each row of parameters; how many rows of the table it changed."""


class Book(Protocol):
    """One connection to one database, made when it is needed, with the newest schema on it."""

    def transaction(self, *, is_durable: bool = False) -> AbstractContextManager[Transaction]:
        """A transaction that is committed at the end of the block, and undone by an exception.

        `is_durable` waits until a power loss cannot undo it. Every wait has an end. Raises
        `LedgerUnavailable` (after a commit that was not answered, it may have happened),
        `RecordRefused`, and `SettingsInvalid` where this can never be a ledger.
        """

    def close(self) -> None:
        """Let go of the connection."""
