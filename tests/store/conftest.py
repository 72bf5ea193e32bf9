"""`bench` and `store`: each test that asks for one of them runs on every registered store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from extproc.store.base import Store
from tests.store.stores import STORES, Bench


@pytest_asyncio.fixture(params=STORES)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with STORES[request.param]() as opened:
        yield opened


@pytest.fixture
def store(bench: Bench) -> Store:
    return bench.store
