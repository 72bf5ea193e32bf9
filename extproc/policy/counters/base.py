"""What every counter is: something that reservations take from, and that time gives back to.

Floor 1, pure. A counter is told the charge at hand, and takes its window from it: the algorithm is part
of a counter's name, so the window is always one of the counter's own type, whatever an edit made of
its size.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from extproc.decision import Charge, ChargeOutcome, Window

W = TypeVar("W", bound=Window)

_WRITE = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a reservation took from one counter: with it, and only with it, that can be settled."""

    number: int  # of the reservation; numbers of one counter rise, and none is used again
    reserved: int
    granted: bool
    begin_us: int = 0  # of the slot or period that it was taken from, where the window has any


class Counter(ABC, Generic[W]):
    """One limit's use by one key. Call `adopt` before anything else at each new time."""

    # Every counter of a sidecar is one of these: what is not in use must cost nothing.
    __slots__ = ("_extra", "_until_us", "version")

    is_lasting: ClassVar[bool] = True  # what it counts outlives the process

    def __init__(self) -> None:
        self._extra = 0
        self._until_us = 0
        self.version = 0  # the store's

    # --- what a charge finds

    def covers(self, charge: Charge, at_us: int) -> bool:
        """Whether the charge's window says anything of this time."""
        del charge, at_us
        return True

    def adopt(self, charge: Charge, at_us: int) -> bool:
        """Go on by the charge's window from now; answers whether that changes what is written."""
        del charge, at_us
        return False

    def size(self, charge: Charge, at_us: int) -> int:
        """What the window holds, with what an override adds to it."""
        return charge.window.size + (self._extra if at_us < self._until_us else 0)

    def used(self, charge: Charge, at_us: int) -> int:
        """What is in use, rounded up to whole units; more than `size` is debt."""
        window: Any = charge.window
        return self._used(window, at_us)

    def left(self, charge: Charge, at_us: int) -> int:
        """What could be taken, rounded down to whole units; below 0 where there is debt."""
        window: Any = charge.window
        return self._left(window, self.size(charge, at_us), at_us)

    def fits(self, charge: Charge, at_us: int) -> bool:
        """Whether the least that this charge needs is there."""
        return charge.minimum <= self.left(charge, at_us)

    def wait_us(self, charge: Charge, at_us: int) -> int | None:
        """The least time after which `minimum` fits if nobody else comes; None if it never will."""
        ordinary = self._wait_for(charge, charge.window.size, at_us)
        lasts_us = self._until_us - at_us
        if lasts_us <= 0:
            return ordinary
        overridden = self._wait_for(charge, charge.window.size + self._extra, at_us)
        if overridden is not None and overridden < lasts_us:
            return overridden
        return None if ordinary is None else max(ordinary, lasts_us)

    def reset_us(self, charge: Charge, at_us: int) -> int:
        """The time until nothing is in use if nobody else comes."""
        window: Any = charge.window
        return self._reset_us(window, at_us)

    # --- what a charge does

    def reserve(self, charge: Charge, number: int, at_us: int) -> tuple[ChargeOutcome, Ticket]:
        """Take `amount`, or what is left of it, as reservation `number`.

        A shadow limit that would deny takes what is left, even less than `minimum`: it fills, and it
        is never more than full, so that it says what it would say if it were enforced.
        """
        used, left, wait_us = self._found(charge, at_us)
        taken = max(0, min(charge.amount, left))
        window: Any = charge.window
        begin_us = self._take(window, taken, number, at_us)
        outcome = self._outcome(charge, at_us, used=used, left=left - taken, wait_us=wait_us, reserved=taken)
        return outcome, Ticket(number, taken, outcome.granted, begin_us)

    def decline(self, charge: Charge, at_us: int) -> ChargeOutcome:
        """What the charge finds; nothing is taken."""
        used, left, wait_us = self._found(charge, at_us)
        return self._outcome(charge, at_us, used=used, left=left, wait_us=wait_us, reserved=0)

    def settle(self, charge: Charge, ticket: Ticket, spent: int, at_us: int) -> None:
        """Replace what the ticket reserved by `spent`; call it once a ticket.

        More than was reserved is debt, never forgotten; but a shadow limit that would have denied owes
        nothing: the request would not have been.
        """
        window: Any = charge.window
        returned = max(0, ticket.reserved - spent)
        owed = max(0, spent - ticket.reserved) if ticket.granted else 0
        self._settle(window, ticket, returned, owed, at_us)

    def abandon(self, ticket: Ticket) -> None:
        """Nobody will settle the ticket: what it reserved stays charged."""

    def renew(self, charge: Charge, ticket: Ticket, at_us: int) -> None:
        """Whoever holds the ticket still does."""

    # --- what others do

    @abstractmethod
    def reset(self) -> None:
        """Forget what was used; tickets give nothing of it back. The override stays."""

    def override(self, extra: int, until_us: int) -> None:
        """Hold `extra` more than the window's size until `until_us`, in place of any earlier one."""
        self._extra, self._until_us = (extra, until_us) if extra else (0, 0)

    def is_fresh(self, at_us: int) -> bool:
        """Whether this equals a counter that nobody used, and will for all time."""
        return self._until_us <= at_us and self._is_whole(at_us)

    def dump(self) -> str:
        """The counter as text, see the package."""
        if self._until_us:
            return _WRITE({**self._fields(), "extra": self._extra, "until_us": self._until_us})
        return _WRITE(self._fields()) if self._is_written() else ""

    @classmethod
    def load(cls, fields: Mapping[str, Any]) -> Self:
        """The counter that these fields were written of."""
        counter = cls._of(fields)
        counter.override(fields.get("extra", 0), fields.get("until_us", 0))
        return counter

    # --- the algorithm

    @abstractmethod
    def _used(self, window: W, at_us: int) -> int: ...

    def _left(self, window: W, size: int, at_us: int) -> int:
        return size - self._used(window, at_us)

    @abstractmethod
    def _wait_us(self, window: W, free: int, at_us: int) -> int:
        """The time until no more than `free` is in use, which is 0 or more."""

    @abstractmethod
    def _reset_us(self, window: W, at_us: int) -> int: ...

    @abstractmethod
    def _take(self, window: W, amount: int, number: int, at_us: int) -> int:
        """Add to what is in use; answers the ticket's `begin_us`."""

    @abstractmethod
    def _settle(self, window: W, ticket: Ticket, returned: int, owed: int, at_us: int) -> None: ...

    @abstractmethod
    def _is_whole(self, at_us: int) -> bool:
        """Whether nothing is in use, and nothing ever was that a clock set back could find."""

    @abstractmethod
    def _is_written(self) -> bool:
        """Whether there is anything to write down but an override."""

    @abstractmethod
    def _fields(self) -> dict[str, Any]: ...

    @classmethod
    @abstractmethod
    def _of(cls, fields: Mapping[str, Any]) -> Self: ...

    def _wait_for(self, charge: Charge, size: int, at_us: int) -> int | None:
        window: Any = charge.window
        free = size - charge.minimum
        return None if free < 0 else self._wait_us(window, free, at_us)

    def _found(self, charge: Charge, at_us: int) -> tuple[int, int, int | None]:
        left = self.left(charge, at_us)
        wait_us = 0 if charge.minimum <= left else self.wait_us(charge, at_us)
        return self.used(charge, at_us), left, wait_us

    def _outcome(
        self, charge: Charge, at_us: int, *, used: int, left: int, wait_us: int | None, reserved: int
    ) -> ChargeOutcome:
        return ChargeOutcome(
            charge=charge,
            granted=wait_us == 0,
            reserved=reserved,
            used=used,
            remaining=max(0, left),
            wait_us=wait_us,
            reset_us=self.reset_us(charge, at_us),
            limit=self.size(charge, at_us),
        )
