"""A look at the ledger holds up no writer, waits for none, and leaves nothing behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from extproc.errors import LedgerUnavailable, SettingsInvalid
from extproc.ledger import schema
from extproc.ledger.book import LedgerChanged, QuestionTooLong, Reading
from extproc.ledger.opening import open_book
from tests.ledger.running import look, running
from tests.ledger.samples import allowed
from tests.servers.postgres import PASSWORD, PostgresServer

COUNT = "SELECT COUNT(*) FROM decisions"
FOREVER = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n"


@contextmanager
def reading(url: str, timeout_s: float = 20.0) -> Iterator[Reading]:
    with closing(open_book(url)) as book, book.reading(timeout_s=timeout_s) as found:
        yield found


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    look(f"sqlite:{path}", "SELECT 1")
    return path


@pytest.fixture
def link(path: Path, tmp_path: Path) -> Path:
    """The file by another name, and in a folder that a URI would take apart."""
    folder = tmp_path / "a?b#c%20"
    folder.mkdir()
    (folder / "link").symlink_to(path)
    return folder / "link"


async def test_a_look_sees_one_moment_and_the_writer_goes_on(url: str) -> None:
    async with running(url) as journal:
        await journal.committed(allowed(1))
        with closing(open_book(url)) as book:
            with book.reading(timeout_s=20) as found:
                assert found.rows(COUNT) == [(1,)]
                await journal.committed(allowed(2))
                assert found.rows(COUNT) == [(1,)]
            with book.reading(timeout_s=20) as found:
                assert found.rows(COUNT) == [(2,)]


async def test_nobody_waits_for_a_writer_in_the_middle_of_a_commit(url: str) -> None:
    async with running(url) as journal:
        await journal.committed(allowed(1))
    with closing(open_book(url)) as writer, writer.transaction() as transaction:
        transaction.rows("UPDATE decisions SET team = 'another'")
        with reading(url, timeout_s=2) as found:
            assert found.rows("SELECT team FROM decisions") == [("demo",)]


def test_nothing_can_be_written(url: str) -> None:
    look(url, "SELECT 1")
    with pytest.raises((LedgerUnavailable, SettingsInvalid), match=r"read-?only"), reading(url) as found:
        found.rows("DELETE FROM decisions")


def test_a_question_without_an_end_is_ended(url: str) -> None:
    look(url, "SELECT 1")
    with pytest.raises(QuestionTooLong, match=r"within 0\.2 s"), reading(url, timeout_s=0.2) as found:
        found.rows(FOREVER)


def test_a_ledger_of_another_release_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: known[:-1])
    look(url, "SELECT 1")
    monkeypatch.undo()
    with (
        pytest.raises(SettingsInvalid, match=rf"older release: its schema is {len(known) - 1}"),
        reading(url),
    ):
        pass

    look(url, "INSERT INTO ledger_version VALUES (99, 'of next year')")
    with pytest.raises(SettingsInvalid, match=r"newer release: its schema is 99"), reading(url):
        pass


# --- files


def test_a_missing_file_is_named_and_not_made(tmp_path: Path) -> None:
    said, url = r"nowhere\.sqlite cannot be read: No such file", f"sqlite:{tmp_path / 'nowhere.sqlite'}"
    with pytest.raises(SettingsInvalid, match=said), reading(url):
        pass

    assert names(tmp_path) == set()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def another_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")


def text(path: Path) -> None:
    path.write_text("a note, and no ledger" * 100)


@pytest.mark.parametrize("make", [empty, another_database, text, Path.mkdir])
def test_what_is_no_ledger_is_named_and_left_alone(tmp_path: Path, make: object) -> None:
    path = tmp_path / "mine"
    assert callable(make)
    make(path)
    with pytest.raises(SettingsInvalid, match="mine"), reading(f"sqlite:{path}"):
        pass

    assert names(tmp_path) == {"mine"}


def test_reading_a_file_that_nobody_has_open_leaves_none_behind(path: Path, link: Path) -> None:
    for name in (path, link):
        with reading(f"sqlite:{name}") as found:
            assert found.rows(COUNT) == [(0,)]

    assert {"ledger.sqlite-wal", "ledger.sqlite-shm"}.isdisjoint(names(path.parent))
    assert names(link.parent) == {"link"}


async def test_a_file_by_another_name_is_read_as_it_is_written(path: Path, link: Path) -> None:
    async with running(f"sqlite:{path}") as journal:
        await journal.committed(allowed(1))
        with reading(f"sqlite:{link}") as found:
            assert found.rows(COUNT) == [(1,)]


@pytest.mark.parametrize("is_still_open", [False, True])
def test_a_file_that_is_opened_while_it_is_read_is_said(path: Path, *, is_still_open: bool) -> None:
    """It is read without locks; what was found may be half of a commit."""
    with closing(open_book(f"sqlite:{path}")) as writer:
        moment = reading(f"sqlite:{path}")
        moment.__enter__().rows(COUNT)
        with writer.transaction() as transaction:
            transaction.rows("DELETE FROM ledger_version WHERE version = 1")
        if not is_still_open:
            writer.close()

        with pytest.raises(LedgerChanged):
            moment.__exit__(None, None, None)


def renamed(path: Path) -> None:
    path.rename(path.with_name("yesterday"))


async def test_a_file_that_took_the_place_of_another_is_read(path: Path) -> None:
    url = f"sqlite:{path}"
    with closing(open_book(url)) as book:
        async with running(url) as journal:
            await journal.committed(allowed(1))
            with book.reading(timeout_s=20) as found:
                assert found.rows(COUNT) == [(1,)]
            renamed(path)
            look(url, "SELECT 1")
            with book.reading(timeout_s=20) as found:
                assert found.rows(COUNT) == [(0,)]


# --- servers


def test_a_dead_server_is_said_and_read_again_once_it_is_back(postgres: PostgresServer) -> None:
    with postgres.database() as url, closing(open_book(url)) as book:
        look(url, "SELECT 1")
        with book.reading(timeout_s=20) as found:
            found.rows(COUNT)
        postgres.kill()
        try:
            for _ in range(2):
                with pytest.raises(LedgerUnavailable), book.reading(timeout_s=20) as found:
                    found.rows(COUNT)
        finally:
            postgres.start()
        with book.reading(timeout_s=20) as found:
            assert found.rows(COUNT) == [(0,)]


def test_a_paused_server_holds_a_question_up_for_a_while(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extproc.ledger.postgres._ANSWER_TIMEOUT_S", 0.2)
    with postgres.database() as url, closing(open_book(url)) as book:
        look(url, "SELECT 1")
        with book.reading(timeout_s=20):
            pass
        postgres.pause()
        try:
            with pytest.raises(LedgerUnavailable), book.reading(timeout_s=0.1) as found:
                found.rows(COUNT)
        finally:
            postgres.resume()


def test_who_may_only_read_can_read(postgres: PostgresServer) -> None:
    with postgres.database() as url:
        look(url, "SELECT 1")
        name = url.rpartition("%3D")[2]
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("DROP ROLE IF EXISTS auditor")
            admin.execute(f"CREATE ROLE auditor LOGIN PASSWORD '{PASSWORD}'")
            admin.execute(f"GRANT USAGE ON SCHEMA {name} TO auditor")
            admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO auditor")
        with reading(url.replace("//ledger:", "//auditor:")) as found:
            assert found.rows(COUNT) == [(0,)]


def test_an_empty_database_stays_empty(postgres: PostgresServer) -> None:
    with postgres.database() as url:
        with pytest.raises(SettingsInvalid, match="holds no ledger yet"), reading(url):
            pass
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT to_regclass('decisions')").fetchone() == (None,)
