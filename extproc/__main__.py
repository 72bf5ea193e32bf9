"""`python -m extproc`."""

from extproc.cli import app

app()
