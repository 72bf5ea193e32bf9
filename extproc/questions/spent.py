"""What a decision came to, in lines: tokens, money, how the answer ended, what limits were charged.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from extproc.model import Usage
from extproc.questions import figures
from extproc.questions.explained import Ending, Explanation, Reservation
from extproc.questions.screen import Line

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


def endings(told: Explanation) -> Iterator[Line]:
    """What was used, what it cost and how it ended; what an earlier record said comes after."""
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


def reservation(each: Reservation) -> Line:
    """What one limit set aside, what it was charged, and the difference."""
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
