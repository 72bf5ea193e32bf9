"""The gRPC server: one `Process` call is one HTTP request.

Floor 3. Accepts streams, refuses modes it cannot protect, and stops without cutting what is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health  # type: ignore[attr-defined]  # the stubs are older

from extproc import wire
from extproc.edge import Edge
from extproc.errors import SettingsInvalid
from extproc.exchange import Exchange
from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb
from extproc.policy.policyset import PolicySet
from extproc.session.admission import SessionSettings
from extproc.session.session import Session
from extproc.settings import Settings
from extproc.telemetry import Metrics, Parent, parent_of

log = logging.getLogger(__name__)

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

# The client's and Envoy's access log read this; it must say nothing about the request.
_FAILED = "ai_policy: internal error"

_OPTIONS = (
    # Envoy bounds bodies (request_body_buffer_limit); Python's default of 4 MiB would cut them first.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Two processes that share a port would each get an unpredictable half of Envoy's connections.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 100_000),
    # Envoy's connection_keepalive pings while answers stream past us in silence; gRPC would take the
    # third ping for abuse (its default allows one in five minutes) and cut every open answer.
    ("grpc.http2.max_ping_strikes", 0),
)


def new_decision_id(at_ns: int) -> str:
    """A UUIDv7 (RFC 9562, section 5.7): time first, so that ids sort."""
    milliseconds = at_ns // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | secrets.randbits(12) << 64
    value |= 0b10 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class ExternalProcessor:
    """Envoy's `ExternalProcessor` service over the session."""

    def __init__(self, policies: Callable[[], PolicySet], edge: Edge, settings: SessionSettings) -> None:
        self._policies = policies
        self._edge = edge
        self._settings = settings
        self.metrics = edge.metrics
        self.open_streams = 0
        self.access_log = edge.access_log
        self.idle = asyncio.Event()
        self.idle.set()

    async def process(self, _: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Serve one stream. Aborts with a fixed text on any error of ours: fail closed."""
        edge = self._edge
        self._opened()
        try:
            first = await context.read()
            if not isinstance(first, pb.ProcessingRequest):
                return
            problem = wire.unsupported(first)
            if problem is not None:
                log.error("unsupported Envoy configuration", extra={"problem": problem})
                edge.metrics.failures.add(1, error_type="unsupported_protocol_config")
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"ai_policy: {problem}")
            decision_id = new_decision_id(edge.clock_ns())
            parent = _parent(first, context)
            trace = edge.tracing.trace_of(decision_id, parent)
            session = Session(self._policies(), decision_id=decision_id, settings=self._settings, trace=trace)
            await Exchange(session, edge, parent).run(_Stream(first, context))
        except grpc.aio.AbortError:
            raise
        except Exception:
            log.exception("stream failed")
            edge.metrics.failures.add(1, error_type="internal")
            await context.abort(grpc.StatusCode.INTERNAL, _FAILED)
        finally:
            self._closed()

    def _opened(self) -> None:
        self.open_streams += 1
        self.idle.clear()
        self._edge.metrics.streams_active.add(1)

    def _closed(self) -> None:
        self.open_streams -= 1
        self._edge.metrics.streams_active.add(-1)
        if self.open_streams == 0:
            self.idle.set()

    def handlers(self) -> tuple[grpc.GenericRpcHandler[Any, Any], ...]:
        """The service, with answers that are serialized already, and that for Envoy's access log."""
        process = grpc.stream_stream_rpc_method_handler(
            self.process, request_deserializer=pb.ProcessingRequest.FromString, response_serializer=bytes
        )
        own = grpc.method_handlers_generic_handler(SERVICE, {"Process": process})
        return own, self._edge.access_log.handler()

    async def over(self) -> None:
        """Wait until no stream is open and all of them are settled."""
        await self.idle.wait()
        while self._edge.background:
            await asyncio.wait(self._edge.background)


class _Stream:
    """The stream with its first message put back."""

    def __init__(self, first: pb.ProcessingRequest, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._first: pb.ProcessingRequest | None = first
        self._context = context
        self.write = context.write

    async def read(self) -> Any:
        first, self._first = self._first, None
        return first if first is not None else await self._context.read()


def _parent(first: pb.ProcessingRequest, context: grpc.aio.ServicerContext[Any, Any]) -> Parent:
    names = ("traceparent", "tracestate")
    metadata = {key: str(value) for key, value in context.invocation_metadata() or () if key in names}
    headers = {
        h.key: (h.raw_value or h.value.encode()).decode("latin-1")
        for h in first.request_headers.headers.headers
        if h.key in names
    }
    return parent_of(metadata, headers)


class _Health(grpc_health.HealthServicer):  # type: ignore[misc]  # untyped there
    """The health service; counts who asks, so that one can see whether Envoy knows of this process."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  gRPC's name
        """Answer as ever, and count."""
        answer = await super().Check(request, context)
        self._metrics.health_checks.add(
            1, status=health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        )
        return answer


class Server:
    """The listening server with its health service."""

    def __init__(self, processor: ExternalProcessor, settings: Settings) -> None:
        self._processor = processor
        self._settings = settings
        self._server = grpc.aio.server(options=_OPTIONS)
        self.address = settings.grpc
        self._health = _Health(processor.metrics)
        self._server.add_generic_rpc_handlers(processor.handlers())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self) -> str:
        """Listen; returns the address, with the port that was picked where 0 was asked for.

        Raises `SettingsInvalid` if the address cannot be used.
        """
        address = self._settings.grpc
        if address.startswith("unix:"):
            _clear_socket(Path(address.removeprefix("unix:")))
        try:
            port = self._listen(address)
        except RuntimeError:
            port = 0
        if port == 0:
            tls = "" if self._settings.tls_cert is None else ", or --tls-cert and --tls-key are no PEM pair"
            raise SettingsInvalid(
                f"cannot listen for gRPC on {address}: in use or not allowed{tls}; "
                "--grpc (EXTPROC_GRPC) moves it"
            )
        await self._server.start()
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        self.address = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
        return self.address

    def _listen(self, address: str) -> int:
        settings = self._settings
        if settings.tls_cert is None or settings.tls_key is None:
            return self._server.add_insecure_port(address)
        client_ca = _pem(settings.tls_client_ca, "tls-client-ca") if settings.tls_client_ca else None
        credentials = grpc.ssl_server_credentials(
            [(_pem(settings.tls_key, "tls-key"), _pem(settings.tls_cert, "tls-cert"))],
            root_certificates=client_ca,
            require_client_auth=client_ca is not None,
        )
        return self._server.add_secure_port(address, credentials)

    async def stop(self) -> None:
        """Say NOT_SERVING, serve until the open streams are over or `drain_s` passed, then close.

        New streams are still served meanwhile: Envoy learns of NOT_SERVING at its next health check.
        """
        ends_at = time.monotonic() + self._settings.drain_s
        await self._health.enter_graceful_shutdown()
        with contextlib.suppress(TimeoutError):
            # Envoy's access log may still tell of answers that ended early.
            await asyncio.wait_for(self._processor.over(), self._settings.drain_s)
        self._processor.access_log.close()
        # A stream that began while the last one ended is served too.
        await self._server.stop(max(0.0, ends_at - time.monotonic()))


def _pem(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        variable = f"EXTPROC_{flag.upper().replace('-', '_')}"
        raise SettingsInvalid(f"--{flag} ({variable}) {path}: {error.strerror}") from error


def _clear_socket(path: Path) -> None:
    """Remove a socket that a killed process left; one that somebody listens on stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsInvalid(
            f"cannot make the folder of unix:{path} ({error.strerror}); --grpc (EXTPROC_GRPC) moves it"
        ) from error
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise SettingsInvalid(f"another process listens on unix:{path}; --grpc (EXTPROC_GRPC) moves this one")
