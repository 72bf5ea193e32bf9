"""The command line. Floor 4: reads flags, calls a room, prints what it says.

Exit codes: 0 done; 1 the check found problems; 2 a setting, a port or a policy folder is unusable.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml

from extproc.envoy_config import EnvoySettings, FilterSettings, render_bootstrap, render_filter
from extproc.errors import AIPolicyError, PolicyFolderInvalid, SettingsInvalid
from extproc.measure import vocab as vocabularies
from extproc.policy import policyset
from extproc.policy.difference import Difference, diff
from extproc.policy.kinds.defaults import Defaults
from extproc.serve import serve as run_server
from extproc.settings import MEMORY, PORTS, Settings, WorkerPlace, check_grpc_address, worker_addresses
from extproc.telemetry import configure_logging
from extproc.workers import Supervisor

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

UNUSABLE = 2

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PolicyFolderArgument = Annotated[Path, typer.Argument(help="Folder of policy objects (*.yaml).")]


class LogLevel(StrEnum):
    """Least severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Usage(StrEnum):
    """Who reads the provider's usage."""

    NATIVE = "native"
    STREAM = "stream"


@app.callback(invoke_without_command=True)
def main(
    *, show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """AI traffic policy for Envoy."""
    if show_version:
        typer.echo(version("extproc"))
        raise typer.Exit


@app.command()
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
    ] = 8080,
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
    worker_number: Annotated[int, typer.Option(hidden=True)] = 0,
    worker_folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the sidecar."""
    configure_logging(log_level)
    with _doors():
        settings = Settings(
            policies=policies,
            grpc=grpc,
            admin_host=admin_host,
            admin_port=admin_port,
            admin_token=admin_token,
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


@app.command()
def check(
    folder: PolicyFolderArgument,
    *,
    against: Annotated[
        Path | None,
        typer.Option(help="The folder in force: says what this one changes, and which counters start anew."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Validate a policy folder: says what the server would say."""
    try:
        loaded = policyset.load(folder)
        change = diff(policyset.load(against), loaded) if against else None
    except PolicyFolderInvalid as invalid:
        problems = [
            {"file": p.file, "line": p.line, "column": p.column, "message": p.message}
            for p in invalid.problems
        ]
        if as_json:
            _print_json({"ok": False, "problems": problems})
        else:
            typer.echo(str(invalid), err=True)
        raise typer.Exit(1) from None
    objects = policyset.describe(loaded)
    if as_json:
        changes = {} if change is None else {"changes": _changes(change)}
        _print_json({"ok": True, "revision": loaded.revision, "objects": objects, **changes})
    else:
        typer.echo(f"{folder}: {len(objects)} objects, revision {loaded.revision}")
        if change is not None:
            typer.echo(f"against {against}: {change}")


def _changes(change: Difference) -> dict[str, list[str]]:
    return {each.name: [str(ref) for ref in getattr(change, each.name)] for each in fields(change)}


@app.command()
def envoy(
    *,
    filter_only: Annotated[
        bool, typer.Option("--filter", help="Only the parts to paste into an Envoy that you already run.")
    ] = False,
    policies: Annotated[
        Path | None,
        typer.Option(envvar="EXTPROC_POLICIES", help="Folder whose maxBodyBytes becomes Envoy's body limit."),
    ] = None,
    grpc: Annotated[
        list[str] | None,
        typer.Option(help="Where a sidecar listens, once a process: unix:PATH or HOST:PORT."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(envvar="EXTPROC_WORKERS", help="`serve --workers`: endpoints of each --grpc.", min=1),
    ] = 1,
    usage: Annotated[
        Usage | None, typer.Option(envvar="EXTPROC_USAGE", help="Default: native; with --filter stream.")
    ] = None,
    gateway_port: Annotated[
        int,
        typer.Option(envvar="EXTPROC_GATEWAY_PORT", help="Envoy's listener.", min=0, max=PORTS - 1),
    ] = 10000,
    admin_port: Annotated[
        int,
        typer.Option(envvar="EXTPROC_ENVOY_ADMIN_PORT", help="Envoy's admin.", min=0, max=PORTS - 1),
    ] = 9901,
    demo_provider: Annotated[str, typer.Option(help="Where the demo provider listens.")] = "127.0.0.1:10100",
    upstream: Annotated[
        list[str] | None,
        typer.Option(help="A real provider in place of the demo one: openai, anthropic, gemini."),
    ] = None,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(envvar="OTEL_EXPORTER_OTLP_ENDPOINT", help="Where Envoy's spans go, by gRPC."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Render Envoy's configuration."""
    addresses = grpc or [os.environ.get("EXTPROC_GRPC", "127.0.0.1:50051")]
    with _doors():
        endpoints = _endpoints(addresses, workers)
        limit = policyset.load(policies).defaults.max_body_bytes if policies else Defaults().max_body_bytes
        if filter_only:
            text = render_filter(
                FilterSettings(
                    policy_endpoints=endpoints,
                    body_limit_bytes=limit,
                    usage=(usage or Usage.STREAM).value,
                )
            )
        else:
            text = render_bootstrap(
                EnvoySettings(
                    gateway_port=gateway_port,
                    admin_port=admin_port,
                    policy_endpoints=endpoints,
                    body_limit_bytes=limit,
                    usage=(usage or Usage.NATIVE).value,
                    demo_provider=demo_provider,
                    upstreams=tuple(upstream or ()),
                    otlp_endpoint=otlp_endpoint,
                )
            )
    if as_json:
        _print_json(yaml.safe_load(text))
    else:
        typer.echo(text, nl=False)


def _endpoints(addresses: list[str], workers: int) -> tuple[str, ...]:
    """Where the workers of each address listen."""
    if workers > 1:
        for address in addresses:
            check_grpc_address(address)
    endpoints = [each for address in addresses for each in worker_addresses(address, workers)]
    twice = {each for each in endpoints if endpoints.count(each) > 1}
    if twice:
        raise SettingsInvalid(f"--grpc names {', '.join(sorted(twice))} twice; each process needs its own")
    return tuple(endpoints)


@app.command()
def vocab(
    folder: Annotated[
        Path | None,
        typer.Argument(envvar="EXTPROC_VOCAB", help="Where to put them; default: the user's cache."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Fetch the tokenizer vocabularies once and verify their checksums."""
    directory = folder or vocabularies.default_directory(os.environ)
    with _doors():
        try:
            # What was tried belongs beside an error, and not into JSON.
            vocabularies.fetch(directory, report=lambda line: typer.echo(line, err=as_json))
        except OSError as error:
            raise SettingsInvalid(
                f"cannot write to {directory} ({error.strerror}); EXTPROC_VOCAB names another folder"
            ) from error
    if as_json:
        _print_json({"ok": True, "folder": str(directory)})


@contextmanager
def _doors() -> Iterator[None]:
    """Turn every error of ours into its message and exit code 2."""
    try:
        yield
    except PolicyFolderInvalid as invalid:
        # Each problem on a line of its own, starting with its position.
        _fail(f"the policy folder cannot be used\n{invalid}")
    except AIPolicyError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(f"extproc: {message}", err=True)
    sys.exit(UNUSABLE)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
