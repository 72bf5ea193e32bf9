"""What callers are told about themselves, through the gateway.

Floor 3. A decision of somebody else is one that does not exist.
"""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus

from extproc.errors import LedgerUnavailable, QuestionInvalid
from extproc.formats.base import Reply
from extproc.model import Identity
from extproc.questions.base import DecisionFilter, Ledger, UsageQuery
from extproc.questions.shapes import written
from extproc.session.inquiry import Inquiry

log = logging.getLogger(__name__)

# Callers wait for each other before they make their gateway wait.
_AT_ONCE = 2
_WAITING = 32


class Callers:
    """Answers inquiries from the ledger; without one it says so."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self._ledger = ledger
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def answer(self, inquiry: Inquiry, caller: Identity) -> Reply:
        """What this caller may know."""
        if self._ledger is None:
            return _problem(HTTPStatus.NOT_FOUND, "ledger_missing", "This gateway keeps no ledger.")
        if self._waiting >= _WAITING:
            return _problem(HTTPStatus.TOO_MANY_REQUESTS, "too_many_questions", _BUSY, retry_after_s=1)
        self._waiting += 1
        try:
            async with self._turns:
                return await self._answer(self._ledger, inquiry, caller)
        except QuestionInvalid as invalid:
            return _problem(HTTPStatus.BAD_REQUEST, "question_invalid", str(invalid))
        except LedgerUnavailable:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "ledger_unavailable", _BUSY, retry_after_s=1)
        finally:
            self._waiting -= 1

    async def _answer(self, ledger: Ledger, inquiry: Inquiry, caller: Identity) -> Reply:
        only = DecisionFilter(identity=caller.id, team=caller.team)
        by = tuple(filter(None, inquiry.parameters.get("by", "model").split(",")))
        return Reply(status=HTTPStatus.OK, body=written(await ledger.usage(UsageQuery(by=by, only=only))))


_BUSY = "The ledger does not answer at the moment. Please try again."


def _problem(status: HTTPStatus, code: str, message: str, *, retry_after_s: int | None = None) -> Reply:
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "api_error"
    body = {"error": {"message": message, "type": kind, "code": code}}
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    return Reply(status=status, headers=headers, body=json.dumps(body).encode())
