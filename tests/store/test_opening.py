from __future__ import annotations

import pytest

from extproc.errors import SettingsInvalid
from extproc.settings import STORE_SCHEMES, check_store
from extproc.store.memory import MemoryStore
from extproc.store.opening import open_store
from extproc.store.redis import RedisStore, nothing_known


def opened(url: str) -> MemoryStore | RedisStore:
    return open_store(url, prefix="p", timeout_s=1.0, states=nothing_known, awaits_seed=False)


async def test_every_store_that_settings_take_is_opened() -> None:
    for scheme in STORE_SCHEMES:
        url = "unix:///p" if scheme == "unix" else f"{scheme}://h/0"
        check_store(url)
        store = opened(url)

        assert isinstance(store, RedisStore)
        await store.close()
    assert isinstance(opened("memory:"), MemoryStore)


def test_what_no_store_is_behind_is_never_repeated() -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        opened("mongodb://u:hidden@h")

    assert "--store" in str(invalid.value)
    assert "hidden" not in str(invalid.value)
