"""The HTTP admin port: probes, metrics, and what is loaded.

Floor 3. Binds loopback unless told otherwise; probes and metrics are open, everything else needs the
bearer token where the port can be reached from elsewhere.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from extproc.errors import SettingsInvalid
from extproc.policy import policyset
from extproc.reload import PolicyFolder
from extproc.settings import Settings
from extproc.telemetry import Metrics

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class AdminServer:
    """Routes behind the guard, served over HTTP; what they answer is whoever's brings them.

    Without `is_guarded` whoever reaches the listener was let in elsewhere.
    """

    def __init__(self, settings: Settings, routes: Sequence[BaseRoute], *, is_guarded: bool = True) -> None:
        self._settings = settings
        self.routes = tuple(routes)
        app = Starlette(routes=routes)
        if is_guarded:
            app.add_middleware(BaseHTTPMiddleware, dispatch=self._guard)
        self.app = app
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
        self._server = uvicorn.Server(config)

    async def serve(self, listener: socket.socket) -> None:
        """Serve until `stop`."""
        # Signals belong to whoever runs us.
        await self._server._serve([listener])  # noqa: SLF001  `serve` would take over the signal handlers

    def stop(self) -> None:
        """End `serve` once open requests are answered."""
        self._server.should_exit = True

    async def _guard(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse a browser that was lured here (DNS rebinding), and whoever needs the token and has none.

        Readers need it where the port can be reached from elsewhere; who changes something always does:
        in a pod, loopback is shared with the application.
        """
        if self._settings.admin_is_loopback and not _is_loopback_host(request.headers.get("host", "")):
            return JSONResponse({"error": "the Host header is not this machine"}, status_code=421)
        is_reading = request.method in _READING
        if is_reading and _is_loaded_elsewhere(request):
            return JSONResponse({"error": "a page of another site may load nothing here"}, status_code=403)
        if not is_reading:
            refused = self._refuse_writing(request)
            if refused is not None:
                return refused
        is_open = request.scope["path"] in OPEN_PATHS or self._settings.admin_is_loopback
        if (is_reading and is_open) or self._has_token(request):
            return await call_next(request)
        return JSONResponse({"error": "send EXTPROC_ADMIN_TOKEN as a bearer token"}, status_code=401)

    def _refuse_writing(self, request: Request) -> Response | None:
        if _is_from_another_site(request):
            return JSONResponse({"error": "a page of another site may change nothing here"}, status_code=403)
        if not self._settings.admin_token:
            error = "changes need a bearer token; set EXTPROC_ADMIN_TOKEN to one"
            return JSONResponse({"error": error}, status_code=403)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            return JSONResponse({"error": "the content type must be application/json"}, status_code=415)
        return None

    def _has_token(self, request: Request) -> bool:
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        # Header values arrive as Latin-1, whatever their bytes meant.
        token = self._settings.admin_token.encode()
        is_right = hmac.compare_digest(sent.strip().encode("latin-1"), token)
        return scheme.lower() == "bearer" and is_right and bool(token)


class Admin(AdminServer):
    """What one process says of itself."""

    def __init__(
        self,
        settings: Settings,
        folder: PolicyFolder,
        metrics: Metrics,
        notices: Callable[[], list[str]],
        *,
        is_ready: Callable[[], bool] = lambda: True,
        routes: Sequence[BaseRoute] = (),
        is_guarded: bool = True,
    ) -> None:
        self._folder = folder
        self._metrics = metrics
        self._notices = notices
        self._is_ready = is_ready
        super().__init__(
            settings,
            [
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._exposition),
                Route("/policies", self._policies),
                *routes,
            ],
            is_guarded=is_guarded,
        )

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        """Ready while requests can be decided; a failed reload is said, and does not take traffic away."""
        status = self._folder.status
        is_ready = self._is_ready()
        return JSONResponse(
            status_code=200 if is_ready else 503,
            content={
                "ready": is_ready,
                "revision": self._folder.current.revision,
                "last_reload_ok": status.ok,
                "problems": list(status.problems),
                "notices": self._notices(),
            },
        )

    async def _exposition(self, _: Request) -> Response:
        return Response(self._metrics.exposition(), media_type="text/plain; version=0.0.4")

    async def _policies(self, _: Request) -> Response:
        status = self._folder.status
        return JSONResponse(
            {
                "revision": self._folder.current.revision,
                "objects": policyset.describe(self._folder.current),
                "warnings": [str(each) for each in self._folder.current.warnings(time.time_ns())],
                "last_reload": {"at_ns": status.at_ns, "ok": status.ok, "problems": list(status.problems)},
            }
        )


class Probes(AdminServer):
    """What `admin` says to everybody, on a listener that says nothing else."""

    def __init__(self, settings: Settings, admin: AdminServer) -> None:
        open_routes = [each for each in admin.routes if isinstance(each, Route) and each.path in OPEN_PATHS]
        super().__init__(settings, open_routes, is_guarded=False)


def listen(settings: Settings) -> socket.socket:
    """Bind the admin port. Raises `SettingsInvalid` naming it if it is taken."""
    return _bound(
        settings.admin_host,
        settings.admin_port,
        "--admin-host and --admin-port (EXTPROC_ADMIN_HOST, EXTPROC_ADMIN_PORT) move it",
    )


def listen_for_probes(settings: Settings) -> socket.socket | None:
    """Bind the port of probes and metrics, on every address; None where there is none of its own.

    Raises `SettingsInvalid` naming it if it is taken.
    """
    if settings.metrics_port is None:
        return None
    host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104  others are to reach it
    return _bound(host, settings.metrics_port, "--metrics-port (EXTPROC_METRICS_PORT) moves it")


def _bound(host: str, port: int, remedy: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # asyncio sets this only on sockets that it made itself; without it an answer in two writes waits
    # for the peer's delayed acknowledgement, 40 ms. Accepted connections inherit it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if host == "::":
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsInvalid(
            f"cannot listen for HTTP on {host}:{port} ({error.strerror}); {remedy}"
        ) from error
    listener.listen()
    return listener


def listen_for_supervisor(path: Path) -> socket.socket:
    """Bind the admin of a worker; its folder lets nobody else in."""
    path.unlink(missing_ok=True)  # of a worker that was killed
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def _is_from_another_site(request: Request) -> bool:
    """Whether a browser says that the page behind this request is not ours; programs say nothing."""
    origin = request.headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc != request.headers.get("host", "")
    return request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


def _is_loaded_elsewhere(request: Request) -> bool:
    """Whether a page of another site loads this in a person's browser; a link that somebody follows may.

    It could read no answer, and still keep the ledger busy with questions.
    """
    is_followed = request.headers.get("sec-fetch-mode") == "navigate"
    return request.headers.get("sec-fetch-site") == "cross-site" and not is_followed


def _is_loopback_host(host: str) -> bool:
    name = host.rsplit(":", 1)[0].strip("[]") if not host.endswith("]") else host.strip("[]")
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
