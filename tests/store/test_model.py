"""Every store against a list of what happened: nothing is lost, given twice, or taken in part."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from extproc.decision import CalendarWindow, Charge, ChargeOutcome, Leases, TokenBucket, Window
from extproc.errors import StoreUnavailable
from extproc.store.base import CounterState, Store
from tests.store.charges import DAY_US, NOW_US, SECOND_US, charge, days
from tests.store.history import HISTORIES, Clock, History
from tests.store.stores import STORES, Bench

amounts = st.integers(0, 120)
names = st.sampled_from(sorted(HISTORIES))
asks = st.dictionaries(
    names,
    st.tuples(st.integers(1, 60), st.integers(1, 20), st.booleans(), st.booleans()),
    min_size=1,
)


class StoreMachine(RuleBasedStateMachine):
    """Clients of one store, its clock, and what should have come of what they did."""

    opened: Callable[[], AbstractAsyncContextManager[Bench]]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.run = self.runner.run
        self.opening = type(self).opened()
        self.bench = self.run(self.opening.__aenter__())
        self.clock = Clock(NOW_US)
        self.ids = (f"d{number}" for number in itertools.count())
        self.histories = {name: kind() for name, kind in HISTORIES.items()}
        self.answers: dict[str, tuple[tuple[Charge, ...], tuple[ChargeOutcome, ...]]] = {}
        self.open: list[str] = []
        self.written: dict[str, CounterState] = {}

    def teardown(self) -> None:
        with self.runner:
            try:
                self.look_at_what_is_written()
                self.run(self.restart())
            finally:
                self.run(self.opening.__aexit__(None, None, None))

    # --- what clients do

    @rule(asked=asks, client=st.integers(0, 9), days_ahead=st.integers(-2, 2))
    def reserve(self, asked: dict[str, tuple[int, int, bool, bool]], client: int, days_ahead: int) -> None:
        charges = tuple(
            replace(
                self.charge(name, amount, min(amount, minimum), days_ahead),
                enforced=is_enforced,
                must_count=must_count,
            )
            for name, (amount, minimum, is_enforced, must_count) in asked.items()
        )
        decision_id = next(self.ids)
        outcomes = self.run(self.client(client).reserve(decision_id, charges, self.clock.now_us))
        self.answers[decision_id] = (charges, outcomes)
        unavailable = [outcome.charge for outcome in outcomes if outcome.unavailable]
        assert [each.counter for each in unavailable] == [
            each.counter for each in charges if each.counter == "calendar" and abs(days_ahead) > 1
        ]
        is_taken = all(o.granted for o in outcomes if o.charge.enforced and not o.unavailable)
        is_taken &= not any(each.enforced and each.must_count for each in unavailable)
        for outcome in outcomes:
            if not outcome.unavailable:
                self.expect(outcome, is_taken=is_taken)
                if is_taken:
                    self.history(outcome.charge).take(decision_id, outcome, self.clock)
            else:
                assert (outcome.granted, outcome.reserved) == (False, 0)
        if is_taken:
            self.open.append(decision_id)

    @rule(data=st.data(), client=st.integers(0, 9), spent=amounts)
    @precondition(lambda self: self.answers)
    def ask_again(self, data: st.DataObject, client: int, spent: int) -> None:
        """Whatever became of the decision, the answer stays, and nothing is taken."""
        decision_id = data.draw(st.sampled_from(sorted(self.answers)))
        charges, outcomes = self.answers[decision_id]
        assert self.run(self.client(client).reserve(decision_id, charges, self.clock.now_us)) == outcomes
        if decision_id not in self.open:
            spend = {each.counter: spent for each in charges}
            assert self.run(self.client(client).settle(decision_id, spend, self.clock.now_us)) is False

    @rule(name=names, amount=st.integers(1, 60), client=st.integers(0, 9))
    def rush(self, name: str, amount: int, client: int) -> None:
        """Many at once: as many are granted as fit, in whatever order."""
        asked = self.charge(name, 1 if name == "leases" else amount)
        left = self.run(self.bench.store.read((asked,), self.clock.now_us))[0]
        ids = [next(self.ids) for _ in range(6)]

        async def all_at_once() -> list[tuple[ChargeOutcome, ...]]:
            calls = (
                self.client(client + number).reserve(decision_id, (asked,), self.clock.now_us)
                for number, decision_id in enumerate(ids)
            )
            return list(await asyncio.gather(*calls))

        answers = self.run(all_at_once())
        granted = [
            (decision_id, outcome)
            for decision_id, (outcome,) in zip(ids, answers, strict=True)
            if outcome.granted
        ]
        free = left.limit - left.used
        assert len(granted) == min(6, max(0, free // asked.amount))
        for decision_id, outcome in granted:
            self.answers[decision_id] = ((asked,), (outcome,))
            self.open.append(decision_id)
            self.history(asked).take(decision_id, outcome, self.clock)

    @rule(data=st.data(), client=st.integers(0, 9))
    @precondition(lambda self: self.open)
    def settle(self, data: st.DataObject, client: int) -> None:
        decision_id, spent = self.ending(data)
        assert self.run(self.client(client).settle(decision_id, spent, self.clock.now_us)) is True
        self.end(decision_id, spent)

    @rule(data=st.data(), client=st.integers(0, 9))
    @precondition(lambda self: self.open)
    def renew(self, data: st.DataObject, client: int) -> None:
        some = data.draw(st.lists(st.sampled_from([*self.open, "nobody"]), unique=True))
        self.run(self.client(client).renew(some, self.clock.now_us))
        for decision_id in some:
            for history in self.histories.values():
                history.renew(decision_id, self.clock)

    # --- what administrators do

    @rule(name=names, client=st.integers(0, 9))
    def reset(self, name: str, client: int) -> None:
        self.run(self.client(client).reset(self.charge(name), self.clock.now_us))
        self.histories[name].reset()

    @rule(name=names, extra=st.integers(0, 100), lasts_s=st.integers(0, 200_000), client=st.integers(0, 9))
    def override(self, name: str, extra: int, lasts_s: int, client: int) -> None:
        until_us = self.clock.now_us + lasts_s * SECOND_US
        self.run(self.client(client).override(self.charge(name), extra, until_us, self.clock.now_us))
        self.histories[name].extra, self.histories[name].until_us = extra, until_us

    @rule(name=names, size=st.integers(20, 200))
    def edit(self, name: str, size: int) -> None:
        self.histories[name].size = size

    # --- what happens to them

    @rule(passed_us=st.one_of(st.integers(0, 100 * SECOND_US), st.integers(0, 2 * DAY_US)))
    def time_passes(self, passed_us: int) -> None:
        self.clock.move(passed_us)
        self.notice()

    @rule(back_us=st.integers(0, DAY_US))
    def the_clock_is_set_back(self, back_us: int) -> None:
        # A counter need not know what was used longer than a day ago.
        self.clock.move(max(self.clock.latest_us - DAY_US, self.clock.now_us - back_us) - self.clock.now_us)

    @rule(data=st.data(), name=names)
    @precondition(lambda self: self.bench.set_reachable is not None)
    def the_store_fails_for_a_while(self, data: st.DataObject, name: str) -> None:
        """A call that failed may have been done or not; settling it, once or again, does it once."""
        self.run(self.reachable(is_so=False))
        lost_id = next(self.ids)
        with pytest.raises(StoreUnavailable):
            self.run(self.bench.store.reserve(lost_id, (self.charge(name),), self.clock.now_us))
        ending = self.ending(data) if self.open else None
        raised = False
        if ending is not None:
            try:
                self.run(self.bench.store.settle(*ending, self.clock.now_us))
            except StoreUnavailable:
                raised = True
        self.run(self.reachable(is_so=True))
        self.run(self.bench.store.settle(lost_id, {}, self.clock.now_us))
        if ending is not None:
            if raised:
                self.run(self.bench.store.settle(*ending, self.clock.now_us))
            assert self.run(self.bench.store.settle(*ending, self.clock.now_us)) is False
            self.end(*ending)

    @rule()
    def look_at_what_is_written(self) -> None:
        """What changed is told once, newer than before, and holds what the counter holds."""
        for client in dict.fromkeys(self.bench.clients):
            told = client.changed()
            assert client.changed() == ()
            for state in told:
                known = self.written.get(state.counter)
                if known is None or known.version < state.version:
                    self.written[state.counter] = state
                else:
                    # Another client has told of what it found later.
                    assert len(set(self.bench.clients)) > 1

    async def restart(self) -> None:
        """A new store that is told what was written goes on as the old one would have."""
        probes = tuple(self.charge(name, 1) for name in self.histories if name != "leases")
        before = await self.bench.store.read(probes, self.clock.now_us)
        async with type(self).opened() as bench:
            await bench.store.seed(self.written.values())
            assert await bench.store.read(probes, self.clock.now_us) == before
            assert bench.store.changed() == ()

    @invariant()
    def every_counter_holds_what_happened_to_it(self) -> None:
        probes = tuple(self.charge(name, 1) for name in self.histories)
        for probe, outcome in zip(
            probes, self.run(self.bench.clients[-1].read(probes, self.clock.now_us)), strict=True
        ):
            low, high = self.history(probe).used(self.clock)
            assert low <= outcome.used <= high, probe.counter

    # --- how it is known

    def client(self, number: int) -> Store:
        return self.bench.clients[number % len(self.bench.clients)]

    def history(self, of: Charge) -> History:
        return self.histories[of.counter]

    def charge(self, name: str, amount: int = 1, minimum: int | None = None, days_ahead: int = 0) -> Charge:
        history = self.histories[name]
        window: Window = history.window
        if isinstance(window, TokenBucket):
            window = replace(window, burst=history.size)
        elif isinstance(window, CalendarWindow):
            window = days(self.clock.now_us + days_ahead * DAY_US, history.size)
        else:
            window = replace(window, size=history.size)
        if isinstance(window, Leases):
            amount = minimum = 1
        return charge(name, amount, minimum=minimum, window=window)

    def notice(self) -> None:
        for history in self.histories.values():
            history.notice(self.clock)

    def ending(self, data: st.DataObject) -> tuple[str, dict[str, int]]:
        decision_id = data.draw(st.sampled_from(self.open))
        return decision_id, {each.counter: data.draw(amounts) for each in self.answers[decision_id][0]}

    def end(self, decision_id: str, spent: dict[str, int]) -> None:
        self.open.remove(decision_id)
        for outcome in self.answers[decision_id][1]:
            if not outcome.unavailable:
                self.history(outcome.charge).settle(
                    decision_id, outcome, spent[outcome.charge.counter], self.clock
                )

    async def reachable(self, *, is_so: bool) -> None:
        assert self.bench.set_reachable is not None
        await self.bench.set_reachable(is_so)
        if is_so and self.bench.drain is not None:
            await self.bench.drain()

    def expect(self, outcome: ChargeOutcome, *, is_taken: bool) -> None:
        """The answer agrees with itself, with the others of its request, and with what happened."""
        asked, history = outcome.charge, self.history(outcome.charge)
        low, high = history.used(self.clock)
        assert low <= outcome.used <= high, asked.counter
        assert outcome.limit in history.limits(self.clock)
        left = outcome.limit - outcome.used
        assert outcome.granted is (asked.minimum <= left)
        assert (outcome.wait_us == 0) is outcome.granted
        assert outcome.reserved == (max(0, min(asked.amount, left)) if is_taken else 0)
        assert outcome.remaining == max(0, left - outcome.reserved)


@pytest.mark.parametrize("name", STORES)
def test_a_store_holds_what_happened(name: str) -> None:
    machine = type("Machine", (StoreMachine,), {"opened": staticmethod(STORES[name])})

    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=40))
