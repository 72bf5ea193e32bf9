"""Projections of a decision for operators: spans, metrics and log records.

Floor 3. Lossy by design and never in a request's way: a slow or dead exporter drops telemetry,
never traffic. No prompt text and no credential passes here, because a `Decision` holds none.
"""

from __future__ import annotations

from extproc.telemetry import logs
from extproc.telemetry.instruments import Figure
from extproc.telemetry.logs import configure_logging
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.names import Names
from extproc.telemetry.parents import Parent, parent_of
from extproc.telemetry.tracing import Tracing

__all__ = ["Figure", "Metrics", "Names", "Parent", "Tracing", "configure_logging", "logs", "parent_of"]
