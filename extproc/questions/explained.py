"""One decision as it is explained to whoever asks: the values that pages, HTTP and `--json` show.

Floor 3, values alone; `explanation` makes them of a story. Times are Unix time in microseconds, amounts
are in `unit`, money is nano-dollars; an empty text, like None, is not known or not there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from extproc.decision import SPOKEN, Effect, Mode, Outcome, Reason, Unit
from extproc.model import Basis, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided, and what the caller was told."""

    sentence: str
    shadow: str = ""  # what shadow policies would have done
    effect: Effect  # what policy says
    enforced_effect: Effect  # what was done
    reason: Reason
    would_deny: bool = False
    determining: str = ""  # Kind/name
    status: int = 0  # of a denial
    message: str = ""  # of a denial, as the caller was told
    retry_after_ms: int | None = None  # None: waiting does not help
    error_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for; without `api` nobody understood it, or nobody had to."""

    method: str
    host: str
    path: str
    api: str = ""
    provider: str = ""
    operation: str = ""
    model: str = ""
    models: tuple[str, ...] = ()
    upstream_model: str = ""  # where it is another one than `model`
    stream: bool = False
    choices: int = 1
    message_count: int = 0
    tool_count: int | None = 0
    modalities: tuple[str, ...] = ()
    has_state: bool = False
    temperature: float | None = None
    end_user: str = ""
    body_bytes: int = 0
    input_tokens: int = 0  # counted here, before anyone answered
    input_upper_bound_tokens: int = 0
    tokens_are_exact: bool = False
    estimator: str = ""
    declared_max_output_tokens: int | None = None  # of one choice, as it went upstream
    max_output_tokens: int = 0  # of one choice, as it held for limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asked, and from where."""

    id: str = ""
    user: str = ""
    team: str = ""
    org: str = ""
    groups: tuple[str, ...] = ()
    key: str = ""  # name of the ApiKey object
    authenticated: bool = False
    address: str = ""
    principal: str = ""
    route: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """When and where it was decided."""

    started_at_us: int
    decided_at_us: int
    decided_in_us: int
    revision: str  # of the policies
    instance: str = ""  # which sidecar
    trace_id: str = ""
    span_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A fact that an expression reads, and its value as CEL would write it; or a setting of the Defaults."""

    name: str
    value: str = ""
    is_recorded: bool = True
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One side of a top-level `&&` or `||`; `value` is true, false, or empty where nobody can tell."""

    text: str
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A policy's own words when it decided, and what its match saw."""

    spec: str  # as YAML
    description: str = ""
    match: str = ""
    operands: tuple[Operand, ...] = ()
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPart:
    """One of the values that chose a counter; `expression` is empty where the wording is not known."""

    expression: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """A limit as the request found it: `left` is before it, `remaining` after it."""

    line: str
    unit: Unit
    limit: int
    window: str  # in words
    window_s: float
    used: int
    requested: int
    reserved: int
    left: int
    too_many: int  # how much more than what was left the request needed
    remaining: int
    reset_ms: int
    wait_ms: int | None = None  # None: it never fits
    room_at_us: int | None = None  # where it was full
    key: tuple[KeyPart, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLine:
    """What one policy said, in one plain line and in full."""

    policy: str  # Kind/name
    line: str
    mode: Mode
    outcome: Outcome
    effect: Effect | None = None  # None: it did not speak
    reason: Reason | None = None
    determining: bool = False
    would_deny: bool = False
    message: str = ""
    warning: str = ""
    evaluated_model: str = ""
    limit: Arithmetic | None = None
    wording: Wording | None = None


class Way(StrEnum):
    """How a denied request might have passed."""

    WAIT = "wait"
    LESS_OUTPUT = "less_output"
    LESS_INPUT = "less_input"
    CREDENTIAL = "credential"
    REQUEST = "request"
    RULE = "rule"
    OURS = "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """Something that would have let the request pass; `details` is for owners of policies."""

    way: Way
    text: str
    details: tuple[str, ...] = ()
    at_us: int | None = None
    max_output_tokens: int | None = None  # of one choice
    max_input_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alteration:
    """How the request went upstream as something else than it came."""

    policy: str
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What one limit set aside, and what it was charged in the end."""

    policy: str
    unit: Unit
    requested: int
    reserved: int
    charged: int | None = None  # None: not known (yet)
    difference: int | None = None  # charged less reserved
    enforced: bool = True
    answered: bool = True  # False: the store did not, and may have taken it
    counter: str = ""
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What the decision came to, as one record says it."""

    kind: str  # settle, expire, adjust
    kind_in_words: str
    sequence: int
    basis: Basis
    basis_in_words: str
    is_provisional: bool
    usage: Usage
    nano_usd: int | None = None  # None: no price is known
    price_revision: str = ""
    status: int = 0
    model: str = ""  # as answered
    response_id: str = ""
    finish_reasons: tuple[str, ...] = ()
    error_type: str = ""
    ended_at_us: int = 0
    duration_ms: int | None = None  # from the request's beginning to the answer's end
    first_byte_ms: int | None = None  # from the verdict to the answer's first byte
    instance: str = ""
    shed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One decision, explained."""

    decision_id: str
    verdict: Verdict
    asked: Asked
    caller: Caller
    where: Where
    policies: tuple[PolicyLine, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    not_asked: tuple[str, ...] = ()  # policies that would have had their say, had it passed the others
    alterations: tuple[Alteration, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    endings: tuple[Ending, ...] = ()  # the last one counts
    is_open: bool = False  # allowed, and nobody knows yet what it came to
    attributes: dict[str, str] = field(default_factory=dict)
    shed: tuple[str, ...] = ()  # what its record was too small for

    def for_caller(self) -> Explanation:
        """The same story as its own caller may read it: what was enforced on it, and what it used.

        Without shadow policies, expressions, wording, keys of counters, addresses and instances.
        """
        told = tuple(_for_caller(line) for line in self.policies if _is_for_caller(line))
        names = {line.policy for line in told}
        verdict = self.verdict
        return replace(
            self,
            verdict=replace(
                verdict, shadow="", effect=verdict.enforced_effect, would_deny=False, error_type=""
            ),
            caller=replace(self.caller, address="", principal="", route=""),
            where=replace(self.where, instance=""),
            policies=told,
            remedies=tuple(replace(remedy, details=()) for remedy in self.remedies),
            not_asked=(),
            reservations=tuple(
                replace(each, counter="", key=()) for each in self.reservations if each.policy in names
            ),
            endings=tuple(replace(ending, instance="") for ending in self.endings),
            attributes={},
        )


def _is_for_caller(line: PolicyLine) -> bool:
    # What failed and let the request pass unchecked would tell how to make it fail again.
    was_skipped = line.outcome is Outcome.ERRORED and line.effect is not Effect.DENY
    return line.mode is Mode.ENFORCE and line.outcome in SPOKEN and not was_skipped


def _for_caller(line: PolicyLine) -> PolicyLine:
    limit = replace(line.limit, key=()) if line.limit else None
    return replace(line, wording=None, limit=limit)
