import json

from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Charge, TokenBucket
from extproc.policy import counters
from extproc.policy.counters import AnyCounter, Ticket
from tests.policy.counters.charges import MINUTE_US, SECOND_US
from tests.policy.counters.charges import charge as charge_on

charges = st.builds(
    lambda minimum, more, amount, per, burst: charge_on(
        TokenBucket(amount, per, burst), minimum + more, minimum=minimum
    ),
    minimum=st.integers(1, 2000),
    more=st.integers(0, 500),
    amount=st.integers(1, 10**6),
    per=st.sampled_from([1_000_000, 7_000_000, MINUTE_US, 86_400_000_000]),
    burst=st.integers(1, 2000),
)
instants = st.integers(0, 10**12)


def charge(amount: int = 1, *, minimum: int | None = None, rate: int = 60, burst: int = 100) -> Charge:
    return charge_on(TokenBucket(rate, MINUTE_US, burst), amount, minimum=minimum)


def bucket(used_scaled: int, window: TokenBucket, at_us: int = 0) -> AnyCounter:
    """A bucket with this much in use."""
    used, rest = divmod(used_scaled, window.per_us)
    state = {"used": used, "rest": rest, "at_us": at_us, "amount": window.amount, "per_us": window.per_us}
    return counters.load(json.dumps(state))


def used_bucket(used: int, at_us: int = 0) -> AnyCounter:
    return bucket(used * MINUTE_US, TokenBucket(60, MINUTE_US, 100), at_us)


def test_a_bucket_refills_by_its_rate_and_no_further_than_full() -> None:
    full = used_bucket(100)

    assert full.used(charge(), 10_000_000) == 90
    assert full.used(charge(), 10**12) == 0
    assert (full.is_fresh(99_999_999), full.is_fresh(100_000_000)) == (False, True)


def test_use_is_rounded_up_and_what_is_left_down() -> None:
    full = used_bucket(100)

    assert (full.used(charge(), 1_500_000), full.left(charge(), 1_500_000)) == (99, 1)


def test_a_clock_set_back_neither_refills_nor_loses() -> None:
    full = used_bucket(100, at_us=1_000_000)

    assert full.used(charge(), 0) == 100
    assert full.wait_us(charge(), 400_000) == 1_600_000


def test_what_is_asked_for_is_taken_where_it_fits() -> None:
    outcome, ticket = used_bucket(10).reserve(charge(30), 1, 0)

    assert (outcome.granted, outcome.used, outcome.reserved, outcome.remaining) == (True, 10, 30, 60)
    assert ticket == Ticket(number=1, reserved=30, granted=True)


def test_an_elastic_charge_takes_what_is_left() -> None:
    taken = used_bucket(95)
    outcome, _ = taken.reserve(charge(30, minimum=4), 1, 0)

    assert (outcome.granted, outcome.reserved, taken.used(charge(), 0)) == (True, 5, 100)


def test_a_charge_that_does_not_fit_fills_the_bucket_and_never_more() -> None:
    taken = used_bucket(95)
    outcome, _ = taken.reserve(charge(30), 1, 0)

    assert (outcome.granted, outcome.reserved, taken.used(charge(), 0)) == (False, 5, 100)


def test_a_bucket_in_debt_gives_nothing_and_owes_no_more() -> None:
    taken = used_bucket(150)
    outcome, _ = taken.reserve(charge(30), 1, 0)

    assert (outcome.granted, outcome.reserved, outcome.remaining) == (False, 0, 0)
    assert (taken.used(charge(), 0), taken.left(charge(), 0)) == (150, -50)


def settled(taken: AnyCounter, amount: int, spent: int, at_us: int = 0) -> int:
    """What is in use after the only reservation of a bucket is settled."""
    _, ticket = taken.reserve(charge(amount), 1, 0)
    taken.settle(charge(amount), ticket, spent, at_us)
    return taken.used(charge(), at_us)


def test_a_refund_comes_back_whole_at_once() -> None:
    assert settled(used_bucket(0), 100, 20) == 20


def test_a_refund_leaves_what_the_spent_amount_would_have_left() -> None:
    # 100 taken a minute ago, 60 of them refilled since; 20 would have been whole by now.
    assert settled(used_bucket(0), 100, 20, MINUTE_US) == 0


def test_overage_is_debt() -> None:
    taken = used_bucket(90)

    assert settled(taken, 10, 60) == 150
    assert taken.wait_us(charge(), 0) == 51_000_000


def test_an_abandoned_reservation_stays_charged_and_disturbs_no_other() -> None:
    taken = used_bucket(0)
    _, first = taken.reserve(charge(40), 1, 0)
    _, second = taken.reserve(charge(50), 2, 0)

    taken.abandon(first)
    taken.settle(charge(50), second, 10, 0)

    assert taken.used(charge(), 0) == 50


def test_an_edited_amount_keeps_what_was_used_and_refills_by_the_new_rate_from_then_on() -> None:
    full, faster = used_bucket(100), charge(rate=600)

    assert full.adopt(faster, 10 * SECOND_US) is True
    assert full.adopt(faster, 10 * SECOND_US) is False
    assert full.used(faster, 10 * SECOND_US) == 90
    assert full.used(faster, 11 * SECOND_US) == 80


def test_a_late_settlement_of_an_old_window_does_not_bring_its_rate_back() -> None:
    taken = used_bucket(0)
    _, ticket = taken.reserve(charge(50), 1, 0)
    taken.adopt(charge(rate=600), 0)

    taken.settle(charge(50), ticket, 50, 0)

    assert taken.used(charge(rate=600), SECOND_US) == 40


@given(charges, st.integers(0, 3000), instants)
def test_waiting_exactly_that_long_admits_and_one_microsecond_less_does_not(
    taken: Charge, used: int, at_us: int
) -> None:
    assert isinstance(taken.window, TokenBucket)
    found = bucket(used * taken.window.per_us // 3, taken.window, at_us)
    wait_us = found.wait_us(taken, at_us)

    if wait_us is None:
        assert not found.fits(taken, at_us + 10**15)
    else:
        assert found.fits(taken, at_us + wait_us)
        assert wait_us == 0 or not found.fits(taken, at_us + wait_us - 1)


@given(charges, st.integers(0, 3000), instants)
def test_a_bucket_is_whole_exactly_at_its_reset(taken: Charge, used: int, at_us: int) -> None:
    assert isinstance(taken.window, TokenBucket)
    found = bucket(used * taken.window.per_us // 3, taken.window, at_us)
    reset_us = found.reset_us(taken, at_us)

    assert found.is_fresh(at_us + reset_us)
    assert reset_us == 0 or not found.is_fresh(at_us + reset_us - 1)


steps = st.lists(
    st.tuples(
        st.integers(-2_000_000, 20_000_000),  # the clock moves, sometimes back
        st.integers(1, 120),  # what is asked for
        st.integers(0, 120),  # what is given back in the end
        st.integers(0, 30_000_000),  # how long after the reservation
    ),
    max_size=30,
)


@given(steps, st.integers(1, 600), st.integers(1, 150))
def test_a_bucket_never_admits_more_than_burst_and_rate_over_any_time(
    plan: list[tuple[int, int, int, int]], rate: int, burst: int
) -> None:
    found = counters.unused(TokenBucket(rate, MINUTE_US, burst))
    now = latest = 0  # the latest is the time as the bucket sees it
    admitted: list[list[int]] = []  # [time, amount in the end]
    open_: list[tuple[int, Charge, Ticket, int]] = []  # (due, charge, ticket, spent)
    for number, (moved, amount, returned, later) in enumerate(plan):
        now = max(0, now + moved)
        latest = max(latest, now)
        for item in [item for item in open_ if item[0] <= now]:
            _, settled_charge, ticket, spent = item
            found.settle(settled_charge, ticket, spent, now)
            admitted[ticket.number][1] = spent
            open_.remove(item)
        wanted = charge(amount, minimum=max(1, amount // 2), rate=rate, burst=burst)
        admitted.append([latest, 0])
        if found.fits(wanted, now):
            outcome, ticket = found.reserve(wanted, number, now)
            admitted[number][1] = outcome.reserved
            open_.append((now + later, wanted, ticket, max(0, outcome.reserved - returned)))

    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            elapsed_us = admitted[last][0] - admitted[first][0]
            amount = sum(item[1] for item in admitted[first : last + 1])
            assert amount * MINUTE_US <= burst * MINUTE_US + rate * elapsed_us
