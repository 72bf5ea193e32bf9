"""What every policy said, in the order in which a person reads it: the one that decided first.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from extproc.decision import SPOKEN, Effect, Mode, Outcome, Reason
from extproc.questions.explained import PolicyLine, Wording
from extproc.questions.screen import Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one policy said, or several that say the same."""

    policies: str  # Kind/name, with commas
    line: PolicyLine
    details: tuple[Line, ...] = ()
    spec: tuple[str, ...] = ()  # the lines of it, then

    @property
    def style(self) -> str:
        """How loud it is: red denied, yellow would have or failed, dim was silent."""
        line = self.line
        if line.outcome is Outcome.ERRORED or line.would_deny:
            return "yellow"
        if line.outcome not in SPOKEN:
            return "dim"
        return "red" if line.effect is Effect.DENY and line.mode is Mode.ENFORCE else ""

    @property
    def lines(self) -> Iterator[Line]:
        """All of it."""
        line = self.line
        mark = "> " if line.determining else "  "
        mode = "" if line.mode is Mode.ENFORCE else f" ({line.mode})"
        decided = " [this one decided]" if line.determining else ""
        yield Line(f"{mark}{self.policies}{mode}{decided}: {line.line}", hang=4, style=self.style)
        yield from self.details
        if self.spec:
            yield Line("its spec then:", 6)
        for text in self.spec:
            yield Line(text, 8, style="dim")


def said(policies: tuple[PolicyLine, ...]) -> Iterator[Said]:
    """Those that spoke, the one that decided first; then, shorter, the others."""
    for line in sorted(policies, key=lambda line: not line.determining):
        if line.outcome in SPOKEN:
            spec = line.wording.spec if line.determining and line.wording else ""
            yield Said(
                policies=line.policy, line=line, details=tuple(_details(line)), spec=tuple(spec.splitlines())
            )
    silent = [line for line in policies if line.outcome not in SPOKEN]
    if any(line.reason is Reason.ACCESS_NOT_GRANTED for line in policies):
        # A rule that might have allowed it is what its owner looks for.
        for line in filter(_is_rule, silent):
            details = tuple(_match(line.wording)) if line.wording else ()
            yield Said(policies=line.policy, line=line, details=details)
        silent = [line for line in silent if not _is_rule(line)]
    alike: dict[tuple[str, Mode], list[PolicyLine]] = {}
    for line in silent:
        alike.setdefault((line.line, line.mode), []).append(line)
    for same in alike.values():
        yield Said(policies=", ".join(dict.fromkeys(line.policy for line in same)), line=same[0])


def _is_rule(line: PolicyLine) -> bool:
    return line.policy.startswith("AccessRule/") and line.outcome is Outcome.NOT_MATCHED


def _details(line: PolicyLine) -> Iterator[Line]:
    if line.wording and line.wording.description:
        yield Line(f"{' '.join(line.wording.description.split())}", 6, style="dim")
    if line.wording:
        yield from _match(line.wording)
    if line.limit and line.limit.key:
        names = [
            f"{part.expression} = {part.value}" if part.expression else part.value for part in line.limit.key
        ]
        yield Line(f"counted for {', '.join(names)}", 6)
    if line.warning:
        yield Line(f"the caller was warned: {line.warning}", 6)


def _match(wording: Wording) -> Iterator[Line]:
    if wording.match:
        yield Line(f"match: {' '.join(wording.match.split())}", 6, 2)
    for term in wording.terms:
        yield Line(f"{term.value or 'not known'}: {' '.join(term.text.split())}", 8)
    for operand in wording.operands:
        value = f"= {operand.value}" if operand.is_recorded else f"is not known here: {operand.why_not}"
        yield Line(f"{operand.name} {value}", 8)
