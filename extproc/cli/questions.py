"""`extproc explain`, `decisions` and `usage`: questions to the ledger. Floor 4."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from extproc.cli.printing import NOT_RIGHT, AsJson, doors
from extproc.decision import Effect, Reason
from extproc.errors import QuestionInvalid, SettingsInvalid
from extproc.ledger.opening import open_book
from extproc.questions import page, parameters, text, times
from extproc.questions.base import (
    GROUPS,
    MOST_LINES,
    DecisionFilter,
    DecisionPage,
    Ledger,
    UsageQuery,
    UsageTable,
)
from extproc.questions.explained import Explanation
from extproc.questions.explanation import explain as explained
from extproc.questions.reader import LedgerReader
from extproc.questions.remote import RemoteLedger
from extproc.questions.screen import Screen, clean
from extproc.settings import Settings

# So that what is piped on has a line for each answer.
_UNFOLDED = 1_000_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LocalLedger:
    """The ledger, read by this process; a `RemoteLedger` is asked alike."""

    ledger: Ledger

    async def explain(self, decision_id: str) -> Explanation | None:
        """One decision; None where there is none of that id."""
        story = await self.ledger.story(decision_id)
        return explained(story) if story else None

    async def decisions(self, only: DecisionFilter, *, limit: int = 50, after: str = "") -> DecisionPage:
        """Decisions, newest first."""
        return await self.ledger.decisions(only, limit=limit, after=after)

    async def usage(self, query: UsageQuery) -> UsageTable:
        """Sums."""
        return await self.ledger.usage(query)


AnyLedger = LocalLedger | RemoteLedger

LedgerUrl = Annotated[
    str, typer.Option(envvar="EXTPROC_LEDGER", help="Ask this ledger: sqlite:PATH or postgresql://.")
]
StateFolder = Annotated[
    Path | None,
    typer.Option(envvar="EXTPROC_STATE", help="Ask the ledger in this folder, as `serve` has it."),
]
AdminUrl = Annotated[
    str,
    typer.Option(help="Else ask a running sidecar: http://HOST:PORT of its admin. Default: this machine's."),
]
AdminToken = Annotated[
    str, typer.Option(envvar="EXTPROC_ADMIN_TOKEN", help="Bearer token of the admin. Prefer the variable.")
]
Since = Annotated[str, typer.Option(help=f"From this time on: {times.ACCEPTED}.")]
Until = Annotated[str, typer.Option(help="Before this time; written as --since.")]
Zone = Annotated[str, typer.Option(help="IANA name of the zone of times and of hour, day and month.")]
Team = Annotated[str, typer.Option(help="Of this team.")]
User = Annotated[str, typer.Option(help="Of this user.")]
Key = Annotated[str, typer.Option(help="With this ApiKey object, by its name.")]
Identity = Annotated[str, typer.Option(help="Of this identity, by its id.")]
Model = Annotated[str, typer.Option(help="For this model, as it went upstream.")]
Provider = Annotated[str, typer.Option(help="At this provider, such as openai.")]
Operation = Annotated[str, typer.Option(help="Of this operation, such as chat.")]
Policy = Annotated[str, typer.Option(help="Decided by this policy, Kind/name.")]
ReasonCode = Annotated[
    Reason | None, typer.Option(metavar="CODE", help="For this reason, such as rate_limited.")
]
Denied = Annotated[bool, typer.Option("--denied", help="Only what was denied.")]
WouldDeny = Annotated[
    bool, typer.Option("--would-deny", help="Only what passed and a shadow policy would have denied.")
]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]


def explain(
    decision_id: Annotated[str, typer.Argument(help="From x-ai-policy-decision-id or the denial's message.")],
    *,
    ledger: LedgerUrl = "",
    state: StateFolder = None,
    admin: AdminUrl = "",
    admin_token: AdminToken = "",
    as_json: AsJson = False,
) -> None:
    """Why a request was allowed or denied, and what it used."""
    with doors():
        place = Place(ledger=ledger, state=state, admin=admin, admin_token=admin_token)
        found = _answer(place, lambda source: source.explain(decision_id))
    if found is None:
        shown = clean(decision_id, _screen())
        typer.echo(
            f"extproc: there is no decision {shown} here. Records are kept for the retention time "
            "(serve --retention-days, 35 days unless set); is this the ledger of the sidecar that decided?",
            err=True,
        )
        raise typer.Exit(NOT_RIGHT)
    _print(text.as_json(found) if as_json else page.page(found, _screen()))


def decisions(
    *,
    denied: Denied = False,
    would_deny: WouldDeny = False,
    team: Team = "",
    user: User = "",
    key: Key = "",
    identity: Identity = "",
    model: Model = "",
    provider: Provider = "",
    operation: Operation = "",
    policy: Policy = "",
    reason: ReasonCode = None,
    since: Since = "",
    until: Until = "",
    zone: Zone = "UTC",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=MOST_LINES)] = 50,
    after: Annotated[str, typer.Option(help="Go on after an earlier page, as that one says.")] = "",
    ledger: LedgerUrl = "",
    state: StateFolder = None,
    admin: AdminUrl = "",
    admin_token: AdminToken = "",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List decisions, newest first."""
    with doors():
        one_form(as_json=as_json, as_csv=as_csv)
        since_us, until_us = period(since, until, zone)
        only = DecisionFilter(
            since_us=since_us, until_us=until_us, **_effects(denied=denied, would_deny=would_deny), team=team,
            user=user, key=key, identity=identity, model=model, provider=provider,
            operation=operation, policy=policy, reason=reason or "",
        )  # fmt: skip
        place = Place(ledger=ledger, state=state, admin=admin, admin_token=admin_token)
        found = _answer(place, lambda source: source.decisions(only, limit=limit, after=after))
    if as_json:
        _print(text.as_json(found))
    else:
        _print(text.decisions_csv(found) if as_csv else text.decisions(found, _screen()))


def usage(
    *,
    by: Annotated[
        str, typer.Option(help=f"A row for each of these, with commas between: {', '.join(GROUPS)}.")
    ] = "",
    denied: Denied = False,
    would_deny: WouldDeny = False,
    team: Team = "",
    user: User = "",
    key: Key = "",
    identity: Identity = "",
    model: Model = "",
    provider: Provider = "",
    operation: Operation = "",
    policy: Policy = "",
    reason: ReasonCode = None,
    since: Since = "",
    until: Until = "",
    zone: Zone = "UTC",
    ledger: LedgerUrl = "",
    state: StateFolder = None,
    admin: AdminUrl = "",
    admin_token: AdminToken = "",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Sum up requests, tokens and cost."""
    with doors():
        one_form(as_json=as_json, as_csv=as_csv)
        since_us, until_us = period(since, until, zone)
        only = DecisionFilter(
            since_us=since_us, until_us=until_us, **_effects(denied=denied, would_deny=would_deny), team=team,
            user=user, key=key, identity=identity, model=model, provider=provider,
            operation=operation, policy=policy, reason=reason or "",
        )  # fmt: skip
        query = UsageQuery(by=parameters.groups(by), only=only, zone=zone)
        place = Place(ledger=ledger, state=state, admin=admin, admin_token=admin_token)
        found = _answer(place, lambda source: source.usage(query))
    if as_json:
        _print(text.as_json(found))
    else:
        _print(text.usage_csv(found) if as_csv else text.usage(found, _screen()))


# --- what they share


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Whom to ask, as flags and variables say."""

    ledger: str
    state: Path | None
    admin: str
    admin_token: str

    @property
    def ledger_url(self) -> str:
        """The ledger; empty: a sidecar is asked. What is typed beats what the environment says."""
        if self.admin:
            return ""
        return Settings(policies=Path(), ledger=self.ledger, state=self.state).ledger_url

    @property
    def admin_url(self) -> str:
        """The sidecar's admin port."""
        port = os.environ.get("EXTPROC_ADMIN_PORT", "8080")
        if not self.admin and not (port.isascii() and port.isdigit()):
            raise SettingsInvalid(f"EXTPROC_ADMIN_PORT is {port!r}; set a number, or --admin")
        return self.admin or f"http://127.0.0.1:{port}"


def _answer(place: Place, question: Callable[[AnyLedger], Awaitable[T]]) -> T:
    return asyncio.run(_ask(place, question))


async def _ask(place: Place, question: Callable[[AnyLedger], Awaitable[T]]) -> T:
    url = place.ledger_url
    if not url:
        return await question(RemoteLedger(place.admin_url, place.admin_token))
    reader = LedgerReader(open_book(url))
    try:
        return await question(LocalLedger(reader))
    finally:
        reader.close()


def period(since: str, until: str, zone: str) -> tuple[int | None, int | None]:
    """`since_us` and `until_us`; None for one that is not given. Raises `QuestionInvalid`."""
    now_us, clock = time.time_ns() // 1_000, times.zone(zone)
    first_us, last_us = (
        times.moment_us(said, now_us=now_us, zone=clock) if said else None for said in (since, until)
    )
    times.check_order(first_us, last_us, named="--")
    return first_us, last_us


def _effects(*, denied: bool, would_deny: bool) -> dict[str, Any]:
    if denied and would_deny:
        raise QuestionInvalid("--denied and --would-deny: what passed was not denied; ask for one of them")
    return {
        "enforced_effect": Effect.DENY.value if denied else "",
        "would_deny": True if would_deny else None,
    }


def one_form(*, as_json: bool, as_csv: bool) -> None:
    """Raises `QuestionInvalid` for two forms at once."""
    if as_json and as_csv:
        raise QuestionInvalid("--json and --csv: the answer has one form")


def _screen() -> Screen:
    """Where the answer goes: no color and no folding for whatever is no terminal."""
    is_terminal = sys.stdout.isatty()
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return Screen(
        width=shutil.get_terminal_size().columns if is_terminal else _UNFOLDED,
        has_color=is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        is_ascii=not encoding.startswith("utf"),
    )


def _print(answer: str) -> None:
    # As it is: CSV ends its lines by CR and LF.
    typer.echo(answer, nl=not answer.endswith("\n"))
