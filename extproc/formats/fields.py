"""Typed access to the fields of a JSON body: exactly the expected type, absent, or a 400.

Floor 1, pure. `null` counts as absent. Upstreams coerce differently (`"true"`, `1`, `5.0`), so
nothing is coerced here. Messages name the JSON pointer, never the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.base import Call

# Counts multiply and land in counters that stores keep as doubles (2**53).
MAX_COUNT = 2**31 - 1
# The longest known names are Bedrock ARNs and fine-tuned models, below 200.
MAX_NAME_CHARS = 256
# Every access rule is asked about every model, on the event loop. Routers take a handful of fallbacks.
MAX_MODELS = 64
# Rules walk these names, and CEL gives up after 10,000 steps: who brings more could make a rule fail.
# Providers take 128.
MAX_TOOLS = 2048

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.$-]{1,64}")

JSON = Mapping[str, Any]


def not_this_call(what: str) -> RequestRefused:
    """A 400 for a body that is not what its path claims: nobody can say what an upstream makes of it."""
    return RequestRefused(status=400, code=Reason.UNCLASSIFIED, message=f"{what}.")


def told(name: str) -> str:
    """A name that the caller chose, as a part of a pointer: only a plain one is shown."""
    return name if _PLAIN_NAME.fullmatch(name) else "*"


def refused_parameter(name: str) -> RequestRefused:
    """A 400 for a query parameter that changes how a call or its answer is read."""
    which = f"The query parameter {name}" if told(name) == name else "A query parameter"
    return RequestRefused(
        status=400,
        code=Reason.UNCLASSIFIED,
        message=f"{which} changes how this call is read and is not accepted here.",
    )


def wrong(pointer: str, what: str) -> RequestRefused:
    """A 400 that says which field must be what."""
    return RequestRefused(status=400, code=Reason.BODY_MALFORMED, message=f"{pointer} {what}.")


def string(body: JSON, key: str, at: str = "") -> str:
    """The string at `key`, empty where absent."""
    value = body.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong(f"{at}/{key}", "must be a string")
    return value


def name(body: JSON, key: str, at: str = "") -> str:
    """A name that ends up in rules and counters: lower case, empty where absent."""
    value = string(body, key, at)
    if len(value) > MAX_NAME_CHARS:
        raise wrong(f"{at}/{key}", f"must have at most {MAX_NAME_CHARS} characters")
    # An upstream may trim what we would compare untrimmed.
    if value != value.strip() or not value.isprintable():
        raise wrong(f"{at}/{key}", "must not begin or end with space or hold control characters")
    return value.lower()


def required_name(body: JSON, key: str, at: str = "") -> str:
    """As `name`, and there."""
    value = name(body, key, at)
    if not value:
        raise wrong(f"{at}/{key}", "is required and must be a string that is not empty")
    return value


def flag(body: JSON, key: str, at: str = "") -> bool:
    """The boolean at `key`, false where absent."""
    value = body.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise wrong(f"{at}/{key}", "must be true or false")
    return value


def count(body: JSON, key: str, at: str = "") -> int | None:
    """The whole number from 1 to `MAX_COUNT` at `key`, None where absent."""
    value = body.get(key)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= MAX_COUNT:
        raise wrong(f"{at}/{key}", f"must be a whole number from 1 to {MAX_COUNT}")
    return value


def number(body: JSON, key: str, at: str = "") -> float | None:
    """The number at `key`, None where absent."""
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"{at}/{key}", "must be a number")
    return float(value)


def mapping(body: JSON, key: str, at: str = "") -> JSON:
    """The object at `key`, empty where absent."""
    value = body.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(f"{at}/{key}", "must be an object")
    return value


def objects(body: JSON, key: str, at: str = "") -> Iterator[tuple[str, JSON]]:
    """Pointer and value of each object in the list at `key`; nothing where absent."""
    value = body.get(key)
    if value is None:
        return
    if not isinstance(value, list):
        raise wrong(f"{at}/{key}", "must be a list")
    for position, item in enumerate(value):
        pointer = f"{at}/{key}/{position}"
        if not isinstance(item, dict):
            raise wrong(pointer, "must be an object")
        yield pointer, item


def check_case(body: JSON, known: frozenset[str], at: str) -> None:
    """Refuse keys that differ only in case from a known one: some upstreams would read them."""
    for key in body:
        if key not in known and (spelled := _spelled(known).get(key.casefold())):
            raise wrong(at, f"has a key that differs from {spelled} only in case")


@cache
def _spelled(known: frozenset[str]) -> JSON:
    """How each known key is spelled, by its spelling without case."""
    return {key.casefold(): key for key in known}


def model(body: JSON, call: Call) -> str:
    """The model a call names, in its path or in its body; required in one of them."""
    return call.model or required_name(body, "model")


def models_of(body: JSON, call: Call) -> list[str]:
    """Every name of that one model: a path and a body may disagree, and both must be allowed."""
    return [call.model, name(body, "model")]


def models(names: list[str]) -> tuple[str, ...]:
    """Each model that a body names once, its own first. Raises `RequestRefused` above `MAX_MODELS`."""
    found = distinct(names)
    if len(found) > MAX_MODELS:
        message = f"The request body names more than {MAX_MODELS} models."
        raise RequestRefused(status=400, code=Reason.BODY_MALFORMED, message=message)
    return found


def tools(names: list[str], at: str) -> tuple[str, ...]:
    """Each tool of a body once. Raises `RequestRefused` above `MAX_TOOLS`, repeated ones included."""
    if len(names) > MAX_TOOLS:
        raise wrong(at, f"must hold at most {MAX_TOOLS} tools")
    return distinct(names)


def distinct(names: list[str]) -> tuple[str, ...]:
    """Each name once, in order of appearance, without empty ones."""
    return tuple(dict.fromkeys(filter(None, names)))
