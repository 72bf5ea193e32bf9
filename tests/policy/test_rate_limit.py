import pytest

from extproc.decision import Charge
from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate
from extproc.policy import cel, facts
from extproc.policy.cel import Failure
from extproc.policy.kinds.rate_limit import charge, key_of
from tests.policy.conftest import Load, Problems

TOKENS = TokenEstimate(input=100, input_upper_bound=400, max_output=1000)


def request(*, choices: int = 1, declared: int | None = None, operation: str = "chat") -> AIRequest:
    return AIRequest(
        api="openai_chat", provider="openai", operation=operation, model="m", models=("m",),
        choices=choices, max_output_tokens=declared,
    )  # fmt: skip


def charged(
    load: Load,
    limit: str,
    asked: AIRequest | None,
    *,
    reserve: str = "declared",
    expected: int | None = None,
    key: tuple[str, ...] = (),
) -> Charge | None:
    (loaded,) = load(("RateLimit", "l", f"limit: {{{limit}, per: 1m}}")).rate_limits
    return charge(loaded, key, asked, TOKENS, reserve=reserve, expected_output_tokens=expected)


@pytest.mark.parametrize(
    ("limit", "asked", "reserve", "expected", "taken"),
    [
        ("requests: 5", request(), "declared", None, (1, 1)),
        ("inputTokens: 500", request(declared=1000), "declared", None, (100, 100)),
        ("tokens: 5000", request(declared=1000), "declared", 40, (1100, 1100)),
        ("tokens: 5000", request(declared=1000), "expected", 40, (140, 140)),
        ("tokens: 5000", request(declared=1000), "expected", None, (1100, 1100)),
        ("tokens: 5000", request(declared=1000), "expected", 9999, (1100, 1100)),
        ("tokens: 5000", request(declared=1000, choices=3), "declared", None, (3100, 3100)),
        ("tokens: 5000", request(declared=1000, choices=3), "expected", 40, (220, 220)),
        ("outputTokens: 500", request(declared=1000, choices=2), "declared", None, (2000, 2000)),
        # No ceiling declared: whatever is left after the input will do.
        ("tokens: 5000", request(), "declared", None, (1100, 101)),
        ("tokens: 5000", request(), "expected", 40, (140, 101)),
        ("tokens: 5000", request(choices=2), "expected", 40, (180, 101)),
        ("outputTokens: 500", request(), "declared", None, (1000, 1)),
    ],
)
def test_what_a_request_takes(  # noqa: PLR0917  one row of a table
    load: Load, limit: str, asked: AIRequest, reserve: str, expected: int | None, taken: tuple[int, int]
) -> None:
    """The amount, and the least that will do."""
    made = charged(load, limit, asked, reserve=reserve, expected=expected)

    assert made is not None
    assert (made.amount, made.minimum) == taken


@pytest.mark.parametrize("asked", [None, request(operation="control")])
def test_what_spends_nothing_costs_a_request_and_no_tokens(load: Load, asked: AIRequest | None) -> None:
    one = charged(load, "requests: 5", asked)

    assert one is not None
    assert one.amount == 1
    assert [charged(load, f"{unit}: 5", asked) for unit in ("tokens", "inputTokens", "outputTokens")] == [
        None
    ] * 3


def test_editing_the_amount_keeps_the_counter_and_editing_the_window_does_not(load: Load) -> None:
    def counter(spec: str) -> str:
        (limit,) = load(("RateLimit", "l", spec)).rate_limits
        taken = charge(limit, ("k",), request(), TOKENS, reserve="declared", expected_output_tokens=None)
        assert taken is not None
        return taken.counter

    first = counter("limit: {tokens: 5, per: 1m}")

    assert counter("{limit: {tokens: 9, per: 60s, burst: 20}, mode: shadow}") == first
    assert counter("limit: {tokens: 5, per: 2m}") != first
    assert counter("limit: {inputTokens: 5, per: 1m}") != first


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

    counters = [charged(load, "requests: 5", request(), key=key) for key in keys]

    assert len({taken.counter for taken in counters if taken}) == len(keys)
    assert all(len(taken.counter) < 400 for taken in counters if taken)


def test_a_key_part_that_fails_makes_no_key(load: Load) -> None:
    spec = "{limit: {requests: 5, per: 1m}, key: [identity.team, 'identity.labels[\"tier\"]']}"
    (limit,) = load(("RateLimit", "l", spec)).rate_limits
    head = RequestHead(method="POST", host="h", path="/")

    def key(identity: Identity) -> tuple[str, ...] | Failure:
        return key_of(limit, cel.activate(facts.build(head, identity, request(), TOKENS, 0)))

    assert key(Identity(team="red", labels={"tier": "gold"})) == ("red", "gold")
    assert key(Identity(team="red")) == Failure("NOT_FOUND")


def test_a_shadow_limit_charges_the_same_counter_without_enforcing(load: Load) -> None:
    (enforced,) = load(("RateLimit", "l", "limit: {requests: 5, per: 1m}")).rate_limits
    (shadow,) = load(("RateLimit", "l", "{limit: {requests: 5, per: 1m}, mode: shadow}")).rate_limits
    taken = [
        charge(limit, (), request(), TOKENS, reserve="declared", expected_output_tokens=None)
        for limit in (enforced, shadow)
    ]

    assert [item.enforced for item in taken if item] == [True, False]
    assert len({item.counter for item in taken if item}) == 1


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

    assert len(load(("RateLimit", "l", spec)).rate_limits) == 1


def test_who_leaves_out_the_header_of_a_key_is_counted_with_all_others_who_do(load: Load) -> None:
    spec = '{limit: {requests: 5, per: 1m}, key: [\'request.headers[?"x-project"].orValue("")\']}'
    (limit,) = load(("RateLimit", "l", spec)).rate_limits

    def key(**headers: str) -> tuple[str, ...] | Failure:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        head = RequestHead(method="POST", host="h", path="/", headers=named)
        return key_of(limit, cel.activate(facts.build(head, Identity(), request(), TOKENS, 0)))

    assert [key(x_project="a"), key(), key(x_other="a")] == [("a",), ("",), ("",)]
