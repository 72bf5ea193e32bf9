"""Questions as the parameters of a URL say them. Floor 3, but pure: what time it is now is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from extproc.errors import QuestionInvalid
from extproc.questions import times
from extproc.questions.base import MOST_LINES, DecisionFilter, UsageQuery

_TEXTS = frozenset(
    each.name for each in fields(DecisionFilter) if each.name not in ("since_us", "until_us", "would_deny")
)
_FILTER = (*sorted(_TEXTS), "would_deny", "since", "until", "since_us", "until_us", "zone")
_BOOLEANS = {"true": True, "false": False}
_INT64 = 2**63
_DIGITS = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Which page of which decisions."""

    only: DecisionFilter
    limit: int = 50
    after: str = ""


def listing(given: Mapping[str, str], now_us: int) -> Listing:
    """`/decisions?...`. Raises `QuestionInvalid` for what it does not know."""
    _check(given, (*_FILTER, "limit", "after"))
    limit = _number(given, "limit", MOST_LINES)
    return Listing(
        only=_filter(given, now_us), limit=50 if limit is None else limit, after=given.get("after", "")
    )


def usage(given: Mapping[str, str], now_us: int) -> UsageQuery:
    """`/usage?...`. Raises `QuestionInvalid` for what it does not know."""
    _check(given, (*_FILTER, "by"))
    return UsageQuery(
        by=groups(given.get("by", "")),
        only=_filter(given, now_us),
        zone=given.get("zone", "UTC"),
    )


def groups(text: str) -> tuple[str, ...]:
    """What usage is grouped by: names with commas between."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _check(given: Mapping[str, str], known: tuple[str, ...]) -> None:
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise QuestionInvalid(f"there is no parameter {unknown[0]!r}; known are {', '.join(known)}")


def _filter(given: Mapping[str, str], now_us: int) -> DecisionFilter:
    zone = times.zone(given.get("zone", "UTC"))
    found: dict[str, Any] = {name: given[name] for name in _TEXTS & given.keys()}
    for name in ("since", "until"):
        exact, said = _number(given, f"{name}_us", _INT64 - 1), given.get(name, "")
        found[f"{name}_us"] = times.moment_us(said, now_us=now_us, zone=zone) if said else exact
    times.check_order(found["since_us"], found["until_us"])
    return DecisionFilter(would_deny=_boolean(given, "would_deny"), **found)


def _number(given: Mapping[str, str], name: str, most: int) -> int | None:
    text = given.get(name, "")
    if not text:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else -1
    if not 0 <= number <= most:
        raise QuestionInvalid(f"{name} is a whole number up to {most}")
    return number


def _boolean(given: Mapping[str, str], name: str) -> bool | None:
    text = given.get(name, "")
    if text and text not in _BOOLEANS:
        raise QuestionInvalid(f"{name} is true or false")
    return _BOOLEANS.get(text)
