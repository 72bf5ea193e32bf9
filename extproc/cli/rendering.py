"""`extproc envoy`: Envoy's configuration. Floor 4."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
import yaml

from extproc.cli.printing import AsJson, Usage, doors, print_json
from extproc.envoy_config import EnvoySettings, FilterSettings, render_bootstrap, render_filter
from extproc.errors import SettingsInvalid
from extproc.policy import policyset
from extproc.policy.kinds.defaults import Defaults
from extproc.settings import PORTS, check_grpc_address, worker_addresses


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
    with doors():
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
        print_json(yaml.safe_load(text))
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
