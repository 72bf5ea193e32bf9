"""Which counter store a URL means.

Floor 3. A new store is one file that keeps `base.Store`, its scheme in `settings`, and one line here.
"""

from __future__ import annotations

from extproc.settings import MEMORY
from extproc.store.memory import MemoryStore
from extproc.store.redis import RedisStore
from extproc.store.restoration import States


def open_store(
    url: str, *, prefix: str, timeout_s: float, states: States, awaits_seed: bool
) -> MemoryStore | RedisStore:
    """The store that a URL names; nothing is connected yet. Raises `SettingsInvalid`.

    `states` answers the counters that a shared store which lost its data takes up again; one in memory that
    `awaits_seed` is told those of an earlier run.
    """
    if url == MEMORY:
        return MemoryStore(awaits_seed=awaits_seed)
    return RedisStore(url, prefix=prefix, timeout_s=timeout_s, states=states)
