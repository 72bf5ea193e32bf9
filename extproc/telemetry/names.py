"""The models and providers of one exchange as metrics may name them: no more than a fixed number.

Floor 3. Names that a policy folder uses always stand for themselves. Of the thousands in a price list
each takes a place when it is first asked for, and once all places are taken the rest are `other`: a
client that walks through the list adds no further series.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from extproc.measure.prices import LONGEST_NAME, Prices, priced_names
from extproc.policy.known_models import OTHER, Configured, configured, known_model, known_provider
from extproc.policy.policyset import PolicySet

PLACES: Final = 100
_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class Named:
    """Label values; empty where there is no name at all."""

    provider: str
    requested: str
    answered: str
    priced: str  # whichever of the two decides the price


class Names:
    """Finds label values; without a folder only the places count."""

    def __init__(
        self,
        published: Prices | None = None,
        policies: Callable[[], PolicySet | None] = lambda: None,
        *,
        places: int = PLACES,
    ) -> None:
        self._published = published or Prices()
        self._policies = policies
        self._seen: PolicySet | None = None
        self._configured = Configured()
        self._places = places
        self._taken: set[tuple[str, str]] = set()
        self._found: dict[tuple[str, str, str], Named] = {}

    def of(self, provider: str, requested: str, answered: str = "") -> Named:
        """The names of one exchange, the model as it was asked upstream and as it answered."""
        policies = self._policies()
        if policies is not self._seen:
            self._seen = policies
            self._configured = Configured() if policies is None else configured(policies)
            self._found.clear()
        key = provider, requested[: LONGEST_NAME + 1], answered[: LONGEST_NAME + 1]
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._found[key] = self._named(*key)
        return found

    def _named(self, provider: str, requested: str, answered: str) -> Named:
        labels = {model: self._model(provider, model) for model in (requested, answered)}
        priced = (labels[model] for model in priced_names(provider, requested, answered))
        return Named(
            provider=known_provider(self._configured, provider),
            requested=labels[requested],
            answered=labels[answered],
            priced=next((label for label in priced if label not in ("", OTHER)), OTHER),
        )

    def _model(self, provider: str, model: str) -> str:
        if not model:
            return ""
        label = known_model(self._published, self._configured, provider, model)
        if label == OTHER or label in self._configured.models or label in self._configured.beginnings:
            return label
        place = provider, label
        if place not in self._taken:
            if len(self._taken) >= self._places:
                return OTHER
            self._taken.add(place)
        return label
