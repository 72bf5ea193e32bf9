"""Rows as CSV by RFC 4180, in which no spreadsheet finds a formula and no terminal a control character.

Floor 3, but pure.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

from extproc.questions.screen import clean

# Spreadsheets take what begins with one of these for a formula; the last four are their full-width forms.
_FORMULA: Final = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def written(titles: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """The rows below their titles."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(titles)
    for row in rows:
        writer.writerow(map(_cell, row))
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    # Some spreadsheets look behind white space.
    is_formula = {value[:1], value.strip()[:1]} & _FORMULA
    return f"'{clean(value)}" if is_formula else clean(value)
