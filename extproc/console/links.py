"""How one page leads to another: the addresses, with their questions.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from extproc.questions.base import COLUMNS, DecisionPage, UsageRow, UsageTable

OVERVIEW: Final = "/"
DECISIONS: Final = "/console/decisions"
USAGE: Final = "/console/usage"
STYLE: Final = "/console/console.css"
FIND: Final = "/console/find"
# What a list of decisions cannot be asked for.
_NO_FILTER: Final = frozenset({"basis"})


def decision(decision_id: str) -> str:
    """The page of one decision."""
    return f"{DECISIONS}/{quote(decision_id, safe='')}"


def recorded(decision_id: str) -> str:
    """The same decision for programs."""
    return f"/decisions/{quote(decision_id, safe='')}"


def asked(path: str, given: Mapping[str, str]) -> str:
    """The same question again, without what it leaves open."""
    said = {name: text for name, text in given.items() if text}
    return f"{path}?{urlencode(said)}" if said else path


def older(given: Mapping[str, str], page: DecisionPage) -> str:
    """The page after this one; empty where nothing follows."""
    return asked(DECISIONS, {**given, "after": page.next}) if page.next else ""


def newest(given: Mapping[str, str]) -> str:
    """The first page; empty on that page."""
    return asked(DECISIONS, {**given, "after": ""}) if given.get("after") else ""


def behind(given: Mapping[str, str], table: UsageTable, row: UsageRow) -> str:
    """The decisions of one row of usage; empty where a list cannot be asked for just these."""
    by = table.query.by
    if not by or not all(row.group) or not set(by) <= set(COLUMNS) - _NO_FILTER:
        return ""
    filters = {name: text for name, text in given.items() if name != "by"}
    return asked(DECISIONS, filters | dict(zip(by, row.group, strict=True)))


def trace(url: str, trace_id: str) -> str:
    """Where the trace of this id is shown; empty without a place or an id."""
    return url.replace("{trace_id}", quote(trace_id, safe="")) if url and trace_id else ""
