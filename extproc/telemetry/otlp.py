"""Which signals go out by OTLP, and by which exporter: OpenTelemetry's own variables decide.

Floor 3. A signal is exported where `OTEL_{TRACES,METRICS,LOGS}_EXPORTER` lists `otlp`, or says nothing
and an endpoint is set. Endpoints, headers, certificates, time limits and temporality are read by the
exporters themselves. Source: OpenTelemetry's specification, "Environment variable specification" and
"Protocol exporter".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, OTELResourceDetector, Resource

from extproc.errors import AIPolicyError, SettingsInvalid
from extproc.telemetry.overheard import harmless

if TYPE_CHECKING:
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter


class Signal(StrEnum):
    """What is exported; the word in the names of variables."""

    TRACES = "TRACES"
    METRICS = "METRICS"
    LOGS = "LOGS"


_CLASSES: Final[Mapping[Signal, tuple[str, str]]] = MappingProxyType(
    {
        Signal.TRACES: ("trace_exporter", "OTLPSpanExporter"),
        Signal.METRICS: ("metric_exporter", "OTLPMetricExporter"),
        Signal.LOGS: ("_log_exporter", "OTLPLogExporter"),
    }
)
_PACKAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "grpc": "opentelemetry.exporter.otlp.proto.grpc",
        "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    }
)
_DEFAULT_PROTOCOL: Final = "grpc"


@contextmanager
def understood() -> Iterator[None]:
    """Let the SDK read its variables. Raises `SettingsInvalid` for what it can make nothing of."""
    try:
        yield
    except AIPolicyError:
        raise
    except Exception as error:
        why = harmless(str(error)) or type(error).__name__
        raise SettingsInvalid(f"a variable of OpenTelemetry (OTEL_...) makes no sense: {why}") from error


def is_exported(signal: Signal, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody wants this signal by OTLP."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environ.get(f"OTEL_{signal}_EXPORTER", "").strip()
    if exporters:
        return "otlp" in (name.strip().lower() for name in exporters.split(","))
    return bool(
        environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    )


def protocol(signal: Signal, environ: Mapping[str, str] = os.environ) -> str:
    """How this signal is sent, `grpc` or `http/protobuf`. Raises `SettingsInvalid` for any other word.

    A collector that is spoken to in another protocol than it was told to expect would drop everything.
    """
    variables = (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    variable = next((name for name in variables if environ.get(name, "").strip()), None)
    if variable is None:
        return _DEFAULT_PROTOCOL
    said = environ[variable].strip().lower()
    if said not in _PACKAGES:
        raise SettingsInvalid(f"{variable}={said}: this sidecar speaks {' and '.join(_PACKAGES)}")
    return said


def span_exporter() -> SpanExporter | None:
    """The exporter of spans; None where nobody wants them. Raises `SettingsInvalid`."""
    made = _exporter(Signal.TRACES)
    return None if made is None else cast("SpanExporter", made())


def metric_exporter() -> MetricExporter | None:
    """The exporter of metrics; None where nobody wants them. Raises `SettingsInvalid`."""
    made = _exporter(Signal.METRICS)
    return None if made is None else cast("MetricExporter", made())


def log_exporter() -> LogRecordExporter | None:
    """The exporter of log records; None where nobody wants them. Raises `SettingsInvalid`."""
    made = _exporter(Signal.LOGS)
    return None if made is None else cast("LogRecordExporter", made())


def _exporter(signal: Signal) -> Callable[[], Any] | None:
    if not is_exported(signal):
        return None
    module, name = _CLASSES[signal]
    # Each brings a transport along that only those pay for who use it.
    exporters = import_module(f"{_PACKAGES[protocol(signal)]}.{module}")
    return cast("Callable[[], Any]", getattr(exporters, name))


def resource(*, version: str, instance_id: str) -> Resource:
    """Who sends: what the standard variables say, else our own words.

    The instance is always the process's own: workers share an environment, and two that said the same
    would overwrite each other's sums.
    """
    ours = Resource.create({"service.name": "extproc", "service.version": version})
    named = ours.merge(OTELResourceDetector().detect())
    return named.merge(Resource({SERVICE_INSTANCE_ID: instance_id}))
