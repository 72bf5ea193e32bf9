"""One explanation in sections, each a few lines: the verdict first, then what to do, then everything else.

Floor 3, but pure. What was spent is `spent`'s, what every policy said is `said`'s; where it is shown does
not matter here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from extproc.decision import Effect, Outcome, Reason
from extproc.questions import figures, spent
from extproc.questions.explained import Asked, Caller, Explanation, Where
from extproc.questions.said import said
from extproc.questions.screen import Line


@dataclass(frozen=True, slots=True)
class Section:
    """Lines under a title; the verdict, which comes first, needs none."""

    name: str
    title: str
    lines: tuple[Line, ...]


def sections(told: Explanation) -> Iterator[Section]:
    """The sections that have something to say."""
    is_clamped = any(each.reason is Reason.CLAMPED for each in told.alterations)
    found: tuple[tuple[str, str, Iterable[Line]], ...] = (
        ("verdict", "", _verdict(told)),
        ("told", "The caller was told", _told(told)),
        ("remedies", "What would have let it pass", _remedies(told)),
        ("changed", "What was changed", (Line(f"{each.text}.", 2) for each in told.alterations)),
        ("asked", "What was asked", _asked(told.asked, is_clamped=is_clamped)),
        ("caller", "Who asked", _caller(told.caller)),
        ("spent", "What it came to", spent.endings(told)),
        ("charged", "What was set aside, and charged", map(spent.reservation, told.reservations)),
        ("policies", "What every policy said", (line for each in said(told.policies) for line in each.lines)),
        ("where", "When and where", _where(told.where)),
        ("lacks", "What the record lacks", _lacks(told)),
    )
    for name, title, content in found:
        lines = tuple(content)
        if lines:
            yield Section(name, title, lines)


def _verdict(told: Explanation) -> Iterator[Line]:
    verdict = told.verdict
    is_denied = verdict.enforced_effect is Effect.DENY
    yield Line(verdict.sentence, style="bold red" if is_denied else "bold green")
    if verdict.shadow:
        yield Line(verdict.shadow, style="yellow")
    yield Line(f"decision {told.decision_id}, reason {verdict.reason}")
    if verdict.error_type:
        failed = ", ".join(line.policy for line in told.policies if line.outcome is Outcome.ERRORED)
        of = f" ({failed})" if failed else ""
        yield Line(f"Something failed here: {verdict.error_type}{of}.", style="yellow")


def _told(told: Explanation) -> Iterator[Line]:
    if told.verdict.message:
        yield Line(told.verdict.message, 2)


def _remedies(told: Explanation) -> Iterator[Line]:
    for remedy in told.remedies:
        yield Line(f"- {remedy.text}.", 2, 2)
        for detail in remedy.details:
            yield Line(f"{detail}.", 6, 2)
    if told.remedies and told.not_asked:
        yield Line(f"Not asked yet, and may have denied it, too: {_some(told.not_asked)}.", 2, 2)


def _some(names: tuple[str, ...]) -> str:
    few = 5
    shown = ", ".join(names[:few])
    return shown if len(names) <= few else f"{shown} and {len(names) - few} more"


def _asked(asked: Asked, *, is_clamped: bool) -> Iterator[Line]:
    yield Line(f"{asked.method} {asked.host}{asked.path}", 2)
    if not asked.api:
        yield Line("Its body was not read, or could not be understood.", 2)
        return
    model = asked.model or "no model"
    if asked.upstream_model:
        model += f", sent upstream as {asked.upstream_model}"
    yield Line(f"{asked.operation} with {model}, at {asked.provider} ({asked.api})", 2)
    others = [name for name in asked.models if name != asked.model]
    if others:
        yield Line(f"it also names {_some(tuple(others))}", 2)
    yield Line(", ".join(_shape(asked)), 2)
    how = "exactly" if asked.tokens_are_exact else "about"
    by = f" (by {asked.estimator})" if asked.estimator not in {"", "none"} else ""
    if asked.estimator == "none":
        yield Line("input tokens were not counted: no policy asks for them", 2)
    else:
        yield Line(f"input: {how} {figures.counted(asked.input_tokens, 'token')}{by}", 2)
    ceiling = figures.counted(asked.max_output_tokens, "token")
    each = " a choice" if asked.choices != 1 else ""
    declared = asked.declared_max_output_tokens
    if declared is None and not is_clamped:
        yield Line(f"output: no limit declared, so its model may write up to {ceiling}{each}", 2)
    else:
        says = "as declared" if declared == asked.max_output_tokens else f"declared {declared or 0:,}"
        says = "as a policy lowered it" if is_clamped else says
        yield Line(f"output: up to {ceiling}{each}, {says}", 2)


def _shape(asked: Asked) -> Iterator[str]:
    yield "streamed" if asked.stream else "not streamed"
    yield figures.counted(asked.message_count, "message")
    yield "tools not recorded" if asked.tool_count is None else figures.counted(asked.tool_count, "tool")
    yield f"a body of {figures.counted(asked.body_bytes, 'byte')}"
    if asked.choices != 1:
        yield figures.counted(asked.choices, "choice")
    if asked.modalities not in {(), ("text",)}:
        yield f"with {', '.join(asked.modalities)}"
    if asked.has_state:
        yield "continues what the provider remembers"


def _caller(caller: Caller) -> Iterator[Line]:
    if not caller.authenticated:
        yield Line("nobody that is known", 2)
    named = [("identity", caller.id), ("user", caller.user), ("team", caller.team), ("org", caller.org)]
    named += [("key", f"ApiKey/{caller.key}" if caller.key else ""), ("groups", ", ".join(caller.groups))]
    known = [f"{name} {value}" for name, value in named if value]
    if known:
        yield Line(", ".join(known), 2)
    came = [("from", caller.address), ("with certificate", caller.principal), ("by route", caller.route)]
    where = [f"{name} {value}" for name, value in came if value]
    if where:
        yield Line(", ".join(where), 2)


def _where(where: Where) -> Iterator[Line]:
    decided = figures.span(-(-where.decided_in_us // 1_000))
    took = decided if where.decided_in_us >= 1_000 else f"{where.decided_in_us} us"  # noqa: PLR2004  a millisecond
    by = f" by sidecar {where.instance}" if where.instance else ""
    yield Line(f"began {figures.instant(where.started_at_us)}, decided in {took}{by}", 2)
    yield Line(f"policies at revision {where.revision}", 2)
    if where.trace_id:
        yield Line(f"trace {where.trace_id}", 2)


def _lacks(told: Explanation) -> Iterator[Line]:
    if told.shed:
        yield Line(f"left out to keep it small: {', '.join(told.shed)}", 2)
    for ending in told.endings:
        if ending.shed:
            yield Line(f"left out of its ending: {', '.join(ending.shed)}", 2)
