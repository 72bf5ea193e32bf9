"""What one policy set changes of another: objects, and counters that start anew.

Floor 1, pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from extproc.decision import PolicyRef
from extproc.policy.limited import Limit
from extproc.policy.policyset import PolicySet


@dataclass(frozen=True, slots=True)
class Difference:
    """Which objects are different, and which of the limits that stay forget what was used."""

    added: tuple[PolicyRef, ...] = ()
    removed: tuple[PolicyRef, ...] = ()
    changed: tuple[PolicyRef, ...] = ()
    restarted: tuple[PolicyRef, ...] = ()

    def __str__(self) -> str:
        parts = (
            ("added", self.added),
            ("removed", self.removed),
            ("changed", self.changed),
            ("counters start anew", self.restarted),
        )
        return "; ".join(f"{word} {', '.join(map(str, refs))}" for word, refs in parts if refs) or "no object"


def diff(old: PolicySet, new: PolicySet) -> Difference:
    """What is different in `new`, object by object."""
    before = {item.ref: item.digest for item in old.objects}
    after = {item.ref: item.digest for item in new.objects}
    common = before.keys() & after.keys()
    return Difference(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(sorted(ref for ref in common if before[ref] != after[ref])),
        restarted=tuple(sorted(_restarted(old, new))),
    )


def _restarted(old: PolicySet, new: PolicySet) -> set[PolicyRef]:
    """Limits of both whose counters have other names now: another unit, window, zone or key."""
    before, after = old.limits_by_ref, new.limits_by_ref
    return {ref for ref in before.keys() & after.keys() if _counted(before[ref]) != _counted(after[ref])}


def _counted(limit: Limit) -> tuple[str, str, tuple[str, ...]]:
    spec = limit.spec
    return spec.unit, spec.counted, tuple(expression.text for expression in spec.key)
