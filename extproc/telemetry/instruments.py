"""What requests count with: cheap to add to, read when somebody collects.

Floor 3. A synchronous counter or histogram of the SDK takes 5 to 9 us a measurement and reader, a dozen
of them a request; these take about one, however many read. No more than `MOST_SERIES` of one name:
whatever is beyond is one series that says so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from extproc.model import nothing

MOST_SERIES: Final = 4000
# OpenTelemetry's word for it.
OVERFLOW: Final = (("otel.metric.overflow", "true"),)

Labels = tuple[tuple[str, str], ...]


class Tally:
    """A counter. What was never touched is not exported: name the labels that `begins` at zero.

    An alert on the rise of a series never sees the first one, if that is there only from then on.
    """

    def __init__(
        self, meter: Meter, name: str, unit: str, description: str, *, begins: Iterable[Labels] = ()
    ) -> None:
        self._counts: dict[Labels, int] = dict.fromkeys(begins, 0)
        meter.create_observable_counter(name, [self._observe], unit, description)

    def add(self, amount: int, **labels: str) -> None:
        """Add; the same labels always come in the same order from one place."""
        key = tuple(labels.items())
        before = self._counts.get(key)
        if before is None:
            if len(self._counts) >= MOST_SERIES:
                key = OVERFLOW
            before = self._counts.get(key, 0)
        self._counts[key] = before + amount

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(count, dict(labels)) for labels, count in list(self._counts.items())]


class Level:
    """A number that rises and falls."""

    def __init__(self, meter: Meter, name: str, unit: str, description: str) -> None:
        self.value = 0
        meter.create_observable_up_down_counter(name, [self._observe], unit, description)

    def add(self, amount: int) -> None:
        """Add, or with a minus take away."""
        self.value += amount

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self.value)]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that somebody else keeps; what only rises is a counter."""

    name: str
    unit: str
    description: str
    read: Callable[[], int | float]
    only_rises: bool = False
    labels: Callable[[], Mapping[str, str]] = nothing  # as they are when somebody collects

    def register(self, meter: Meter) -> None:
        """Have it read by whoever collects."""
        create = meter.create_observable_counter if self.only_rises else meter.create_observable_gauge
        create(self.name, [self._observe], self.unit, self.description)

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self.read(), dict(self.labels()))]


@dataclass(slots=True)
class Cell:
    """One series of a distribution."""

    counts: list[int]  # a bucket each; the last has no upper bound
    total: float = 0.0


@dataclass(slots=True, kw_only=True)
class Distribution:
    """A histogram; `aliases` are other names under which it goes out too.

    Threads may record: a measurement in a million may be lost, none is counted twice.
    """

    name: str
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    bounds: Sequence[float]  # each belongs to the bucket below it
    aliases: tuple[str, ...] = ()
    cells: dict[tuple[str, ...], Cell] = field(default_factory=dict)

    def record(self, value: float, *values: str) -> None:
        """Measure; a value for each of `labels`, empty for one that does not apply."""
        cell = self.cells.get(values) or self._cell(values)
        cell.counts[bisect_left(self.bounds, value)] += 1
        cell.total += value

    def _cell(self, values: tuple[str, ...]) -> Cell:
        if len(self.cells) >= MOST_SERIES:
            values = ()
        return self.cells.setdefault(values, Cell([0] * (len(self.bounds) + 1)))

    def labelled(self, values: tuple[str, ...]) -> Mapping[str, str]:
        """The attributes of one series."""
        if self.labels and not values:
            return dict(OVERFLOW)
        return {name: value for name, value in zip(self.labels, values, strict=True) if value}
