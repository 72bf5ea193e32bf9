"""A policy is quoted as its author wrote it, and means the same when it is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extproc.policy import documents, policyset
from extproc.policy.documents import Document
from extproc.policy.wording import spec_text, wording

SAMPLES = Path(__file__).parents[2] / "policies"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab #*'\"\n", max_size=4), inner),
    max_leaves=12,
)


def read(text: str) -> Document:
    (document, *_), problems = documents.read("some.yaml", text.encode())
    assert problems == []
    return document


@given(
    spec=st.dictionaries(st.text("abc", min_size=1), values, min_size=1),
    style=st.sampled_from([{"default_flow_style": flow} for flow in (None, True, False)]),
    keys=st.permutations(["kind", "spec"]),
)
def test_what_is_quoted_means_what_was_written(
    spec: dict[str, Any], style: dict[str, Any], keys: list[str]
) -> None:
    value = {key: {"kind": "RateLimit", "spec": spec}[key] for key in keys}
    source = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, **style)
    document = read(f"{source}# of the next one: *anchor\n---\nkind: ApiKey\n")

    assert read(spec_text(document)).value == document.value["spec"]


def test_comments_and_folds_are_quoted_too() -> None:
    document = read(
        """\
kind: AccessRule
spec:
  match: >-
    request.model == "a" ||
      request.model == "b"
  # Only these.
  effect: allow   # for now
# The next one is for the others.
---
kind: AccessRule
"""
    )

    assert spec_text(document) == (
        'match: >-\n  request.model == "a" ||\n    request.model == "b"\n'
        "# Only these.\neffect: allow   # for now\n"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("kind: P\na: &hosts [a, b]\nspec: {hosts: *hosts}\n", "hosts:\n- a\n- b\n"),
        ("kind: P\na: &hosts [a, b]\nspec:\n  of: x\n  hosts: *hosts\n", "of: x\nhosts:\n- a\n- b\n"),
        ("kind: P\nspec: {hosts: ['*.a', \"b-*\"]}  # all\n", "{hosts: ['*.a', \"b-*\"]}  # all\n"),
        ("kind: P\n", ""),
        ("kind: ApiKey\nspec: {sha256: '0'}\n", ""),
    ],
)
def test_quotations_stand_alone(source: str, expected: str) -> None:
    """An alias is written out; what is not there and what must not be seen is not quoted."""
    assert spec_text(read(source)) == expected


def test_every_sample_policy_but_keys_is_quoted() -> None:
    loaded = policyset.load(SAMPLES)
    quoted = wording(loaded.objects)

    assert quoted.keys() == {str(item.ref) for item in loaded.objects if item.ref.kind != "ApiKey"}
    assert "sha256" not in str(quoted)
    assert 'request.model.startsWith("o1-pro")' in quoted["AccessRule/no-o1-pro"]
