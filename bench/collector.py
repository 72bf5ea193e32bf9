"""An OTLP collector that takes every span and keeps none: `python -m bench.collector PORT`."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc

from bench.load import HOST

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
# An ExportTraceServiceResponse that says nothing is wrong.
TAKEN = b""


async def export(_: bytes, __: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    """Take them."""
    return TAKEN


async def serve(port: int) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(export)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": method}),))
    server.add_insecure_port(f"{HOST}:{port}")
    await server.start()
    await stop.wait()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
