from dataclasses import replace

import pytest

from extproc.decision import (
    Charge,
    ChargeOutcome,
    Cost,
    Decision,
    Effect,
    PolicyRef,
    Reason,
    TokenBucket,
    Unit,
)
from extproc.model import AIRequest, Basis, RequestHead, TokenEstimate, Usage
from extproc.policy.accounting import Ending, settle

RESERVED = {
    Unit.REQUESTS: 1,
    Unit.TOKENS: 600,
    Unit.INPUT_TOKENS: 100,
    Unit.OUTPUT_TOKENS: 500,
    Unit.COST_USD: 7_000,
}


UNITS = (Unit.REQUESTS, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS)


def outcome(unit: Unit, reserved: int) -> ChargeOutcome:
    charge = Charge(
        policy=PolicyRef("RateLimit", unit), counter=unit, unit=unit, amount=reserved, minimum=reserved,
        window=TokenBucket(1000, 60_000_000, 1000),
    )  # fmt: skip
    return ChargeOutcome(
        charge=charge,
        granted=True,
        reserved=reserved,
        used=0,
        remaining=0,
        wait_us=0,
        reset_us=0,
        limit=1000,
    )


def decision(*, operation: str = "chat", units: tuple[Unit, ...] = UNITS) -> Decision:
    return Decision(
        id="d",
        effect=Effect.ALLOW,
        enforced_effect=Effect.ALLOW,
        reason=Reason.ALLOWED,
        determining=None,
        findings=(),
        revision="r",
        started_at_ns=0,
        decided_at_ns=0,
        head=RequestHead(method="POST", host="h", path="/"),
        request=AIRequest(api="openai_chat", provider="openai", operation=operation),
        tokens=TokenEstimate(input=100, max_output=500),
        outcomes=tuple(outcome(unit, RESERVED[unit]) for unit in units),
    )


WHOLE = Usage(input_tokens=90, output_tokens=40, reasoning_output_tokens=10)
ZERO = Usage(input_tokens=0, output_tokens=0)

TABLE: dict[str, tuple[Ending, Basis, int | None, int | None, tuple[int, int, int, int]]] = {
    "reported by the provider": (
        Ending(status=200, usage=WHOLE, finished=True), Basis.PROVIDER, 90, 40, (1, 130, 90, 40),
    ),
    "zero reported is zero": (
        Ending(status=200, usage=ZERO, finished=True), Basis.PROVIDER, 0, 0, (1, 0, 0, 0),
    ),
    "more reported than reserved": (
        Ending(status=200, usage=Usage(input_tokens=2000, output_tokens=9000), finished=True),
        Basis.PROVIDER, 2000, 9000, (1, 11000, 2000, 9000),
    ),
    "an error that reports usage": (
        Ending(status=500, usage=WHOLE, finished=True), Basis.PROVIDER, 90, 40, (1, 130, 90, 40),
    ),
    "no usage, body observed": (
        Ending(status=200, body_observed=True, finished=True, observed_output_tokens=30),
        Basis.TOKENIZER, 100, 30, (1, 130, 100, 30),
    ),
    "no usage, nothing in the body": (
        Ending(status=200, body_observed=True), Basis.TOKENIZER, 100, 0, (1, 100, 100, 0),
    ),
    "no usage, body not observed": (Ending(status=200), Basis.RESERVED, 100, 500, (1, 600, 100, 500)),
    "no usage, some of the body unreadable": (
        Ending(status=200, body_observed=True, is_incomplete=True, observed_output_tokens=30),
        Basis.RESERVED, 100, 500, (1, 600, 100, 500),
    ),
    "some usage, some of the body unreadable": (
        Ending(status=200, usage=Usage(input_tokens=90, output_tokens=1), body_observed=True,
               is_incomplete=True, observed_output_tokens=30),
        Basis.PARTIAL, 90, 500, (1, 590, 90, 500),
    ),
    "cut without usage while its model thinks unseen": (
        Ending(status=200, body_observed=True, observed_output_tokens=30, usual_reasoning_tokens=200),
        Basis.TOKENIZER, 100, 200, (1, 300, 100, 200),
    ),
    "cut without usage, with more to see than its model thinks": (
        Ending(status=200, body_observed=True, observed_output_tokens=300, usual_reasoning_tokens=200),
        Basis.TOKENIZER, 100, 300, (1, 400, 100, 300),
    ),
    "cut without usage, and it may not think as long as usual": (
        Ending(status=200, body_observed=True, usual_reasoning_tokens=9000),
        Basis.TOKENIZER, 100, 500, (1, 600, 100, 500),
    ),
    "ended without usage: nothing is added to what was seen": (
        Ending(status=200, body_observed=True, finished=True, observed_output_tokens=30,
               usual_reasoning_tokens=200),
        Basis.TOKENIZER, 100, 30, (1, 130, 100, 30),
    ),
    "cut after some usage, more seen": (
        Ending(status=200, usage=Usage(input_tokens=90, output_tokens=1), body_observed=True,
               observed_output_tokens=30),
        Basis.PARTIAL, 90, 30, (1, 120, 90, 30),
    ),
    "cut after some usage, less seen": (
        Ending(status=200, usage=WHOLE, body_observed=True, observed_output_tokens=30),
        Basis.PARTIAL, 90, 40, (1, 130, 90, 40),
    ),
    "usage without its input": (
        Ending(status=200, usage=Usage(output_tokens=40), finished=True),
        Basis.PARTIAL, 100, 40, (1, 140, 100, 40),
    ),
    "usage without anything is none": (
        Ending(status=200, usage=Usage(), finished=True), Basis.RESERVED, 100, 500, (1, 600, 100, 500),
    ),
    "no usage, body not observed but its size": (
        Ending(status=200, output_tokens_by_size=30), Basis.BYTES, 100, 30, (1, 130, 100, 30),
    ),
    "no usage, a size that says more than was asked for": (
        Ending(status=200, output_tokens_by_size=9000), Basis.BYTES, 100, 500, (1, 600, 100, 500),
    ),
    "no usage, a size, and what its model thinks unseen": (
        Ending(status=200, output_tokens_by_size=30, usual_reasoning_tokens=200),
        Basis.BYTES, 100, 230, (1, 330, 100, 230),
    ),
    "a size beside the provider's usage": (
        Ending(status=200, usage=WHOLE, finished=True, output_tokens_by_size=30),
        Basis.PROVIDER, 90, 40, (1, 130, 90, 40),
    ),
    "the provider's error, however long": (
        Ending(status=429, output_tokens_by_size=30), Basis.UPSTREAM_ERROR, 0, 0, (1, 0, 0, 0),
    ),
    "the provider's error": (Ending(status=429), Basis.UPSTREAM_ERROR, 0, 0, (1, 0, 0, 0)),
    "a redirect": (Ending(status=302), Basis.UPSTREAM_ERROR, 0, 0, (1, 0, 0, 0)),
    "a reset after the upstream was reached": (
        Ending(status=503, is_local_reply=True), Basis.UPSTREAM_ERROR, 0, 0, (1, 0, 0, 0),
    ),
    "timed out at the upstream": (
        Ending(status=504, is_local_reply=True, timed_out=True), Basis.RESERVED, 100, 500, (1, 600, 100, 500),
    ),
    "never reached the upstream": (
        Ending(status=503, is_local_reply=True, reached_upstream=False),
        Basis.LOCAL_REPLY, 0, 0, (0, 0, 0, 0),
    ),
    "client gone before the headers": (Ending(), Basis.RESERVED, 100, 500, (1, 600, 100, 500)),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE)
def test_each_row_of_the_settlement_table(row: str) -> None:
    ending, basis, given, made, amounts = TABLE[row]

    account = settle(decision(), ending)
    settled_basis, usage, settled = account.basis, account.usage, account.amounts

    assert settled_basis is basis
    assert (usage.input_tokens, usage.output_tokens) == (given, made)
    assert settled == dict(zip(UNITS, amounts, strict=True))


def test_what_the_provider_said_beyond_the_totals_is_kept() -> None:
    assert settle(decision(), Ending(status=200, usage=WHOLE, finished=True)).usage == WHOLE
    cut = settle(decision(), Ending(status=200, usage=WHOLE, observed_output_tokens=99)).usage
    assert cut == Usage(input_tokens=90, output_tokens=99, reasoning_output_tokens=10)


def test_without_a_token_limit_nobody_knows_what_was_reserved() -> None:
    account = settle(decision(units=(Unit.REQUESTS,)), Ending(status=200))
    basis, usage, amounts = account.basis, account.usage, account.amounts

    assert (basis, usage) == (Basis.RESERVED, Usage(input_tokens=100, output_tokens=None))
    assert amounts == {"requests": 1}


def test_what_is_charged_as_reserved_costs_the_money_that_its_limits_set_aside() -> None:
    """A limit on tokens may have set aside less, or there is none: the counter keeps this amount."""
    alone = settle(decision(units=(Unit.COST_USD,)), Ending())
    beside_tokens = settle(decision(units=(Unit.TOKENS, Unit.COST_USD)), Ending())

    assert (alone.cost, beside_tokens.cost) == (Cost(7_000, ""), Cost(7_000, ""))
    assert (alone.amounts, beside_tokens.amounts["cost_usd"]) == ({"cost_usd": 7_000}, 7_000)
    assert alone.usage == Usage(input_tokens=100, output_tokens=None)


@pytest.mark.parametrize("left", [0, 99, 100, 599])
def test_what_a_full_limit_in_shadow_had_left_is_no_reservation(left: int) -> None:
    request = decision(units=(Unit.TOKENS,))
    full = replace(request.outcomes[0], granted=False, reserved=left)

    account = settle(replace(request, outcomes=(full,)), Ending())

    assert account.usage == Usage(input_tokens=100, output_tokens=None)
    assert account.amounts == {"tokens": left}


def test_what_nobody_answered_for_counts_as_taken() -> None:
    request = decision(units=(Unit.TOKENS, Unit.COST_USD))
    uncounted = tuple(outcome.charge for outcome in request.outcomes)

    account = settle(replace(request, outcomes=(), uncounted=uncounted), Ending())

    assert account.usage == Usage(input_tokens=100, output_tokens=500)
    assert account.cost == Cost(7_000, "")
    assert account.amounts == {"tokens": 600, "cost_usd": 7_000}


def test_a_size_tells_more_than_a_reservation_that_no_limit_made() -> None:
    account = settle(decision(units=(Unit.REQUESTS,)), Ending(status=200, output_tokens_by_size=30))

    assert (account.basis, account.usage) == (Basis.BYTES, Usage(input_tokens=100, output_tokens=30))
    assert account.amounts == {"requests": 1}


def test_every_choice_may_think_and_reach_its_ceiling() -> None:
    two = decision()
    two = replace(two, request=replace(two.request, choices=2))  # type: ignore[type-var]  # it has one

    thought = settle(two, Ending(status=200, output_tokens_by_size=30, usual_reasoning_tokens=200))
    beyond = settle(two, Ending(status=200, output_tokens_by_size=9000))

    assert (thought.usage.output_tokens, beyond.usage.output_tokens) == (430, 1000)


def test_a_call_that_spends_nothing_is_charged_its_request_alone() -> None:
    account = settle(decision(operation="control", units=(Unit.REQUESTS,)), Ending(status=200))
    basis, usage, amounts = account.basis, account.usage, account.amounts

    assert (basis, usage.input_tokens) == (Basis.RESERVED, 0)
    assert amounts == {"requests": 1}
