"""The memory store's bounds."""

from extproc.store.memory import MemoryStore
from tests.store.charges import NOW_US, SECOND_US, charge, used


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
