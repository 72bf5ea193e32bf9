"""One suite over every counter store."""

import asyncio
from dataclasses import replace

from extproc.decision import TokenBucket
from extproc.store.base import Store
from tests.store.charges import NOW_US, SECOND_US, charge, used


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
