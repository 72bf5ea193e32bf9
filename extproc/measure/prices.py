"""What tokens cost where somebody publishes it: the prices that the package genai-prices carries.

Floor 1. Nothing is fetched: prices come with the installed package, and the revision names it, so that a
bill can be computed again. Not an invoice: service tiers, batch discounts and the searches of a
provider's tools are not in the figures. Source: genai-prices `types.py` and `units.py`, read at 0.2.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from importlib import resources
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from extproc.decision import Cost
from extproc.measure.tariff import Tariff, can_be_computed, rounded
from extproc.model import Usage

if TYPE_CHECKING:  # the package brings an HTTP client along, a quarter of a second that few commands need
    from genai_prices.types import ModelInfo, Provider

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
# Groq bills ten seconds of sound at least.
_LEAST_AUDIO_MS: Mapping[str, int] = MappingProxyType({"groq": 10_000})

MODELS: Final = 1024  # callers choose model names, so the least recently used one is forgotten
LONGEST_NAME: Final = 256  # of models that have a price; longer ones are not even looked up


class Prices:
    """Published prices of one revision; empty it has none. Threads may share one."""

    def __init__(self, providers: Sequence[Provider] = (), *, revision: str = "") -> None:
        self.revision = revision
        self._providers = list(providers)
        self._by_id = {provider.id: provider for provider in providers}
        self._found = lru_cache(MODELS)(self._find)
        # As many as there are price lists, however many names lead to them.
        self._tariffs: dict[int, Tariff | None] = {}

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
        """What this usage costs at this Unix time; None where nobody published a price."""
        exact = self.nano_usd(usage, provider=provider, requested=requested, answered=answered, at_ns=at_ns)
        return None if exact is None else Cost(rounded(exact), self.revision)

    def nano_usd(
        self, usage: Usage, *, provider: str, requested: str, answered: str, at_ns: int
    ) -> Decimal | None:
        """The same before it is rounded."""
        for name in priced_names(provider, requested, answered):
            model = self._listed(provider, name)
            if model is not None:
                tariff = self._tariff(model, at_ns)
                least_ms = _LEAST_AUDIO_MS.get(provider, 0)
                return None if tariff is None else tariff.nano_usd(usage, least_audio_ms=least_ms)
        return None

    def nothing(self) -> Cost:
        """The cost of what a provider did not do."""
        return Cost(0, self.revision)

    def listed_name(self, provider: str, model: str) -> str | None:
        """What the price list calls this model, one of its finitely many names; None: it is not there."""
        listed = self._listed(provider, model)
        return None if listed is None else listed.id

    def _listed(self, provider: str, model: str) -> ModelInfo | None:
        return self._found(provider, model) if 0 < len(model) <= LONGEST_NAME else None

    def _find(self, provider_name: str, model_name: str) -> ModelInfo | None:
        provider = self._by_id.get(_IDS.get(provider_name, provider_name))
        if provider is None:
            return None
        return provider.find_model(bare_name(provider_name, model_name), all_providers=self._providers)

    def _tariff(self, model: ModelInfo, at_ns: int) -> Tariff | None:
        prices = model.get_prices(datetime.fromtimestamp(at_ns / 1e9, UTC))
        if id(prices) not in self._tariffs:
            listed = vars(prices)
            self._tariffs[id(prices)] = Tariff(listed) if can_be_computed(listed) else None
        return self._tariffs[id(prices)]


def priced_names(provider: str, requested: str, answered: str) -> tuple[str, str]:
    """Which name decides the price, then which if that has none.

    The model that answered, else the one that was asked for: an Azure deployment has any name.
    """
    return (requested, answered) if provider in _PRICED_AS_REQUESTED else (answered, requested)


def bare_name(provider: str, model: str) -> str:
    """The model's name without what a dialect puts before it."""
    for prefix in _PREFIXES.get(_IDS.get(provider, provider), ()):
        model = model.removeprefix(prefix)
    return model
