"""What the ledger answers about the thousand mixed requests, and the trace of one of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.e2e import mixed
from tests.readme import first
from tests.readme.markdown import ROOT, fenced
from tests.readme.normal import Normal


def _other_limit(found: re.Match[str]) -> str:
    before, limit, after = found[1], found[2], found[3]
    return f"{before}used … of {limit}" + ("" if after is None else f", … left{after}")


WIDTH = 116
# What other requests had taken, and how long things took, differs from run to run.
_CHANGING = (
    (
        re.compile(r"^(?!>)(.*)\bused \$?[\d,.]+ of (.*?)(?:, \$?[\d,.]+ left(.*))?$", re.MULTILINE),
        _other_limit,
    ),
    (re.compile(r"\b(?:24 h|23 h 59 min)\b"), "24 h"),
    (re.compile(r"\b20\d\d-\d\d-\d\dT[\d:]+Z"), "2026-01-02T12:00:00Z"),
    (re.compile(r"decided in \d+ ms by sidecar /\S+"), "decided in 3 ms by sidecar /127.0.0.1:50051"),
    (re.compile(r"\btrace [0-9a-f]{32}\b"), "trace 0af7651916cd43dd8448eb211c80319c"),
    (re.compile(r"--after \S+"), "--after MTc2NzI2ODgwMC4uLg"),
)
# What faults and callers that leave cost differs from run to run, and the sum with it.
_DIFFERING = ("drill", "TOTAL")
_STEADY_COLUMNS = 3  # the name, requests and denials
_CALLER = "batch"


def blocks(folder: Path) -> dict[str, str]:
    """Each block's name and text; starts a stack in `folder` and asks it a thousand times."""
    with mixed.run(folder) as run:
        normal = Normal(
            {run.stack.gateway_url.removeprefix("http://"): "127.0.0.1:10000", str(folder): "/run/gateway"}
        )
        limited = _one(run, _CALLER, "rate_limited")
        substituted = _one(run, "research", "model_substituted")
        texts = {
            "explain-page": _said(run, f"explain {limited}"),
            "usage-by-team": _steady(_said(run, "usage --by team")),
            "usage-of-research": _said(run, "usage --team research --by model,reason"),
            "decisions-denied": _said(run, f"decisions --denied --team {_CALLER} --limit 3"),
            "mixed-trace": "\n".join(
                first.draw(first.tree(run.receiver, substituted, 5), is_shown=_is_shown)
            ),
            "caller-usage": _asked_by_a_caller(run),
        }
        return {name: fenced(first.wrapped(_plain(normal.text(text)))) for name, text in texts.items()}


def _said(run: mixed.Run, arguments: str) -> str:
    """The command as it is typed, and what it prints."""
    ran = subprocess.run(
        [sys.executable, "-m", "extproc", *arguments.split()],
        capture_output=True,
        check=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "EXTPROC_STATE": str(run.stack.folder / "state"), "COLUMNS": str(WIDTH)},
    )
    return f"$ extproc {arguments}\n{ran.stdout}"


def _one(run: mixed.Run, team: str, reason: str) -> str:
    """A decision of this team and reason."""
    said = _said(run, f"decisions --team {team} --reason {reason} --limit 1 --json").partition("\n")[2]
    return str(json.loads(said)["lines"][0]["decision_id"])


def _steady(table: str) -> str:
    return "\n".join(
        _without_figures(line) if line.startswith(_DIFFERING) else line for line in table.splitlines()
    )


def _without_figures(line: str) -> str:
    words = re.findall(r"\s*\S+", line)
    rest = (re.sub(r"\S+", lambda found: "…".rjust(len(found[0])), word) for word in words[_STEADY_COLUMNS:])
    return "".join((*words[:_STEADY_COLUMNS], *rest))


def _is_shown(_: Any, name: str) -> bool:
    wanted = (
        "ai_policy.findings",
        "ai_policy.decision.reason_code",
        "ai_policy.cost.nano_usd",
        "gen_ai.request.model",
    )
    return name in wanted or ".usage." in name or name == "gen_ai.response.model"


def _asked_by_a_caller(run: mixed.Run) -> str:
    path = "/ai-policy/usage?by=model&since=today"
    answer = httpx.get(
        run.stack.gateway_url + path, headers={"authorization": f"Bearer {mixed._key(_CALLER)}"}
    )
    rows = answer.json()["rows"]
    shown = [{name: value for name, value in row.items() if value} for row in rows]
    command = f"$ curl -s 'http://127.0.0.1:10000{path}' -H 'authorization: Bearer sk-…' | jq -c '.rows[]'"
    return "\n".join((command, *map(json.dumps, shown)))


def _plain(text: str) -> str:
    for pattern, example in _CHANGING:
        text = pattern.sub(example, text)
    return "\n".join(line.rstrip() for line in text.splitlines())
