"""What a policy's expression saw of a recorded request: its operands, and which of its terms held.

Floor 3, but pure. Only what the record holds is evaluated, and only where it comes to the same as the
decision did: headers and estimated costs are never recorded, long lists may be left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.message import Message

from extproc.decision import Decision, Finding, Outcome
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.policy import cel, facts
from extproc.policy.cel import Expression, ExpressionInvalid, Failure, Result
from extproc.policy.literals import VARIABLES
from extproc.questions import figures
from extproc.questions.explained import Operand, Term

_LONGEST_VALUE: Final = 200
_SHED: Mapping[str, str] = MappingProxyType(
    {
        "request.models": "models",
        "request.tools": "tools",
        "identity.groups": "groups",
        "identity.labels": "labels",
        "identity.claims": "claims",
    }
)
_NEVER: Mapping[str, str] = MappingProxyType(
    {
        "request.headers": "headers are never recorded",
        "cost.estimated_usd": "estimates of cost are not recorded",
    }
)
# These saw the ceiling as it came; what is recorded is what a cap left of it.
_BEFORE_CLAMP: Final = frozenset({"AccessRule", "RequestCap"})
_CEILING: Final = "tokens.max_output"
_CEILING_LOWERED: Final = "a cap lowered it afterwards; only that is recorded"
_FACT: Final = re.compile(r"\b(?:request|identity|target|tokens|cost|source)\.[a-z_]+")
_AND, _OR = "&&", "||"
_NO_FACTS: Mapping[str, Message] = MappingProxyType(
    {name: getattr(facts_pb2.Facts(), name) for name in VARIABLES}
)
_MODELS: Final = frozenset({"request.model", "request.models", "target.model"})
# A text that no policy compares with.
_ANOTHER: Final = "\N{WHITE SQUARE}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one policy saw of a request, as far as it is recorded; `missing` says why of the rest."""

    facts: facts_pb2.Facts
    missing: Mapping[str, str]
    activated: object  # the same, ready for CEL

    def operand(self, name: str) -> Operand:
        """The fact of this name."""
        if name in self.missing:
            return Operand(name=name, is_recorded=False, why_not=self.missing[name])
        variable, _, field = name.partition(".")
        whole = getattr(self.facts, variable)
        if variable == "now":
            return Operand(name=name, value=figures.time(whole.ToMicroseconds()))
        if not field:
            return Operand(name=name, value="(all of it)")
        return Operand(name=name, value=_written(whole, field))

    def value(self, expression: Expression) -> str:
        """What the expression comes to: true, false, fails, or empty where that is not known."""
        if any(name in self.missing or self._holds_missing(name) for name in expression.reads):
            return ""
        result = expression.evaluate(self.activated)
        return "fails" if isinstance(result, Failure) else str(result).lower()

    def _holds_missing(self, name: str) -> bool:
        return "." not in name and any(each.startswith(f"{name}.") for each in self.missing)


def seen(decision: Decision, shed: Iterable[str], finding: Finding) -> Seen:
    """What the policy of this finding saw when it was asked."""
    missing = dict(_NEVER)
    left_out = {*shed}
    missing |= {name: "left out to keep the record small" for name, part in _SHED.items() if part in left_out}
    kind = finding.policy.kind
    if decision.is_clamped and kind in _BEFORE_CLAMP:
        missing[_CEILING] = _CEILING_LOWERED
    known = facts.build(
        decision.head, decision.identity, decision.request, decision.tokens, decision.decided_at_ns
    )
    if kind == "AccessRule" and finding.evaluated_model:
        known = facts.about_model(known, finding.evaluated_model)
    elif kind != "AccessRule" and decision.target_model:
        known.target.model = decision.target_model
    return _seen(known, missing)


def _seen(known: facts_pb2.Facts, missing: Mapping[str, str]) -> Seen:
    return Seen(known, missing, cel.activate(known))


@lru_cache(maxsize=1024)
def compiled(text: str) -> Expression | None:
    """A recorded match; None where it does not compile any more."""
    try:
        # What facts may be was checked when the folder was loaded, which knew its own names.
        return cel.compile_expression(text, Result.BOOL, {})
    except ExpressionInvalid:
        return None


def operands(text: str, what: Seen) -> tuple[Operand, ...]:
    """Every fact that the expression reads."""
    expression = compiled(text)
    names = expression.reads if expression else {*_FACT.findall(text)}
    return tuple(what.operand(name) for name in sorted(names) if _is_fact(name))


def terms(text: str, what: Seen, outcome: Outcome) -> tuple[Term, ...]:
    """The terms of a match with what each came to; none where it has one term, or nobody can tell."""
    expression = compiled(text)
    operator, parts = split(text)
    if expression is None or len(parts) == 1:
        return ()
    known = [compiled(part) for part in parts]
    values = [what.value(part) if part else "" for part in known]
    whole = what.value(expression)
    expected = {Outcome.MATCHED: "true", Outcome.NOT_MATCHED: "false", Outcome.ERRORED: "fails"}
    if None in known or whole not in {"", expected.get(outcome, "")} or not _agree(operator, values, outcome):
        return ()
    return tuple(Term(text=part, value=value) for part, value in zip(parts, values, strict=True))


def _agree(operator: str, values: list[str], outcome: Outcome) -> bool:
    """Whether these terms may come to what was recorded."""
    if outcome is Outcome.NOT_MATCHED:
        return "true" not in values if operator == _OR else bool({"false", ""} & {*values})
    if outcome is Outcome.MATCHED:
        return "false" not in values if operator == _AND else bool({"true", ""} & {*values})
    return True


def split(text: str) -> tuple[str, tuple[str, ...]]:
    """The operator of the top level and its terms: those of `||`, else those of `&&`, else the whole."""
    places = list(_top_level(text))
    if any(operator == "?" for _, operator in places):
        return "", (text.strip(),)
    operator = _OR if any(each == _OR for _, each in places) else _AND
    parts, begin = [], 0
    for place, found in places:
        if found == operator:
            parts.append(text[begin:place].strip())
            begin = place + len(operator)
    return operator, (*parts, text[begin:].strip())


def _top_level(text: str) -> Iterator[tuple[int, str]]:
    """Where `&&`, `||` and `?` stand outside of brackets and strings."""
    depth, quote, at = 0, "", 0
    while at < len(text):
        letter = text[at]
        if quote:
            at += 1 if letter == "\\" else 0
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif depth == 0 and text[at : at + 2] in {_AND, _OR}:
            yield at, text[at : at + 2]
            at += 1
        elif depth == 0 and letter == "?":
            yield at, "?"
        at += 1


def decisive(text: str, what: Seen) -> tuple[str, ...]:
    """The facts of which another value alone would have kept the expression from being true."""
    expression = compiled(text)
    if expression is None or what.value(expression) != "true":
        return ()
    found = []
    for name in sorted(expression.reads):
        other = _with_another(what, name)
        if other is not None and other.value(expression) == "false":
            found.append(name)
    return tuple(found)


def _with_another(what: Seen, name: str) -> Seen | None:
    """The same with another value of one fact; None where nothing else can be thought of."""
    variable, _, field = name.partition(".")
    if variable not in {"request", "identity", "target"} or not field:
        return None
    changed = facts_pb2.Facts()
    changed.CopyFrom(what.facts)
    if name in _MODELS:
        # Another model is another one wherever it stands.
        del changed.request.models[:]
        changed.request.models.append(_ANOTHER)
        changed.request.model = changed.target.model = _ANOTHER
        return _seen(changed, what.missing)
    message = getattr(changed, variable)
    before = getattr(message, field)
    if isinstance(before, bool):
        setattr(message, field, not before)
    elif isinstance(before, str):
        setattr(message, field, _ANOTHER)
    else:
        message.ClearField(field)
    return _seen(changed, what.missing)


def _written(message: Message, field: str) -> str:
    """A field as CEL writes it, cut where it is long."""
    descriptor = message.DESCRIPTOR.fields_by_name.get(field)
    if descriptor is None:
        return ""
    if descriptor.has_presence and not message.HasField(field):
        return "null"
    text = json.dumps(_plain(getattr(message, field)), ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return dict(value)
    return list(value)


def _is_fact(name: str) -> bool:
    """Whether there is such a fact: an expression that did not compile may name anything."""
    variable, _, field = name.partition(".")
    if variable not in VARIABLES:
        return False
    return variable == "now" or not field or field in _NO_FACTS[variable].DESCRIPTOR.fields_by_name
