"""The command line: reads flags, calls a room, prints what it says. Floor 4.

A command is a function in a module of this package, and a line in the table below.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from extproc.cli.checking import check
from extproc.cli.questions import decisions, explain, usage
from extproc.cli.rehearsing import run_tests
from extproc.cli.rendering import envoy
from extproc.cli.replaying import replay
from extproc.cli.schema import schema
from extproc.cli.serving import serve
from extproc.cli.vocabularies import vocab

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def main(
    *, show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """AI traffic policy for Envoy."""
    if show_version:
        typer.echo(version("extproc"))
        raise typer.Exit


for _command in (serve, check, explain, decisions, usage, schema, envoy, vocab):
    app.command()(_command)
app.command("test")(run_tests)
app.command()(replay)
