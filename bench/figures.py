"""From samples to figures: what a request costs, what a row adds, medians over rounds. Pure arithmetic.

Everything that compares two rows compares cells of the same round.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.load import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row under one workload in one round."""

    workload: str
    row: str
    round: int
    sample: Sample
    messages: int  # that Envoy sent to its sidecar, for all requests sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One quantity over the rounds."""

    median: float
    low: float
    high: float


# measure -> its figure. A ratio to something too small to be measured is absent.
Figures = Mapping[str, Figure]


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share (above 0, up to 1) of the values does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def summary(cells: Iterable[Cell], *, baseline: str, empty: str) -> dict[tuple[str, str], Figures]:
    """Figures by workload and row.

    `baseline` names the row that latencies and Envoy's CPU time are compared with, `empty` the one
    that the sidecar's CPU time is.
    """
    by_place = {(cell.workload, cell.row, cell.round): cell for cell in cells}
    rounds: dict[tuple[str, str], list[dict[str, float]]] = {}
    for (workload, row, number), cell in by_place.items():
        alone = by_place[workload, baseline, number]
        measured = measures(cell) | comparisons(cell, alone, by_place[workload, empty, number])
        rounds.setdefault((workload, row), []).append(measured)
    return {place: over_rounds(measured) for place, measured in rounds.items()}


def measures(cell: Cell) -> dict[str, float]:
    """What one cell says by itself; latencies in milliseconds, CPU time in microseconds a request."""
    sample = cell.sample
    answers = len(sample.latencies_us)
    latencies_ms = [latency / 1000 for latency in sample.latencies_us]
    cpu_us = {f"{name}_cpu_us": used / answers * 1e6 for name, used in sample.cpu_s.items()}
    ours_s = sum(sample.cpu_s.values()) + sample.load_cpu_s
    return cpu_us | {
        "requests_per_s": answers / sample.seconds,
        "p50_ms": percentile(latencies_ms, 0.5),
        "p99_ms": percentile(latencies_ms, 0.99),
        "first_byte_p50_ms": percentile(sample.first_bytes_us, 0.5) / 1000,
        "messages": cell.messages / sample.sent,
        "load_cpu_percent": sample.load_cpu_s / sample.seconds * 100,
        # In per cent of one core, as the load's.
        "strangers_cpu_percent": max(0.0, sample.machine_cpu_s - ours_s) / sample.seconds * 100,
    }


_ADDED = ("p50_ms", "p99_ms", "first_byte_p50_ms")
_RATIOS = (("envoy_cpu_us", "envoy_cpu_ratio"), ("sidecar_cpu_us", "sidecar_cpu_ratio"))


def comparisons(cell: Cell, alone: Cell, empty: Cell) -> dict[str, float]:
    """What one cell says beside the others of its round."""
    own, baseline, floor = measures(cell), measures(alone), measures(empty)
    compared = {f"added_{name}": own[name] - baseline[name] for name in _ADDED}
    for (name, ratio), other in zip(_RATIOS, (baseline, floor), strict=True):
        if name in own and other.get(name):
            compared[ratio] = own[name] / other[name]
    return compared


def over_rounds(rounds: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    """The figure of each measure; one that a round lacks is made of the others."""
    found: dict[str, list[float]] = {}
    for measured in rounds:
        for name, value in measured.items():
            found.setdefault(name, []).append(value)
    return {
        name: Figure(median=median(values), low=min(values), high=max(values))
        for name, values in found.items()
    }
