"""What a benchmark says, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Figures
from bench.machine import Machine
from bench.rows import BASELINE, EMPTY, ROWS
from bench.workloads import Workload

WIDTH = 160  # where the output is no terminal, or a narrow one


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One benchmark's outcome."""

    machine: Machine
    load_average: tuple[float, float]  # before and after
    seconds: float
    rounds: int
    workloads: Sequence[Workload]
    figures: Mapping[tuple[str, str], Figures]  # by workload and row


def spread(digits: int) -> Callable[[Figure], str]:
    """The median, and half the distance between the extremes."""
    return lambda f: f"{f.median:,.{digits}f} ±{(f.high - f.low) / 2:,.{digits}f}"


def plain(digits: int, *, sign: str = "") -> Callable[[Figure], str]:
    """The median alone."""
    return lambda f: f"{f.median:{sign},.{digits}f}"


# heading, measure, how it is written
_COLUMNS: tuple[tuple[str, str, Callable[[Figure], str]], ...] = (
    ("requests\n/s", "requests_per_s", spread(0)),
    ("p50\nms", "p50_ms", plain(2)),
    ("p99\nms", "p99_ms", plain(2)),
    ("added\np50 ms", "added_p50_ms", plain(2, sign="+")),
    ("added\np99 ms", "added_p99_ms", plain(2, sign="+")),
    ("added first\nbyte p50", "added_first_byte_p50_ms", plain(2, sign="+")),
    ("sidecar\nCPU us", "sidecar_cpu_us", spread(0)),
    ("x\nempty", "sidecar_cpu_ratio", plain(2)),
    ("Envoy\nCPU us", "envoy_cpu_us", spread(0)),
    ("x\nalone", "envoy_cpu_ratio", plain(2)),
    ("messages\n/request", "messages", plain(1)),
    ("load\n% core", "load_cpu_percent", plain(0)),
    ("others\n% core", "strangers_cpu_percent", plain(0)),
)


def as_json(report: Report) -> dict[str, Any]:
    """Everything that was measured, with units in the names."""
    return {
        "machine": asdict(report.machine),
        "load_average": report.load_average,
        "seconds": report.seconds,
        "rounds": report.rounds,
        "rows": [{"name": row.name, "about": row.about} for row in ROWS],
        "workloads": [
            {
                "name": workload.name,
                "about": workload.about,
                "connections": workload.connections,
                "rows": {
                    row.name: {
                        measure: asdict(figure)
                        for measure, figure in report.figures[workload.name, row.name].items()
                    }
                    for row in ROWS
                },
            }
            for workload in report.workloads
        ],
    }


def write(report: Report, console: Console) -> None:
    """The tables, with what one must know to read them."""
    machine, (before, after) = report.machine, report.load_average
    console.print(
        f"{machine.cores} cores of {machine.cpu}, Linux {machine.kernel}; "
        f"Envoy {machine.envoy}, Python {machine.python}, grpcio {machine.grpcio}\n"
        f"load average {before:.2f} before, {after:.2f} after; everything shares the cores\n"
        f"rounds: {report.rounds}, rows in turn, {report.seconds:g} s each; medians over the rounds, "
        "± half the distance between the extremes\n"
        f"added, x alone: against `{BASELINE}` of the same round; x empty: against `{EMPTY}`; "
        "CPU: of a request; load: the generator; others: strangers\n",
        highlight=False,
    )
    for row in ROWS:
        console.print(f"{row.name:15} {row.about}", highlight=False)
    for workload in report.workloads:
        console.print(_table(report, workload))


def _table(report: Report, workload: Workload) -> Table:
    plural = "s" if workload.connections > 1 else ""
    title = f"{workload.name}: {workload.about}; {workload.connections} connection{plural}, closed loop"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for heading, _, _ in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in ROWS:
        figures = report.figures[workload.name, row.name]
        cells = (_cell(figures.get(measure), text) for _, measure, text in _COLUMNS)
        table.add_row(row.name, *cells)
    return table


def _cell(figure: Figure | None, text: Callable[[Figure], str]) -> str:
    return "" if figure is None else text(figure)
