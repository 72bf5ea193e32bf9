"""What tokens cost: published prices, as the package genai-prices carries them, in whole nano-dollars.

Floor 1. Nothing is fetched: prices come with the installed package, and the revision names it, so that a
bill can be computed again. Not an invoice: service tiers, batch discounts and the searches of a
provider's tools are not in the figures. Source: genai-prices `types.py` and `units.py`, read at 0.2.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from importlib import resources
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from extproc.decision import Cost
from extproc.model import Usage

if TYPE_CHECKING:  # the package brings an HTTP client along, a quarter of a second that few commands need
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

# OpenTelemetry's gen_ai.provider.name -> genai-prices' id; other names are looked up as they are.
_IDS: Mapping[str, str] = MappingProxyType(
    {
        "aws.bedrock": "aws",
        "azure.ai.inference": "azure",
        "azure.ai.openai": "azure",
        "fireworks_ai": "fireworks",
        "gcp.gemini": "google",
        "gcp.vertex_ai": "google",
        "mistral_ai": "mistral",
        "together_ai": "together",
        "voyage_ai": "voyageai",
        "x_ai": "x-ai",
    }
)
# The id in Bedrock's path names the region's profile, which has a price of its own; answers name less.
_PRICED_AS_REQUESTED: Final = frozenset({"aws.bedrock"})
# How OpenAI's dialect spells Google's models.
_PREFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType({"google": ("google/", "models/")})

# A part of the input or output, and its price: the first of these that the model has.
_INPUT: Final = "input_mtok"
_OUTPUT: Final = "output_mtok"
_CACHE_WRITE_1H: Final = ("cache_write_1h_mtok", "cache_write_mtok", _INPUT)
_CACHE_WRITE: Final = ("cache_write_5m_mtok", "cache_write_mtok", _INPUT)
_PARTS_OF_INPUT: Final = (
    ("cache_read_input_tokens", ("cache_read_mtok", _INPUT)),
    ("audio_input_tokens", ("input_audio_mtok", _INPUT)),
    ("image_input_tokens", ("input_image_mtok", _INPUT)),
    ("tool_input_tokens", ("input_tool_mtok", _INPUT)),
)
_PARTS_OF_OUTPUT: Final = (
    ("reasoning_output_tokens", ("output_reasoning_mtok", _OUTPUT)),
    ("audio_output_tokens", ("output_audio_mtok", _OUTPUT)),
    ("image_output_tokens", ("output_image_mtok", _OUTPUT)),
)
_REQUESTS: Final = "requests_kcount"
_HEARD: Final = "input_audio_hours"
# What else may stand beside a price by tokens: the same hours again, and searches, which are not counted.
_ASIDE: Final = ("audio_hours", "web_searches_kcount", "social_searches_kcount", "storage_searches_kcount")
# Groq bills ten seconds of sound at least.
_LEAST_AUDIO_MS: Mapping[str, int] = MappingProxyType({"groq": 10_000})

# Prices are dollars a million tokens, a thousand requests, an hour.
_NANO_USD_A_TOKEN: Final = 1000
_NANO_USD_A_REQUEST: Final = 1_000_000
_NANO_USD: Final = 1_000_000_000
_MS_AN_HOUR: Final = Decimal(3_600_000)
# Of its own, so that no other code's precision touches a bill; 10**8 tokens at any price fit exactly.
_EXACT: Final = Context(prec=60)
_ZERO: Final = Decimal(0)

_MODELS: Final = 1024  # callers choose model names, so the least recently used one is forgotten
_LONGEST_NAME: Final = 256  # of models that have a price; longer ones are not even looked up


@dataclass(frozen=True, slots=True)
class _Rate:
    """Nano-dollars a token; from the input size of a tier on, all tokens have the tier's rate."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...] = ()  # largest start first

    def at(self, input_tokens: int) -> Decimal:
        return next((rate for start, rate in self.tiers if input_tokens > start), self.base)


_FREE: Final = _Rate(_ZERO)


class _Tariff:
    """One model's prices at one time, ready to be multiplied."""

    def __init__(self, prices: ModelPrice) -> None:
        listed = {name: _rate(price) for name, price in vars(prices).items() if price is not None}

        def first(names: tuple[str, ...]) -> _Rate:
            return next((listed[name] for name in names if name in listed), _FREE)

        self._input, self._output = first((_INPUT,)), first((_OUTPUT,))
        self._cache_write_1h, self._cache_write = first(_CACHE_WRITE_1H), first(_CACHE_WRITE)
        self._parts_of_input = tuple((part, first(names)) for part, names in _PARTS_OF_INPUT)
        self._parts_of_output = tuple((part, first(names)) for part, names in _PARTS_OF_OUTPUT)
        fee, hour = vars(prices).get(_REQUESTS), vars(prices).get(_HEARD)
        self._fee = fee * _NANO_USD_A_REQUEST if isinstance(fee, Decimal) else _ZERO
        self._hour = hour * _NANO_USD if isinstance(hour, Decimal) else _ZERO
        # Sound alone has a price: where nobody said how much there was, the cost is unknown.
        self._is_by_time = _HEARD in listed and not {_INPUT, _OUTPUT} & listed.keys()

    def nano_usd(self, usage: Usage, least_audio_ms: int) -> int | None:
        """The sum over the parts, rounded once, halves up; None where what it is billed by is not there."""
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
        return int(total.to_integral_value(ROUND_HALF_UP))


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


def _can_be_computed(prices: ModelPrice) -> bool:
    """Whether what we count decides the price; characters, pages and messages are counted by nobody here."""
    units = {name for name, price in vars(prices).items() if price is not None}
    is_known = all(name.endswith("_mtok") or name in (*_ASIDE, _REQUESTS, _HEARD) for name in units)
    # Hours of both directions at once are those of a connection that stays open.
    return is_known and ("audio_hours" not in units or _HEARD in units)


class Prices:
    """Prices of one revision; empty it has none. Threads may share one."""

    def __init__(self, providers: Sequence[Provider] = (), *, revision: str = "") -> None:
        self.revision = revision
        self._providers = list(providers)
        self._by_id = {provider.id: provider for provider in providers}
        self._found = lru_cache(_MODELS)(self._find)
        # As many as there are price lists, however many names lead to them.
        self._tariffs: dict[int, _Tariff | None] = {}

    @classmethod
    def bundled(cls) -> Self:
        """The prices that came with the installed package; takes a third of a second and 30 MB."""
        from genai_prices.data import providers  # noqa: PLC0415  see above

        data = resources.files("genai_prices").joinpath("data.py").read_bytes()
        snapshot = hashlib.sha256(data).hexdigest()[:12]
        return cls(providers, revision=f"genai-prices {version('genai-prices')} data {snapshot}")

    def cost(
        self, usage: Usage, *, provider: str, requested: str, answered: str = "", at_ns: int
    ) -> Cost | None:
        """What this usage costs at this Unix time; None where nobody published a price.

        The model that answered is priced, else the one that was asked for: an Azure deployment has any name.
        """
        names = (answered, requested)
        for name in reversed(names) if provider in _PRICED_AS_REQUESTED else names:
            model = self._found(provider, name) if 0 < len(name) <= _LONGEST_NAME else None
            if model is not None:
                tariff = self._tariff(model, at_ns)
                least_ms = _LEAST_AUDIO_MS.get(provider, 0)
                nano_usd = None if tariff is None else tariff.nano_usd(usage, least_ms)
                return None if nano_usd is None else Cost(nano_usd, self.revision)
        return None

    def nothing(self) -> Cost:
        """The cost of what a provider did not do."""
        return Cost(0, self.revision)

    def _find(self, provider_name: str, model_name: str) -> ModelInfo | None:
        provider = self._by_id.get(_IDS.get(provider_name, provider_name))
        if provider is None:
            return None
        name = model_name
        for prefix in _PREFIXES.get(provider.id, ()):
            name = name.removeprefix(prefix)
        return provider.find_model(name, all_providers=self._providers)

    def _tariff(self, model: ModelInfo, at_ns: int) -> _Tariff | None:
        prices = model.get_prices(datetime.fromtimestamp(at_ns / 1e9, UTC))
        if id(prices) not in self._tariffs:
            self._tariffs[id(prices)] = _Tariff(prices) if _can_be_computed(prices) else None
        return self._tariffs[id(prices)]
