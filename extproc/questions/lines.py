"""Every policy of a decision in one plain line, with its arithmetic, its wording and what that saw.

Floor 3, but pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from extproc.decision import Effect, Finding, Mode, Outcome, Reason
from extproc.policy.kinds.defaults import Defaults
from extproc.questions import expressions
from extproc.questions.arithmetic import arithmetic
from extproc.questions.explained import Arithmetic, Operand, PolicyLine, Term, Wording
from extproc.questions.known import Source, Spec

_RECOGNISED: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.CREDENTIAL_MISSING: "the request shows no credential that it looks for",
        Reason.CREDENTIAL_INVALID: "it does not know the credential of the request",
        Reason.CREDENTIAL_EXPIRED: "the credential of the request has expired",
        Reason.CREDENTIAL_DISABLED: "the credential of the request is disabled",
    }
)


def line(finding: Finding, known: Source) -> PolicyLine:
    """What one policy said."""
    limit = arithmetic(finding.limit, finding, known) if finding.limit else None
    wording = _wording(finding, known)
    return PolicyLine(
        policy=str(finding.policy),
        line=_LINES[finding.outcome](finding, known, limit, wording.terms if wording else ()),
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
        wording=wording,
    )


# --- in one line


_Terms = tuple[Term, ...]


def _matched(finding: Finding, known: Source, limit: Arithmetic | None, _terms: _Terms) -> str:
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


def _not_matched(finding: Finding, _known: Source, _limit: Arithmetic | None, terms: _Terms) -> str:
    if finding.policy.kind == "Defaults":
        return "not needed: an AccessRule allows this request"
    about = f" for model {finding.evaluated_model!r}" if finding.evaluated_model else ""
    # A term may be written in several lines; the sentence is one.
    false = [f"`{' '.join(each.text.split())}`" for each in terms if each.value == "false"]
    if false:
        are = "is" if len(false) == 1 else "are"
        return f"is not about this request{about}: {' and '.join(false)} {are} false"
    return f"is not about this request{about}"


# CEL's word for the failure that any caller can cause says little to whoever did not write the expression.
_NOT_FOUND: Final = "NOT_FOUND"


def _errored(finding: Finding, _known: Source, _limit: Arithmetic | None, _terms: _Terms) -> str:
    told = _message(finding) or "could not be evaluated"
    if told.endswith(_NOT_FOUND):
        told += " (a header, a label or a claim that it reads was not there)"
    if finding.effect is Effect.DENY:
        would = "it would have denied" if finding.mode is Mode.SHADOW else "it denies"
        return f"{told}; onError: deny, so {would}"
    return f"{told}; onError: allow, so the request passed it unchecked"


def _not_run(finding: Finding, known: Source, _limit: Arithmetic | None, _terms: _Terms) -> str:
    if finding.mode is Mode.DISABLED:
        return "switched off (mode: disabled)"
    decision = known.decision
    if decision.enforced_effect is Effect.DENY:
        by = f" by {decision.determining}" if decision.determining else ""
        return f"not asked: the request was denied{by} before its turn"
    if decision.request is None:
        return "not asked: nobody could say what the request asks for"
    return "not asked: nothing in this request concerned it"


_LINES: Mapping[Outcome, Callable[[Finding, Source, Arithmetic | None, _Terms], str]] = MappingProxyType(
    {
        Outcome.MATCHED: _matched,
        Outcome.NOT_MATCHED: _not_matched,
        Outcome.ERRORED: _errored,
        Outcome.NOT_RUN: _not_run,
    }
)

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
        terms=expressions.terms(spec.match, what, finding.outcome) if what else (),
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
