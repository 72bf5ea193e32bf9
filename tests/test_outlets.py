"""Collectors that are away, mute or rude: nobody waits, memory is bounded, and what is lost is counted."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from extproc.telemetry import outlets
from extproc.telemetry.parents import Parent
from extproc.telemetry.tracing import Tracing
from tests.e2e.otlp import OtlpReceiver
from tests.verdicts import denied

PLACES, BATCH = 64, 16
FLOOD = 1000


def reset(connection: socket.socket) -> None:
    """Close at once, with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def listening(accepted: Callable[[socket.socket], object]) -> Iterator[str]:
    """A port where each connection is given to `accepted`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                accepted(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def refusing() -> Iterator[str]:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def mute() -> Iterator[str]:
    """A port that takes everything and never answers."""
    kept: list[socket.socket] = []
    with listening(kept.append) as url:
        yield url
    for connection in kept:
        connection.close()


@contextmanager
def resetting() -> Iterator[str]:
    """A port that resets each connection."""
    with listening(reset) as url:
        yield url


class Switchable:
    """A collector by HTTP that refuses until it is told to accept."""

    def __init__(self) -> None:
        self.status = 400
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(outer.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few places and small batches."""
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_LOGS_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(PLACES))
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", str(BATCH))
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TIMEOUT", raising=False)


def tracing_to(url: str, protocol: str, monkeypatch: pytest.MonkeyPatch) -> Tracing:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    return Tracing(instance_id="i", version="0")


def figures(tracing: Tracing) -> dict[str, int | float]:
    return {figure.name.rpartition(".")[2]: figure.read() for figure in tracing.figures()}


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records]


def wait_until(is_so: Callable[[], bool]) -> None:
    for _ in range(1000):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it never became so")


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("collector", [refusing, mute, resetting])
def test_a_flood_of_denials_to_a_broken_collector_is_bounded_counted_and_logged_once(
    collector: Callable[[], Any],
    protocol: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with collector() as url:
        tracing = tracing_to(url, protocol, monkeypatch)
        most_pending = 0
        for _ in range(FLOOD):
            tracing.decided(denied(), Parent())
            most_pending = max(most_pending, int(figures(tracing)["pending"]))
        flooded = figures(tracing)
        started_s = time.monotonic()
        tracing.close()
        took_s = time.monotonic() - started_s

    assert most_pending <= PLACES
    assert flooded["exported"] == 0
    assert flooded["dropped"] + flooded["pending"] == FLOOD
    assert took_s < 10
    warned = [line for line in lines(caplog) if line["levelno"] > 20]
    assert [(line["message"], line["what"]) for line in warned] == [("telemetry is not exported", "spans")]
    assert warned[0]["exc_info"] is None


def test_while_a_collector_is_away_hardly_anything_is_made_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with resetting() as url:
        tracing = tracing_to(url, "http/protobuf", monkeypatch)
        tracing.decided(denied(), Parent())
        wait_until(lambda: figures(tracing)["dropped"] == 1)
        for _ in range(FLOOD):
            tracing.decided(denied(), Parent())
            assert figures(tracing)["pending"] <= 2 * BATCH
        tracing.close()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_end_waits_for_no_exporter_that_has_patience(
    protocol: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    monkeypatch.setattr(outlets, "_GRACE_S", 0.1)
    monkeypatch.setattr(outlets, "_LAST_S", 0.1)
    with mute() as url:
        tracing = tracing_to(url, protocol, monkeypatch)
        tracing.decided(denied(), Parent())
        started_s = time.monotonic()
        tracing.close()

        assert time.monotonic() - started_s < 10
    # Its thread ends with its connection, and says so in the log.
    wait_until(lambda: bool(lines(caplog)))


def test_what_a_healthy_collector_took_is_counted_and_nothing_is_pending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with OtlpReceiver() as receiver:
        tracing = tracing_to(receiver.endpoint, "grpc", monkeypatch)
        for _ in range(PLACES):
            tracing.decided(denied(), Parent())
        tracing.close()

        assert figures(tracing) == {"exported": PLACES, "dropped": 0, "pending": 0}
        assert len(receiver.spans()) == PLACES
    assert [(line["message"], line.get("cause")) for line in lines(caplog)] == []


def test_a_collector_that_comes_back_is_said_to_be_with_what_was_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector = Switchable()
    tracing = tracing_to(collector.url, "http/protobuf", monkeypatch)
    for number in range(3):
        tracing.decided(denied(), Parent())
        wait_until(lambda: figures(tracing)["dropped"] == number + 1)  # noqa: B023  asked at once
    collector.status = 200
    tracing.decided(denied(), Parent())
    wait_until(lambda: figures(tracing)["exported"] == 1)
    tracing.close()
    collector.server.shutdown()
    collector.server.server_close()

    away, back = [line for line in lines(caplog) if line["name"] == "extproc.telemetry.overheard"]
    assert "400" in away["cause"]
    assert (back["message"], back["dropped"]) == ("telemetry is exported again", 3)
    assert [line for line in lines(caplog) if line["name"].startswith("opentelemetry")] == []


def test_a_password_in_an_endpoint_is_in_no_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with refusing() as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
        tracing = tracing_to(url.replace("://", "://user:pa55word@"), "http/protobuf", monkeypatch)
        tracing.decided(denied(), Parent())
        tracing.close()

    assert [line["message"] for line in lines(caplog)] == ["telemetry is not exported"]
    assert "pa55word" not in repr(lines(caplog))


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "plenty"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "9" * 30),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9" * 5_000),
        ("OTEL_BSP_SCHEDULE_DELAY", "99999999999999"),
    ],
)
def test_a_number_that_is_none_is_said_and_the_default_is_used(
    variable: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(variable, said)
    with OtlpReceiver() as receiver:
        tracing = tracing_to(receiver.endpoint, "grpc", monkeypatch)
        tracing.decided(denied(), Parent())
        tracing.close()

        assert figures(tracing)["exported"] == 1
    assert [line["variable"] for line in lines(caplog)] == [variable]
