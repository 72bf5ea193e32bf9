"""What a person fills in to ask: the fields, with what was asked last.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from extproc.decision import Reason
from extproc.questions.base import GROUPS

_SINCE: Final = ("1h", "24h", "7d", "today", "yesterday", "this-month", "last-month")
_VERDICTS: Final = (("", "any"), ("deny", "denied"), ("allow", "allowed"))
_SHADOW: Final = (("", "any"), ("true", "would deny"), ("false", "agrees"))
_REASONS: Final = (("", "any"), *((str(each), str(each)) for each in Reason))
# What people ask together, besides one group alone.
_PAIRS: Final = ("team,user", "team,model", "day,team", "day,model")
_BY: Final = (*((name, name) for name in GROUPS), *((pair, pair.replace(",", ", ")) for pair in _PAIRS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One thing to fill in: a choice of `options`, else a text with `suggestions`."""

    name: str
    label: str
    value: str = ""
    options: tuple[tuple[str, str], ...] = ()  # value, what is read
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The fields of a page, and what was asked that no field asks."""

    action: str
    fields: tuple[Field, ...]
    hidden: tuple[tuple[str, str], ...] = ()


def decisions(action: str, given: Mapping[str, str], policies: Iterable[str]) -> Form:
    """Which decisions to list."""
    fields = (
        Field(name="team", label="Team"),
        Field(name="user", label="User"),
        Field(name="model", label="Model"),
        Field(name="policy", label="Policy", suggestions=tuple(policies)),
        Field(name="reason", label="Reason", options=_REASONS),
        Field(name="enforced_effect", label="Verdict", options=_VERDICTS),
        Field(name="would_deny", label="Shadow", options=_SHADOW),
        Field(name="since", label="Since", suggestions=_SINCE),
    )
    return _form(action, fields, given)


def usage(action: str, given: Mapping[str, str]) -> Form:
    """What to sum."""
    fields = (
        Field(name="by", label="By", options=(("", "nothing, the sum alone"), *_BY)),
        Field(name="since", label="Since", suggestions=_SINCE),
        Field(name="zone", label="Time zone", suggestions=("UTC",)),
        Field(name="team", label="Team"),
        Field(name="user", label="User"),
        Field(name="model", label="Model"),
    )
    return _form(action, fields, given)


def _form(action: str, fields: tuple[Field, ...], given: Mapping[str, str]) -> Form:
    names = {field.name for field in fields}
    # A filter narrows the first page anew.
    rest = ((name, text) for name, text in given.items() if name not in names and name != "after" and text)
    filled = tuple(_filled(field, given.get(field.name, "")) for field in fields)
    return Form(action=action, fields=filled, hidden=tuple(rest))


def _filled(field: Field, value: str) -> Field:
    options = field.options
    if options and value not in dict(options):
        options += ((value, value),)
    return Field(
        name=field.name, label=field.label, value=value, options=options, suggestions=field.suggestions
    )
