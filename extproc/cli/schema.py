"""`extproc schema`: the policy language for editors. Floor 4."""

from __future__ import annotations

from extproc.cli.printing import print_json
from extproc.policy import json_schema


def schema() -> None:
    """Print the JSON Schema of a policy object, for editors: policies/.schema.json."""
    print_json(json_schema.render())
