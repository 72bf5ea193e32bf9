"""Envoy's access log of answers: written by a second codec, sent over real gRPC, awaited by sessions."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy_data_plane.envoy.config.core.v3 import Metadata
from envoy_data_plane.envoy.data.accesslog.v3 import (
    AccessLogCommon,
    HttpAccessLogEntry,
    HttpRequestProperties,
    HttpResponseProperties,
    ResponseFlags,
)
from envoy_data_plane.envoy.service.accesslog.v3 import (
    StreamAccessLogsMessage,
    StreamAccessLogsMessageHttpAccessLogEntries,
    StreamAccessLogsMessageIdentifier,
)
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from extproc import accesslog
from extproc.accesslog import SERVICE, AccessLog, Sent, entries
from extproc.edge import Edge
from extproc.measure.bytes_per_token import AnswerForm, BytesPerToken
from extproc.measure.learned import LONGEST_NAME, LearnedOutputs
from extproc.measure.tokens import Tokenizer
from extproc.pb.ai_policy.v1 import access_log_pb2 as pb
from extproc.server import ExternalProcessor, Server
from extproc.session.actions import AwaitBytes
from extproc.session.admission import SessionSettings
from extproc.session.events import BytesSent
from extproc.settings import Settings
from extproc.store.memory import MemoryStore
from extproc.telemetry import Metrics, Tracing
from tests.session.playbook import load

FORM = AnswerForm(api="openai_chat", provider="openai", model="gpt-4o", is_stream=True)
METADATA: dict[str, Any] = {
    "decision_id": "d-1",
    "api": "openai_chat",
    "provider": "openai",
    "model": "gpt-4o",
    "stream": 1,
    "input_tokens": 9,
    "output_tokens": 0,
}


def entry(*, body_bytes: int = 4400, flags: Any = None, **metadata: Any) -> pb.HTTPAccessLogEntry:
    """One of our own, for what no codec of Envoy's would write."""
    written = pb.HTTPAccessLogEntry()
    written.common_properties.metadata.filter_metadata["ai_policy"].update(METADATA | metadata)
    written.common_properties.response_flags = flags or b""
    written.response.response_body_bytes = body_bytes
    return written


def message(*logged: pb.HTTPAccessLogEntry) -> bytes:
    written = pb.StreamAccessLogsMessage()
    written.http_logs.log_entry.extend(logged)
    return written.SerializeToString()


def sent(decision_id: str = "d-1", **changes: Any) -> Sent:
    values: dict[str, Any] = {"form": FORM, "body_bytes": 4400, "is_whole": True}
    return Sent(decision_id=decision_id, **(values | changes))


# --- entries


@pytest.mark.parametrize("cut", [True, False])
def test_an_entry_of_envoys_is_read(*, cut: bool) -> None:
    """As an independent codec of Envoy's real messages writes it, with much that nobody asked for."""
    fields = struct_pb2.Struct()
    fields.update(METADATA)
    struct: Any = Metadata.parse(_filter_metadata(fields))
    flags = ResponseFlags(downstream_connection_termination=True) if cut else None
    logged = HttpAccessLogEntry(
        common_properties=AccessLogCommon(
            sample_rate=0.5,
            upstream_cluster="provider_openai",
            response_flags=flags,
            metadata=struct,
            custom_tags={"x": "y"},
        ),
        request=HttpRequestProperties(path="/v1/chat/completions?key=secret", user_agent="test"),
        response=HttpResponseProperties(response_code=200, response_body_bytes=4400),
    )
    written = StreamAccessLogsMessage(
        identifier=StreamAccessLogsMessageIdentifier(log_name="ai_policy"),
        http_logs=StreamAccessLogsMessageHttpAccessLogEntries(log_entry=[logged, logged]),
    )

    assert entries(bytes(written)) == [sent(is_whole=not cut)] * 2


def _filter_metadata(fields: struct_pb2.Struct) -> bytes:
    written = pb.LogMetadata()
    written.filter_metadata["ai_policy"].CopyFrom(fields)
    written.filter_metadata["envoy.filters.http.jwt_authn"].update({"payload": {"sub": "x"}})
    return written.SerializeToString()


def test_tokens_that_were_read_come_without_what_was_thought_unseen() -> None:
    (plain,) = entries(message(entry(output_tokens=40)))
    (thinking,) = entries(message(entry(output_tokens=40, reasoning_output_tokens=30)))

    assert (plain.visible_tokens, thinking.visible_tokens) == (40, 10)


@pytest.mark.parametrize(
    "metadata",
    [
        {"decision_id": ""},
        {"decision_id": None},
        {"decision_id": 7},
        {"decision_id": "d" * 65},
        {"decision_id": {"nested": "d-1"}},
    ],
)
def test_an_entry_about_no_decision_is_left_out(metadata: dict[str, Any]) -> None:
    assert entries(message(entry(**metadata), entry())) == [sent()]


@pytest.mark.parametrize("name", ["api", "provider", "model"])
def test_a_name_that_is_no_models_is_not_kept_whole(name: str) -> None:
    names: dict[str, Any] = {name: "m" * 1_000_000}
    (strange,) = entries(message(entry(**names)))

    assert LONGEST_NAME < len(getattr(strange.form, name)) <= 2 * LONGEST_NAME


@pytest.mark.parametrize("count", [-1, -0.5, 1.5, 2.0**60, math.inf, math.nan, "40", None, [40]])
def test_what_is_no_count_is_none(count: Any) -> None:
    strange = entry()
    fields = strange.common_properties.metadata.filter_metadata["ai_policy"].fields
    if isinstance(count, float):
        fields["output_tokens"].number_value = count  # JSON knows neither infinity nor NaN
    else:
        strange = entry(output_tokens=count)

    assert [each.visible_tokens for each in entries(message(strange))] == [None]


def test_bytes_that_are_no_message_are_said_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert entries(b"\xff\xff") == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert entries(b"") == entries(message(pb.HTTPAccessLogEntry())) == []


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data: bytes) -> None:
    entries(data)
    entries(message(entry()) + data)


# --- waiting


async def test_who_waits_is_told() -> None:
    log = AccessLog()
    waiting = asyncio.ensure_future(log.sent("d-1"))
    await asyncio.sleep(0)

    log.take(sent("d-2"))
    log.take(sent("d-1", body_bytes=5))
    log.take(sent("d-1", body_bytes=6))

    assert await waiting == sent("d-1", body_bytes=5)


async def test_an_entry_that_comes_early_is_kept_and_given_once() -> None:
    log = AccessLog(patience_s=0)
    log.take(sent())

    assert await log.sent("d-1") == sent()
    assert await log.sent("d-1") is None


async def test_nobody_waits_for_ever_and_nothing_is_left_of_it() -> None:
    log = AccessLog(patience_s=0)

    assert await log.sent("d-1") is None
    assert log._waiting == {}


async def test_who_stops_waiting_leaves_nothing() -> None:
    log = AccessLog()
    waiting = asyncio.ensure_future(log.sent("d-1"))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert log._waiting == {}
    log.take(sent())
    assert await log.sent("d-1") == sent()


async def test_early_entries_are_bounded_by_number_and_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    log = AccessLog(patience_s=0)
    for number in range(10_001):
        log.take(sent(f"d-{number}"))

    assert len(log._early) == 10_000
    assert await log.sent("d-0") is None
    monkeypatch.setattr(accesslog, "_KEPT_S", -1.0)
    log.take(sent("d-new"))
    assert list(log._early) == ["d-new"]


async def test_closing_lets_nobody_wait() -> None:
    log = AccessLog()
    waiting = asyncio.ensure_future(log.sent("d-1"))
    await asyncio.sleep(0)

    log.close()

    assert await waiting is None
    assert await log.sent("d-2") is None


# --- what it comes to


def asking(**changes: Any) -> AwaitBytes:
    return AwaitBytes(decision_id="d-1", answer=replace(FORM, **changes))


@pytest.mark.parametrize(
    ("is_stream", "is_whole", "body_bytes", "tokens"),
    [
        (True, True, 22_000, 100),
        (True, False, 22_000, 100),
        (False, True, 570, 100),
        # It was generated before its first byte was sent, and nobody knows how much of it that was.
        (False, False, 690, None),
        (True, False, 0, None),
    ],
)
async def test_bytes_say_how_many_tokens_were_sent(
    *, is_stream: bool, is_whole: bool, body_bytes: int, tokens: int | None
) -> None:
    log = AccessLog()
    log.take(sent(body_bytes=body_bytes, is_whole=is_whole))

    answer = await log.bytes_sent(asking(is_stream=is_stream), lambda: 7)

    assert answer == BytesSent(at_ns=7, body_bytes=body_bytes, output_tokens=tokens)


async def test_silence_says_nothing() -> None:
    answer = await AccessLog(patience_s=0).bytes_sent(asking(), lambda: 7)

    assert answer == BytesSent(at_ns=7, body_bytes=None)


async def test_whole_answers_whose_usage_was_read_teach_and_cut_ones_do_not() -> None:
    learned = BytesPerToken()
    log = AccessLog(learned)
    for _ in range(5):
        log.take(sent(body_bytes=410 + 100 * 50, visible_tokens=100))
        log.take(sent(body_bytes=410, visible_tokens=100, is_whole=False))

    assert learned.tokens(FORM, 5_000) == 100
    assert learned.changes == 5
    assert log._early == {}


# --- served


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    made = Edge(
        store=MemoryStore(),
        tokenizer=Tokenizer({}),
        learned=LearnedOutputs(),
        tracing=Tracing(instance_id="test", version="0"),
        metrics=Metrics(version="0"),
        pool=ThreadPoolExecutor(1),
        clock_ns=lambda: 7,
        deadline_s=5.0,
    )
    yield made
    made.pool.shutdown()
    made.metrics.close()


async def served(tmp_path: Path, edge: Edge, *, drain_s: float) -> tuple[Server, Any]:
    """The sidecar's own server, and one of Envoy's connections to it."""
    policies = load(tmp_path / "policies")
    settings = Settings(policies=tmp_path, grpc=f"unix:{tmp_path}/grpc.sock", drain_s=drain_s)
    server = Server(ExternalProcessor(lambda: policies, edge, SessionSettings()), settings)
    channel: Any = grpc.aio.insecure_channel(await server.start())
    stream = channel.stream_unary(
        f"/{SERVICE}/StreamAccessLogs", request_serializer=bytes, response_deserializer=bytes
    )()
    return server, stream


async def test_entries_reach_who_waits_over_the_sidecars_own_server(tmp_path: Path, edge: Edge) -> None:
    server, stream = await served(tmp_path, edge, drain_s=5)
    waiting = asyncio.ensure_future(edge.access_log.sent("d-1"))

    await stream.write(b"\xff\xff")
    await stream.write(message(entry()))

    assert await waiting == sent()
    await stream.done_writing()
    assert await stream == b""
    await server.stop()


async def test_a_stopping_server_still_hears_of_answers_that_wait(tmp_path: Path, edge: Edge) -> None:
    server, stream = await served(tmp_path, edge, drain_s=30)
    heard: list[Sent | None] = []

    async def wait() -> None:
        heard.append(await edge.access_log.sent("d-1"))

    edge.spawn(wait())
    stopping = asyncio.ensure_future(server.stop())
    await stream.write(message(entry()))
    await stopping

    assert heard == [sent()]
    # Envoy's connection would have lasted as long as Envoy.
    assert await stream == b""


async def test_a_server_out_of_patience_waits_for_no_entry(tmp_path: Path, edge: Edge) -> None:
    server, stream = await served(tmp_path, edge, drain_s=0.05)
    heard: list[Sent | None] = []

    async def wait() -> None:
        heard.append(await edge.access_log.sent("d-1"))

    edge.access_log._patience_s = math.inf
    waiting = edge.spawn(wait())
    await server.stop()
    await waiting

    assert heard == [None]
    stream.cancel()
