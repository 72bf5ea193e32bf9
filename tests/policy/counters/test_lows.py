"""A settled bucket is the bucket that took the right amounts in the first place."""

from hypothesis import given
from hypothesis import strategies as st

from extproc.policy.counters.lows import Lows

RATE = 3


def refilled(used: int, elapsed: int) -> int:
    return max(0, used - RATE * elapsed)


class Refunding:
    """A bucket that takes reservations and gives refunds, with the lows kept as a store keeps them."""

    def __init__(self) -> None:
        self.used, self.at, self.numbers = 0, 0, 0
        self.lows = Lows()

    def _look(self, at: int) -> None:
        self.used, self.at = refilled(self.used, at - self.at), at
        self.lows.look(self.used)

    def take(self, amount: int, at: int) -> int:
        self._look(at)
        self.used += amount
        self.numbers += 1
        self.lows.open(self.numbers, self.used)
        return self.numbers

    def settle(self, number: int, returned: int, at: int) -> None:
        self._look(at)
        self.used -= self.lows.close(number, returned)


def replayed(takes: list[tuple[int, int]], until: int) -> int:
    """What is in use at the end if these (time, amount) are all that was ever taken."""
    used, now = 0, 0
    for at, amount in takes:
        used, now = refilled(used, at - now) + amount, at
    return refilled(used, until - now)


reservations = st.lists(
    st.tuples(
        st.integers(0, 30),  # seconds since the one before
        st.integers(1, 100),  # reserved
        st.floats(0, 1),  # which part of it was spent
        st.integers(0, 90),  # seconds until it settles
    ),
    max_size=12,
)


@given(reservations)
def test_after_every_settlement_the_bucket_is_what_it_would_have_been(
    plan: list[tuple[int, int, float, int]],
) -> None:
    steps: list[tuple[int, bool, int, int]] = []  # (when, whether it ends, which, amount)
    at = 0
    for which, (gap, reserved, part, lasts) in enumerate(plan):
        at += gap
        steps += [(at, False, which, reserved), (at + lasts, True, which, int(reserved * part))]
    bucket = Refunding()
    numbers: dict[int, int] = {}
    amounts: dict[int, tuple[int, int]] = {}  # in the order of their reservations
    for now, is_end, which, amount in sorted(steps):
        if is_end:
            taken_at, reserved = amounts[which]
            bucket.settle(numbers[which], reserved - amount, now)
            amounts[which] = (taken_at, amount)
        else:
            numbers[which] = bucket.take(amount, now)
            amounts[which] = (now, amount)
        assert bucket.used == replayed(list(amounts.values()), now)
    assert len(bucket.lows) == 0


def test_a_refund_to_a_bucket_that_is_refilled_meanwhile_lacks_only_the_rest() -> None:
    bucket = Refunding()
    number = bucket.take(100, 0)

    bucket.settle(number, 80, 20)

    assert bucket.used == 0


def test_two_that_overlap_each_get_their_own_back() -> None:
    """Charging the refill to both of them starves callers who stay within their limit."""
    bucket = Refunding()
    first, second = bucket.take(100, 0), bucket.take(100, 0)

    bucket.settle(first, 90, 10)
    bucket.settle(second, 90, 10)

    assert bucket.used == 0


def test_a_reservation_whose_bucket_was_forgotten_lacks_nothing() -> None:
    assert Lows().close(7, 50) == 0
