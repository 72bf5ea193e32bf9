"""The memory store's bounds."""

import pytest

from extproc.decision import CalendarWindow, Leases, SlidingWindow, Window
from extproc.store.base import CounterState
from extproc.store.memory import MemoryStore
from tests.store.charges import DAY_US, NOW_US, SECOND_US, charge, used


async def test_a_reservation_pushed_out_keeps_its_charge_and_disturbs_no_other() -> None:
    store = MemoryStore(open_reservations=1)
    await store.reserve("a", (charge(amount=4),), NOW_US)
    await store.reserve("b", (charge(amount=5),), NOW_US)

    assert await store.settle("a", {"c": 0}, NOW_US) is False
    assert await store.settle("b", {"c": 0}, NOW_US) is True
    assert await used(store) == 4


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


# --- what may be forgotten


MONTH = CalendarWindow(
    10, "month", (NOW_US - 30 * DAY_US, NOW_US, NOW_US + 30 * DAY_US, NOW_US + 60 * DAY_US)
)


@pytest.mark.parametrize("window", [MONTH, SlidingWindow(10, 30 * DAY_US), Leases(10, 30 * DAY_US)])
async def test_a_used_counter_keeps_its_place_however_long_nobody_asks(window: Window) -> None:
    store = MemoryStore(counters=1)
    await store.reserve("a", (charge("old", 1, window=window),), NOW_US)
    later = NOW_US + 29 * DAY_US

    (homeless,) = await store.reserve("b", (charge("new"),), later)

    assert homeless.unavailable
    assert (await store.read((charge("old", 1, window=window),), later))[0].used == 1


@pytest.mark.parametrize("window", [MONTH, SlidingWindow(10, 30 * DAY_US), Leases(10, 30 * DAY_US)])
async def test_a_counter_gives_way_once_its_time_is_over(window: Window) -> None:
    store = MemoryStore(counters=1)
    await store.reserve("a", (charge("old", 1, window=window),), NOW_US)

    (placed,) = await store.reserve("b", (charge("new"),), NOW_US + 31 * DAY_US)

    assert (placed.granted, list(store._counters)) == (True, ["new"])


async def test_an_override_has_a_place_where_there_is_none_and_keeps_it_until_it_ends() -> None:
    store = await full()

    await store.override(charge("vip"), 5, NOW_US + 3600 * SECOND_US, NOW_US)

    (outcome,) = await store.reserve("d", (charge("vip", 12),), NOW_US)
    assert (outcome.granted, outcome.limit) == (True, 15)
    later = NOW_US + 3600 * SECOND_US - 1
    for name in ("x", "y", "z"):
        await store.reserve(name, (charge(name, 1),), later)
    assert (await store.read((charge("vip"),), later))[0].limit == 15


async def test_an_override_takes_the_place_of_a_counter_that_is_whole_again() -> None:
    store = await full()

    await store.override(charge("vip"), 5, NOW_US + 3600 * SECOND_US, NOW_US + SECOND_US)

    assert set(store._counters) == {"a", "vip"}


async def test_whoever_looks_for_room_passes_over_nobody() -> None:
    """Only the last of a thousand counters is whole again; it is found within a thousand looks."""
    store = MemoryStore(counters=1000)
    for number in range(1000):
        await store.reserve(f"a{number}", (charge(f"c{number}", 1 if number == 999 else 10),), NOW_US)
    later = NOW_US + SECOND_US

    tries = 0
    while (await store.reserve(f"t{tries}", (charge("new"),), later))[0].unavailable:
        tries += 1

    assert tries <= 1000 // 16 + 1
    assert "c999" not in store._counters


async def test_a_lease_that_was_pushed_out_is_over_in_its_time() -> None:
    store = MemoryStore(open_reservations=1)
    asked = charge(window=Leases(2, 60 * SECOND_US))
    await store.reserve("a", (asked,), NOW_US)
    await store.reserve("b", (asked,), NOW_US)
    await store.renew(["a", "b"], NOW_US + 30 * SECOND_US)

    used_then = [
        (await store.read((asked,), NOW_US + after * SECOND_US))[0].used for after in (59, 60, 89, 90)
    ]

    assert used_then == [2, 1, 1, 0]


# --- what the ledger is told


async def test_nothing_is_noted_until_somebody_asks_who_then_is_told_everything() -> None:
    store = MemoryStore()
    for number in range(5):
        await store.reserve(f"d{number}", (charge(f"c{number}"),), NOW_US)
    await store.settle("d0", {}, NOW_US)

    assert {state.counter for state in store.changed()} == {"c1", "c2", "c3", "c4"}
    assert store.changed() == ()


async def test_leases_that_come_and_go_are_not_told() -> None:
    store = MemoryStore()
    asked = charge(window=Leases(2, 60 * SECOND_US))
    await store.reserve("a", (asked,), NOW_US)
    assert store.changed() == ()

    await store.reserve("b", (asked,), NOW_US)
    await store.settle("a", {}, NOW_US)
    await store.settle("b", {}, NOW_US)

    assert store.changed() == ()


async def test_what_is_told_of_forgotten_counters_is_bounded() -> None:
    store = MemoryStore(counters=3)
    store.changed()
    for number in range(10):
        await store.reserve(f"d{number}", (charge(f"c{number}"),), NOW_US)
        await store.settle(f"d{number}", {}, NOW_US)

    assert [(state.counter, state.state) for state in store.changed()] == [
        ("c7", ""),
        ("c8", ""),
        ("c9", ""),
    ]


async def test_a_counter_that_made_room_is_told_to_be_empty() -> None:
    store = MemoryStore(counters=1)
    await store.reserve("a", (charge("old"),), NOW_US)
    store.changed()
    await store.reserve("b", (charge("new"),), NOW_US + SECOND_US)

    assert {state.counter: state.state == "" for state in store.changed()} == {"old": True, "new": False}


async def test_more_counters_are_seeded_than_there_is_room_for_and_none_is_lost() -> None:
    first = MemoryStore()
    for number in range(5):
        await first.reserve(f"d{number}", (charge(f"c{number}", 5),), NOW_US)
    second = MemoryStore(counters=2)
    await second.seed(first.changed())

    assert [await used(second, f"c{number}") for number in range(5)] == [5] * 5
    assert (await second.reserve("d", (charge("new"),), NOW_US))[0].unavailable
    assert (await second.reserve("e", (charge("new"),), NOW_US + 5 * SECOND_US))[0].granted


async def test_an_empty_state_that_is_newer_takes_its_counter_away() -> None:
    store = MemoryStore()
    await store.reserve("d", (charge(),), NOW_US)
    (state,) = store.changed()
    await store.reserve("e", (charge(),), NOW_US)

    await store.seed([CounterState(counter="c", version=state.version + 9, state="")])

    assert await used(store) == 0
    assert store.changed() == ()


# --- counters of an earlier run


async def test_until_it_is_seeded_what_must_be_counted_is_unavailable_and_the_rest_counts() -> None:
    store = MemoryStore(awaits_seed=True)

    (cap,) = await store.reserve("a", (charge("cap", 4, must_count=True),), NOW_US)
    (rate,) = await store.reserve("b", (charge("rate", 4),), NOW_US)
    (read,) = await store.read((charge("cap", 4, must_count=True),), NOW_US)

    assert (cap.unavailable, cap.reserved, read.unavailable) == (True, 0, True)
    assert (rate.unavailable, rate.reserved) == (False, 4)

    await store.seed(())

    (cap,) = await store.reserve("c", (charge("cap", 4, must_count=True),), NOW_US)
    assert (cap.unavailable, cap.reserved) == (False, 4)
