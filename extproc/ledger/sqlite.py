"""The ledger in a SQLite file: one machine, nothing to run.

Floor 3. Write-ahead log: what is committed outlives a killed process, and a durable commit a power
loss too. Several processes may write one file; readers never wait. To read a file that nobody has open
SQLite would make a log and leave it behind, a reader's among a writer's files: such a file is read as
one that does not change, and its look tells afterwards whether it has.
Source: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from extproc.errors import LedgerUnavailable, SettingsInvalid
from extproc.ledger.book import LedgerChanged, QuestionTooLong, RecordRefused, Row
from extproc.ledger.schema import check, migrate

# Another process writes for milliseconds; longer is worth saying.
_BUSY_TIMEOUT_S = 5.0
# Readers wait for nobody but who recovers a log or opens and closes the file.
_READ_BUSY_TIMEOUT_S = 1.0
# Between two looks at the clock while a question is worked on; about a millisecond.
_STEPS = 100_000
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
        self._reader: sqlite3.Connection | None = None
        self._read_inode = 0

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
            self._close_writer()
            raise RecordRefused(f"a record was refused: {type(error).__name__}") from error
        except sqlite3.Error as error:
            self._close_writer()
            raise LedgerUnavailable(str(error)) from error
        except BaseException:
            self._close_writer()
            raise

    @contextmanager
    def reading(self, *, timeout_s: float) -> Iterator[_Transaction]:
        """See `Book.reading`."""
        ends_at_s = time.monotonic() + timeout_s
        is_at_rest, found = not self._log().exists(), self._stat()
        try:
            connection = self._connected_to_read(found, is_at_rest=is_at_rest)
            connection.set_progress_handler(lambda: time.monotonic() > ends_at_s, _STEPS)
            connection.execute("BEGIN")
            self._check(connection)
            yield _Transaction(connection)
            connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._close_reader()
            if is_at_rest and self._has_changed(found):
                raise LedgerChanged("the ledger was opened while it was read") from error
            if _code(error) == sqlite3.SQLITE_INTERRUPT:
                raise QuestionTooLong(timeout_s) from error
            if _is_hopeless(error):
                raise self._unreadable(str(error)) from error
            raise LedgerUnavailable(str(error)) from error
        except BaseException:
            self._close_reader()
            raise
        if is_at_rest:
            self._close_reader()
            if self._has_changed(found):
                raise LedgerChanged("the ledger was opened while it was read")

    def close(self) -> None:
        """See `Book.close`. What is not committed is undone."""
        self._close_writer()
        self._close_reader()

    def _close_writer(self) -> None:
        connection, self._connection = self._connection, None
        _let_go(connection)

    def _close_reader(self) -> None:
        connection, self._reader = self._reader, None
        _let_go(connection)

    # --- reading

    def _log(self) -> Path:
        # SQLite keeps it beside the file itself, not beside a link to it.
        file = self._path.resolve()
        return file.with_name(f"{file.name}-wal")

    def _stat(self) -> os.stat_result:
        try:
            found = self._path.stat()
        except OSError as error:
            raise self._unreadable(error.strerror or type(error).__name__) from error
        if not stat.S_ISREG(found.st_mode):
            raise self._unreadable("it is no file")
        return found

    def _has_changed(self, before: os.stat_result) -> bool:
        """Whether anybody has opened the file since: there is a log, or what it held is in the file."""
        now = self._stat()
        return self._log().exists() or _state(now) != _state(before)

    def _connected_to_read(self, found: os.stat_result, *, is_at_rest: bool) -> sqlite3.Connection:
        if self._reader is None or is_at_rest or self._read_inode != found.st_ino:
            self._close_reader()
            self._read_inode = found.st_ino
            how = "?mode=ro&immutable=1" if is_at_rest else "?mode=ro"
            self._reader = sqlite3.connect(
                f"file:{quote(str(self._path.resolve()))}{how}",
                uri=True,
                timeout=_READ_BUSY_TIMEOUT_S,
                isolation_level=None,
            )
        return self._reader

    def _unreadable(self, why: str) -> SettingsInvalid:
        return SettingsInvalid(
            f"--ledger (EXTPROC_LEDGER) sqlite:{self._path} cannot be read: {why}; "
            "name the file that `extproc serve` writes"
        )

    def _check(self, connection: sqlite3.Connection) -> None:
        ((found,),) = connection.execute(_HAS_VERSIONS).fetchall()
        try:
            check(_Transaction(connection), is_new=not found)
        except SettingsInvalid as problem:
            raise SettingsInvalid(f"{problem} ({self._path})") from problem

    # --- writing

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and not self._is_there():
            self._close_writer()
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
            if _is_hopeless(error):
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


def _is_hopeless(error: sqlite3.Error) -> bool:
    return _code(error) in _HOPELESS


def _code(error: sqlite3.Error) -> int:
    """The primary result code; Python's own errors have none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _let_go(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        # A full disk may refuse even this; the log is read again by who opens the file next.
        with contextlib.suppress(sqlite3.Error):
            connection.close()


def _state(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
