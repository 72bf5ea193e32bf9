"""What Envoy's gRPC access log says of answers whose usage it could not read: how many bytes were sent.

Floor 3: the `AccessLogService` on the sidecar's own gRPC server, and who waits for an entry of it.
Envoy sends answers without usage, to be settled by their size, and a sample of others, which teach how
many bytes a token takes (`extproc.envoy_config`). An entry goes to any process of the sidecar: where
there are several, an answer whose entry reached another one is charged as reserved.

Source: Envoy's access log service (envoy/service/accesslog/v3/als.proto); tests/e2e/test_native_aborts.py
pins which endings of an answer it tells of.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError

from extproc.measure.bytes_per_token import AnswerForm, BytesPerToken
from extproc.measure.learned import LONGEST_NAME
from extproc.pb.ai_policy.v1 import access_log_pb2 as pb
from extproc.session.actions import AwaitBytes
from extproc.session.events import BytesSent
from extproc.wire import METADATA_NAMESPACE

log = logging.getLogger(__name__)

SERVICE = "envoy.service.accesslog.v3.AccessLogService"

# Envoy sends what it has every 0.2 s as configured by `extproc envoy`, every second by default.
PATIENCE_S = 3.0
# An entry may overtake the end of its stream, not by more than that takes on a busy machine.
_KEPT_S = 10.0
_KEPT = 10_000
_LONGEST_ID = 64
_RECEIVED: bytes = pb.StreamAccessLogsResponse().SerializeToString()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one entry says of an answer; tokens are None where nobody read them."""

    decision_id: str
    form: AnswerForm
    body_bytes: int
    is_whole: bool  # no flag says that it ended early
    visible_tokens: int | None = None


class AccessLog:
    """Entries on one side, those who wait for them on the other; one event loop."""

    def __init__(
        self, bytes_per_token: BytesPerToken | None = None, *, patience_s: float = PATIENCE_S
    ) -> None:
        self.bytes_per_token = BytesPerToken() if bytes_per_token is None else bytes_per_token
        self._patience_s = patience_s
        self._waiting: dict[str, asyncio.Future[Sent | None]] = {}
        # Came before anybody waited, with the loop's time of it.
        self._early: OrderedDict[str, tuple[float, Sent]] = OrderedDict()
        self._readings: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def sent(self, decision_id: str) -> Sent | None:
        """What was sent of this decision's answer; None if nobody said in time. One may wait for each."""
        _, early = self._early.pop(decision_id, (0.0, None))
        if early is not None or self._is_closed:
            return early
        future: asyncio.Future[Sent | None] = asyncio.get_running_loop().create_future()
        self._waiting[decision_id] = future
        try:
            async with asyncio.timeout(self._patience_s):
                return await future
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(decision_id, None)

    async def bytes_sent(self, action: AwaitBytes, clock_ns: Callable[[], int]) -> BytesSent:
        """The answer to `AwaitBytes`, in `patience_s` at the latest.

        What comes in one piece was generated before its first byte was sent: a part of it says nothing.
        """
        sent = await self.sent(action.decision_id)
        if sent is None:
            return BytesSent(at_ns=clock_ns(), body_bytes=None)
        says_all = action.answer.is_stream or sent.is_whole
        tokens = self.bytes_per_token.tokens(action.answer, sent.body_bytes) if says_all else None
        return BytesSent(at_ns=clock_ns(), body_bytes=sent.body_bytes, output_tokens=tokens)

    def take(self, sent: Sent) -> None:
        """Learn from an entry whose tokens are known; hand on, or keep for a moment, one whose are not."""
        if sent.visible_tokens is not None:
            if sent.is_whole:
                self.bytes_per_token.observe(sent.form, sent.body_bytes, sent.visible_tokens)
            return
        waiting = self._waiting.get(sent.decision_id)
        if waiting is not None:
            if not waiting.done():
                waiting.set_result(sent)
            return
        now_s = asyncio.get_running_loop().time()
        self._forget(now_s - _KEPT_S)
        self._early[sent.decision_id] = (now_s, sent)

    def _forget(self, before_s: float) -> None:
        while self._early and (len(self._early) >= _KEPT or next(iter(self._early.values()))[0] < before_s):
            self._early.popitem(last=False)

    def close(self) -> None:
        """End Envoy's connections, which would last as long as Envoy; nobody waits any longer."""
        self._is_closed = True
        for reading in self._readings:
            reading.cancel()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)

    async def stream_access_logs(self, messages: AsyncIterable[bytes], _: Any) -> bytes:
        """Serve one of Envoy's connections until it or we close it; nothing that it says is an error."""
        if self._is_closed:
            return _RECEIVED
        reading = asyncio.get_running_loop().create_task(self._read(messages))
        self._readings.add(reading)
        reading.add_done_callback(self._readings.discard)
        # Its end by `close` is no error either.
        await asyncio.gather(reading, return_exceptions=True)
        return _RECEIVED

    async def _read(self, messages: AsyncIterable[bytes]) -> None:
        async for message in messages:
            for sent in entries(message):
                self.take(sent)

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The service, for a `grpc.aio` server."""
        receive = grpc.stream_unary_rpc_method_handler(
            self.stream_access_logs, request_deserializer=bytes, response_serializer=bytes
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamAccessLogs": receive})


def entries(message: bytes) -> list[Sent]:
    """Whatever in this `StreamAccessLogsMessage` is about a decision; the rest is left out."""
    try:
        logged = pb.StreamAccessLogsMessage.FromString(message).http_logs.log_entry
    except DecodeError:
        log.warning("access log entries are not understood", extra={"size_bytes": len(message)})
        return []
    return [sent for sent in map(_sent, logged) if sent is not None]


def _sent(entry: pb.HTTPAccessLogEntry) -> Sent | None:
    common = entry.common_properties
    fields = common.metadata.filter_metadata[METADATA_NAMESPACE].fields
    decision_id = _text(fields, "decision_id")
    if not 0 < len(decision_id) <= _LONGEST_ID:
        return None
    output = _count(fields, "output_tokens")
    return Sent(
        decision_id=decision_id,
        form=AnswerForm(
            api=_text(fields, "api"),
            provider=_text(fields, "provider"),
            model=_text(fields, "model"),
            is_stream=_count(fields, "stream") == 1,
        ),
        body_bytes=entry.response.response_body_bytes,
        is_whole=not common.response_flags,
        visible_tokens=output - _count(fields, "reasoning_output_tokens") if output else None,
    )


def _text(fields: Mapping[str, struct_pb2.Value], name: str) -> str:
    """A text, cut where it is longer than any that is of use: thousands of entries are kept."""
    return fields[name].string_value[: LONGEST_NAME + 1] if name in fields else ""


def _count(fields: Mapping[str, struct_pb2.Value], name: str) -> int:
    """A whole number; 0 for whatever is none, infinities and NaN among them."""
    number = fields[name].number_value if name in fields else 0.0
    return int(number) if 0 <= number < _MOST and number == int(number) else 0


# Above any count; a double holds every whole number up to it.
_MOST = 2.0**53
