"""Sending an answer: pace, cuts, compression, and noticing that the client has left. An ASGI response."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from demo.books import Entry

# Without a pace, chunks share writes as a fast provider's do; a client can leave between two writes.
_CHUNKS_A_WRITE = 16
_GZIP = 31  # zlib's window bits for the gzip container


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes that belong together; `tokens` were generated for them in `chunks` chunks."""

    data: bytes
    tokens: int = 0
    chunks: int = 0
    is_failure: bool = False  # the answer did not come to its proper end


CUT = Part(data=b"", is_failure=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer; whatever happens to it, its entry in the books tells what was generated."""

    entry: Entry
    status: int
    headers: Mapping[str, str]
    parts: Iterable[Part] = field(default_factory=tuple)
    hang_s: float = 0.0
    pace_s: float = 0.0
    is_compressed: bool = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer. Returning early makes the server close the connection: that is the cut."""
        gone = asyncio.Event()
        watch = asyncio.create_task(_watch(receive, gone))
        self.entry.status = self.status
        try:
            if self.hang_s and await _left_within(gone, self.hang_s):
                return
            self.entry.is_complete = await self._send(send, gone)
        finally:
            watch.cancel()
            self.entry.is_open = False

    async def _send(self, send: Send, gone: asyncio.Event) -> bool:
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        squeeze = _Squeeze() if self.is_compressed else None
        if squeeze:
            headers.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        failed = False
        for parts in _batches(self.parts, 1 if self.pace_s else _CHUNKS_A_WRITE):
            if data := b"".join(part.data for part in parts):
                squeezed = squeeze.add(data) if squeeze else data
                await send({"type": "http.response.body", "body": squeezed, "more_body": True})
            for part in parts:
                self.entry.add(part.tokens, part.chunks)
            failed = failed or any(part.is_failure for part in parts)
            if CUT in parts or await _left_within(gone, self.pace_s):
                return False
        tail = squeeze.end() if squeeze else b""
        await send({"type": "http.response.body", "body": tail, "more_body": False})
        return not failed


class _Squeeze:
    """Gzip that can be read as it arrives."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(wbits=_GZIP)

    def add(self, data: bytes) -> bytes:
        return self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._deflate.flush()


def _batches(parts: Iterable[Part], size: int) -> Iterator[list[Part]]:
    batch: list[Part] = []
    for part in parts:
        batch.append(part)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


async def _watch(receive: Receive, gone: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


async def _left_within(gone: asyncio.Event, seconds: float) -> bool:
    # Zero still gives the server a turn in which it can notice.
    if not seconds:
        await asyncio.sleep(0)
    else:
        with suppress(TimeoutError):
            await asyncio.wait_for(gone.wait(), seconds)
    return gone.is_set()
