"""What every kind that counts has in common: counters, keys, and nobody who can choose not to be counted."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from extproc.decision import Charge, Mode
from extproc.errors import PolicyFolderInvalid
from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate
from extproc.policy import cel, facts, policyset
from extproc.policy.cel import Failure
from extproc.policy.limited import Limit, charge, key_of, probe
from extproc.policy.spending import Taken
from tests.policy.conftest import DEFAULTS, Load, Problems, written

TOKENS = TokenEstimate(input=100, input_upper_bound=400, max_output=1000)
# In June and in December 2026.
JUNE_US, DECEMBER_US = 1_780_000_000 * 10**6, 1_796_500_000 * 10**6


def request() -> AIRequest:
    return AIRequest(api="openai_chat", provider="openai", operation="chat", model="m", models=("m",))


def limit(load: Load, spec: str, kind: str = "RateLimit") -> Limit:
    (loaded,) = load((kind, "l", spec)).limits
    return loaded


def charged(load: Load, spec: str, kind: str = "RateLimit", *, at_us: int = 0) -> Charge:
    return charge(limit(load, spec, kind), ("k",), Taken(7, 3), at_us)


def in_shadow(found: Limit) -> Limit:
    return replace(found, spec=found.spec.model_copy(update={"mode": Mode.SHADOW}))


RATES = [
    "limit: {tokens: 5, per: 1m}",
    "limit: {inputTokens: 5, per: 1m}",
    "limit: {costUsd: 5, per: 1m}",
    "limit: {tokens: 5, per: 2m}",
    "{limit: {tokens: 5, per: 1m}, algorithm: slidingWindow}",
]
CAPS = [
    "{limit: {costUsd: 5}, period: month}",
    "{limit: {tokens: 5}, period: month}",
    "{limit: {costUsd: 5}, period: day}",
    "{limit: {costUsd: 5}, period: month, timezone: Europe/Berlin}",
    "{limit: {costUsd: 5}, rolling: 30d}",
    "{limit: {costUsd: 5}, rolling: 31d}",
]
EDITS = [
    ("RateLimit", RATES[0], "{limit: {tokens: 9, per: 60s, burst: 20}, mode: shadow, reserve: declared}"),
    ("RateLimit", RATES[4], "{limit: {tokens: 9, per: 60s}, algorithm: slidingWindow, onError: deny}"),
    ("UsageCap", CAPS[0], "{limit: {costUsd: 9}, period: month, timezone: UTC, warnAt: [0.5]}"),
    ("UsageCap", CAPS[4], "{limit: {costUsd: 9}, rolling: 720h, onExceed: {useModel: m}}"),
    ("ConcurrencyLimit", "max: 4", "{max: 5, mode: shadow}"),
]


@pytest.mark.parametrize(("kind", "before", "after"), EDITS)
def test_editing_the_amount_keeps_the_counter(load: Load, kind: str, before: str, after: str) -> None:
    kept = charged(load, before, kind).counter

    assert charged(load, after, kind).counter == kept


@pytest.mark.parametrize(("kind", "specs"), [("RateLimit", RATES), ("UsageCap", CAPS)])
def test_another_unit_algorithm_window_or_zone_is_another_counter(
    load: Load, kind: str, specs: list[str]
) -> None:
    assert len({charged(load, spec, kind).counter for spec in specs}) == len(specs)


def test_a_counter_is_called_by_what_it_counts(load: Load) -> None:
    assert [charged(load, spec, "UsageCap").counter for spec in CAPS[2:5]] == [
        'UsageCap/l|cost_usd|calendar|day UTC|["k"]',
        'UsageCap/l|cost_usd|calendar|month Europe/Berlin|["k"]',
        'UsageCap/l|cost_usd|slidingWindow|2592000000000|["k"]',
    ]
    assert charged(load, RATES[0]).counter == 'RateLimit/l|tokens|tokenBucket|60000000|["k"]'
    assert charged(load, "max: 4", "ConcurrencyLimit").counter == (
        'ConcurrencyLimit/l|concurrent_requests|leases|60000000|["k"]'
    )


@pytest.mark.parametrize(("kind", "spec", "_edited"), EDITS)
def test_a_counter_is_the_same_at_any_time(load: Load, kind: str, spec: str, _edited: str) -> None:
    assert len({charged(load, spec, kind, at_us=at).counter for at in (JUNE_US, DECEMBER_US)}) == 1


@pytest.mark.parametrize(("kind", "spec", "_edited"), EDITS)
def test_a_probe_is_of_the_same_counter_and_takes_nothing(
    load: Load, kind: str, spec: str, _edited: str
) -> None:
    made = probe(limit(load, spec, kind), ("k",), JUNE_US * 1000)
    taken = charged(load, spec, kind, at_us=JUNE_US)

    assert (made.amount, made.minimum) == (0, 0)
    assert (made.counter, made.window, made.unit) == (taken.counter, taken.window, taken.unit)


def test_different_keys_are_different_counters(load: Load) -> None:
    keys = [
        (),
        ("",),
        ("a", "b"),
        ("a,b",),
        ("a", "", "b"),
        ('a","b',),
        ("x" * 500,),
        ("x" * 501,),
        ("\ud800" * 300,),
    ]
    found = limit(load, "limit: {requests: 5, per: 1m}")

    counters = {charge(found, key, Taken(1, 1), 0).counter for key in keys}

    assert len(counters) == len(keys)
    assert all(len(counter) < 400 for counter in counters)


def test_a_key_part_that_fails_makes_no_key(load: Load) -> None:
    spec = "{limit: {requests: 5, per: 1m}, key: [identity.team, 'identity.labels[\"tier\"]']}"
    found = limit(load, spec)
    head = RequestHead(method="POST", host="h", path="/")

    def key(identity: Identity) -> tuple[str, ...] | Failure:
        return key_of(found, cel.activate(facts.build(head, identity, request(), TOKENS, 0)))

    assert key(Identity(team="red", labels={"tier": "gold"})) == ("red", "gold")
    assert key(Identity(team="red")) == Failure("NOT_FOUND")


@pytest.mark.parametrize(("kind", "spec", "_edited"), EDITS)
def test_a_shadow_limit_charges_the_same_counter_without_enforcing(
    load: Load, kind: str, spec: str, _edited: str
) -> None:
    enforced = charged(load, spec, kind)
    shadow = charge(in_shadow(limit(load, spec, kind)), ("k",), Taken(7, 3), 0)

    assert (enforced.enforced, shadow.enforced) == (True, False)
    assert enforced.counter == shadow.counter


@pytest.mark.parametrize(
    ("kind", "spec", "must_count"),
    [("RateLimit", RATES[0], False), ("UsageCap", CAPS[0], True), ("ConcurrencyLimit", "max: 4", False)],
)
def test_caps_must_be_counted_and_rates_need_not(
    load: Load, kind: str, spec: str, *, must_count: bool
) -> None:
    assert charged(load, spec, kind).must_count is must_count


MATCH = 'match: request.headers["x-project"] == "a"'
KEY = "key:\n    - identity.team\n    - request.headers['x-project']"


def limit_of(*lines: str) -> str:
    spec = "\n".join(f"  {line}" for line in ("limit: {requests: 5, per: 1m}", *lines))
    return f"apiVersion: ai-policy/v1\nkind: RateLimit\nmetadata: {{name: l}}\nspec:\n{spec}\n"


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ((MATCH,), (6, 26)),
        ((KEY,), (8, 23)),
        ((MATCH, "mode: shadow"), (6, 26)),
        ((MATCH, "onError: allow"), (6, 26)),
        (("onError: allow", MATCH), (7, 26)),
    ],
)
def test_a_limit_that_a_caller_can_skip_by_leaving_out_a_header_does_not_load(
    problems: Problems, lines: tuple[str, ...], place: tuple[int, int]
) -> None:
    (problem,) = problems(limit=limit_of(*lines))

    assert (problem.file, problem.line, problem.column) == ("limit.yaml", *place)
    assert 'write request.headers[?"x-project"].orValue("")' in problem.message
    assert '"x-project" in request.headers' in problem.message
    assert "onError: deny" in problem.message


def test_every_part_that_a_caller_can_make_fail_is_told_with_all_other_problems(problems: Problems) -> None:
    found = problems(limit=limit_of(MATCH, KEY, "burst: 3"))

    assert [(item.line, item.column) for item in found] == [(6, 26), (9, 23), (10, 3)]


@pytest.mark.parametrize(
    "lines",
    [
        ('match: \'"x" in request.headers && request.headers["x"] == "a"\'',),
        ('key: [\'request.headers[?"x"].orValue("")\']',),
        ("key: ['identity.labels[\"tier\"]', 'identity.claims.sub']",),
        (MATCH, "onError: deny"),
        ("onError: deny", KEY),
    ],
)
def test_a_limit_that_no_caller_can_skip_loads(load: Load, lines: tuple[str, ...]) -> None:
    spec = "\n".join(("limit: {requests: 5, per: 1m}", *lines)).replace("\n    -", "\n  -")

    assert len(load(("RateLimit", "l", spec)).limits) == 1


@pytest.mark.parametrize(
    ("kind", "fields", "loads"),
    [
        ("UsageCap", "limit: {costUsd: 5}\nperiod: day", True),
        ("UsageCap", "limit: {costUsd: 5}\nperiod: day\nonError: allow", False),
        ("ConcurrencyLimit", "max: 3", False),
        ("ConcurrencyLimit", "max: 3\nonError: deny", True),
    ],
)
def test_what_may_be_left_out_depends_on_what_a_kind_does_on_errors(
    tmp_path: Path, kind: str, fields: str, *, loads: bool
) -> None:
    (tmp_path / "all.yaml").write_text(DEFAULTS + written(kind, "l", f"{fields}\n{MATCH}"))

    with nullcontext() if loads else pytest.raises(PolicyFolderInvalid, match="onError: deny"):
        policyset.load(tmp_path)


def test_who_leaves_out_the_header_of_a_key_is_counted_with_all_others_who_do(load: Load) -> None:
    spec = '{limit: {requests: 5, per: 1m}, key: [\'request.headers[?"x-project"].orValue("")\']}'
    found = limit(load, spec)

    def key(**headers: str) -> tuple[str, ...] | Failure:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        head = RequestHead(method="POST", host="h", path="/", headers=named)
        return key_of(found, cel.activate(facts.build(head, Identity(), request(), TOKENS, 0)))

    assert [key(x_project="a"), key(), key(x_other="a")] == [("a",), ("",), ("",)]
