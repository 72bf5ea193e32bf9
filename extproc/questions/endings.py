"""What a decision reserved, and what it came to: the endings of its record in words.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from extproc.decision import Charge, ChargeOutcome, Decision, Effect
from extproc.ledger import restored
from extproc.model import Basis
from extproc.pb.ai_policy.v1 import records_pb2 as pb
from extproc.questions.explained import Ending, Reservation

_BASES: Mapping[Basis, str] = MappingProxyType(
    {
        Basis.PROVIDER: "the provider reported it",
        Basis.PARTIAL: "the provider reported a part, and what was seen of the answer was added",
        Basis.TOKENIZER: "counted from the answer's text; the provider reported nothing",
        Basis.BYTES: "estimated from the answer's size; the provider reported nothing",
        Basis.RESERVED: "charged as reserved; nobody knows what was used",
        Basis.UPSTREAM_ERROR: "the provider answered an error, and reported nothing",
        Basis.LOCAL_REPLY: "Envoy answered before the provider was reached; nothing was used",
        Basis.EXPIRED: "charged as reserved; nobody reported in time",
    }
)
_KINDS: Mapping[int, str] = MappingProxyType(
    {
        pb.SETTLE: "settled with the answer",
        pb.EXPIRE: "expired: nobody said in time what was used",
        pb.ADJUST: "adjusted: a report that came late replaced what had expired",
    }
)


def endings(decision: Decision, records: Iterable[pb.UsageRecord]) -> tuple[Ending, ...]:
    """Each ending that was recorded, in order."""
    return tuple(_ending(decision, each) for each in sorted(records, key=lambda record: record.sequence))


def _ending(decision: Decision, record: pb.UsageRecord) -> Ending:
    basis = Basis(record.basis)
    return Ending(
        kind=pb.UsageKind.Name(record.kind).lower(),
        kind_in_words=_KINDS.get(record.kind, ""),
        sequence=record.sequence,
        basis=basis,
        basis_in_words=_BASES[basis],
        is_provisional=record.provisional,
        usage=restored.usage(record),
        nano_usd=record.nano_usd if record.HasField("nano_usd") else None,
        price_revision=record.price_revision,
        status=record.status,
        model=record.model,
        response_id=record.response_id,
        finish_reasons=tuple(record.finish_reasons),
        error_type=record.error_type,
        ended_at_us=record.ended_at_ns // 1_000,
        duration_ms=_between_ms(decision.started_at_ns, record.ended_at_ns),
        first_byte_ms=_between_ms(decision.decided_at_ns, record.first_byte_at_ns),
        instance=record.instance,
        shed=tuple(record.shed),
    )


def _between_ms(begin_ns: int, end_ns: int) -> int | None:
    """None where the end was not seen, or two clocks disagree about it."""
    return (end_ns - begin_ns) // 1_000_000 if end_ns >= begin_ns > 0 else None


def reservations(decision: Decision, records: Iterable[pb.UsageRecord]) -> tuple[Reservation, ...]:
    """What each limit set aside, and what the last ending charges it."""
    if decision.enforced_effect is Effect.DENY:
        # It took nothing: its arithmetic says all.
        return ()
    last = max(records, key=lambda record: record.sequence, default=None)
    amounts = {each.counter: each.amount for each in last.amounts} if last else {}
    answered = (_answered(outcome, amounts) for outcome in decision.outcomes)
    uncounted = (_uncounted(charge, amounts) for charge in decision.uncounted)
    return (*answered, *uncounted)


def _answered(outcome: ChargeOutcome, amounts: Mapping[str, int]) -> Reservation:
    charge = outcome.charge
    charged = amounts.get(charge.counter)
    return Reservation(
        policy=str(charge.policy),
        unit=charge.unit,
        requested=charge.amount,
        reserved=outcome.reserved,
        charged=charged,
        difference=None if charged is None else charged - outcome.reserved,
        enforced=charge.enforced,
        counter=charge.counter,
        key=charge.key,
    )


def _uncounted(charge: Charge, amounts: Mapping[str, int]) -> Reservation:
    return Reservation(
        policy=str(charge.policy),
        unit=charge.unit,
        requested=charge.amount,
        reserved=0,
        charged=amounts.get(charge.counter),
        enforced=charge.enforced,
        answered=False,
        counter=charge.counter,
        key=charge.key,
    )
