"""What leaves for a collector: bounded, counted, and never waited for.

Floor 3. The SDK's batch processors drop in silence and its exporters log every failure. Here what finds
no place is refused before it is made, all that is lost is counted, and the log says once that exporting
failed and once that it works again. A collector that is down, slow or mute costs that and nothing else.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Final

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from extproc.telemetry.instruments import Figure
from extproc.telemetry.overheard import Overheard, Telling

log = logging.getLogger(__name__)

# Two seconds of a thousand requests a second, two spans each. A span of a denial with ten findings is 14 KiB
# in memory, of an allowed request 5: some 60 MB at the worst.
_MOST_PENDING: Final = 4096
_BATCH: Final = 256
# Encoding holds the interpreter, and requests meanwhile wait: many short turns and not one long one every
# five seconds, which is OpenTelemetry's default. Half a second was 1.8 times the p99 of a request, this 1.25.
_DELAY_MS: Final = 100
_GRACE_S: Final = 3.0
_LAST_S: Final = 1.0  # for whoever was given up
_DIGITS: Final = 9  # of a number in a variable


@dataclass(frozen=True, slots=True)
class Batches:
    """How much waits for a collector, and how it goes out."""

    most_pending: int
    size: int
    delay_ms: int

    @classmethod
    def of(cls, kind: str) -> Batches:
        """As OpenTelemetry's variables say: `kind` is BSP for spans, BLRP for log records."""
        most = _whole_number(f"OTEL_{kind}_MAX_QUEUE_SIZE", _MOST_PENDING)
        size = _whole_number(f"OTEL_{kind}_MAX_EXPORT_BATCH_SIZE", _BATCH)
        delay_ms = _whole_number(f"OTEL_{kind}_SCHEDULE_DELAY", _DELAY_MS)
        return cls(most_pending=most, size=min(size, most), delay_ms=delay_ms)


class Outlet:
    """One signal on its way to a collector; places are taken on one thread, and sending is another's."""

    def __init__(self, what: str, exporter: SpanExporter | LogRecordExporter, batches: Batches) -> None:
        self._what = what
        self._exporter: Any = exporter
        self._batches = batches
        # Each is written by one thread alone.
        self._taken = 0
        self._refused = 0
        self._lost = 0
        self.exported = 0
        self._telling = Telling(what)
        self._is_given_up = False

    @property
    def dropped(self) -> int:
        """What nobody will see: refused for want of a place, or not accepted by the collector."""
        return self._refused + self._lost

    @property
    def pending(self) -> int:
        """What was made and is neither exported nor lost."""
        return self._taken - self.exported - self._lost

    def has_room(self) -> bool:
        """Whether one more may be made; what may not is counted as dropped.

        While the collector is away there is room for the batch under way and the next, to find out when it
        is back: the rest would be made and encoded for nobody.
        """
        batches = self._batches
        most = (
            min(2 * batches.size, batches.most_pending) if self._telling.is_failing else batches.most_pending
        )
        if self.pending < most:
            return True
        self._refused += 1
        return False

    def take(self) -> None:
        """Count one that is made and is now the SDK's."""
        self._taken += 1

    def send(self, batch: Sequence[Any]) -> bool:
        """Export a batch; False where it is lost."""
        with Overheard() as overheard:
            try:
                is_sent = bool(self._exporter.export(batch).name == "SUCCESS")
            except Exception as error:  # noqa: BLE001  a broken exporter is one that is down
                overheard.cause = type(error).__name__
                is_sent = False
        if is_sent:
            self.exported += len(batch)
            self._telling.sent(self.dropped)
        else:
            self._telling.failed(overheard.cause, self.dropped)
            self._lost += len(batch)
        return is_sent

    def give_up(self) -> None:
        """Export nothing more, not even what is under way."""
        if not self._is_given_up:
            self._is_given_up = True
            self._exporter.shutdown()

    def figures(self) -> Iterator[Figure]:
        """How much went where."""
        told = {
            "exported": ("Accepted by the collector.", True),
            "dropped": ("Lost: the collector was away or too slow.", True),
            "pending": ("On their way to the collector.", False),
        }
        for name, (description, only_rises) in told.items():
            yield Figure(
                f"ai_policy.telemetry.{self._what}.{name}",
                f"{{{self._what.removesuffix('s')}}}",
                description,
                partial(attrgetter(name), self),
                only_rises,
            )


class SpanOutlet(Outlet, SpanExporter):
    """Spans."""

    def __init__(self, exporter: SpanExporter) -> None:
        batches = Batches.of("BSP")
        super().__init__("spans", exporter, batches)
        self.processor = BatchSpanProcessor(self, batches.most_pending, batches.delay_ms, batches.size)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch, for the SDK."""
        return SpanExportResult.SUCCESS if self.send(spans) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Stop, for the SDK."""
        self.give_up()


class LogRecordOutlet(Outlet, LogRecordExporter):
    """Log records."""

    def __init__(self, exporter: LogRecordExporter) -> None:
        batches = Batches.of("BLRP")
        super().__init__("log_records", exporter, batches)
        self.processor = BatchLogRecordProcessor(
            self, batches.delay_ms, batches.size, max_queue_size=batches.most_pending
        )

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Export a batch, for the SDK."""
        return LogRecordExportResult.SUCCESS if self.send(batch) else LogRecordExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002  the SDK's signature
        """Nothing waits in an exporter."""
        return True

    def shutdown(self) -> None:
        """Stop, for the SDK."""
        self.give_up()


def close(outlets: Iterable[SpanOutlet | LogRecordOutlet]) -> None:
    """Export what is pending, all at once, and give up what takes more than a few seconds."""
    ends_at = time.monotonic() + _GRACE_S
    closing = [
        # Daemons: an exporter that cannot be interrupted ends with the process.
        (outlet, threading.Thread(target=outlet.processor.shutdown, daemon=True))
        for outlet in outlets
    ]
    for _, thread in closing:
        thread.start()
    for outlet, thread in closing:
        thread.join(max(0.0, ends_at - time.monotonic()))
        if thread.is_alive():
            outlet.give_up()
            thread.join(_LAST_S)


def _whole_number(name: str, default: int) -> int:
    said = os.environ.get(name, "").strip()
    # What threads wait with has an end.
    if said.isdecimal() and len(said) <= _DIGITS and int(said) > 0:
        return int(said)
    if said:
        log.warning(
            "not a whole number above 0, or too long a one",
            extra={"variable": name, "used_instead": default},
        )
    return default
