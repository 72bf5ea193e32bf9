"""One place for a worker: the process in it, started, asked and ended.

Floor 4. Each process is a fresh interpreter: gRPC's threads do not survive a fork. What happens when it
ends is the supervisor's to decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from extproc.settings import WorkerPlace
from extproc.telemetry import merged

# A worker answers in milliseconds; one that does not is busy or stuck, and nobody waits for it.
_ANSWER_S = 2.0
# A start takes a second or two.
_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a worker's admin said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Worker:
    """A place for one worker; the processes in it come one after another."""

    def __init__(self, place: WorkerPlace, endpoint: str, command: Sequence[str]) -> None:
        self.place = place
        self.endpoint = endpoint
        self._command = [*command, "--worker-number", str(place.number), "--worker-folder", str(place.folder)]
        self._process: Process | None = None
        self.is_serving = False  # its server listens; whether it is ready to decide, `readiness` says
        self.is_leaving = False  # it was told to end, so that another one takes its place
        self.crashes = 0
        self.replacements = 0
        self._exposition = b""

    @property
    def number(self) -> int:
        """Counts from 0."""
        return self.place.number

    @property
    def pid(self) -> int | None:
        """The running process; None while there is none."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self, lifeline: int) -> None:
        """Start a process; it stops when the last writer of the pipe `lifeline` is gone."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=lifeline,
            # A terminal's Ctrl-C is for the supervisor, which tells the workers in its own time.
            start_new_session=True,
        )

    async def ended(self) -> int:
        """Wait for the end of what `start` started, and set `is_serving` meanwhile; the exit code."""
        process = self._running
        polling = asyncio.get_running_loop().create_task(self._poll())
        try:
            return await process.wait()
        finally:
            polling.cancel()
            self.is_serving = False

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("nothing was started here")
        return self._process

    async def _poll(self) -> None:
        while not await self.readiness():  # noqa: ASYNC110  the event is in another process
            await asyncio.sleep(_POLL_S)
        self.is_serving = not self.is_leaving

    async def stop(self, within_s: float) -> None:
        """Tell it to end in order, and kill it when that takes too long."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.is_serving = False
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), within_s)
        except TimeoutError:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    # --- what it says

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        within_s: float = _ANSWER_S,
    ) -> Answer:
        """Ask its admin; status 503 where nobody answers in time."""
        return await asyncio.to_thread(self._ask, path, method, body, dict(headers or {}), within_s)

    def _ask(self, path: str, method: str, body: bytes, headers: dict[str, str], within_s: float) -> Answer:
        connection = _UnixConnection(self.place.admin_socket, within_s)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return Answer(status=answer.status, headers=dict(answer.getheaders()), body=answer.read())
        except (OSError, http.client.HTTPException):
            return Answer(status=HTTPStatus.SERVICE_UNAVAILABLE, headers={}, body=b"")
        finally:
            connection.close()

    async def readiness(self) -> dict[str, Any]:
        """What its `/readyz` says, ready or not; empty where nobody answers."""
        answer = await self.ask("/readyz")
        said: dict[str, Any] = json.loads(answer.body) if answer.headers else {}
        return said

    async def look(self) -> None:
        """Read what it has counted up to now."""
        pid = self.pid
        answer = await self.ask("/metrics")
        # A late answer of a process that has ended is in `left_behind` already.
        if answer.status == HTTPStatus.OK and pid == self.pid:
            self._exposition = answer.body

    @property
    def metrics(self) -> merged.Families:
        """What it had counted at the last look."""
        return merged.read(self._exposition)

    def left_behind(self) -> merged.Families:
        """What the process that ended had counted: all of it, or as of the last look where it crashed."""
        last, self._exposition = self._exposition, b""
        with contextlib.suppress(FileNotFoundError):
            last = self.place.last_metrics.read_bytes()
            self.place.last_metrics.unlink()
        return merged.counted(merged.read(last))

    async def is_seen_by_envoy(self) -> bool:
        """Whether somebody checked the health of this process, and found it good."""
        await self.look()
        return any(
            sample.value > 0
            for family in self.metrics
            if family.name == "ai_policy_health_checks"
            for sample in family.samples
            if sample.labels.get("status") == "SERVING"
        )
