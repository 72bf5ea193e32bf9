"""Token bucket arithmetic in exact integers.

Floor 1, pure: a store keeps `Bucket`s and calls these functions. What a bucket has used is scaled
by its window's length in microseconds, so that a refill of any length is a whole number:

    refilled = rate_amount * elapsed_us          (scaled)
    used     = used_scaled / rate_per_us         (in the limit's unit)

The window is part of a counter's identity, so the scale of a bucket never changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from extproc.decision import Charge, ChargeOutcome, TokenBucket
from extproc.policy.lows import Lows


@dataclass(frozen=True, slots=True)
class Bucket:
    """What was used when the bucket was last looked at; more than it holds is debt."""

    used_scaled: int
    at_us: int


def used_at(bucket: Bucket | None, rate_amount: int, at_us: int) -> Bucket:
    """The bucket after refilling until `at_us`; None is one that nobody used.

    A clock that was set back neither refills nor loses anything: time stands still until it has
    caught up.
    """
    if bucket is None:
        return Bucket(0, at_us)
    if at_us <= bucket.at_us:
        return bucket
    refilled = rate_amount * (at_us - bucket.at_us)
    return Bucket(max(0, bucket.used_scaled - refilled), at_us)


def fits(bucket: Bucket, charge: Charge) -> bool:
    """Whether the least this charge needs is there; `bucket` is refilled until now."""
    return (
        bucket.used_scaled + charge.minimum * _window(charge).per_us
        <= _window(charge).burst * _window(charge).per_us
    )


def reserve(bucket: Bucket, charge: Charge) -> tuple[Bucket, int]:
    """Take `amount`, or what is left of it; answers what was taken.

    A shadow limit that would deny takes what is left, even less than `minimum`: it fills, and it is
    never more than full, so that it says what it would say if it were enforced.
    """
    left = (_window(charge).burst * _window(charge).per_us - bucket.used_scaled) // _window(charge).per_us
    taken = max(0, min(charge.amount, left))
    return Bucket(bucket.used_scaled + taken * _window(charge).per_us, bucket.at_us), taken


def settle(
    bucket: Bucket, charge: Charge, lows: Lows, number: int, *, reserved: int, spent: int, granted: bool
) -> Bucket:
    """Replace `reserved`, taken as reservation `number`, by `spent`; `bucket` is refilled until now.

    Less comes back as far as the bucket still lacks it, which `lows` knows. More is debt, never
    forgotten; but a shadow limit that would have denied (`granted` is false) owes nothing: the
    request would not have been.
    """
    lows.look(bucket.used_scaled)
    returned = lows.close(number, max(0, reserved - spent) * _window(charge).per_us)
    owed = max(0, spent - reserved) * _window(charge).per_us if granted else 0
    return Bucket(bucket.used_scaled - returned + owed, bucket.at_us)


def wait_us(bucket: Bucket, charge: Charge, at_us: int) -> int | None:
    """The least time after which `minimum` fits if nobody else comes; None if it never will."""
    if charge.minimum > _window(charge).burst:
        return None
    lacking = bucket.used_scaled - (_window(charge).burst - charge.minimum) * _window(charge).per_us
    return 0 if lacking <= 0 else _time_to_refill(bucket, lacking, _window(charge).amount, at_us)


def reset_us(bucket: Bucket, charge: Charge, at_us: int) -> int:
    """The time until the bucket is whole if nobody else comes."""
    used = bucket.used_scaled
    return 0 if used == 0 else _time_to_refill(bucket, used, _window(charge).amount, at_us)


def outcome(
    before: Bucket, after: Bucket, charge: Charge, *, granted: bool, reserved: int, at_us: int
) -> ChargeOutcome:
    """What a store answers; used is rounded up to whole units, remaining down."""
    left = (_window(charge).burst * _window(charge).per_us - after.used_scaled) // _window(charge).per_us
    return ChargeOutcome(
        charge=charge,
        granted=granted,
        reserved=reserved,
        used=-(-before.used_scaled // _window(charge).per_us),
        remaining=max(0, left),
        wait_us=wait_us(before, charge, at_us),
        reset_us=reset_us(after, charge, at_us),
        limit=charge.window.size,
    )


def _window(charge: Charge) -> TokenBucket:
    assert isinstance(charge.window, TokenBucket)  # noqa: S101
    return charge.window


def _time_to_refill(bucket: Bucket, scaled: int, rate_amount: int, at_us: int) -> int:
    # A clock behind the bucket's has to catch up first.
    return max(0, bucket.at_us - at_us) + -(-scaled // rate_amount)
