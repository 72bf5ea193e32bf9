"""What a request may cost before anyone answered: for expressions in dollars, for limits in nano-dollars.

Floor 1, pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from types import MappingProxyType
from typing import Final

from extproc.formats.base import CONTROL
from extproc.measure.overrides import PriceBook
from extproc.model import AIRequest, TokenEstimate, Usage
from extproc.policy.money import NANO_USD

# A body may name a thousand models, and half a millisecond passes until a name is known to have no price.
# What is beyond has no estimate, as if it had no price; no provider falls back to so many.
MODELS: Final = 16
# Far above any ceiling; an absurd one that a body declares need not be multiplied digit by digit.
_MOST_TOKENS: Final = 10**15
# What these spend is not in the tokens of their request: jobs that run later, sound, open connections.
_UNKNOWN: Final = frozenset({"batch", "fine_tuning", "realtime", "speech"})
# Output that has a price of its own.
_PARTS: Mapping[str, str] = MappingProxyType({"image_generation": "image_output_tokens"})


def usd(
    request: AIRequest, tokens: TokenEstimate, models: Iterable[str], prices: PriceBook, at_ns: int
) -> dict[str, float]:
    """The estimate for each model that has a price: the input, and every choice as long as it may be.

    Input is priced as text that no cache holds; only the first models are looked up.
    """
    most = tokens.max_output * request.choices
    found = {
        model: nano_usd(request, model, tokens.input, most, prices, at_ns) for model in islice(models, MODELS)
    }
    return {model: cost / NANO_USD for model, cost in found.items() if cost is not None}


def nano_usd(  # noqa: PLR0917  a call and its price
    request: AIRequest, model: str, input_tokens: int, output_tokens: int, prices: PriceBook, at_ns: int
) -> int | None:
    """What this much of a request costs with `model`; None where no price is known, or not what it spends."""
    if request.operation == CONTROL:
        return 0
    if request.operation in _UNKNOWN:
        return None
    output = min(output_tokens, _MOST_TOKENS)
    usage = Usage(input_tokens=min(input_tokens, _MOST_TOKENS), output_tokens=output)
    part = _PARTS.get(request.operation)
    if part:
        usage = replace(usage, **{part: output})
    cost = prices.cost(usage, provider=request.provider, requested=model, at_ns=at_ns)
    return None if cost is None else cost.nano_usd
