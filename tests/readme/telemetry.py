"""The names that telemetry used during a run: metrics with their labels, spans with their attributes."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from extproc.telemetry import Metrics
from tests.e2e.otlp import OtlpReceiver
from tests.e2e.stack import Stack
from tests.readme.markdown import code, table
from tests.readme.ours import PATIENCE_S, exposition


def blocks(stack: Stack, receiver: OtlpReceiver) -> dict[str, str]:
    """What has been exported so far; the receiver must have had a 429 too."""
    receiver.wait_for(
        lambda spans: any("ai_policy.limit.retry_after_ms" in span.attributes for span in spans), PATIENCE_S
    )
    return {"metric-names": _metrics(stack), "attributes": _attributes(receiver)}


def _metrics(stack: Stack) -> str:
    found = {family.name: family for family in (*_unprovoked(), *_families(exposition(stack)))}
    rows = [
        (code(_sample(family)), family.type, ", ".join(map(code, _labels(family))), family.documentation)
        for _, family in sorted(found.items())
        if not family.name.startswith("target")
    ]
    return table(("metric", "type", "labels", "what it counts"), rows)


def _families(text: str) -> Iterator[Metric]:
    yield from text_string_to_metric_families(text)


def _unprovoked() -> Iterator[Metric]:
    """What no request of the README brings about."""
    metrics = Metrics(version="")
    metrics.failures.add(1, error_type="internal")
    yield from _families(metrics.exposition().decode())
    metrics.close()


def _sample(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labels(family: Metric) -> list[str]:
    return sorted({label for sample in family.samples for label in sample.labels} - {"le"})


def _attributes(receiver: OtlpReceiver) -> str:
    names: dict[str, set[str]] = {}
    for span in receiver.spans():
        policys = {
            name for name in span.attributes if span.service == "extproc" or name.startswith("ai_policy.")
        }
        if policys:
            # A span of the provider's work is named after operation and model.
            name = span.name if span.name == "ai_policy.decide" or span.service != "extproc" else "chat MODEL"
            names.setdefault(name, set()).update(policys)
    rows = [(code(span), ", ".join(map(code, sorted(found)))) for span, found in sorted(names.items())]
    return table(("span", "attributes of ours"), rows)
