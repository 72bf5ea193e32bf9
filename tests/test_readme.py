"""README.md is true: its outputs are those of a run, its commands and files exist, its tables are whole."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import typer

import extproc
from extproc.cli import app
from extproc.errors import VocabularyMissing
from extproc.measure import vocab
from extproc.model import Basis
from extproc.policy import accounting as settling
from tests.readme import accounting, document, endings
from tests.readme.markdown import ROOT
from tests.readme.normal import Normal

README = document.PATH.read_text()
# The measured figures are pasted by hand.
MARKERS = re.compile(r"<!-- (?:generated: \S+|measured: (?:bench|counting|exporters|policies)|end) -->")


@pytest.mark.timeout(300)  # two stacks, and exporters that wait for seconds
def test_every_generated_block_is_what_a_run_says() -> None:
    try:
        vocab.load(vocab.default_directory(os.environ))
    except VocabularyMissing:
        pytest.skip("counts differ without the tokenizer vocabularies: make vocab")

    difference = document.difference(README, document.render(README))

    assert not difference, f"`make readme` would change this:\n{difference}"


def commands() -> Iterator[list[str]]:
    for block in re.findall(r"^```sh\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words
    for inline in re.findall(r"`((?:make|extproc) [a-z][^`]*)`", README):
        yield shlex.split(inline)


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[1] for words in commands() if words[0] == "make"}

    assert {"up", "test", "readme"} <= named
    assert named <= targets


def test_every_command_of_extproc_exists_with_its_flags() -> None:
    known: Any = typer.main.get_command(app)
    shown = [words[1:] for words in commands() if words[0] == "extproc"]

    assert {words[0] for words in shown} == set(known.commands)
    for name, *rest in shown:
        flags = {flag for option in known.commands[name].params for flag in option.opts}
        assert {word for word in rest if word.startswith("--")} <= flags, name


def test_every_file_it_names_exists() -> None:
    path = r"[\w.-]+(?:/[\w.-]+)*(?:/|\.(?:py|yaml|proto|md|toml|txt))"
    named = set(re.findall(rf"`({path})`", README)) | {"LICENSE"}

    assert {"envoy/filter.yaml", "proto/", "CHANGELOG.md"} <= named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_tour_of_the_code_names_every_room() -> None:
    rooms = {path.stem for path in (ROOT / "extproc").iterdir() if path.suffix in ("", ".py")}
    rooms -= {"__init__", "__main__", "__pycache__"}

    assert {room for room in rooms if not re.search(rf"\b{room}\b", extproc.__doc__ or "")} == set()


def test_every_dependency_has_a_reason_and_nothing_else_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    wanted = {re.split(r"[>=<]", name)[0] for name in project["project"]["dependencies"]}
    allowed = wanted | {re.split(r"[>=<]", name)[0] for group in groups.values() for name in group}
    section = README.partition("## Dependencies")[2].partition("\n## ")[0]
    named = {
        name
        for row in re.findall(r"^\|.*\|$", section, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", row.split("|")[2])
    }

    assert wanted <= named
    assert named <= allowed


def test_the_settlement_table_shows_every_row_that_can_settle_a_request() -> None:
    # The ledger writes that one, of decisions nobody settled.
    possible = set(Basis) - {Basis.EXPIRED}
    shown = set(re.findall(r"`(\w+)`", accounting.settlements()))

    assert {basis for _, basis in settling._ROWS} == possible
    assert shown == possible


def test_ways_to_end_differ() -> None:
    assert len({way.what for way in endings.WAYS}) == len(endings.WAYS)


def test_a_block_that_nobody_generates_is_an_error() -> None:
    with pytest.raises(ValueError, match="sunshine"):
        document.fill("<!-- generated: sunshine -->\n<!-- end -->\n", {})


def test_a_block_that_nobody_shows_is_an_error() -> None:
    with pytest.raises(ValueError, match="sunshine"):
        document.fill("no block\n", {"sunshine": "…"})


def test_a_block_that_is_not_true_any_more_is_a_difference() -> None:
    text = "before\n<!-- generated: sum -->\n3\n<!-- end -->\nafter\n"
    true = document.fill(text, {"sum": "4"})

    assert true == text.replace("3", "4")
    assert "\n-3\n+4\n" in document.difference(text, true)
    assert document.difference(true, document.fill(true, {"sum": "4"})) == ""


def test_every_marker_is_one_that_means_something() -> None:
    comments = re.findall(r"<!--.*?-->", README)

    assert [comment for comment in comments if not MARKERS.fullmatch(comment)] == []
    assert comments[1::2] == ["<!-- end -->"] * (len(comments) // 2)


def test_one_id_becomes_one_example_wherever_it_is() -> None:
    normal = Normal({"127.0.0.1:43210": "127.0.0.1:10100"})
    one, other = "01a1fbf0-d846-7077-89cf-9a4db1c4e575", "5e188591-cc2c-9749-8ec5-3e3659535d57"

    assert normal.text(f"{one} {other} {one}") == (
        "019b7950-0000-7000-8000-000000000001 019b7950-0000-9000-8000-000000000002 "
        "019b7950-0000-7000-8000-000000000001"
    )
    assert normal.text(f"127.0.0.1:43210 {other}") == "127.0.0.1:10100 019b7950-0000-9000-8000-000000000002"
