"""Changing what a request asks for: less output, or another model. Where that is impossible, a refusal.

Floor 1, pure. Which field it is says each format's `output_ceiling` and `model_field`. A body that was
changed is read again, and goes on only if it says what it should and nothing else is different.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import CONTROL, BodyKind, Call, OutputCeiling, ParsedRequest
from extproc.formats.body import decode_body, is_signed
from extproc.formats.google.proto_json import snake
from extproc.formats.strict_json import compact_json, parse_json
from extproc.model import RequestHead

_EACH = "*"
_UNCHANGEABLE: Mapping[BodyKind, str] = MappingProxyType(
    {
        BodyKind.NONE: "this call has no body",
        BodyKind.FORM: "its body is a form, in which nothing can be changed",
        BodyKind.OPAQUE: "its body passes unread",
    }
)


def rewrite(
    call: Call,
    head: RequestHead,
    body: bytes,
    *,
    is_decoded: bool,
    max_body_bytes: int,
    model: str | None = None,
    max_output_tokens: int | None = None,
) -> bytes:
    """The body, decoded, that asks for `model` and for at most `max_output_tokens` a choice.

    `is_decoded` tells a body without its content encoding from one as it came. A ceiling is only ever
    lowered. A budget of thinking that the lower ceiling leaves no room for is a refusal, which names the
    field: the provider would answer 400, and no smaller budget is what the caller asked for.
    Raises `RequestRefused` where the request cannot be changed so: 413 for the output, 429 for the model.
    """
    change = _Change(model, max_output_tokens)
    change.check(call, head)
    data = body if is_decoded else decode_body(body, head.headers, max_body_bytes=max_body_bytes)
    changed = parse_json(data)
    wire_format = FORMATS[call.api]
    before = wire_format.parse_request(changed, call)
    if max_output_tokens is not None:
        _limit(changed, wire_format.output_ceiling(changed, call), max_output_tokens)
    if model is not None:
        _name(changed, wire_format.model_field, call, model)
    change.verify(before, wire_format.parse_request(changed, call))
    return compact_json(changed).encode()


class _Change:
    """What is to be different afterwards, and whether it is."""

    def __init__(self, model: str | None, max_output_tokens: int | None) -> None:
        self._model = model
        self._max_output_tokens = max_output_tokens

    def check(self, call: Call, head: RequestHead) -> None:
        """Refuse what no change of the body can be made to."""
        why = _UNCHANGEABLE.get(call.body, "")
        if call.operation == CONTROL:
            why = "this call generates nothing"
        elif is_signed(head.headers):
            why = "it is signed, so that nothing in it can be changed"
        if why:
            raise self._impossible(why)

    def verify(self, before: ParsedRequest, after: ParsedRequest) -> None:
        """Refuse a body that says anything else than it should."""
        wanted, found = before.request, after.request
        if (most := self._max_output_tokens) is not None:
            wanted = replace(wanted, max_output_tokens=_lower(wanted.max_output_tokens, most))
            if found.max_output_tokens != wanted.max_output_tokens:
                raise _unlimited(most, "it asks for output in more places than one")
        if self._model is not None:
            left = set(before.request.models) & set(found.models) - {found.model}
            if left or found.model != self._model.lower():
                raise _unnamed("it names more models than one")
            wanted = replace(wanted, model=found.model, models=found.models)
        if found != wanted or after.prompt != before.prompt:
            raise self._impossible("what it says would change its meaning")

    def _impossible(self, why: str) -> RequestRefused:
        if self._max_output_tokens is not None:
            return _unlimited(self._max_output_tokens, why)
        return _unnamed(why)


def _limit(body: dict[str, Any], ceiling: OutputCeiling | None, most: int) -> None:
    """Lower every ceiling of every request in a body, and give one to those that have none."""
    if ceiling is None:
        raise _unlimited(most, "this call has no field for it")
    for request in _requests(body, ceiling):
        _check_budgets(request, ceiling, most)
        declared = [place for path in ceiling.read for place in _places(request, _steps(path), ceiling)]
        for holder, key in declared:
            holder[key] = _lower(holder[key] if holder[key] >= ceiling.least else None, most)
        if not declared:
            _add(request, ceiling, most)


def _requests(body: dict[str, Any], ceiling: OutputCeiling) -> list[dict[str, Any]]:
    if not ceiling.each:
        return [body]
    *steps, last = _steps(ceiling.each)
    return [holder[key] for holder, key in _places(body, (*steps, last), ceiling)]


def _check_budgets(request: dict[str, Any], ceiling: OutputCeiling, most: int) -> None:
    for path in ceiling.below:
        for holder, key in _places(request, _steps(path), ceiling):
            budget = holder[key]
            if isinstance(budget, int) and budget >= most:
                raise _unlimited(most, f"its /{path} must be below that")


def _add(request: dict[str, Any], ceiling: OutputCeiling, most: int) -> None:
    if not ceiling.added:
        raise _unlimited(most, "only its model knows the field for it")
    *steps, last = _steps(ceiling.added)
    holder = request
    for step in steps:
        key = _spelled(holder, step, ceiling)
        if holder.get(key) is None:
            holder[key] = {}
        holder = holder[key]
    holder[_spelled(holder, last, ceiling)] = most


def _name(body: dict[str, Any], field: str, call: Call, model: str) -> None:
    if call.model:
        raise _unnamed("the path of this call names it")
    if not isinstance(body.get(field), str):
        raise _unnamed("its body names none")
    body[field] = model


def _lower(declared: int | None, most: int) -> int:
    return most if declared is None else min(declared, most)


def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))


def _places(
    value: Any, steps: tuple[str, ...], ceiling: OutputCeiling
) -> Iterator[tuple[dict[str, Any], str]]:
    """Every object and key where a path leads to something; `null` is nothing."""
    step, *rest = steps
    if step == _EACH:
        # Google's APIs take a single item without a list around it.
        for item in value if isinstance(value, list) else [value]:
            yield from _places(item, tuple(rest), ceiling)
        return
    if not isinstance(value, dict):
        return
    key = _spelled(value, step, ceiling)
    if value.get(key) is None:
        return
    if rest:
        yield from _places(value[key], tuple(rest), ceiling)
    else:
        yield value, key


def _spelled(holder: Mapping[str, Any], name: str, ceiling: OutputCeiling) -> str:
    """The key under which a body has a field, or would."""
    if not ceiling.has_two_spellings:
        return name
    return next((key for key in holder if snake(key) == snake(name)), name)


def _unlimited(most: int, why: str) -> RequestRefused:
    message = f"The output of this request must be limited to {most} tokens a choice, and cannot be: {why}."
    return RequestRefused(status=413, code=Reason.REQUEST_EXCEEDS_LIMIT, message=message)


def _unnamed(why: str) -> RequestRefused:
    message = f"This request must go to another model, and cannot: {why}."
    return RequestRefused(status=429, code=Reason.CAP_REACHED, message=message)
