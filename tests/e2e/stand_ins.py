"""Stand-ins where only Envoy's configuration is tested.

A sidecar that allows everything, and a provider that writes down what reached it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf import struct_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb


@dataclass
class Sidecar:
    """What a sidecar was told, and how it is to answer; tests change it between requests."""

    port: int = 0
    requests: list[pb.ProcessingRequest] = field(default_factory=list)
    denial: pb.ImmediateResponse | None = None  # sent to the headers
    silent: bool = False  # never answers
    set_headers: dict[str, str] = field(default_factory=dict)  # on the request headers

    def kinds(self) -> list[str]:
        """Which messages came, in order."""
        return [str(request.WhichOneof("request")) for request in self.requests]

    def answer(self, request: pb.ProcessingRequest) -> pb.ProcessingResponse:
        """One answer of the same kind."""
        kind = request.WhichOneof("request")
        if kind == "request_headers" and self.denial is not None:
            return pb.ProcessingResponse(immediate_response=self.denial, dynamic_metadata=METADATA)
        answer = pb.ProcessingResponse(dynamic_metadata=METADATA)
        getattr(answer, str(kind)).SetInParent()
        if kind == "request_headers":
            for name, value in self.set_headers.items():
                option = answer.request_headers.response.header_mutation.set_headers.add()
                option.header.CopyFrom(pb.HeaderValue(key=name, raw_value=value.encode()))
        return answer


METADATA = struct_pb2.Struct()
METADATA.update({"ai_policy": {"decision_id": "d-1", "effect": "allow", "policy": "Kind/name"}})


@contextmanager
def sidecar(address: str = "127.0.0.1:0") -> Iterator[Sidecar]:
    """Serve ext_proc and gRPC health, allowing everything until told otherwise."""
    state = Sidecar()
    stopping = threading.Event()

    def process(messages: Iterator[pb.ProcessingRequest], _: Any) -> Iterator[pb.ProcessingResponse]:
        for message in messages:
            state.requests.append(message)
            while state.silent and not stopping.is_set():
                time.sleep(0.01)
            yield state.answer(message)

    server = grpc.server(futures.ThreadPoolExecutor(16))
    handler = grpc.stream_stream_rpc_method_handler(
        process,
        request_deserializer=pb.ProcessingRequest.FromString,
        response_serializer=pb.ProcessingResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "envoy.service.ext_proc.v3.ExternalProcessor", {"Process": handler}
            ),
        )
    )
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    state.port = server.add_insecure_port(address)
    server.start()
    try:
        yield state
    finally:
        stopping.set()
        server.stop(0).wait()


@dataclass
class Provider:
    """What reached the provider."""

    port: int = 0
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # path, headers


BODY = (
    b'{"object":"chat.completion","choices":[],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
)


def handler(state: Provider) -> type[BaseHTTPRequestHandler]:
    """Write down every request in `state` and answer it with a small JSON body with usage."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.read_body()
            state.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        do_GET = do_POST  # noqa: N815 - the name is the library's

        def read_body(self) -> None:
            if self.headers.get("transfer-encoding") != "chunked":
                self.rfile.read(int(self.headers.get("content-length", 0)))
                return
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def provider() -> Iterator[Provider]:
    """Serve HTTP/1.1 and write down what comes."""
    state = Provider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
