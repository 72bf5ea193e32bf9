from pathlib import Path

import pytest

from extproc.errors import PolicyFolderInvalid
from extproc.formats import FORMATS
from extproc.formats.base import Call
from extproc.formats.classify import claim
from extproc.formats.providers import KNOWN
from extproc.model import RequestHead
from extproc.policy.policyset import PolicySet, load

DEFAULTS = "{apiVersion: ai-policy/v1, kind: Defaults, metadata: {name: main}}\n"


def folder(tmp_path: Path, *documents: str) -> PolicySet:
    (tmp_path / "all.yaml").write_text("---\n".join((DEFAULTS, *documents)))
    return load(tmp_path)


def provider(spec: str, name: str = "own") -> str:
    return f"{{apiVersion: ai-policy/v1, kind: Provider, metadata: {{name: {name}}}, spec: {spec}}}\n"


def rule(match: str) -> str:
    return (
        "{apiVersion: ai-policy/v1, kind: AccessRule, metadata: {name: rule}, "
        f"spec: {{effect: allow, match: '{match}'}}}}\n"
    )


def call(policies: PolicySet, path: str, host: str = "gateway.example") -> Call | None:
    return claim(RequestHead(method="POST", host=host, path=path), policies.providers)


def test_a_base_path_makes_a_known_dialect_somewhere_else(tmp_path: Path) -> None:
    policies = folder(tmp_path, provider("{provider: own_llms, basePath: /own/v1, formats: [openai_chat]}"))

    found = call(policies, "/own/v1/chat/completions")

    assert found is not None
    assert (found.api, found.provider, found.operation) == ("openai_chat", "own_llms", "chat")
    assert call(policies, "/own/v1/messages") is None
    assert call(policies, "/own/chat/completions") is None


def test_a_host_makes_a_known_path_another_provider(tmp_path: Path) -> None:
    policies = folder(
        tmp_path,
        provider('{provider: own_llms, hosts: ["*.llm.internal"], basePath: /v1, formats: [openai_chat]}'),
    )

    own = call(policies, "/v1/chat/completions", "a.llm.internal:8000")
    other = call(policies, "/v1/chat/completions", "llm.internal.example")

    assert own is not None
    assert other is not None
    assert (own.provider, other.provider) == ("own_llms", "openai")


def test_a_segment_of_the_base_path_may_name_the_model(tmp_path: Path) -> None:
    policies = folder(
        tmp_path,
        provider('{provider: own_llms, basePath: "/models/{model}/v1", formats: [openai_chat]}'),
    )

    found = call(policies, "/models/Big-One/v1/chat/completions")

    assert found is not None
    assert found.model == "big-one"


def test_the_longest_base_path_is_tried_first(tmp_path: Path) -> None:
    policies = folder(
        tmp_path,
        provider("{provider: short, basePath: /a, formats: [openai_chat]}", "a"),
        provider("{provider: long, basePath: /a/chat, formats: [openai_chat]}", "b"),
        provider("{provider: deep, basePath: /a/b, formats: [openai_chat]}", "c"),
    )

    found = call(policies, "/a/b/chat/completions")

    assert found is not None
    assert found.provider == "deep"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{provider: Own LLMs, formats: [openai_chat]}", "lower case"),
        ("{provider: own, formats: [openai]}", "no such format; the formats are"),
        ("{provider: own, formats: []}", "at least 1"),
        ("{provider: own, basePath: v1, formats: [openai_chat]}", "begins with a slash"),
        ("{provider: own, basePath: /v1/, formats: [openai_chat]}", "no slash ends it"),
        ("{provider: own, basePath: /v1/..%2f, formats: [openai_chat]}", "base path"),
        ("{provider: own, hosts: [Own.Example], formats: [openai_chat]}", "lower case, without port"),
        ('{provider: own, hosts: ["own.example:8000"], formats: [openai_chat]}', "without port"),
        ("{provider: own, formats: [openai_chat], path: /x}", "no field 'path'"),
    ],
)
def test_what_makes_no_sense_does_not_load(tmp_path: Path, spec: str, words: str) -> None:
    with pytest.raises(PolicyFolderInvalid) as caught:
        folder(tmp_path, provider(spec))

    assert words in " ".join(problem.message for problem in caught.value.problems)


def test_expressions_may_compare_with_the_providers_of_the_folder(tmp_path: Path) -> None:
    known = provider("{provider: own_llms, basePath: /own, formats: [openai_chat]}")

    folder(tmp_path, known, rule('request.provider == "own_llms" || target.provider == "groq"'))
    with pytest.raises(PolicyFolderInvalid, match="own_llm"):
        folder(tmp_path, known, rule('request.provider == "own_llm"'))


def test_every_known_provider_has_a_format_and_a_sound_base_path() -> None:
    for each in KNOWN:
        assert each.formats, each
        assert not each.base_path.endswith("/"), each
        assert each.base_path.startswith("/") or not each.base_path, each


def test_every_format_has_a_place_and_every_place_a_format() -> None:
    assert {name for each in KNOWN for name in each.formats} == set(FORMATS)
