"""The tables as numbered SQL files, applied in order and never edited once released.

Floor 3. A test migrates a ledger of every earlier version.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from extproc.errors import SettingsInvalid
from extproc.ledger.book import Transaction

_CREATE_VERSIONS = "CREATE TABLE ledger_version (version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from a version to the next; versions count from 1."""

    version: int
    name: str
    statements: tuple[str, ...]


@cache
def migrations() -> tuple[Migration, ...]:
    """Every migration of this release, in order."""
    folder = files("extproc.ledger") / "migrations"
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda f: f.name)
    return tuple(_read(file) for file in found)


def migrate(transaction: Transaction, *, is_new: bool) -> None:
    """Bring the tables to the newest version; `is_new` says that there is no version table yet.

    Whoever calls holds a lock that keeps every other process from doing the same. Raises
    `SettingsInvalid` for a ledger that a newer release wrote.
    """
    known = migrations()
    if is_new:
        transaction.rows(_CREATE_VERSIONS)
    ((version,),) = transaction.rows("SELECT COALESCE(MAX(version), 0) FROM ledger_version")
    newest = known[-1].version
    if version > newest:
        raise SettingsInvalid(
            f"--ledger (EXTPROC_LEDGER) was written by a newer release: its schema is {version}, this "
            f"release knows {newest}; run that release, or name another ledger"
        )
    for migration in known:
        if migration.version <= version:
            continue
        for statement in migration.statements:
            transaction.rows(statement)
        transaction.run("INSERT INTO ledger_version VALUES (?, ?)", [(migration.version, migration.name)])


def _read(file: Traversable) -> Migration:
    number, _, name = file.name.removesuffix(".sql").partition("_")
    lines = (line for line in file.read_text("utf-8").splitlines() if not line.startswith("--"))
    statements = "\n".join(lines).split(";\n")
    return Migration(int(number), name, tuple(filter(None, (each.strip(" \n;") for each in statements))))
