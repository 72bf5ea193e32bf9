"""The tables as numbered SQL files, applied in order and never edited once released.

Floor 3. A test migrates a ledger of every earlier version.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from extproc.errors import SettingsInvalid
from extproc.ledger.book import Reading, Transaction

_NEWEST = "SELECT COALESCE(MAX(version), 0) FROM ledger_version"
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
    ((version,),) = transaction.rows(_NEWEST)
    _refuse_newer(version)
    for migration in known:
        if migration.version <= version:
            continue
        for statement in migration.statements:
            transaction.rows(statement)
        transaction.run("INSERT INTO ledger_version VALUES (?, ?)", [(migration.version, migration.name)])


def check(reading: Reading, *, is_new: bool) -> None:
    """Make sure that the tables are those of this release. Raises `SettingsInvalid`."""
    if is_new:
        raise SettingsInvalid("--ledger (EXTPROC_LEDGER) holds no ledger yet; `extproc serve` makes it")
    ((version,),) = reading.rows(_NEWEST)
    _refuse_newer(version)
    newest = migrations()[-1].version
    if version < newest:
        raise SettingsInvalid(
            f"--ledger (EXTPROC_LEDGER) was written by an older release: its schema is {version}, this "
            f"release reads {newest}; `extproc serve` of this release brings it forward"
        )


def _refuse_newer(version: int) -> None:
    newest = migrations()[-1].version
    if version > newest:
        raise SettingsInvalid(
            f"--ledger (EXTPROC_LEDGER) was written by a newer release: its schema is {version}, this "
            f"release knows {newest}; run that release, or name another ledger"
        )


def _read(file: Traversable) -> Migration:
    number, _, name = file.name.removesuffix(".sql").partition("_")
    lines = (line for line in file.read_text("utf-8").splitlines() if not line.startswith("--"))
    statements = "\n".join(lines).split(";\n")
    return Migration(int(number), name, tuple(filter(None, (each.strip(" \n;") for each in statements))))
