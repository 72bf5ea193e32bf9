"""CEL expressions over `Facts`: compiled once at load, evaluated per request.

Floor 1, pure. The only room that touches cel-expr-python, whose run-time errors are values: a
result counts only when its type is the declared one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings
from google.protobuf import any_pb2, descriptor_pool

from extproc.formats.providers import NAMES
from extproc.pb.ai_policy.v1 import checked_expr_pb2, facts_pb2
from extproc.policy import literals, needs
from extproc.policy.needs import Need

# As cel-cpp writes them; the text between is the compiler's own message.
_COMPILER_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_NO_SUCH_FIELD: Final = re.compile(r"undefined field '[^']*' not found in struct '([^']*)'")
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


def compile_expression(text: str, result: Result, providers: Collection[str] = NAMES) -> Expression:
    """Check and compile `text`; `providers` are the names that a provider may have.

    Raises `ExpressionInvalid` with everything wrong in it.
    """
    try:
        program = _environment().compile(text)
    except RuntimeError as error:
        raise ExpressionInvalid(_compiler_faults(text, str(error))) from None
    found = program.return_type().name()
    if found != result:
        message = f"this expression is {found.lower()}; it must be {result.lower()}"
        raise ExpressionInvalid((Fault(0, message),))
    checked = _checked(program)
    positions = checked.source_info.positions
    faults = [
        Fault(positions[impossible.node_id], impossible.message)
        for impossible in literals.check(checked.expr, providers)
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
    faults = tuple(
        Fault(starts[int(line) - 1] + int(column) - 1, _helpful(message))
        for line, column, message in _COMPILER_ERROR.findall(output)
    )
    return faults or (Fault(0, output.partition("\n")[0]),)


def _helpful(message: str) -> str:
    """The compiler's message with what would be accepted."""
    message = message.removesuffix(" [INVALID_ARGUMENT]").removesuffix(" (in container '')")
    missing = _NO_SUCH_FIELD.search(message)
    if missing:
        fields = descriptor_pool.Default().FindMessageTypeByName(missing[1]).fields_by_name
        return f"{message}; its fields are {', '.join(fields)}"
    if message.startswith("undeclared reference"):
        return f"{message}; the variables are {', '.join(literals.VARIABLES)}"
    return message


def _status_word(text: str) -> str:
    word = _STATUS_WORD.match(text)
    return word[0] if word else "UNKNOWN"
