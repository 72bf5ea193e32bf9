"""`python -m bench`: runs every cell, then prints the table.

Exit code 1, and no figures, if a request failed or a process died.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from bench import figures, report
from bench.errors import BenchFailed
from bench.figures import Cell
from bench.load import Job, Sample
from bench.machine import Machine, load_average
from bench.report import Report
from bench.rows import BASELINE, EMPTY, Sidecar
from bench.stack import ROOT, Lane, lanes
from bench.workloads import Workload, workloads
from demo.child import ChildDied, NotReady

WARM_S = 0.5


def main(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, help="Measured seconds a cell.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each row has its turn.")] = 3,
    connections: Annotated[int, typer.Option(min=1, help="Callers at once, where there are many.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what the policy costs; with the defaults it takes under three minutes."""
    try:
        outcome = run(workloads(connections), seconds=seconds, rounds=rounds)
    except (BenchFailed, ChildDied, NotReady) as failure:
        typer.echo(f"bench: {failure}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(report.as_json(outcome), indent=2))
        return
    console = Console()
    report.write(outcome, console if console.width >= report.WIDTH else Console(width=report.WIDTH))


def run(asked: tuple[Workload, ...], *, seconds: float, rounds: int) -> Report:
    """Start everything, run every cell, end everything.

    Raises:
        BenchFailed: a request failed, or went past the policies that were to decide on it.
        ChildDied, NotReady: a process did not come up.

    """
    machine, before = Machine.read(), load_average()
    cells: list[Cell] = []
    with lanes() as started:
        for number in range(1, rounds + 1):
            for workload in asked:
                typer.echo(f"round {number} of {rounds}: {workload.name}", err=True)
                cells += [_cell(lane, workload, number, seconds) for lane in started]
    return Report(
        machine=machine,
        load_average=(before, load_average()),
        seconds=seconds,
        rounds=rounds,
        workloads=asked,
        figures=figures.summary(cells, baseline=BASELINE, empty=EMPTY),
    )


def _cell(lane: Lane, workload: Workload, number: int, seconds: float) -> Cell:
    messages = lane.messages()
    sample = load(lane, workload, seconds)
    cell = Cell(
        workload=workload.name,
        row=lane.row.name,
        round=number,
        sample=sample,
        messages=lane.messages() - messages,
    )
    check(cell, lane.row.sidecar)
    return cell


def load(lane: Lane, workload: Workload, seconds: float) -> Sample:
    """Let callers ask for so long. Raises `BenchFailed` if a request failed."""
    job = Job(
        port=lane.port,
        request=workload.request,
        ending=workload.ending,
        connections=workload.connections,
        warm_s=WARM_S,
        seconds=seconds,
        groups=lane.groups,
    )
    command = [sys.executable, "-m", "bench.load"]
    done = subprocess.run(
        command, input=json.dumps(asdict(job)), capture_output=True, text=True, cwd=ROOT, check=False
    )
    if done.returncode:
        raise BenchFailed(f"{workload.name} through {lane.row.name}: {done.stderr.strip()}")
    return Sample(**json.loads(done.stdout))


def check(cell: Cell, sidecar: Sidecar) -> None:
    """Raise `BenchFailed` unless every request went the way that its row is named after."""
    asked, decided = cell.sample.sent, cell.sample.decided
    if decided != (asked if sidecar is Sidecar.OURS else 0):
        raise BenchFailed(f"{cell.row}: {decided} of {asked} answers name a decision")
    if bool(cell.messages) == (sidecar is Sidecar.NOBODY):
        raise BenchFailed(f"{cell.row}: Envoy sent {cell.messages} messages to a sidecar")


if __name__ == "__main__":
    typer.run(main)
