"""One suite over every counter store."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from extproc.decision import Charge, PolicyRef, TokenBucket, Unit
from extproc.store.base import Store
from extproc.store.memory import MemoryStore

STORES: dict[str, Callable[[], Store]] = {
    "memory": MemoryStore,
}
SECOND_US = 1_000_000
PROBES = itertools.count()
NOW_US = 1_800_000_000 * SECOND_US


@pytest_asyncio.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made = STORES[request.param]()
    yield made
    await made.close()


def charge(
    counter: str = "c",
    amount: int = 1,
    *,
    minimum: int | None = None,
    burst: int = 10,
    enforced: bool = True,
    must_count: bool = False,
) -> Charge:
    """A bucket of `burst` that refills one a second."""
    return Charge(
        policy=PolicyRef("RateLimit", counter),
        counter=counter,
        unit=Unit.TOKENS,
        amount=amount,
        minimum=amount if minimum is None else minimum,
        window=TokenBucket(60, 60 * SECOND_US, burst),
        enforced=enforced,
        must_count=must_count,
    )


async def used(store: Store, counter: str = "c", at_us: int = NOW_US) -> int:
    """What a counter has used, asked without taking anything."""
    probe = charge(counter, 10**6, burst=10)
    (outcome,) = await store.reserve(f"probe-{next(PROBES)}", (probe,), at_us)
    return outcome.used


async def test_a_charge_that_fits_is_taken(store: Store) -> None:
    (outcome,) = await store.reserve("d", (charge(amount=4),), NOW_US)

    assert (outcome.granted, outcome.reserved, outcome.used, outcome.remaining) == (True, 4, 0, 6)
    assert (outcome.wait_us, outcome.reset_us) == (0, 4 * SECOND_US)
    assert await used(store) == 4


async def test_a_charge_that_does_not_fit_says_how_long_to_wait(store: Store) -> None:
    await store.reserve("a", (charge(amount=8),), NOW_US)

    (outcome,) = await store.reserve("b", (charge(amount=5),), NOW_US)

    assert (outcome.granted, outcome.reserved, outcome.used, outcome.remaining) == (False, 0, 8, 2)
    assert outcome.wait_us == 3 * SECOND_US
    assert not (await store.reserve("c", (charge(amount=5),), NOW_US + 3 * SECOND_US - 1))[0].granted
    assert (await store.reserve("e", (charge(amount=5),), NOW_US + 3 * SECOND_US))[0].granted


async def test_what_never_fits_has_no_wait(store: Store) -> None:
    (outcome,) = await store.reserve("d", (charge(amount=11),), NOW_US)

    assert (outcome.granted, outcome.wait_us) == (False, None)


async def test_all_charges_are_taken_or_none(store: Store) -> None:
    charges = (charge("a", 4), charge("b", 11), charge("s", 2, enforced=False))

    outcomes = await store.reserve("d", charges, NOW_US)

    assert [(outcome.granted, outcome.reserved) for outcome in outcomes] == [(True, 0), (False, 0), (True, 0)]
    assert [await used(store, name) for name in ("a", "b", "s")] == [0, 0, 0]


async def test_the_outcomes_are_in_the_order_of_the_charges(store: Store) -> None:
    charges = (charge("b", 2), charge("a", 1), charge("c", 3))

    assert [item.charge for item in await store.reserve("d", charges, NOW_US)] == list(charges)


async def test_no_charges_are_granted(store: Store) -> None:
    assert await store.reserve("d", (), NOW_US) == ()


async def test_a_shadow_charge_fills_up_and_denies_nobody(store: Store) -> None:
    await store.reserve("a", (charge("s", 9, enforced=False),), NOW_US)

    outcomes = await store.reserve("b", (charge("e", 1), charge("s", 5, enforced=False)), NOW_US)

    assert [(item.granted, item.reserved) for item in outcomes] == [(True, 1), (False, 1)]
    assert outcomes[1].remaining == 0
    assert await used(store, "s") == 10


async def test_an_elastic_charge_takes_what_is_left_down_to_its_minimum(store: Store) -> None:
    first = await store.reserve("a", (charge(amount=7, minimum=3),), NOW_US)
    second = await store.reserve("b", (charge(amount=7, minimum=3),), NOW_US)
    third = await store.reserve("c", (charge(amount=7, minimum=3),), NOW_US)

    assert [item[0].reserved for item in (first, second, third)] == [7, 3, 0]
    assert third[0].wait_us == 3 * SECOND_US


async def test_a_reservation_is_made_once_however_often_it_is_asked_for(store: Store) -> None:
    first = await store.reserve("d", (charge(amount=4),), NOW_US)
    again = await store.reserve("d", (charge(amount=4),), NOW_US + SECOND_US)

    assert again == first
    assert await used(store) == 4


async def test_a_denial_is_repeated_to_who_asks_again(store: Store) -> None:
    await store.reserve("a", (charge(amount=10),), NOW_US)
    denied = await store.reserve("d", (charge(amount=4),), NOW_US)

    assert await store.reserve("d", (charge(amount=4),), NOW_US + 60 * SECOND_US) == denied


async def test_settling_gives_back_what_was_not_spent(store: Store) -> None:
    await store.reserve("d", (charge("a", 8), charge("b", 5)), NOW_US)

    assert await store.settle("d", {"a": 3}, NOW_US) is True
    assert (await used(store, "a"), await used(store, "b")) == (3, 0)


async def test_settling_charges_what_was_overspent_as_debt(store: Store) -> None:
    await store.reserve("d", (charge(amount=8),), NOW_US)
    await store.settle("d", {"c": 15}, NOW_US)

    assert await used(store) == 15
    assert (await store.reserve("e", (charge(),), NOW_US))[0].wait_us == 6 * SECOND_US


async def test_a_refund_leaves_what_the_spent_amount_would_have_left(store: Store) -> None:
    await store.reserve("d", (charge(amount=8),), NOW_US)
    await store.reserve("e", (charge(amount=2),), NOW_US)
    later = NOW_US + SECOND_US

    await store.settle("d", {"c": 1}, later)

    # 1 and 2 taken, 1 refilled.
    assert await used(store, at_us=later) == 2


async def test_callers_who_stay_within_their_limit_are_never_denied(store: Store) -> None:
    """Each reserves eight times what it spends, and fifty answers are open at once."""
    wanted = replace(charge(amount=4000), window=TokenBucket(200_000, 60 * SECOND_US, 250_000))
    open_: list[tuple[int, str]] = []
    denied = 0
    for number in range(1500):
        now = NOW_US + number * SECOND_US // 5
        while open_ and open_[0][0] <= now:
            await store.settle(open_.pop(0)[1], {"c": 500}, now)
        (outcome,) = await store.reserve(f"d{number}", (wanted,), now)
        denied += not outcome.granted
        if outcome.granted:
            open_.append((now + 10 * SECOND_US, f"d{number}"))

    assert denied == 0


async def test_a_reservation_pushed_out_keeps_its_charge_and_disturbs_no_other() -> None:
    store = MemoryStore(open_reservations=1)
    await store.reserve("a", (charge(amount=4),), NOW_US)
    await store.reserve("b", (charge(amount=5),), NOW_US)

    assert await store.settle("a", {"c": 0}, NOW_US) is False
    assert await store.settle("b", {"c": 0}, NOW_US) is True
    assert await used(store) == 4


async def test_only_the_first_settlement_counts(store: Store) -> None:
    await store.reserve("d", (charge(amount=8),), NOW_US)

    assert await store.settle("d", {"c": 5}, NOW_US) is True
    assert await store.settle("d", {"c": 0}, NOW_US) is False
    assert await used(store) == 5


async def test_a_reservation_asked_for_again_after_its_settlement_takes_nothing(store: Store) -> None:
    first = await store.reserve("d", (charge(amount=8),), NOW_US)
    await store.settle("d", {"c": 1}, NOW_US)

    assert await store.reserve("d", (charge(amount=8),), NOW_US) == first
    assert await used(store) == 1


async def test_settling_what_was_never_reserved_or_was_denied_changes_nothing(store: Store) -> None:
    await store.reserve("denied", (charge(amount=11),), NOW_US)

    assert await store.settle("denied", {"c": 5}, NOW_US) is False
    assert await store.settle("unknown", {"c": 5}, NOW_US) is False
    assert await used(store) == 0


async def test_an_amount_for_another_counter_is_nobodys(store: Store) -> None:
    await store.reserve("d", (charge(amount=4),), NOW_US)
    await store.settle("d", {"c": 4, "other": 9}, NOW_US)

    assert await used(store, "other") == 0


async def test_an_edited_limit_keeps_what_was_used(store: Store) -> None:
    await store.reserve("d", (charge(amount=8),), NOW_US)

    (outcome,) = await store.reserve(
        "e", (replace(charge(amount=5), window=TokenBucket(60, 60 * SECOND_US, 20)),), NOW_US
    )

    assert (outcome.granted, outcome.used, outcome.remaining) == (True, 8, 7)


async def test_a_clock_set_back_gives_nobody_anything(store: Store) -> None:
    await store.reserve("d", (charge(amount=10),), NOW_US)

    (outcome,) = await store.reserve("e", (charge(),), NOW_US - 3600 * SECOND_US)

    assert (outcome.granted, outcome.wait_us) == (False, 3601 * SECOND_US)


async def test_however_many_ask_at_once_no_more_are_granted_than_fit(store: Store) -> None:
    asked = (store.reserve(f"d{n}", (charge("a"), charge("b", burst=7)), NOW_US) for n in range(50))

    outcomes = await asyncio.gather(*asked)

    assert sum(all(item.reserved for item in taken) for taken in outcomes) == 7
    assert (await used(store, "a"), await used(store, "b")) == (7, 7)


async def test_however_many_settle_at_once_one_counts(store: Store) -> None:
    await store.reserve("d", (charge(amount=8),), NOW_US)

    settled = await asyncio.gather(*(store.settle("d", {"c": 2}, NOW_US) for _ in range(20)))

    assert sorted(settled) == [False] * 19 + [True]
    assert await used(store) == 2


# --- the memory store's bounds


async def test_memory_keeps_as_many_reservations_as_it_was_told_and_leaves_the_rest_charged() -> None:
    store = MemoryStore(open_reservations=2)
    for name in ("a", "b", "c"):
        await store.reserve(name, (charge(amount=2),), NOW_US)

    assert [await store.settle(name, {}, NOW_US) for name in ("a", "b", "c")] == [False, True, True]
    assert await used(store) == 2


async def test_memory_forgets_only_counters_that_are_whole_again() -> None:
    store = MemoryStore(counters=2)
    await store.reserve("a", (charge("old", 10),), NOW_US)
    await store.reserve("b", (charge("new", 1),), NOW_US)

    (homeless,) = await store.reserve("c", (charge("third"),), NOW_US)

    assert (homeless.unavailable, homeless.granted, homeless.reserved) == (True, False, 0)
    later = NOW_US + SECOND_US
    assert (await store.reserve("d", (charge("third"),), later))[0].granted
    assert await used(store, "old", later) == 9


async def full() -> MemoryStore:
    """A store without room: `a` has used 9 of 10, `b` one."""
    store = MemoryStore(counters=2)
    await store.reserve("a", (charge("a", 9),), NOW_US)
    await store.reserve("b", (charge("b", 1),), NOW_US)
    return store


async def test_without_room_for_one_counter_every_other_is_still_charged() -> None:
    store = await full()

    outcomes = await store.reserve("d", (charge("new", 5), charge("a", 1), charge("b", 4)), NOW_US)

    assert [(item.unavailable, item.granted, item.reserved) for item in outcomes] == [
        (True, False, 0),
        (False, True, 1),
        (False, True, 4),
    ]
    assert [await used(store, name) for name in ("new", "a", "b")] == [0, 10, 5]


async def test_without_room_for_one_counter_every_other_is_still_enforced() -> None:
    store = await full()

    outcomes = await store.reserve("d", (charge("new", 5), charge("a", 2), charge("b", 4)), NOW_US)

    assert [(item.unavailable, item.granted, item.reserved) for item in outcomes] == [
        (False, True, 0),
        (False, False, 0),
        (False, True, 0),
    ]
    assert [await used(store, name) for name in ("a", "b")] == [9, 1]


async def test_what_never_fits_is_denied_though_there_is_no_room_for_its_counter() -> None:
    store = await full()

    outcomes = await store.reserve("d", (charge("new", 11), charge("a", 1)), NOW_US)

    assert [(item.unavailable, item.granted, item.wait_us) for item in outcomes] == [
        (False, False, None),
        (False, True, 0),
    ]
    assert await used(store, "a") == 9


async def test_without_room_for_what_must_be_counted_nobody_is_charged() -> None:
    store = await full()

    outcomes = await store.reserve("d", (charge("new", must_count=True), charge("a", 1)), NOW_US)

    assert [(item.unavailable, item.granted, item.reserved) for item in outcomes] == [
        (True, False, 0),
        (False, True, 0),
    ]
    assert await used(store, "a") == 9
    assert await store.settle("d", {"new": 5, "a": 5}, NOW_US) is False


async def test_a_shadow_counter_without_room_keeps_nobody_from_being_charged() -> None:
    store = await full()

    trial = charge("new", 5, enforced=False, must_count=True)
    outcomes = await store.reserve("d", (trial, charge("a", 1)), NOW_US)

    assert [(item.unavailable, item.reserved) for item in outcomes] == [(True, 0), (False, 1)]


async def test_the_last_room_is_an_enforced_counters() -> None:
    store = MemoryStore(counters=1)

    outcomes = await store.reserve("d", (charge("a", enforced=False), charge("b"), charge("c")), NOW_US)

    assert [item.unavailable for item in outcomes] == [True, False, True]


async def test_what_was_not_counted_is_not_settled_either() -> None:
    store = await full()
    await store.reserve("d", (charge("new", 5), charge("b", 4)), NOW_US)

    assert await store.settle("d", {"new": 7, "b": 2}, NOW_US) is True

    assert [await used(store, name) for name in ("new", "b")] == [0, 3]
    assert len(store._counters) == 2


async def test_a_reservation_in_part_is_repeated_to_who_asks_again() -> None:
    store = await full()
    charges = (charge("new", 5), charge("b", 4))
    first = await store.reserve("d", charges, NOW_US)

    assert await store.reserve("d", charges, NOW_US + 3600 * SECOND_US) == first


async def test_room_is_never_made_by_forgetting_what_a_request_is_about_to_use() -> None:
    store = MemoryStore(counters=2)
    await store.reserve("a", (charge("a", 1), charge("b", 5)), NOW_US)
    later = NOW_US + SECOND_US  # "a" is whole again, and asked for

    outcomes = await store.reserve("d", (charge("a", 3), charge("new", 1)), later)

    assert [item.unavailable for item in outcomes] == [False, True]
    assert (await used(store, "a", later), await used(store, "b", later)) == (3, 4)


async def test_memory_does_not_grow_by_requests_that_are_denied() -> None:
    store = MemoryStore(remembered_decisions=5)
    for n in range(100):
        await store.reserve(f"d{n}", (charge(f"c{n}", 11),), NOW_US)

    assert (len(store._counters), len(store._open), len(store._closed)) == (0, 0, 5)


async def test_memory_forgets_a_counter_whose_charges_all_came_back() -> None:
    store = MemoryStore()
    await store.reserve("d", (charge(amount=4),), NOW_US)
    await store.settle("d", {}, NOW_US)

    assert len(store._counters) == 0
