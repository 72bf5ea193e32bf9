"""Who collects: Prometheus when it scrapes, and an OTLP exporter now and then; both get distributions too.

Floor 3. The SDK has no histogram that is read when somebody collects, so the points of ours are put
beside those of the SDK's instruments on their way out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, cast

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics import ObservableCounter, ObservableGauge, ObservableUpDownCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from prometheus_client import CollectorRegistry

from extproc.telemetry.instruments import MOST_SERIES, Distribution
from extproc.telemetry.overheard import Overheard, Telling

# The SDK folds what is beyond these; ours do so themselves, and one more series says that they did.
_LIMITS: Final[Any] = dict.fromkeys(
    (ObservableCounter, ObservableGauge, ObservableUpDownCounter), MOST_SERIES + 2
)


class Points:
    """The distributions as one reader is told of them; with `is_delta` what happened since it was last."""

    def __init__(self, distributions: Iterable[Distribution], *, is_delta: bool = False) -> None:
        self._distributions = distributions  # may still grow
        self._is_delta = is_delta
        self._before: dict[tuple[str, tuple[str, ...]], tuple[list[int], float]] = {}
        self._since_ns = time.time_ns()

    def beside(self, collected: MetricsData) -> MetricsData:
        """The same and these; nothing where the SDK collected nothing, because it is switched off."""
        if not collected.resource_metrics:
            return collected
        metrics = self._metrics(time.time_ns())
        first = collected.resource_metrics[0]
        scope = first.scope_metrics[0]
        whole = replace(scope, metrics=[*scope.metrics, *metrics])
        resource = replace(first, scope_metrics=[whole, *first.scope_metrics[1:]])
        return MetricsData(resource_metrics=[resource, *collected.resource_metrics[1:]])

    def _metrics(self, at_ns: int) -> list[Metric]:
        kind = AggregationTemporality.DELTA if self._is_delta else AggregationTemporality.CUMULATIVE
        metrics = []
        for distribution in self._distributions:
            points = list(self._points(distribution, at_ns))
            if points:
                data = Histogram(data_points=points, aggregation_temporality=kind)
                metrics += [
                    Metric(name=name, description=distribution.description, unit=distribution.unit, data=data)
                    for name in (distribution.name, *distribution.aliases)
                ]
        if self._is_delta:
            self._since_ns = at_ns
        return metrics

    def _points(self, distribution: Distribution, at_ns: int) -> Iterable[HistogramDataPoint]:
        for values, cell in list(distribution.cells.items()):
            counts, total = list(cell.counts), cell.total
            if self._is_delta:
                counts, total = self._since_last((distribution.name, values), counts, total)
            if self._is_delta and not any(counts):
                continue
            yield HistogramDataPoint(
                attributes=distribution.labelled(values),
                start_time_unix_nano=self._since_ns,
                time_unix_nano=at_ns,
                count=sum(counts),
                sum=total,
                bucket_counts=counts,
                explicit_bounds=distribution.bounds,
                # Optional in OTLP, and not known of an interval.
                min=cast("float", None),
                max=cast("float", None),
            )

    def _since_last(
        self, key: tuple[str, tuple[str, ...]], counts: list[int], total: float
    ) -> tuple[list[int], float]:
        earlier, earlier_total = self._before.get(key, ([0] * len(counts), 0.0))
        self._before[key] = counts, total
        new = [now - before for now, before in zip(counts, earlier, strict=True)]
        return new, total - earlier_total


class ScrapedReader(PrometheusMetricReader):
    """For Prometheus, by a registry."""

    def __init__(self, registry: CollectorRegistry, points: Points) -> None:
        self._points = points
        super().__init__(registry=registry, scope_info_enabled=False, cardinality_limits=_LIMITS)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> None:
        super()._receive_metrics(self._points.beside(metrics_data), timeout_millis)


class PushingReader(PeriodicExportingMetricReader):
    """For a collector, every `OTEL_METRIC_EXPORT_INTERVAL`; from a thread of its own."""

    def __init__(
        self, exporter: MetricExporter, distributions: Iterable[Distribution], on_failure: Callable[[], None]
    ) -> None:
        watched = _Watched(exporter, on_failure)
        self._points = Points(distributions, is_delta=watched.is_delta)
        super().__init__(watched, cardinality_limits=_LIMITS)

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        super()._receive_metrics(self._points.beside(metrics_data), timeout_millis, **kwargs)


class _Watched(MetricExporter):
    """An exporter that tells of each export that failed."""

    def __init__(self, exporter: MetricExporter, on_failure: Callable[[], None]) -> None:
        # What the variables made of it; readers ask for just these two.
        temporality = exporter._preferred_temporality  # noqa: SLF001
        aggregation = exporter._preferred_aggregation  # noqa: SLF001
        super().__init__(preferred_temporality=temporality, preferred_aggregation=aggregation)
        self.is_delta = (temporality or {}).get(HistogramInstrument) is AggregationTemporality.DELTA
        self._exporter = exporter
        self._on_failure = on_failure
        self._telling = Telling("metrics")
        self._failed = 0

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        result = MetricExportResult.FAILURE
        with Overheard() as overheard:
            try:
                result = self._exporter.export(metrics_data, timeout_millis, **kwargs)
            except Exception as error:  # noqa: BLE001  a broken exporter is one that is down
                overheard.cause = type(error).__name__
        if result is MetricExportResult.SUCCESS:
            self._telling.sent(self._failed)
        else:
            self._telling.failed(overheard.cause, self._failed)
            self._failed += 1
            self._on_failure()
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._exporter.shutdown(timeout_millis, **kwargs)
