"""Which names may stand on a metric: those somebody priced or configured, and never a client's own word."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.formats.providers import NAMES
from extproc.measure.prices import Prices
from extproc.policy import policyset
from extproc.policy.known_models import OTHER, Configured, configured, known_model, known_provider
from extproc.policy.policyset import PolicySet
from extproc.telemetry.names import Names

PUBLISHED = Prices.bundled()
LISTED = sorted({model.id for provider in PUBLISHED._providers for model in provider.models})
PLACES = 7
CONFIGURED = Configured(
    models=frozenset({"house-model"}), beginnings=("llama-3*",), providers=NAMES | {"my_llms"}
)


@pytest.fixture
def folder(tmp_path: Path) -> PolicySet:
    (tmp_path / "policies.yaml").write_text(
        dedent("""
        apiVersion: ai-policy/v1
        kind: Defaults
        metadata: {name: defaults}
        spec: {}
        ---
        apiVersion: ai-policy/v1
        kind: Provider
        metadata: {name: ours}
        spec: {provider: my_llms, hosts: [llms.internal], formats: [openai_chat]}
        ---
        apiVersion: ai-policy/v1
        kind: Price
        metadata: {name: ours}
        spec:
          provider: my_llms
          models: [house-model, "llama-3*", "llama-3-70b*"]
          usdPerMillion: {input: 1, output: 2}
        ---
        apiVersion: ai-policy/v1
        kind: Price
        metadata: {name: all}
        spec: {models: ["*"], discountPercent: 5}
        ---
        apiVersion: ai-policy/v1
        kind: UsageCap
        metadata: {name: month}
        spec:
          key: [identity.team]
          limit: {costUsd: 5}
          period: month
          onExceed: {useModel: Small-Model}
        """)
    )
    return policyset.load(tmp_path)


def test_a_folder_names_its_prices_its_substitutes_and_its_providers(folder: PolicySet) -> None:
    known = configured(folder)

    assert known.models == {"house-model", "small-model"}
    assert known.beginnings == ("llama-3-70b*", "llama-3*")
    assert known.providers == NAMES | {"my_llms"}


@pytest.mark.parametrize(
    ("provider", "model", "label"),
    [
        ("my_llms", "House-Model", "house-model"),
        ("my_llms", "llama-3-70b-instruct", "llama-3-70b*"),
        ("my_llms", "llama-3-8b", "llama-3*"),
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gcp.gemini", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("openai", "ft:gpt-4o-mini:acme::x", OTHER),
        ("openai", "gpt-4o-mini" * 1000, OTHER),
        ("openai", "", OTHER),
        ("openai", "*", OTHER),
    ],
)
def test_a_model_has_the_name_of_its_price(folder: PolicySet, provider: str, model: str, label: str) -> None:
    assert known_model(PUBLISHED, configured(folder), provider, model) == label


def test_a_provider_is_one_of_those_there_are(folder: PolicySet) -> None:
    known = configured(folder)

    assert [known_provider(known, name) for name in ("openai", "my_llms", "made-up")] == [
        "openai",
        "my_llms",
        OTHER,
    ]


MODEL = st.one_of(
    st.text(max_size=300),
    st.sampled_from(LISTED),
    st.builds(str.__add__, st.sampled_from([*LISTED, "llama-3", "house-model"]), st.text(max_size=20)),
)


@given(st.lists(st.tuples(st.sampled_from([*sorted(NAMES), "my_llms"]), MODEL), max_size=200))
@settings(max_examples=50)
def test_whatever_clients_ask_for_there_are_no_more_labels_than_places(asked: list[tuple[str, str]]) -> None:
    """Fifty times two hundred names."""
    names = Names(PUBLISHED, places=PLACES)
    names._configured = CONFIGURED
    labels = {names.of(provider, model, model[::-1]) for provider, model in asked}

    models = {(each.provider, model) for each in labels for model in (each.requested, each.answered)}
    own = {"", OTHER, "house-model", "llama-3*"}
    assert len({(provider, model) for provider, model in models if model not in own}) <= PLACES
    assert {each.priced for each in labels} <= {*LISTED, *own}
    assert len(names._found) <= 1024


def test_a_place_once_taken_is_kept_and_others_stay_other() -> None:
    names = Names(PUBLISHED, places=1)
    first = [names.of("openai", model).requested for model in ("gpt-4o", "gpt-4o-mini", "gpt-4o")]

    assert first == ["gpt-4o", OTHER, "gpt-4o"]


def test_a_new_revision_of_the_folder_brings_its_own_names(folder: PolicySet) -> None:
    in_force: list[PolicySet | None] = [None]
    names = Names(PUBLISHED, lambda: in_force[-1], places=0)
    before = names.of("my_llms", "house-model")
    in_force.append(folder)
    after = names.of("my_llms", "house-model")

    assert (before.provider, before.requested) == (OTHER, OTHER)
    assert (after.provider, after.requested) == ("my_llms", "house-model")


def test_the_price_decides_which_of_two_names_is_told() -> None:
    names = Names(PUBLISHED)
    azure = names.of("azure.ai.openai", "our-deployment", "gpt-4o-2024-11-20")
    bedrock = names.of("aws.bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", "claude")

    assert (azure.requested, azure.answered, azure.priced) == (OTHER, "gpt-4o", "gpt-4o")
    assert bedrock.priced == bedrock.requested != OTHER
