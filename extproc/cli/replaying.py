"""`extproc replay`: recorded decisions, by another policy folder. Floor 4."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from extproc.cli.printing import AsJson, doors, print_json
from extproc.cli.questions import (
    AsCsv,
    Key,
    LedgerUrl,
    Model,
    Provider,
    Since,
    StateFolder,
    Team,
    Until,
    User,
    Zone,
    one_form,
    period,
)
from extproc.cli.rehearsing import Vocabularies, instruments
from extproc.decision import Decision
from extproc.errors import SettingsInvalid
from extproc.ledger.opening import open_book
from extproc.policy import policyset
from extproc.rehearsal import report
from extproc.rehearsal.again import Again
from extproc.rehearsal.recorded import recordings, scopes
from extproc.rehearsal.replay import Replayed
from extproc.rehearsal.replay import replay as replayed
from extproc.settings import Settings

_MOST_LINES = 1_000_000


def replay(
    *,
    policies: Annotated[Path, typer.Option(help="The folder to try: the candidate.")],
    ledger: LedgerUrl = "",
    state: StateFolder = None,
    since: Since = "",
    until: Until = "",
    zone: Zone = "UTC",
    team: Team = "",
    user: User = "",
    key: Key = "",
    model: Model = "",
    provider: Provider = "",
    limit: Annotated[
        int, typer.Option(help="Show so many changed verdicts; sums are of all.", min=0, max=_MOST_LINES)
    ] = 50,
    vocab: Vocabularies = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Say whose recorded verdict another policy folder would change, and why.

    All that is on record is counted; --team and the like choose what is reported.
    """
    wanted = {"team": team, "user": user, "key": key, "model": model.lower(), "provider": provider}
    with doors():
        one_form(as_json=as_json, as_csv=as_csv)
        url = Settings(policies=policies, ledger=ledger, state=state).ledger_url
        if not url:
            raise SettingsInvalid(
                "there is no ledger to replay: set --ledger (EXTPROC_LEDGER) or --state (EXTPROC_STATE)"
            )
        since_us, until_us = period(since, until, zone)
        candidate = policyset.load(policies)
        book = open_book(url)
        try:
            again = Again(candidate, instruments(vocab), scopes=scopes(book))
            found: Replayed = asyncio.run(
                replayed(
                    recordings(book, since_us=since_us, until_us=until_us),
                    again,
                    concerns=lambda decision: _is_wanted(decision, wanted),
                    most=limit,
                )
            )
        finally:
            book.close()
    if as_json:
        print_json(report.as_json(found))
    elif as_csv:
        typer.echo(report.as_csv(found), nl=False)
    else:
        for line in report.lines(found):
            typer.echo(line)


def _is_wanted(decision: Decision, wanted: dict[str, str]) -> bool:
    request, identity = decision.request, decision.identity
    has = {
        "team": identity.team,
        "user": identity.user,
        "key": identity.key,
        "model": decision.upstream_model,
        "provider": request.provider if request else "",
    }
    return all(has[name] == value for name, value in wanted.items() if value)
