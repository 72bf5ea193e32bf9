"""`extproc test`: policies tried out before they count. Floor 4."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from extproc.cli.printing import NOT_RIGHT, AsJson, PolicyFolderArgument, doors, print_json, say
from extproc.errors import VocabularyMissing
from extproc.measure import vocab as vocabularies
from extproc.measure.prices import Prices
from extproc.measure.tokens import Tokenizer
from extproc.policy import policyset
from extproc.questions.screen import clean
from extproc.rehearsal import cases, trial
from extproc.rehearsal.stage import Instruments
from extproc.rehearsal.trial import Trial

Vocabularies = Annotated[
    Path | None,
    typer.Option(envvar="EXTPROC_VOCAB", help="Folder of tokenizer vocabularies; default: the user's cache."),
]


def run_tests(
    folder: PolicyFolderArgument,
    *,
    only: Annotated[list[str] | None, typer.Option(help="Run the tests with this in their name.")] = None,
    vocab: Vocabularies = None,
    as_json: AsJson = False,
) -> None:
    """Run the tests of a policy folder: FOLDER/tests/*.yaml."""
    with doors():
        policies = policyset.load(folder)
        found = cases.read(folder, policies, time.time_ns())
        wanted = [case for case in found if not only or any(part in case.name for part in only)]
        trials = asyncio.run(_run(wanted, instruments(vocab)))
    silent = [] if only else [str(ref) for ref in trial.unheard(policies, trials)]
    if as_json:
        print_json({"ok": _is_right(trials), "tests": [_as_json(each) for each in trials], "unheard": silent})
    else:
        _print(folder, trials, silent)
    if not _is_right(trials):
        raise typer.Exit(NOT_RIGHT)


def _is_right(trials: list[Trial]) -> bool:
    return bool(trials) and all(each.is_ok for each in trials)


async def _run(wanted: list[cases.Case], tools: Instruments) -> list[Trial]:
    return [await trial.run(case, tools) for case in wanted]


def instruments(vocab: Path | None) -> Instruments:
    """What counts and prices, as far as it is on this machine."""
    try:
        encodings = vocabularies.load(vocab or vocabularies.default_directory(os.environ))
    except VocabularyMissing as missing:
        typer.echo(f"extproc: {missing}; every count is an estimate by bytes", err=True)
        return Instruments(prices=Prices.bundled())
    return Instruments(tokenizer=Tokenizer(encodings), prices=Prices.bundled())


def _print(folder: Path, trials: list[Trial], silent: list[str]) -> None:
    for each in trials:
        say(f"{'ok' if each.is_ok else 'FAILED':6}  {clean(each.case.name)}")
        if not each.is_ok:
            _print_failed(each)
    if not trials:
        say(f"no test was found in {folder / cases.FOLDER}")
        return
    outcome = Counter(each.is_ok for each in trials)
    say(f"{len(trials)} tests, {outcome[False]} failed")
    if silent:
        say(f"said nothing in any test: {', '.join(silent)}")


def _print_failed(failed: Trial) -> None:
    say(f"        {failed.case.file}:{failed.case.line}")
    for mismatch in failed.mismatches:
        say(f"        {mismatch}")
    for line in trial.spoken(failed.case, failed.decision):
        say(f"          {line.policy}: {line.line}")


def _as_json(each: Trial) -> dict[str, Any]:
    decision = each.decision
    return {
        "name": each.case.name,
        "file": each.case.file,
        "line": each.case.line,
        "ok": each.is_ok,
        "mismatches": [
            {"field": mismatch.field, "expected": mismatch.expected, "got": mismatch.got}
            for mismatch in each.mismatches
        ],
        "effect": decision.effect,
        "enforced_effect": decision.enforced_effect,
        "reason": decision.reason,
        "policy": str(decision.determining or ""),
        "policies": [
            {"policy": line.policy, "effect": line.effect, "mode": line.mode, "line": line.line}
            for line in trial.spoken(each.case, decision)
        ],
    }
