"""CEL expressions over `Facts`: compiled once at load, evaluated per request.

Floor 1, pure. The only room that touches cel-expr-python, whose run-time errors are values: a
result counts only when its type is the declared one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings
from google.protobuf import any_pb2, descriptor_pool

from extproc.pb.ai_policy.v1 import checked_expr_pb2, facts_pb2
from extproc.policy import complaints, literals, needs
from extproc.policy.needs import Need

# As cel-cpp writes them; the text between is the compiler's own message.
_COMPILER_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_NEEDS_PRICE: Final = "this fails for a model without a known price; test for it with has(cost.estimated_usd)"
_STATUS_WORD: Final = re.compile(r"[A-Z_]+(?=:)")


class Result(StrEnum):
    """What an expression must yield; the values are CEL's names of the types."""

    BOOL = "BOOL"
    STRING = "STRING"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in an expression, at a character offset of its text."""

    offset: int
    message: str


class ExpressionInvalid(ValueError):
    """An expression that must not be loaded; `faults` is everything found."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Failure:
    """An evaluation without a result; `code` is CEL's status word and holds nothing of the request."""

    code: str


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A compiled expression; `reads` is every fact it mentions, such as `request.model`.

    `unguarded` is where it fails for a request without some header, or for a model without a known price:
    any caller can make it fail. Without one of its `needs` it is false.
    """

    text: str
    result: Result
    reads: frozenset[str]
    unguarded: tuple[Fault, ...]
    needs: tuple[Need, ...]
    program: Any

    def evaluate(self, facts: Any) -> bool | str | Failure:
        """The result over what `activate` made; never raises."""
        try:
            value = self.program.eval(facts)
        except RuntimeError as error:
            # cel-cpp's own limits, such as the iterations of a comprehension, arrive as exceptions.
            return Failure(_status_word(str(error)))
        result: bool | str = value.value()
        if (result is True or result is False) and self.result is Result.BOOL:
            return result
        name = value.type().name()
        if name == self.result:
            return result
        return Failure(_status_word(str(value.value())) if name == "ERROR" else "WRONG_TYPE")


def activate(facts: facts_pb2.Facts) -> Any:
    """The facts as expressions want them; good for any number of evaluations."""
    return _environment().Activation({name: getattr(facts, name) for name in literals.VARIABLES})


def compile_expression(
    text: str, result: Result, known: Mapping[str, tuple[str, ...]] = literals.KNOWN
) -> Expression:
    """Check and compile `text`; `known` is what facts may be of which every value is known.

    Raises `ExpressionInvalid` with everything wrong in it.
    """
    try:
        program = _environment().compile(text)
    except RuntimeError as error:
        raise ExpressionInvalid(_compiler_faults(text, str(error))) from None
    found = program.return_type().name()
    if found != result:
        message = (
            f"this expression is {found.lower()}; it must be {result.lower()}{_conversion(found, result)}"
        )
        raise ExpressionInvalid((Fault(0, message),))
    checked = _checked(program)
    positions = checked.source_info.positions
    faults = [
        Fault(positions[impossible.node_id], impossible.message)
        for impossible in literals.check(checked.expr, known)
    ]
    faults += [
        Fault(positions[pattern.node_id], "this is not a regular expression in RE2's syntax")
        for pattern in literals.patterns(checked.expr)
        if not _is_pattern(pattern.text)
    ]
    if faults:
        raise ExpressionInvalid(tuple(faults))
    unguarded = tuple(
        Fault(positions[lookup.node_id], _needs_header(lookup.name))
        for lookup in literals.unguarded(checked.expr)
    )
    unguarded += tuple(Fault(positions[node_id], _NEEDS_PRICE) for node_id in literals.unpriced(checked.expr))
    return Expression(
        text, result, literals.reads(checked.expr), unguarded, needs.needs(checked.expr), program
    )


@cache
def _environment() -> Any:
    facts = facts_pb2.Facts()
    return cel.NewEnv(
        descriptor_pool.Default(),
        variables={name: cel.Type(getattr(facts, name).DESCRIPTOR.full_name) for name in literals.VARIABLES},
        extensions=[ext_strings.ExtStrings(), ext_optional.ExtOptional()],
    )


def _checked(program: Any) -> Any:
    # By its bytes: the message is cel.expr.CheckedExpr, which ours spells with the same field numbers.
    packed = any_pb2.Any.FromString(program.serialize())
    return checked_expr_pb2.CheckedExpr.FromString(packed.value)


@cache
def _pattern_probe() -> Any:
    return _environment().compile('"".matches(request.model)')


def _is_pattern(text: str) -> bool:
    """Asks the engine that will run it."""
    facts = facts_pb2.Facts(request=facts_pb2.RequestFacts(model=text))
    name: str = _pattern_probe().eval(activate(facts)).type().name()
    return name != "ERROR"


def tree(expression: Expression) -> Any:
    """The `CheckedExpr` of an expression, with the position of each node; made anew by each call."""
    return _checked(expression.program)


def _conversion(found: str, result: Result) -> str:
    if result is Result.STRING and found in {"INT", "UINT", "DOUBLE", "BOOL"}:
        return "; string(...) makes it one"
    if result is Result.BOOL and found in {"INT", "DOUBLE", "STRING", "LIST", "MAP"}:
        return ', such as identity.team == "a"'
    return ""


def _needs_header(name: str) -> str:
    written = json.dumps(name) if name else "NAME"
    return (
        f"this fails for a request without the header{f' {name!r}' if name else ''}; "
        f'write request.headers[?{written}].orValue(""), or test for it with {written} in request.headers'
    )


def _compiler_faults(text: str, output: str) -> tuple[Fault, ...]:
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    found = [
        (starts[int(line) - 1] + int(column) - 1, message)
        for line, column, message in _COMPILER_ERROR.findall(output)
    ]
    # After a syntax error the parser guesses; what it says then is about its guess.
    if found and found[0][1].startswith("Syntax error"):
        found = found[:1]
    # What an operand that is wrong itself makes of the rest.
    found = [each for each in found if "*error*" not in each[1]] or found
    return tuple(Fault(offset, complaints.plain(text, offset, message)) for offset, message in found) or (
        Fault(0, complaints.plain(text, 0, output.partition("\n")[0])),
    )


def _status_word(text: str) -> str:
    word = _STATUS_WORD.match(text)
    return word[0] if word else "UNKNOWN"
