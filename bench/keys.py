"""The memory store with many live keys: what one takes, and what the next decision takes then.

`python -m bench.keys` reads a `Job` as JSON, does it, and prints a `Sample` as JSON: a process of its own,
because memory is only measured in one that holds nothing else.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.decisions import AT_US, a_charge, at_once, spent
from bench.errors import BenchFailed
from bench.rows import OUT_OF_REACH
from bench.turns import Turn, measure
from extproc.decision import CalendarWindow, Charge, SlidingWindow, TokenBucket, Window
from extproc.store.memory import REMEMBERED_DECISIONS, MemoryStore

ROOT = Path(__file__).parent.parent
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_DAY_US = 86_400_000_000
_MONTH = tuple(AT_US + days * _DAY_US for days in (-40, -10, 20, 50))
# Keys far from each other, so many that no cache holds them all; a prime reaches every one.
_STRIDE = 611_953
_CHOSEN = 100_000

WINDOWS: dict[str, Window] = {
    "token bucket": TokenBucket(OUT_OF_REACH, 60_000_000, OUT_OF_REACH),
    "sliding window": SlidingWindow(OUT_OF_REACH, 30 * _DAY_US),
    "calendar window": CalendarWindow(OUT_OF_REACH, "month", (_MONTH[0], _MONTH[1], _MONTH[2], _MONTH[3])),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row's work."""

    window: str
    keys: int
    seconds: float
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one row came to."""

    us: list[float]  # reserve and settle of one charge, a round each
    key_bytes: float | None  # None: too few keys to tell


def run(jobs: Sequence[Job]) -> list[Sample]:
    """Each job in a process of its own, one after the other. Raises `BenchFailed` if one fails."""
    return [_run(job) for job in jobs]


def _run(job: Job) -> Sample:
    done = subprocess.run(
        [sys.executable, "-m", "bench.keys"],
        input=json.dumps(asdict(job)), capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BenchFailed(f"{job.keys} keys: {done.stderr.strip()}")
    return Sample(**json.loads(done.stdout))


def do(job: Job) -> Sample:
    """Fill a store, then decide on keys all over it."""
    charge = replace(a_charge(), window=WINDOWS[job.window])
    store = MemoryStore(counters=REMEMBERED_DECISIONS + job.keys)
    spend = _spender(store, charge)
    # Recent decisions are remembered however few keys there are: what they take is no key's.
    for number in range(REMEMBERED_DECISIONS):
        spend(f"before-{number}")
    before = _memory_bytes()
    for number in range(job.keys):
        spend(str(number))
    taken = _memory_bytes() - before
    # As the server does once it is ready.
    gc.freeze()
    keys = itertools.cycle([str(number * _STRIDE % job.keys) for number in range(_CHOSEN)])

    def decide(count: int) -> None:
        for _ in range(count):
            spend(next(keys))

    turn = Turn(name="", run=decide)
    figures = [measure([turn], seconds=job.seconds, rounds=1)[""] for _ in range(job.rounds)]
    is_enough = job.keys >= REMEMBERED_DECISIONS
    return Sample(
        us=[figure["us"].median for figure in figures], key_bytes=taken / job.keys if is_enough else None
    )


def _spender(store: MemoryStore, charge: Charge) -> Callable[[str], None]:
    ids = map(str, itertools.count())

    def spend(key: str) -> None:
        decision_id = next(ids)
        charges = (replace(charge, counter=f"{charge.counter}{key}", key=(key,)),)
        (outcome,) = at_once(store.reserve(decision_id, charges, AT_US))
        if not outcome.granted:
            raise BenchFailed("a charge was denied")
        at_once(store.settle(decision_id, spent(charges), AT_US))

    return spend


def _memory_bytes() -> int:
    gc.collect()
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return resident_pages * _PAGE_BYTES


if __name__ == "__main__":
    print(json.dumps(asdict(do(Job(**json.load(sys.stdin))))))
