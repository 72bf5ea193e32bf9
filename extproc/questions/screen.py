"""Lines and tables as a terminal has room for them, and does nothing with them but show them.

Floor 3, but pure.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

_NARROWEST: Final = 40


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


def as_json(value: Any) -> str:
    """One JSON document in ASCII, which is harmless on any terminal."""
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")


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
