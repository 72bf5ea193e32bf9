"""An index may leave out only what is false: nothing true, and nothing that fails."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.decision import Charge, ChargeOutcome, Decision, Effect, Outcome, PolicyRef
from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.policy import cel, facts
from extproc.policy.cel import Expression, Failure, Result, compile_expression
from extproc.policy.engine import Evaluation
from extproc.policy.index import Index
from extproc.policy.kinds import KINDS
from extproc.policy.kinds.defaults import Defaults
from extproc.policy.needs import Fact
from extproc.policy.objects import PolicyObject
from extproc.policy.policyset import PolicySet

HEAD = RequestHead(method="POST", host="h", path="/v1/chat/completions")
REQUEST = AIRequest(api="openai_chat", provider="openai", operation="chat", model="a", models=("a",))


def known(
    model: str = "a", team: str = "red", groups: Sequence[str] = (), tier: str | None = None, tools: int = 0
) -> facts_pb2.Facts:
    extra = {} if tier is None else {"x-tier": tier}
    labels = {} if tier is None else {"tier": tier}
    return facts.build(
        replace(HEAD, headers=extra),
        Identity(team=team, groups=tuple(groups), labels=labels),
        replace(REQUEST, model=model, models=(model,), tools=("t",) * tools),
        TokenEstimate(input=7),
        1_700_000_000 * 10**9,
    )


def match(text: str) -> Expression:
    return compile_expression(text, Result.BOOL)


def index(matches: Sequence[Expression]) -> Index[int]:
    return Index((number, matched.needs) for number, matched in enumerate(matches))


ASKED = [
    known(model, team, groups, tier)
    for model, team, groups, tier in product(
        ("", "a", "ab", "b"), ("", "red"), ((), ("red",), ("blue", "red")), (None, "", "a")
    )
] + [known(model, tools=20_000) for model in ("a", "b")]
ACTIVATED = [cel.activate(asked) for asked in ASKED]

_TEXTS = st.sampled_from(
    [
        "request.model", "target.model", "identity.team", "identity.user", 'request.headers["x-tier"]',
        "identity.labels.tier", 'request.headers[?"x-tier"].orValue("")',
        'identity.labels[?"tier"].orValue("a")', 'identity.labels.?tier.orValue("b")',
        "identity.labels.other",
    ]
)  # fmt: skip
_LITERALS = st.sampled_from(['""', '"a"', '"ab"', '"b"', '"red"'])
_ODD = st.sampled_from(
    [
        "true", "false", "identity.authenticated", "tokens.input > 5", "1 / (tokens.input - 7) == 1",
        "int(request.model) == 1", "cost.estimated_usd > 1.0", 'request.tools.exists(t, t == "x")',
        'request.headers["x-tier"] == identity.team', "dyn(request.model) && true", 'request.model != "a"',
        'request.model.contains("b")', 'request.model in ["a", request.headers["x-tier"]]',
        '"x-tier" in request.headers', "has(request.headers.x)", "has(identity.labels.tier)",
        '"tier" in identity.labels', "has(request.model)", 'request.headers[?"x-tier"].value() == "a"',
        'request.headers[?"x-tier"].orValue(identity.team) == "red"', "identity.team == request.model",
        'identity.groups.exists(g, g == "red")', "request.model in []", "request.model in identity.groups",
    ]
)  # fmt: skip
_LEAVES = st.one_of(
    st.builds("{} == {}".format, _TEXTS, _LITERALS),
    st.builds("request.model == {} || request.model.startsWith({})".format, _LITERALS, _LITERALS),
    st.builds("{} == {}".format, _LITERALS, _TEXTS),
    st.builds("{} in [{}, {}]".format, _TEXTS, _LITERALS, _LITERALS),
    st.builds("{}.startsWith({})".format, _TEXTS, _LITERALS),
    st.builds("{} in identity.groups".format, _LITERALS),
    _ODD,
)
_MATCHES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("({}) || ({})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("({}) ? ({}) : ({})".format, inner, inner, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(texts=st.lists(_MATCHES, min_size=1, max_size=8))
def test_what_an_index_leaves_out_is_false(texts: list[str]) -> None:
    matches = [match(text) for text in texts]
    indexed = index(matches)

    for asked, activated in zip(ASKED, ACTIVATED, strict=True):
        found = indexed.candidates(asked)
        left_out = [one for number, one in enumerate(matches) if number not in found]

        assert [one.text for one in left_out if one.evaluate(activated) is not False] == []
        assert list(found) == sorted(set(found))


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ('request.model == "a"', known("b")),
        ('"a" == request.model', known("b")),
        ('request.model in ["a", "c"]', known("b")),
        ('request.model in ["a", "c"] || request.model == "d"', known("b")),
        ('request.model.startsWith("gpt-") || request.model == "o1"', known("gp")),
        ('request.model == "a" && tokens.input > 5', known("b")),
        ("tokens.input > 5 && (identity.authenticated && request.model == 'a')", known("b")),
        ('request.headers["x-none"] == "a" && request.model == "a"', known("b")),
        ('"ops" in identity.groups', known(groups=("dev",))),
        ('"x-tier" in request.headers && request.headers["x-tier"] == "a"', known()),
        ('has(identity.labels.tier) && identity.labels.tier == "a"', known()),
        ('request.headers["x-tier"] == "a"', known(tier="b")),
        ('request.headers[?"x-tier"].orValue("") == "a"', known()),
        ('identity.labels.?tier.orValue("free") in ["gold", "silver"]', known()),
        ("request.model in []", known()),
        ('request.model == "b" && request.tools.exists(t, t == "x")', known(tools=20_000)),
    ],
)
def test_a_policy_whose_needs_are_not_met_is_left_out(text: str, asked: facts_pb2.Facts) -> None:
    matched = match(text)

    assert matched.evaluate(cel.activate(asked)) is False
    assert index([matched]).candidates(asked) == ()


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ('request.headers["x-tier"] == "a"', known()),
        ('request.headers["x-tier"].startsWith("a")', known()),
        ('request.model == "b" || request.headers["x-tier"] == "a"', known()),
        ('request.model in ["b", request.headers["x-tier"]]', known()),
        ('request.tools.exists(t, t == "x") && request.model == "b"', known(tools=20_000)),
        ('(identity.team == "red" && request.tools.exists(t, t == "x")) && request.model == "b"',
         known(tools=20_000)),
        ('request.headers["x-none"] == "a" ? request.model == "b" : false', known()),
    ],
)  # fmt: skip
def test_a_policy_that_fails_is_asked(text: str, asked: facts_pb2.Facts) -> None:
    matched = match(text)

    assert isinstance(matched.evaluate(cel.activate(asked)), Failure)
    assert index([matched]).candidates(asked) == (0,)


def test_reading_for_an_index_leaves_no_header_behind() -> None:
    asked = known()

    index([match('request.headers["x-tier"] == "a"')]).candidates(asked)

    assert asked == known()


def test_candidates_keep_their_order() -> None:
    matches = ['identity.team == "red"', "true", 'request.model.startsWith("a")', 'identity.team == "blue"']

    assert index([match(text) for text in matches]).candidates(known("ab")) == (0, 1, 2)


def test_of_many_policies_only_those_of_the_caller_are_asked() -> None:
    texts = [f'request.operation == "chat" && identity.team == "t{number}"' for number in range(1000)]

    assert index([match(text) for text in texts]).candidates(known(team="t7")) == (7,)


def test_a_policy_is_found_by_what_the_fewest_share() -> None:
    texts = [
        f'identity.team == "t{number % 2}" && request.model == "m{number}"'
        for number in range(100)
    ]  # fmt: skip

    assert index([match(text) for text in texts]).candidates(known("m8", team="t0")) == (8,)


def test_an_equality_and_a_beginning_are_one_need() -> None:
    (need,) = match('identity.team == "a" || identity.team.startsWith("b")').needs

    assert (need.fact, need.values, need.is_prefix) == (
        Fact("identity.team"),
        frozenset({"a", "b"}),
        True,
    )


@pytest.mark.parametrize(
    "text",
    [
        "true",
        'request.model != "a"',
        '!(request.model == "a")',
        "request.model == identity.team",
        'request.model == "a" || identity.team == "b"',
        'identity.authenticated ? request.model == "a" : false',
        'request.tools.exists(t, t == "x") && request.model == "a"',
        'request.headers[?"x-tier"].orValue(identity.team) == "a"',
    ],
)  # fmt: skip
def test_what_says_nothing_for_sure_needs_nothing(text: str) -> None:
    assert match(text).needs == ()


# --- decisions

_RULES = st.builds(
    "effect: {}\nmatch: >-\n  {}\nonError: {}\nmode: {}".format,
    st.sampled_from(["allow", "deny"]),
    _MATCHES,
    st.sampled_from(["allow", "deny"]),
    st.sampled_from(["enforce", "shadow", "disabled"]),
).map(lambda spec: ("AccessRule", spec))
_LIMITS = st.builds(
    "limit: {{requests: 5, per: 1m}}\nmatch: >-\n  {}\nonError: deny\nmode: {}".format,
    _MATCHES,
    st.sampled_from(["enforce", "shadow", "disabled"]),
).map(lambda spec: ("RateLimit", spec))
_FOLDERS = st.lists(st.one_of(_RULES, _LIMITS), min_size=1, max_size=8)


def loaded(specs: Sequence[tuple[str, str]]) -> PolicySet:
    written = {f"{kind}/{number}": (kind, spec) for number, (kind, spec) in enumerate(specs)}
    objects = [
        PolicyObject(
            ref=PolicyRef(kind, name.lower().replace("/", "-")),
            spec=KINDS[kind].model_validate_json(json.dumps(yaml.safe_load(spec)), context={}),
            file="f", line=number, digest="",
        )
        for number, (name, (kind, spec)) in enumerate(written.items())
    ]  # fmt: skip
    lenient = Defaults(access=Effect.ALLOW)
    defaults = PolicyObject(ref=PolicyRef("Defaults", "main"), spec=lenient, file="f", line=1, digest="")
    return PolicySet("r", tuple(sorted([*objects, defaults], key=lambda item: item.ref)))


def without_index(policies: PolicySet) -> PolicySet:
    """The same policies, all of which are asked."""
    plain = replace(policies)
    for name in ("early_rules", "late_rules", "limit_index"):
        vars(plain)[name] = Index((item, ()) for item in getattr(plain, name).items)
    return plain


def decide(policies: PolicySet, head: RequestHead, request: AIRequest) -> tuple[object, Decision]:
    evaluation = Evaluation(policies, decision_id="d", head=head, at_ns=1_700_000_000 * 10**9)
    denial = evaluation.check_headers() or evaluation.check_body(request, TokenEstimate(input=7), 0)
    charges = denial or evaluation.charges(None)
    if isinstance(charges, tuple):
        evaluation.store_failed()
    return charges, evaluation.decision(0)


@given(
    specs=_FOLDERS,
    models=st.lists(st.sampled_from(["a", "ab", "b"]), min_size=1, max_size=3),
    tier=st.sampled_from([None, "", "a"]),
    tools=st.sampled_from([1] * 9 + [20_000]),
)
def test_a_decision_is_the_same_with_and_without_an_index(
    specs: list[tuple[str, str]], models: list[str], tier: str | None, tools: int
) -> None:
    policies = loaded(specs)
    head = replace(HEAD, headers={} if tier is None else {"x-tier": tier})
    request = replace(REQUEST, model=models[0], models=tuple(models), tools=("t",) * tools)

    assert decide(policies, head, request) == decide(without_index(policies), head, request)


def full(charge: Charge) -> ChargeOutcome:
    return ChargeOutcome(
        charge=charge, granted=False, reserved=0, used=1, remaining=0, wait_us=1, reset_us=1, limit=1
    )


def test_a_second_try_forgets_limits_that_concern_the_first_one_alone() -> None:
    limit = 'limit: {requests: 1}\nperiod: day\nmatch: target.model == "a"\nonExceed: {useModel: b}'
    policies = loaded([("UsageCap", limit), ("UsageCap", limit)])
    evaluation = Evaluation(policies, decision_id="d", head=HEAD, at_ns=10**18)
    evaluation.check_headers()
    evaluation.check_body(REQUEST, TokenEstimate(input=7), 10**18)
    charges = evaluation.charges(None)

    assert isinstance(charges, tuple)
    assert evaluation.check_limits(tuple(map(full, charges))) is not None
    assert evaluation.substitute() == "b"
    assert evaluation.charges(None) == ()
    assert evaluation.check_limits(()) is None

    said = {str(found.policy): found.outcome for found in evaluation.decision(10**18).findings}
    assert said["UsageCap/usagecap-0"] is Outcome.MATCHED  # it led here
    assert said["UsageCap/usagecap-1"] is Outcome.NOT_MATCHED
