"""Keeps Python's collector from walking a million counters again and again.

Floor 3. A full collection stops the event loop for as long as it walks: a third of a second with half a
million counters (`python -m bench.policies`). What outlived one that took long is set aside: it is let go
of by its last reference all the same, and only cycles among it, a kilobyte for each stream that was open
then, stay. So it is done by the time that a collection takes, and not after each.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

# The generation that holds everything that lives long.
_OLDEST = 2
LONGEST_S = 0.05


class Pauses:
    """A callback for `gc.callbacks`."""

    def __init__(
        self, *, clock_s: Callable[[], float] = time.perf_counter, freeze: Callable[[], None] = gc.freeze
    ) -> None:
        self._clock_s = clock_s
        self._freeze = freeze
        self._began_s = 0.0

    def __call__(self, phase: str, info: Mapping[str, Any]) -> None:
        """Time a full collection; set aside what is left if it took too long."""
        if info["generation"] != _OLDEST:
            return
        if phase == "start":
            self._began_s = self._clock_s()
        elif self._clock_s() - self._began_s > LONGEST_S:
            self._freeze()


def begin() -> None:
    """What is loaded now stays; from here on long collections are shortened."""
    gc.collect()
    gc.freeze()
    gc.callbacks.append(Pauses())
