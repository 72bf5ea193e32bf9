"""Tables of every earlier release come forward with what is in them; those of a newer one are left alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from extproc.decision import Decision
from extproc.errors import LedgerUnavailable, SettingsInvalid
from extproc.ledger import schema
from extproc.ledger.opening import open_book, open_ledger
from extproc.ledger.pages import DECISION_COLUMNS, Pages, Place
from extproc.ledger.schema import Migration
from tests.ledger.running import Counters, look, running, verdict
from tests.ledger.samples import allowed

NEXT = Migration(
    version=len(schema.migrations()) + 1,
    name="next",
    statements=(
        "ALTER TABLE decisions ADD COLUMN tier TEXT NOT NULL DEFAULT 'none'",
        "CREATE TABLE tiers (name TEXT NOT NULL PRIMARY KEY)",
    ),
)


# The columns that came after the first release, and with which version.
SINCE = {"identity": 3}


def put(url: str, decision: Decision) -> None:
    """Write a decision with the columns that there are."""
    pages = Pages()
    pages.add([decision], Place(instance="here", scope="here", deadline_us=1), 0)
    version = len(schema.migrations())
    values = dict(zip(DECISION_COLUMNS, pages.decisions[decision.id], strict=True))
    values = {name: value for name, value in values.items() if SINCE.get(name, 1) <= version}
    marks = ", ".join("?" * len(values))
    look(url, f"INSERT INTO decisions ({', '.join(values)}) VALUES ({marks})", *values.values())


def test_migrations_count_from_one_and_do_something() -> None:
    known = schema.migrations()

    assert [migration.version for migration in known] == list(range(1, len(known) + 1))
    assert all(migration.name and migration.statements for migration in known)
    assert not any(";" in statement for migration in known for statement in migration.statements)


@pytest.mark.parametrize("version", range(1, len(schema.migrations()) + 1))
async def test_a_ledger_of_an_earlier_release_keeps_what_is_in_it(
    url: str, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: known[:version])
    put(url, allowed())
    monkeypatch.setattr(schema, "migrations", lambda: (*known, NEXT))
    async with running(url) as journal:
        await journal.committed(allowed(2))

    versions = [number for (number,) in look(url, "SELECT version FROM ledger_version ORDER BY version")]
    assert versions == list(range(1, NEXT.version + 1))
    assert verdict(url, "decision-000002").verdict.effect == "allow"
    assert verdict(url, "decision-000001").verdict.effect == "allow"
    who = "" if version < SINCE["identity"] else "demo"
    assert look(url, "SELECT identity FROM decisions ORDER BY id") == [(who,), ("demo",)]
    assert {tier for (tier,) in look(url, "SELECT tier FROM decisions")} == {"none"}


async def test_a_ledger_of_a_newer_release_is_refused(url: str) -> None:
    look(url, "INSERT INTO ledger_version VALUES (99, 'of next year')")

    with pytest.raises(SettingsInvalid, match=r"--ledger \(EXTPROC_LEDGER\).*newer release.*99"):
        async with running(url):
            pass


def test_a_migration_that_fails_leaves_nothing_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    look(url, "SELECT 1")
    known = schema.migrations()
    broken = Migration(NEXT.version, "broken", (*NEXT.statements, "CREATE TABLE decisions (id TEXT)"))
    monkeypatch.setattr(schema, "migrations", lambda: (*known, broken))
    with pytest.raises(LedgerUnavailable):
        look(url, "SELECT 1")
    monkeypatch.undo()

    assert look(url, "SELECT MAX(version) FROM ledger_version") == [(len(known),)]
    with pytest.raises(LedgerUnavailable):
        look(url, "SELECT tier FROM decisions")


def test_sidecars_that_start_together_make_the_tables_once(url: str) -> None:
    def start(_: int) -> None:
        book = open_book(url)
        with book.transaction():
            pass
        book.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(8)))

    assert len(look(url, "SELECT version FROM ledger_version")) == len(schema.migrations())


async def test_a_ledger_that_never_opened_can_be_closed(url: str) -> None:
    look(url, "INSERT INTO ledger_version VALUES (99, 'of next year')")
    journal = open_ledger(
        url, instance="i", scope="i", changed_counters=Counters().changed, seed=None, retention_days=1
    )
    with pytest.raises(SettingsInvalid):
        await journal.start()

    await journal.close(timeout_s=0)  # would fail if it waited for anything
    assert not journal.status.written
