"""What a folder is refused for, with the place and the whole sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from extproc.errors import PolicyFolderInvalid, Problem
from extproc.formats.providers import NAMES
from extproc.policy import complaints, documents, literals, policyset, schema
from extproc.policy.cel import ExpressionInvalid, Result, compile_expression
from extproc.policy.kinds import KINDS
from extproc.policy.suggest import did_you_mean, nearest
from tests.policy.conftest import DEFAULTS, write
from tests.policy.mutations import OBJECTS, Place, mutated

REFUSED = Path(__file__).parent.parent / "fixtures" / "refused_specs.txt"
HEAD = "apiVersion: ai-policy/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
SHA = "a" * 64
# Words of pydantic, PyYAML, cel-cpp and Python that mean nothing to whoever writes a policy.
FOREIGN = re.compile(
    r"Input should|Value error|valid (string|integer|tuple|dictionary)|pydantic|Traceback|NoneType|_==_|@in|"
    r"<EOF>|overload|INVALID_ARGUMENT|ai_policy\.v1|struct '|_type\b|wrapper\("
)


def said(folder: Path) -> list[str]:
    with pytest.raises(PolicyFolderInvalid) as caught:
        policyset.load(folder)
    return [f"{p.line}:{p.column}: {p.message}" for p in caught.value.problems]


def refused(tmp_path: Path, *objects: tuple[str, str, str]) -> list[str]:
    """Five lines an object, each in a document of `a.yaml`, the first from line 1 on."""
    text = "---\n".join(HEAD.format(kind=kind, name=name, spec=spec) for kind, name, spec in objects)
    write(tmp_path, {"a.yaml": text, "zz.yaml": DEFAULTS})
    return said(tmp_path)


def written_down() -> list[tuple[str, str]]:
    """Every second line of the file is an object, and the one below what is wrong with it."""
    lines = REFUSED.read_text(encoding="utf-8").splitlines()
    return list(zip(lines[::2], (line.strip() for line in lines[1::2]), strict=True))


@pytest.mark.parametrize(("text", "message"), written_down())
def test_a_fault_is_told_where_it_is_with_what_is_accepted(tmp_path: Path, text: str, message: str) -> None:
    kind, _, spec = text.partition(" ")

    found = refused(tmp_path, (kind, "a", spec))
    assert [each for each in found if "one too many" not in each] == [message]


PAIRS: dict[str, tuple[tuple[str, str, str], tuple[str, str, str], str]] = {
    "a name": (
        ("AccessRule", "a", "{effect: allow}"),
        ("AccessRule", "a", "{effect: deny}"),
        "8:18: AccessRule/a is there twice; first as AccessRule/a (a.yaml:1). A name is unique per kind",
    ),
    "a rule": (
        ("AccessRule", "a", "{match: request.stream, effect: allow}"),
        ("AccessRule", "b", "{match: request.stream, effect: allow}"),
        "9:15: AccessRule/b says the same as AccessRule/a (a.yaml:1) and can never matter",
    ),
    "a key": (
        ("ApiKey", "a", f"{{sha256: {SHA}}}"),
        ("ApiKey", "b", f"{{sha256: {SHA}}}"),
        "9:16: ApiKey/b has the same sha256 as ApiKey/a (a.yaml:1); whose key is it?",
    ),
    "an identity": (
        ("Identity", "a", "{}"),
        ("Identity", "b", "{}"),
        "7:7: Identity/b is one too many; a folder holds one and has Identity/a (a.yaml:1)",
    ),
    "a price": (
        ("Price", "a", "{models: [m], discountPercent: 1}"),
        ("Price", "b", "{models: [n, m], discountPercent: 2}"),
        "9:20: Price/b has a price of m from the same day on as Price/a (a.yaml:1)",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_there_twice_is_told_where_it_is_written_again(tmp_path: Path, name: str) -> None:
    first, second, message = PAIRS[name]

    assert refused(tmp_path, first, second) == [message]


def test_an_identity_key_may_be_one_of_the_folder(tmp_path: Path) -> None:
    rule = '{effect: deny, match: \'identity.key in ["eve", "evve", ""]\'}'

    assert refused(tmp_path, ("ApiKey", "eve", f"{{sha256: {SHA}}}"), ("AccessRule", "a", rule)) == [
        "9:54: identity.key is never 'evve'; it is the name of an ApiKey in this folder; did you mean `eve`?"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: ratelimit", "; did you mean `RateLimit`?"),
        ("kind: Secret", f"there is no such kind; the kinds are {', '.join(sorted(KINDS))}"),
        ("apiVersion: v1\nkind: Defaults", "apiVersion must be ai-policy/v1"),
        ("kind:", "kind has no value; write one, or leave the field out"),
        ("kind: Defaults\nmetadata: {name: Main}", "a name is up to 63 lower-case letters"),
        ("kind: Defaults\nmetadata: {}", "the field 'name' is missing: unique per kind"),
        ("kind: Defaults\nmetadata: {name: a, namespace: b}", "there is no field 'namespace' here"),
        ("kind: Defaults\nmetadata: a", "metadata must be a mapping of fields"),
        ("kind: Defaults\nspecs: {}", "did you mean `spec`?"),
        ("kind: Defaults\nspec: []", "spec must be a mapping of fields"),
        ("kind: Defaults\nspec:", "spec has no value"),
        ('kind: Defaults\nspec: {description: "\\ud800"}', "a character that is none"),
        (f"kind: Defaults\nspec: {{description: {'[' * 200}{']' * 200}}}", "nested too deeply"),
    ],
)
def test_what_is_wrong_around_a_spec_is_told(text: str, message: str) -> None:
    (document,), _ = documents.read("a.yaml", text.encode())

    assert any(message in p.message for p in schema.read(document)[1]), schema.read(document)[1]


@pytest.mark.parametrize("name", complaints.FUNCTIONS)
def test_every_function_that_is_suggested_is_shown_as_it_compiles(name: str) -> None:
    compile_expression(f"dyn({complaints.FUNCTIONS[name]}) != null", Result.BOOL)


def test_a_function_that_is_used_wrongly_is_shown_in_use() -> None:
    with pytest.raises(ExpressionInvalid, match=r"an example is request.model.contains\("):
        compile_expression("request.model.contains()", Result.BOOL)


def test_only_known_words_are_suggested() -> None:
    assert nearest("input_tokns", ["inputTokens", "outputTokens"]) == "inputTokens"
    assert nearest("sk-live-0123456789", ["inputTokens"]) == ""
    assert did_you_mean("x" * 100_000, ["x" * 100_000]) == ""
    assert did_you_mean(7, ["7"]) == ""


# --- whatever is written


def check(problems: tuple[Problem, ...] | list[Problem]) -> None:
    """Every problem has a place, and says nothing that only a programmer knows."""
    for problem in problems:
        assert problem.line >= 1, problem
        assert problem.column >= 1, problem
        assert not FOREIGN.search(problem.message), problem
        assert "\n" not in problem.message, problem


@given(mutated())
def test_a_mutated_sample_loads_or_is_refused_with_places(mutation: tuple[dict[str, Any], Place]) -> None:
    value, _ = mutation
    (document,), _ = documents.read("a.yaml", json.dumps(value, indent=1).encode())

    loaded, problems = schema.read(document, literals.known_values([*NAMES, "own_llms"]))

    assert (loaded is None) == bool(problems)
    check(problems)


@settings(max_examples=25)
@given(mutation=mutated())
def test_a_folder_with_a_mutated_sample_loads_or_is_refused_with_places(
    tmp_path_factory: pytest.TempPathFactory, mutation: tuple[dict[str, Any], Place]
) -> None:
    value, _ = mutation
    folder = tmp_path_factory.mktemp("mutated")
    write(folder, {"a.yaml": yaml.safe_dump_all([value, *OBJECTS]), "zz.yaml": DEFAULTS})

    try:
        check(policyset.load(folder).warnings(0))
    except PolicyFolderInvalid as invalid:
        check(invalid.problems)
