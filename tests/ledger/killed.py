"""A process that decides, counts and writes until it is killed; says each decision it was told is on disk."""

from __future__ import annotations

import asyncio
import sys

from tests.ledger.running import Counters, running
from tests.ledger.samples import COUNTER, RESERVED, allowed, settlement


async def write(url: str, first: int) -> None:
    counters = Counters()
    async with running(url, counters=counters) as journal:
        used = 0
        for state in counters.seeded:
            used, counters.version = int(state.state), state.version
        number = first
        while True:
            # The last of each four is waited for; the next commit may come anywhere between the others.
            for _ in range(4):
                number += 1
                used += RESERVED
                counters.use(COUNTER, str(used))
                journal.decided(allowed(number, at_s=800))
                if number % 3 == 0:
                    journal.settled(settlement(number))
                await asyncio.sleep(0)
            await journal.committed(allowed(number, at_s=800))
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], int(sys.argv[2])))
