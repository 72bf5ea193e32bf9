"""One model's prices, multiplied: what a usage costs in exact nano-dollars.

Floor 1, pure. Whose prices these are is said in `prices` and `overrides`. The prices have the names
that the package genai-prices gives them. Source: its `units.py`, read at 0.2.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Any, Final

from extproc.model import Usage

if TYPE_CHECKING:  # the package brings an HTTP client along, a quarter of a second that few commands need
    from genai_prices.types import TieredPrices

INPUT: Final = "input_mtok"
OUTPUT: Final = "output_mtok"
# A part of the input or output, and its price: the first of these that the model has.
_CACHE_WRITE_1H: Final = ("cache_write_1h_mtok", "cache_write_mtok", INPUT)
_CACHE_WRITE: Final = ("cache_write_5m_mtok", "cache_write_mtok", INPUT)
PARTS_OF_INPUT: Final = (
    ("cache_read_input_tokens", ("cache_read_mtok", INPUT)),
    ("audio_input_tokens", ("input_audio_mtok", INPUT)),
    ("image_input_tokens", ("input_image_mtok", INPUT)),
    ("tool_input_tokens", ("input_tool_mtok", INPUT)),
)
PARTS_OF_OUTPUT: Final = (
    ("reasoning_output_tokens", ("output_reasoning_mtok", OUTPUT)),
    ("audio_output_tokens", ("output_audio_mtok", OUTPUT)),
    ("image_output_tokens", ("output_image_mtok", OUTPUT)),
)
_REQUESTS: Final = "requests_kcount"
_HEARD: Final = "input_audio_hours"
# What else may stand beside a price by tokens: the same hours again, and searches, which are not counted.
_ASIDE: Final = ("audio_hours", "web_searches_kcount", "social_searches_kcount", "storage_searches_kcount")

# Prices are dollars a million tokens, a thousand requests, an hour.
_NANO_USD_A_TOKEN: Final = 1000
_NANO_USD_A_REQUEST: Final = 1_000_000
_NANO_USD: Final = 1_000_000_000
_MS_AN_HOUR: Final = Decimal(3_600_000)
# Of its own, so that no other code's precision touches a bill; 10**8 tokens at any price fit exactly.
_EXACT: Final = Context(prec=60)
_ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class _Rate:
    """Nano-dollars a token; from the input size of a tier on, all tokens have the tier's rate."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...] = ()  # largest start first

    def at(self, input_tokens: int) -> Decimal:
        return next((rate for start, rate in self.tiers if input_tokens > start), self.base)


_FREE: Final = _Rate(_ZERO)


class Tariff:
    """One model's prices at one time, ready to be multiplied; `prices` that are None are not there."""

    def __init__(self, prices: Mapping[str, Any]) -> None:
        listed = {name: _rate(price) for name, price in prices.items() if price is not None}

        def first(names: tuple[str, ...]) -> _Rate:
            return next((listed[name] for name in names if name in listed), _FREE)

        self._input, self._output = first((INPUT,)), first((OUTPUT,))
        self._cache_write_1h, self._cache_write = first(_CACHE_WRITE_1H), first(_CACHE_WRITE)
        self._parts_of_input = tuple((part, first(names)) for part, names in PARTS_OF_INPUT)
        self._parts_of_output = tuple((part, first(names)) for part, names in PARTS_OF_OUTPUT)
        fee, hour = prices.get(_REQUESTS), prices.get(_HEARD)
        self._fee = fee * _NANO_USD_A_REQUEST if isinstance(fee, Decimal) else _ZERO
        self._hour = hour * _NANO_USD if isinstance(hour, Decimal) else _ZERO
        # Sound alone has a price: where nobody said how much there was, the cost is unknown.
        self._is_by_time = _HEARD in listed and not {INPUT, OUTPUT} & listed.keys()

    def nano_usd(self, usage: Usage, *, least_audio_ms: int = 0) -> Decimal | None:
        """The sum over the parts, not rounded; None where what it is billed by is not there."""
        heard_ms = usage.input_audio_ms
        if heard_ms is None and self._is_by_time:
            return None
        given, made = usage.input_tokens or 0, usage.output_tokens or 0
        written = usage.cache_creation_input_tokens or 0
        written_1h = min(usage.cache_creation_1h_input_tokens or 0, written)
        parts_of_input = [
            (written_1h, self._cache_write_1h),
            (written - written_1h, self._cache_write),
            *((getattr(usage, part) or 0, rate) for part, rate in self._parts_of_input),
        ]
        parts_of_output = [(getattr(usage, part) or 0, rate) for part, rate in self._parts_of_output]
        total = _EXACT.add(
            _sum(given, parts_of_input, self._input, given),
            _sum(made, parts_of_output, self._output, given),
        )
        total = _EXACT.add(total, self._fee)
        if heard_ms and self._hour:
            heard = Decimal(max(heard_ms, least_audio_ms))
            total = _EXACT.add(total, _EXACT.divide(_EXACT.multiply(self._hour, heard), _MS_AN_HOUR))
        return total


def share(nano_usd: Decimal, percent: Decimal) -> Decimal:
    """So many percent of an amount, exactly."""
    return _EXACT.multiply(nano_usd, percent.scaleb(-2, _EXACT))


def rounded(nano_usd: Decimal) -> int:
    """Whole nano-dollars, halves up; to be called once a bill."""
    return int(nano_usd.to_integral_value(ROUND_HALF_UP))


def can_be_computed(prices: Mapping[str, Any]) -> bool:
    """Whether what we count decides the price; characters, pages and messages are counted by nobody here."""
    units = {name for name, price in prices.items() if price is not None}
    is_known = all(name.endswith("_mtok") or name in (*_ASIDE, _REQUESTS, _HEARD) for name in units)
    # Hours of both directions at once are those of a connection that stays open.
    return is_known and ("audio_hours" not in units or _HEARD in units)


def _sum(total: int, parts: list[tuple[int, _Rate]], rest: _Rate, input_tokens: int) -> Decimal:
    """Each token once: where parts overlap, as cached audio does, the part that comes first has it."""
    price = _ZERO
    for count, rate in parts:
        if count:
            taken = min(count, total)
            total -= taken
            price = _EXACT.add(price, _EXACT.multiply(rate.at(input_tokens), Decimal(taken)))
    return _EXACT.add(price, _EXACT.multiply(rest.at(input_tokens), Decimal(total)))


def _rate(price: Decimal | TieredPrices) -> _Rate:
    if isinstance(price, Decimal):
        return _Rate(price * _NANO_USD_A_TOKEN)
    tiers = ((tier.start, tier.price * _NANO_USD_A_TOKEN) for tier in reversed(price.tiers))
    return _Rate(price.base * _NANO_USD_A_TOKEN, tuple(tiers))
