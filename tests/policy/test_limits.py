from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Charge, PolicyRef, TokenBucket, Unit
from extproc.policy import limits
from extproc.policy.limits import Bucket
from extproc.policy.lows import Lows

MINUTE_US = 60_000_000

charges = st.builds(
    lambda minimum, more, rate, per, burst: Charge(
        policy=PolicyRef("RateLimit", "l"),
        counter="c",
        unit=Unit.TOKENS,
        amount=minimum + more,
        minimum=minimum,
        window=TokenBucket(rate, per, burst),
    ),
    minimum=st.integers(1, 2000),
    more=st.integers(0, 500),
    rate=st.integers(1, 10**6),
    per=st.sampled_from([1_000_000, 7_000_000, MINUTE_US, 86_400_000_000]),
    burst=st.integers(1, 2000),
)
instants = st.integers(0, 10**12)


def charge(*, amount: int = 1, minimum: int | None = None, rate: int = 60, burst: int = 100) -> Charge:
    return Charge(
        policy=PolicyRef("RateLimit", "l"),
        counter="c",
        unit=Unit.TOKENS,
        amount=amount,
        minimum=amount if minimum is None else minimum,
        window=TokenBucket(rate, MINUTE_US, burst),
    )


def full(taken: Charge, at_us: int = 0) -> Bucket:
    return Bucket(taken.window.burst * taken.window.per_us, at_us)


def test_a_bucket_refills_by_its_rate_and_no_further_than_full() -> None:
    bucket = full(charge())

    assert limits.used_at(bucket, 60, 10_000_000) == Bucket(90 * MINUTE_US, 10_000_000)
    assert limits.used_at(bucket, 60, 10**12) == Bucket(0, 10**12)


def test_a_clock_set_back_neither_refills_nor_loses() -> None:
    bucket = full(charge(), at_us=1_000_000)

    assert limits.used_at(bucket, 60, 0) == bucket
    assert limits.wait_us(bucket, charge(), 400_000) == 1_600_000


def settle(bucket: Bucket, *, reserved: int, spent: int, granted: bool = True) -> Bucket:
    """Settle the only reservation of a bucket."""
    lows = Lows()
    lows.open(1, bucket.used_scaled)
    return limits.settle(bucket, charge(), lows, 1, reserved=reserved, spent=spent, granted=granted)


def test_what_is_asked_for_is_taken_where_it_fits() -> None:
    bucket, taken = limits.reserve(Bucket(0, 0), charge(amount=30))

    assert (bucket.used_scaled, taken) == (30 * MINUTE_US, 30)


def test_an_elastic_charge_takes_what_is_left() -> None:
    bucket, taken = limits.reserve(Bucket(95 * MINUTE_US, 0), charge(amount=30, minimum=4))

    assert (bucket.used_scaled, taken) == (100 * MINUTE_US, 5)


def test_a_charge_that_does_not_fit_fills_the_bucket_and_never_more() -> None:
    bucket, taken = limits.reserve(Bucket(95 * MINUTE_US, 0), charge(amount=30, minimum=30))

    assert (bucket.used_scaled, taken) == (100 * MINUTE_US, 5)


def test_a_bucket_in_debt_gives_nothing_and_owes_no_more() -> None:
    bucket, taken = limits.reserve(Bucket(150 * MINUTE_US, 0), charge(amount=30, minimum=30))

    assert (bucket.used_scaled, taken) == (150 * MINUTE_US, 0)


def test_a_shadow_limit_that_would_have_denied_owes_nothing_at_the_end() -> None:
    settled = settle(full(charge()), reserved=5, spent=60, granted=False)

    assert settled == full(charge())


def test_more_than_the_bucket_holds_never_fits() -> None:
    assert limits.wait_us(Bucket(0, 0), charge(amount=101), 0) is None


def test_a_refund_comes_back_whole_at_once() -> None:
    settled = settle(full(charge()), reserved=100, spent=20)

    assert settled.used_scaled == 20 * MINUTE_US


def test_a_refund_leaves_what_the_spent_amount_would_have_left() -> None:
    # 100 taken a minute ago, 60 of them refilled since; 20 would have been whole by now.
    bucket = limits.used_at(full(charge()), 60, MINUTE_US)

    assert settle(bucket, reserved=100, spent=20).used_scaled == 0


def test_overage_is_debt() -> None:
    settled = settle(full(charge()), reserved=10, spent=60)

    assert settled.used_scaled == 150 * MINUTE_US
    assert limits.wait_us(settled, charge(), 0) == 51_000_000


@given(charges, st.integers(0, 3000), instants)
def test_waiting_exactly_that_long_admits_and_one_microsecond_less_does_not(
    taken: Charge, used: int, at_us: int
) -> None:
    bucket = Bucket(used * taken.window.per_us // 3, at_us)
    wait_us = limits.wait_us(bucket, taken, at_us)

    if wait_us is None:
        assert not limits.fits(limits.used_at(bucket, taken.window.amount, at_us + 10**15), taken)
    else:
        assert limits.fits(limits.used_at(bucket, taken.window.amount, at_us + wait_us), taken)
        assert wait_us == 0 or not limits.fits(
            limits.used_at(bucket, taken.window.amount, at_us + wait_us - 1), taken
        )


@given(charges, st.integers(0, 3000), instants)
def test_a_bucket_is_whole_exactly_at_its_reset(taken: Charge, used: int, at_us: int) -> None:
    bucket = Bucket(used * taken.window.per_us // 3, at_us)
    reset_us = limits.reset_us(bucket, taken, at_us)

    assert limits.used_at(bucket, taken.window.amount, at_us + reset_us).used_scaled == 0
    assert reset_us == 0 or limits.used_at(bucket, taken.window.amount, at_us + reset_us - 1).used_scaled > 0


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
    asked = charge(rate=rate, burst=burst)
    bucket, now = Bucket(0, 0), 0
    lows = Lows()
    latest = 0  # the time as the bucket sees it
    admitted: list[list[int]] = []  # [time, amount in the end]
    open_: list[tuple[int, int, int, int]] = []  # [due, reserved, spent, index]
    for moved, amount, returned, later in plan:
        now = max(0, now + moved)
        latest = max(latest, now)
        for due, reserved, spent, index in [item for item in open_ if item[0] <= now]:
            bucket = limits.used_at(bucket, rate, now)
            bucket = limits.settle(bucket, asked, lows, index, reserved=reserved, spent=spent, granted=True)
            admitted[index][1] = spent
            open_.remove((due, reserved, spent, index))
        bucket = limits.used_at(bucket, rate, now)
        wanted = replace(asked, amount=amount, minimum=max(1, amount // 2))
        if limits.fits(bucket, wanted):
            lows.look(bucket.used_scaled)
            bucket, taken = limits.reserve(bucket, wanted)
            lows.open(len(admitted), bucket.used_scaled)
            admitted.append([latest, taken])
            open_.append((now + later, taken, max(0, taken - returned), len(admitted) - 1))

    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            elapsed_us = admitted[last][0] - admitted[first][0]
            amount = sum(item[1] for item in admitted[first : last + 1])
            assert amount * MINUTE_US <= burst * MINUTE_US + rate * elapsed_us
