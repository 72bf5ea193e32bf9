"""The ledger in Postgres: many sidecars, one set of records.

Floor 3. No wait without an end: a server that stopped answering cannot keep its own time-outs, so
each wait has one here too.
Source: https://www.psycopg.org/psycopg3/docs/, https://www.postgresql.org/docs/15/errcodes-appendix.html.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo, sql

from extproc.errors import LedgerUnavailable, SettingsInvalid
from extproc.ledger.book import QuestionTooLong, RecordRefused, Row
from extproc.ledger.schema import check, migrate

_CONNECT_TIMEOUT_S = 3
_STATEMENT_TIMEOUT_MS = 5_000
# An index over many records takes its time, once; whoever waits for its lock meanwhile tries again.
_MIGRATION_TIMEOUT_S = 900
# A little after the server's own: what it says of itself is worth more.
_ANSWER_TIMEOUT_S = 6.0
# So many rows travel together: even a slow server has done them long before the time-out.
_ROWS_AT_ONCE = 1_000
# Of data, of constraints, of limits such as the size of an index entry: another try changes nothing.
_REFUSED_CLASSES = frozenset({"22", "23", "54"})
# What pg_locks shows while tables are made; any number that nothing else of the database uses.
_MIGRATION_LOCK = 0x41495F504F4C
_HAS_VERSIONS = "SELECT COUNT(*) FROM pg_class WHERE oid = to_regclass('ledger_version')"

T = TypeVar("T")


class _Connection(psycopg.Connection[Row]):
    """A connection whose every wait ends, whatever has become of the server."""

    patience_s: float | None = None  # where an answer may take longer than usual

    def wait(self, gen: Generator[Any, Any, T], interval: float = 0.1, timeout: float | None = None) -> T:
        usual_s = self.patience_s or _ANSWER_TIMEOUT_S
        return super().wait(gen, interval, usual_s if timeout is None else timeout)

    def limit(self, timeout_s: float) -> None:
        """Let no statement of this transaction take longer. A pool may give the next one another server."""
        self.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(max(1, round(timeout_s * 1000))))


class _Transaction:
    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, parameters: Row = ()) -> list[Row]:
        cursor = self._connection.execute(_placeholders(statement), parameters)
        return cursor.fetchall() if cursor.description else []

    def run(self, statement: str, rows: Sequence[Row]) -> int:
        text, changed, left = _placeholders(statement), 0, iter(rows)
        while some := list(itertools.islice(left, _ROWS_AT_ONCE)):
            with self._connection.cursor() as cursor:
                cursor.executemany(text, some)
                changed += max(0, cursor.rowcount)
        return changed


class _Reading:
    def __init__(self, connection: _Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._ends_at_s = time.monotonic() + timeout_s

    def rows(self, statement: str, parameters: Row = ()) -> list[Row]:
        left_s = self._ends_at_s - time.monotonic()
        if left_s <= 0:
            raise QuestionTooLong(self._timeout_s)
        self._connection.patience_s = left_s + _ANSWER_TIMEOUT_S
        self._connection.limit(left_s)
        return self._connection.execute(_placeholders(statement), parameters).fetchall()


class PostgresBook:
    """A `Book` in a Postgres database; `url` is a libpq URL.

    Raises `SettingsInvalid` for one that libpq cannot read. How durable a commit is, is the server's
    `synchronous_commit`.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = conninfo.conninfo_to_dict(url)
        except psycopg.Error:
            # libpq's own words repeat what it could not read, which may be the password.
            raise SettingsInvalid(
                "--ledger (EXTPROC_LEDGER) is no URL that libpq can read; set postgresql://USER:PASSWORD"
                "@HOST:PORT/DATABASE, with special characters percent-encoded"
            ) from None
        self._url = url
        self._secret = str(parts.get("password") or "")
        self._connection: _Connection | None = None
        self._reader: _Connection | None = None

    @contextmanager
    def transaction(self, *, is_durable: bool = False) -> Iterator[_Transaction]:  # noqa: ARG002  see the class
        """See `Book.transaction`."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._connect()
            connection = self._connection
            connection.limit(_STATEMENT_TIMEOUT_MS / 1000)
            yield _Transaction(connection)
            connection.commit()
        except psycopg.Error as error:
            self.close()
            raise self._translated(error) from error
        except UnicodeError as error:
            self.close()
            raise RecordRefused(f"a record was refused: {type(error).__name__}") from error
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self, *, timeout_s: float) -> Iterator[_Reading]:
        """See `Book.reading`."""
        try:
            if self._reader is None or self._reader.closed:
                self._reader = self._connect_to_read()
            yield _Reading(self._reader, timeout_s)
            self._reader.rollback()
        except psycopg.errors.QueryCanceled as error:
            self._close_reader()
            raise QuestionTooLong(timeout_s) from error
        except psycopg.Error as error:
            self._close_reader()
            raise self._translated(error) from error
        except BaseException:
            self._close_reader()
            raise

    def close(self) -> None:
        """See `Book.close`. What is not committed is undone."""
        connection, self._connection = self._connection, None
        _let_go(connection)
        self._close_reader()

    def _close_reader(self) -> None:
        connection, self._reader = self._reader, None
        _let_go(connection)

    def _connect(self) -> _Connection:
        connection = self._open()
        try:
            connection.limit(_STATEMENT_TIMEOUT_MS / 1000)
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            ((found,),) = connection.execute(_HAS_VERSIONS).fetchall()
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(_STATEMENT_TIMEOUT_MS))
            connection.limit(_MIGRATION_TIMEOUT_S)
            connection.patience_s = _MIGRATION_TIMEOUT_S + _ANSWER_TIMEOUT_S
            migrate(_Transaction(connection), is_new=not found)
            connection.patience_s = None
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_to_read(self) -> _Connection:
        connection = self._open()
        try:
            # One snapshot for all questions of a look.
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.limit(_STATEMENT_TIMEOUT_MS / 1000)
            ((found,),) = connection.execute(_HAS_VERSIONS).fetchall()
            check(_Transaction(connection), is_new=not found)
            connection.rollback()
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self) -> _Connection:
        return _Connection.connect(
            self._url,
            connect_timeout=_CONNECT_TIMEOUT_S,
            application_name="extproc",
            # Statements that a server process prepared are unknown to the next one a pool gives.
            prepare_threshold=None,
        )

    def _translated(self, error: psycopg.Error) -> LedgerUnavailable:
        """The error without any value: a server repeats values in its own words."""
        code = error.sqlstate or ""
        if isinstance(error, psycopg.DataError) or code[:2] in _REFUSED_CLASSES:
            return RecordRefused(f"a record was refused: {type(error).__name__}")
        said = error.diag.message_primary or str(error) or type(error).__name__
        if self._secret:
            said = said.replace(self._secret, "***")
        # libpq writes its advice in lines of its own.
        return LedgerUnavailable(" ".join(said.split()))


def _let_go(connection: _Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(psycopg.Error):
            connection.close()


def _placeholders(statement: str) -> sql.SQL:
    """The statement with psycopg's placeholders; ours hold no other question or percent mark."""
    return sql.SQL(statement.replace("?", "%s"))
