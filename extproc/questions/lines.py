"""Every policy of a decision in one plain line, with its arithmetic, its wording and what that saw.

Floor 3, but pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from extproc.decision import (
    CalendarWindow,
    Charge,
    Decision,
    Effect,
    Finding,
    Leases,
    LimitState,
    Mode,
    Outcome,
    PolicyRef,
    Reason,
    SlidingWindow,
    TokenBucket,
    Unit,
)
from extproc.policy import calendar, documents
from extproc.policy.denials import duration
from extproc.policy.kinds.defaults import Defaults
from extproc.questions import expressions, figures
from extproc.questions.explained import Arithmetic, KeyPart, Operand, PolicyLine, Term, Wording

_RECOGNISED: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.CREDENTIAL_MISSING: "the request shows no credential that it looks for",
        Reason.CREDENTIAL_INVALID: "it does not know the credential of the request",
        Reason.CREDENTIAL_EXPIRED: "the credential of the request has expired",
        Reason.CREDENTIAL_DISABLED: "the credential of the request is disabled",
    }
)


@dataclass(frozen=True, slots=True)
class Spec:
    """A policy's spec as it was written; `fields` is empty where nobody knows it."""

    text: str
    fields: Mapping[str, Any]

    @property
    def match(self) -> str:
        """The expression that says which requests it is about; without one it is about all."""
        said = self.fields.get("match", "")
        return said if isinstance(said, str) else ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The expressions that choose a counter."""
        said = self.fields.get("key", ())
        return tuple(str(each) for each in said) if isinstance(said, list) else ()

    def whole(self, name: str) -> int | None:
        """A field that is a whole number."""
        said = self.fields.get(name)
        return said if type(said) is int else None


@dataclass(frozen=True, slots=True)
class Source:
    """What lines are made of: the decision, what its record shed, and the specs of its policies."""

    decision: Decision
    shed: tuple[str, ...]
    specs: Mapping[str, Spec]
    charges: Mapping[PolicyRef, Charge]

    def spec(self, policy: PolicyRef) -> Spec:
        """The spec of this policy then."""
        return self.specs.get(str(policy), _UNKNOWN)

    def zone(self, policy: PolicyRef) -> tzinfo:
        """Whose clock its window follows."""
        charge = self.charges.get(policy)
        return _zone(charge) if charge else UTC

    @property
    def decided_at_us(self) -> int:
        """When it was decided."""
        return self.decision.decided_at_ns // 1_000


_UNKNOWN = Spec("", {})


def source(decision: Decision, shed: Iterable[str], wording: Mapping[str, str]) -> Source:
    """What the lines of a decision are made of; `wording` has specs as YAML."""
    charges = (*(outcome.charge for outcome in decision.outcomes), *decision.uncounted)
    return Source(
        decision=decision,
        shed=tuple(shed),
        specs={name: _spec(text) for name, text in wording.items()},
        charges={charge.policy: charge for charge in charges},
    )


def line(finding: Finding, known: Source) -> PolicyLine:
    """What one policy said."""
    limit = _arithmetic(finding.limit, finding, known) if finding.limit else None
    return PolicyLine(
        policy=str(finding.policy),
        line=_LINES[finding.outcome](finding, known, limit),
        mode=finding.mode,
        outcome=finding.outcome,
        effect=finding.effect,
        reason=finding.reason,
        determining=finding.determining,
        would_deny=finding.would_deny,
        message=finding.message,
        warning=finding.warning,
        evaluated_model=finding.evaluated_model,
        limit=limit,
        wording=_wording(finding, known),
    )


# --- in one line


def _matched(finding: Finding, known: Source, limit: Arithmetic | None) -> str:
    said = _by_kind(finding, known, limit)
    if finding.effect is Effect.DENY and finding.mode is Mode.SHADOW:
        return f"{said}. In shadow: it would have denied"
    return said


def _by_kind(finding: Finding, known: Source, limit: Arithmetic | None) -> str:
    if limit is not None:
        return limit.line + (
            f". {finding.message}" if finding.effect is Effect.ALLOW and finding.message else ""
        )
    say = _KINDS.get(finding.policy.kind)
    if say is not None:
        return say(finding, known)
    if finding.message:
        return _message(finding)
    return "denies" if finding.effect is Effect.DENY else "has no objection"


def _message(finding: Finding) -> str:
    """What it says, without its own name in front: that stands there already."""
    return finding.message.removeprefix(f"{finding.policy} ").rstrip(".")


def _identity(finding: Finding, known: Source) -> str:
    if finding.reason is not None and finding.reason in _RECOGNISED:
        return _RECOGNISED[finding.reason]
    caller = known.decision.identity
    if not caller.authenticated:
        return "lets callers pass without a credential, and found none"
    by = f", by ApiKey/{caller.key}" if caller.key else ""
    return f"knows the caller: {caller.id or caller.user or caller.team}{by}"


def _access_rule(finding: Finding, _known: Source) -> str:
    about = f" for model {finding.evaluated_model!r}" if finding.evaluated_model else ""
    says = "denies this request" if finding.effect is Effect.DENY else "allows this request"
    return f"{says}{about}" + (f": {finding.message.rstrip('.')}" if finding.message else "")


def _request_cap(finding: Finding, known: Source) -> str:
    if finding.message:
        return _message(finding)
    spec, tokens, request = known.spec(finding.policy), known.decision.tokens, known.decision.request
    fits = []
    most_input, most_output = spec.whole("inputTokens"), spec.whole("outputTokens")
    if most_input is not None:
        fits.append(f"input {tokens.input:,} of at most {most_input:,} tokens")
    if most_output is not None and request is not None:
        fits.append(f"output up to {tokens.max_output * request.choices:,} of at most {most_output:,} tokens")
    return "; ".join(fits) if fits else "the request is small enough"


def _defaults(finding: Finding, _known: Source) -> str:
    if finding.reason is Reason.UNCLASSIFIED:
        does = "denied" if finding.effect is Effect.DENY else "allowed"
        return f"unclassified: this is no request of a known format, and such are {does}"
    if finding.reason is Reason.ACCESS_NOT_GRANTED:
        about = f" with model {finding.evaluated_model!r}" if finding.evaluated_model else ""
        return f"access: deny, and no AccessRule allows this request{about}"
    if finding.effect is Effect.ALLOW:
        return "access: allow, and no AccessRule says anything else"
    return _message(finding) or "denies"


_KINDS: Mapping[str, Callable[[Finding, Source], str]] = MappingProxyType(
    {
        "Identity": _identity,
        "AccessRule": _access_rule,
        "RequestCap": _request_cap,
        "Defaults": _defaults,
    }
)


def _not_matched(finding: Finding, known: Source, _limit: Arithmetic | None) -> str:
    if finding.policy.kind == "Defaults":
        return "not needed: an AccessRule allows this request"
    about = f" for model {finding.evaluated_model!r}" if finding.evaluated_model else ""
    terms = _terms(finding, known)
    false = [f"`{each.text}`" for each in terms if each.value == "false"]
    if false and known.spec(finding.policy).match:
        are = "is" if len(false) == 1 else "are"
        return f"is not about this request{about}: {' and '.join(false)} {are} false"
    return f"is not about this request{about}"


def _errored(finding: Finding, _known: Source, _limit: Arithmetic | None) -> str:
    told = _message(finding) or "could not be evaluated"
    if finding.effect is Effect.DENY:
        would = "it would have denied" if finding.mode is Mode.SHADOW else "it denies"
        return f"{told}; onError: deny, so {would}"
    return f"{told}; onError: allow, so the request passed it unchecked"


def _not_run(finding: Finding, known: Source, _limit: Arithmetic | None) -> str:
    if finding.mode is Mode.DISABLED:
        return "switched off (mode: disabled)"
    decision = known.decision
    if decision.enforced_effect is Effect.DENY:
        by = f" by {decision.determining}" if decision.determining else ""
        return f"not asked: the request was denied{by} before its turn"
    if decision.request is None:
        return "not asked: nobody could say what the request asks for"
    return "not asked: nothing in this request concerned it"


_LINES: Mapping[Outcome, Callable[[Finding, Source, Arithmetic | None], str]] = MappingProxyType(
    {
        Outcome.MATCHED: _matched,
        Outcome.NOT_MATCHED: _not_matched,
        Outcome.ERRORED: _errored,
        Outcome.NOT_RUN: _not_run,
    }
)

# --- its arithmetic


def _arithmetic(state: LimitState, finding: Finding, known: Source) -> Arithmetic:
    left = state.remaining + state.reserved
    charge = known.charges.get(finding.policy)
    is_full = finding.effect is Effect.DENY
    waits = is_full and state.wait_ms is not None
    room_at_us = known.decided_at_us + (state.wait_ms or 0) * 1_000 if waits else None
    too_many = max(0, state.requested - left)
    return Arithmetic(
        line=_sum(state, charge, left, too_many, room_at_us, is_full=is_full),
        unit=state.unit,
        limit=state.limit,
        window=window(charge, state.window_s),
        window_s=state.window_s,
        used=state.used,
        requested=state.requested,
        reserved=state.reserved,
        left=left,
        too_many=too_many,
        remaining=state.remaining,
        reset_ms=state.reset_ms,
        wait_ms=state.wait_ms,
        room_at_us=room_at_us,
        key=_key(known.spec(finding.policy).keys, state.key),
    )


def _sum(
    state: LimitState,
    charge: Charge | None,
    left: int,
    too_many: int,
    room_at_us: int | None,
    *,
    is_full: bool,
) -> str:
    """The sum as a person does it."""
    unit = state.unit

    def number(amount: int) -> str:
        return figures.number(unit, amount)

    per = window(charge, state.window_s)
    said = f"used {number(state.used)} of {figures.quantity(unit, state.limit)}{f' {per}' if per else ''}"
    if not is_full:
        takes = (
            f"this request set {number(state.reserved)} aside, {number(state.remaining)} left"
            if state.reserved
            else f"requested {number(state.requested)}, {number(left)} left: nothing was taken"
        )
        return f"{said}, {takes}"
    many = "much" if unit is Unit.COST_USD else "many"
    said += f", requested {number(state.requested)}, {number(left)} left: {number(too_many)} too {many}"
    if state.wait_ms is None:
        return f"{said}; more than it ever holds, so waiting does not help"
    when = figures.time(room_at_us or 0, _zone(charge) if charge else UTC)
    return f"{said}; room again in {figures.span(state.wait_ms)}, at {when}"


def window(charge: Charge | None, window_s: float) -> str:
    """How the amount comes back, in words."""
    if charge is None:
        return f"per {duration(int(window_s * 1_000_000))}" if window_s else ""
    match charge.window:
        case TokenBucket(amount=amount, per_us=per_us, burst=burst):
            refill = f"refilled by {figures.number(charge.unit, amount)} per {duration(per_us)}"
            return f"per {duration(per_us)}" if amount == burst else f"at once ({refill})"
        case SlidingWindow(per_us=per_us):
            return f"in any {duration(per_us)}"
        case CalendarWindow(period=period):
            return f"per {period} ({_zone_name(charge)})"
        case Leases():
            return ""


def _zone_name(charge: Charge) -> str:
    """The zone of a calendar, which its counter is named by: Kind/name|unit|calendar|month ZONE|key."""
    parts = charge.counter.split("|")
    return parts[3].rpartition(" ")[2] if len(parts) > 3 and parts[2] == "calendar" else "UTC"  # noqa: PLR2004  the place of the window


def _zone(charge: Charge) -> tzinfo:
    return calendar.zone(_zone_name(charge)) or UTC


def _key(names: tuple[str, ...], values: tuple[str, ...]) -> tuple[KeyPart, ...]:
    if len(names) != len(values):
        names = ("",) * len(values)
    return tuple(KeyPart(expression=name, value=value) for name, value in zip(names, values, strict=True))


# --- its wording


def _wording(finding: Finding, known: Source) -> Wording | None:
    spec = known.spec(finding.policy)
    if not spec.text:
        return None
    description = spec.fields.get("description", "")
    is_known = finding.outcome is not Outcome.NOT_RUN and bool(spec.match)
    what = expressions.seen(known.decision, known.shed, finding) if is_known else None
    says = expressions.operands(spec.match, what) if what else ()
    return Wording(
        spec=spec.text,
        description=description if isinstance(description, str) else "",
        match=spec.match,
        operands=_settings(spec) if finding.policy.kind == "Defaults" else says,
        terms=_terms(finding, known),
    )


def _settings(spec: Spec) -> tuple[Operand, ...]:
    """Every setting of the Defaults, those too that nobody wrote."""
    written = {name: value for name, value in spec.fields.items() if name != "description"}
    try:
        # As JSON, in which a strict model takes words for the members of an enum.
        defaults = Defaults.model_validate_json(json.dumps(spec.fields))
        whole = defaults.model_dump(by_alias=True, mode="json")
    except (ValidationError, TypeError):
        whole = written
    return tuple(
        Operand(name=name, value=_setting(value) + ("" if name in written else " (not written)"))
        for name, value in whole.items()
        if name != "description" and value is not None
    )


def _setting(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _terms(finding: Finding, known: Source) -> tuple[Term, ...]:
    match = known.spec(finding.policy).match
    if not match or finding.outcome is Outcome.NOT_RUN:
        return ()
    what = expressions.seen(known.decision, known.shed, finding)
    return expressions.terms(match, what, finding.outcome)


def _spec(text: str) -> Spec:
    found, _ = documents.read("", text.encode("utf-8"))
    fields = found[0].value if found else {}
    return Spec(text, fields if isinstance(fields, dict) else {})
