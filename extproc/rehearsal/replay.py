"""What another folder would have changed: the verdicts of a ledger beside those that it would give.

Floor 3. Sums are kept, and of the changed verdicts as many as are wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from extproc.decision import Decision, Effect, PolicyRef, Reason
from extproc.rehearsal.again import Again
from extproc.rehearsal.doubts import Doubt, denies
from extproc.rehearsal.recorded import Recording


class Change(StrEnum):
    """How a verdict would be another."""

    NEWLY_DENIED = "newly_denied"
    NEWLY_ALLOWED = "newly_allowed"
    OTHER_MODEL = "other_model"
    OTHER_POLICY = "other_policy"  # denied, and no longer by what denied it
    WOULD_DENY = "would_deny"  # in shadow
    WOULD_NOT_DENY = "would_not_deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedVerdict:
    """One decision that would be another."""

    decision_id: str
    at_us: int
    team: str
    user: str
    model: str  # that it asked for
    change: Change
    was: str
    would_be: str
    policy: str  # Kind/name: what makes the difference
    why: str


@dataclass(slots=True)
class Replayed:
    """The sum."""

    replayed: int = 0
    unchanged: int = 0
    changes: Counter[Change] = field(default_factory=Counter)
    by_policy: Counter[tuple[str, Change]] = field(default_factory=Counter)
    doubts: Counter[str] = field(default_factory=Counter)
    changed: list[ChangedVerdict] = field(default_factory=list)  # the first ones
    estimated: int = 0  # would have passed and did not: what they would have come to is an estimate
    begun: tuple[PolicyRef, ...] = ()  # limits that began at zero: no record says what was used of them
    first_at_us: int = 0
    last_at_us: int = 0


_UNREADABLE: Final = "its record is not one that this release understands"


async def replay(
    recordings: Iterable[Recording | None],
    again: Again,
    *,
    concerns: Callable[[Decision], bool] = lambda _: True,
    most: int = 50,
) -> Replayed:
    """Decide all of them again; only what `concerns` is told, with `most` of its changed verdicts."""
    found = Replayed()
    for recording in recordings:
        if recording is None:
            found.doubts[_UNREADABLE] += 1
            continue
        then, now, doubt = recording.decision, None, ""
        try:
            now = await again.decide(recording)
        except Doubt as reason:
            doubt = str(reason)
        if concerns(then):
            _add(found, then, now, doubt, most)
    found.estimated, found.begun = again.estimated, tuple(sorted(again.begun))
    return found


def _add(found: Replayed, then: Decision, now: Decision | None, doubt: str, most: int) -> None:
    found.first_at_us = found.first_at_us or then.decided_at_ns // 1_000
    found.last_at_us = then.decided_at_ns // 1_000
    if now is None:
        found.doubts[doubt] += 1
        return
    found.replayed += 1
    change = compare(then, now)
    if change is None:
        found.unchanged += 1
        return
    verdict = _changed(then, now, change)
    found.changes[change] += 1
    found.by_policy[verdict.policy, change] += 1
    if len(found.changed) < most:
        found.changed.append(verdict)


def compare(then: Decision, now: Decision) -> Change | None:
    """How the second verdict differs from the first; None: not at all."""
    if then.enforced_effect is not now.enforced_effect:
        is_denied = now.enforced_effect is Effect.DENY
        return Change.NEWLY_DENIED if is_denied else Change.NEWLY_ALLOWED
    if now.enforced_effect is Effect.DENY:
        # Of several that deny, which one answers rests on waits of milliseconds.
        return None if denies(now, then.determining) else Change.OTHER_POLICY
    if then.upstream_model != now.upstream_model:
        return Change.OTHER_MODEL
    if then.would_deny is not now.would_deny:
        return Change.WOULD_DENY if now.would_deny else Change.WOULD_NOT_DENY
    return None


def _changed(then: Decision, now: Decision, change: Change) -> ChangedVerdict:
    policy, why = _cause(then, now, change)
    return ChangedVerdict(
        decision_id=then.id,
        at_us=then.decided_at_ns // 1_000,
        team=then.identity.team,
        user=then.identity.user,
        model=then.request.model if then.request else "",
        change=change,
        was=_verdict(then),
        would_be=_verdict(now),
        policy=policy,
        why=why,
    )


def _verdict(decision: Decision) -> str:
    if decision.denial is not None:
        return f"{decision.denial.status} {decision.reason}"
    shadow = ", would deny" if decision.would_deny else ""
    model = f", {decision.target_model}" if decision.target_model else ""
    return f"{decision.reason}{model}{shadow}"


def _cause(then: Decision, now: Decision, change: Change) -> tuple[str, str]:
    """The policy that makes the difference, and what it says or said."""
    speaker = then if change in (Change.NEWLY_ALLOWED, Change.WOULD_NOT_DENY) else now
    if change is Change.OTHER_MODEL:
        speaker = now if now.target_model else then
        return _said(speaker, lambda finding: finding.reason is Reason.MODEL_SUBSTITUTED)
    if change in (Change.WOULD_DENY, Change.WOULD_NOT_DENY):
        return _said(speaker, lambda finding: finding.would_deny)
    message = speaker.denial.message if speaker.denial else ""
    return str(speaker.determining or ""), message


def _said(decision: Decision, wanted: Callable[..., bool]) -> tuple[str, str]:
    finding = next((each for each in decision.spoken if wanted(each)), None)
    return (str(finding.policy), finding.message or finding.warning) if finding else ("", "")
