"""Leases of answers that take long."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from extproc import leases
from extproc.edge import Edge
from extproc.errors import StoreUnavailable
from extproc.measure.learned import LearnedOutputs
from extproc.measure.tokens import Tokenizer
from extproc.store.memory import MemoryStore
from extproc.telemetry import Metrics, Tracing


class Renewing(MemoryStore):
    """Notes what it renews, or is away."""

    def __init__(self) -> None:
        super().__init__()
        self.renewed: list[tuple[str, ...]] = []
        self.is_away = False
        self.has_renewed = asyncio.Event()

    async def renew(self, decision_ids: Iterable[str], at_us: int) -> None:  # noqa: ARG002  the store's own
        if self.is_away:
            raise StoreUnavailable("away")
        self.renewed.append(tuple(decision_ids))
        self.has_renewed.set()


@pytest.fixture
def store() -> Renewing:
    return Renewing()


@pytest.fixture
def edge(store: Renewing) -> Edge:
    return Edge(
        store=store,
        tokenizer=Tokenizer({}),
        learned=LearnedOutputs(),
        tracing=Tracing(instance_id="test", version="0"),
        metrics=Metrics(version="0"),
        pool=ThreadPoolExecutor(1),
        clock_ns=lambda: 0,
        deadline_s=1,
    )


async def test_what_is_held_is_renewed_and_nothing_else(edge: Edge, store: Renewing) -> None:
    await leases.renew(edge)
    edge.leased.add("a")
    await leases.renew(edge)

    assert store.renewed == [("a",)]


async def test_a_store_that_is_away_is_counted_and_asked_again(edge: Edge, store: Renewing) -> None:
    edge.leased.add("a")
    store.is_away = True
    await leases.renew(edge)
    assert b'ai_policy_failures_total{error_type="leases_not_renewed"} 1.0' in edge.metrics.exposition()

    store.is_away = False
    keeping = asyncio.create_task(leases.keep(edge, period_s=0))
    await store.has_renewed.wait()
    keeping.cancel()

    assert store.renewed[0] == ("a",)
