"""Charges, outcomes and counters as the bytes that the Lua script reads and writes.

Floor 3. All are little-endian doubles, `struct`'s and Lua's alike: whole numbers below 2^53 are exact in
them. Layouts are spelled out in counters.lua and charges.lua; a change of one needs new key names,
for counters stay.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from extproc.decision import (
    CalendarWindow,
    Charge,
    ChargeOutcome,
    Leases,
    SlidingWindow,
    TokenBucket,
    Window,
)
from extproc.store.base import CounterState

# Sums of two of these stay exact. Nano-dollars: four and a half million dollars.
LARGEST_AMOUNT: Final = 2**52

_CHARGE = struct.Struct("<9d")
_OUTCOME = struct.Struct("<13d")
_HEAD = struct.Struct("<5d")  # algorithm, version, extra, until_us, epoch
_BUCKET = struct.Struct("<5d")  # used, rest, at_us, amount, per_us
_ENFORCED, _MUST_COUNT = 1, 2
_GRANTED, _UNAVAILABLE = 1, 2
_BUCKETS, _SLIDING, _CALENDAR, _LEASES = 1, 2, 3, 4
NOTHING = 0  # in an algorithm's place: the counter is gone


def _bucket(window: TokenBucket) -> tuple[int, ...]:
    return (_BUCKETS, window.burst, window.amount, window.per_us, 0, 0)


def _sliding(window: SlidingWindow) -> tuple[int, ...]:
    return (_SLIDING, window.size, window.per_us, 0, 0, 0)


def _calendar(window: CalendarWindow) -> tuple[int, ...]:
    return (_CALENDAR, window.size, *window.edges_us)


def _leases(window: Leases) -> tuple[int, ...]:
    return (_LEASES, window.size, window.ttl_us, 0, 0, 0)


_WINDOWS: Mapping[type[Window], Callable[[Any], tuple[int, ...]]] = MappingProxyType(
    {TokenBucket: _bucket, SlidingWindow: _sliding, CalendarWindow: _calendar, Leases: _leases}
)


def charges(all_: tuple[Charge, ...]) -> bytes:
    """What the script needs of each; counters' names go beside them."""
    return b"".join(map(_packed, all_))


def _packed(charge: Charge) -> bytes:
    flags = _ENFORCED * charge.enforced | _MUST_COUNT * charge.must_count
    window = _WINDOWS[type(charge.window)](charge.window)
    return _CHARGE.pack(flags, amount(charge.amount), amount(charge.minimum), *window)


def amount(value: int) -> int:
    """The amount as far as sums of it stay exact."""
    return min(value, LARGEST_AMOUNT)


def outcomes(all_: tuple[Charge, ...], packed: bytes) -> tuple[ChargeOutcome, ...]:
    """What the script answered, one a charge."""
    return tuple(map(_outcome, all_, _OUTCOME.iter_unpack(packed)))


def _outcome(charge: Charge, numbers: tuple[float, ...]) -> ChargeOutcome:
    flags, reserved, used, remaining, limit, behind, *waits, lasts, reset, reset_rest = map(int, numbers)
    window = charge.window
    ordinary, overridden = (
        None if whole < 0 else _time_us(window, behind, whole, rest)
        for whole, rest in zip(waits[::2], waits[1::2], strict=True)
    )
    return ChargeOutcome(
        charge=charge,
        granted=bool(flags & _GRANTED),
        reserved=reserved,
        used=used,
        remaining=remaining,
        wait_us=_sooner(ordinary, overridden, lasts),
        reset_us=_time_us(window, behind, reset, reset_rest),
        limit=limit,
        unavailable=bool(flags & _UNAVAILABLE),
    )


def _time_us(window: Window, behind_us: int, whole: int, rest: int) -> int:
    """Microseconds; a bucket answers what must refill, for the time that takes may pass 2^53."""
    if not isinstance(window, TokenBucket):
        return whole
    scaled = whole * window.per_us + rest
    return 0 if scaled == 0 else behind_us + -(-scaled // window.amount)


def _sooner(ordinary: int | None, overridden: int | None, lasts_us: int) -> int | None:
    """The wait where an override lasts for so long."""
    if lasts_us <= 0:
        return ordinary
    if overridden is not None and overridden < lasts_us:
        return overridden
    return None if ordinary is None else max(ordinary, lasts_us)


def version(counter: bytes) -> int:
    """That of a packed counter."""
    return int(_HEAD.unpack_from(counter)[1])


def written_down(name: str, counter: bytes) -> CounterState:
    """A packed counter as the ledger keeps it."""
    algorithm, number, extra, until_us, _ = map(int, _HEAD.unpack_from(counter))
    if algorithm == NOTHING:
        return CounterState(counter=name, version=number, state="")
    fields: dict[str, Any] = _FIELDS[algorithm](counter)
    if until_us:
        fields |= {"extra": extra, "until_us": until_us}
    return CounterState(counter=name, version=number, state=json.dumps(fields, separators=(",", ":")))


def _bucket_fields(counter: bytes) -> dict[str, Any]:
    numbers = map(int, _BUCKET.unpack_from(counter, _HEAD.size))
    return dict(zip(("used", "rest", "at_us", "amount", "per_us"), numbers, strict=True))


def _slots(name: str) -> Callable[[bytes], dict[str, Any]]:
    def fields(counter: bytes) -> dict[str, Any]:
        last, _, *pairs = struct.unpack_from(f"<{(len(counter) - _HEAD.size) // 8}d", counter, _HEAD.size)
        slots = zip(pairs[::2], pairs[1::2], strict=True)
        return {"slots": {str(int(begin)): int(used) for begin, used in slots if used}, name: int(last)}

    return fields


_FIELDS: Mapping[int, Callable[[bytes], dict[str, Any]]] = MappingProxyType(
    {
        _BUCKETS: _bucket_fields,
        _SLIDING: _slots("per_us"),
        _CALENDAR: _slots("ends_us"),
        _LEASES: lambda _: {"leases": {}},
    }
)


def taken_up(state: CounterState) -> bytes:
    """A counter of the ledger, packed; the other way round than `written_down`."""
    if not state.state:
        return _HEAD.pack(NOTHING, state.version, 0, 0, 0)
    fields = json.loads(state.state)
    algorithm, numbers = next(_READ[field](fields) for field in _READ if field in fields)
    head = _HEAD.pack(algorithm, state.version, fields.get("extra", 0), fields.get("until_us", 0), 0)
    return head + struct.pack(f"<{len(numbers)}d", *numbers)


def _read_slots(algorithm: int, last: str) -> Callable[[Mapping[str, Any]], tuple[int, tuple[int, ...]]]:
    def read(fields: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
        pairs = sorted((int(begin), used) for begin, used in fields["slots"].items())
        return algorithm, (fields[last], 0, *(number for pair in pairs for number in pair))

    return read


def _read_bucket(fields: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    names = ("used", "rest", "at_us", "amount", "per_us")
    return _BUCKETS, tuple(fields[name] for name in names)


# By a field that only states of this algorithm have; the first that is there.
_READ: Mapping[str, Callable[[Mapping[str, Any]], tuple[int, tuple[int, ...]]]] = MappingProxyType(
    {
        "used": _read_bucket,
        "per_us": _read_slots(_SLIDING, "per_us"),
        "ends_us": _read_slots(_CALENDAR, "ends_us"),
        "leases": lambda _: (_LEASES, ()),
    }
)
