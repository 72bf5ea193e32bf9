"""The pages: `/`, `/console/decisions`, `/console/decisions/ID` and `/console/usage`.

Floor 3. The guard is `admin`'s, the parameters are those of `/decisions` and `/usage`. A ledger that is away
is said where its answer would stand; the rest of a page is there all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from extproc.console import forms, links, templates
from extproc.errors import LedgerUnavailable, QuestionInvalid, SettingsInvalid
from extproc.policy import policyset
from extproc.questions import cells, parameters
from extproc.questions.base import MOST_LINES, DecisionFilter, DecisionPage, Ledger, UsageQuery, UsageTable
from extproc.questions.explained import Explanation
from extproc.questions.explanation import explain
from extproc.questions.http import AWAY, NO_DECISION, NO_LEDGER, parameters_of
from extproc.questions.sections import sections
from extproc.reload import PolicyFolder

T = TypeVar("T")

_FIRST_FEW: Final = 10
_SHORT: Final = tuple(each for each in cells.SUMS if each[0] in {"REQUESTS", "INPUT", "OUTPUT", "COST"})
# Objects of one kind; more of them are folded away.
_MOST_OPEN: Final = 25
# The overview is there to be looked at, also where nobody can say what happened.
_GLANCE_S: Final = 5.0
# Whoever asks for sums without a time wants to know of lately.
_LATELY: Final = "24h"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Generic[T]):
    """What the ledger answered, or why it did not."""

    answer: T | None = None
    problem: str = ""
    status: HTTPStatus = HTTPStatus.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What the overview shows of the ledger."""

    denials: DecisionPage
    by_team: UsageTable
    by_model: UsageTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """Pages of one process; `trace_url` has `{trace_id}` where a trace's id goes, and may be empty.

    `notices` and `is_ready` are those of `/readyz`. Where `worker` names one of several processes, pages
    say that it is this one that speaks.
    """

    folder: PolicyFolder
    ledger: Ledger | None
    notices: Callable[[], list[str]]
    is_ready: Callable[[], bool]
    clock_ns: Callable[[], int]
    trace_url: str = ""
    worker: str = ""

    def routes(self) -> list[Route]:
        """The paths, all of them to read."""
        return [
            Route(links.OVERVIEW, self._overview),
            Route(links.DECISIONS, self._decisions),
            Route(f"{links.DECISIONS}/{{decision_id}}", self._decision),
            Route(links.FIND, self._find),
            Route(links.USAGE, self._usage),
            Route(links.STYLE, self._style),
        ]

    async def _overview(self, _: Request) -> Response:
        status = self.folder.status
        loaded = self.folder.current
        return await self._page(
            "overview",
            is_ready=self.is_ready(),
            notices=self.notices(),
            problems=status.problems,
            tried_at_us=status.at_ns // 1000,
            loaded_at_us=self.folder.loaded_at_ns // 1000,
            warnings=[str(each) for each in loaded.warnings(self.clock_ns())],
            objects=policyset.describe(loaded),
            glance=await self._ask(self._glance, within_s=_GLANCE_S),
            worker=self.worker,
            lately=_LATELY,
            short=_SHORT,
            most_open=_MOST_OPEN,
            most_rows=_FIRST_FEW,
        )

    async def _glance(self, ledger: Ledger) -> Glance:
        def lately(by: str) -> UsageQuery:
            return parameters.usage({"by": by, "since": _LATELY}, self._now_us())

        # One after another: the ledger has few places for those who wait.
        return Glance(
            denials=await ledger.decisions(DecisionFilter(enforced_effect="deny"), limit=_FIRST_FEW),
            by_team=await ledger.usage(lately("team")),
            by_model=await ledger.usage(lately("model")),
        )

    async def _decisions(self, request: Request) -> Response:
        given = _filled(request.query_params)

        async def listed(ledger: Ledger) -> DecisionPage:
            wanted = parameters.listing(_filled(parameters_of(request)), self._now_us())
            return await ledger.decisions(wanted.only, limit=wanted.limit, after=wanted.after)

        told = await self._ask(listed)
        policies = [str(item.ref) for item in self.folder.current.speakers]
        form = forms.decisions(links.DECISIONS, given, policies)
        return await self._page("decisions", told.status, told=told, form=form, given=given)

    async def _usage(self, request: Request) -> Response:
        given = _usage_asked(request.query_params)

        async def summed(ledger: Ledger) -> UsageTable:
            return await ledger.usage(parameters.usage(_usage_asked(parameters_of(request)), self._now_us()))

        told = await self._ask(summed)
        form = forms.usage(links.USAGE, given)
        return await self._page("usage", told.status, told=told, form=form, given=given, most_rows=MOST_LINES)

    async def _decision(self, request: Request) -> Response:
        decision_id = request.path_params["decision_id"]

        async def explained(ledger: Ledger) -> Explanation | None:
            story = await ledger.story(decision_id)
            # Expressions of a revision that nobody asked about yet are compiled: half a second.
            return None if story is None else await asyncio.to_thread(explain, story)

        told = await self._ask(explained)
        if told.answer is None:
            status = told.status if told.problem else HTTPStatus.NOT_FOUND
            problem = told.problem or NO_DECISION
            return await self._page("unexplained", status, decision_id=decision_id, problem=problem)
        return await self._page(
            "decision",
            told=told.answer,
            sections=tuple(sections(told.answer)),
            trace=links.trace(self.trace_url, told.answer.where.trace_id),
        )

    async def _find(self, request: Request) -> Response:
        """From an id that somebody was told to its page; a form cannot put it into a path."""
        decision_id = request.query_params.get("id", "").strip()
        found = links.decision(decision_id) if decision_id else links.DECISIONS
        return RedirectResponse(found, HTTPStatus.SEE_OTHER, templates.HEADERS)

    async def _style(self, _: Request) -> Response:
        return templates.style()

    async def _page(self, template: str, status: int = HTTPStatus.OK, /, **values: Any) -> Response:
        # A long list takes longer to write than a request may wait.
        revision = self.folder.current.revision
        return await asyncio.to_thread(templates.html, template, status, revision=revision, **values)

    async def _ask(
        self, question: Callable[[Ledger], Awaitable[T]], *, within_s: float | None = None
    ) -> Told[T]:
        """The answer, or the problem in words."""
        if self.ledger is None:
            return Told(problem=NO_LEDGER, status=HTTPStatus.NOT_FOUND)
        try:
            async with asyncio.timeout(within_s):
                return Told(answer=await question(self.ledger))
        except QuestionInvalid as invalid:
            return Told(problem=str(invalid), status=HTTPStatus.BAD_REQUEST)
        except (LedgerUnavailable, SettingsInvalid) as away:
            return Told(problem=f"{AWAY}: {away}", status=HTTPStatus.SERVICE_UNAVAILABLE)
        except TimeoutError:
            problem = f"{AWAY} within {within_s:g} seconds"
            return Told(problem=problem, status=HTTPStatus.SERVICE_UNAVAILABLE)

    def _now_us(self) -> int:
        return self.clock_ns() // 1000


def _filled(given: Mapping[str, str]) -> dict[str, str]:
    """What a form says; a field that was left empty asks for nothing."""
    return {name: text for name, text in given.items() if text}


def _usage_asked(given: Mapping[str, str]) -> dict[str, str]:
    """What was asked, by team and lately where that was not left to choose."""
    has_time = given.keys() & {"since", "since_us", "until", "until_us"}
    lately = {} if has_time else {"since": _LATELY}
    return {"by": given.get("by", "team"), "zone": "UTC"} | lately | _filled(given)
