"""What a decision is charged in the end: the settlement table as one pure function.

Floor 1. Reservations and refunds are the store's; here is only what each counter comes to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from extproc.decision import Charge, Cost, Decision, Unit
from extproc.formats.base import CONTROL
from extproc.measure.overrides import NO_PRICES, PriceBook
from extproc.model import Basis, Usage

_NOTHING_SPENT: Final = Usage(input_tokens=0, output_tokens=0)
_FIRST_ERROR_STATUS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an allowed request ended, as far as anybody saw."""

    status: int = 0  # HTTP status of the answer; 0: none was seen
    is_local_reply: bool = False
    reached_upstream: bool = True
    timed_out: bool = False  # the upstream had the request and never answered
    usage: Usage | None = None  # as the provider reported it
    finished: bool = False  # the answer's terminal event was seen
    body_observed: bool = False
    is_incomplete: bool = False  # some of the body could not be read: it may hold any amount of output
    observed_output_tokens: int | None = None  # counted from what was seen of the body
    output_tokens_by_size: int | None = None  # visible, of an answer nobody read, by the bytes of it
    usual_reasoning_tokens: int = 0  # of one choice of this model: it thinks before a word is seen
    model: str = ""  # as answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a decision comes to."""

    basis: Basis
    usage: Usage
    cost: Cost | None  # of `usage`, or as reserved; None: no price is known, or not all of what was used
    amounts: Mapping[str, int]  # counter -> what it is charged


def settle(decision: Decision, ending: Ending, prices: PriceBook = NO_PRICES) -> Account:
    """The first row that applies: its basis, the tokens spent, their cost, the amount of each counter.

    What the store did not answer for has an amount too: it may have been taken all the same.
    """
    basis = next(basis for applies, basis in _ROWS if applies(ending))
    usage = _USAGE[basis](decision, ending)
    cost = _cost(decision, basis, usage, ending.model, prices)
    spent = _Spent(usage, cost)
    amount = _AMOUNT.get(basis, _by_usage)
    taken = {each.charge.counter: amount(each.charge, each.reserved, spent) for each in decision.outcomes}
    uncounted = {charge.counter: amount(charge, charge.amount, spent) for charge in decision.uncounted}
    return Account(basis=basis, usage=usage, cost=cost, amounts={**uncounted, **taken})


@dataclass(frozen=True, slots=True)
class _Spent:
    usage: Usage
    cost: Cost | None


def _has_usage(ending: Ending) -> bool:
    usage = ending.usage
    return usage is not None and (usage.input_tokens is not None or usage.output_tokens is not None)


def _is_whole(ending: Ending) -> bool:
    return ending.finished and ending.usage is not None and ending.usage.is_complete


def _is_error(ending: Ending) -> bool:
    return ending.is_local_reply or ending.status >= _FIRST_ERROR_STATUS


_ROWS: tuple[tuple[Callable[[Ending], bool], Basis], ...] = (
    (lambda ending: ending.is_local_reply and not ending.reached_upstream, Basis.LOCAL_REPLY),
    (_is_whole, Basis.PROVIDER),
    (_has_usage, Basis.PARTIAL),
    # The provider had the request and may have generated all of it.
    (lambda ending: ending.status == 0 or ending.timed_out, Basis.RESERVED),
    (_is_error, Basis.UPSTREAM_ERROR),
    (lambda ending: ending.body_observed and not ending.is_incomplete, Basis.TOKENIZER),
    (lambda ending: ending.output_tokens_by_size is not None, Basis.BYTES),
    (lambda _: True, Basis.RESERVED),
)


def _reported(decision: Decision, ending: Ending) -> Usage:
    return ending.usage or _estimated(decision, None)


def _larger(decision: Decision, ending: Ending) -> Usage:
    """Whatever was cut off cannot have cost less than what was reported or seen."""
    usage = _reported(decision, ending)
    unread: int | None = None
    if ending.output_tokens_by_size is not None:
        unread = _by_size(decision, ending).output_tokens
    elif ending.is_incomplete:
        unread = _set_aside(decision, ending).output_tokens
    return replace(
        usage,
        input_tokens=_input(decision) if usage.input_tokens is None else usage.input_tokens,
        output_tokens=max(usage.output_tokens or 0, _seen(decision, ending), unread or 0),
    )


def _counted(decision: Decision, ending: Ending) -> Usage:
    return _estimated(decision, _seen(decision, ending))


def _seen(decision: Decision, ending: Ending) -> int:
    """The output that was counted; of a cut answer at least what its model usually thinks unseen.

    Else whoever leaves before the usage pays for no reasoning (llmgateway, GHSA-724j-f2pf-phf7).
    """
    observed = ending.observed_output_tokens or 0
    if ending.finished or decision.request is None:
        return observed
    usual = min(ending.usual_reasoning_tokens, decision.tokens.max_output)
    return max(observed, usual * decision.request.choices)


def _by_size(decision: Decision, ending: Ending) -> Usage:
    """What was sent, and what its model usually thinks unseen before: no more than was asked for."""
    choices = 1 if decision.request is None else decision.request.choices
    made = (ending.output_tokens_by_size or 0) + ending.usual_reasoning_tokens * choices
    return _estimated(decision, min(made, decision.tokens.max_output * choices))


def _set_aside(decision: Decision, _: Ending) -> Usage:
    """The estimate of the input and the output that was reserved; None where no limit reserved any."""
    given = _input(decision)
    tokens = [reserved - given for reserved in _reserved(decision, Unit.TOKENS)]
    return _estimated(decision, max([*tokens, *_reserved(decision, Unit.OUTPUT_TOKENS)], default=None))


def _reserved(decision: Decision, unit: Unit) -> list[int]:
    """What each limit of a unit took, or may have taken; one in shadow that was full took what was left."""
    granted = [each for each in decision.outcomes if each.granted and each.charge.unit is unit]
    uncounted = [charge.amount for charge in decision.uncounted if charge.unit is unit]
    return [*(each.reserved for each in granted), *uncounted]


def _estimated(decision: Decision, output_tokens: int | None) -> Usage:
    return Usage(input_tokens=_input(decision), output_tokens=output_tokens)


def _input(decision: Decision) -> int:
    """What the input was estimated at; calls that spend nothing have none, whatever was counted."""
    request = decision.request
    return decision.tokens.input if request is not None and request.operation != CONTROL else 0


_USAGE: Mapping[Basis, Callable[[Decision, Ending], Usage]] = MappingProxyType(
    {
        Basis.LOCAL_REPLY: lambda _decision, _ending: _NOTHING_SPENT,
        Basis.PROVIDER: _reported,
        Basis.PARTIAL: _larger,
        Basis.RESERVED: _set_aside,
        Basis.UPSTREAM_ERROR: lambda _decision, _ending: _NOTHING_SPENT,
        Basis.TOKENIZER: _counted,
        Basis.BYTES: _by_size,
    }
)


_NOTHING_DONE = frozenset({Basis.LOCAL_REPLY, Basis.UPSTREAM_ERROR})


def _cost(decision: Decision, basis: Basis, usage: Usage, answered: str, prices: PriceBook) -> Cost | None:
    """The price of the tokens that are settled, reported or estimated; what nobody did costs nothing."""
    request = decision.request
    if basis in _NOTHING_DONE or (request is not None and request.operation == CONTROL):
        return prices.nothing()
    if request is None:
        return None
    priced = prices.cost(
        usage,
        provider=request.provider,
        requested=decision.upstream_model,
        answered=answered,
        at_ns=decision.decided_at_ns,
    )
    if basis is Basis.RESERVED:
        # The money that was set aside is what its counter keeps; what limits on tokens set aside may be less.
        reserved = max(_reserved(decision, Unit.COST_USD), default=None)
        if reserved is not None:
            return Cost(reserved, priced.revision if priced else "")
    # Where no limit reserved any output, nobody knows how much there was: less than all is no price.
    return priced if usage.is_complete else None


def _by_usage(charge: Charge, reserved: int, spent: _Spent) -> int:
    return _UNITS[charge.unit](reserved, spent)


_UNITS: Mapping[Unit, Callable[[int, _Spent], int]] = MappingProxyType(
    {
        Unit.REQUESTS: lambda _reserved, _spent: 1,
        Unit.TOKENS: lambda _reserved, spent: _given(spent) + _made(spent),
        Unit.INPUT_TOKENS: lambda _reserved, spent: _given(spent),
        Unit.OUTPUT_TOKENS: lambda _reserved, spent: _made(spent),
        # Money that nobody can name any more, a model answered that has no price, stays as reserved.
        Unit.COST_USD: lambda reserved, spent: reserved if spent.cost is None else spent.cost.nano_usd,
        # A lease ends with its request.
        Unit.CONCURRENT_REQUESTS: lambda _reserved, _spent: 0,
    }
)


def _given(spent: _Spent) -> int:
    return spent.usage.input_tokens or 0


def _made(spent: _Spent) -> int:
    return spent.usage.output_tokens or 0


def _as_reserved(charge: Charge, reserved: int, _: _Spent) -> int:
    return 0 if charge.unit is Unit.CONCURRENT_REQUESTS else reserved


# Where usage does not say what a counter comes to.
_AMOUNT: Mapping[Basis, Callable[[Charge, int, _Spent], int]] = MappingProxyType(
    {
        Basis.LOCAL_REPLY: lambda _charge, _reserved, _spent: 0,
        Basis.RESERVED: _as_reserved,
    }
)
