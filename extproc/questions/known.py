"""What lines and remedies are made of: a decision, and its policies in the words they had then.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Any

from extproc.decision import Charge, Decision, PolicyRef
from extproc.policy import calendar, documents


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
        return zone_of(self.charges.get(policy))

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


@lru_cache(maxsize=1024)
def _spec(text: str) -> Spec:
    found, _ = documents.read("", text.encode("utf-8"))
    fields = found[0].value if found else {}
    return Spec(text, fields if isinstance(fields, dict) else {})


def zone_name(charge: Charge) -> str:
    """The zone of a calendar, which its counter is named by: Kind/name|unit|calendar|month ZONE|key."""
    parts = charge.counter.split("|")
    return parts[3].rpartition(" ")[2] if len(parts) > 3 and parts[2] == "calendar" else "UTC"  # noqa: PLR2004  the place of the window


def zone_of(charge: Charge | None) -> tzinfo:
    """Whose clock a limit follows."""
    return (calendar.zone(zone_name(charge)) if charge else None) or UTC
