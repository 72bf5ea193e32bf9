"""`extproc serve`: the sidecar's flags. Floor 4."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from extproc.cli.printing import Usage, doors
from extproc.serve import serve as run_server
from extproc.settings import ADMIN_PORT, MEMORY, Settings, WorkerPlace
from extproc.telemetry import configure_logging
from extproc.workers import Supervisor


class LogLevel(StrEnum):
    """Least severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(  # noqa: PLR0917  typer reads the signature; every one is a named flag
    policies: Annotated[
        Path, typer.Option(envvar="EXTPROC_POLICIES", help="Folder of policy objects, reloaded on change.")
    ],
    grpc: Annotated[
        str, typer.Option(envvar="EXTPROC_GRPC", help="Where Envoy connects: unix:PATH or HOST:PORT.")
    ] = "127.0.0.1:50051",
    admin_host: Annotated[
        str, typer.Option(envvar="EXTPROC_ADMIN_HOST", help="Address of the HTTP admin port.")
    ] = "127.0.0.1",
    admin_port: Annotated[
        int, typer.Option(envvar="EXTPROC_ADMIN_PORT", help="Port of the HTTP admin; 0 picks one.")
    ] = ADMIN_PORT,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            envvar="EXTPROC_METRICS_PORT",
            help="Port of /healthz, /readyz and /metrics alone, on every address; default: none.",
        ),
    ] = None,
    usage: Annotated[
        Usage,
        typer.Option(
            envvar="EXTPROC_USAGE",
            help="Who reads usage: stream: this server, beside any Envoy; native: Envoy 1.40 itself.",
        ),
    ] = Usage.STREAM,
    deadline_s: Annotated[
        float,
        typer.Option(
            envvar="EXTPROC_DEADLINE_S", help="Seconds for one verdict; below Envoy's message_timeout."
        ),
    ] = 5.0,
    drain_s: Annotated[
        float, typer.Option(envvar="EXTPROC_DRAIN_S", help="Seconds that open streams get after SIGTERM.")
    ] = 30.0,
    vocab: Annotated[
        Path | None,
        typer.Option(
            envvar="EXTPROC_VOCAB", help="Folder of tokenizer vocabularies; default: the user's cache."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            envvar="EXTPROC_STATE",
            help="Folder that keeps what was learned of models across restarts; default: memory only.",
        ),
    ] = None,
    store: Annotated[
        str,
        typer.Option(
            envvar="EXTPROC_STORE",
            help="Where counters are: memory:, or a Redis URL that sidecars share: redis://, rediss://, "
            "unix:///PATH, redis+cluster://, rediss+cluster://. A password belongs into the variable.",
        ),
    ] = MEMORY,
    store_prefix: Annotated[
        str,
        typer.Option(
            envvar="EXTPROC_STORE_PREFIX", help="Start of every key in Redis; one for each gateway."
        ),
    ] = "ai_policy",
    store_timeout_ms: Annotated[
        int, typer.Option(envvar="EXTPROC_STORE_TIMEOUT_MS", help="Milliseconds for one answer of Redis.")
    ] = 50,
    ledger: Annotated[
        str,
        typer.Option(
            envvar="EXTPROC_LEDGER",
            help="Where decisions are on record: sqlite:PATH or postgresql://; default: in --state.",
        ),
    ] = "",
    instance: Annotated[
        str,
        typer.Option(
            envvar="EXTPROC_INSTANCE",
            help="Name in the ledger, the same for whoever takes this one's place. Default: the gRPC "
            "address, with the host's name where the ledger is a Postgres.",
        ),
    ] = "",
    retention_days: Annotated[
        int,
        typer.Option(envvar="EXTPROC_RETENTION_DAYS", help="Days that records are kept."),
    ] = 35,
    workers: Annotated[
        int,
        typer.Option(
            envvar="EXTPROC_WORKERS",
            help="Processes, each an endpoint: of unix:a.sock a.0.sock, a.1.sock; of a port the next ones.",
        ),
    ] = 1,
    tls_cert: Annotated[
        Path | None, typer.Option(envvar="EXTPROC_TLS_CERT", help="PEM certificate chain for gRPC over TCP.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="EXTPROC_TLS_KEY", help="PEM key of --tls-cert.")
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="EXTPROC_TLS_CLIENT_CA", help="PEM CA that must have signed Envoy's certificate."
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(envvar="EXTPROC_THREADS", help="Threads that understand large bodies.", min=1)
    ] = 2,
    log_level: Annotated[
        LogLevel, typer.Option(envvar="EXTPROC_LOG_LEVEL", help="Least severity that is logged.")
    ] = LogLevel.INFO,
    admin_token: Annotated[
        str,
        typer.Option(
            envvar="EXTPROC_ADMIN_TOKEN", help="Bearer token of the admin port. Prefer the variable."
        ),
    ] = "",
    trace_url: Annotated[
        str,
        typer.Option(
            envvar="EXTPROC_TRACE_URL",
            help="A trace in a browser, linked from the console: http://127.0.0.1:16686/trace/{trace_id}.",
        ),
    ] = "",
    worker_number: Annotated[int, typer.Option(hidden=True)] = 0,
    worker_folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the sidecar."""
    configure_logging(log_level)
    with doors():
        settings = Settings(
            policies=policies,
            grpc=grpc,
            admin_host=admin_host,
            admin_port=admin_port,
            admin_token=admin_token,
            trace_url=trace_url,
            metrics_port=metrics_port,
            native_usage=usage is Usage.NATIVE,
            deadline_s=deadline_s,
            drain_s=drain_s,
            vocab=vocab,
            state=state,
            store=store,
            store_prefix=store_prefix,
            store_timeout_ms=store_timeout_ms,
            ledger=ledger,
            instance=instance,
            retention_days=retention_days,
            workers=workers,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            threads=threads,
        )
        if worker_folder is not None:
            place = WorkerPlace(number=worker_number, folder=worker_folder)
            asyncio.run(run_server(settings.for_worker(worker_number), place))
        elif settings.workers > 1:
            # Each worker reads the same flags and variables again, and which one it is.
            again = [sys.executable, "-m", "extproc", *sys.argv[1:]]
            sys.exit(asyncio.run(Supervisor(settings, again).run()))
        else:
            asyncio.run(run_server(settings))
