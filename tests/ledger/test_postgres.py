"""The ledger in Postgres: dead, paused, killed and slow servers, and the password."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import psycopg
import pytest

from extproc.errors import LedgerUnavailable, SettingsInvalid
from extproc.ledger import postgres as book
from extproc.ledger import schema
from extproc.ledger.opening import open_book
from extproc.ledger.schema import Migration
from tests.ledger.running import Counters, look, running, until, written
from tests.ledger.samples import allowed, settlement
from tests.servers.postgres import PASSWORD, PostgresServer


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as url:
        yield url


async def test_a_dead_server_at_the_start_is_said_and_caught_up_with(
    url: str, postgres: PostgresServer
) -> None:
    """Requests go on; what the counters were is known as soon as the server is back."""
    earlier = Counters()
    earlier.use("a", "1")
    async with running(url, counters=earlier):
        pass
    postgres.kill()
    later = Counters()
    async with running(url, counters=later) as journal:
        assert (journal.status.is_writing, journal.status.has_counters) == (False, False)
        assert "refused" in journal.status.error
        with pytest.raises(LedgerUnavailable):
            await journal.committed(allowed(1))
        journal.decided(allowed(2))
        assert not later.is_seeded

        postgres.start()
        await written(journal)
        await until(lambda: journal.status.is_writing)

        assert [state.state for state in later.seeded] == ["1"]
        assert journal.status.has_counters
    assert look(url, "SELECT id FROM decisions") == [("decision-000002",)]


async def test_a_killed_server_loses_no_record(url: str, postgres: PostgresServer) -> None:
    async with running(url) as journal:
        await journal.committed(allowed(1))
        postgres.kill()
        journal.decided(allowed(2))
        await until(lambda: not journal.status.is_writing)
        journal.settled(settlement(1))
        journal.decided(allowed(3))
        postgres.start()
        await written(journal)

        assert (journal.status.error, journal.status.dropped) == ("", 0)
    assert look(url, "SELECT COUNT(*) FROM decisions") == [(3,)]
    assert look(url, "SELECT COUNT(*) FROM usage") == [(1,)]


async def test_a_server_that_stops_answering_holds_nobody_up(
    url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own time-outs do not work then."""
    monkeypatch.setattr(book, "_ANSWER_TIMEOUT_S", 0.3)
    async with running(url, commit_timeout_s=0.1) as journal:
        await journal.committed(allowed(1))
        postgres.pause()
        try:
            with pytest.raises(LedgerUnavailable, match="too long"):
                await journal.committed(allowed(2))
            with pytest.raises(LedgerUnavailable):
                journal.committed(allowed(3)).send(None)  # without waiting
            await until(lambda: "too long" not in journal.status.error)
        finally:
            postgres.resume()
        await written(journal)
        await until(lambda: journal.status.is_writing)
        await journal.committed(allowed(4))

    found = look(url, "SELECT id FROM decisions ORDER BY id")
    assert found == [(f"decision-00000{number}",) for number in (1, 2, 4)]


async def test_a_slow_statement_is_given_up_and_tried_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "_STATEMENT_TIMEOUT_MS", 50)
    async with running(url) as journal:
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE decisions")
            journal.decided(allowed())
            await until(lambda: "statement timeout" in journal.status.error)
        await written(journal)

    assert look(url, "SELECT id FROM decisions") == [("decision-000001",)]


async def test_new_tables_of_many_records_have_the_time_they_need(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "_STATEMENT_TIMEOUT_MS", 50)
    monkeypatch.setattr(book, "_ANSWER_TIMEOUT_S", 0.1)
    known = schema.migrations()
    slow = Migration(len(known) + 1, "slow", ("SELECT pg_sleep(0.3)",))
    monkeypatch.setattr(schema, "migrations", lambda: (*known, slow))

    assert look(url, "SELECT MAX(version) FROM ledger_version") == [(slow.version,)]
    with pytest.raises(LedgerUnavailable):
        look(url, "SELECT pg_sleep(0.3)")


async def test_closing_gives_up_on_a_server_that_does_not_answer(
    url: str, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(url) as journal:
        await journal.committed(allowed(1))
        postgres.pause()
        try:
            journal.decided(allowed(2))
            await journal.close(timeout_s=0.2)
        finally:
            postgres.resume()

    assert "records are lost" in caplog.text


async def test_no_message_and_no_log_has_the_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = url.replace(PASSWORD, f"{PASSWORD}-but-wrong")
    async with running(wrong) as journal:
        assert "password authentication failed" in journal.status.error
        assert PASSWORD not in journal.status.error

    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("url", ["postgresql://u:pa%zzword@h/d", "postgres://u:paword@h:x/d?nonsense=1"])
def test_a_url_that_cannot_be_read_is_said_without_it(url: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"--ledger \(EXTPROC_LEDGER\)") as caught:
        open_book(url)

    assert "word@" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_server_that_is_not_there_is_said_in_one_line() -> None:
    away = open_book("postgresql://nobody@127.0.0.1:1/none")

    with pytest.raises(LedgerUnavailable) as told, away.transaction():
        pass

    assert "refused" in str(told.value)
    assert not {"\n", "\t"}.intersection(str(told.value))


async def test_values_in_a_servers_words_do_not_get_out(url: str) -> None:
    look(url, "ALTER TABLE decisions ADD CHECK (team <> 'demo')")
    async with running(url) as journal:
        journal.decided(allowed())
        await written(journal)

        assert (journal.status.dropped, journal.status.error) == (1, "")


async def test_a_server_without_the_right_to_make_tables_is_said(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS reader")
        admin.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    async with running(url.replace("//ledger:", "//reader:")) as journal:
        assert "permission denied" in journal.status.error or "no schema" in journal.status.error
