"""The ledger in a file: full disks, broken files, killed processes."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from extproc.errors import LedgerUnavailable, SettingsInvalid
from extproc.ledger import sqlite
from extproc.ledger.opening import open_book
from extproc.ledger.sqlite import SqliteBook
from tests.e2e.namespace import run_inside
from tests.ledger.running import look, running, until, written
from tests.ledger.samples import allowed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "of" / "mine" / "ledger.sqlite"


async def test_the_file_is_made_with_its_folder_for_this_user_alone(path: Path) -> None:
    async with running(f"sqlite:{path}") as journal:
        await journal.committed(allowed())

        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}
        assert modes == dict.fromkeys(("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"), "0o600")


def corrupt(path: Path) -> None:
    path.write_bytes(b"this is no database, but long enough to be taken for one" * 100)


def half_overwritten(path: Path) -> None:
    with closing(open_book(f"sqlite:{path}")) as book, book.transaction():
        pass
    data = bytearray(path.read_bytes())
    data[100:4096] = os.urandom(3996)
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [corrupt, half_overwritten, Path.mkdir])
async def test_what_can_be_no_ledger_is_said_at_the_start(path: Path, spoil: object) -> None:
    path.parent.mkdir(parents=True)
    assert callable(spoil)
    spoil(path)

    with pytest.raises(SettingsInvalid, match=r"--ledger \(EXTPROC_LEDGER\) sqlite:.*set sqlite:PATH"):
        async with running(f"sqlite:{path}"):
            pass


@pytest.mark.parametrize("url", ["sqlite:", "", "mysql://h/d", "/tmp/ledger", "postgresql"])
def test_what_names_no_ledger_is_said(url: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"--ledger \(EXTPROC_LEDGER\)"):
        open_book(url)


def spoil_all(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(os.urandom(8192))


async def test_a_file_that_breaks_while_it_is_written_is_loud_and_costs_no_request(path: Path) -> None:
    async with running(f"sqlite:{path}") as journal:
        await journal.committed(allowed(1))
        spoil_all(path.parent)
        journal.decided(allowed(2))
        await until(lambda: not journal.status.is_writing)

        with pytest.raises(LedgerUnavailable):
            await journal.committed(allowed(3))


def take_away(path: Path) -> None:
    path.rename(path.with_name("yesterday.sqlite"))


async def test_a_file_that_was_taken_away_is_made_anew(path: Path) -> None:
    """SQLite would go on writing to a file that nobody can open any more."""
    async with running(f"sqlite:{path}") as journal:
        await journal.committed(allowed(1))
        take_away(path)
        journal.decided(allowed(2))
        await written(journal)

    assert look(f"sqlite:{path}", "SELECT id FROM decisions") == [("decision-000002",)]


async def test_a_locked_file_is_waited_for_and_then_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_S", 0.05)
    async with running(f"sqlite:{path}") as journal:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            journal.decided(allowed())
            await until(lambda: "locked" in journal.status.error)

            with pytest.raises(LedgerUnavailable, match="locked"):
                await journal.committed(allowed(2))
            other.execute("ROLLBACK")
        await written(journal)

        assert journal.status.is_writing
    assert look(f"sqlite:{path}", "SELECT id FROM decisions") == [("decision-000001",)]


async def test_only_who_waits_makes_the_disk_wait(path: Path) -> None:
    """Without a sync a power loss costs the last moments; a killed process nothing."""
    said: list[str] = []
    book = SqliteBook(path)
    with book.transaction():
        pass
    assert book._connection is not None
    book._connection.set_trace_callback(said.append)
    for is_durable in (False, True):
        with book.transaction(is_durable=is_durable):
            pass
    book.close()

    assert [line for line in said if "synchronous" in line] == [
        "PRAGMA synchronous = NORMAL",
        "PRAGMA synchronous = FULL",
    ]


def test_a_full_disk_is_said_waited_for_and_loses_nothing(tmp_path: Path) -> None:
    found = run_inside("tests.ledger.full_disk", tmp_path)

    assert found["why"] == "database or disk is full"
    assert found["refused_at_once"]
    assert 0 < found["readable"] < found["written"]
    assert found["written"] == found["asked"]
    assert found["dropped"] == 0
