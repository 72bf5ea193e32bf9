"""The gRPC server in process: real streams, no Envoy; what Envoy would send is written by hand."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc import wire
from extproc.decision import Charge, ChargeOutcome
from extproc.edge import Edge
from extproc.errors import SettingsInvalid, StoreUnavailable
from extproc.measure.learned import LearnedOutputs
from extproc.measure.tokens import Tokenizer
from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb
from extproc.policy import policyset
from extproc.server import SERVICE, ExternalProcessor, Server, new_decision_id
from extproc.session.admission import SessionSettings
from extproc.settings import Settings
from extproc.store.memory import MemoryStore
from extproc.telemetry import Metrics, Tracing

POLICIES = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: defaults}
spec: {access: allow}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: requests}
spec: {limit: {requests: 100, per: 1m, burst: 100}}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: tokens}
spec: {limit: {tokens: 10000000, per: 1m, burst: 10000000}}
"""
SECRET = "prompt-canary-7f3a"
END: Any = vars(grpc.aio)["EOF"]  # not in the stubs


class WatchedStore(MemoryStore):
    """A memory store that notes what it settled, and fails, waits or breaks when told."""

    def __init__(self) -> None:
        super().__init__()
        self.settled: list[dict[str, int]] = []
        self.reserving = asyncio.Event()
        self.release: asyncio.Event | None = None
        self.error: Exception | None = None

    async def reserve(
        self, decision_id: str, charges: tuple[Charge, ...], at_us: int
    ) -> tuple[ChargeOutcome, ...]:
        self.reserving.set()
        if self.error is not None:
            raise self.error
        if self.release is not None:
            await self.release.wait()
        return await super().reserve(decision_id, charges, at_us)

    async def settle(self, decision_id: str, amounts: Any, at_us: int) -> bool:
        self.settled.append(dict(amounts))
        return await super().settle(decision_id, amounts, at_us)


@dataclass
class Sidecar:
    edge: Edge
    store: WatchedStore
    processor: ExternalProcessor
    server: Server
    channel: Any  # the stubs of grpc.aio are older than it
    settings: Settings

    def open(self, **metadata: str) -> Any:
        process = self.channel.stream_stream(
            f"/{SERVICE}/Process",
            request_serializer=pb.ProcessingRequest.SerializeToString,
            response_deserializer=pb.ProcessingResponse.FromString,
        )
        return process(metadata=tuple(metadata.items()))

    async def quiet(self) -> None:
        """Wait until no stream is open and nothing is left in the background."""
        await self.processor.idle.wait()
        while self.edge.background:
            await asyncio.wait(self.edge.background)


Start = Callable[..., Awaitable[Sidecar]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    running: list[Sidecar] = []
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "all.yaml").write_text(POLICIES)
    policies = policyset.load(folder)

    async def start_one(**changes: Any) -> Sidecar:
        values: dict[str, Any] = {"policies": folder, "grpc": f"unix:{tmp_path}/grpc.sock", "drain_s": 5.0}
        settings = Settings(**(values | changes))
        store = WatchedStore()
        edge = Edge(
            store=store,
            tokenizer=Tokenizer({}),
            learned=LearnedOutputs(),
            tracing=Tracing(instance_id="test", version="0"),
            metrics=Metrics(version="0"),
            pool=ThreadPoolExecutor(1),
            clock_ns=lambda: 1_790_000_000_000_000_000,
            deadline_s=settings.deadline_s,
        )
        processor = ExternalProcessor(lambda: policies, edge, SessionSettings())
        server = Server(processor, settings)
        address = await server.start()
        sidecar = Sidecar(edge, store, processor, server, grpc.aio.insecure_channel(address), settings)
        running.append(sidecar)
        return sidecar

    yield start_one
    for sidecar in running:
        await sidecar.channel.close()
        await sidecar.server.stop()
        await sidecar.quiet()
        sidecar.edge.pool.shutdown()
        sidecar.edge.metrics.close()


@pytest.fixture
async def sidecar(start: Start) -> Sidecar:
    return await start()


def headers(*pairs: tuple[str, str]) -> pb.HeaderMap:
    return pb.HeaderMap(headers=[pb.HeaderValue(key=key, raw_value=value.encode()) for key, value in pairs])


def request_headers(path: str = "/v1/chat/completions") -> pb.ProcessingRequest:
    message = pb.ProcessingRequest(
        request_headers=pb.HttpHeaders(
            headers=headers((":method", "POST"), (":path", path), (":authority", "gateway"))
        )
    )
    message.protocol_config.request_body_mode = wire.Mode.BUFFERED
    return message


def request_body(**changes: Any) -> pb.ProcessingRequest:
    body: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": SECRET}]}
    return pb.ProcessingRequest(
        request_body=pb.HttpBody(body=json.dumps(body | changes).encode(), end_of_stream=True)
    )


def response_headers(content_type: str = "application/json") -> pb.ProcessingRequest:
    return pb.ProcessingRequest(
        response_headers=pb.HttpHeaders(headers=headers((":status", "200"), ("content-type", content_type)))
    )


def response_body(body: bytes, *, end: bool = True) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(response_body=pb.HttpBody(body=body, end_of_stream=end))


ANSWER = json.dumps(
    {
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hello"}}],
        "usage": {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11},
    }
).encode()


async def exchange_with(stream: Any, *messages: pb.ProcessingRequest) -> list[pb.ProcessingResponse]:
    answers = []
    for message in messages:
        await stream.write(message)
        answers.append(await stream.read())
    return answers


async def failure_of(stream: Any) -> grpc.aio.AioRpcError:
    """How the stream was aborted; a clean return would be fail-open, and fails here."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stream.read()
    return failed.value


async def test_one_stream_is_one_request_from_headers_to_settlement(sidecar: Sidecar) -> None:
    stream = sidecar.open()

    answers = await exchange_with(
        stream, request_headers(), request_body(), response_headers(), response_body(ANSWER)
    )
    await stream.done_writing()
    assert await stream.read() is END
    await sidecar.quiet()

    kinds = [answer.WhichOneof("response") for answer in answers]
    assert kinds == ["request_headers", "request_body", "response_headers", "response_body"]
    assert answers[2].mode_override.response_body_mode == wire.Mode.STREAMED
    assert [sorted(amounts.values()) for amounts in sidecar.store.settled] == [[1, 11]]


async def test_an_error_of_ours_aborts_with_a_fixed_text_and_says_nothing_of_the_request(
    sidecar: Sidecar, caplog: pytest.LogCaptureFixture
) -> None:
    sidecar.store.error = ValueError(SECRET)
    stream = sidecar.open()
    await exchange_with(stream, request_headers())
    await stream.write(request_body())

    failed = await failure_of(stream)

    assert failed.code() is grpc.StatusCode.INTERNAL
    assert failed.details() == "ai_policy: internal error"
    assert any(record.getMessage() == "stream failed" for record in caplog.records)


async def test_a_message_out_of_order_aborts(sidecar: Sidecar) -> None:
    stream = sidecar.open()
    await exchange_with(stream, request_headers())
    await stream.write(response_body(ANSWER))

    assert (await failure_of(stream)).code() is grpc.StatusCode.INTERNAL


async def test_a_mode_that_cannot_be_protected_is_refused_and_says_what_to_set(sidecar: Sidecar) -> None:
    message = request_headers()
    message.protocol_config.request_body_mode = wire.Mode.STREAMED
    stream = sidecar.open()
    await stream.write(message)

    failed = await failure_of(stream)

    assert failed.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert failed.details() == "ai_policy: request_body_mode is STREAMED; set BUFFERED"


async def test_a_body_of_five_megabytes_is_understood(sidecar: Sidecar) -> None:
    stream = sidecar.open()
    large = request_body(messages=[{"role": "user", "content": "word " * 1_000_000}])

    answers = await exchange_with(stream, request_headers(), large)

    assert answers[1].WhichOneof("response") == "request_body"


async def test_a_client_that_leaves_while_a_slow_store_works_gets_its_charges_back(start: Start) -> None:
    sidecar = await start()
    sidecar.store.is_immediate = False
    sidecar.store.release = asyncio.Event()
    stream = sidecar.open()
    await exchange_with(stream, request_headers())
    await stream.write(request_body())
    await sidecar.store.reserving.wait()

    stream.cancel()
    await sidecar.processor.idle.wait()
    sidecar.store.release.set()
    await sidecar.quiet()

    assert sidecar.store.settled == [{}]
    assert "ai_policy_abandoned_total 1.0" in sidecar.edge.metrics.exposition().decode()


async def test_a_store_that_misses_the_deadline_is_a_store_that_failed(start: Start) -> None:
    sidecar = await start(deadline_s=0.05)
    sidecar.store.is_immediate = False
    sidecar.store.release = asyncio.Event()
    stream = sidecar.open()

    answers = await exchange_with(stream, request_headers(), request_body())
    sidecar.store.release.set()

    # Both limits say onError: allow, the default of their kind.
    assert answers[1].WhichOneof("response") == "request_body"
    stream.cancel()
    await sidecar.quiet()
    # What the store took after all is charged as the answer that nobody saw.
    assert {1, 16396} in [set(amounts.values()) for amounts in sidecar.store.settled]


async def test_a_store_that_is_down_is_logged_and_each_limit_decides(
    sidecar: Sidecar, caplog: pytest.LogCaptureFixture
) -> None:
    sidecar.store.error = StoreUnavailable("connection refused")
    stream = sidecar.open()

    with caplog.at_level(logging.ERROR, logger="extproc.decisions"):
        answers = await exchange_with(stream, request_headers(), request_body())

    assert answers[1].WhichOneof("response") == "request_body"
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [vars(record)["error_type"] for record in errors] == ["store_unavailable"]
    stream.cancel()


async def test_a_client_that_leaves_mid_answer_is_settled_for_what_it_saw(sidecar: Sidecar) -> None:
    stream = sidecar.open()
    chunk = (
        b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
    )
    await exchange_with(
        stream,
        request_headers(),
        request_body(stream=True),
        response_headers("text/event-stream"),
        response_body(chunk, end=False),
    )

    stream.cancel()
    await sidecar.quiet()

    (amounts,) = sidecar.store.settled
    assert min(amounts.values()) == 1
    assert max(amounts.values()) > 1


async def test_broken_telemetry_never_cuts_an_answer(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(sidecar.edge.metrics, "decided", broken)
    stream = sidecar.open()

    answers = await exchange_with(stream, request_headers(), request_body())

    stream.cancel()
    # What is reported comes after what is answered.
    await sidecar.quiet()
    assert answers[1].WhichOneof("response") == "request_body"
    assert any(record.getMessage() == "telemetry failed" for record in caplog.records)


async def test_health_is_served_for_the_process_and_for_the_service(sidecar: Sidecar) -> None:
    stub = health_pb2_grpc.HealthStub(sidecar.channel)

    for service in ("", SERVICE):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_stopping_says_not_serving_and_lets_open_streams_end(sidecar: Sidecar) -> None:
    stream = sidecar.open()
    await exchange_with(stream, request_headers(), request_body())
    health = health_pb2_grpc.HealthStub(sidecar.channel)

    stopping = asyncio.ensure_future(sidecar.server.stop())
    await asyncio.sleep(0)
    answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    answers = await exchange_with(stream, response_headers(), response_body(ANSWER))
    await stream.done_writing()
    await stopping

    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert answers[1].WhichOneof("response") == "response_body"
    assert len(sidecar.store.settled) == 1


async def test_a_stream_that_outlives_the_drain_is_cut_and_still_settled(start: Start) -> None:
    sidecar = await start(drain_s=0.05)
    stream = sidecar.open()
    await exchange_with(stream, request_headers(), request_body())

    await sidecar.server.stop()
    await sidecar.quiet()

    assert len(sidecar.store.settled) == 1


async def test_tls_with_a_client_certificate_is_served_and_without_one_refused(
    start: Start, tmp_path: Path
) -> None:
    made = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem"), "-days", "2"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await made.wait() == 0
    cert, key = (tmp_path / "cert.pem"), (tmp_path / "key.pem")
    sidecar = await start(grpc="localhost:0", tls_cert=cert, tls_key=key, tls_client_ca=cert)
    port = sidecar.server.address.rpartition(":")[2]

    async def health(credentials: grpc.ChannelCredentials) -> Any:
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            return await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)

    ours = grpc.ssl_channel_credentials(cert.read_bytes(), key.read_bytes(), cert.read_bytes())
    assert (await health(ours)).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError):
        await health(grpc.ssl_channel_credentials(cert.read_bytes()))


async def test_an_address_in_use_is_named(sidecar: Sidecar) -> None:
    second = Server(sidecar.processor, sidecar.settings)

    with pytest.raises(SettingsInvalid, match="another process listens on unix:"):
        await second.start()


async def test_a_port_in_use_is_named(start: Start) -> None:
    first = await start(grpc="127.0.0.1:0")
    taken = first.server.address
    second = Server(first.processor, Settings(policies=Path(), grpc=taken))

    with pytest.raises(SettingsInvalid, match=taken):
        await second.start()


async def test_a_socket_that_a_killed_process_left_is_replaced(start: Start, tmp_path: Path) -> None:
    left = await asyncio.start_unix_server(lambda *_: None, tmp_path / "grpc.sock")
    left.close()
    await left.wait_closed()
    assert (tmp_path / "grpc.sock").is_socket()

    sidecar = await start()

    assert sidecar.server.address.endswith("grpc.sock")


def test_decision_ids_are_version_7_and_sort_by_time() -> None:
    earlier, later = new_decision_id(1_000_000_000_000), new_decision_id(2_000_000_000_000)

    assert earlier < later
    assert (earlier[14], earlier[19] in "89ab") == ("7", True)
    assert new_decision_id(5) != new_decision_id(5)
