"""Which counters and which ledger a sidecar takes up, and what it says of them."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from extproc.decision import CalendarWindow, Charge, PolicyRef, Unit
from extproc.errors import SettingsInvalid, StoreUnavailable
from extproc.keeping import Keeping
from extproc.measure.overrides import Overrides
from extproc.measure.prices import Prices
from extproc.questions.base import UsageQuery
from extproc.settings import Settings
from extproc.telemetry import Metrics
from tests.ledger.samples import allowed
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

NOW_US = 1_800_000_000_000_000
USED = Charge(
    policy=PolicyRef("UsageCap", "c"),
    counter="c",
    unit=Unit.TOKENS,
    amount=7,
    minimum=7,
    # Redis has a clock of its own, and this century is one period.
    window=CalendarWindow(100, "year", (0, NOW_US // 2, 2 * NOW_US, 3 * NOW_US)),
)


def settings(tmp_path: Path, **changes: object) -> Settings:
    return Settings(policies=tmp_path, **changes)  # type: ignore[arg-type]  # whatever a test sets


async def used(keeping: Keeping) -> int:
    (outcome,) = await keeping.store.read((USED,), NOW_US)
    return outcome.used


async def spend(keeping: Keeping) -> None:
    await keeping.store.reserve("d", (USED,), NOW_US)
    await keeping.store.settle("d", {"c": 7}, NOW_US)


async def test_whoever_takes_the_place_takes_up_the_counters(tmp_path: Path) -> None:
    first = Keeping(settings(tmp_path, state=tmp_path))
    await first.start()
    await spend(first)
    await first.close()

    second = Keeping(settings(tmp_path, state=tmp_path))
    await second.start()

    assert await used(second) == 7
    assert list(second.notices()) == []
    await second.close()


async def test_what_an_earlier_run_left_open_has_a_price(tmp_path: Path) -> None:
    first = Keeping(settings(tmp_path, state=tmp_path))
    await first.start()
    assert first.journal is not None
    first.journal.decided(allowed(at_s=int(time.time())))
    await first.close()

    second = Keeping(settings(tmp_path, state=tmp_path), prices=lambda: Overrides().over(Prices.bundled()))
    await second.start()

    assert second.reader is not None
    total = (await second.reader.usage(UsageQuery())).total
    assert (total.provisional, total.unpriced) == (1, 0)
    assert total.nano_usd > 0
    await second.close()


async def test_another_place_has_counters_of_its_own(tmp_path: Path) -> None:
    first = Keeping(settings(tmp_path, state=tmp_path))
    await first.start()
    await spend(first)
    await first.close()

    other = Keeping(settings(tmp_path, state=tmp_path, grpc="127.0.0.1:50052"))
    named = Keeping(settings(tmp_path, state=tmp_path, grpc="127.0.0.1:50053", instance="/127.0.0.1:50051"))
    await other.start()
    await named.start()

    assert (await used(other), await used(named)) == (0, 7)
    await other.close()
    await named.close()


async def test_counters_in_memory_without_a_ledger_are_said_to_be_forgotten(tmp_path: Path) -> None:
    keeping = Keeping(settings(tmp_path))
    await keeping.start()

    (notice,) = keeping.notices()

    assert "a restart forgets" in notice
    assert keeping.is_writing is False
    await keeping.close()


@pytest.mark.parametrize("store", ["memory:", "redis://127.0.0.1:1"])
async def test_records_that_are_required_and_have_no_ledger_are_said_to_deny_everything(
    tmp_path: Path, store: str
) -> None:
    keeping = Keeping(settings(tmp_path, store=store))

    said = [each for each in keeping.notices(needs_records=True) if "audit: required" in each]

    (notice,) = said
    assert "--ledger" in notice
    assert "every request" in notice
    await keeping.close()


async def test_a_ledger_that_never_can_be_one_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database" * 1000)

    keeping = Keeping(settings(tmp_path, state=tmp_path))
    with pytest.raises(SettingsInvalid):
        await keeping.start()


async def test_a_redis_that_is_away_is_said_and_exported_and_comes_back(tmp_path: Path) -> None:
    with RedisServer() as redis:
        keeping = Keeping(settings(tmp_path, state=tmp_path, store=redis.url, store_timeout_ms=500))
        metrics = Metrics(version="0")
        metrics.watch(*keeping.figures())
        await keeping.start()
        await spend(keeping)
        assert list(keeping.notices()) == []
        assert b"ai_policy_store_is_connected 1.0" in metrics.exposition()
        assert b"ai_policy_ledger_is_writing 1.0" in metrics.exposition()

        assert keeping.journal is not None
        async with asyncio.timeout(60):
            while not await keeping.journal.counters():  # noqa: ASYNC110  the next commit is a second away
                await asyncio.sleep(0.05)
        redis.kill()
        with pytest.raises(StoreUnavailable):
            await used(keeping)
        (notice,) = keeping.notices()
        assert "onError decides" in notice
        assert str(redis.port) not in notice
        assert b"ai_policy_store_is_connected 0.0" in metrics.exposition()

        redis.start()
        async with asyncio.timeout(60):
            while await _is_away(keeping):  # noqa: ASYNC110  another process's
                await asyncio.sleep(0.05)
        assert await used(keeping) == 7  # put back from the ledger
        metrics.close()
        await keeping.close()


async def _is_away(keeping: Keeping) -> bool:
    try:
        await used(keeping)
    except StoreUnavailable:
        return True
    return False


async def test_while_the_earlier_run_cannot_be_asked_a_cap_counts_nothing(tmp_path: Path) -> None:
    with PostgresServer() as postgres, postgres.database() as ledger:
        first = Keeping(settings(tmp_path, ledger=ledger))
        await first.start()
        await spend(first)
        await first.close()
        postgres.kill()

        second = Keeping(settings(tmp_path, ledger=ledger))
        await second.start()
        cap = replace(USED, must_count=True)
        (outcome,) = await second.store.reserve("e", (cap,), NOW_US)
        assert outcome.unavailable
        assert any("onError decides" in notice for notice in second.notices())

        postgres.start()
        assert second.journal is not None
        async with asyncio.timeout(60):
            while not second.journal.status.has_counters:  # noqa: ASYNC110  another process's
                await asyncio.sleep(0.05)
        (outcome,) = await second.store.reserve("f", (cap,), NOW_US)
        assert (outcome.unavailable, outcome.used) == (False, 7)
        await second.close()
