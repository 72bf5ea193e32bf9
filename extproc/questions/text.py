"""Answers as text: a page of one decision, tables, CSV and JSON.

Floor 3, but pure. Callers choose what models are called, so nothing that was recorded reaches a terminal
with its control characters, or a spreadsheet as a formula.
"""

from __future__ import annotations

import json
from typing import Final

from extproc.policy import money
from extproc.questions import cells, figures, spreadsheet
from extproc.questions.base import DecisionLine, DecisionPage, UsageTable
from extproc.questions.explained import Explanation
from extproc.questions.screen import Column, Line, Screen, clean, lines, table
from extproc.questions.screen import as_json as screen_json
from extproc.questions.shapes import written

__all__ = ["Screen", "as_json", "decisions", "decisions_csv", "usage", "usage_csv"]

# What a table of decisions needs to have a line for each.
_WIDE: Final = 170


# --- tables

_DECISIONS: Final = (
    Column("TIME", is_whole=True),
    Column("ID", is_whole=True),
    Column("VERDICT"),
    Column("POLICY"),
    Column("WHO"),
    Column("MODEL"),
    Column("INPUT", is_number=True),
    Column("OUTPUT", is_number=True),
    Column("COST", is_number=True),
)


def decisions(page: DecisionPage, screen: Screen) -> str:
    """Decisions as a table, or where that has no room, in two lines each."""
    if not page.lines:
        return "No decisions.\n"
    if screen.width >= _WIDE:
        shown = table(_DECISIONS, (_row(line) for line in page.lines), screen)
    else:
        shown = lines((each for line in page.lines for each in _block(line)), screen)
    return shown + (clean(f"More: --after {page.next}", screen) + "\n" if page.next else "")


def _row(line: DecisionLine) -> tuple[str, ...]:
    return (
        figures.instant(line.at_us),
        line.decision_id,
        cells.verdict(line),
        line.policy,
        cells.who(line),
        cells.model(line),
        *cells.amounts(line),
    )


def _block(line: DecisionLine) -> tuple[Line, Line]:
    used, generated, cost = cells.amounts(line)
    style = "red" if line.enforced_effect == "deny" else ""
    spent = "not settled yet" if line.is_open else f"{used} in, {generated} out" * bool(used)
    parts = (cells.verdict(line), line.policy, cells.model(line), spent, cost)
    return (
        Line(f"{figures.instant(line.at_us)}  {line.decision_id}  {cells.who(line)}"),
        Line("  ".join(filter(None, parts)), indent=2, hang=2, style=style),
    )


def usage(answer: UsageTable, screen: Screen) -> str:
    """Sums as a table with their total, and what they leave open."""
    by = answer.query.by
    titles = [Column(name.upper()) for name in by] or [Column("")]
    columns = [*titles, *(Column(title, is_number=True) for title, _ in cells.SUMS)]
    rows = [(*(name or "-" for name in row.group), *cells.sums(row)) for row in answer.rows] if by else []
    total = ("TOTAL", *("",) * (len(titles) - 1), *cells.sums(answer.total))
    shown = table(columns, [*rows, total], screen)
    return shown + "".join(f"{clean(note, screen)}\n" for note in cells.notes(answer.total))


# --- CSV


def decisions_csv(page: DecisionPage) -> str:
    """The decisions, times in ISO 8601 and UTC, money in dollars."""
    titles = ("decision_id", "at", "effect", "enforced_effect", "would_deny", "reason", "policy", "identity",
              "team", "user", "key", "provider", "model", "operation", "is_open", "basis", "is_provisional",
              "input_tokens", "output_tokens")  # fmt: skip
    rows = (
        [
            *(figures.instant(line.at_us) if title == "at" else getattr(line, title) for title in titles),
            _usd(line.nano_usd),
        ]
        for line in page.lines
    )
    return spreadsheet.written([*titles, "usd"], rows)


def usage_csv(answer: UsageTable) -> str:
    """The sums, money in dollars; the total is left to who reads it."""
    sums = ("requests", "denied", "is_open", "provisional", "unpriced", "input_tokens", "output_tokens",
            "cache_read_input_tokens", "cache_creation_input_tokens",
            "reasoning_output_tokens")  # fmt: skip
    rows = (
        [*row.group, *(getattr(row, name) for name in sums), _usd(row.nano_usd)]
        for row in (answer.rows if answer.query.by else (answer.total,))
    )
    return spreadsheet.written([*answer.query.by, *sums, "usd"], rows)


def _usd(nano_usd: int | None) -> str | None:
    if nano_usd is None:
        return None
    return money.written(nano_usd).replace("$", "")


# --- JSON


def as_json(answer: Explanation | DecisionPage | UsageTable) -> str:
    """The answer as programs read it."""
    return screen_json(json.loads(written(answer)))
