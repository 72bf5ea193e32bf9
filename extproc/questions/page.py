"""One explanation as a page for a person: the verdict first, then what to do, then everything else.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from extproc.decision import SPOKEN, Effect, Mode, Outcome, Reason
from extproc.model import Usage
from extproc.questions import figures
from extproc.questions.explained import (
    Asked,
    Caller,
    Ending,
    Explanation,
    PolicyLine,
    Reservation,
    Where,
    Wording,
)
from extproc.questions.screen import Line, Screen, lines

# Parts of the totals, as people call them.
_PARTS_OF_INPUT = (
    ("cache_read_input_tokens", "read from a cache"),
    ("cache_creation_input_tokens", "written to a cache"),
    ("audio_input_tokens", "audio"),
    ("image_input_tokens", "images"),
    ("tool_input_tokens", "read by the provider's tools"),
)
_PARTS_OF_OUTPUT = (
    ("reasoning_output_tokens", "reasoning"),
    ("audio_output_tokens", "audio"),
    ("image_output_tokens", "images"),
)


def page(explanation: Explanation, screen: Screen) -> str:
    """The page as the screen has room for it."""
    return lines(_page(explanation), screen)


def _page(told: Explanation) -> Iterator[Line]:
    yield from _verdict(told)
    yield from _section("What would have let it pass", _remedies(told))
    yield from _section("What was changed", (Line(f"{each.text}.", 2) for each in told.alterations))
    is_clamped = any(each.reason is Reason.CLAMPED for each in told.alterations)
    yield from _section("What was asked", _asked(told.asked, is_clamped=is_clamped))
    yield from _section("Who asked", _caller(told.caller))
    yield from _section("What it came to", _endings(told))
    yield from _section("What was set aside, and charged", map(_reservation, told.reservations))
    yield from _section("What every policy said", _policies(told.policies))
    yield from _section("When and where", _where(told.where))
    yield from _section("What the record lacks", _lacks(told))


def _section(title: str, content: Iterable[Line]) -> Iterator[Line]:
    found = list(content)
    if found:
        yield Line("")
        yield Line(title, style="bold")
        yield from found


def _verdict(told: Explanation) -> Iterator[Line]:
    verdict = told.verdict
    is_denied = verdict.enforced_effect is Effect.DENY
    yield Line(verdict.sentence, style="bold red" if is_denied else "bold green")
    if verdict.shadow:
        yield Line(verdict.shadow, style="yellow")
    yield Line(f"decision {told.decision_id}, reason {verdict.reason}")
    if verdict.error_type:
        yield Line(f"Something failed here: {verdict.error_type}.", style="yellow")
    if verdict.message:
        yield Line("")
        yield Line("The caller was told", style="bold")
        yield Line(verdict.message, 2)


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
        yield Line("Nobody could say, or had to, what it asks for.", 2)
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


# --- what it came to


def _endings(told: Explanation) -> Iterator[Line]:
    if told.is_open:
        yield Line("Not settled yet: the request is still running, or nobody said how it ended.", 2)
    if told.endings:
        *earlier, last = told.endings
        yield from _ending(last)
        for each in earlier:
            yield Line(f"before: {each.kind_in_words}; {_tokens(each.usage)}; {_money(each)}", 2, 2)


def _ending(ending: Ending) -> Iterator[Line]:
    provisional = " (provisional: a late report corrects it)" if ending.is_provisional else ""
    yield Line(f"{ending.kind_in_words}{provisional}", 2)
    yield Line(_tokens(ending.usage), 2)
    yield Line(f"basis {ending.basis}: {ending.basis_in_words}", 2)
    yield Line(_money(ending), 2)
    answer = [f"status {ending.status}" if ending.status else "no answer was seen"]
    answer += [f"by {ending.model}"] if ending.model else []
    answer += [f"finished: {', '.join(ending.finish_reasons)}"] if ending.finish_reasons else []
    answer += [f"error {ending.error_type}"] if ending.error_type else []
    if ending.first_byte_ms is not None:
        answer.append(f"first byte after {figures.span(ending.first_byte_ms)}")
    if ending.duration_ms is not None:
        answer.append(f"{figures.span(ending.duration_ms)} in all")
    yield Line(", ".join(answer), 2)
    if ending.response_id:
        yield Line(f"the provider's id is {ending.response_id}", 2)


def _tokens(usage: Usage) -> str:
    totals = [
        _total(usage, usage.input_tokens, "input", _PARTS_OF_INPUT),
        _total(usage, usage.output_tokens, "output", _PARTS_OF_OUTPUT),
    ]
    heard = f", {figures.span(usage.input_audio_ms)} of audio" if usage.input_audio_ms else ""
    return ", ".join(totals) + heard


def _total(usage: Usage, total: int | None, name: str, parts: tuple[tuple[str, str], ...]) -> str:
    if total is None:
        return f"{name} tokens not known"
    told = [f"{amount:,} {words}" for field, words in parts if (amount := getattr(usage, field))]
    of_it = f" (of it {', '.join(told)})" if told else ""
    return figures.counted(total, f"{name} token") + of_it


def _money(ending: Ending) -> str:
    if ending.nano_usd is None:
        return "cost: not known"
    by = f", at prices {ending.price_revision}" if ending.price_revision else ""
    return f"cost: {figures.dollars(ending.nano_usd)}{by}"


def _reservation(each: Reservation) -> Line:
    unit = each.unit
    said = f"{each.policy}: set aside {figures.quantity(unit, each.reserved)}"
    if not each.answered:
        said = (
            f"{each.policy}: its counters did not answer; it wanted {figures.quantity(unit, each.requested)}"
        )
    if not each.enforced:
        said += " (not enforced)"
    if each.charged is None:
        return Line(f"{said}; what it is charged is not known", 2)
    said += f", charged {figures.number(unit, each.charged)}"
    if each.difference:
        more = "more than set aside" if each.difference > 0 else "given back"
        said += f": {figures.number(unit, abs(each.difference))} {more}"
    return Line(said, 2)


# --- policies


def _policies(said: tuple[PolicyLine, ...]) -> Iterator[Line]:
    """Those that spoke, the one that decided first; then, shorter, the others."""
    for line in sorted(said, key=lambda line: not line.determining):
        if line.outcome in SPOKEN:
            yield _head(line, line.policy)
            yield from _details(line)
    silent = [line for line in said if line.outcome not in SPOKEN]
    if any(line.reason is Reason.ACCESS_NOT_GRANTED for line in said):
        # A rule that might have allowed it is what its owner looks for.
        for line in filter(_is_rule, silent):
            yield _head(line, line.policy)
            if line.wording:
                yield from _match(line.wording)
        silent = [line for line in silent if not _is_rule(line)]
    alike: dict[tuple[str, Mode], list[PolicyLine]] = {}
    for line in silent:
        alike.setdefault((line.line, line.mode), []).append(line)
    for same in alike.values():
        yield _head(same[0], ", ".join(dict.fromkeys(line.policy for line in same)))


def _is_rule(line: PolicyLine) -> bool:
    return line.policy.startswith("AccessRule/") and line.outcome is Outcome.NOT_MATCHED


def _head(line: PolicyLine, policies: str) -> Line:
    mark, style = "  ", "dim"
    if line.outcome in SPOKEN:
        style = "red" if line.effect is Effect.DENY and line.mode is Mode.ENFORCE else ""
    if line.outcome is Outcome.ERRORED or line.would_deny:
        style = "yellow"
    if line.determining:
        mark = "> "
    mode = "" if line.mode is Mode.ENFORCE else f" ({line.mode})"
    decided = " [this one decided]" if line.determining else ""
    return Line(f"{mark}{policies}{mode}{decided}: {line.line}", hang=4, style=style)


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
    if line.determining and line.wording:
        yield Line("its spec then:", 6)
        for text in line.wording.spec.splitlines():
            yield Line(text, 8, style="dim")


def _match(wording: Wording) -> Iterator[Line]:
    if wording.match:
        yield Line(f"match: {' '.join(wording.match.split())}", 6, 2)
    for term in wording.terms:
        yield Line(f"{term.value or 'not known'}: {' '.join(term.text.split())}", 8)
    for operand in wording.operands:
        value = f"= {operand.value}" if operand.is_recorded else f"is not known here: {operand.why_not}"
        yield Line(f"{operand.name} {value}", 8)


# --- the rest


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
