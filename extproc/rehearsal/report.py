"""What a replay found, as text, JSON and CSV. Floor 3, pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from extproc.questions import figures, spreadsheet
from extproc.questions.screen import clean
from extproc.rehearsal.replay import Change, ChangedVerdict, Replayed

_IN_WORDS: Mapping[Change, str] = MappingProxyType(
    {
        Change.NEWLY_DENIED: "newly denied",
        Change.NEWLY_ALLOWED: "newly allowed",
        Change.OTHER_MODEL: "with another model",
        Change.OTHER_POLICY: "denied by another policy",
        Change.WOULD_DENY: "would be denied in shadow",
        Change.WOULD_NOT_DENY: "would no longer be denied in shadow",
    }
)


def lines(found: Replayed) -> Iterator[str]:
    """The report of a person: every changed verdict, the sums, and what cannot be said."""
    for verdict in found.changed:
        yield from _verdict(verdict)
    changed = found.changes.total()
    if changed > len(found.changed):
        yield f"... and {changed - len(found.changed)} more; --limit shows them"
    if found.first_at_us:
        yield f"from {figures.instant(found.first_at_us)} to {figures.instant(found.last_at_us)}"
    yield f"{found.replayed} decisions replayed, {found.unchanged} unchanged, {changed} changed"
    for change in Change:
        if found.changes[change]:
            yield f"  {found.changes[change]} {_IN_WORDS[change]}"
    for (policy, change), times in sorted(found.by_policy.items(), key=lambda item: (-item[1], item[0])):
        yield f"    {policy or 'no policy'}: {times} {_IN_WORDS[change]}"
    yield from _limits_of_knowledge(found)


def _limits_of_knowledge(found: Replayed) -> Iterator[str]:
    unknown = found.doubts.total()
    if unknown:
        yield f"of {unknown} more nothing can be said:"
        for reason, times in found.doubts.most_common():
            yield f"  {times} because {reason}"
    if found.begun:
        names = ", ".join(map(str, found.begun))
        yield f"counted from nothing, because no record says what was used before: {names}"
    if found.estimated:
        yield (
            f"{found.estimated} that were denied would pass; what they would have used is an estimate, "
            "and so is every later verdict of the same limits"
        )


def _verdict(verdict: ChangedVerdict) -> Iterator[str]:
    who = "/".join(part for part in (verdict.team, verdict.user) if part) or "nobody known"
    yield clean(
        f"{figures.instant(verdict.at_us)}  {verdict.decision_id}  {who}  {verdict.model or 'no model'}"
    )
    by = f", by {verdict.policy}" if verdict.policy else ""
    yield clean(f"    {verdict.was} -> {verdict.would_be}{by}{': ' if verdict.why else ''}{verdict.why}")


def as_json(found: Replayed) -> dict[str, Any]:
    """Everything, for a program."""
    return {
        "replayed": found.replayed,
        "unchanged": found.unchanged,
        "changes": {change.value: found.changes[change] for change in Change},
        "by_policy": [
            {"policy": policy, "change": change.value, "decisions": times}
            for (policy, change), times in sorted(found.by_policy.items())
        ],
        "unknown": dict(found.doubts.most_common()),
        "estimated": found.estimated,
        "counted_from_nothing": [str(ref) for ref in found.begun],
        "first_at_us": found.first_at_us,
        "last_at_us": found.last_at_us,
        "changed": [asdict(verdict) for verdict in found.changed],
    }


def as_csv(found: Replayed) -> str:
    """The changed verdicts, a row each."""
    rows = (asdict(verdict) | {"at_us": figures.instant(verdict.at_us)} for verdict in found.changed)
    names = ["at" if name == "at_us" else name for name in ChangedVerdict.__dataclass_fields__]
    return spreadsheet.written(names, (row.values() for row in rows))
