"""The load: a closed loop over some connections, in a process of its own.

`python -m bench.load` reads a `Job` as JSON, does it, and prints a `Sample` as JSON. A connection sends
its next request when the last byte of an answer is there; the connections start one after the other, so
that they do not march in step. Any answer but the expected one ends it. Imports little, so that it
starts fast.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from bench import cpu
from bench.errors import BenchFailed
from bench.http1 import AnswerReader

HOST = "127.0.0.1"
OK = 200
# An answer that takes longer is lost.
PATIENCE_S = 30.0
# Every answer that our sidecar let through has it.
DECIDED = b"\r\nx-ai-policy-decision-id:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One cell's work."""

    port: int
    request: str  # the bytes of the request, as Latin-1
    ending: str  # how the body of every answer ends
    connections: int
    warm_s: float  # at least, before anything is counted
    seconds: float  # at least, of measuring; both last until there was an answer for each connection
    groups: Mapping[str, int]  # name -> process group whose CPU time is wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one cell came to. All but `sent` and `decided` count the measured time alone."""

    seconds: float
    latencies_us: list[int]  # to the last byte, one an answer
    first_bytes_us: list[int]  # to the end of the headers, one an answer
    cpu_s: Mapping[str, float]
    load_cpu_s: float  # the load's own
    machine_cpu_s: float  # everything's, strangers included
    sent: int  # from the first request to the last
    decided: int  # answers, out of all sent, that name a decision of ours


class Load:
    """What the connections of one job share."""

    def __init__(self, job: Job) -> None:
        self.request = job.request.encode("latin-1")
        self.ending = job.ending.encode("latin-1")
        self.is_measuring = False
        self.is_ending = False
        self.latencies_us: list[int] = []
        self.first_bytes_us: list[int] = []
        self.sent = self.answered = self.decided = 0
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transports: list[asyncio.WriteTransport] = []

    def fail(self, why: str) -> None:
        """End it: nothing that follows is worth measuring."""
        if not self.failed.done():
            self.failed.set_exception(BenchFailed(why))

    async def go_on(self, seconds: float, answers: int) -> None:
        """Return after at least so many seconds and so many more answers.

        Raises:
            BenchFailed: a request failed, or the answers do not come.

        """
        target, deadline = self.answered + answers, time.perf_counter() + seconds + PATIENCE_S
        await asyncio.wait({self.failed}, timeout=seconds)
        while self.answered < target and not self.failed.done() and time.perf_counter() < deadline:
            await asyncio.wait({self.failed}, timeout=0.005)
        if self.failed.done():
            self.failed.result()
        if self.answered < target:
            raise BenchFailed(f"{self.sent - self.answered} requests had no answer after {PATIENCE_S:g} s")


class Connection(asyncio.Protocol):
    """One caller in the loop."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.WriteTransport
        self._answer = AnswerReader()
        self._sent_at = self._started_at = 0.0
        self._is_idle = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - what asyncio gives for a stream
        self._transport = transport
        self._load.transports.append(transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail if an answer was due."""
        if not self._is_idle:
            self._load.fail(f"a connection closed before its answer was complete ({exc or 'no error'})")

    def data_received(self, data: bytes) -> None:
        """Read on; after the last byte, note the time and send the next request."""
        try:
            is_complete = self._answer.feed(data)
        except BenchFailed as error:
            self._load.fail(str(error))
            return
        if not self._started_at and self._answer.has_started:
            self._started_at = time.perf_counter()
        if is_complete:
            self._finish()

    def _send(self) -> None:
        self._answer = AnswerReader()
        self._started_at = 0.0
        self._load.sent += 1
        self._sent_at = time.perf_counter()
        self._transport.write(self._load.request)

    def _finish(self) -> None:
        load, answer, now = self._load, self._answer, time.perf_counter()
        if answer.status != OK or not answer.tail.endswith(load.ending):
            load.fail(f"status {answer.status}, and the body ends: {answer.tail[-500:].decode('latin-1')}")
        load.answered += 1
        load.decided += DECIDED in answer.head
        if load.is_measuring:
            load.latencies_us.append(round((now - self._sent_at) * 1e6))
            load.first_bytes_us.append(round((self._started_at - self._sent_at) * 1e6))
        self._is_idle = load.is_ending
        if not load.is_ending:
            self._send()


async def run(job: Job) -> Sample:
    """Do one job.

    Raises:
        BenchFailed: an answer was not the expected one, or none came.
        OSError: nobody listens there.

    """
    load = Load(job)
    try:
        await _warm_up(load, job)
        before, began_at = _clocks(job), time.perf_counter()
        load.is_measuring = True
        await load.go_on(job.seconds, job.connections)
        load.is_measuring = False
        seconds, after = time.perf_counter() - began_at, _clocks(job)
        # What is on its way must arrive too.
        load.is_ending = True
        await load.go_on(0, load.sent - load.answered)
    finally:
        for transport in load.transports:
            transport.abort()
    used = {name: after[name] - before[name] for name in before}
    return Sample(
        seconds=seconds,
        latencies_us=load.latencies_us,
        first_bytes_us=load.first_bytes_us,
        load_cpu_s=used.pop(_LOAD),
        machine_cpu_s=used.pop(_MACHINE),
        cpu_s=used,
        sent=load.sent,
        decided=load.decided,
    )


async def _warm_up(load: Load, job: Job) -> None:
    for _ in range(job.connections):
        await asyncio.get_running_loop().create_connection(lambda: Connection(load), HOST, job.port)
        await load.go_on(job.warm_s / job.connections, 0)
    await load.go_on(0, job.connections)


_LOAD, _MACHINE = "this process", "this machine"


def _clocks(job: Job) -> dict[str, float]:
    own = {_LOAD: time.process_time(), _MACHINE: cpu.machine_s()}
    return cpu.used_s(job.groups) | own


def main() -> int:
    """Do the job on standard input; 1 with the reason on standard error if it failed."""
    job = Job(**json.load(sys.stdin))
    # A collection would show as a slow answer.
    gc.disable()
    try:
        sample = asyncio.run(run(job))
    except (BenchFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(asdict(sample), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
