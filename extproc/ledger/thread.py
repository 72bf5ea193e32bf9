"""A thread of one's own for what blocks, in order, one piece after another.

Floor 3. Not an executor: those are waited for at exit, and a database may take its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class LedgerThread:
    """Runs functions one after another; made and used by one event loop."""

    def __init__(self, name: str = "ledger") -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[[], T]) -> T:
        """What the function returns or raises; whoever stops waiting does not stop it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001  it belongs to who asked for the work
                _tell(loop, _fail, done, error)
            else:
                _tell(loop, _finish, done, result)

        self._work.put(work)
        return await done

    def stop(self, last: Callable[[], None]) -> None:
        """Let the thread end after what it was given and `last`; does not wait for it."""
        self._work.put(last)
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[..., None], *what: Any) -> None:
    # A loop that is closed has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(tell, *what)


def _finish(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
