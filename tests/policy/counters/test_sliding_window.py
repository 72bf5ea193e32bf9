from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import SlidingWindow
from extproc.policy import counters
from extproc.policy.counters import Ticket
from extproc.policy.counters.sliding_window import SlidingCounter
from tests.policy.counters.charges import MINUTE_US, NOW_US, SECOND_US, charge, plans

WINDOW = SlidingWindow(100, MINUTE_US)
# Neither divides into sixty whole slots.
ODD = SlidingWindow(100, 7 * SECOND_US + 1)


def test_what_was_taken_counts_until_all_of_its_slot_is_a_window_ago() -> None:
    counter = counters.unused(WINDOW)
    counter.reserve(charge(WINDOW, 40), 1, NOW_US + 900_000)

    assert counter.used(charge(WINDOW), NOW_US + 61 * SECOND_US - 1) == 40
    assert counter.used(charge(WINDOW), NOW_US + 61 * SECOND_US) == 0


def test_it_comes_back_slot_by_slot() -> None:
    counter = counters.unused(WINDOW)
    for number in range(3):
        counter.reserve(charge(WINDOW, 30), number, NOW_US + number * SECOND_US)

    assert [counter.used(charge(WINDOW), NOW_US + s * SECOND_US) for s in (60, 61, 62, 63)] == [90, 60, 30, 0]
    assert counter.wait_us(charge(WINDOW, 50), NOW_US + 2 * SECOND_US) == 60 * SECOND_US
    assert counter.wait_us(charge(WINDOW, 10), NOW_US + 2 * SECOND_US) == 0
    assert counter.wait_us(charge(WINDOW, 101), NOW_US + 2 * SECOND_US) is None


def test_a_settlement_goes_into_the_slot_that_was_reserved_in() -> None:
    counter = counters.unused(WINDOW)
    _, ticket = counter.reserve(charge(WINDOW, 40), 1, NOW_US)
    counter.reserve(charge(WINDOW, 5), 2, NOW_US + 30 * SECOND_US)

    counter.settle(charge(WINDOW, 40), ticket, 70, NOW_US + 30 * SECOND_US)

    assert counter.used(charge(WINDOW), NOW_US + 30 * SECOND_US) == 75
    assert counter.used(charge(WINDOW), NOW_US + 61 * SECOND_US) == 5


def test_what_settles_after_its_slot_counts_no_more() -> None:
    counter = counters.unused(WINDOW)
    _, ticket = counter.reserve(charge(WINDOW, 40), 1, NOW_US)
    late = NOW_US + 61 * SECOND_US
    counter.reserve(charge(WINDOW, 5), 2, late)

    counter.settle(charge(WINDOW, 40), ticket, 70, late)

    assert counter.used(charge(WINDOW), late) == 5


def test_a_clock_set_back_gives_nobody_anything() -> None:
    counter = counters.unused(WINDOW)
    counter.reserve(charge(WINDOW, 100), 1, NOW_US)

    back = NOW_US - 3600 * SECOND_US

    assert counter.used(charge(WINDOW), back) == 100
    assert counter.wait_us(charge(WINDOW), back) == 3661 * SECOND_US


def test_a_forgotten_slot_is_never_used_again() -> None:
    """Else what came before a step of the clock would be given back to who came after it."""
    counter = counters.unused(WINDOW)
    _, before = counter.reserve(charge(WINDOW, 40), 1, NOW_US)
    counter.reserve(charge(WINDOW, 5), 2, NOW_US + 61 * SECOND_US)
    counter.reserve(charge(WINDOW, 30), 3, NOW_US)

    counter.settle(charge(WINDOW, 40), before, 10, NOW_US)

    assert counter.used(charge(WINDOW), NOW_US) == 35


def test_the_slots_that_count_no_more_are_forgotten() -> None:
    counter = SlidingCounter(WINDOW)
    for number in range(600):
        counter.reserve(charge(WINDOW, 1), number, NOW_US + number * SECOND_US)

    assert len(counter._slots) == 61


@given(plans, st.sampled_from([WINDOW, ODD]))
def test_no_stretch_of_the_window_ever_admits_more_than_its_size(
    plan: list[tuple[int, int, int, int]], window: SlidingWindow
) -> None:
    counter = counters.unused(window)
    now = NOW_US
    admitted: list[list[int]] = []
    open_: list[tuple[int, Ticket, int]] = []
    for passed, amount, part, lasts in plan:
        now += passed
        for item in [item for item in open_ if item[0] <= now]:
            _, ticket, spent = item
            counter.settle(charge(window), ticket, spent, now)
            admitted[ticket.number][1] = spent
            open_.remove(item)
        wanted = charge(window, amount, minimum=max(1, amount // 2))
        if counter.fits(wanted, now):
            outcome, ticket = counter.reserve(wanted, len(admitted), now)
            admitted.append([now, outcome.reserved])
            open_.append((now + lasts, ticket, outcome.reserved * min(part, 100) // 100))

    for begin_us, _ in admitted:
        assert sum(amount for at, amount in admitted if begin_us <= at < begin_us + window.per_us) <= 100


@given(plans, st.sampled_from([WINDOW, ODD]), st.integers(1, 120), st.integers(0, 90 * SECOND_US))
def test_waiting_exactly_that_long_admits_and_one_microsecond_less_does_not(
    plan: list[tuple[int, int, int, int]], window: SlidingWindow, amount: int, later: int
) -> None:
    counter = counters.unused(window)
    now = NOW_US
    for number, (passed, taken, owed, _) in enumerate(plan):
        now += passed
        _, ticket = counter.reserve(charge(window, taken, minimum=1), number, now)
        counter.settle(charge(window), ticket, owed, now)
    now += later
    wait_us, reset_us = counter.wait_us(charge(window, amount), now), counter.reset_us(charge(window), now)

    if wait_us is None:
        assert amount > 100
    else:
        assert counter.fits(charge(window, amount), now + wait_us)
        assert wait_us == 0 or not counter.fits(charge(window, amount), now + wait_us - 1)
    assert counter.is_fresh(now + reset_us)
    assert reset_us == 0 or not counter.is_fresh(now + reset_us - 1)
