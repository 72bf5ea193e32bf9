"""What callers are told about themselves, through the gateway.

Floor 3. A decision of somebody else is one that does not exist.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus

from extproc.errors import LedgerUnavailable, QuestionInvalid, SettingsInvalid
from extproc.formats.base import Reply
from extproc.model import Identity
from extproc.questions import parameters
from extproc.questions.base import PERIODS, Ledger, Story, UsageQuery
from extproc.questions.explanation import explain
from extproc.questions.shapes import written
from extproc.session.inquiry import Inquiry

# Callers wait for each other before they make their gateway wait.
_AT_ONCE = 4
_WAITING = 32
_REST = 4  # times as long as an explanation took
_PARAMETERS = ("by", "since", "until", "zone", "model", "provider", "operation")
_GROUPS = ("model", "provider", "operation", *PERIODS)


class Callers:
    """Answers inquiries from the ledger; without one it says so."""

    def __init__(self, ledger: Ledger | None = None, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._ledger = ledger
        self._clock_ns = clock_ns
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._asking: set[tuple[str, str]] = set()
        self._explaining = asyncio.Semaphore(1)

    async def answer(self, inquiry: Inquiry, caller: Identity) -> Reply:
        """What this caller may know."""
        if self._ledger is None:
            return _problem(HTTPStatus.NOT_FOUND, "ledger_missing", "This gateway keeps no ledger.")
        who = caller.id, caller.team
        if who in self._asking:
            return _problem(HTTPStatus.TOO_MANY_REQUESTS, "too_many_questions", _ONE, retry_after_s=1)
        if len(self._asking) >= _WAITING:
            return _problem(HTTPStatus.TOO_MANY_REQUESTS, "too_many_questions", _BUSY, retry_after_s=1)
        self._asking.add(who)
        try:
            return await self._answer(self._ledger, inquiry, caller)
        except QuestionInvalid as invalid:
            return _problem(HTTPStatus.BAD_REQUEST, "question_invalid", str(invalid))
        except (LedgerUnavailable, SettingsInvalid):
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "ledger_unavailable", _BUSY, retry_after_s=1)
        finally:
            self._asking.discard(who)

    async def _answer(self, ledger: Ledger, inquiry: Inquiry, caller: Identity) -> Reply:
        if not inquiry.decision_id:
            query = _query(inquiry.parameters, caller, self._clock_ns() // 1000)
            async with self._turns:
                return Reply(status=HTTPStatus.OK, body=written(await ledger.usage(query)))
        # A made-up id that looks young is looked for again and again: the pauses keep nobody from a turn.
        story = await ledger.story(inquiry.decision_id, turns=self._turns)
        if story is None or not _is_own(story.decision.identity, caller):
            return _problem(HTTPStatus.NOT_FOUND, "decision_unknown", "There is no such decision of yours.")
        return Reply(status=HTTPStatus.OK, body=await self._explained(story))

    async def _explained(self, story: Story) -> bytes:
        """Explain, in a fifth of this process's time at most: requests need the rest of it."""
        await self._explaining.acquire()
        began_s = time.monotonic()
        try:
            # Expressions of a revision that nobody asked about yet are compiled: half a second.
            return await asyncio.to_thread(lambda: written(explain(story).for_caller()))
        finally:
            rest_s = _REST * (time.monotonic() - began_s)
            asyncio.get_running_loop().call_later(rest_s, self._explaining.release)


def _query(given: Mapping[str, str], caller: Identity, now_us: int) -> UsageQuery:
    unknown = sorted(given.keys() - set(_PARAMETERS))
    if unknown:
        raise QuestionInvalid(f"There is no parameter {unknown[0]!r}; known are {', '.join(_PARAMETERS)}.")
    query = parameters.usage(given, now_us)
    if not set(query.by) <= set(_GROUPS):
        raise QuestionInvalid(f"Callers may group by {', '.join(_GROUPS)}.")
    return replace(query, only=replace(query.only, identity=caller.id, team=caller.team))


def _is_own(decided: Identity, caller: Identity) -> bool:
    """Whether both are one; a user who changed teams does not see what the earlier team asked."""
    return (decided.id, decided.team) == (caller.id, caller.team)


_ONE = "One question at a time: an earlier one of yours is not answered yet."
_BUSY = "The ledger does not answer at the moment. Please try again."


def _problem(status: HTTPStatus, code: str, message: str, *, retry_after_s: int | None = None) -> Reply:
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "api_error"
    body = {"error": {"message": message, "type": kind, "code": code}}
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    return Reply(status=status, headers=headers, body=json.dumps(body).encode())
