"""Things that take microseconds, measured in turns: each row runs for a while in every round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.figures import Figures, over_rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One row: what is done over and over."""

    name: str
    run: Callable[[int], None]  # does it so many times


def measure(turns: Sequence[Turn], *, seconds: float, rounds: int) -> dict[str, Figures]:
    """Microseconds of each row and its ratio to the first one of the same round, by name."""
    counts = {turn.name: _count(turn, seconds) for turn in turns}
    measured: dict[str, list[dict[str, float]]] = {turn.name: [] for turn in turns}
    for _ in range(rounds):
        first_us = None
        for turn in turns:
            took_us = took_s(turn.run, counts[turn.name]) / counts[turn.name] * 1e6
            first_us = first_us or took_us
            measured[turn.name].append({"us": took_us, "ratio": took_us / first_us})
    return {name: over_rounds(found) for name, found in measured.items()}


def took_s(run: Callable[[int], None], count: int) -> float:
    """How long `run` takes for `count` times."""
    started = time.perf_counter()
    run(count)
    return time.perf_counter() - started


def _count(turn: Turn, seconds: float) -> int:
    """How often it is done in about so many seconds."""
    turn.run(1)  # what is made at the first call is no part of the second
    return max(1, int(seconds / took_s(turn.run, 5) * 5))
