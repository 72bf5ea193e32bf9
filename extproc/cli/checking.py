"""`extproc check`: whether a policy folder can be used, and what its author should look at. Floor 4."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from extproc.cli.printing import NOT_RIGHT, AsJson, PolicyFolderArgument, fail, print_json, say
from extproc.errors import PolicyFolderInvalid, Problem
from extproc.policy import policyset
from extproc.policy.difference import Difference, diff
from extproc.policy.instants import instant_ns
from extproc.policy.policyset import PolicySet


def check(
    folder: PolicyFolderArgument,
    *,
    against: Annotated[
        Path | None,
        typer.Option(help="The folder in force: says what this one changes, and which counters start anew."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for a warning, too.")] = False,
    at: Annotated[
        str, typer.Option(help="When: warns of keys that have expired by then. RFC 3339; default: now.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Validate a policy folder: says what the server would say, and warns of what was hardly meant."""
    at_ns = _at_ns(at) if at else time.time_ns()
    try:
        loaded = policyset.load(folder)
        change = diff(policyset.load(against), loaded) if against else None
    except PolicyFolderInvalid as invalid:
        _refuse(invalid, as_json=as_json)
    warnings = loaded.warnings(at_ns)
    is_ok = not (strict and warnings)
    if as_json:
        print_json(_as_json(loaded, change, warnings) | {"ok": is_ok})
    else:
        _tell(folder, loaded, warnings)
        if change is not None:
            say(f"against {against}: {change}")
    if not is_ok:
        raise typer.Exit(NOT_RIGHT)


def _refuse(invalid: PolicyFolderInvalid, *, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"ok": False, "problems": _listed(invalid.problems)})
    else:
        say(str(invalid), err=True)
    raise typer.Exit(NOT_RIGHT) from None


def _tell(folder: Path, loaded: PolicySet, warnings: tuple[Problem, ...]) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in _kinds(loaded).items())
    say(f"{folder}: {len(loaded.objects)} objects, revision {loaded.revision}")
    say(f"  {kinds}")
    for warning in warnings:
        say(f"{warning.file}:{warning.line}:{warning.column}: warning: {warning.message}", err=True)


def _as_json(loaded: PolicySet, change: Difference | None, warnings: tuple[Problem, ...]) -> dict[str, Any]:
    return {
        "ok": True,
        "revision": loaded.revision,
        "kinds": _kinds(loaded),
        "objects": policyset.describe(loaded),
        "warnings": _listed(warnings),
    } | ({} if change is None else {"changes": _changes(change)})


def _kinds(loaded: PolicySet) -> dict[str, int]:
    """How many objects there are of each kind."""
    return dict(sorted(Counter(item.ref.kind for item in loaded.objects).items()))


def _listed(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    return [asdict(problem) for problem in problems]


def _changes(change: Difference) -> dict[str, list[str]]:
    return {each.name: [str(ref) for ref in getattr(change, each.name)] for each in fields(change)}


def _at_ns(text: str) -> int:
    try:
        return instant_ns(text)
    except ValueError as error:
        fail(f"--at: {error}")
