"""Starts workers, keeps each place taken, restarts one after another, ends all of them.

Floor 4. A place that stays empty is tried again and again, ever more slowly; only a start at which
the first processes find something unusable ends the supervisor, with their exit code.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from extproc import admin
from extproc.errors import PolicyFolderInvalid
from extproc.policy import policyset
from extproc.settings import Settings, WorkerPlace, worker_addresses
from extproc.telemetry import merged
from extproc.workers.admin import WorkersAdmin
from extproc.workers.worker import Worker

log = logging.getLogger(__name__)

_SHORTEST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0
# Whoever lived this long did not crash at its start: the next delay is the shortest again.
_STEADY_S = 30.0
# After the drain: settling what is open, and two tries to export the last spans, 10 s each.
_AFTER_DRAIN_S = 25.0
_BACK_S = 60.0  # a start takes two seconds
_SEEN_S = 30.0  # Envoy checks every two seconds, as rendered
_POLL_S = 0.1
# What a crashed worker counted since the last look is lost.
_LOOK_S = 5.0


class Supervisor:
    """All workers of one `serve`. `command` starts one; it gets two flags more, saying which."""

    def __init__(self, settings: Settings, command: Sequence[str]) -> None:
        self._settings = settings
        self._command = command
        self.workers: tuple[Worker, ...] = ()
        self.counted_before: merged.Families = ()  # by processes that ended
        self._stopping = asyncio.Event()
        self.is_up = False  # all places were taken once
        self._exit_code = 0
        self._rolling = asyncio.Lock()
        self._aside: set[asyncio.Task[None]] = set()
        self._lifeline = -1

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code.

        Raises `SettingsInvalid` or `PolicyFolderInvalid` before any worker is started.
        """
        policyset.load(self._settings.policies)
        listener, probes = admin.listen(self._settings), admin.listen_for_probes(self._settings)
        self._lifeline, held = os.pipe()
        try:
            with tempfile.TemporaryDirectory(prefix="extproc-") as folder:
                self.workers = self._places(Path(folder))
                self._take_signals()
                server = WorkersAdmin(self._settings, self)
                async with asyncio.TaskGroup() as group:
                    group.create_task(server.serve(listener))
                    if probes is not None:
                        self._beside(
                            admin.Probes(self._settings, server).serve(probes), "no probes port any more"
                        )
                    self._beside(self._look(), "workers are no longer compared")
                    await self._run_workers(group)
                    server.stop()
        finally:
            for task in self._aside:
                task.cancel()
            for worker in self.workers:
                worker.kill()
            os.close(held)
            os.close(self._lifeline)
        return self._exit_code

    def _places(self, folder: Path) -> tuple[Worker, ...]:
        addresses = worker_addresses(self._settings.grpc, self._settings.workers)
        return tuple(
            Worker(WorkerPlace(number=number, folder=folder), address, self._command)
            for number, address in enumerate(addresses)
        )

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.begin_restart(self.workers))

    def _beside(self, work: Coroutine[Any, Any, None], loss: str) -> None:
        """Run what the workers do not need; if it fails, they go on."""

        def ended(task: asyncio.Task[None]) -> None:
            self._aside.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error(loss, exc_info=error)

        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(ended)

    # --- keeping every place taken

    async def _run_workers(self, group: asyncio.TaskGroup) -> None:
        """Return when all have ended."""
        keeping = [group.create_task(self._keep(worker)) for worker in self.workers]
        if await self._until(lambda: all(worker.is_serving for worker in self.workers)):
            self.is_up = True
            log.info("workers serve", extra={"endpoints": [worker.endpoint for worker in self.workers]})
        await self._stopping.wait()
        log.info("stopping", extra={"workers": len(self.workers)})
        bound_s = self._settings.drain_s + _AFTER_DRAIN_S
        await asyncio.gather(*(worker.stop(bound_s) for worker in self.workers), *keeping)

    async def _keep(self, worker: Worker) -> None:
        """Put one process after another into this place, until all is to stop."""
        loop = asyncio.get_running_loop()
        delay_s = _SHORTEST_DELAY_S
        while not self._stopping.is_set():
            started_at = loop.time()
            worker.is_leaving = False
            await worker.start(self._lifeline)
            if self._stopping.is_set():  # while it was started
                worker.kill()
            code = await worker.ended()
            self.counted_before = merged.counted(self.counted_before, worker.left_behind())
            if self._stopping.is_set() or worker.is_leaving:
                continue
            if not self.is_up:
                self._give_up(worker, code)
                return
            if loop.time() - started_at > _STEADY_S:
                delay_s = _SHORTEST_DELAY_S
            worker.crashes += 1
            log.error(
                "worker ended; starting another",
                extra={"worker": worker.number, "exit_code": code, "delay_s": delay_s},
            )
            await self._until(lambda: False, within_s=delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    def _give_up(self, worker: Worker, code: int) -> None:
        log.error("worker did not start", extra={"worker": worker.number, "exit_code": code})
        self._exit_code = code if code > 0 else 1
        self._stopping.set()

    # --- one after another

    def begin_restart(self, workers: Iterable[Worker]) -> None:
        """Restart these, each once the one before is back and Envoy sends it requests again.

        Ends at the first that cannot be spared or does not come back: the others go on as they are.
        """
        self._beside(self._restart(tuple(workers)), "the restart failed")

    async def _restart(self, workers: tuple[Worker, ...]) -> None:
        if self._rolling.locked():
            log.warning("workers are being restarted already")
            return
        async with self._rolling:
            for worker in workers:
                problem = await self.obstacle(worker) or await self._replace(worker)
                if problem:
                    log.error("restart given up", extra={"worker": worker.number, "problem": problem})
                    return
        log.info("workers restarted")

    async def obstacle(self, worker: Worker) -> str:
        """Why this one must not end now; empty where it may."""
        if self._stopping.is_set():
            return "all of them are being stopped"
        if not self.is_up:
            return "not all of them have started yet"
        if not any(other.is_serving for other in self.workers if other is not worker):
            return "no other worker serves"
        try:
            await asyncio.to_thread(policyset.load, self._settings.policies)
        except PolicyFolderInvalid as invalid:
            # A running worker keeps its last good revision; a new one would have none.
            return f"the policy folder does not load: {invalid.problems[0]}"
        return ""

    @property
    def is_restarting(self) -> bool:
        """Whether a restart that was asked for is under way."""
        return self._rolling.locked()

    async def _replace(self, worker: Worker) -> str:
        """End it in order and see the next one in its place; what went wrong, or nothing."""
        if await worker.is_seen_by_envoy() and not await self._until(
            lambda: self._are_seen_beside(worker), within_s=_SEEN_S
        ):
            return "Envoy checks the health of this one and not of all others"
        log.info("restarting worker", extra={"worker": worker.number})
        leaving = worker.pid
        worker.is_leaving = True
        worker.replacements += 1
        await worker.stop(self._settings.drain_s + _AFTER_DRAIN_S)
        if not await self._until(lambda: worker.is_serving and worker.pid != leaving, within_s=_BACK_S):
            return "it did not come back"
        return ""

    async def _are_seen_beside(self, worker: Worker) -> bool:
        """Whether Envoy sends requests to all others, those included that have just been started."""
        others = [other for other in self.workers if other is not worker and other.is_serving]
        return all(await asyncio.gather(*(other.is_seen_by_envoy() for other in others)))

    async def _until(
        self, is_so: Callable[[], bool | Awaitable[bool]], *, within_s: float | None = None
    ) -> bool:
        """Wait until this is so; False if all is to stop, or after `within_s`."""
        loop = asyncio.get_running_loop()
        ends_at = None if within_s is None else loop.time() + within_s
        while not self._stopping.is_set():
            said = is_so()
            if said if isinstance(said, bool) else await said:
                return True
            left_s = _POLL_S if ends_at is None else min(_POLL_S, ends_at - loop.time())
            if left_s <= 0:
                return False
            await asyncio.sleep(left_s)
        return False

    # --- looking after them

    async def _look(self) -> None:
        """Remember what each has counted, and say when they do not run one revision."""
        told: set[str] = set()
        before: set[str] = set()
        while True:
            await asyncio.sleep(_LOOK_S)
            await asyncio.gather(*(worker.look() for worker in self.workers))
            said = await asyncio.gather(*(worker.readiness() for worker in self.workers))
            revisions = {str(each["revision"]) for each in said if each}
            # Twice in a row: right after an edit one of them is always the first.
            if len(revisions) > 1 and revisions == before and revisions != told:
                log.error("workers run different policy revisions", extra={"revisions": sorted(revisions)})
                told = revisions
            before = revisions
