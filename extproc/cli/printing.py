"""How every command speaks: JSON on request, errors as one line, exit codes. Floor 4.

Exit codes: 0 done; 1 what was checked is not right; 2 a setting, a port or a policy folder is unusable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from extproc.errors import AIPolicyError, PolicyFolderInvalid
from extproc.questions.screen import as_json, clean

NOT_RIGHT = 1
UNUSABLE = 2

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PolicyFolderArgument = Annotated[Path, typer.Argument(help="Folder of policy objects (*.yaml).")]


class Usage(StrEnum):
    """Who reads the provider's usage."""

    NATIVE = "native"
    STREAM = "stream"


@contextmanager
def doors() -> Iterator[None]:
    """Turn every error of ours into its message and exit code 2."""
    try:
        yield
    except PolicyFolderInvalid as invalid:
        # Each problem on a line of its own, starting with its position.
        fail(f"the policy folder cannot be used\n{invalid}")
    except AIPolicyError as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Say why the command cannot be done, and exit with 2."""
    say(f"extproc: {message}", err=True)
    sys.exit(UNUSABLE)


def say(text: str, *, err: bool = False) -> None:
    """Print lines that hold what others wrote: a terminal does nothing with them but show them."""
    for line in text.split("\n"):
        typer.echo(clean(line), err=err)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(as_json(value))
