"""What is proven of two matches holds for every request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate
from extproc.policy import cel, facts
from extproc.policy.cel import Result, compile_expression
from extproc.policy.implication import Formula, formula, implies, never

MODELS = ("", "a", "b", "ab", "abc", "c")
LEAVES = (
    *(f'request.model == "{model}"' for model in MODELS[1:]),
    'request.model in ["a", "b"]',
    'request.model in ["ab", "abc"]',
    'request.model.startsWith("a")',
    'request.model.startsWith("ab")',
    '"b" in request.models',
    '"a" in request.models',
    'request.headers["x"] == "a"',
    'request.headers[?"x"].orValue("a") == "a"',
    'identity.team == "a"',
    "request.stream",
    "tokens.input > 5",
    "true",
    "false",
    "1 / tokens.input == 1",
    'request.models.exists(m, m == "a")',
)
expressions = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda text: f"!({text})"),
    ),
    max_leaves=5,
)
requests = st.builds(
    lambda models, team, stream, header, tokens: facts.build(
        RequestHead(method="POST", host="h", path="/", headers={} if header is None else {"x": header}),
        Identity(team=team),
        AIRequest(
            api="openai_chat",
            provider="openai",
            operation="chat",
            model=models[0] if models else "",
            models=tuple(models),
            stream=stream,
        ),
        TokenEstimate(input=tokens),
        0,
    ),
    st.lists(st.sampled_from(MODELS), max_size=2),
    st.sampled_from(["a", "b"]),
    st.booleans(),
    st.sampled_from([None, "a", "b"]),
    st.sampled_from([0, 1, 9]),
)


def read(text: str) -> Formula:
    return formula(cel.tree(compile_expression(text, Result.BOOL)).expr)


@given(expressions, expressions, st.lists(requests, min_size=1, max_size=6))
def test_what_is_implied_is_true_of_every_request(one: str, other: str, seen: list[object]) -> None:
    if not implies(read(one), read(other)):
        return
    first, second = compile_expression(one, Result.BOOL), compile_expression(other, Result.BOOL)
    for each in seen:
        activated = cel.activate(each)  # type: ignore[arg-type]  # facts
        assert first.evaluate(activated) is not True or second.evaluate(activated) is True


@given(expressions, st.lists(requests, min_size=1, max_size=6))
def test_what_is_never_true_is_true_of_no_request(text: str, seen: list[object]) -> None:
    if never(read(text)):
        match = compile_expression(text, Result.BOOL)
        assert all(match.evaluate(cel.activate(each)) is not True for each in seen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("request.stream", "true"),
        ('request.model == "a"', 'request.model in ["a", "b"]'),
        ('request.model == "ab" && request.stream', 'request.model.startsWith("a")'),
        ('request.model == "a" || request.model == "b"', 'request.model in ["b", "a", "c"]'),
        ('request.stream && identity.team == "a"', 'identity.team == "a" && request.stream'),
        ('!(request.model in ["a", "b"])', '!(request.model == "a")'),
        ("tokens.input > 5 && request.stream", "tokens.input  > 5"),
        ('request.headers[?"x"].orValue("") == "a"', 'request.headers[?"x"].orValue("") in ["a", "b"]'),
    ],
)
def test_what_can_be_proven_is(one: str, other: str) -> None:
    assert implies(read(one), read(other))
    assert not implies(read(other), read(one)) or "&&" in other or other == "tokens.input  > 5"


@pytest.mark.parametrize(
    "text",
    [
        "false",
        "!true",
        'request.model == "a" && request.model == "b"',
        'request.model in ["a", "b"] && request.model.startsWith("c")',
        'request.model == "a" && (request.model == "b" || request.model == "c")',
        "request.stream && !request.stream",
        'identity.team == "a" && request.stream && identity.team == "b"',
    ],
)
def test_a_contradiction_is_found(text: str) -> None:
    assert never(read(text))
