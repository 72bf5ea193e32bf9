"""Which counter store a URL means.

Floor 3. A new store is one file that keeps `base.Store`, and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from extproc.errors import SettingsInvalid
from extproc.store.memory import MemoryStore
from extproc.store.redis import RedisStore
from extproc.store.restoration import States

MEMORY = "memory"
_REMOTE: Mapping[str, Callable[..., RedisStore]] = MappingProxyType(
    dict.fromkeys(("redis", "rediss", "unix", "redis+cluster"), RedisStore)
)


def open_store(url: str, *, prefix: str, timeout_s: float, states: States) -> MemoryStore | RedisStore:
    """The store that a URL names; nothing is connected yet. Raises `SettingsInvalid`.

    `states` answers the counters that a shared store which lost its data takes up again.
    """
    scheme = url.partition(":")[0]
    if scheme == MEMORY:
        return MemoryStore()
    make = _REMOTE.get(scheme)
    if make is None:
        raise SettingsInvalid("--store (EXTPROC_STORE) names no store; set memory: or a Redis URL")
    return make(url, prefix=prefix, timeout_s=timeout_s, states=states)
