"""The ledger in a SQLite file: one machine, nothing to run.

Floor 3. Write-ahead log: what is committed outlives a killed process, and a durable commit a power
loss too. Several processes may write one file; readers never wait.
Source: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from extproc.errors import LedgerUnavailable, SettingsInvalid
from extproc.ledger.book import RecordRefused, Row
from extproc.ledger.schema import migrate

# Another process writes for milliseconds; longer is worth saying.
_BUSY_TIMEOUT_S = 5.0
# What is left of a log that grew while a reader held on to it.
_LOG_BYTES = 64 * 1024 * 1024
# No later try mends these: https://www.sqlite.org/rescode.html.
_HOPELESS = frozenset(
    {
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
_REFUSED = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeError,
)
_HAS_VERSIONS = "SELECT COUNT(*) FROM sqlite_master WHERE name = 'ledger_version'"


class _Transaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, parameters: Row = ()) -> list[Row]:
        return self._connection.execute(statement, parameters).fetchall()

    def run(self, statement: str, rows: Sequence[Row]) -> int:
        return max(0, self._connection.executemany(statement, rows).rowcount)


class SqliteBook:
    """A `Book` in a file, made with its folder where it is missing; nobody else may read it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    @contextmanager
    def transaction(self, *, is_durable: bool = False) -> Iterator[_Transaction]:
        """See `Book.transaction`."""
        connection = self._connected()
        try:
            # Outside of a transaction, where alone it has an effect.
            connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            yield _Transaction(connection)
            connection.execute("COMMIT")
        except _REFUSED as error:
            self.close()
            raise RecordRefused(f"a record was refused: {type(error).__name__}") from error
        except sqlite3.Error as error:
            self.close()
            raise LedgerUnavailable(str(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """See `Book.close`. What is not committed is undone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # A full disk may refuse even this; the log is read again by who opens the file next.
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and not self._is_there():
            self.close()
            raise LedgerUnavailable("the file was moved or deleted")
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _is_there(self) -> bool:
        """Whether the name still means the file that is written: SQLite would go on without a name."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def _connect(self) -> sqlite3.Connection:
        self._make_file()
        try:
            connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _HOPELESS:
                raise self._unusable(str(error)) from error
            raise LedgerUnavailable(str(error)) from error
        return connection

    def _make_file(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._inode = os.fstat(file).st_ino
            os.close(file)
        except OSError as error:
            raise self._unusable(error.strerror or type(error).__name__) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            ((found,),) = connection.execute(_HAS_VERSIONS).fetchall()
            migrate(_Transaction(connection), is_new=not found)
        except SettingsInvalid as problem:
            raise SettingsInvalid(f"{problem} ({self._path})") from problem
        connection.execute("COMMIT")

    def _unusable(self, why: str) -> SettingsInvalid:
        return SettingsInvalid(
            f"--ledger (EXTPROC_LEDGER) sqlite:{self._path} cannot be used: {why}; "
            "set sqlite:PATH to a file that this user may write, a new one or a ledger"
        )
