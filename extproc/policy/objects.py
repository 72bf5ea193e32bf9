"""What every policy object is made of: the envelope, the fields all kinds share, typed scalars.

Floor 1, pure. A validated spec is the compiled policy: its expressions are programs, its durations
microseconds. The kinds themselves are in `kinds/`; where objects come from is `policyset`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from extproc.decision import Mode, PolicyRef
from extproc.errors import Problem
from extproc.policy.cel import Expression, ExpressionInvalid, Result, compile_expression
from extproc.policy.literals import KNOWN

API_VERSION: Final = "ai-policy/v1"

_UNITS_US: Mapping[str, int] = MappingProxyType(
    {
        "ms": 1_000,
        "s": 1_000_000,
        "m": 60_000_000,
        "h": 3_600_000_000,
        "d": 86_400_000_000,
    }
)
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:ms|s|m|h|d))+")
_DURATION_PART: Final = re.compile(r"([0-9]+)(ms|s|m|h|d)")
# RFC 9110 tokens, lower case as HTTP/2 and Envoy spell them.
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


def rejected(message: str, **context: Any) -> PydanticCustomError:
    """What a validator raises; `message` must not quote the value: people paste secrets anywhere.

    In `context`, `at` leads from where the validator looks to the field that is meant.
    """
    return PydanticCustomError("policy", "{message}", {"message": message, **context})


def unguarded(expression: Expression, **context: Any) -> PydanticCustomError:
    """What is raised where any caller can make an expression fail, and that would let it pass."""
    faults = [replace(each, message=f"{each.message}, or set onError: deny") for each in expression.unguarded]
    return rejected("; ".join(fault.message for fault in faults), faults=faults, **context)


def whole(pattern: re.Pattern[str]) -> str:
    """The pattern as JSON Schema wants it, which searches."""
    return f"^(?:{pattern.pattern})$"


def _expression(result: Result, hint: str) -> Any:
    """A field type that compiles CEL; faults travel in the error's context with their offsets."""

    def validate(value: Any, info: ValidationInfo) -> Expression:
        if not isinstance(value, str):
            raise rejected(f"a CEL expression must be a string; {hint}")
        try:
            return compile_expression(value, result, (info.context or {}).get("known", KNOWN))
        except ExpressionInvalid as invalid:
            raise rejected(str(invalid), faults=invalid.faults) from None

    return PlainValidator(validate)


Match = Annotated[
    Expression,
    _expression(Result.BOOL, 'for example "true" in quotes'),
    WithJsonSchema({"type": "string", "minLength": 1, "examples": ['request.operation == "chat"']}),
]
KeyPart = Annotated[
    Expression,
    _expression(Result.STRING, "for example identity.team"),
    WithJsonSchema({"type": "string", "minLength": 1, "examples": ["identity.team"]}),
]


def always() -> Expression:
    """The match of a policy that does not say one: every AI request."""
    return compile_expression("true", Result.BOOL)


def _duration_us(value: Any) -> int:
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise rejected("a duration is a number with a unit, such as 500ms, 30s, 1m, 1h30m or 1d")
    return sum(int(number) * _UNITS_US[unit] for number, unit in _DURATION_PART.findall(value))


DurationUs = Annotated[
    int,
    PlainValidator(_duration_us),
    WithJsonSchema({"type": "string", "pattern": whole(_DURATION), "examples": ["1m", "1h30m", "30d"]}),
]


def _header_name(value: Any) -> str:
    if not isinstance(value, str) or not _HEADER_NAME.fullmatch(value):
        raise rejected("a header name is lower case, such as x-api-key")
    return value


HeaderName = Annotated[
    str,
    PlainValidator(_header_name),
    WithJsonSchema({"type": "string", "pattern": whole(_HEADER_NAME), "examples": ["x-api-key"]}),
]


def one_of(*names: str) -> dict[str, Any]:
    """JSON Schema for exactly one of these fields."""
    return {"oneOf": [{"required": [name]} for name in names]}


def one_or_more(*names: str) -> dict[str, Any]:
    """JSON Schema for at least one of these fields."""
    return {"anyOf": [{"required": [name]} for name in names]}


class Block(BaseModel):
    """A mapping in a policy file: camelCase keys, nothing unknown, no coercion."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Spec(Block):
    """The `spec` of any kind."""

    description: str = ""
    """What it is for, in a sentence; people see it beside the name."""


class PolicySpec(Spec):
    """The `spec` of a kind that can be tried in shadow or switched off."""

    mode: Mode = Mode.ENFORCE
    """enforce; shadow evaluates and records without consequences; disabled does nothing."""


class Metadata(Block):
    """Kubernetes' metadata, as far as it means anything here."""

    name: Annotated[
        str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", json_schema_extra={"maxLength": 63})
    ]
    """Unique per kind; users see it in answers, spans and metrics."""
    labels: dict[str, str] = {}
    """Your own; nothing here reads them."""
    annotations: dict[str, str] = {}
    """Your own; nothing here reads them."""


class Envelope(Block):
    """What surrounds a spec; `kind` and `spec` are checked by the loader, which knows the kinds."""

    api_version: Literal["ai-policy/v1"]
    """The version of this language."""
    kind: str
    """What the object is."""
    metadata: Metadata
    """Its name."""
    spec: dict[str, Any] = {}
    """What it says."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Something about a folder that its author should look at; `since_ns` is from when on, None always."""

    problem: Problem
    since_ns: int | None = None


S_co = TypeVar("S_co", bound=Spec, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyObject(Generic[S_co]):
    """A loaded object: its name, its compiled spec, and where it was written (lines count from 1)."""

    ref: PolicyRef
    spec: S_co
    file: str
    line: int
    digest: str  # of the object's data; equal digests mean nothing changed
    wording: str = field(default="", repr=False)  # the spec as its author wrote it
    mode: Mode = field(init=False)  # how much it matters; kinds without a mode always do

    def __post_init__(self) -> None:
        mode = self.spec.mode if isinstance(self.spec, PolicySpec) else Mode.ENFORCE
        object.__setattr__(self, "mode", mode)
