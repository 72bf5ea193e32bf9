"""The admin port of several workers: what they say together; everything else goes to one of them.

Floor 4. The guard is `extproc.admin`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from extproc.admin import AdminServer
from extproc.budgets import Refused, read_body
from extproc.settings import Settings
from extproc.telemetry import merged

if TYPE_CHECKING:
    from extproc.workers.supervisor import Supervisor
    from extproc.workers.worker import Worker

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
# What a worker needs to know of a request that was let in here, and what a caller of its answer.
_REQUEST_HEADERS = ("accept", "content-type")
_ANSWER_HEADERS = (
    *("content-type", "content-disposition", "cache-control", "location"),
    *("content-security-policy", "referrer-policy", "x-content-type-options"),
)
# Whatever a person asked for may take this long.
_FORWARDED_S = 30.0


class WorkersAdmin(AdminServer):
    """What all workers of one supervisor say."""

    def __init__(self, settings: Settings, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        super().__init__(
            settings,
            [
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._exposition),
                Route("/workers/{number:int}/restart", self._restart, methods=["POST"]),
                Route("/{path:path}", self._forward, methods=METHODS),
            ],
        )

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        """Ready while one of them is; who lags behind or is missing is said."""
        workers = self._supervisor.workers
        said = await asyncio.gather(*(worker.readiness() for worker in workers))
        lines = [_line(worker, each) for worker, each in zip(workers, said, strict=True)]
        spoken = [each for each in said if each]
        revisions = _distinct(each["revision"] for each in spoken)
        notices = _distinct(notice for each in spoken for notice in each["notices"])
        if len(revisions) > 1:
            notices.insert(0, f"workers run different policy revisions: {', '.join(revisions)}")
        is_ready = any(line["ready"] for line in lines)
        body = {
            "ready": is_ready,
            "revision": revisions[0] if revisions else None,
            "last_reload_ok": all(each["last_reload_ok"] for each in spoken),
            "problems": _distinct(problem for each in spoken for problem in each["problems"]),
            "notices": notices,
            "workers": lines,
        }
        return JSONResponse(body, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _exposition(self, _: Request) -> Response:
        workers = self._supervisor.workers
        await asyncio.gather(*(worker.look() for worker in workers))
        # Read at one moment: a process that ends goes from the one to the other.
        by_name = {str(worker.number): worker.metrics for worker in workers}
        families = merged.merged(by_name, self._supervisor.counted_before) + _own(workers)
        return Response(merged.written(families), media_type="text/plain; version=0.0.4")

    async def _restart(self, request: Request) -> Response:
        """Begin; `/readyz` shows how it goes."""
        number = request.path_params["number"]
        if number >= len(self._supervisor.workers):
            return JSONResponse({"error": f"there is no worker {number}"}, HTTPStatus.NOT_FOUND)
        worker = self._supervisor.workers[number]
        obstacle = (
            "workers are being restarted already"
            if self._supervisor.is_restarting
            else await self._supervisor.obstacle(worker)
        )
        if obstacle:
            return JSONResponse({"error": obstacle}, HTTPStatus.CONFLICT)
        self._supervisor.begin_restart([worker])
        return JSONResponse({"worker": number, "restarting": True}, HTTPStatus.ACCEPTED)

    async def _forward(self, request: Request) -> Response:
        """Ask the first worker that serves: what is behind these paths is shared, or the same in all."""
        for worker in self._supervisor.workers:
            if worker.is_serving:
                break
        else:
            return JSONResponse({"error": "no worker serves"}, HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            body = await read_body(request)
        except Refused as refused:
            return JSONResponse({"error": str(refused)}, refused.status)
        query = f"?{request.url.query}" if request.url.query else ""
        answer = await worker.ask(
            request.scope["raw_path"].decode("ascii") + query,
            method=request.method,
            body=body,
            headers={name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers},
            within_s=_FORWARDED_S,
        )
        if not answer.headers:
            return JSONResponse({"error": f"worker {worker.number} did not answer"}, answer.status)
        kept = {name: text for name, text in answer.headers.items() if name.lower() in _ANSWER_HEADERS}
        return Response(answer.body, answer.status, kept)


def _line(worker: Worker, said: dict[str, Any]) -> dict[str, Any]:
    return {
        "worker": worker.number,
        "endpoint": worker.endpoint,
        "pid": worker.pid,
        "ready": worker.is_serving and bool(said.get("ready")),
        "revision": said.get("revision"),
        "restarts": worker.crashes + worker.replacements,
    }


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _own(workers: Iterable[Worker]) -> merged.Families:
    """What only the supervisor knows."""
    restarts = CounterMetricFamily(
        "ai_policy_worker_restarts", "Workers that another process replaced.", labels=("worker", "reason")
    )
    ready = GaugeMetricFamily("ai_policy_worker_up", "Whether this worker serves.", labels=("worker",))
    for worker in workers:
        name = str(worker.number)
        restarts.add_metric((name, "crashed"), worker.crashes)
        restarts.add_metric((name, "asked"), worker.replacements)
        ready.add_metric((name,), float(worker.is_serving))
    return (restarts, ready)
