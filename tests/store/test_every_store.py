"""One suite over every counter store."""

import asyncio
import json
from dataclasses import replace

import pytest

from extproc.decision import Leases, SlidingWindow, TokenBucket, Window
from extproc.policy import counters
from extproc.store.base import CounterState, Store
from tests.store.charges import BUCKET, MINUTE_US, NOW_US, SECOND_US, charge, days, used
from tests.store.stores import Bench


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


# --- every window

DAY = days(NOW_US, 10)
WINDOWS: dict[str, Window] = {
    "bucket": BUCKET,
    "sliding": SlidingWindow(10, MINUTE_US),
    "calendar": DAY,
    "leases": Leases(10, MINUTE_US),
}
KEEPING = {name: window for name, window in WINDOWS.items() if name != "leases"}
every_window = pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
every_keeping_window = pytest.mark.parametrize("window", KEEPING.values(), ids=KEEPING)


async def look(store: Store, window: Window, at_us: int = NOW_US) -> tuple[int, int]:
    """What the counter "c" has used, and what it holds."""
    (outcome,) = await store.read((charge(amount=1, window=window),), at_us)
    return outcome.used, outcome.limit


@every_keeping_window
async def test_a_window_is_charged_and_settled(store: Store, window: Window) -> None:
    (outcome,) = await store.reserve("d", (charge(amount=4, window=window),), NOW_US)
    assert (outcome.granted, outcome.reserved, outcome.used, outcome.remaining) == (True, 4, 0, 6)
    assert await look(store, window) == (4, 10)

    assert await store.settle("d", {}, NOW_US) is True

    assert await look(store, window) == (0, 10)


@every_keeping_window
async def test_a_window_holds_no_more_than_its_size(store: Store, window: Window) -> None:
    await store.reserve("a", (charge(amount=7, window=window),), NOW_US)

    (outcome,) = await store.reserve("b", (charge(amount=4, window=window),), NOW_US)

    assert (outcome.granted, outcome.reserved, outcome.used, outcome.remaining) == (False, 0, 7, 3)
    assert (await store.reserve("e", (charge(amount=3, window=window),), NOW_US))[0].granted


@every_keeping_window
async def test_waiting_as_long_as_told_helps(store: Store, window: Window) -> None:
    await store.reserve("a", (charge(amount=10, window=window),), NOW_US)
    (denied,) = await store.reserve("b", (charge(window=window),), NOW_US)
    assert denied.wait_us is not None

    then = NOW_US + denied.wait_us

    assert (await store.reserve("d", (charge(window=window),), then))[0].granted


async def test_a_sliding_window_comes_back_slot_by_slot(store: Store) -> None:
    window = WINDOWS["sliding"]
    await store.reserve("a", (charge(amount=3, window=window),), NOW_US)
    await store.reserve("b", (charge(amount=4, window=window),), NOW_US + 30 * SECOND_US)

    assert await look(store, window, NOW_US + 61 * SECOND_US - 1) == (7, 10)
    assert await look(store, window, NOW_US + 61 * SECOND_US) == (4, 10)
    assert await look(store, window, NOW_US + 91 * SECOND_US) == (0, 10)


async def test_a_calendar_window_comes_back_with_its_next_period(store: Store) -> None:
    end_us = DAY.edges_us[2]
    (outcome,) = await store.reserve("a", (charge(amount=10, window=DAY),), end_us - 1)
    assert outcome.reset_us == 1

    assert await look(store, DAY, end_us - 1) == (10, 10)
    assert await look(store, DAY, end_us) == (0, 10)


async def test_a_late_settlement_goes_into_the_period_that_was_reserved_in(store: Store) -> None:
    end_us = DAY.edges_us[2]
    await store.reserve("a", (charge(amount=6, window=DAY),), end_us - 1)
    await store.reserve("b", (charge(amount=2, window=days(end_us, 10)),), end_us)

    await store.settle("a", {"c": 9}, end_us)

    assert await look(store, DAY, end_us) == (2, 10)
    assert await look(store, DAY, end_us - 1) == (9, 10)


async def test_a_store_whose_clock_is_in_none_of_the_periods_does_not_know(store: Store) -> None:
    later = DAY.edges_us[3]

    outcomes = await store.reserve("a", (charge("c", window=DAY), charge("d", 2)), later)

    assert [(item.unavailable, item.granted, item.reserved) for item in outcomes] == [
        (True, False, 0),
        (False, True, 2),
    ]
    assert (await store.read((charge("c", window=DAY),), later))[0].unavailable
    assert await store.settle("a", {"c": 5, "d": 1}, later) is True
    assert await used(store, "d", later) == 1


async def test_who_must_be_counted_in_a_period_nobody_knows_charges_nobody(store: Store) -> None:
    charges = (charge("c", window=DAY, must_count=True), charge("d", 2))

    outcomes = await store.reserve("a", charges, DAY.edges_us[3])

    assert [(item.unavailable, item.reserved) for item in outcomes] == [(True, 0), (False, 0)]
    assert await used(store, "d", DAY.edges_us[3]) == 0


# --- leases


async def test_no_more_leases_are_held_than_fit_and_nobody_knows_when_one_ends(store: Store) -> None:
    asked = charge(window=Leases(2, MINUTE_US))
    answers = [(await store.reserve(name, (asked,), NOW_US))[0] for name in ("a", "b", "d")]
    assert [(item.granted, item.used, item.reserved, item.remaining) for item in answers] == [
        (True, 0, 1, 1),
        (True, 1, 1, 0),
        (False, 2, 0, 0),
    ]
    assert answers[2].wait_us == SECOND_US

    await store.settle("a", {}, NOW_US)

    assert (await store.reserve("e", (asked,), NOW_US))[0].granted


async def test_an_override_lets_more_leases_be_held(store: Store) -> None:
    asked = charge(window=Leases(1, MINUTE_US))
    await store.override(asked, 1, NOW_US + SECOND_US, NOW_US)

    answers = [(await store.reserve(name, (asked,), NOW_US))[0] for name in ("a", "b", "d")]

    assert [item.granted for item in answers] == [True, True, False]


async def test_a_lease_lasts_while_it_is_renewed(store: Store) -> None:
    window = Leases(1, MINUTE_US)
    await store.reserve("a", (charge(window=window),), NOW_US)
    for step in range(1, 4):
        await store.renew(["a", "nobody"], NOW_US + step * 50 * SECOND_US)

    assert await look(store, window, NOW_US + 210 * SECOND_US - 1) == (1, 1)
    assert await look(store, window, NOW_US + 210 * SECOND_US) == (0, 1)


async def test_a_lease_that_is_over_is_somebody_elses(store: Store) -> None:
    window = Leases(1, MINUTE_US)
    await store.reserve("a", (charge(window=window),), NOW_US)
    over = NOW_US + MINUTE_US

    assert (await store.reserve("b", (charge(window=window),), over))[0].granted
    await store.renew(["a"], over)
    await store.settle("a", {}, over)

    assert await look(store, window, over) == (1, 1)


# --- reading


@every_window
async def test_reading_answers_what_reserving_would_and_takes_nothing(store: Store, window: Window) -> None:
    await store.reserve("a", (charge(amount=7, window=window),), NOW_US)
    store.changed()
    for number, asked in enumerate(
        (
            charge(amount=2, window=window),
            charge(amount=5, minimum=2, window=window),
            charge(amount=9, window=window),
            charge(amount=11, window=window),
        )
    ):
        read = await store.read((asked,), NOW_US)

        assert await store.read((asked,), NOW_US) == read
        assert store.changed() == ()
        assert await store.reserve(f"r{number}", (asked,), NOW_US) == read
        await store.settle(f"r{number}", {}, NOW_US)
        store.changed()


async def test_a_shadow_charge_is_read_as_it_would_be_taken(store: Store) -> None:
    await store.reserve("a", (charge(amount=7),), NOW_US)
    asked = charge(amount=9, enforced=False)

    (read,) = await store.read((asked,), NOW_US)

    assert (read.granted, read.reserved, read.remaining) == (False, 3, 0)
    assert await store.reserve("b", (asked,), NOW_US) == (read,)


async def test_charges_are_read_each_by_itself(store: Store) -> None:
    await store.reserve("a", (charge("a", 8), charge("b", 1)), NOW_US)

    outcomes = await store.read((charge("a", 5), charge("b", 5), charge("new", 5)), NOW_US)

    assert [(item.granted, item.used, item.reserved) for item in outcomes] == [
        (False, 8, 0),
        (True, 1, 5),
        (True, 0, 5),
    ]


# --- reset and override


@every_window
async def test_a_reset_counter_is_as_if_nobody_had_used_it(store: Store, window: Window) -> None:
    await store.reserve("a", (charge(amount=10, window=window),), NOW_US)

    await store.reset(charge(window=window), NOW_US)

    assert await look(store, window) == (0, 10)
    assert (await store.reserve("b", (charge(amount=10, window=window),), NOW_US))[0].granted


@every_keeping_window
async def test_what_a_reset_forgave_is_not_given_back_and_overage_is_owed(
    store: Store, window: Window
) -> None:
    await store.reserve("cheap", (charge(amount=5, window=window),), NOW_US)
    await store.reserve("dear", (charge(amount=5, window=window),), NOW_US)
    await store.reset(charge(window=window), NOW_US)
    await store.reserve("later", (charge(amount=3, window=window),), NOW_US)

    assert await store.settle("cheap", {"c": 1}, NOW_US) is True
    assert await look(store, window) == (3, 10)
    assert await store.settle("dear", {"c": 7}, NOW_US) is True

    assert await look(store, window) == (5, 10)


async def test_resetting_what_nobody_used_changes_nothing(store: Store) -> None:
    await store.reset(charge(), NOW_US)

    assert await used(store) == 0


@every_keeping_window
async def test_an_override_adds_to_the_limit_until_it_ends(store: Store, window: Window) -> None:
    await store.override(charge(window=window), 5, NOW_US + SECOND_US, NOW_US)

    assert (await store.reserve("a", (charge(amount=15, window=window),), NOW_US))[0].granted
    assert await look(store, window) == (15, 15)
    assert (await look(store, window, NOW_US + SECOND_US))[1] == 10


@every_window
async def test_an_override_replaces_an_earlier_one_and_0_takes_it_away(store: Store, window: Window) -> None:
    until_us = NOW_US + SECOND_US
    await store.override(charge(window=window), 5, until_us, NOW_US)
    await store.override(charge(window=window), 3, until_us, NOW_US)
    assert await look(store, window) == (0, 13)

    await store.override(charge(window=window), 0, until_us, NOW_US)

    assert await look(store, window) == (0, 10)


@every_window
async def test_an_override_outlives_what_was_used_and_its_reset(store: Store, window: Window) -> None:
    await store.override(charge(window=window), 5, NOW_US + SECOND_US, NOW_US)
    await store.reserve("a", (charge(amount=2, window=window),), NOW_US)
    await store.settle("a", {}, NOW_US)
    await store.reset(charge(window=window), NOW_US)

    assert await look(store, window) == (0, 15)


# --- the ledger's


def told(store: Store) -> dict[str, CounterState]:
    states = store.changed()
    assert len({state.counter for state in states}) == len(states)
    return {state.counter: state for state in states}


@every_keeping_window
async def test_what_changed_is_told_once_as_it_is_now(store: Store, window: Window) -> None:
    await store.reserve("a", (charge("a", 4, window=window), charge("b", 1, window=window)), NOW_US)
    await store.settle("a", {"a": 3, "b": 1}, NOW_US)
    await store.reserve("denied", (charge("a", 11, window=window), charge("d", 1, window=window)), NOW_US)

    states = told(store)

    assert states.keys() == {"a", "b"}
    assert counters.load(states["a"].state).used(charge("a", window=window), NOW_US) == 3
    assert store.changed() == ()


@every_keeping_window
async def test_versions_rise_with_what_is_told(store: Store, window: Window) -> None:
    versions = []
    for number in range(3):
        await store.reserve(f"d{number}", (charge(amount=1, window=window),), NOW_US)
        versions.append(told(store)["c"].version)

    assert 0 < versions[0] < versions[1] < versions[2]


@every_keeping_window
async def test_a_counter_that_is_whole_again_is_told_to_be_empty(store: Store, window: Window) -> None:
    await store.reserve("a", (charge(amount=4, window=window),), NOW_US)
    first = told(store)["c"]

    await store.settle("a", {}, NOW_US)

    second = told(store)["c"]
    assert (second.state, second.version > first.version) == ("", True)
    await store.reserve("b", (charge(amount=4, window=window),), NOW_US)
    assert told(store)["c"].version > second.version


async def test_leases_are_not_written_down_but_their_override_is(store: Store) -> None:
    window = WINDOWS["leases"]
    await store.reserve("a", (charge(window=window),), NOW_US)
    assert all(state.state == "" for state in store.changed())

    await store.override(charge(window=window), 5, NOW_US + SECOND_US, NOW_US)

    written = json.loads(told(store)["c"].state)
    assert (written["extra"], written["until_us"]) == (5, NOW_US + SECOND_US)


@every_keeping_window
async def test_a_seeded_counter_goes_on_as_it_was(store: Store, window: Window) -> None:
    counter = counters.unused(window)
    counter.reserve(charge(amount=4, window=window), 1, NOW_US)
    counter.override(5, NOW_US + SECOND_US)
    state = CounterState(counter="c", version=41, state=counter.dump())

    await store.seed([state])

    assert await look(store, window) == (4, 15)
    assert store.changed() == ()
    await store.reserve("a", (charge(amount=1, window=window),), NOW_US)
    assert told(store)["c"].version > 41


async def test_what_changes_after_a_counter_was_seeded_is_newer(store: Store) -> None:
    counter = counters.unused(BUCKET)
    counter.reserve(charge(amount=4), 1, NOW_US)
    await store.seed([CounterState(counter="c", version=41, state=counter.dump())])

    await store.reserve("a", (charge(),), NOW_US)

    assert told(store)["c"].version > 41


async def test_of_two_states_the_newer_one_is_the_counter(store: Store) -> None:
    def state(version: int, amount: int) -> CounterState:
        counter = counters.unused(BUCKET)
        counter.reserve(charge(amount=amount), 1, NOW_US)
        return CounterState(counter="c", version=version, state=counter.dump())

    await store.seed([state(5, 4)])
    await store.seed([state(4, 9)])
    await store.seed([state(5, 9)])
    assert await used(store) == 4

    await store.seed([state(6, 7)])

    assert await used(store) == 7


async def test_what_was_told_is_not_newer_than_what_it_became(store: Store) -> None:
    await store.reserve("a", (charge(amount=4),), NOW_US)
    old = store.changed()
    await store.reserve("b", (charge(amount=2),), NOW_US)

    await store.seed(old)

    assert await used(store) == 6


async def test_clients_of_a_store_share_what_it_holds(bench: Bench) -> None:
    first, last = bench.clients[0], bench.clients[-1]
    outcomes = await first.reserve("d", (charge(amount=8),), NOW_US)

    assert await last.reserve("d", (charge(amount=8),), NOW_US) == outcomes
    assert not (await last.reserve("e", (charge(amount=3),), NOW_US))[0].granted
    assert await last.settle("d", {"c": 5}, NOW_US) is True
    assert await first.settle("d", {"c": 0}, NOW_US) is False
    assert await used(first) == 5


async def test_a_faster_rate_counts_from_when_it_is_first_asked_for(store: Store) -> None:
    await store.reserve("a", (charge(amount=10),), NOW_US)
    faster = charge(amount=10, window=TokenBucket(300, MINUTE_US, 10))
    later = NOW_US + 4 * SECOND_US

    (denied,) = await store.reserve("b", (faster,), later)

    assert (denied.used, denied.wait_us) == (6, 1_200_000)
    assert (await store.reserve("d", (faster,), later + 1_200_000))[0].granted


async def test_a_rate_that_was_asked_for_is_told(store: Store) -> None:
    """Else a counter that is taken up again goes on at the old one."""
    await store.reserve("a", (charge(amount=10),), NOW_US)
    told(store)

    await store.reserve("b", (charge(amount=10, window=TokenBucket(300, MINUTE_US, 10)),), NOW_US)

    assert json.loads(told(store)["c"].state)["amount"] == 300
