"""A process killed at any moment: what it was told is on disk is there, and everything there agrees."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from extproc.ledger.opening import open_book
from tests.ledger.running import look, open_ones, running, usage
from tests.ledger.samples import COUNTER, RESERVED

ROOT = Path(__file__).parents[2]
ROUNDS = 3


def killed_while_writing(url: str, first: int, moment: int) -> int:
    """Run the writer, kill it after so many answers; the last decision that it knew was on disk."""
    command = [sys.executable, "-m", "tests.ledger.killed", url, str(first)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(moment):
            process.stdout.readline()
        process.kill()
        told = process.stdout.read().split()
    return int(told[-1]) if told else 0


async def test_what_was_committed_is_there_and_counters_agree_with_records(url: str) -> None:
    known = 0
    for round_ in range(ROUNDS):
        known = max(known, killed_while_writing(url, round_ * 1_000_000, random.randint(1, 40)))

        with closing(open_book(url)) as book, book.reading(timeout_s=20) as found:
            ((seen,),) = found.rows("SELECT COUNT(*) FROM decisions")
        ((count,),) = look(url, "SELECT COUNT(*) FROM decisions")
        assert seen == count
        ((state,),) = look(url, "SELECT state FROM counters WHERE counter = ?", COUNTER)
        assert int(state) == count * RESERVED
        first = f"decision-{round_ * 1_000_000:06}"
        ((own,),) = look(
            url, "SELECT COUNT(*) FROM decisions WHERE id > ? AND id <= ?", first, f"decision-{known:06}"
        )
        assert own == max(0, known - round_ * 1_000_000)

    async with running(url, at_s=901):
        pass
    assert open_ones(url) == []
    ended = {name for (name,) in look(url, "SELECT DISTINCT decision_id FROM usage")}
    assert ended == {name for (name,) in look(url, "SELECT id FROM decisions")}
    assert len(usage(url, "decision-000001")) == 1
