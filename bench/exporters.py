"""`python -m bench.exporters`: what a request waits for while its spans find a collector, or none.

Real Envoy, real sidecars; rows take turns in every round, and ratios are to the first row of the same
round. Every request is sampled, two spans each. Exit code 1, and no figures, if a request failed.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from bench import report
from bench.__main__ import load
from bench.errors import BenchFailed
from bench.figures import Figures, over_rounds, percentile
from bench.load import HOST, Sample
from bench.rows import ROWS, Sidecar
from bench.stack import Lane, Starter, free_port
from bench.workloads import Workload, workloads
from demo import child
from demo.child import ChildDied, NotReady

OURS = next(row for row in ROWS if row.sidecar is Sidecar.OURS)
NONE, HEALTHY, DOWN, MUTE = "no exporter", "healthy", "down", "mute"


def main(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, help="Measured seconds a row and round.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each row has its turn.")] = 5,
    connections: Annotated[int, typer.Option(min=1, help="Callers at once, where there are many.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what exporting costs a request; with the defaults it takes about three minutes."""
    asked = [each for each in workloads(connections) if not each.body.get("stream")]
    try:
        with lanes() as started:
            found = {
                workload.name: measure(started, workload, seconds=seconds, rounds=rounds)
                for workload in asked
            }
    except (BenchFailed, ChildDied, NotReady) as failure:
        typer.echo(f"bench: {failure}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        plain = {
            name: {row: {what: asdict(figure) for what, figure in of.items()} for row, of in rows.items()}
            for name, rows in found.items()
        }
        typer.echo(json.dumps(plain, indent=2))
        return
    console = Console(width=report.WIDTH)
    for workload in asked:
        console.print(f"{workload.about}; {workload.connections} connections", highlight=False)
        console.print(_table(found[workload.name]))


@contextmanager
def lanes() -> Iterator[Mapping[str, Lane]]:
    """The same sidecar four times, each with another collector."""
    with TemporaryDirectory(prefix="bench-") as folder, ExitStack() as running:
        starter = Starter(Path(folder), running)
        starter.write_policies()
        demo_port = free_port()
        demo = starter.start("provider", [sys.executable, "-m", "demo.provider", "--port", str(demo_port)])
        collector_port = free_port()
        collector = starter.start("collector", [sys.executable, "-m", "bench.collector", str(collector_port)])
        # The kernel accepts for it, and nobody ever answers.
        mute = running.enter_context(socket.create_server((HOST, 0)))
        ports = {HEALTHY: collector_port, DOWN: free_port(), MUTE: mute.getsockname()[1]}
        endpoints = {
            name: {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{HOST}:{port}"}
            for name, port in ports.items()
        }
        child.wait_until(
            lambda: _answers(collector_port), what="collector", children=[collector], timeout_s=30
        )
        yield {
            name: starter.lane(number, replace(OURS, name=name), demo, demo_port, environment)
            for number, (name, environment) in enumerate({NONE: {}, **endpoints}.items())
        }


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def measure(
    started: Mapping[str, Lane], workload: Workload, *, seconds: float, rounds: int
) -> dict[str, Figures]:
    """Figures by row."""
    samples: dict[str, list[Sample]] = {name: [] for name in started}
    for number in range(1, rounds + 1):
        typer.echo(f"round {number} of {rounds}: {workload.name}", err=True)
        for name, lane in started.items():
            samples[name].append(load(lane, workload, seconds))
    alone = [_measures(sample) for sample in samples[NONE]]
    return {
        name: over_rounds(
            [_compared(_measures(sample), first) for sample, first in zip(found, alone, strict=True)]
        )
        for name, found in samples.items()
    }


def _measures(sample: Sample) -> dict[str, float]:
    latencies_ms = [latency / 1000 for latency in sample.latencies_us]
    return {
        "p50_ms": percentile(latencies_ms, 0.5),
        "p99_ms": percentile(latencies_ms, 0.99),
        "cpu_us": sample.cpu_s["sidecar"] / len(latencies_ms) * 1e6,
    }


def _compared(own: Mapping[str, float], first: Mapping[str, float]) -> dict[str, float]:
    ratios = {f"{name}_ratio": own[name] / first[name] for name in own if first[name]}
    return {**own, **ratios}


_COLUMNS = (
    ("p50 ms", "p50_ms", report.spread(2)),
    ("x first", "p50_ms_ratio", report.spread(2)),
    ("p99 ms", "p99_ms", report.spread(2)),
    ("x first", "p99_ms_ratio", report.spread(2)),
    ("sidecar CPU us", "cpu_us", report.spread(0)),
    ("x first", "cpu_us_ratio", report.spread(2)),
)


def _table(rows: Mapping[str, Figures]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("collector", no_wrap=True)
    for heading, _, _ in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in rows.items():
        table.add_row(name, *(text(figures[measure]) for _, measure, text in _COLUMNS))
    return table


if __name__ == "__main__":
    typer.run(main)
