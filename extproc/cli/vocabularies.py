"""`extproc vocab`: the tokenizers' vocabularies. Floor 4."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from extproc.cli.printing import AsJson, doors, print_json
from extproc.errors import SettingsInvalid
from extproc.measure import vocab as vocabularies


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
    with doors():
        try:
            # What was tried belongs beside an error, and not into JSON.
            vocabularies.fetch(directory, report=lambda line: typer.echo(line, err=as_json))
        except OSError as error:
            raise SettingsInvalid(
                f"cannot write to {directory} ({error.strerror}); EXTPROC_VOCAB names another folder"
            ) from error
    if as_json:
        print_json({"ok": True, "folder": str(directory)})
