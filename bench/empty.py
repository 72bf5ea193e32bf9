"""An ext_proc server that decides nothing: what grpc.aio costs before any policy.

`python -m bench.empty unix:PATH`. It reads and answers every message as our server does, with
answers that were encoded once.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health  # type: ignore[attr-defined]  # the stubs are older

from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb

# Not imported from our server, which would bring the whole product into this process.
SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

ANSWERS: dict[str, bytes] = {
    "request_headers": pb.ProcessingResponse(request_headers=pb.HeadersResponse()).SerializeToString(),
    "request_body": pb.ProcessingResponse(request_body=pb.BodyResponse()).SerializeToString(),
    "response_headers": pb.ProcessingResponse(response_headers=pb.HeadersResponse()).SerializeToString(),
    "response_trailers": pb.ProcessingResponse(response_trailers=pb.TrailersResponse()).SerializeToString(),
}


async def process(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Continue, whatever comes."""
    while isinstance(message := await context.read(), pb.ProcessingRequest):
        await context.write(ANSWERS[message.WhichOneof("request")])


async def serve(address: str) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(
        process, request_deserializer=pb.ProcessingRequest.FromString, response_serializer=bytes
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Process": method}),))
    # Envoy asks for its health before it sends anything.
    health = grpc_health.HealthServicer()
    await health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_insecure_port(address)
    await server.start()
    await stop.wait()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
