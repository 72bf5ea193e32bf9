"""A policy folder from a few lines of text, and the requests that are judged by it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from extproc.errors import PolicyFolderInvalid, Problem
from extproc.policy import policyset
from extproc.policy.policyset import PolicySet

DEFAULTS = """\
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
"""

SAMPLES = Path(__file__).parent.parent.parent / "policies"

Load = Callable[..., PolicySet]
Problems = Callable[..., tuple[Problem, ...]]


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")


def written(kind: str, name: str, spec: str) -> str:
    body = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
    return f"---\napiVersion: ai-policy/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{body}\n"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load objects given as (kind, name, spec); a Defaults is added where there is none."""

    def make(*objects: tuple[str, str, str]) -> PolicySet:
        text = "".join(written(*item) for item in objects)
        if not any(kind == "Defaults" for kind, _, _ in objects):
            text += "---\n" + DEFAULTS
        write(tmp_path, {"all.yaml": text})
        return policyset.load(tmp_path)

    return make


@pytest.fixture
def problems(tmp_path: Path) -> Problems:
    """What is wrong with a folder of these files; a Defaults is added in a file of its own."""

    def find(**files: str) -> tuple[Problem, ...]:
        write(tmp_path, {f"{name}.yaml": text for name, text in files.items()} | {"zz.yaml": DEFAULTS})
        with pytest.raises(PolicyFolderInvalid) as caught:
            policyset.load(tmp_path)
        return caught.value.problems

    return find


@pytest.fixture
def samples() -> PolicySet:
    return policyset.load(SAMPLES)
