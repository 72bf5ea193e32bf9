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


class LedgerChanged(LedgerUnavailable):
    """Somebody began to write while it was read: what was found counts for nothing; ask again."""


class QuestionTooLong(LedgerUnavailable):
    """The time for a look was over before its end."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            f"there is no answer within {timeout_s:g} s; ask about less time, or fewer decisions"
        )


class Reading(Protocol):
    """Questions that are all answered as of one moment; parameters are question marks."""

    def rows(self, statement: str, parameters: Row = ()) -> list[Row]:
        """Run one statement; what it returns, nothing where it returns no rows."""


class Transaction(Reading, Protocol):
    """Statements that count all together or not at all."""

    def run(self, statement: str, rows: Sequence[Row]) -> int:
        """Run a statement once for each row of parameters; how many rows of the table it changed."""


class Book(Protocol):
    """One database, connected when it is needed, once for writing and once for reading."""

    def transaction(self, *, is_durable: bool = False) -> AbstractContextManager[Transaction]:
        """A transaction on the newest schema, committed at the end of the block and undone by an exception.

        `is_durable` waits until a power loss cannot undo it. Every wait has an end. Raises
        `LedgerUnavailable` (after a commit that was not answered, it may have happened),
        `RecordRefused`, and `SettingsInvalid` where this can never be a ledger.
        """

    def reading(self, *, timeout_s: float) -> AbstractContextManager[Reading]:
        """A look that holds up no writer and waits for none, makes no file and no table.

        It ends after `timeout_s`. Raises `LedgerUnavailable`, `QuestionTooLong` and `LedgerChanged`, the
        last at the end of the block, and `SettingsInvalid` where there is no ledger of this release's schema.
        """

    def close(self) -> None:
        """Let go of the connections."""
