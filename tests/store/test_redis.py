"""What the Redis store does beyond the suite that all stores share: other clients, keys, what it forgets."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from extproc.decision import CalendarWindow, Charge, Leases, SlidingWindow, TokenBucket, Window
from extproc.errors import SettingsInvalid, StoreUnavailable
from extproc.store.base import CounterState
from extproc.store.redis import RedisStore
from tests.servers.redis import RedisServer
from tests.store.charges import DAY_US, NOW_US, SECOND_US, charge, used
from tests.store.redis_bench import PATIENT_S, fresh_prefix, server

FULL_US = 365 * DAY_US


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, **{"timeout_s": PATIENT_S, "uses_callers_time": True, **options})
    try:
        await store.start()
        yield store
    finally:
        await store.close()


@pytest_asyncio.fixture
async def store() -> AsyncIterator[RedisStore]:
    async with opened(server().url, prefix=fresh_prefix()) as made:
        yield made


@pytest.fixture
def admin() -> Iterator[Any]:
    with server().client() as client:
        yield client


def key(store: RedisStore, kind: str, name: str) -> str:
    return f"{store._prefix}{kind}:{name}"


def cap(amount: int = 1, *, size: int = 50, counter: str = "cap") -> Charge:
    return charge(counter, amount, window=SlidingWindow(size, FULL_US))


# --- several clients


async def test_many_sidecars_together_admit_what_fits() -> None:
    prefix = fresh_prefix()
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(server().url, prefix=prefix)) for _ in range(3)]
        asked = (
            stores[n % 3].reserve(f"d{n}", (cap(), charge("other", burst=1000)), NOW_US) for n in range(200)
        )

        answers = await asyncio.gather(*asked)

        assert sum(all(outcome.reserved for outcome in taken) for taken in answers) == 50
        assert [outcome.used for outcome in await stores[0].read((cap(), charge("other")), NOW_US)] == [
            50,
            50,
        ]


async def test_what_one_sidecar_reserved_another_settles() -> None:
    prefix = fresh_prefix()
    async with opened(server().url, prefix=prefix) as one, opened(server().url, prefix=prefix) as other:
        await one.reserve("d", (cap(9),), NOW_US)

        assert await other.settle("d", {"cap": 4}, NOW_US) is True
        assert await one.settle("d", {"cap": 0}, NOW_US) is False
        assert (await one.read((cap(),), NOW_US))[0].used == 4


async def test_prefixes_share_nothing() -> None:
    async with (
        opened(server().url, prefix=fresh_prefix()) as one,
        opened(server().url, prefix=fresh_prefix()) as other,
    ):
        await one.reserve("d", (cap(9),), NOW_US)

        assert (await other.read((cap(),), NOW_US))[0].used == 0


# --- calls whose outcome nobody knew


async def test_a_reservation_that_arrives_after_its_settlement_takes_nothing(store: RedisStore) -> None:
    """Both timed out, and the server did them in another order."""
    assert await store.settle("d", {"cap": 4}, NOW_US) is False

    (outcome,) = await store.reserve("d", (cap(9),), NOW_US)

    assert (outcome.unavailable, outcome.granted, outcome.reserved) == (True, False, 0)
    assert (await store.read((cap(),), NOW_US))[0].used == 0
    assert await store.settle("d", {"cap": 4}, NOW_US) is False


async def test_a_script_that_the_server_forgot_is_sent_again(store: RedisStore, admin: Any) -> None:
    admin.script_flush()

    assert (await store.reserve("d", (cap(9),), NOW_US))[0].granted
    assert (await store.read((cap(),), NOW_US))[0].used == 9


async def test_no_call_moves_a_part_whenever_its_connection_is_cut(store: RedisStore, admin: Any) -> None:
    """Another client cuts connections all the time; each call is sent once more, and done once."""
    charges = tuple(cap(1, size=10**6, counter=f"cut{n}") for n in range(4))
    done, cut = asyncio.Event(), 0

    async def cutting() -> None:
        nonlocal cut
        while not done.is_set():
            cut += await asyncio.to_thread(
                admin.execute_command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
            )

    async def deciding(client: int) -> list[str]:
        reserved = []
        for number in range(25):
            try:
                await store.reserve(f"{client}-{number}", charges, NOW_US)
            except StoreUnavailable:
                continue  # cut twice: it may have been taken, or not
            finally:
                store._link.breaker.succeeded()
            reserved.append(f"{client}-{number}")
        return reserved

    cutter = asyncio.create_task(cutting())
    sure = [each for some in await asyncio.gather(*map(deciding, range(10))) for each in some]
    done.set()
    await cutter

    moved = {outcome.used for outcome in await store.read(charges, NOW_US)}
    assert len(moved) == 1
    assert len(sure) <= moved.pop() <= 250
    assert cut > 0
    for each in (f"{client}-{number}" for client in range(10) for number in range(25)):
        await store.settle(each, {}, NOW_US)
    assert {outcome.used for outcome in await store.read(charges, NOW_US)} == {0}


async def test_a_caller_that_leaves_leaves_no_answer_behind_for_the_next(store: RedisStore) -> None:
    await store.reserve("d", (cap(7, counter="other"),), NOW_US)
    for number in range(60):
        leaving = asyncio.create_task(store.reserve(f"d{number}", (cap(counter="left"),), NOW_US))
        for _ in range(number % 12):
            await asyncio.sleep(0)
        leaving.cancel()

        (outcome,) = await store.read((cap(counter="other"),), NOW_US)

        assert (outcome.used, outcome.remaining) == (7, 42)
    assert store.status.is_connected


# --- what it keeps, and how long


async def test_a_counter_that_is_whole_leaves_nothing_behind(store: RedisStore, admin: Any) -> None:
    await store.reserve("d", (cap(3), charge("b", 3)), NOW_US)
    await store.settle("d", {}, NOW_US)

    assert not admin.exists(key(store, "c", "cap"), key(store, "c", "b"))
    assert {state.counter: state.state for state in store.changed()} == {"cap": "", "b": ""}


@pytest.mark.parametrize(
    ("window", "least_us"),
    [
        (TokenBucket(60, 60 * SECOND_US, 10**6), 600 * SECOND_US),
        (SlidingWindow(10**6, 30 * DAY_US), 30 * DAY_US),
        (
            CalendarWindow(10**6, "day", (NOW_US - DAY_US, NOW_US, NOW_US + DAY_US, NOW_US + 2 * DAY_US)),
            2 * DAY_US,
        ),
    ],
)
async def test_a_counter_goes_when_it_would_equal_a_new_one_and_no_earlier(
    store: RedisStore, admin: Any, window: Window, least_us: int
) -> None:
    await store.reserve("d", (charge("c", 600, window=window),), NOW_US)

    ttl_ms = admin.pttl(key(store, "c", "c"))

    assert least_us // 1000 <= ttl_ms <= least_us // 1000 + DAY_US // 1000


async def test_an_override_keeps_its_counter(store: RedisStore, admin: Any) -> None:
    await store.override(cap(), 5, NOW_US + DAY_US, NOW_US)

    assert admin.pttl(key(store, "c", "cap")) >= DAY_US // 1000
    assert (await store.read((cap(),), NOW_US))[0].limit == 55


async def test_every_key_expires(store: RedisStore, admin: Any) -> None:
    lease = charge("l", window=Leases(2, 60 * SECOND_US))
    await store.reserve("open", (cap(), charge("b"), lease), NOW_US)
    await store.reserve("settled", (cap(), charge("b"), lease), NOW_US)
    await store.settle("settled", {}, NOW_US)
    await store.reserve("denied", (cap(51),), NOW_US)
    await store.settle("unknown", {}, NOW_US)

    keys = set(admin.scan_iter(match=f"{store._prefix}*", count=10_000))
    forever = {name for name in keys if admin.pttl(name) < 0}

    assert len(keys) == 8
    assert forever == {f"{store._prefix}version".encode()}


@pytest.mark.parametrize(("in_use", "most"), [(100_000, 2700), (0, 9000)])
async def test_beyond_the_reservations_it_tells_apart_never_too_much_comes_back(
    store: RedisStore, in_use: int, most: int
) -> None:
    """Older neighbours share the least that was in use: too little where the bucket was all but whole."""
    wanted = charge("c", 10, burst=10**6)
    await store.reserve("before", (charge("c", in_use, burst=10**6),), NOW_US)
    for number in range(900):
        await store.reserve(f"d{number}", (wanted,), NOW_US)
    for number in itertools.chain(range(0, 900, 2), range(1, 900, 2)):
        await store.settle(f"d{number}", {"c": 3}, NOW_US)

    assert 2700 <= await used(store) - in_use <= most


# --- the ledger


async def test_counters_of_the_ledger_are_taken_up_unless_newer_ones_are_there(store: RedisStore) -> None:
    await store.reserve("d", (cap(9, counter="a"),), NOW_US)
    (known,) = store.changed()
    slots = json.dumps({"slots": {NOW_US - NOW_US % (FULL_US // 60): 7}, "per_us": FULL_US})

    await store.seed(
        [
            CounterState(counter="a", version=known.version - 1, state=slots),
            CounterState(counter="b", version=known.version + 5, state=slots),
        ]
    )

    found = await store.read((cap(counter="a"), cap(counter="b")), NOW_US)
    assert [outcome.used for outcome in found] == [9, 7]
    await store.reserve("e", (cap(counter="b"),), NOW_US)
    (changed,) = store.changed()
    assert changed.version > known.version + 5


async def test_of_a_counter_that_changed_often_the_newest_state_is_told_once(store: RedisStore) -> None:
    for number in range(5):
        await store.reserve(f"d{number}", (cap(),), NOW_US)

    (state,) = store.changed()

    assert '"slots":{"' in state.state
    assert state.state.count(":5}") == 1
    assert store.changed() == ()


# --- settings


@pytest.mark.parametrize("url", ["http://127.0.0.1/0", "redis://:s3cret@127.0.0.1:port/0", "memory:"])
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="--store") as refused:
        RedisStore(url)

    assert "s3cret" not in str(refused.value)


async def test_a_wrong_password_is_said_at_the_start_and_never_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RedisServer("--requirepass", "right") as guarded:
        url = f"redis://:wr0ng@127.0.0.1:{guarded.port}/0"
        with pytest.raises(SettingsInvalid, match="password") as refused:
            async with opened(url):
                pass
        async with opened(f"redis://:right@127.0.0.1:{guarded.port}/0") as store:
            assert (await store.reserve("d", (cap(),), NOW_US))[0].granted

    assert "wr0ng" not in str(refused.value) + caplog.text


async def test_a_server_that_may_forget_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as forgetful:
        async with opened(forgetful.url):
            pass

    assert "may forget limits" in caplog.text


async def test_a_server_on_a_socket_is_reached(tmp_path: Any) -> None:
    path = tmp_path / "redis.sock"
    with RedisServer("--unixsocket", str(path)):
        async with opened(f"unix://{path}") as store:
            assert (await store.reserve("d", (cap(),), NOW_US))[0].granted


async def test_a_database_that_the_server_does_not_have_ends_the_start() -> None:
    with (
        RedisServer("--databases", "1") as small,
        pytest.raises(SettingsInvalid, match="refuses the number of the database"),
    ):
        async with opened(small.url.removesuffix("/0") + "/1"):
            pass
