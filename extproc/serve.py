"""`extproc serve`: every room put together, started in order and ended in reverse.

Floor 4. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from extproc import admin, gauges, leases, pauses
from extproc.admin import Admin, AdminServer, Probes
from extproc.budgets import Budgets
from extproc.console import Console
from extproc.edge import Edge
from extproc.errors import VocabularyMissing
from extproc.keeping import Keeping
from extproc.ledger.base import Change
from extproc.measure import vocab
from extproc.measure.counts import CountCache
from extproc.measure.learned import LearnedOutputs
from extproc.measure.prices import Prices
from extproc.measure.tokens import Tokenizer
from extproc.policy.difference import Difference
from extproc.policy.policyset import PolicySet
from extproc.policy.wording import wording
from extproc.questions.callers import Callers
from extproc.questions.http import Questions
from extproc.reload import PolicyFolder
from extproc.server import ExternalProcessor, Server, new_decision_id
from extproc.session.admission import SessionSettings
from extproc.settings import Settings, WorkerPlace
from extproc.state import LearnedFile
from extproc.telemetry import Metrics, Names, Tracing, logs

log = logging.getLogger(__name__)


async def serve(settings: Settings, place: WorkerPlace | None = None) -> None:
    """Run the sidecar until SIGTERM, SIGINT or SIGHUP; with a place also until its supervisor is gone.

    `settings` are then those of `Settings.for_worker`.
    Raises `SettingsInvalid` or `PolicyFolderInvalid` before anything listens for Envoy.
    """
    stop = _stop_on_signal()
    if place is not None:
        _stop_without_supervisor(stop)
    release = version("extproc")
    metrics = Metrics(version=release, instance_id=_instance(place))
    folder = PolicyFolder(settings.policies, on_failure=lambda: metrics.reload_failures.add(1))
    tokenizer, notices = _tokenizer(settings.vocab)
    prices = Prices.bundled()
    keeping = Keeping(settings, prices=lambda: folder.current.prices.over(prices))
    await keeping.start()
    tracing = Tracing(instance_id=_instance(place), version=release)
    metrics.watch(*keeping.figures(), *gauges.of_policies(folder), *tracing.figures(), *logs.figures())
    edge = _edge(settings, keeping, metrics, tokenizer, tracing)
    _tell_wording(edge, folder.current)
    folder.on_change = partial(_tell_change, edge)
    learned = _learned(settings.state, edge)
    metrics.names = Names(prices, lambda: folder.current)
    processor = ExternalProcessor(
        lambda: folder.current,
        edge,
        SessionSettings(native_usage=settings.native_usage, prices=prices),
    )
    listener = admin.listen(settings) if place is None else admin.listen_for_supervisor(place.admin_socket)
    probes = admin.listen_for_probes(settings)
    server = Server(processor, settings)
    address = await server.start()
    admin_app = _admin(settings, folder, edge, keeping, notices, place=place)
    followers = _followers(folder, edge, learned, notices)
    listening = [_beside(admin_app.serve(listener), "the admin port is no longer served", notices)]
    servers: list[AdminServer] = [admin_app]
    if probes is not None:
        servers.append(Probes(settings, admin_app))
        loss = "probes and metrics have no port of their own any more"
        listening.append(_beside(servers[-1].serve(probes), loss, notices))
    log.info(
        "serving",
        extra={
            "grpc": address,
            "admin": str(place.admin_socket) if place else "{}:{}".format(*listener.getsockname()[:2]),
            "revision": folder.current.revision,
            "usage": "native" if settings.native_usage else "stream",
        },
    )
    pauses.begin()
    await stop.wait()
    log.info("stopping", extra={"open_streams": processor.open_streams})
    await server.stop()
    while edge.background:
        await asyncio.wait(edge.background)
    for each in servers:
        each.stop()
    for follower in followers:
        follower.cancel()
    await asyncio.gather(*listening, *followers, return_exceptions=True)
    if learned is not None:
        await learned.save()
    if place is not None:
        place.last_metrics.write_bytes(metrics.exposition())
    await _close(edge, keeping)


def _stop_on_signal() -> asyncio.Event:
    stop = asyncio.Event()
    # SIGHUP is what a terminal that closes sends: nobody's answer is cut for that.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _stop_without_supervisor(stop: asyncio.Event) -> None:
    """Standard input is a pipe that the supervisor alone holds open: its end is the supervisor's."""
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(sys.stdin)
        log.error("the supervisor is gone; stopping")
        stop.set()

    loop.add_reader(sys.stdin, ended)


def _instance(place: WorkerPlace | None) -> str:
    """Who this is in spans; a worker's name outlives the process."""
    return f"{os.uname().nodename}:{os.getpid() if place is None else place.name}"


def _tell_wording(edge: Edge, loaded: PolicySet) -> None:
    """What a revision says is kept, for who asks about its decisions later."""
    if edge.ledger is not None:
        edge.ledger.activated(loaded.revision, edge.clock_ns(), wording(loaded.objects))


def _tell_change(edge: Edge, loaded: PolicySet, change: Difference) -> None:
    """A new revision is a record, with the objects that it changes."""
    if edge.ledger is None:
        return
    _tell_wording(edge, loaded)
    at_ns = edge.clock_ns()
    activated = Change(
        change_id=new_decision_id(at_ns),
        at_ns=at_ns,
        action="policies_activated",
        subject=loaded.revision,
        details={"change": str(change)},
    )
    edge.ledger.changed(activated)


def _edge(
    settings: Settings, keeping: Keeping, metrics: Metrics, tokenizer: Tokenizer, tracing: Tracing
) -> Edge:
    return Edge(
        store=keeping.store,
        ledger=keeping.journal,
        tokenizer=tokenizer,
        learned=LearnedOutputs(),
        tracing=tracing,
        metrics=metrics,
        pool=ThreadPoolExecutor(settings.threads, thread_name_prefix="understand"),
        clock_ns=time.time_ns,
        deadline_s=settings.deadline_s,
        callers=Callers(keeping.reader),
    )


def _learned(folder: Path | None, edge: Edge) -> LearnedFile | None:
    """What earlier runs learned, taken over; None where nothing is kept."""
    if folder is None:
        return None

    def failed() -> None:
        edge.metrics.failures.add(1, error_type="state_not_written")

    learned = LearnedFile(
        folder,
        edge.learned,
        edge.reasoning,
        edge.calibration,
        bytes_per_token=edge.access_log.bytes_per_token,
        on_failure=failed,
    )
    learned.load()
    return learned


def _admin(
    settings: Settings,
    folder: PolicyFolder,
    edge: Edge,
    keeping: Keeping,
    notices: list[str],
    *,
    place: WorkerPlace | None,
) -> Admin:
    budgets = Budgets(
        policies=lambda: folder.current,
        store=edge.store,
        ledger=edge.ledger,
        clock_ns=edge.clock_ns,
        new_id=new_decision_id,
    )

    def needs_records() -> bool:
        return folder.current.defaults.audit == "required"

    def told() -> list[str]:
        return [*notices, *keeping.notices(needs_records=needs_records())]

    def is_ready() -> bool:
        return keeping.is_writing or not needs_records()

    console = Console(
        folder=folder,
        ledger=keeping.reader,
        notices=told,
        is_ready=is_ready,
        clock_ns=edge.clock_ns,
        worker=place.name if place else "",
        trace_url=settings.trace_url,
    )
    return Admin(
        settings,
        folder,
        edge.metrics,
        told,
        is_ready=is_ready,
        routes=[
            *budgets.routes(),
            *Questions(ledger=keeping.reader, clock_ns=edge.clock_ns).routes(),
            *console.routes(),
        ],
        is_guarded=place is None,
    )


def _followers(
    folder: PolicyFolder, edge: Edge, learned: LearnedFile | None, notices: list[str]
) -> list[asyncio.Task[None]]:
    """What goes on beside the requests until the end."""
    followers = [
        _beside(folder.follow(), "the policy folder is no longer followed", notices),
        _beside(leases.keep(edge), "leases are no longer renewed", notices),
        _beside(gauges.watch_event_loop(edge.metrics), "the event loop is no longer watched", notices),
    ]
    if learned is not None:
        followers.append(_beside(learned.keep(), "what is learned is no longer saved", notices))
    return followers


def _beside(work: Coroutine[Any, Any, None], loss: str, notices: list[str]) -> asyncio.Task[None]:
    """Run what requests do not wait for; if it fails, requests go on and `/readyz` says what is lost."""

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            notices.append(loss)
            log.error(loss, exc_info=error)

    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(ended)
    return task


async def _close(edge: Edge, keeping: Keeping) -> None:
    edge.pool.shutdown()
    await keeping.close()
    edge.tracing.close()
    edge.metrics.close()


def _tokenizer(directory: Path | None) -> tuple[Tokenizer, list[str]]:
    """The tokenizer, or one that estimates and says so."""
    try:
        encodings = vocab.load(directory or vocab.default_directory(os.environ))
    except VocabularyMissing as missing:
        notice = f"{missing}; every count is an estimate by bytes until `extproc vocab` has run"
        log.warning("vocabulary missing", extra={"notice": notice})
        return Tokenizer({}), [notice]
    # A key of this process: what a client can find out about one says nothing of another.
    return Tokenizer(encodings, CountCache(secrets.token_bytes(16))), []
