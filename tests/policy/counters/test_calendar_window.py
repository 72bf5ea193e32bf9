import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import CalendarWindow, Charge
from extproc.policy import counters
from extproc.policy.counters import Ticket
from extproc.policy.counters.calendar_window import PERIODS, CalendarCounter
from tests.policy.counters.charges import DAY_US, EDGES_US, NOW_US, SECOND_US, charge

WINDOW = CalendarWindow(100, "day", EDGES_US)


def on(day: int, amount: int = 1) -> Charge:
    """A charge made `day` days after the first."""
    first, second, third, fourth = (edge_us + day * DAY_US for edge_us in EDGES_US)
    return charge(CalendarWindow(100, "day", (first, second, third, fourth)), amount)


def test_nothing_comes_back_before_the_next_period_and_everything_with_it() -> None:
    counter = counters.unused(WINDOW)
    outcome, _ = counter.reserve(on(0, 100), 1, NOW_US + SECOND_US)

    assert outcome.reset_us == DAY_US - SECOND_US
    assert counter.wait_us(on(0), NOW_US + SECOND_US) == DAY_US - SECOND_US
    assert counter.used(on(0), NOW_US + DAY_US - 1) == 100
    assert counter.used(on(0), NOW_US + DAY_US) == 0
    assert counter.used(on(1), NOW_US + DAY_US) == 0


def test_the_period_is_that_of_the_counters_own_clock() -> None:
    """The caller's clock is a minute ahead: it is in a day that has not begun here."""
    counter = counters.unused(WINDOW)

    counter.reserve(on(1, 60), 1, NOW_US + DAY_US - 60 * SECOND_US)

    assert counter.used(on(0), NOW_US) == 60
    assert counter.used(on(1), NOW_US + DAY_US) == 0


@pytest.mark.parametrize(
    ("at_us", "is_covered"),
    [
        (EDGES_US[0] - 1, False),
        (EDGES_US[0], True),
        (EDGES_US[3] - 1, True),
        (EDGES_US[3], False),
    ],
)
def test_a_time_in_none_of_the_periods_is_not_covered(at_us: int, *, is_covered: bool) -> None:
    counter = counters.unused(WINDOW)

    assert counter.covers(on(0), at_us) is is_covered
    if not is_covered:
        with pytest.raises(ValueError, match="none of its periods"):
            counter.reserve(on(0), 1, at_us)


def test_a_clock_set_back_finds_what_was_used_then() -> None:
    counter = counters.unused(WINDOW)
    counter.reserve(on(0, 70), 1, NOW_US)
    counter.reserve(on(1, 20), 2, NOW_US + DAY_US)

    assert counter.used(on(0), NOW_US) == 70
    assert counter.used(on(1), NOW_US) == 70


def test_who_waits_for_a_period_that_is_used_up_already_waits_for_the_one_after() -> None:
    counter = counters.unused(WINDOW)
    counter.reserve(on(0, 100), 1, NOW_US)
    counter.reserve(on(1, 90), 2, NOW_US + DAY_US)

    assert counter.wait_us(on(0, 10), NOW_US) == DAY_US
    assert counter.wait_us(on(0, 11), NOW_US) == 2 * DAY_US


def test_a_late_settlement_goes_where_it_was_reserved() -> None:
    counter = counters.unused(WINDOW)
    _, back = counter.reserve(on(0, 60), 1, NOW_US)
    _, more = counter.reserve(on(0, 40), 2, NOW_US)
    counter.reserve(on(1, 5), 3, NOW_US + DAY_US)

    counter.settle(on(0, 60), back, 10, NOW_US + DAY_US)
    counter.settle(on(0, 40), more, 90, NOW_US + DAY_US)

    assert counter.used(on(1), NOW_US + DAY_US) == 5
    assert counter.used(on(1), NOW_US) == 100


def test_only_a_few_periods_are_kept_and_what_settles_before_them_is_nobodys() -> None:
    counter = CalendarCounter()
    _, ticket = counter.reserve(on(0, 60), 0, NOW_US)
    for day in range(1, 10):
        counter.reserve(on(day, 1), day, NOW_US + day * DAY_US)

    counter.settle(on(0, 60), ticket, 70, NOW_US + 9 * DAY_US)

    assert sorted(counter._slots) == [NOW_US + day * DAY_US for day in range(10 - PERIODS, 10)]


def test_a_clock_far_behind_does_not_lose_what_it_counts() -> None:
    counter = CalendarCounter()
    for day in range(10, 10 + PERIODS):
        counter.reserve(on(day, 1), day, NOW_US + day * DAY_US)

    counter.reserve(on(0, 60), 20, NOW_US)

    assert counter.used(on(0), NOW_US) == 60
    assert len(counter._slots) == PERIODS


def test_a_used_period_is_not_forgotten_before_it_is_over_for_a_day() -> None:
    counter = counters.unused(WINDOW)
    counter.reserve(on(0), 1, NOW_US)

    assert not counter.is_fresh(NOW_US + 2 * DAY_US - 1)
    assert counter.is_fresh(NOW_US + 2 * DAY_US)


def test_a_late_settlement_makes_nobody_forget_the_period_after_it() -> None:
    counter = counters.unused(WINDOW)
    _, ticket = counter.reserve(on(0, 5), 1, NOW_US)
    counter.reserve(on(1), 2, NOW_US + DAY_US)

    counter.settle(on(0, 5), ticket, 3, NOW_US + DAY_US)

    assert not counter.is_fresh(NOW_US + 3 * DAY_US - 1)


moves = st.lists(
    st.tuples(
        st.integers(-DAY_US, DAY_US),
        st.integers(1, 120),
        st.integers(0, 100),
        st.integers(0, 2 * DAY_US),
    ),
    max_size=20,
)


@given(moves)
def test_no_period_ever_admits_more_than_the_size_whatever_the_clock_does(
    plan: list[tuple[int, int, int, int]],
) -> None:
    counter = CalendarCounter()
    now = NOW_US
    admitted: dict[int, int] = {}  # period -> amount
    open_: list[tuple[int, Ticket, int]] = []
    for number, (moved, amount, part, lasts) in enumerate(plan):
        # As far as a day to either side: all of it is within the periods that are kept.
        now = min(max(NOW_US - DAY_US, now + moved), NOW_US + 2 * DAY_US - 1)
        day = (now - NOW_US) // DAY_US
        for item in [item for item in open_ if item[0] <= now]:
            _, ticket, spent = item
            counter.settle(on((ticket.begin_us - NOW_US) // DAY_US), ticket, spent, now)
            admitted[ticket.begin_us] += spent - ticket.reserved
            open_.remove(item)
        if counter.fits(on(day, amount), now):
            outcome, ticket = counter.reserve(on(day, amount), number, now)
            begin_us = NOW_US + day * DAY_US
            admitted[begin_us] = admitted.get(begin_us, 0) + outcome.reserved
            open_.append((now + lasts, ticket, outcome.reserved * part // 100))
        assert all(amount <= 100 for amount in admitted.values())
        assert counter._slots == {begin: amount for begin, amount in admitted.items() if amount}
