"""The settlement table and a token bucket's timeline, computed by the functions that every request uses."""

from __future__ import annotations

from dataclasses import dataclass, field

from extproc.decision import Charge, ChargeOutcome, Decision, Effect, PolicyRef, Reason, TokenBucket, Unit
from extproc.model import AIRequest, RequestHead, TokenEstimate, Usage
from extproc.policy import accounting, counters, denials
from extproc.policy.accounting import Ending
from extproc.policy.counters import AnyCounter, Ticket
from tests.readme.markdown import code, table

SECOND_US = 1_000_000
INPUT, CEILING = 50, 150
HALF = Usage(input_tokens=INPUT, output_tokens=10)
WHOLE = Usage(input_tokens=INPUT, output_tokens=90)

ENDINGS = (
    ("the provider reported usage", Ending(status=200, usage=WHOLE, finished=True)),
    (
        "the provider reported zero",
        Ending(status=200, usage=Usage(input_tokens=0, output_tokens=0), finished=True),
    ),
    (
        "usage was reported, then the answer was cut; 40 output tokens were seen",
        Ending(status=200, usage=HALF, body_observed=True, observed_output_tokens=40),
    ),
    (
        "success without usage; the session read 40 output tokens",
        Ending(status=200, body_observed=True, observed_output_tokens=40),
    ),
    (
        "success without usage; Envoy sent bytes that usually hold 60 output tokens",
        Ending(status=200, output_tokens_by_size=60),
    ),
    ("success without usage, and nobody saw the body", Ending(status=200)),
    (
        "success without usage; the body was corrupt after 40 output tokens",
        Ending(status=200, body_observed=True, is_incomplete=True, observed_output_tokens=40),
    ),
    ("the provider answered an error without usage", Ending(status=500)),
    (
        "the provider had the request and never answered",
        Ending(status=504, is_local_reply=True, timed_out=True),
    ),
    (
        "Envoy answered before the provider was reached",
        Ending(status=503, is_local_reply=True, reached_upstream=False),
    ),
    ("the client left before the answer began", Ending()),
)


def _charge(unit: Unit, amount: int, *, rate: int, burst: int) -> Charge:
    return Charge(
        policy=PolicyRef("RateLimit", "example"),
        counter=unit,
        unit=unit,
        amount=amount,
        minimum=amount,
        window=TokenBucket(rate, 60 * SECOND_US, burst),
    )


def _reserved(unit: Unit, amount: int) -> ChargeOutcome:
    return ChargeOutcome(
        charge=_charge(unit, amount, rate=1000, burst=1000),
        granted=True,
        reserved=amount,
        used=0,
        remaining=1000 - amount,
        wait_us=0,
        reset_us=0,
        limit=1000,
    )


def settlements() -> str:
    """What each ending of the same request is charged."""
    decision = Decision(
        id="",
        effect=Effect.ALLOW,
        enforced_effect=Effect.ALLOW,
        reason=Reason.ALLOWED,
        determining=None,
        findings=(),
        revision="",
        started_at_ns=0,
        decided_at_ns=0,
        head=RequestHead(method="POST", host="", path=""),
        request=AIRequest(api="openai_chat", provider="openai", operation="chat"),
        tokens=TokenEstimate(input=INPUT, max_output=CEILING),
        outcomes=(_reserved(Unit.TOKENS, INPUT + CEILING), _reserved(Unit.REQUESTS, 1)),
    )
    rows = []
    for words, ending in ENDINGS:
        account = accounting.settle(decision, ending)
        basis, amounts = account.basis, account.amounts
        rows.append((words, code(basis), amounts[Unit.TOKENS], amounts[Unit.REQUESTS]))
    return table(("what happened", "basis", "tokens charged", "requests charged"), rows)


@dataclass(slots=True, kw_only=True)
class Timeline:
    """One bucket of 600 tokens a minute that holds 300, and what happens to it."""

    rows: list[tuple[str, str, int, int]]
    counter: AnyCounter = field(default_factory=lambda: counters.unused(_asks(0).window))
    tickets: dict[str, Ticket] = field(default_factory=dict)

    def reserve(self, at_s: int, who: str, amount: int) -> None:
        """Ask for `amount` and note the answer."""
        at_us = at_s * SECOND_US
        if self.counter.fits(_asks(amount), at_us):
            outcome, self.tickets[who] = self.counter.reserve(_asks(amount), len(self.rows), at_us)
            self._note(at_s, f"{who} asks for {amount} and reserves {outcome.reserved}")
            return
        wait_us = self.counter.wait_us(_asks(amount), at_us) or 0
        self._note(
            at_s, f"{who} asks for {amount} and is denied: try again in {denials.wait(wait_us // 1000)}"
        )

    def settle(self, at_s: int, who: str, *, spent: int) -> None:
        """Replace what was reserved by what was spent."""
        at_us, ticket = at_s * SECOND_US, self.tickets[who]
        before = self.counter.used(_asks(0), at_us)
        self.counter.settle(_asks(ticket.reserved), ticket, spent, at_us)
        back = before - self.counter.used(_asks(0), at_us)
        said = f"{back} come back" if back >= 0 else f"{-back} more are taken"
        self._note(at_s, f"{who} settles {spent} of {ticket.reserved}: {said}")

    def look(self, at_s: int) -> None:
        """Note the bucket as time alone has left it."""
        self._note(at_s, "nobody came")

    def _note(self, at_s: int, words: str) -> None:
        used = self.counter.used(_asks(0), at_s * SECOND_US)
        self.rows.append((f"{at_s} s", words, used, 300 - used))


def _asks(amount: int) -> Charge:
    return _charge(Unit.TOKENS, amount, rate=600, burst=300)


def bucket() -> str:
    """A bucket's timeline: reserved, denied, refunded, in debt, whole again."""
    line = Timeline(rows=[])
    line.reserve(0, "A", 200)
    line.reserve(2, "B", 150)
    line.settle(4, "A", spent=80)
    line.reserve(5, "B", 150)
    line.reserve(6, "C", 140)
    line.settle(8, "B", spent=290)
    line.reserve(9, "C", 140)
    line.look(40)
    return table(("time", "what happens", "used", "left"), line.rows)
