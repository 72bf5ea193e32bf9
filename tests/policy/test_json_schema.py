"""What editors are told of the policy language is what `check` accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given

from extproc.formats.providers import NAMES
from extproc.policy import documents, json_schema, literals, policyset, schema
from extproc.policy.kinds import KINDS
from tests.policy.mutations import OBJECTS, SAMPLES, Place, mutated, places

COMMITTED = SAMPLES / ".schema.json"
RENDERED = json_schema.render()
VALIDATOR = jsonschema.Draft202012Validator(RENDERED)
# What these hold is checked by what it means as well: that it compiles, that it exists, that it fits.
MEANT = {"match", "key", "timezone", "provider", "expires", "from", "principal", "addresses", "sha256"}


KNOWN = literals.known_values([*NAMES, "own_llms"])


def accepts(value: object) -> bool:
    return bool(VALIDATOR.is_valid(value))


def checks(value: object) -> bool:
    """Whether `check` accepts the object by itself."""
    (document,), _ = documents.read("a.yaml", json.dumps(value).encode())
    return schema.read(document, KNOWN)[1] == []


def blocks(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from blocks(inner)


def test_the_schema_in_the_folder_is_fresh() -> None:
    """`extproc schema > policies/.schema.json` makes it so."""
    assert json.loads(COMMITTED.read_text()) == RENDERED


def test_the_schema_is_no_policy() -> None:
    assert COMMITTED.name not in {item.file for item in policyset.load(SAMPLES).objects}


def test_every_sample_names_the_schema_for_its_editor() -> None:
    for path in SAMPLES.glob("*.yaml"):
        assert path.read_text().splitlines()[0] == f"# yaml-language-server: $schema={COMMITTED.name}", path


def test_the_schema_is_one_and_knows_every_kind() -> None:
    jsonschema.Draft202012Validator.check_schema(RENDERED)

    assert RENDERED["properties"]["kind"]["enum"] == sorted(KINDS)
    assert {each["if"]["properties"]["kind"]["const"] for each in RENDERED["allOf"]} == set(KINDS)


def test_every_block_is_closed_and_every_field_says_what_it_is_for() -> None:
    wrong = [
        f"{name}.{field}"
        for name, block in RENDERED["$defs"].items()
        for field, about in block.get("properties", {}).items()
        if not about.get("description")
    ]
    open_blocks = [
        name
        for name, block in RENDERED["$defs"].items()
        if block["type"] == "object" and block.get("additionalProperties") is not False
    ]

    assert (wrong, open_blocks) == ([], [])


def test_no_field_may_be_null() -> None:
    assert [each for each in blocks(RENDERED) if each.get("type") == "null"] == []


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: f"{value['kind']}-{value['metadata']['name']}")
def test_the_samples_are_accepted(value: dict[str, Any]) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(value)] == []


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_example_of_a_kind_is_accepted_by_both(kind: str) -> None:
    (example,) = RENDERED["$defs"][kind]["examples"]
    value = {"apiVersion": "ai-policy/v1", "kind": kind, "metadata": {"name": "a"}, "spec": example}

    assert accepts(value)
    assert checks(value)


REFUSED = {
    "a field of another kind": "kind: AccessRule\nspec: {effect: allow, limit: {requests: 1, per: 1m}}",
    "a kind that is none": "kind: Quota",
    "no effect": "kind: AccessRule\nspec: {}",
    "no spec where one is needed": "kind: RateLimit",
    "two units": "kind: UsageCap\nspec: {limit: {tokens: 1, requests: 1}, period: day}",
    "no unit": "kind: UsageCap\nspec: {limit: {}, period: day}",
    "a limit of zero": "kind: RateLimit\nspec: {limit: {tokens: 0, per: 1m}}",
    "a duration without a unit": "kind: RateLimit\nspec: {limit: {tokens: 1, per: 60}}",
    "a unit that is none": "kind: RateLimit\nspec: {limit: {tokens: 1, per: 1min}}",
    "two windows": "kind: UsageCap\nspec: {limit: {tokens: 1}, period: day, rolling: 1d}",
    "no window": "kind: UsageCap\nspec: {limit: {tokens: 1}}",
    "a zone without a calendar": "kind: UsageCap\nspec: {limit: {tokens: 1}, rolling: 1d, timezone: UTC}",
    "a share of more than all": "kind: UsageCap\nspec: {limit: {tokens: 1}, period: day, warnAt: [80]}",
    "half an onExceed": "kind: UsageCap\nspec: {limit: {tokens: 1}, period: day, onExceed: {}}",
    "a cap of nothing": "kind: RequestCap\nspec: {onExceed: deny}",
    "input that is clamped": "kind: RequestCap\nspec: {inputTokens: 1, onExceed: clamp}",
    "a source that is two": "kind: Identity\nspec: {sources: [{apiKey: {}, jwt: {}}]}",
    "a source that is none": "kind: Identity\nspec: {sources: [{}]}",
    "two places of a key": "kind: Identity\nspec: {sources: [{apiKey: {header: a, query: b}}]}",
    "headers from anybody": "kind: Identity\nspec: {sources: [{headers: {user: u, trustedFrom: {}}}]}",
    "headers that say nobody": "kind: Identity\n"
    "spec: {sources: [{headers: {trustedFrom: {principals: [a]}}}]}",
    "a key and no digest": "kind: ApiKey\nspec: {sha256: sk-verysecret}",
    "two prices": "kind: Price\nspec: {models: [a], discountPercent: 1, usdPerMillion: {input: 1}}",
    "a part without its whole": "kind: Price\nspec: {models: [a], usdPerMillion: {input: 1, audioOutput: 1}}",
    "a model in capitals": "kind: Price\nspec: {models: [A], discountPercent: 1}",
    "a format that is none": "kind: Provider\nspec: {provider: a, formats: [openai]}",
    "a burst of a window": "kind: RateLimit\n"
    "spec: {limit: {tokens: 1, per: 1m, burst: 2}, algorithm: slidingWindow}",
    "a burst in another unit": "kind: RateLimit\nspec: {limit: {tokens: 1, per: 1m, burst: '2.50'}}",
    "off as a mode": "kind: AccessRule\nspec: {effect: allow, mode: off}",
    "yes as a truth": "kind: Defaults\nspec: {responseHeaders: 'yes'}",
    "nothing where a text belongs": "kind: AccessRule\nspec: {effect: allow, message: null}",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_check_refuses_the_schema_refuses(name: str) -> None:
    value = {"apiVersion": "ai-policy/v1", "metadata": {"name": "a"}, **yaml.safe_load(REFUSED[name])}

    assert not checks(value)
    assert not accepts(value)


@given(mutated())
def test_a_mutated_sample_is_refused_by_both_or_by_neither(mutation: tuple[dict[str, Any], Place]) -> None:
    value, place = mutation
    is_about_meaning = bool(MEANT.intersection(map(str, place)))
    # 1.0 is an integer to JSON Schema, and huge ones are numbers.
    if accepts(value):
        assert checks(value) or is_about_meaning, place
    else:
        assert not checks(value), place


def test_the_mutations_reach_every_field_of_the_samples() -> None:
    assert len({place[-1] for value in OBJECTS for place in places(value)}) > 40
