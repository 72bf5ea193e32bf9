"""What the SDK's exporters log when they fail, kept from the log and told once in our words.

Floor 3. An exporter says the same at every batch; what people need is when it began, why, and when it ended.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import Final, Self

log = logging.getLogger(__name__)

_LONGEST_CAUSE: Final = 256
_EXPORTERS: Final = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http._common",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


def harmless(text: str) -> str:
    """What the SDK says, and no password: an endpoint may carry one before its host."""
    return re.sub(r"[^\s/]+@", "", text)[:_LONGEST_CAUSE]


class Overheard:
    """What the exporters say in this thread inside a `with`; the last of it is the cause."""

    def __init__(self) -> None:
        self.cause = ""

    def __enter__(self) -> Self:
        for name in _EXPORTERS:
            logging.getLogger(name).addFilter(_overhear)
        _thread.overheard = self
        return self

    def __exit__(self, *_: object) -> None:
        _thread.overheard = None


class Telling:
    """Tells once that a signal is not exported, and once that it is again."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._dropped_before = 0
        self.is_failing = False

    def sent(self, dropped: int) -> None:
        """An export succeeded; `dropped` is how much was lost up to now."""
        if self.is_failing:
            lost = dropped - self._dropped_before
            log.warning("telemetry is exported again", extra={"what": self._what, "dropped": lost})
        self.is_failing = False

    def failed(self, cause: str, dropped_before: int) -> None:
        """An export failed; `dropped_before` is how much had been lost until then."""
        if not self.is_failing:
            self._dropped_before = dropped_before
            log.warning("telemetry is not exported", extra={"what": self._what, "cause": cause})
        self.is_failing = True


_thread = threading.local()


def _overhear(record: logging.LogRecord) -> bool:
    """A filter of the exporters' loggers."""
    overheard: Overheard | None = getattr(_thread, "overheard", None)
    if overheard is None:
        return True
    overheard.cause = harmless(record.getMessage())
    return False
