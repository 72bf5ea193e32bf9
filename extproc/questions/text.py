"""Answers as text: a page of one decision, tables, CSV and JSON.

Floor 3, but pure. Callers choose what models are called, so nothing that was recorded reaches a terminal
with its control characters, or a spreadsheet as a formula.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from extproc.policy import money
from extproc.questions import figures
from extproc.questions.base import DecisionLine, DecisionPage, UsageRow, UsageTable
from extproc.questions.explained import Explanation
from extproc.questions.shapes import written

# What a table of decisions needs to have a line for each.
_WIDE: Final = 170
_NARROWEST: Final = 40
# Spreadsheets take what begins with one of these for a formula; the last four are their full-width forms.
_FORMULA: Final = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """What text is shown on."""

    width: int = 100
    has_color: bool = False
    is_ascii: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a page, before it is wrapped."""

    text: str
    indent: int = 0
    hang: int = 0  # how much further to the right what is wrapped goes on
    style: str = ""


def clean(text: str, screen: Screen = Screen()) -> str:
    """The text with everything that a terminal would not just print written out."""
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )
    return shown.encode("ascii", "backslashreplace").decode() if screen.is_ascii else shown


def lines(page: Iterable[Line], screen: Screen) -> str:
    """The lines as the screen has room for them."""
    console, out = _console(screen)
    for line in page:
        room = console.width - line.indent - line.hang
        for number, piece in enumerate(Text(clean(line.text, screen)).wrap(console, room)):
            piece.rstrip()
            indent = line.indent + (line.hang if number else 0)
            console.print(Text(" " * indent) + piece, style=line.style or None, soft_wrap=True)
    return _without_padding(out.getvalue())


def _console(screen: Screen) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    console = Console(
        file=out,
        width=max(_NARROWEST, screen.width),
        force_terminal=screen.has_color,
        color_system="standard" if screen.has_color else None,
        no_color=not screen.has_color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    return console, out


def _without_padding(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


# --- tables


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; numbers are on the right, and what may be copied is never cut."""

    title: str
    is_number: bool = False
    is_whole: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], screen: Screen) -> str:
    """The rows below the titles."""
    console, out = _console(screen)
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            no_wrap=column.is_whole,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*(Text(clean(cell, screen)) for cell in row))
    console.print(made)
    return _without_padding(out.getvalue())


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
        _verdict(line),
        line.policy,
        _who(line),
        _model(line),
        *_amounts(line),
    )


def _block(line: DecisionLine) -> tuple[Line, Line]:
    used, generated, cost = _amounts(line)
    style = "red" if line.enforced_effect == "deny" else ""
    return (
        Line(f"{figures.instant(line.at_us)}  {line.decision_id}  {_who(line)}"),
        Line(
            "  ".join(
                part
                for part in (
                    _verdict(line),
                    line.policy,
                    _model(line),
                    f"{used} in, {generated} out" if used else "",
                    cost,
                )
                if part
            ),
            indent=2,
            hang=2,
            style=style,
        ),
    )


def _verdict(line: DecisionLine) -> str:
    denied = line.enforced_effect == "deny"
    said = f"denied: {line.reason}" if denied else "allowed"
    if not denied and line.reason != "allowed":
        said += f": {line.reason}"
    return said + (" (shadow would deny)" if line.would_deny else "")


def _who(line: DecisionLine) -> str:
    names = [name for name in (line.team, line.user or line.identity) if name]
    return "/".join(dict.fromkeys(names)) or "nobody known"


def _model(line: DecisionLine) -> str:
    return " ".join(part for part in (line.provider, line.model) if part)


def _amounts(line: DecisionLine) -> tuple[str, str, str]:
    if line.enforced_effect == "deny":
        return "", "", ""
    if line.is_open:
        return "open", "open", ""
    used, generated = (_known(tokens) for tokens in (line.input_tokens, line.output_tokens))
    cost = "unpriced" if line.nano_usd is None else figures.dollars(line.nano_usd)
    return used, generated, cost + ("*" if line.is_provisional else "")


def _known(amount: int | None) -> str:
    return "?" if amount is None else f"{amount:,}"


_SUMS: Final[tuple[tuple[str, Callable[[UsageRow], str]], ...]] = (
    ("REQUESTS", lambda row: f"{row.requests:,}"),
    ("DENIED", lambda row: f"{row.denied:,}"),
    ("OPEN", lambda row: f"{row.is_open:,}"),
    ("INPUT", lambda row: f"{row.input_tokens:,}"),
    ("CACHED", lambda row: f"{row.cache_read_input_tokens:,}"),
    ("OUTPUT", lambda row: f"{row.output_tokens:,}"),
    ("REASONING", lambda row: f"{row.reasoning_output_tokens:,}"),
    ("COST", lambda row: figures.dollars(row.nano_usd)),
)


def usage(answer: UsageTable, screen: Screen) -> str:
    """Sums as a table with their total, and what they leave open."""
    by = answer.query.by
    titles = [Column(name.upper()) for name in by] or [Column("")]
    columns = [*titles, *(Column(title, is_number=True) for title, _ in _SUMS)]
    rows = [(*(name or "-" for name in row.group), *_sums(row)) for row in answer.rows] if by else []
    total = (("TOTAL", *("",) * (len(titles) - 1)), *(_sums(answer.total),))
    shown = table(columns, [*rows, (*total[0], *total[1])], screen)
    return shown + "".join(f"{clean(note, screen)}\n" for note in _notes(answer.total))


def _sums(row: UsageRow) -> tuple[str, ...]:
    return tuple(write(row) for _, write in _SUMS)


def _notes(total: UsageRow) -> Iterable[str]:
    if total.is_open:
        yield f"{figures.counted(total.is_open, 'request')} not settled yet; what they use will be added."
    if total.provisional:
        yield (
            f"{figures.counted(total.provisional, 'request')} charged as reserved, because nobody reported "
            "in time; a late report corrects that."
        )
    if total.unpriced:
        yield f"{figures.counted(total.unpriced, 'request')} without a known price; COST is without them."


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
