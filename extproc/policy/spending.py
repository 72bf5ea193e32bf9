"""What a request takes of each unit that limits count, before anyone answered.

Floor 1, pure. What it comes to in the end is `accounting`'s; dollars are nano-dollars here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Final, Literal

from extproc.decision import Unit
from extproc.formats.base import CONTROL, NO_OUTPUT
from extproc.measure.overrides import NO_PRICES, PriceBook
from extproc.model import AIRequest, TokenEstimate
from extproc.policy import estimates

Reserve = Literal["declared", "expected"]

# Twice what any limit may be: more fits nowhere, and a store in 64-bit floats still counts it exactly.
_MOST: Final = 8 * 10**15


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What the limits are told about a request."""

    activated: object  # the facts, ready for CEL
    request: AIRequest | None
    tokens: TokenEstimate
    reserve: Reserve | None  # Defaults.reserve
    expected_output_tokens: int | None  # learned, of one choice
    prices: PriceBook = NO_PRICES
    at_ns: int = 0  # Unix time


@dataclass(frozen=True, slots=True)
class Taken:
    """What to take of a unit, and the least that will do."""

    amount: int
    minimum: int


NOTHING: Final = Taken(0, 0)
_ONE: Final = Taken(1, 1)


def taken(unit: Unit, measure: Measure, reserve: Reserve) -> Taken | None:
    """What the request takes; None where nobody knows, because there is no price for it.

    `reserve` "declared" takes the whole output ceiling; "expected" takes at most what was learned.
    """
    if unit in _EACH_REQUEST:
        return _ONE
    request = measure.request
    if request is None or request.operation == CONTROL:
        return NOTHING
    one_choice = measure.tokens.max_output
    if reserve == "expected" and measure.expected_output_tokens is not None:
        one_choice = min(one_choice, measure.expected_output_tokens)
    output = max(_fewest(request), one_choice * request.choices)
    amount = _COMES_TO[unit](request, output, measure)
    if amount is None:
        return None
    if request.max_output_tokens is not None or output <= 1:
        minimum: int | None = amount
    else:
        # Without a declared ceiling a small limit stays usable: whatever it has left will do.
        minimum = _COMES_TO[unit](request, 1, measure)
    return None if minimum is None else Taken(min(amount, _MOST), min(minimum, _MOST))


def _fewest(request: AIRequest) -> int:
    """What a request that may generate takes at least: only what is charged is ever settled.

    Its input may be in the provider's memory alone, and a model that usually says nothing may speak.
    """
    return 0 if request.operation in NO_OUTPUT else 1


def largest_ceiling(unit: Unit, size: int, measure: Measure) -> int | None:
    """The largest output ceiling of one choice with which the request takes at most `size`.

    None where no ceiling is small enough, or none is of use.
    """
    request = measure.request
    if request is None or unit in _EACH_REQUEST:
        return None
    fits, too_large = 0, measure.tokens.max_output + 1
    while too_large - fits > 1:
        ceiling = (fits + too_large) // 2
        amount = _COMES_TO[unit](request, ceiling * request.choices, measure)
        fits, too_large = (ceiling, too_large) if amount is not None and amount <= size else (fits, ceiling)
    return fits or None


def _cost(request: AIRequest, output_tokens: int, measure: Measure) -> int | None:
    """What the dearest of its models costs: one that it falls back to may answer in the first one's place."""
    first, *others = (
        estimates.nano_usd(request, model, measure.tokens.input, output_tokens, measure.prices, measure.at_ns)
        for model in islice(dict.fromkeys((request.model, *request.models)), estimates.MODELS)
    )
    # Names that have no price may be anything, and nonsense must not set a limit aside.
    return None if first is None else max([first, *(other or 0 for other in others)])


_EACH_REQUEST: Final = frozenset({Unit.REQUESTS, Unit.CONCURRENT_REQUESTS})
# What a request comes to whose choices have so much output together.
_COMES_TO: Mapping[Unit, Callable[[AIRequest, int, Measure], int | None]] = MappingProxyType(
    {
        Unit.TOKENS: lambda _request, output, measure: measure.tokens.input + output,
        Unit.INPUT_TOKENS: lambda request, _output, measure: max(_fewest(request), measure.tokens.input),
        Unit.OUTPUT_TOKENS: lambda _request, output, _measure: output,
        Unit.COST_USD: _cost,
    }
)
