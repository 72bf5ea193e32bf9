"""Which names of models and providers may stand on a metric: those somebody priced or configured.

Floor 1, pure. A client chooses `request.model` freely, so its own word is never a label; the name of the
price that matches it is, and of those there are finitely many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from extproc.formats.providers import NAMES
from extproc.measure.overrides import ANY
from extproc.measure.prices import LONGEST_NAME, Prices, bare_name
from extproc.policy.kinds.price import Price
from extproc.policy.kinds.provider import Provider
from extproc.policy.kinds.usage_cap import UsageCap

if TYPE_CHECKING:
    from extproc.policy.policyset import PolicySet

OTHER: Final = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """The names that one policy folder uses."""

    models: frozenset[str] = frozenset()
    beginnings: tuple[str, ...] = ()  # with their `*`, the longest first
    providers: frozenset[str] = NAMES


def configured(policies: PolicySet) -> Configured:
    """What the objects of a folder name: prices, substitutes and providers."""
    models: set[str] = set()
    providers: set[str] = set()
    for item in policies.objects:
        match item.spec:
            case Price(models=priced):
                models.update(priced)
            case UsageCap():
                models.add(item.spec.substitute.lower())
            case Provider(provider=name):
                providers.add(name)
    beginnings = {name for name in models if name.endswith(ANY)} - {ANY}
    return Configured(
        models=frozenset(models - beginnings - {ANY, ""}),
        beginnings=tuple(sorted(beginnings, key=lambda name: (-len(name), name))),
        providers=NAMES | providers,
    )


def known_provider(known: Configured, provider: str) -> str:
    """The provider's name, if it is one of those there are."""
    return provider if provider in known.providers else OTHER


def known_model(published: Prices, known: Configured, provider: str, model: str) -> str:
    """The name under which this model is configured or priced, else `other`."""
    name = model[: LONGEST_NAME + 1].lower()
    for spelling in (name, bare_name(provider, name)):
        if spelling in known.models:
            return spelling
    priced = published.listed_name(provider, name)
    if priced is not None:
        return priced
    return next((each for each in known.beginnings if name.startswith(each[:-1])), OTHER)
