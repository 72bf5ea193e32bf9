"""Decisions and settlements as OpenTelemetry's log records, for who asks with `OTEL_LOGS_EXPORTER=otlp`.

Floor 3. An endpoint alone does not ask: Jaeger takes spans and refuses log records. They carry the ids
of the decision's span. A view for operators; the record is in the ledger.
"""

from __future__ import annotations

import os
from typing import Self

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context
from opentelemetry.util.types import AttributeValue

from extproc.decision import Decision, Settlement
from extproc.telemetry import otlp
from extproc.telemetry.attributes import Attributes, decision_attributes, settlement_attributes
from extproc.telemetry.inference import wants_latest
from extproc.telemetry.logs import is_noteworthy
from extproc.telemetry.outlets import LogRecordOutlet


class Events:
    """Sends `ai_policy.decision` for what the log has too, and `ai_policy.usage.settled` for every answer."""

    def __init__(self, exporter: LogRecordExporter, resource: Resource, version: str) -> None:
        self.outlet = LogRecordOutlet(exporter)
        provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_log_record_processor(self.outlet.processor)
        self._logger = provider.get_logger("extproc", version)
        self._latest = wants_latest()

    @classmethod
    def wanted(cls, *, instance_id: str, version: str) -> Self | None:
        """These, or None where nobody asked for them."""
        if not os.environ.get("OTEL_LOGS_EXPORTER", "").strip():
            return None
        exporter = otlp.log_exporter()
        if exporter is None:
            return None
        return cls(exporter, otlp.resource(version=version, instance_id=instance_id), version)

    def decided(self, decision: Decision, span: SpanContext) -> None:
        """Send a verdict that somebody will ask about; the findings are its body."""
        if not is_noteworthy(decision) or not self.outlet.has_room():
            return
        severity = SeverityNumber.ERROR if decision.error_type else SeverityNumber.WARN
        attributes = decision_attributes(decision)
        findings = attributes.pop("ai_policy.findings")
        self._emit("ai_policy.decision", severity, attributes, decision.decided_at_ns, span, findings)

    def settled(self, decision: Decision, settlement: Settlement, span: SpanContext) -> None:
        """Send what an answer came to."""
        if not self.outlet.has_room():
            return
        severity = SeverityNumber.ERROR if settlement.error_type else SeverityNumber.INFO
        attributes = settlement_attributes(decision, settlement, latest=self._latest)
        self._emit("ai_policy.usage.settled", severity, attributes, settlement.ended_at_ns, span)

    def _emit(  # noqa: PLR0917  in the order of a record
        self,
        name: str,
        severity: SeverityNumber,
        attributes: Attributes,
        at_ns: int,
        span: SpanContext,
        findings: AttributeValue | None = None,
    ) -> None:
        record = LogRecord(
            timestamp=at_ns,
            context=set_span_in_context(NonRecordingSpan(span), Context()),
            severity_number=severity,
            severity_text=severity.name,
            body=None if findings is None else {"findings": findings},
            attributes=attributes,
            event_name=name,
        )
        self.outlet.take()
        self._logger.emit(record)
