"""`extproc check` and `extproc schema` as people and pipelines use them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from extproc import cli
from extproc.errors import PolicyFolderInvalid
from extproc.policy import json_schema
from extproc.reload import PolicyFolder

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "policies"
REFUSED = Path(__file__).parent / "fixtures" / "refused_specs.txt"

WARNED = """\
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec: {access: allow}
---
apiVersion: ai-policy/v1
kind: Identity
metadata: {name: callers}
spec: {sources: [{apiKey: {}}]}
---
apiVersion: ai-policy/v1
kind: ApiKey
metadata: {name: eve}
spec:
  sha256: 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f
  team: search
  expires: "2027-01-31T00:00:00Z"
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: demo}
spec: {effect: deny, match: 'identity.team == "serach"'}
"""
TYPO = (
    "all.yaml:22:47: warning: identity.team is never 'serach'; "
    "ApiKeys and Identity say search; did you mean `search`?"
)
EXPIRED = "all.yaml:17:12: warning: ApiKey/eve has expired; whoever shows it is refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def extproc(*arguments: str | Path) -> Said:
    got = CliRunner().invoke(cli.app, [str(each) for each in arguments], env={"NO_COLOR": "1"})
    assert got.exception is None or isinstance(got.exception, SystemExit), got.exception
    return Said(code=got.exit_code, out=got.stdout, err=got.stderr)


@pytest.fixture
def warned(tmp_path: Path) -> Path:
    (tmp_path / "all.yaml").write_text(WARNED)
    return tmp_path


@pytest.fixture
def refused(tmp_path: Path) -> Path:
    """A folder with every fault of the fixture, one object each, in two files."""
    lines = REFUSED.read_text(encoding="utf-8").splitlines()[::2]
    for file in (0, 1):
        text = ""
        for index, line in enumerate(lines[file::2]):
            kind, _, spec = line.partition(" ")
            text += (
                f"---\napiVersion: ai-policy/v1\nkind: {kind}\nmetadata: {{name: a{index}}}\nspec: {spec}\n"
            )
        (tmp_path / f"{file}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def test_check_counts_the_objects_of_each_kind() -> None:
    said = extproc("check", SAMPLES)

    assert (said.code, said.err) == (0, "")
    assert "3 RateLimit" in said.out
    assert "1 Defaults" in said.out
    assert extproc("check", SAMPLES, "--json").json["kinds"]["UsageCap"] == 3


def test_warnings_are_printed_and_keep_nothing_from_loading(warned: Path) -> None:
    said = extproc("check", warned, "--at", "2026-11-20T00:00:00Z")

    assert said.code == 0
    assert "4 objects" in said.out
    assert said.err.splitlines() == [TYPO]


def test_strict_makes_a_warning_a_failure(warned: Path) -> None:
    said = extproc("check", "--strict", warned)

    assert said.code == 1
    assert TYPO in said.err
    assert extproc("check", "--strict", SAMPLES).code == 0


@pytest.mark.parametrize(
    ("at", "expected"),
    [("2027-01-30T23:59:59Z", [TYPO]), ("2027-01-31T01:00:00+01:00", [EXPIRED, TYPO])],
)
def test_check_knows_what_will_have_expired_by_then(warned: Path, at: str, expected: list[str]) -> None:
    assert extproc("check", warned, "--at", at).err.splitlines() == expected


@pytest.mark.parametrize(
    ("at", "why"), [("soon", "an RFC 3339 time is wanted"), ("2027-01-31T00:00:00", "needs its offset")]
)
def test_a_time_that_is_not_the_same_everywhere_is_refused(warned: Path, at: str, why: str) -> None:
    said = extproc("check", warned, "--at", at)

    assert said.code == 2
    assert said.err.startswith("extproc: --at: ")
    assert why in said.err


def test_warnings_as_json_have_places(warned: Path) -> None:
    said = extproc("check", "--json", warned, "--at", "2026-11-20T00:00:00Z")
    (warning,) = said.json["warnings"]

    assert (said.code, said.err, said.json["ok"]) == (0, "", True)
    assert (warning["file"], warning["line"], warning["column"]) == ("all.yaml", 22, 47)
    assert extproc("check", "--json", "--strict", warned).json["ok"] is False


def test_the_server_refuses_what_check_refuses_in_the_same_words(refused: Path) -> None:
    """Every fault of every file at once: no broken file hides another one's."""
    said = extproc("check", refused)
    with pytest.raises(PolicyFolderInvalid) as caught:
        PolicyFolder(refused)

    assert said.code == 1
    assert said.err.splitlines() == [str(problem) for problem in caught.value.problems]
    assert {problem.file for problem in caught.value.problems} == {"0.yaml", "1.yaml"}


def test_schema_prints_the_language() -> None:
    said = extproc("schema")

    assert (said.code, said.json) == (0, json_schema.render())
    assert said.out == (SAMPLES / ".schema.json").read_text()
