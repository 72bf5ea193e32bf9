"""`python -m bench.policies`: what a decision costs by policies, live keys and store.

Functions called in a loop, no network but Redis'. Rows take turns, except those by live keys, which
have a process each. Exit code 1, and no figures, if a request was denied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from bench import decisions, keys, redis_store, report
from bench.errors import BenchFailed
from bench.figures import Figures, over_rounds
from bench.machine import Machine, load_average
from bench.turns import measure
from demo.child import ChildDied, NotReady

POLICIES = (1, 10, 100, 1_000)
KEYS = (1, 100_000, 1_000_000)
# For the bytes of the other windows.
FEWER_KEYS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One table; ratios are to its first row."""

    title: str
    rows: Mapping[str, Figures]


def main(
    *,
    seconds: Annotated[float, typer.Option(min=0.01, help="Measured seconds a row and round.")] = 0.3,
    rounds: Annotated[int, typer.Option(min=1, help="How often each row has its turn.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure decisions alone; with the defaults it takes about a minute."""
    before = load_average()
    try:
        parts = run(POLICIES, KEYS, seconds=seconds, rounds=rounds)
    except (BenchFailed, ChildDied, NotReady) as failure:
        typer.echo(f"bench: {failure}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(_as_json(parts), indent=2))
        return
    console = Console()
    console = console if console.width >= report.WIDTH else Console(width=report.WIDTH)
    machine = Machine.read()
    console.print(
        f"{machine.cores} cores of {machine.cpu}, Linux {machine.kernel}; Python {machine.python}\n"
        f"load average {before:.2f} before, {load_average():.2f} after\n"
        f"rounds: {rounds}, {seconds:g} s each; medians over the rounds, ± half the distance between the "
        "extremes\n",
        highlight=False,
    )
    write(parts, console)


def run(
    policies: Sequence[int], live_keys: Sequence[int], *, seconds: float, rounds: int
) -> tuple[Part, ...]:
    """Measure everything; Redis only where there is a server to start."""
    parts = [
        Part(
            title="decision by policies: one caller, one of the limits is his; headers to settlement",
            rows=measure(tuple(decisions.turns(policies)), seconds=seconds, rounds=rounds),
        ),
        _by_keys(live_keys, seconds, rounds),
    ]
    if redis_store.is_there():
        with redis_store.turns() as turns:
            rows = measure(turns, seconds=seconds, rounds=rounds)
        parts.append(Part(title="Redis on this machine: two calls a decision, beside one PING", rows=rows))
    else:
        typer.echo(f"no {redis_store.BINARY} here: nothing about Redis", err=True)
    return tuple(parts)


def _by_keys(live_keys: Sequence[int], seconds: float, rounds: int) -> Part:
    fewer = min(FEWER_KEYS, max(live_keys))
    jobs = {
        f"{count:,} key{'s' * (count > 1)}": keys.Job(
            window="token bucket", keys=count, seconds=seconds, rounds=rounds
        )
        for count in live_keys
    }
    jobs |= {
        f"{fewer:,} keys, {window}": keys.Job(window=window, keys=fewer, seconds=seconds, rounds=rounds)
        for window in keys.WINDOWS
        if window != "token bucket"
    }
    samples = dict(zip(jobs, keys.run(tuple(jobs.values())), strict=True))
    first = next(iter(samples.values()))
    return Part(
        title="reserve and settle one charge in the memory store by live keys, all over them",
        rows={
            name: over_rounds(
                [{"us": us, "ratio": us / one} for us, one in zip(sample.us, first.us, strict=True)]
            )
            | ({} if sample.key_bytes is None else over_rounds([{"key_bytes": sample.key_bytes}]))
            for name, sample in samples.items()
        },
    )


def write(parts: Sequence[Part], console: Console) -> None:
    """The tables."""
    for part in parts:
        console.print(part.title, style="bold", highlight=False)
        console.print(_table(part))


_COLUMNS = (
    ("us", "us", report.spread(1)),
    ("x first", "ratio", report.spread(2)),
    ("bytes a key", "key_bytes", report.plain(0)),
)


def _table(part: Part) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("", no_wrap=True)
    columns = [column for column in _COLUMNS if any(column[1] in figures for figures in part.rows.values())]
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in part.rows.items():
        found = ((figures.get(measure), text) for _, measure, text in columns)
        table.add_row(name, *("" if figure is None else text(figure) for figure, text in found))
    return table


def _as_json(parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [
        {
            "title": part.title,
            "rows": {
                name: {measure: asdict(figure) for measure, figure in figures.items()}
                for name, figures in part.rows.items()
            },
        }
        for part in parts
    ]


if __name__ == "__main__":
    typer.run(main)
