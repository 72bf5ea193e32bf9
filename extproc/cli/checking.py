"""`extproc check`: whether a policy folder can be used. Floor 4."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from extproc.cli.printing import NOT_RIGHT, AsJson, PolicyFolderArgument, print_json
from extproc.errors import PolicyFolderInvalid
from extproc.policy import policyset
from extproc.policy.difference import Difference, diff


def check(
    folder: PolicyFolderArgument,
    *,
    against: Annotated[
        Path | None,
        typer.Option(help="The folder in force: says what this one changes, and which counters start anew."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Validate a policy folder: says what the server would say."""
    try:
        loaded = policyset.load(folder)
        change = diff(policyset.load(against), loaded) if against else None
    except PolicyFolderInvalid as invalid:
        problems = [
            {"file": p.file, "line": p.line, "column": p.column, "message": p.message}
            for p in invalid.problems
        ]
        if as_json:
            print_json({"ok": False, "problems": problems})
        else:
            typer.echo(str(invalid), err=True)
        raise typer.Exit(NOT_RIGHT) from None
    objects = policyset.describe(loaded)
    if as_json:
        changes = {} if change is None else {"changes": _changes(change)}
        print_json({"ok": True, "revision": loaded.revision, "objects": objects, **changes})
    else:
        typer.echo(f"{folder}: {len(objects)} objects, revision {loaded.revision}")
        if change is not None:
            typer.echo(f"against {against}: {change}")


def _changes(change: Difference) -> dict[str, list[str]]:
    return {each.name: [str(ref) for ref in getattr(change, each.name)] for each in fields(change)}
