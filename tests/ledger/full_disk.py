"""A ledger on a disk of one megabyte, that then grows; run as root in a mount namespace of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import closing
from pathlib import Path

from extproc.errors import LedgerUnavailable
from extproc.ledger.journal import Journal
from extproc.ledger.opening import open_book
from tests.e2e.namespace import mount
from tests.ledger.running import look, running, until, written
from tests.ledger.samples import allowed


async def fill(folder: Path) -> dict[str, object]:
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    url, number = f"sqlite:{folder / 'ledger.sqlite'}", 0
    async with running(url) as journal:
        while journal.status.is_writing:
            journal.decided(allowed(number))
            number += 1
            if number % 100 == 0:
                await written_or_full(journal)
        why = journal.status.error
        try:
            await journal.committed(allowed(-1))
        except LedgerUnavailable:
            refused_at_once = True
        else:
            refused_at_once = False
        with closing(open_book(url)) as book, book.reading(timeout_s=20) as found:
            ((readable,),) = found.rows("SELECT COUNT(*) FROM decisions")
        mount("-o", "remount,size=20m", str(folder))
        await written(journal)
        dropped = journal.status.dropped
    ((count,),) = look(url, "SELECT COUNT(*) FROM decisions")
    return {
        "why": why,
        "refused_at_once": refused_at_once,
        "readable": readable,
        "asked": number,
        "written": count,
        "dropped": dropped,
    }


async def written_or_full(journal: Journal) -> None:
    await until(lambda: not journal.status.pending or not journal.status.is_writing)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(fill(Path(sys.argv[1])))))
