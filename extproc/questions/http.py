"""The ledger on the admin port: `/decisions`, `/decisions/ID` and `/usage`.

Floor 3. The guard is `admin`'s. JSON is the answers as they are; who asks for `text/plain` gets the page
that the commands print, for `text/csv` the list as a spreadsheet reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from extproc.errors import LedgerUnavailable, QuestionInvalid, SettingsInvalid
from extproc.questions import parameters, text
from extproc.questions.base import Ledger
from extproc.questions.explanation import explain
from extproc.questions.page import page
from extproc.questions.shapes import written

NO_LEDGER = "there is no ledger; set --ledger or --state"
NO_DECISION = "there is no such decision, or not any more"
AWAY = "the ledger does not answer"

_JSON, _TEXT, _CSV = "application/json", "text/plain", "text/csv"
_SCREEN = text.Screen()


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What the admin port offers of the ledger; without one it says so."""

    ledger: Ledger | None
    clock_ns: Callable[[], int]

    def routes(self) -> list[Route]:
        """The paths, all of them to read."""
        return [
            Route("/decisions", _answering(self.ledger, self._decisions)),
            Route("/decisions/{decision_id:path}", _answering(self.ledger, self._decision)),
            Route("/usage", _answering(self.ledger, self._usage)),
        ]

    async def _decision(self, request: Request, ledger: Ledger) -> Response:
        story = await ledger.story(request.path_params["decision_id"])
        if story is None:
            return _problem(HTTPStatus.NOT_FOUND, NO_DECISION)
        # Expressions of a revision that nobody asked about yet are compiled: half a second.
        explanation = await asyncio.to_thread(explain, story)
        return _as_wanted(request, explanation, {_TEXT: lambda: page(explanation, _SCREEN)})

    async def _decisions(self, request: Request, ledger: Ledger) -> Response:
        wanted = parameters.listing(parameters_of(request), self.clock_ns() // 1000)
        found = await ledger.decisions(wanted.only, limit=wanted.limit, after=wanted.after)
        others = {_TEXT: lambda: text.decisions(found, _SCREEN), _CSV: lambda: text.decisions_csv(found)}
        return _as_wanted(request, found, others)

    async def _usage(self, request: Request, ledger: Ledger) -> Response:
        found = await ledger.usage(parameters.usage(parameters_of(request), self.clock_ns() // 1000))
        others = {_TEXT: lambda: text.usage(found, _SCREEN), _CSV: lambda: text.usage_csv(found)}
        return _as_wanted(request, found, others)


Handler = Callable[[Request, Ledger], Awaitable[Response]]


def _answering(ledger: Ledger | None, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The handler, with its errors as answers."""

    async def answer(request: Request) -> Response:
        if ledger is None:
            return _problem(HTTPStatus.NOT_FOUND, NO_LEDGER)
        try:
            return await handler(request, ledger)
        except QuestionInvalid as invalid:
            return _problem(HTTPStatus.BAD_REQUEST, str(invalid))
        except (LedgerUnavailable, SettingsInvalid) as away:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{AWAY}: {away}")

    return answer


def parameters_of(request: Request) -> dict[str, str]:
    """What a request asks, by name. Raises `QuestionInvalid` where it says something twice."""
    pairs = request.query_params.multi_items()
    found = dict(pairs)
    if len(found) < len(pairs):
        raise QuestionInvalid("a parameter is there twice")
    return found


def _as_wanted(request: Request, answer: object, others: Mapping[str, Callable[[], str]]) -> Response:
    """The answer as the media type that the caller names first, of those there are; else JSON."""
    for part in request.headers.get("accept", "").lower().split(","):
        name = part.partition(";")[0].strip()
        if name == _JSON:
            break
        if name in others:
            return Response(others[name](), media_type=name)
    return Response(written(answer), media_type=_JSON)


def _problem(status: HTTPStatus, message: str) -> Response:
    return JSONResponse({"error": message}, status)
