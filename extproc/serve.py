"""`extproc serve`: every room put together, started in order and ended in reverse.

Floor 4. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from extproc import admin
from extproc.admin import Admin
from extproc.errors import VocabularyMissing
from extproc.exchange import Edge
from extproc.measure import vocab
from extproc.measure.learned import LearnedOutputs
from extproc.measure.tokens import Tokenizer
from extproc.reload import PolicyFolder
from extproc.server import ExternalProcessor, Server
from extproc.session.session import SessionSettings
from extproc.settings import Settings
from extproc.store.memory import MemoryStore
from extproc.telemetry import Metrics, Tracing

log = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Run the sidecar until SIGTERM or SIGINT.

    Raises `SettingsInvalid` or `PolicyFolderInvalid` before anything listens for Envoy.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    release = version("extproc")
    metrics = Metrics(version=release)
    folder = PolicyFolder(settings.policies, on_failure=lambda: metrics.reload_failures.add(1))
    tokenizer, notices = _tokenizer(settings.vocab)
    tracing = Tracing(instance_id=f"{os.uname().nodename}:{os.getpid()}", version=release)
    edge = Edge(
        store=MemoryStore(),
        tokenizer=tokenizer,
        learned=LearnedOutputs(),
        tracing=tracing,
        metrics=metrics,
        pool=ThreadPoolExecutor(settings.threads, thread_name_prefix="understand"),
        clock_ns=time.time_ns,
        deadline_s=settings.deadline_s,
    )
    processor = ExternalProcessor(
        lambda: folder.current, edge, SessionSettings(native_usage=settings.native_usage)
    )
    listener = admin.listen(settings)
    server = Server(processor, settings)
    address = await server.start()
    admin_app = Admin(settings, folder, metrics, lambda: notices)
    tasks = [loop.create_task(folder.follow()), loop.create_task(admin_app.serve(listener))]
    log.info(
        "serving",
        extra={
            "grpc": address,
            "admin": "{}:{}".format(*listener.getsockname()[:2]),
            "revision": folder.current.revision,
            "usage": "native" if settings.native_usage else "stream",
        },
    )
    # What is loaded now stays: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    await stop.wait()
    log.info("stopping", extra={"open_streams": processor.open_streams})
    await server.stop()
    while edge.background:
        await asyncio.wait(edge.background)
    admin_app.stop()
    tasks[0].cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    edge.pool.shutdown()
    await edge.store.close()
    tracing.close()
    metrics.close()


def _tokenizer(directory: Path | None) -> tuple[Tokenizer, list[str]]:
    """The tokenizer, or one that estimates and says so."""
    try:
        return Tokenizer(vocab.load(directory or vocab.default_directory(os.environ))), []
    except VocabularyMissing as missing:
        notice = f"{missing}; every count is an estimate by bytes until `extproc vocab` has run"
        log.warning("vocabulary missing", extra={"notice": notice})
        return Tokenizer({}), [notice]
