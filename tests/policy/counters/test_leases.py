from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Leases
from extproc.policy import counters
from extproc.policy.counters import Ticket
from tests.policy.counters.charges import MINUTE_US, NOW_US, SECOND_US, charge

WINDOW = Leases(3, MINUTE_US)


def test_a_reservation_is_in_flight_until_it_is_settled() -> None:
    counter = counters.unused(WINDOW)
    outcome, ticket = counter.reserve(charge(WINDOW), 1, NOW_US)

    assert (outcome.granted, outcome.used, outcome.reserved, outcome.remaining) == (True, 0, 1, 2)
    assert counter.used(charge(WINDOW), NOW_US) == 1
    counter.settle(charge(WINDOW), ticket, 0, NOW_US)
    assert counter.is_fresh(NOW_US)


def test_whoever_is_denied_may_ask_again_in_a_second() -> None:
    counter = counters.unused(WINDOW)
    for number in range(3):
        counter.reserve(charge(WINDOW), number, NOW_US)

    assert counter.decline(charge(WINDOW), NOW_US).wait_us == SECOND_US
    assert counter.decline(charge(WINDOW, 4), NOW_US).wait_us is None


def test_a_shadow_limit_that_is_full_has_no_lease_to_end() -> None:
    counter = counters.unused(WINDOW)
    for number in range(3):
        counter.reserve(charge(WINDOW), number, NOW_US)
    outcome, ticket = counter.reserve(charge(WINDOW), 3, NOW_US)

    counter.settle(charge(WINDOW), ticket, 0, NOW_US)

    assert (outcome.granted, outcome.reserved) == (False, 0)
    assert counter.used(charge(WINDOW), NOW_US) == 3


def test_a_lease_that_nobody_renews_is_over() -> None:
    counter = counters.unused(WINDOW)
    counter.reserve(charge(WINDOW), 1, NOW_US)

    assert counter.used(charge(WINDOW), NOW_US + MINUTE_US - 1) == 1
    assert counter.used(charge(WINDOW), NOW_US + MINUTE_US) == 0
    assert counter.is_fresh(NOW_US + MINUTE_US)


def test_a_renewed_lease_lasts_from_then_on() -> None:
    counter = counters.unused(WINDOW)
    _, ticket = counter.reserve(charge(WINDOW), 1, NOW_US)

    counter.renew(charge(WINDOW), ticket, NOW_US + 50 * SECOND_US)

    assert counter.used(charge(WINDOW), NOW_US + 110 * SECOND_US - 1) == 1
    assert counter.used(charge(WINDOW), NOW_US + 110 * SECOND_US) == 0


def test_a_lease_that_is_over_cannot_be_renewed() -> None:
    """Somebody else may have its place."""
    counter = counters.unused(WINDOW)
    _, ticket = counter.reserve(charge(WINDOW), 1, NOW_US)

    counter.renew(charge(WINDOW), ticket, NOW_US + MINUTE_US)

    assert counter.used(charge(WINDOW), NOW_US + MINUTE_US) == 0


def test_a_clock_set_back_ends_no_lease() -> None:
    counter = counters.unused(WINDOW)
    counter.reserve(charge(WINDOW), 1, NOW_US)

    assert counter.used(charge(WINDOW), NOW_US - 3600 * SECOND_US) == 1


def test_an_abandoned_lease_lasts_as_if_nobody_renewed_it() -> None:
    counter = counters.unused(WINDOW)
    _, ticket = counter.reserve(charge(WINDOW), 1, NOW_US)

    counter.abandon(ticket)

    assert counter.used(charge(WINDOW), NOW_US) == 1


def test_leases_are_never_written_down_but_their_override_is() -> None:
    counter = counters.unused(WINDOW)
    counter.reserve(charge(WINDOW), 1, NOW_US)
    assert counter.dump() == ""

    counter.override(2, NOW_US + 5)

    assert counters.load(counter.dump()).left(charge(WINDOW), NOW_US) == 5


@given(
    st.lists(
        st.tuples(
            st.integers(0, 50 * SECOND_US),  # the time that passes
            st.integers(0, 5),  # how many ask
            st.sets(st.integers(0, 40)),  # who renews
            st.sets(st.integers(0, 40)),  # who ends
        ),
        max_size=20,
    )
)
def test_no_more_are_in_flight_than_the_size(
    plan: list[tuple[int, int, set[int], set[int]]],
) -> None:
    counter = counters.unused(WINDOW)
    now, number = NOW_US, 0
    until: dict[int, int] = {}
    tickets: dict[int, Ticket] = {}
    for passed, asking, renewing, ending in plan:
        now += passed
        for each in ending & tickets.keys():
            counter.settle(charge(WINDOW), tickets[each], 0, now)
            until.pop(each, None)
        for each in renewing & tickets.keys():
            counter.renew(charge(WINDOW), tickets[each], now)
            if until.get(each, 0) > now:
                until[each] = now + MINUTE_US
        for _ in range(asking):
            if counter.fits(charge(WINDOW), now):
                number += 1
                _, tickets[number] = counter.reserve(charge(WINDOW), number, now)
                until[number] = now + MINUTE_US
        in_flight = sum(each > now for each in until.values())
        assert in_flight == counter.used(charge(WINDOW), now) <= 3
