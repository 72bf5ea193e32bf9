"""Prices of one's own before published ones: self-hosted models, discounts, and since when.

Floor 1, pure. How a policy folder writes them is the kind Price's; the arithmetic is `tariff`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

from extproc.decision import Cost
from extproc.measure.prices import LONGEST_NAME, MODELS, Prices, bare_name, priced_names
from extproc.measure.tariff import Tariff, rounded, share
from extproc.model import Usage

ANY: Final = "*"
ALWAYS_NS: Final = -(2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One price, or the percentage of the published one that is paid, for some models of one provider."""

    revision: str
    models: tuple[str, ...]  # lower case; a beginning of names ends in *
    provider: str = ""  # of any provider
    begins_ns: int = ALWAYS_NS  # Unix time
    tariff: Tariff | None = None  # None: the published price
    has_input: bool = True  # of the tariff
    has_output: bool = True
    percent: Decimal = Decimal(100)  # of the published price

    def nano_usd(self, usage: Usage) -> Decimal | None:
        """By its own tariff; None where that has no price for what was used."""
        if self.tariff is None or (usage.input_tokens and not self.has_input):
            return None
        if usage.output_tokens and not self.has_output:
            return None
        if usage.input_audio_ms and not (usage.input_tokens or usage.output_tokens):
            return None  # billed by its length, for which there is no price here
        return self.tariff.nano_usd(usage)


@dataclass(frozen=True, slots=True, order=True)
class _Rank:
    """How well an override fits, by what counts most."""

    is_exact: bool
    prefix: int  # its length
    names_provider: bool
    is_first_name: bool
    begins_ns: int


class Overrides:
    """Every override of one policy set; what was looked up is remembered with it."""

    def __init__(self, overrides: Iterable[Override] = ()) -> None:
        self._all = tuple(overrides)
        self._found = lru_cache(MODELS)(self._ranked)

    def over(self, published: Prices) -> PriceBook:
        """These before the published prices."""
        return PriceBook(published, self)

    def find(self, provider: str, requested: str, answered: str, at_ns: int) -> Override | None:
        """The one that holds for a model at a time, if any does."""
        if not self._all:
            return None
        # The first characters suffice to tell that a name is none of ours, or begins like one.
        names = requested[: LONGEST_NAME + 1].lower(), answered[: LONGEST_NAME + 1].lower()
        found = self._found(provider, *names)
        return next((override for override in found if override.begins_ns <= at_ns), None)

    def _ranked(self, provider: str, requested: str, answered: str) -> tuple[Override, ...]:
        """All that fit, the best first."""
        names = _spellings(provider, requested, answered)
        fitting = (
            (rank, override)
            for override in self._all
            if override.provider in ("", provider)
            for rank in [_rank(override, names)]
            if rank is not None
        )
        return tuple(override for _, override in sorted(fitting, key=lambda pair: pair[0], reverse=True))


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All prices as one request sees them: those of the folder it started with, then published ones."""

    published: Prices
    overrides: Overrides

    def cost(
        self, usage: Usage, *, provider: str, requested: str, answered: str = "", at_ns: int
    ) -> Cost | None:
        """What this usage costs at this Unix time, rounded once; None where there is no price for it.

        The revision names the override, the published prices, or where one is a share of the other both.
        """
        own = self.overrides.find(provider, requested, answered, at_ns)
        if own is not None and own.tariff is not None:
            exact = own.nano_usd(usage)
            return None if exact is None else Cost(rounded(exact), own.revision)
        exact = self.published.nano_usd(
            usage, provider=provider, requested=requested, answered=answered, at_ns=at_ns
        )
        if exact is None:
            return None
        if own is None:
            return Cost(rounded(exact), self.published.revision)
        revision = f"{own.revision} of {self.published.revision}"
        return Cost(rounded(share(exact, own.percent)), revision)

    def nothing(self) -> Cost:
        """The cost of what a provider did not do."""
        return self.published.nothing()


NO_PRICES: Final = Overrides().over(Prices())


def _spellings(provider: str, requested: str, answered: str) -> tuple[tuple[str, bool], ...]:
    """Every name the model has, and whether that is the one which decides the price."""
    first, second = priced_names(provider, requested, answered)
    named = [(name, is_first) for name, is_first in ((first, True), (second, False)) if name]
    bare = [(bare_name(provider, name), is_first) for name, is_first in named]
    # A server with one model may be asked without naming it.
    return tuple(dict.fromkeys([*named, *bare])) or (("", True),)


def _rank(override: Override, names: tuple[tuple[str, bool], ...]) -> _Rank | None:
    """The best fit of any of its models with any of the names."""
    fits = (
        _Rank(
            is_exact=not is_prefix,
            prefix=len(pattern) if is_prefix else 0,
            names_provider=bool(override.provider),
            is_first_name=is_first,
            begins_ns=override.begins_ns,
        )
        for pattern in override.models
        for is_prefix in [pattern.endswith(ANY)]
        for name, is_first in names
        if (name.startswith(pattern[:-1]) if is_prefix else name == pattern)
    )
    return max(fits, default=None)
