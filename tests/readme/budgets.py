"""A budget read, raised and forgiven, as its owner would by hand."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.e2e.ledgers import TOKEN
from tests.e2e.stack import Stack
from tests.readme.markdown import fenced

ADMIN = "http://127.0.0.1:8080"
_POST = """\
curl -s {admin}/counters/{what} \\
  -H "authorization: Bearer $EXTPROC_ADMIN_TOKEN" -H 'content-type: application/json' \\
  -d '{body}'"""
_TEAM = '"policy": "UsageCap/team-month", "key": ["demo"]'
COMMANDS = (
    f"curl -s '{ADMIN}/counters?policy=UsageCap/team-month&key=demo'",
    _POST.format(
        admin=ADMIN, what="override", body=f'{{{_TEAM}, "extra": "500.00", "until": "2099-01-01T00:00:00Z"}}'
    ),
    _POST.format(admin=ADMIN, what="reset", body=f"{{{_TEAM}}}"),
)


def block(stack: Stack) -> str:
    """Each command and what it answers; the stack knows the tests' token."""
    said = []
    for command in COMMANDS:
        ran = subprocess.run(
            ["bash", "-c", command.replace(ADMIN, stack.admin_url)],
            capture_output=True,
            check=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "EXTPROC_ADMIN_TOKEN": TOKEN},
        )
        answer = json.dumps(json.loads(ran.stdout))
        said += [f"$ {command}", re.sub(r'"20\d\d-[^"]*"', '"…"', answer)]
    return fenced("\n".join(said), "console")


def environment(place: Path) -> dict[str, str]:
    """What a sidecar needs for it, and to keep what it records."""
    return {"EXTPROC_ADMIN_TOKEN": TOKEN, "EXTPROC_STATE": str(place / "state")}
