"""What would have let a denied request pass, as far as its record supports saying so.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from extproc.decision import Decision, Effect, Finding, LimitState, Mode, Outcome, Reason, Unit
from extproc.questions import expressions, figures
from extproc.questions.explained import Remedy, Way
from extproc.questions.known import Source

# What of these an output ceiling makes smaller.
_INPUT_OF: Mapping[Unit, Callable[[Decision], int]] = MappingProxyType(
    {Unit.TOKENS: lambda decision: decision.tokens.input, Unit.OUTPUT_TOKENS: lambda _: 0}
)


def remedies(known: Source) -> tuple[Remedy, ...]:
    """The ways, the surest first; none for a request that passed."""
    decision = known.decision
    if decision.enforced_effect is Effect.ALLOW:
        return ()
    return _WAYS[decision.reason](known)


def not_asked(known: Source) -> tuple[str, ...]:
    """The policies that a denied request never came to: they may deny it, too."""
    decision = known.decision
    if decision.enforced_effect is Effect.ALLOW:
        return ()
    silent = {Outcome.NOT_RUN}
    found = [f for f in decision.findings if f.outcome in silent and f.mode is Mode.ENFORCE]
    return tuple(dict.fromkeys(str(finding.policy) for finding in found))


def _told(way: Way, text: str, *owners: str) -> Callable[[Source], tuple[Remedy, ...]]:
    """The same whatever the request; `owners` is what owners of policies might do."""
    return lambda _: (Remedy(way=way, text=text, details=owners),)


# --- access


def _another_request(known: Source) -> tuple[Remedy, ...]:
    """A rule denies: which facts made it match."""
    found = []
    for finding in _denying(known.decision):
        match = known.spec(finding.policy).match
        what = expressions.seen(known.decision, known.shed, finding)
        names = expressions.decisive(match, what) if match else ()
        if names:
            found.append(f"{finding.policy} would not match with another {' or another '.join(names)}")
    text = "A request that the rule does not deny"
    if any("request.model" in each for each in found):
        text = "Another model, which the rule does not deny"
    return (Remedy(way=Way.REQUEST, text=text, details=tuple(found)),)


def _another_rule(known: Source) -> tuple[Remedy, ...]:
    """No rule allows: which ones might have, and what they miss."""
    details = tuple(_missed(finding, known) for finding in _rules(known))
    shadow = [
        str(f.policy) for f in _of_rules(known.decision) if f.mode is Mode.SHADOW and f.effect is Effect.ALLOW
    ]
    tried = (f"{' and '.join(shadow)} would have allowed it, and is in shadow",) if shadow else ()
    # The caller is told this much, and nothing of what is in shadow.
    text = "An AccessRule with effect: allow for requests like this one; none that is enforced matches"
    return (Remedy(way=Way.RULE, text=text, details=(*tried, *details)),)


def _rules(known: Source) -> list[Finding]:
    """The rules that allow something, and did not allow this."""
    return [
        finding
        for finding in _of_rules(known.decision)
        if finding.outcome in {Outcome.NOT_MATCHED, Outcome.ERRORED}
        and known.spec(finding.policy).fields.get("effect") == "allow"
    ]


def _missed(finding: Finding, known: Source) -> str:
    match = known.spec(finding.policy).match
    what = expressions.seen(known.decision, known.shed, finding)
    operator, _ = expressions.split(match)
    terms = expressions.terms(match, what, finding.outcome) if match else ()
    false = [term.text for term in terms if term.value in {"false", "fails"}]
    if not false or operator == "||":
        return f"{finding.policy} allows: {' '.join(match.split()) or 'all'}"
    return (
        f"{finding.policy} would allow it, but for: {' && '.join(' '.join(text.split()) for text in false)}"
    )


# --- limits


def _room(known: Source) -> tuple[Remedy, ...]:
    """Limits are full, or too small: waiting, a smaller request, or neither."""
    states = _denying_states(known.decision)
    waits = bool(states) and all(state.wait_ms is not None for state in states)
    return (*((_later(known, states),) if waits else ()), *_smaller(known.decision, states))


def _later(known: Source, states: list[LimitState]) -> Remedy:
    """When there is room again; of what is in flight nobody knows when it ends."""
    ends = "once one that is in flight has ended"
    counted = [state.wait_ms or 0 for state in states if state.unit is not Unit.CONCURRENT_REQUESTS]
    if not counted:
        return Remedy(way=Way.WAIT, text=f"The same request {ends}")
    wait_ms = max(counted)
    at_us = known.decided_at_us + wait_ms * 1_000
    when = figures.time(at_us, known.zone(_denying(known.decision)[0].policy))
    text = f"The same request {figures.span(wait_ms)} later, at {when}, if nobody else uses the room"
    if len(counted) < len(states):
        text = f"{text}, and {ends}"
    return Remedy(way=Way.WAIT, text=text, at_us=at_us)


def _smaller(decision: Decision, states: list[LimitState]) -> tuple[Remedy, ...]:
    """A lower output ceiling, or less input, where that is enough for every limit that denied."""
    if states and all(state.unit is Unit.INPUT_TOKENS for state in states):
        most = min(map(_available, states))
        return (_less_input(most, min(map(_left, states))),) if most > 0 else ()
    request = decision.request
    if request is None or request.max_output_tokens is None or not states:
        return ()
    if not all(state.unit in _INPUT_OF for state in states):
        return ()
    ceiling, then = (
        min(room(state) - _INPUT_OF[state.unit](decision) for state in states) // max(1, request.choices)
        for room in (_available, _left)
    )
    return (_less_output(ceiling, then),) if 0 < ceiling < decision.tokens.max_output else ()


def _available(state: LimitState) -> int:
    """What there was for this request then; of one that never fits, all that there ever is."""
    return state.limit if state.wait_ms is None else _left(state)


def _left(state: LimitState) -> int:
    return state.remaining + state.reserved


def _less_output(ceiling: int, then: int | None = None) -> Remedy:
    text = f"An output limit (max_tokens) of at most {ceiling:,}{_just_then(ceiling, then)}"
    return Remedy(way=Way.LESS_OUTPUT, text=text, max_output_tokens=ceiling)


def _less_input(most: int, then: int | None = None) -> Remedy:
    text = f"A shorter input, of at most {figures.counted(most, 'token')}{_just_then(most, then)}"
    return Remedy(way=Way.LESS_INPUT, text=text, max_input_tokens=most)


def _just_then(ever: int, then: int | None) -> str:
    """What others left of all that there ever is, where that is less."""
    if then is None or then >= ever:
        return ""
    return (
        f"; just then, of at most {then:,}" if then > 0 else ", once there is room: just then there was none"
    )


def _smaller_or_room(known: Source) -> tuple[Remedy, ...]:
    """More than a limit ever holds, or than a cap accepts."""
    caps = [finding for finding in _denying(known.decision) if finding.policy.kind == "RequestCap"]
    if not caps:
        return _room(known)
    specs = [known.spec(finding.policy) for finding in caps]
    request, tokens = known.decision.request, known.decision.tokens
    choices = max(1, request.choices) if request else 1
    inputs = [most for spec in specs if (most := spec.whole("inputTokens")) and tokens.input > most]
    # A cap that can clamp denies for its input alone; with less than a token a choice it cannot.
    outputs = [
        most
        for spec in specs
        if (most := spec.whole("outputTokens"))
        and tokens.max_output * choices > most
        and not (spec.fields.get("onExceed") == "clamp" and most >= choices)
    ]
    ceiling = min(outputs) // choices if outputs else None
    return (_within_caps(min(inputs, default=None), ceiling),)


def _within_caps(most: int | None, ceiling: int | None) -> Remedy:
    """What satisfies every cap that denied at once: one of them alone does not help."""
    if ceiling == 0:
        fewer = "Fewer choices" if most is None else f"{_less_input(most).text}, and fewer choices"
        return Remedy(way=Way.REQUEST, text=fewer, max_input_tokens=most)
    if most is not None and ceiling is not None:
        text = f"{_less_input(most).text}, and an output limit (max_tokens) of at most {ceiling:,}"
        return Remedy(way=Way.LESS_INPUT, text=text, max_input_tokens=most, max_output_tokens=ceiling)
    if most is not None:
        return _less_input(most)
    return _less_output(ceiling) if ceiling else Remedy(way=Way.REQUEST, text="A smaller request")


# --- what of a decision they are about


def _denying(decision: Decision) -> list[Finding]:
    """The enforced findings that deny, the one that answered first."""
    found = [f for f in decision.spoken if f.effect is Effect.DENY and f.mode is Mode.ENFORCE]
    return sorted(found, key=lambda finding: (not finding.determining, finding.policy))


def _denying_states(decision: Decision) -> list[LimitState]:
    return [finding.limit for finding in _denying(decision) if finding.limit is not None]


def _of_rules(decision: Decision) -> list[Finding]:
    return [finding for finding in decision.findings if finding.policy.kind == "AccessRule"]


_WAYS: Mapping[Reason, Callable[[Source], tuple[Remedy, ...]]] = MappingProxyType(
    {
        Reason.CREDENTIAL_MISSING: _told(Way.CREDENTIAL, "A credential; the request showed none"),
        Reason.CREDENTIAL_INVALID: _told(Way.CREDENTIAL, "A key that an ApiKey object knows"),
        Reason.CREDENTIAL_EXPIRED: _told(Way.CREDENTIAL, "A key that has not expired"),
        Reason.CREDENTIAL_DISABLED: _told(Way.CREDENTIAL, "A key that is not disabled"),
        Reason.ACCESS_DENIED: _another_request,
        Reason.ACCESS_NOT_GRANTED: _another_rule,
        Reason.UNCLASSIFIED: _told(
            Way.REQUEST,
            "A request in a known format, at a path of a known provider",
            "a Provider object may name another place, and Defaults may say unclassified: allow",
        ),
        Reason.BODY_TOO_LARGE: _told(
            Way.REQUEST, "A smaller body", "maxBodyBytes of the Defaults may be larger"
        ),
        Reason.BODY_MISSING: _told(Way.REQUEST, "A request with a body"),
        Reason.BODY_MALFORMED: _told(Way.REQUEST, "A body that is well-formed"),
        Reason.ENCODING_UNSUPPORTED: _told(Way.REQUEST, "A body in an encoding that is known, or none"),
        Reason.HEADER_MISMATCH: _told(Way.REQUEST, "Headers that say the same as the body"),
        Reason.RATE_LIMITED: _room,
        Reason.CAP_REACHED: _room,
        Reason.CONCURRENCY_LIMITED: _room,
        Reason.REQUEST_EXCEEDS_LIMIT: _smaller_or_room,
        Reason.POLICY_ERROR: _told(
            Way.RULE, "A policy that can be evaluated for this request", "or one with onError: allow"
        ),
        Reason.STORE_UNAVAILABLE: _told(
            Way.OURS, "The same request once the counters answer", "or onError: allow on the limit"
        ),
        Reason.AUDIT_UNAVAILABLE: _told(
            Way.OURS,
            "The same request once decisions can be put on record",
            "or audit: best_effort in the Defaults",
        ),
        Reason.DEADLINE_EXCEEDED: _told(Way.OURS, "The same request once the sidecar is less busy"),
        # Nothing denies with these.
        Reason.ALLOWED: lambda _: (),
        Reason.MODEL_SUBSTITUTED: lambda _: (),
        Reason.CLAMPED: lambda _: (),
    }
)
