"""A ledger of a few stories, for those who ask through something else; how tables are read is `reader`'s."""

from __future__ import annotations

from dataclasses import dataclass, field

from extproc.errors import LedgerUnavailable, QuestionInvalid
from extproc.questions.base import (
    GROUPS,
    NO_TURNS,
    DecisionFilter,
    DecisionLine,
    DecisionPage,
    Story,
    Turns,
    UsageQuery,
    UsageRow,
    UsageTable,
)


@dataclass
class Shelf:
    """Answers from `stories`, and remembers what it was asked."""

    stories: tuple[Story, ...] = ()
    is_away: bool = False
    listed: list[tuple[DecisionFilter, int, str]] = field(default_factory=list)
    summed: list[UsageQuery] = field(default_factory=list)

    async def story(self, decision_id: str, *, turns: Turns = NO_TURNS) -> Story | None:
        async with turns:
            self._look()
        return next((each for each in self.stories if each.decision.id == decision_id), None)

    async def decisions(self, only: DecisionFilter, *, limit: int = 50, after: str = "") -> DecisionPage:
        self._look()
        self.listed.append((only, limit, after))
        return DecisionPage(lines=tuple(_line(each) for each in self.stories[:limit]), next="more")

    async def usage(self, query: UsageQuery) -> UsageTable:
        self._look()
        self.summed.append(query)
        if not set(query.by) <= set(GROUPS):
            raise QuestionInvalid(f"usage is grouped by {', '.join(GROUPS)}")
        row = UsageRow(group=("=cmd",) * len(query.by), requests=3, input_tokens=7, nano_usd=1_500)
        return UsageTable(query=query, rows=(row,), total=row)

    def _look(self) -> None:
        if self.is_away:
            raise LedgerUnavailable("the disk is full")


def _line(story: Story) -> DecisionLine:
    decision = story.decision
    return DecisionLine(
        decision_id=decision.id,
        at_us=decision.decided_at_ns // 1000,
        effect=decision.effect,
        enforced_effect=decision.enforced_effect,
        would_deny=decision.would_deny,
        reason=decision.reason,
        policy=str(decision.determining or ""),
        identity=decision.identity.id,
        team=decision.identity.team,
        user=decision.identity.user,
        key=decision.identity.key,
        provider="openai",
        model=decision.upstream_model,
        operation="chat",
        is_open=False,
    )
