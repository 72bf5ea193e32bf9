"""What counters of every algorithm promise."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Charge, Leases, TokenBucket, Window
from extproc.policy import counters
from extproc.policy.counters import AnyCounter, Ticket
from tests.policy.counters.charges import DAY_US, MINUTE_US, NOW_US, SECOND_US, WINDOWS, charge

every = pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
KEEPING = {name: window for name, window in WINDOWS.items() if not isinstance(window, Leases)}
keeping = pytest.mark.parametrize("window", KEEPING.values(), ids=KEEPING)
windows = st.sampled_from(list(KEEPING.values()))
LARGEST = 4 * 10**15


def taken(window: Window, amount: int, *, number: int = 1, at_us: int = NOW_US) -> AnyCounter:
    counter = counters.unused(window)
    counter.reserve(charge(window, amount), number, at_us)
    return counter


def sized(window: Window, size: int) -> Window:
    return replace(window, burst=size) if isinstance(window, TokenBucket) else replace(window, size=size)


@every
def test_a_counter_that_nobody_used_is_fresh_and_empty(window: Window) -> None:
    counter = counters.unused(window)

    assert counter.is_fresh(NOW_US)
    assert counter.dump() == ""
    assert (counter.used(charge(window), NOW_US), counter.left(charge(window), NOW_US)) == (0, 100)
    assert (counter.wait_us(charge(window), NOW_US), counter.reset_us(charge(window), NOW_US)) == (0, 0)


@every
def test_declining_says_what_reserving_would_find_and_takes_nothing(window: Window) -> None:
    counter = taken(window, 60)

    declined = counter.decline(charge(window, 70, minimum=30), NOW_US)
    outcome, _ = counter.reserve(charge(window, 70, minimum=30), 2, NOW_US)

    assert declined == replace(outcome, reserved=0, remaining=40, reset_us=declined.reset_us)
    assert (outcome.used, outcome.reserved, outcome.remaining) == (60, 40, 0)


@every
def test_the_largest_amounts_are_exact(window: Window) -> None:
    large = sized(window, LARGEST)
    counter = counters.unused(large)
    outcome, _ = counter.reserve(charge(large, LARGEST - 1), 1, NOW_US)

    assert (outcome.reserved, outcome.remaining) == (LARGEST - 1, 1)
    assert counter.fits(charge(large, 1), NOW_US)
    assert not counter.fits(charge(large, 2), NOW_US)


@keeping
def test_overage_is_debt_without_a_floor(window: Window) -> None:
    counter = counters.unused(window)
    _, ticket = counter.reserve(charge(window, 10), 1, NOW_US)

    counter.settle(charge(window, 10), ticket, 1000, NOW_US)

    assert (counter.used(charge(window), NOW_US), counter.left(charge(window), NOW_US)) == (1000, -900)


@keeping
def test_a_shadow_limit_that_would_have_denied_fills_up_and_owes_nothing(window: Window) -> None:
    counter = taken(window, 95)
    outcome, ticket = counter.reserve(charge(window, 30), 2, NOW_US)

    counter.settle(charge(window, 30), ticket, 60, NOW_US)

    assert (outcome.granted, outcome.reserved) == (False, 5)
    assert counter.used(charge(window), NOW_US) == 100


@keeping
def test_what_was_reserved_before_a_reset_gives_nothing_back_but_owes_what_it_owes(window: Window) -> None:
    counter = counters.unused(window)
    _, cheap = counter.reserve(charge(window, 40), 1, NOW_US)
    _, dear = counter.reserve(charge(window, 40), 2, NOW_US)
    counter.reset()
    assert counter.is_fresh(NOW_US)
    counter.reserve(charge(window, 30), 3, NOW_US)

    counter.settle(charge(window, 40), cheap, 5, NOW_US)
    assert counter.used(charge(window), NOW_US) == 30
    counter.settle(charge(window, 40), dear, 47, NOW_US)

    assert counter.used(charge(window), NOW_US) == 37


@keeping
def test_what_was_reserved_in_a_counter_that_was_forgotten_gives_nothing_back(window: Window) -> None:
    _, ticket = counters.unused(window).reserve(charge(window, 40), 1, NOW_US)
    counter = taken(window, 30, number=2)

    counter.settle(charge(window, 40), ticket, 5, NOW_US)

    assert counter.used(charge(window), NOW_US) == 30


@keeping
def test_what_was_reserved_before_a_counter_was_loaded_gives_nothing_back(window: Window) -> None:
    counter = counters.unused(window)
    _, ticket = counter.reserve(charge(window, 40), 1, NOW_US)
    loaded = counters.load(counter.dump())

    loaded.settle(charge(window, 40), ticket, 5, NOW_US)

    assert loaded.used(charge(window), NOW_US) == 40


@every
def test_an_edited_size_keeps_what_was_used(window: Window) -> None:
    counter = taken(window, 60)
    larger = sized(window, 300)

    assert (counter.used(charge(larger), NOW_US), counter.left(charge(larger), NOW_US)) == (60, 240)


# --- overrides


@every
def test_an_override_adds_to_the_size_until_it_ends(window: Window) -> None:
    counter = counters.unused(window)
    counter.override(50, NOW_US + SECOND_US)

    outcome, _ = counter.reserve(charge(window, 140), 1, NOW_US)

    assert (outcome.granted, outcome.limit, outcome.remaining) == (True, 150, 10)
    assert counter.decline(charge(window), NOW_US + SECOND_US).limit == 100
    assert counter.left(charge(window), NOW_US + SECOND_US) < 0


@every
def test_a_counter_with_an_override_is_not_fresh_until_that_ends(window: Window) -> None:
    counter = counters.unused(window)
    counter.override(50, NOW_US + SECOND_US)

    assert not counter.is_fresh(NOW_US + SECOND_US - 1)
    assert counter.is_fresh(NOW_US + SECOND_US)


@every
def test_an_override_of_nothing_takes_it_away(window: Window) -> None:
    counter = counters.unused(window)
    counter.override(50, NOW_US + SECOND_US)
    counter.override(0, NOW_US + SECOND_US)

    assert counter.is_fresh(NOW_US)
    assert counter.dump() == ""


@every
def test_an_override_outlives_a_reset(window: Window) -> None:
    counter = taken(window, 100)
    counter.override(50, NOW_US + SECOND_US)
    counter.reset()

    assert (counter.used(charge(window), NOW_US), counter.left(charge(window), NOW_US)) == (0, 150)


@every
def test_what_fits_only_with_an_override_does_not_wait_beyond_it(window: Window) -> None:
    counter = counters.unused(window)
    counter.override(50, NOW_US + SECOND_US)

    assert counter.wait_us(charge(window, 140), NOW_US) == 0
    assert counter.wait_us(charge(window, 140), NOW_US + SECOND_US) is None
    assert counter.wait_us(charge(window, 151), NOW_US) is None


@given(
    windows,
    st.lists(st.tuples(st.integers(0, 20 * SECOND_US), st.integers(1, 150)), max_size=8),
    st.integers(-80, 80),
    st.integers(0, 2 * DAY_US),
    st.integers(1, 200),
)
def test_waiting_exactly_that_long_admits_whenever_an_override_ends(
    window: Window, takes: list[tuple[int, int]], extra: int, lasts_us: int, amount: int
) -> None:
    counter = counters.unused(window)
    now = NOW_US
    counter.override(200, now + DAY_US)
    for number, (passed, taken_amount) in enumerate(takes):
        now += passed
        counter.reserve(charge(window, taken_amount), number, now)
    counter.override(extra, now + lasts_us)
    asked = charge(window, amount)
    wait_us = counter.wait_us(asked, now)

    if wait_us is None:
        assert not counter.fits(asked, now + lasts_us)
        assert not counter.fits(asked, NOW_US + 2 * DAY_US - 1)
    elif wait_us < 2 * DAY_US - (now - NOW_US):
        assert counter.fits(asked, now + wait_us)
        assert wait_us == 0 or not counter.fits(asked, now + wait_us - 1)


# --- as text


@keeping
def test_a_counter_is_written_as_the_package_says(window: Window) -> None:
    counter = taken(window, 60)
    counter.override(7, NOW_US + 5)

    written = json.loads(counter.dump())

    assert written.pop("extra") == 7
    assert written.pop("until_us") == NOW_US + 5
    assert written in (
        {"used": 60, "rest": 0, "at_us": NOW_US, "amount": 60, "per_us": MINUTE_US},
        {"slots": {str(NOW_US): 60}, "per_us": MINUTE_US},
        {"slots": {str(NOW_US): 60}, "ends_us": NOW_US + DAY_US},
    )


@given(
    windows,
    st.lists(
        st.tuples(st.integers(0, 40 * SECOND_US), st.integers(1, 120), st.integers(0, 200)), max_size=10
    ),
    st.integers(0, DAY_US),
    st.integers(0, 50),
)
def test_a_counter_that_was_written_and_read_is_the_same(
    window: Window, plan: list[tuple[int, int, int]], later: int, extra: int
) -> None:
    counter = counters.unused(window)
    counter.override(extra, NOW_US + DAY_US)
    now = NOW_US
    for number, (passed, amount, spent) in enumerate(plan):
        now += passed
        _, ticket = counter.reserve(charge(window, amount), number, now)
        counter.settle(charge(window, amount), ticket, spent, now)
    state = counter.dump()
    read = counters.load(state) if state else counters.unused(window)

    assert read.dump() == state
    for at_us in (now, now + later):
        assert read.decline(charge(window, 50), at_us) == counter.decline(charge(window, 50), at_us)
        assert read.is_fresh(at_us) == counter.is_fresh(at_us)


# --- settling


def used_of(window: Window, takes: list[tuple[int, int]], at_us: int) -> int:
    """What is in use if these (time, amount) are all that was ever taken."""
    counter = counters.unused(window)
    # Every one of them was granted, whatever the others came to: size does not matter.
    counter.override(10**6, NOW_US + 2 * DAY_US)
    for number, (taken_at, amount) in enumerate(takes):
        counter.reserve(charge(window, amount), number, taken_at)
    return counter.used(charge(window), at_us)


@given(
    windows,
    st.lists(
        st.tuples(
            st.integers(0, 30 * SECOND_US),  # since the one before
            st.integers(1, 100),  # reserved
            st.integers(0, 100),  # per cent of it that was spent
            st.integers(0, 90 * SECOND_US),  # until it settles
        ),
        max_size=12,
    ),
)
def test_after_every_settlement_a_counter_is_what_it_would_have_been(
    window: Window, plan: list[tuple[int, int, int, int]]
) -> None:
    steps: list[tuple[int, bool, int, int]] = []  # (when, whether it ends, which, amount)
    at_us = NOW_US
    for which, (gap_us, reserved, part, lasts_us) in enumerate(plan):
        at_us += gap_us
        steps += [
            (at_us, False, which, reserved),
            (at_us + lasts_us, True, which, reserved * part // 100),
        ]
    counter = counters.unused(window)
    counter.override(10**6, NOW_US + 2 * DAY_US)
    tickets: dict[int, Ticket] = {}
    amounts: dict[int, tuple[int, int]] = {}
    for now, is_end, which, amount in sorted(steps):
        asked: Charge = charge(window, amount)
        if is_end:
            counter.settle(asked, tickets[which], amount, now)
            amounts[which] = (amounts[which][0], amount)
        else:
            _, tickets[which] = counter.reserve(asked, which, now)
            amounts[which] = (now, amount)
        assert counter.used(asked, now) == used_of(window, list(amounts.values()), now)
