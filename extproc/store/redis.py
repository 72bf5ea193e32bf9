"""Counters in Redis or Valkey: for many sidecars, and for restarts.

Floor 3. Each call is one call of the Lua script beside, which is atomic: a decision moves all its counters or
none, whoever dies meanwhile. Time is the server's. All keys of a prefix share a hash tag, so that a
cluster keeps them on one node: a cluster makes them available, not faster. Counters are as durable as
the server: what it had not written, or not copied when a replica took over, was not taken. A server that
lost everything is noticed; see `restoration`. One that evicts keys (maxmemory-policy allkeys-*) forgets
limits: `start` warns.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from extproc.decision import Charge, ChargeOutcome
from extproc.errors import SettingsInvalid, StoreUnavailable
from extproc.store import outbox, packed
from extproc.store.base import CounterState
from extproc.store.breaker import BreakerState
from extproc.store.link import CREDENTIALS, TIMEOUT_S, Link
from extproc.store.outbox import Letter, Outbox
from extproc.store.restoration import LOCK_MS, Restoration, States, seeds

log = logging.getLogger(__name__)

PREFIX = "ai_policy"
# Counters whose newest state nobody asked for yet; a ledger asks many times a second.
_CHANGED = 100_000
_RENEWED_AT_ONCE = 500
_CLOSE_S = 1.0
# What no later try mends, by the words of `Link.last_error`; a database beyond the last is answered `DB`.
_WRONG_URL = (
    (CREDENTIALS, "the user name or the password"),
    (frozenset({"DB"}), "the number of the database"),
)
# The script's files, each after those whose names it uses; one an algorithm, as in `policy.counters`.
_SCRIPT = (
    *("keys", "token_bucket", "slots", "sliding_window", "calendar_window", "leases"),
    *("counters", "charges", "commands"),
)


def _script() -> str:
    folder = resources.files("extproc.store")
    return "\n".join(folder.joinpath(f"{name}.lua").read_text() for name in _SCRIPT)


async def nothing_known() -> Iterable[CounterState]:
    """What there is to put back where nothing is written down."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """How the store does; `/readyz` shows it."""

    is_connected: bool  # the last call was answered
    breaker: BreakerState
    error: str  # what the last failure was, in a word; "" if there was none
    pending: int  # settlements that wait to be sent
    dropped: int  # settlements given up since the start: their reservations stay charged


class RedisStore:
    """A `Store` on a server that others use too.

    `states` answers what the ledger knows, for a server without counters; until they are there calls
    raise `StoreUnavailable`. A settlement that cannot be sent is kept, answered with True, and sent
    later. `uses_callers_time` takes time from `at_us` instead of the server: for tests.
    """

    is_immediate = False
    is_shared = True

    def __init__(
        self,
        url: str,
        *,
        prefix: str = PREFIX,
        states: States = nothing_known,
        timeout_s: float = TIMEOUT_S,
        clock_s: Callable[[], float] = time.monotonic,
        pending_settlements: int = outbox.SIZE,
        lock_ms: int = LOCK_MS,
        uses_callers_time: bool = False,
    ) -> None:
        self._link = Link(url, _script(), timeout_s=timeout_s, clock_s=clock_s)
        self._keys = (f"{{{prefix}}}:version",)
        self._prefix = f"{{{prefix}}}:"
        self._timeout_s = timeout_s
        self._uses_callers_time = uses_callers_time
        self._outbox = Outbox(self._deliver, size=pending_settlements)
        self._restoration = Restoration(self._send, states, lock_ms=lock_ms)
        self._changed: dict[str, bytes] = {}

    async def start(self) -> None:
        """Connect, and put counters back where there are none. A server that is away is waited for later.

        Raises `SettingsInvalid` where the server refuses the user name, the password or the database.
        """
        try:
            policy = await self._eviction()
        except StoreUnavailable:
            for errors, refused in _WRONG_URL:
                if self._link.last_error in errors:
                    raise SettingsInvalid(
                        f"--store (EXTPROC_STORE): Redis at {self._link.name} refuses {refused} "
                        f"({self._link.last_error})"
                    ) from None
            return
        if policy.startswith("allkeys"):
            log.warning(
                "the counter store may forget limits: set maxmemory-policy to noeviction",
                extra={"store": self._link.name, "maxmemory_policy": policy},
            )

    async def _eviction(self) -> str:
        """The server's policy, once counters are there."""
        answer = await self._send("look")
        if not answer and await self._restoration.done(None):
            answer = await self._send("look")
        return answer[1].decode() if answer else ""

    @property
    def status(self) -> StoreStatus:
        """How it does."""
        return StoreStatus(
            is_connected=self._link.is_connected,
            breaker=self._link.breaker.state,
            error=self._link.last_error,
            pending=len(self._outbox),
            dropped=self._outbox.dropped,
        )

    async def reserve(
        self, decision_id: str, charges: tuple[Charge, ...], at_us: int
    ) -> tuple[ChargeOutcome, ...]:
        """See `Store.reserve`."""
        return await self._ask("reserve", decision_id, charges, at_us)

    async def read(self, charges: tuple[Charge, ...], at_us: int) -> tuple[ChargeOutcome, ...]:
        """See `Store.read`."""
        return await self._ask("read", "", charges, at_us)

    async def settle(self, decision_id: str, amounts: Mapping[str, int], at_us: int) -> bool:
        """See `Store.settle`; True as well where it waits to be sent."""
        if decision_id in self._outbox:
            return False
        letter = Letter(decision_id, dict(amounts), at_us)
        try:
            is_first = await self._deliver(letter)
        except StoreUnavailable:
            if not self._outbox.put(letter):
                raise
            return True
        self._outbox.wake()
        return is_first

    async def renew(self, decision_ids: Iterable[str], at_us: int) -> None:
        """See `Store.renew`."""
        ids = tuple(decision_ids)
        for first in range(0, len(ids), _RENEWED_AT_ONCE):
            await self._run("renew", *ids[first : first + _RENEWED_AT_ONCE], at_us=at_us)

    async def reset(self, charge: Charge, at_us: int) -> None:
        """See `Store.reset`."""
        self._note(
            (charge.counter,),
            await self._run("reset", packed.charges((charge,)), charge.counter, at_us=at_us),
        )

    async def override(self, charge: Charge, extra: int, until_us: int, at_us: int) -> None:
        """See `Store.override`."""
        answer = await self._run(
            "override",
            packed.charges((charge,)),
            charge.counter,
            packed.amount(extra),
            packed.amount(until_us),
            at_us=at_us,
        )
        self._note((charge.counter,), answer)

    def changed(self) -> tuple[CounterState, ...]:
        """See `Store.changed`: those that this process changed."""
        changed, self._changed = self._changed, {}
        return tuple(packed.written_down(name, counter) for name, counter in changed.items())

    async def seed(self, states: Iterable[CounterState]) -> None:
        """See `Store.seed`."""
        await self._run("seed", *seeds(states))

    async def drain(self) -> None:
        """Wait until every settlement that was kept is delivered."""
        await self._outbox.sent()

    async def close(self) -> None:
        """Send what still waits, for a moment; then let go of connections."""
        await self._outbox.close(_CLOSE_S)
        await self._restoration.close()
        await self._link.close()

    async def _ask(
        self, command: str, decision_id: str, charges: tuple[Charge, ...], at_us: int
    ) -> tuple[ChargeOutcome, ...]:
        names = tuple(charge.counter for charge in charges)
        answer = await self._run(command, decision_id, packed.charges(charges), *names, at_us=at_us)
        self._note(names, answer[1:])
        return packed.outcomes(charges, answer[0])

    async def _deliver(self, letter: Letter) -> bool:
        amounts = tuple(
            part for name, value in letter.amounts.items() for part in (name, packed.amount(value))
        )
        is_first, *moved = await self._run("settle", letter.decision_id, *amounts, at_us=letter.at_us)
        names = tuple(name.decode() for name in moved[::2])
        self._note(names, moved[1::2])
        return bool(is_first)

    def _note(self, names: tuple[str, ...], counters: Iterable[bytes]) -> None:
        """Keep what the ledger will be told; answers may overtake each other."""
        for name, counter in zip(names, counters, strict=False):
            known = self._changed.get(name)
            if counter and (known is None or packed.version(known) <= packed.version(counter)):
                self._changed[name] = counter
        while len(self._changed) > _CHANGED:
            del self._changed[next(iter(self._changed))]

    async def _run(self, command: str, *arguments: bytes | str | int, at_us: int = 0) -> list[Any]:
        answer = await self._send(command, *arguments, at_us=at_us)
        if answer:
            return answer
        if await self._restoration.done(self._timeout_s):
            answer = await self._send(command, *arguments, at_us=at_us)
        if not answer:
            raise StoreUnavailable(f"Redis at {self._link.name} lost its counters; they are being put back")
        return answer

    async def _send(self, command: str, *arguments: bytes | str | int, at_us: int = 0) -> list[Any]:
        """One script call; an empty answer says that there are no counters."""
        clock = at_us if self._uses_callers_time else ""
        answer: list[Any] = await self._link.call(self._keys, (command, self._prefix, clock, *arguments))
        return answer
