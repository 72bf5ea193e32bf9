"""Redis away, paused, refusing, killed, emptied: calls are done or `StoreUnavailable`, and it comes back."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.connection import Connection

from extproc.decision import Charge, SlidingWindow
from extproc.errors import LedgerUnavailable, StoreUnavailable
from extproc.store import packed
from extproc.store.base import CounterState
from extproc.store.redis import RedisStore
from tests.servers.redis import RedisServer
from tests.store.charges import DAY_US, NOW_US, charge
from tests.store.redis_bench import PATIENT_S, Clock

# Long enough for a call on a busy machine, short enough to wait for where nobody answers.
IMPATIENT_S = 0.3


class Ledger:
    """What was written down, as a sidecar's ledger knows it."""

    def __init__(self) -> None:
        self.states: dict[str, CounterState] = {}
        self.reads = 0
        self.is_there = True

    def write(self, states: Iterable[CounterState]) -> None:
        self.states |= {state.counter: state for state in states}

    async def read(self) -> Iterable[CounterState]:
        self.reads += 1
        if not self.is_there:
            raise LedgerUnavailable("away")
        return self.states.values()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@asynccontextmanager
async def opened(server: RedisServer, **options: Any) -> AsyncIterator[RedisStore]:
    store = RedisStore(server.url, **{"timeout_s": PATIENT_S, "uses_callers_time": True, **options})
    try:
        await store.start()
        yield store
    finally:
        await store.close()


def cap(amount: int = 1, *, counter: str = "cap", size: int = 50) -> Charge:
    return charge(counter, amount, window=SlidingWindow(size, 365 * DAY_US))


async def used(store: RedisStore, counter: str = "cap") -> int:
    return (await store.read((cap(counter=counter),), NOW_US))[0].used


async def eventually(ask: Callable[[], Awaitable[Any]], expected: object) -> None:
    """Ask until the answer is that; the run's own time limit ends it."""
    while True:
        try:
            if await ask() == expected:
                return
        except StoreUnavailable:
            pass
        await asyncio.sleep(0.01)


# --- a server that does not answer


async def test_a_paused_server_is_unavailable_and_what_it_did_meanwhile_is_settled(
    server: RedisServer,
) -> None:
    """The reservation that nobody waited for any more was made, or comes too late: nothing stays charged."""
    async with opened(server, timeout_s=IMPATIENT_S) as store:
        await store.reserve("before", (cap(5),), NOW_US)
        server.pause()

        with pytest.raises(StoreUnavailable, match="TimeoutError"):
            await store.reserve("lost", (cap(9),), NOW_US)
        assert await store.settle("before", {"cap": 2}, NOW_US) is True
        assert await store.settle("before", {"cap": 3}, NOW_US) is False
        assert await store.settle("lost", {}, NOW_US) is True
        assert (store.status.is_connected, store.status.pending) == (False, 2)
        server.resume()

        await store.drain()
        await eventually(lambda: used(store), 2)
        assert (store.status.is_connected, store.status.pending, store.status.dropped) == (True, 0, 0)


async def test_after_some_failures_nobody_is_asked_until_a_probe_succeeds(server: RedisServer) -> None:
    clock = Clock()
    async with opened(server, clock_s=clock) as store:
        server.kill()
        for number in range(5):
            with pytest.raises(StoreUnavailable):
                await store.reserve(f"d{number}", (cap(),), NOW_US)
        assert store.status.breaker == "open"

        server.start()
        with pytest.raises(StoreUnavailable, match="left alone"):
            await store.reserve("d", (cap(),), NOW_US)
        clock.s += 1

        assert (await store.reserve("d", (cap(),), NOW_US))[0].granted
        assert store.status.breaker == "closed"


async def test_one_server_paused_is_nothing_to_another(server: RedisServer) -> None:
    with RedisServer() as other:
        async with opened(server, timeout_s=IMPATIENT_S) as paused, opened(other) as well:
            server.pause()
            failing = asyncio.create_task(paused.reserve("d", (cap(),), NOW_US))

            answers = [await well.reserve(f"d{n}", (cap(),), NOW_US) for n in range(20)]

            assert all(outcome.granted for (outcome,) in answers)
            with pytest.raises(StoreUnavailable):
                await failing
            server.resume()


async def test_a_server_that_is_away_at_the_start_is_found_later() -> None:
    with RedisServer() as server:
        server.kill()
        async with opened(server, clock_s=Clock()) as store:
            assert not store.status.is_connected
            server.start()

            assert (await store.reserve("d", (cap(),), NOW_US))[0].granted


async def test_one_line_says_that_it_went_and_one_that_it_is_back(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(server, clock_s=Clock()) as store:
        caplog.clear()
        server.kill()
        for number in range(3):
            with pytest.raises(StoreUnavailable):
                await store.reserve(f"d{number}", (cap(),), NOW_US)
        server.start()
        for number in range(3):
            await store.reserve(f"e{number}", (cap(),), NOW_US)

    said = [record.message for record in caplog.records if record.name.endswith("link")]
    assert said == ["counter store unavailable", "counter store answers again"]


async def test_a_settlement_that_finds_no_room_to_wait_is_counted(server: RedisServer) -> None:
    async with opened(server, clock_s=Clock(), pending_settlements=1) as store:
        for name in ("a", "b"):
            await store.reserve(name, (cap(),), NOW_US)
        server.kill()

        assert await store.settle("a", {}, NOW_US) is True
        with pytest.raises(StoreUnavailable):
            await store.settle("b", {}, NOW_US)

        assert (store.status.pending, store.status.dropped) == (1, 1)


# --- a server that refuses


def out_of_memory(server: RedisServer) -> Callable[[], object]:
    with server.client() as admin:
        admin.config_set("maxmemory", 1)
    return lambda: _with(server, lambda admin: admin.config_set("maxmemory", 0))


def read_only(server: RedisServer) -> Callable[[], object]:
    with server.client() as admin:
        admin.replicaof("127.0.0.1", 1)
    return lambda: _with(server, lambda admin: admin.replicaof("NO", "ONE"))


def without_disk(server: RedisServer) -> Callable[[], object]:
    shutil.rmtree(server._folder)
    with server.client() as admin:
        admin.config_set("save", "900 1")
        admin.bgsave()
        while admin.info("persistence")["rdb_last_bgsave_status"] == "ok":
            pass
    return lambda: _with(server, lambda admin: admin.config_set("stop-writes-on-bgsave-error", "no"))


def another_password(server: RedisServer) -> Callable[[], object]:
    with server.client() as admin:
        admin.config_set("requirepass", "s3cret")
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def back() -> None:
        with server.client(password="s3cret") as admin:
            admin.config_set("requirepass", "")

    return back


def _with(server: RedisServer, do: Callable[[Any], object]) -> object:
    with server.client() as admin:
        return do(admin)


@pytest.mark.parametrize(
    ("refuse", "error"),
    [
        (out_of_memory, "OOM"),
        (read_only, "READONLY"),
        (without_disk, "MISCONF"),
        (another_password, "NOAUTH"),
    ],
)
async def test_a_server_that_refuses_moves_nothing(
    server: RedisServer, refuse: Callable[[RedisServer], Callable[[], object]], error: str
) -> None:
    async with opened(server, clock_s=Clock()) as store:
        await store.reserve("open", (cap(5), charge("b", 5)), NOW_US)
        accept = refuse(server)

        with pytest.raises(StoreUnavailable, match=error):
            await store.reserve("d", (cap(7), charge("b", 1)), NOW_US)
        assert await store.settle("open", {"cap": 1, "b": 1}, NOW_US) is True
        assert (store.status.error, store.status.pending) == (error, 1)
        accept()

        await store.drain()
        assert [o.used for o in await store.read((cap(), charge("b")), NOW_US)] == [1, 1]


class Front:
    """An address whose connections lead to whichever server is primary now, as those of clouds do."""

    def __init__(self, primary: RedisServer) -> None:
        self.primary = primary

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.primary.port)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def test_a_primary_that_became_a_replica_is_left_for_the_one_that_took_over(
    server: RedisServer,
) -> None:
    """Its connections stay open and refuse writes for ever; only a new one leads elsewhere."""
    front = Front(server)
    listening = await asyncio.start_server(front.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    store = RedisStore(
        f"redis://127.0.0.1:{port}/0", timeout_s=PATIENT_S, uses_callers_time=True, clock_s=Clock()
    )
    with RedisServer() as other:
        try:
            await store.start()
            await asyncio.gather(*(store.reserve(f"d{number}", (cap(),), NOW_US) for number in range(3)))
            read_only(server)
            front.primary = other

            with pytest.raises(StoreUnavailable, match="READONLY"):
                await store.reserve("refused", (cap(),), NOW_US)

            (outcome,) = await store.reserve("taken", (cap(),), NOW_US)
            assert (outcome.granted, store.status.is_connected) == (True, True)
        finally:
            await store.close()
            listening.close()


# --- a server that was killed, or emptied


async def test_what_was_taken_is_there_after_a_kill_where_it_is_written_to_disk() -> None:
    with RedisServer(is_durable=True) as server:
        async with opened(server, clock_s=Clock()) as store:
            await store.reserve("open", (cap(5),), NOW_US)
            server.kill()
            server.start()

            assert await used(store) == 5
            assert await store.settle("open", {"cap": 2}, NOW_US) is True
            assert await used(store) == 2


async def test_a_server_killed_in_the_middle_keeps_what_it_answered() -> None:
    with RedisServer(is_durable=True) as server:
        async with opened(server, clock_s=Clock()) as store:
            charges = (cap(counter="a", size=10**6), cap(counter="b", size=10**6))
            answered, enough = 0, asyncio.Event()

            async def deciding(client: int) -> None:
                nonlocal answered
                for number in range(10_000):
                    await store.reserve(f"{client}-{number}", charges, NOW_US)
                    answered += 1
                    if answered == 200:
                        enough.set()

            deciders = [asyncio.create_task(deciding(client)) for client in range(8)]
            await enough.wait()
            server.kill()
            ended = await asyncio.gather(*deciders, return_exceptions=True)
            server.start()
            store._link.breaker.succeeded()

            assert all(isinstance(each, StoreUnavailable) for each in ended)
            moved = [outcome.used for outcome in await store.read(charges, NOW_US)]
            assert moved[0] == moved[1]
            assert answered <= moved[0] <= answered + len(deciders)


def restarted(server: RedisServer) -> None:
    server.kill()
    server.start()


def flushed(server: RedisServer) -> None:
    _with(server, lambda admin: admin.flushall())


@pytest.mark.parametrize("lose", [restarted, flushed])
async def test_counters_that_were_lost_are_put_back_from_the_ledger(
    server: RedisServer, lose: Callable[[RedisServer], None]
) -> None:
    ledger = Ledger()
    async with opened(server, states=ledger.read) as store:
        await store.reserve("open", (cap(40), cap(7, counter="other")), NOW_US)
        ledger.write(store.changed())
        lose(server)

        await eventually(lambda: used(store), 40)

        assert await used(store, "other") == 7
        assert not (await store.reserve("d", (cap(11),), NOW_US))[0].granted
        assert await store.settle("open", {"cap": 0}, NOW_US) is False
        assert ledger.reads == 2  # at the start, and now


async def test_of_many_sidecars_one_puts_counters_back(server: RedisServer) -> None:
    ledger = Ledger()
    async with opened(server, states=ledger.read) as one, opened(server, states=ledger.read) as other:
        await one.reserve("open", (cap(40),), NOW_US)
        ledger.write(one.changed())
        flushed(server)

        for answer in await asyncio.gather(
            *(store.reserve(f"d{n}", (cap(11),), NOW_US) for n in range(20) for store in (one, other)),
            return_exceptions=True,
        ):
            # While they are put back nobody knows; nobody is ever told that there is room.
            assert isinstance(answer, StoreUnavailable) or not _granted(answer)

        await eventually(lambda: used(other), 40)
        assert ledger.reads == 2  # by whoever started first, and once more


def _granted(answer: Any) -> bool:
    return any(outcome.granted for outcome in answer)


async def test_nobody_counts_from_nothing_while_the_ledger_is_away(server: RedisServer) -> None:
    ledger = Ledger()
    async with opened(server, states=ledger.read) as store:
        await store.reserve("open", (cap(40),), NOW_US)
        ledger.write(store.changed())
        ledger.is_there = False
        flushed(server)

        for number in range(3):
            with pytest.raises(StoreUnavailable, match="lost its counters"):
                await store.reserve(f"d{number}", (cap(),), NOW_US)
        ledger.is_there = True

        await eventually(lambda: used(store), 40)


async def test_the_lock_of_a_sidecar_that_died_is_over_soon(server: RedisServer) -> None:
    _with(server, lambda admin: admin.set("{ai_policy}:seeding", "of the dead", px=200))

    async with opened(server) as store:
        await eventually(lambda: used(store), 0)


async def test_the_lock_is_kept_for_as_long_as_the_ledger_is_read(server: RedisServer) -> None:
    is_reading, is_read = asyncio.Event(), asyncio.Event()

    async def slow() -> Iterable[CounterState]:
        is_reading.set()
        await is_read.wait()
        return ()

    async with opened(server, timeout_s=IMPATIENT_S) as other:
        flushed(server)
        reader = RedisStore(server.url, states=slow, lock_ms=150)
        starting = asyncio.create_task(reader.start())
        await is_reading.wait()
        await asyncio.sleep(0.5)  # thrice the lock's life

        assert _with(server, lambda admin: admin.exists("{ai_policy}:seeding"))
        with pytest.raises(StoreUnavailable):
            await other.reserve("d", (cap(),), NOW_US)
        is_read.set()
        await starting
        assert (await other.reserve("e", (cap(),), NOW_US))[0].granted
        await reader.close()


# --- a client that was killed

# Sends the same reservation under rising ids for as long as it lives; imports as little as can be.
CLIENT = """
import socket, sys
template = sys.stdin.buffer.read()
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as link:
    for number in range(10**8):
        link.sendall(template.replace(b"@@@@@@@@@@", b"%04d-%05d" % (int(sys.argv[2]), number)))
        if number % 3 == 0:
            link.recv(65536)
        if number == 0:
            print("ready", flush=True)
"""


async def test_a_client_killed_at_any_moment_moves_all_counters_of_a_decision_or_none(
    server: RedisServer,
) -> None:
    """Killed in the middle of a call, of a message even: 40 of them, each with calls on their way."""
    charges = tuple(cap(counter=f"k{n}", size=10**9) for n in range(5))
    names = tuple(each.counter for each in charges)
    async with opened(server) as store:
        words = ("reserve", store._prefix, NOW_US, "@" * 10, packed.charges(charges), *names)
        message = packed_command("EVALSHA", store._link._digest, 1, *store._keys, *words)
        await store.reserve("first", charges, NOW_US)
        life, moved = 0, {0}
        while life < 40 or max(moved) < 200:
            life += 1
            await asyncio.to_thread(live_and_die, server.port, life, message)

            moved = {outcome.used for outcome in await store.read(charges, NOW_US)}

            assert len(moved) == 1

        async def is_accounted_for() -> bool:
            """What the last one sent may still be on its way."""
            with server.client() as admin:
                open_ = sum(1 for _ in admin.scan_iter(match=f"{store._prefix}r:*", count=10_000))
            return {outcome.used for outcome in await store.read(charges, NOW_US)} == {open_}

        await eventually(is_accounted_for, expected=True)


def packed_command(*words: Any) -> bytes:
    connection: Any = Connection
    return b"".join(connection().pack_command(*words))


def live_and_die(port: int, life: int, message: bytes) -> None:
    command = [sys.executable, "-I", "-S", "-c", CLIENT, str(port), str(life)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(message)
        client.stdin.close()
        client.stdout.readline()
        # Busy waiting ends at any moment of what the client does.
        for _ in range(random.randrange(200_000)):
            pass
        client.kill()
