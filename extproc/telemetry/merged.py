"""The metrics of several processes as one exposition.

Floor 3. Counters and histograms are added up. A gauge belongs to one process and says so with a label
`worker`; what describes the program (`*_info`) is said once, and again by a process that says otherwise.
What a process had counted when it ended stays in the sums: Prometheus would take a sum that falls for a
restart, and count all of it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

Families = tuple[Metric, ...]

_ADDED = frozenset({"counter", "histogram", "summary"})


def read(exposition: bytes) -> Families:
    """Parse the Prometheus text format."""
    return tuple(text_string_to_metric_families(exposition.decode()))


def counted(*sources: Families) -> Families:
    """Only what can be added up, added up: what outlives a process."""
    return _sum((family, {}) for source in sources for family in source if family.type in _ADDED)


def merged(workers: Mapping[str, Families], ended: Families) -> Families:
    """One exposition of what the running `workers` say, by name, and of what earlier ones `counted`."""
    families: list[tuple[Metric, Mapping[str, str]]] = [(family, {}) for family in ended]
    for worker, source in workers.items():
        for family in source:
            is_shared = family.type in _ADDED or family.name.endswith("_info")
            families.append((family, {} if is_shared else {"worker": worker}))
    return _sum(families)


def written(families: Families) -> bytes:
    """The Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(families))
    return generate_latest(registry)


class _Given(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class _Series(NamedTuple):
    name: str
    labels: tuple[tuple[str, str], ...]


def _sum(families: Iterable[tuple[Metric, Mapping[str, str]]]) -> Families:
    """One family a name, one sample a series; what is no sum keeps the last value said."""
    heads: dict[str, Metric] = {}
    values: dict[str, dict[_Series, float]] = {}
    for family, extra in families:
        heads.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        series = values.setdefault(family.name, {})
        for sample in family.samples:
            key = _Series(sample.name, tuple(sorted({**sample.labels, **extra}.items())))
            before = series.get(key, 0.0) if family.type in _ADDED else 0.0
            series[key] = before + sample.value
    for name, head in heads.items():
        for key, value in values[name].items():
            head.add_sample(key.name, dict(key.labels), value)
    return tuple(heads.values())
