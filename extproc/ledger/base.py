"""What the ledger promises: a record of every decision, what each came to, and the counters behind it.

Floor 3. `Ledger` is what requests talk to: it takes values and returns at once. Writing is a
`Journal`'s, in a thread of its own; where it is written is a `Book`'s, one file a database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from extproc.decision import Decision, Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something a person or a file changed: a counter reset, an override granted, policies activated."""

    change_id: str  # a UUIDv7
    at_ns: int
    action: str  # counter_reset, override_granted, override_removed, policies_activated
    subject: str  # Kind/name, or the revision
    key: tuple[str, ...] = ()
    details: Mapping[str, str | int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """A revision of the policies came into force, worded so."""

    revision: str
    at_ns: int
    wording: Mapping[str, str]  # Kind/name -> its spec as YAML


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatus:
    """How the ledger does; `/readyz` and metrics show it."""

    is_writing: bool  # the last commit succeeded
    has_counters: bool = True  # False: the counters of an earlier run are not taken up yet
    error: str = ""  # what the last failure was, without any record's content
    pending: int = 0  # records that wait for a commit
    dropped: int = 0  # records given up since the start
    written: int = 0
    expired: int = 0  # decisions that nobody reported an end of, ended as reserved


class Ledger(Protocol):
    """The record of every decision. No method blocks, and only `committed` waits."""

    def decided(self, decision: Decision) -> None:
        """Write this decision down with the next commit; of several under one id the last counts.

        Call it in the step that also reserves its charges: a commit between the two would hold the
        counters without the record.
        """

    async def committed(self, decision: Decision) -> None:
        """Write it down and wait until it is on disk. Raises `LedgerUnavailable`; it may be there then."""

    def settled(self, settlement: Settlement) -> None:
        """Write down what a decision came to; only its first settlement counts, unless it expired."""

    def changed(self, change: Change) -> None:
        """Write down what somebody changed."""

    def activated(self, revision: str, at_ns: int, wording: Mapping[str, str]) -> None:
        """Write down how the policies of a revision are worded, once; it is in force from now on."""

    @property
    def status(self) -> LedgerStatus:
        """How it does."""
