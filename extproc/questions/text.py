"""Answers as text: a page of one decision, tables, CSV and JSON.

Floor 3, but pure. Callers choose what models are called, so nothing that was recorded reaches a terminal
with its control characters, or a spreadsheet as a formula.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from extproc.policy import money
from extproc.questions import cells, figures
from extproc.questions.base import DecisionLine, DecisionPage, UsageTable
from extproc.questions.explained import Explanation
from extproc.questions.screen import Column, Line, Screen, clean, lines, table
from extproc.questions.shapes import written

__all__ = ["Screen", "as_json", "decisions", "decisions_csv", "usage", "usage_csv"]

# What a table of decisions needs to have a line for each.
_WIDE: Final = 170
# Spreadsheets take what begins with one of these for a formula; the last four are their full-width forms.
_FORMULA: Final = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


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
    return (
        Line(f"{figures.instant(line.at_us)}  {line.decision_id}  {cells.who(line)}"),
        Line(
            "  ".join(
                part
                for part in (
                    cells.verdict(line),
                    line.policy,
                    cells.model(line),
                    spent,
                    cost,
                )
                if part
            ),
            indent=2,
            hang=2,
            style=style,
        ),
    )


def usage(answer: UsageTable, screen: Screen) -> str:
    """Sums as a table with their total, and what they leave open."""
    by = answer.query.by
    titles = [Column(name.upper()) for name in by] or [Column("")]
    columns = [*titles, *(Column(title, is_number=True) for title, _ in cells.SUMS)]
    rows = [(*(name or "-" for name in row.group), *cells.sums(row)) for row in answer.rows] if by else []
    total = (("TOTAL", *("",) * (len(titles) - 1)), *(cells.sums(answer.total),))
    shown = table(columns, [*rows, (*total[0], *total[1])], screen)
    return shown + "".join(f"{clean(note, screen)}\n" for note in cells.notes(answer.total))


# --- CSV


def decisions_csv(page: DecisionPage) -> str:
    """The decisions by RFC 4180, times in ISO 8601 and UTC, money in dollars."""
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
    return _csv([*titles, "usd"], rows)


def usage_csv(answer: UsageTable) -> str:
    """The sums by RFC 4180, money in dollars; the total is left to who reads it."""
    sums = ("requests", "denied", "is_open", "provisional", "unpriced", "input_tokens", "output_tokens",
            "cache_read_input_tokens", "cache_creation_input_tokens",
            "reasoning_output_tokens")  # fmt: skip
    rows = (
        [*row.group, *(getattr(row, name) for name in sums), _usd(row.nano_usd)]
        for row in (answer.rows if answer.query.by else (answer.total,))
    )
    return _csv([*answer.query.by, *sums, "usd"], rows)


def _csv(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(titles)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    is_formula = value[:1] in _FORMULA or value.strip()[:1] in _FORMULA
    return f"'{clean(value)}" if value and is_formula else clean(value)


def _usd(nano_usd: int | None) -> str | None:
    if nano_usd is None:
        return None
    return money.written(nano_usd).replace("$", "")


# --- JSON


def as_json(answer: Explanation | DecisionPage | UsageTable) -> str:
    """The answer as programs read it, in ASCII, which is harmless on any terminal."""
    return json.dumps(json.loads(written(answer)), indent=2).replace("\x7f", "\\u007f")
