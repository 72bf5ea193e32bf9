"""Redis Cluster: all keys of a prefix are on one node, and scripts find it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from extproc.store.redis import RedisStore
from tests.e2e.gateway import free_ports
from tests.servers.redis import RedisServer
from tests.store.charges import NOW_US, charge
from tests.store.redis_bench import PATIENT_S


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisServer]:
    """A cluster of one node, which owns all slots."""
    (bus,) = free_ports(1)
    with RedisServer("--cluster-enabled", "yes", "--cluster-port", str(bus)) as node:
        with node.client() as admin:
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while "cluster_state:ok" not in str(admin.execute_command("CLUSTER", "INFO")):
                time.sleep(0.01)
        yield node


async def test_a_cluster_keeps_what_one_server_would(cluster: RedisServer) -> None:
    url = cluster.url.replace("redis://", "redis+cluster://")
    store = RedisStore(url, timeout_s=PATIENT_S, uses_callers_time=True)
    await store.start()
    charges = tuple(charge(f"c{number}", 4) for number in range(10))

    assert all(outcome.granted for outcome in await store.reserve("d", charges, NOW_US))
    assert await store.settle("d", {each.counter: 1 for each in charges}, NOW_US) is True

    assert {outcome.used for outcome in await store.read(charges, NOW_US)} == {1}
    assert len(store.changed()) == 10
    await store.close()


async def test_a_cluster_that_lost_everything_is_noticed(cluster: RedisServer) -> None:
    url = cluster.url.replace("redis://", "redis+cluster://")
    store = RedisStore(url, prefix="lost", timeout_s=PATIENT_S, uses_callers_time=True)
    await store.start()
    await store.reserve("d", (charge(amount=4),), NOW_US)
    with cluster.client() as admin:
        admin.flushall()
        admin.script_flush()

    assert (await store.reserve("e", (charge(amount=1),), NOW_US))[0].used == 0
    with cluster.client() as admin:
        assert admin.exists("{lost}:version")
    await store.close()
