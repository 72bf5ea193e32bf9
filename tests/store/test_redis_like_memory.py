"""Redis answers what memory answers, call by call: the arithmetic there is the one in `policy.counters`."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.decision import (
    CalendarWindow,
    Charge,
    Leases,
    PolicyRef,
    SlidingWindow,
    TokenBucket,
    Unit,
    Window,
)
from extproc.policy import counters
from extproc.store.base import Store
from extproc.store.memory import MemoryStore
from extproc.store.redis import RedisStore
from tests.store.redis_bench import PATIENT_S, fresh_prefix, server

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
NOW_US = 1_800_000_000 * SECOND_US
LARGEST = 4 * 10**15
EXAMPLES = itertools.count()

# Small ones meet their limits often; large ones need every digit.
AMOUNTS = st.one_of(st.integers(0, 12), st.integers(0, LARGEST))
SIZES = st.one_of(st.integers(1, 20), st.integers(1, LARGEST))
LENGTHS_US = st.one_of(
    st.sampled_from([SECOND_US, 60 * SECOND_US, DAY_US, 31 * DAY_US]), st.integers(SECOND_US, 31 * DAY_US)
)
STEPS_US = st.one_of(
    st.integers(0, 3 * SECOND_US),
    st.integers(0, 40 * DAY_US),
    st.integers(-2 * DAY_US, 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One limit, and what its requests take from it."""

    window: Window
    is_enforced: bool
    must_count: bool


def edges(first_us: int, period_us: int) -> tuple[int, int, int, int]:
    begin, one, two, three = (first_us + n * period_us for n in range(4))
    return (begin, one, two, three)


WINDOWS = st.one_of(
    st.builds(TokenBucket, SIZES, LENGTHS_US, SIZES),
    st.builds(SlidingWindow, SIZES, LENGTHS_US),
    st.builds(
        lambda size, period_us, first: CalendarWindow(size, "day", edges(NOW_US - first, period_us)),
        SIZES,
        st.sampled_from([DAY_US, 30 * DAY_US]),
        st.integers(0, DAY_US),
    ),
    st.builds(Leases, st.integers(1, 4), LENGTHS_US),
)
PLANS = st.lists(
    st.builds(Plan, window=WINDOWS, is_enforced=st.booleans(), must_count=st.booleans()),
    min_size=1,
    max_size=5,
)
PAIRS = st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=5, max_size=5)
STEPS = st.tuples(
    st.sampled_from(["reserve"] * 6 + ["settle"] * 5 + ["read", "renew", "reset", "override", "edit"]),
    st.integers(0, 30),  # which decision or plan
    STEPS_US,
    PAIRS,
)


def charged(plan: Plan, name: str, amount: int, other: int) -> Charge:
    is_lease = isinstance(plan.window, Leases)
    return Charge(
        policy=PolicyRef("RateLimit", name),
        counter=name,
        unit=Unit.TOKENS,
        amount=1 if is_lease else max(amount, other),
        minimum=1 if is_lease else min(amount, other),
        window=plan.window,
        enforced=plan.is_enforced,
        must_count=plan.must_count,
    )


def with_size(window: Window, size: int) -> Window:
    """The window after an edit of its policy; its length is part of a counter's name."""
    match window:
        case TokenBucket():
            return replace(window, amount=size, burst=size)
        case Leases():
            return replace(window, size=size % 5 + 1)
        case _:
            return replace(window, size=size)


def steps_of(plans: list[Plan], steps: list[Any], example: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The calls that a script of steps comes to."""
    at_us, decisions = NOW_US, 0
    names = [f"{example}-{n}" for n in range(len(plans))]
    # Whether leases that were over count again where the clock is set back is not promised.
    only_forward = any(isinstance(plan.window, Leases) for plan in plans)
    for kind, which, step_us, pairs in steps:
        at_us += abs(step_us) if only_forward else step_us
        charges = tuple(
            charged(plan, name, *pair) for plan, name, pair in zip(plans, names, pairs, strict=False)
        )
        one = charges[which % len(charges)]
        amount = pairs[0][0]
        spent = {name: pair[0] for name, pair in zip(names, pairs, strict=False)}
        match kind:
            case "reserve":
                decisions += 1
                yield "reserve", (f"{example}-{decisions}", charges, at_us)
            case "settle":
                # Never before it is reserved: test_redis.py says what becomes of that.
                yield "settle", (f"{example}-{min(which, decisions)}", spent, at_us)
            case "read":
                yield "read", (charges, at_us)
            case "renew":
                yield "renew", ([f"{example}-{n}" for n in range(which)], at_us)
            case "reset":
                yield "reset", (one, at_us)
            case "override":
                yield "override", (one, amount, at_us + abs(step_us), at_us)
            case "edit":
                place = which % len(plans)
                plans[place] = replace(plans[place], window=with_size(plans[place].window, max(1, amount)))


def settled_state(state: str, at_us: int) -> Any:
    """A state as far as anybody can tell: of a counter that equals a new one, nothing."""
    if not state or counters.load(state).is_fresh(at_us):
        return None
    return json.loads(state)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="module")
def redis_store(runner: asyncio.Runner) -> Iterator[RedisStore]:
    store = RedisStore(server().url, prefix=fresh_prefix(), timeout_s=PATIENT_S, uses_callers_time=True)
    runner.run(store.start())
    yield store
    runner.run(store.close())


async def call(store: Store, name: str, arguments: tuple[Any, ...]) -> Any:
    return await getattr(store, name)(*arguments)


@settings(max_examples=120)
@given(plans=PLANS, steps=st.lists(STEPS, min_size=1, max_size=25))
def test_every_call_is_answered_as_memory_answers_it(
    runner: asyncio.Runner, redis_store: RedisStore, plans: list[Plan], steps: list[Any]
) -> None:
    async def play() -> None:
        memory = MemoryStore()
        example = f"x{next(EXAMPLES)}"
        at_us = NOW_US
        for name, arguments in steps_of(list(plans), steps, example):
            expected = await call(memory, name, arguments)
            assert await call(redis_store, name, arguments) == expected, (name, arguments)
            at_us = arguments[-1]
        states: list[dict[str, Any]] = [
            {each.counter: settled_state(each.state, at_us) for each in store.changed()}
            for store in (memory, redis_store)
        ]
        told = [{name: state for name, state in each.items() if state} for each in states]
        assert told[1] == told[0]

    runner.run(play())
