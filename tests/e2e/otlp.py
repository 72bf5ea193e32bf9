"""A real OTLP receiver: keeps every span and log record that Envoy and the sidecar export."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedSpan:
    """One span, in plain values."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    status: int
    attributes: dict[str, Any]
    links: tuple[str, ...]
    events: tuple[tuple[str, dict[str, Any]], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedLog:
    """One log record, in plain values."""

    event_name: str
    severity: str
    trace_id: str
    span_id: str
    body: Any
    attributes: dict[str, Any]


def _plain(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: _plain(item.value) for item in value.kvlist_value.values}
    return getattr(value, kind)


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self) -> None:
        self.received: list[ReceivedLog] = []

    def Export(  # noqa: N802  gRPC's name and arguments
        self,
        request: logs_service_pb2.ExportLogsServiceRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> logs_service_pb2.ExportLogsServiceResponse:
        self.received += [
            ReceivedLog(
                event_name=record.event_name,
                severity=record.severity_text,
                trace_id=record.trace_id.hex(),
                span_id=record.span_id.hex(),
                body=_plain(record.body),
                attributes={a.key: _plain(a.value) for a in record.attributes},
            )
            for resource_logs in request.resource_logs
            for scope_logs in resource_logs.scope_logs
            for record in scope_logs.log_records
        ]
        return logs_service_pb2.ExportLogsServiceResponse()


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """`with OtlpReceiver() as receiver:` listens on a free port until the block ends."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._spans: list[ReceivedSpan] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # generated
        self._logs = _Logs()
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(self._logs, self._server)  # type: ignore[no-untyped-call]  # generated
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def Export(  # noqa: N802  gRPC's name and arguments
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        with self._lock:
            self._spans.extend(read_spans(request))
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[ReceivedSpan]:
        with self._lock:
            return list(self._spans)

    def logs(self) -> list[ReceivedLog]:
        return list(self._logs.received)

    def wait_for(
        self, wanted: Callable[[list[ReceivedSpan]], bool], timeout_s: float = 20
    ) -> list[ReceivedSpan]:
        """The spans, once `wanted` is true of them. Exporters batch for up to several seconds."""
        deadline = time.monotonic() + timeout_s
        while not wanted(self.spans()):
            if time.monotonic() > deadline:
                names = [f"{s.service}: {s.name} {s.trace_id}" for s in self.spans()]
                raise AssertionError(f"these spans never became what was wanted: {names}")
            time.sleep(0.1)
        return self.spans()


def read_spans(request: trace_service_pb2.ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for resource_spans in request.resource_spans:
        resource = {a.key: _plain(a.value) for a in resource_spans.resource.attributes}
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield ReceivedSpan(
                    service=str(resource.get("service.name", "")),
                    name=span.name,
                    kind=span.kind,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    status=span.status.code,
                    attributes={a.key: _plain(a.value) for a in span.attributes},
                    links=tuple(link.trace_id.hex() for link in span.links),
                    events=tuple(
                        (event.name, {a.key: _plain(a.value) for a in event.attributes})
                        for event in span.events
                    ),
                )
