"""What a ledger promises, on every database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from extproc.decision import Effect, Reason, Unit
from extproc.errors import LedgerUnavailable
from extproc.ledger import restored
from extproc.measure.overrides import Overrides
from extproc.measure.prices import Prices
from extproc.model import AIRequest, Basis, Usage
from extproc.pb.ai_policy.v1 import records_pb2 as pb
from extproc.policy import accounting
from tests.ledger.running import Clock, Counters, look, open_ones, running, until, usage, verdict, written
from tests.ledger.samples import COUNTER, RESERVED, allowed, denied, outcome, reset, settlement

KINDS = [pb.EXPIRE, pb.ADJUST]


async def test_a_decision_is_there_once_it_is_committed(url: str) -> None:
    async with running(url) as journal:
        await journal.committed(allowed())

        assert verdict(url, "decision-000001").verdict.reason == "allowed"
        assert open_ones(url) == ["decision-000001"]


async def test_denied_decisions_are_on_record_and_need_no_end(url: str) -> None:
    async with running(url) as journal:
        journal.decided(denied())

    assert verdict(url, "decision-000001").verdict.message.startswith("RateLimit/team-tokens")
    assert open_ones(url) == []


async def test_closing_writes_what_waits(url: str) -> None:
    async with running(url) as journal:
        for number in range(100):
            journal.decided(allowed(number))
        journal.changed(reset())

    assert look(url, "SELECT COUNT(*) FROM decisions") == [(100,)]
    assert look(url, "SELECT action, subject FROM changes") == [("counter_reset", "RateLimit/team-tokens")]


async def test_people_can_group_by_who_asked_for_what(url: str) -> None:
    async with running(url) as journal:
        journal.decided(allowed())

    columns = "team, user_name, key_name, provider, model, operation, policy, reason, would_deny"
    ((*found, would_deny),) = look(url, f"SELECT {columns} FROM decisions")
    assert found == ["demo", "ada", "demo-key", "openai", "gpt-4o-mini", "chat", "", "allowed"]
    assert not would_deny


@pytest.mark.parametrize("apart", [False, True], ids=["one commit", "two commits"])
async def test_a_settlement_closes_its_decision(url: str, apart: bool) -> None:  # noqa: FBT001
    async with running(url) as journal:
        journal.decided(allowed())
        if apart:
            await written(journal)
        journal.settled(settlement())

    assert open_ones(url) == []
    (record,) = usage(url, "decision-000001")
    assert restored.settlement(record) == settlement()
    assert (record.kind, record.sequence, record.provisional) == (pb.SETTLE, 1, False)
    columns = "kind, basis, input_tokens, output_tokens, reasoning_output_tokens, nano_usd, occurred_at_us"
    assert look(url, f"SELECT {columns} FROM usage") == [
        ("SETTLE", "provider", 90, 0, None, 1200, 1_010_000_000)
    ]


@pytest.mark.parametrize("apart", [False, True], ids=["one commit", "two commits"])
async def test_only_the_first_settlement_counts(url: str, apart: bool) -> None:  # noqa: FBT001
    async with running(url) as journal:
        journal.decided(allowed())
        journal.settled(settlement())
        if apart:
            await written(journal)
        journal.settled(settlement(usage=Usage(input_tokens=1)))

    assert [record.usage.input_tokens for record in usage(url, "decision-000001")] == [90]


async def test_the_last_verdict_counts(url: str) -> None:
    """A request that could not be put on record in time is denied under the same id."""
    async with running(url) as journal:
        await journal.committed(allowed())
        journal.decided(denied(reason=Reason.AUDIT_UNAVAILABLE))

    assert verdict(url, "decision-000001").verdict.reason == "audit_unavailable"
    assert look(url, "SELECT enforced_effect FROM decisions") == [("deny",)]
    assert open_ones(url) == []


async def test_nothing_that_clients_write_keeps_a_commit_from_being_made(url: str) -> None:
    """A NUL is no text for Postgres, half a surrogate pair none for anybody, and no column has 70 bits."""
    request = AIRequest(
        api="openai_chat", provider="openai", operation="chat", model="a\0b\ud800" + "x" * 9000,
        end_user="\0", max_output_tokens=2**70,
    )  # fmt: skip
    async with running(url) as journal:
        await journal.committed(allowed(request=request))
        journal.settled(settlement(model="\ud800\0", usage=Usage(input_tokens=2**70)))
        await written(journal)

        assert (journal.status.written, journal.status.dropped) == (2, 0)
    ((model,),) = look(url, "SELECT model FROM decisions")
    assert (model[:4], len(model)) == ("a\ufffdb?", 200)


async def test_what_a_database_refuses_is_dropped_alone(url: str) -> None:
    counters = Counters()
    counters.use("no\0name", "{}")
    counters.use("a name", "{}")
    async with running(url, counters=counters) as journal:
        journal.decided(allowed(1))
        # No counter of ours has one; whatever else there is must get through.
        journal.decided(allowed(2, decided_at_ns=2**80))
        await journal.committed(allowed(3))

        assert journal.status.is_writing
        assert (journal.status.written, journal.status.dropped) == (2, 1 + (url[:8] == "postgres"))
    assert look(url, "SELECT id FROM decisions ORDER BY id") == [("decision-000001",), ("decision-000003",)]


# --- endings nobody reports


async def test_a_decision_past_its_deadline_comes_to_what_it_reserved(url: str) -> None:
    async with running(url) as journal:
        journal.decided(allowed(1, at_s=1000))
        journal.decided(allowed(2, at_s=9000))
    async with running(url, instance="another", at_s=1000 + 3600):
        pass

    assert open_ones(url) == ["decision-000002"]
    (record,) = usage(url, "decision-000001")
    assert (record.kind, record.basis, record.provisional) == (pb.EXPIRE, "expired", True)
    assert restored.settlement(record).amounts == {COUNTER: RESERVED}
    assert restored.settlement(record).usage == Usage(input_tokens=100, output_tokens=500)


async def test_money_that_was_reserved_is_what_an_expired_decision_cost(url: str) -> None:
    tokens = outcome()
    charge = replace(tokens.charge, counter="UsageCap/money|...", unit=Unit.COST_USD)
    money = replace(tokens, charge=charge, reserved=7_000)
    async with running(url) as journal:
        journal.decided(allowed(outcomes=(tokens, money)))
    async with running(url, at_s=9000):
        pass

    (record,) = usage(url, "decision-000001")
    assert record.nano_usd == restored.settlement(record).amounts[charge.counter] == 7_000


async def test_tokens_that_were_reserved_cost_an_expired_decision_what_they_cost_a_settled_one(
    url: str,
) -> None:
    prices = Overrides().over(Prices.bundled())
    decision = allowed()
    async with running(url) as journal:
        journal.decided(decision)
    async with running(url, at_s=9000, prices=prices):
        pass

    (record,) = usage(url, "decision-000001")
    settled = accounting.settle(decision, accounting.Ending(), prices).cost
    assert settled is not None
    assert (record.nano_usd, record.price_revision) == (settled.nano_usd, settled.revision)
    assert record.nano_usd > 0


async def test_what_a_process_left_open_is_ended_by_the_next_one_in_its_place(url: str) -> None:
    async with running(url, instance="worker-0", at_s=900) as journal:
        journal.decided(allowed(1, at_s=1000))
    async with running(url, instance="worker-1", at_s=900) as journal:
        journal.decided(allowed(2, at_s=1000))
    async with running(url, instance="worker-0", at_s=1001) as journal:
        await journal.committed(allowed(3, at_s=1002))

        assert open_ones(url) == ["decision-000002", "decision-000003"]
    assert [record.kind for record in usage(url, "decision-000001")] == [pb.EXPIRE]


async def test_a_late_report_corrects_an_expiry_once(url: str) -> None:
    async with running(url) as journal:
        journal.decided(allowed())
    async with running(url, at_s=9000) as journal:
        await written(journal)
    async with running(url, at_s=9001) as journal:
        for tokens in (70, 80):
            journal.settled(settlement(usage=Usage(input_tokens=tokens, output_tokens=1)))
            await written(journal)

    expired, adjusted = usage(url, "decision-000001")
    assert [expired.kind, adjusted.kind] == KINDS
    assert (adjusted.sequence, adjusted.usage.input_tokens, adjusted.provisional) == (2, 70, False)
    assert open_ones(url) == []


async def test_expiring_is_done_again_while_the_ledger_runs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extproc.ledger.journal._UPKEEP_S", 0.0)
    clock = Clock(900)
    async with running(url, clock=clock) as journal:
        await journal.committed(allowed())
        clock.at_s = 1000 + 3600
        journal.decided(denied(2))
        await written(journal)
        await until(lambda: not open_ones(url))
        journal.settled(settlement())

    assert [record.kind for record in usage(url, "decision-000001")] == KINDS


async def test_records_of_an_unknown_future_expire_without_figures(url: str) -> None:
    async with running(url) as journal:
        await journal.committed(allowed())
    record = verdict(url, "decision-000001")
    record.charges[0].unit = "a unit of next year"
    look(url, "UPDATE decisions SET record = ?", record.SerializeToString())
    async with running(url, at_s=9000):
        pass

    (record_of_end,) = usage(url, "decision-000001")
    assert (record_of_end.kind, len(record_of_end.amounts)) == (pb.EXPIRE, 0)


# --- counters


async def test_counters_come_back_as_they_were_last(url: str) -> None:
    first = Counters()
    async with running(url, counters=first) as journal:
        first.use("a", "1")
        first.use("b", "1")
        await journal.committed(allowed(1))
        first.use("a", "2")
        first.use("b", "")
        journal.decided(allowed(2))
    async with running(url, counters=Counters(), scope="elsewhere"):
        pass
    second = Counters()
    async with running(url, counters=second) as journal:
        assert await journal.counters() == tuple(second.seeded)

    assert [(s.counter, s.version, s.state) for s in second.seeded] == [("a", 3, "2")]


async def test_an_older_version_of_a_counter_changes_nothing(url: str) -> None:
    newer, older = Counters(), Counters()
    newer.version = 10
    newer.use("a", "new")
    older.use("a", "old")
    for counters in (newer, older):
        async with running(url, counters=counters, is_shared=True, scope="shared") as journal:
            await journal.committed(allowed())

    assert look(url, "SELECT version, state FROM counters") == [(11, "new")]


async def test_a_shared_store_keeps_its_own_counters(url: str) -> None:
    counters = Counters()
    async with running(url, counters=counters, is_shared=True) as journal:
        assert journal.status.has_counters
    assert not counters.is_seeded


async def test_more_counters_come_back_than_one_answer_holds(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extproc.ledger.tables._COUNTERS_AT_ONCE", 7)
    names = {f'RateLimit/{name}|["{number}"]' for name in ("Zoo", "a-b", "ab") for number in range(11)}
    first, second = Counters(), Counters()
    for name in names:
        first.use(name, "1")
    async with running(url, counters=first):
        pass
    async with running(url, counters=second):
        pass

    assert {state.counter for state in second.seeded} == names


# --- bounds


async def test_what_finds_no_room_is_dropped_and_counted(url: str) -> None:
    async with running(url, capacity=10) as journal:
        for number in range(15):
            journal.decided(allowed(number))

        assert (journal.status.pending, journal.status.dropped) == (10, 5)
        with pytest.raises(LedgerUnavailable, match="too many"):
            await journal.committed(allowed(99))
    assert look(url, "SELECT COUNT(*) FROM decisions") == [(10,)]


async def test_a_client_with_long_headers_and_names_does_not_fill_the_memory(url: str) -> None:
    plain = allowed()
    assert plain.request is not None
    fat: tuple[dict[str, Any], ...] = (
        {"head": replace(plain.head, headers={"x-long": "a" * 60_000})},
        {"head": replace(plain.head, path="/" + "a" * 60_000)},
        {"request": replace(plain.request, models=("m" * 256,) * 64, tools=("t" * 64,) * 1000)},
    )
    for number, changes in enumerate(fat):
        async with running(url, capacity_bytes=100_000) as journal:
            journal.decided(allowed(2 * number, **changes))
            journal.decided(allowed(2 * number + 1, **changes))

            assert (journal.status.pending, journal.status.dropped) == (1, 1)


async def test_old_records_are_forgotten_but_not_open_ones_nor_counters(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extproc.ledger.tables.UPKEEP_ROWS", 3)
    now_s, counters = 41 * 86_400, Counters()
    counters.use("a", "1")
    async with running(url, counters=counters) as journal:
        for number in range(10):
            journal.decided(allowed(number))
            journal.settled(settlement(number))
        journal.settled(settlement(21))  # its decision was dropped
        journal.decided(allowed(30, at_s=now_s - 60))
        journal.decided(allowed(31, at_s=now_s - 60))
        journal.settled(settlement(31, at_s=now_s - 50))
    async with running(url, instance="another", at_s=now_s):
        await until(lambda: len(look(url, "SELECT id FROM decisions")) == 2)
        await until(lambda: len(look(url, "SELECT decision_id FROM usage")) == 1)

    assert open_ones(url) == ["decision-000030"]
    assert [record.status for record in usage(url, "decision-000031")] == [200]
    assert look(url, "SELECT counter FROM counters") == [("a",)]


async def test_two_ledgers_write_one_database_at_once(url: str) -> None:
    """Two sidecars, or an old and a new process of one."""
    shared = [Counters(), Counters()]
    async with (
        running(url, instance="a", scope="shared", counters=shared[0], is_shared=True) as one,
        running(url, instance="b", scope="shared", counters=shared[1], is_shared=True) as other,
    ):
        for number in range(30):
            for place, journal in enumerate((one, other)):
                shared[place].use(f"c{number % 3}", str(number))
                shared[place].use(f"c{(number + place) % 3}", str(number))
                journal.decided(allowed(2 * number + place))
                journal.settled(settlement(number))
            await asyncio.gather(
                one.committed(allowed(1000 + number)), other.committed(allowed(1000 + number))
            )

        assert one.status.dropped == other.status.dropped == 0
    assert look(url, "SELECT COUNT(*) FROM decisions") == [(90,)]
    assert look(url, "SELECT COUNT(*) FROM usage") == [(30,)]


async def test_nobody_can_wait_for_a_closed_ledger(url: str) -> None:
    async with running(url) as journal:
        pass
    with pytest.raises(LedgerUnavailable):
        await journal.committed(allowed())


async def test_no_prompt_text_and_no_credential_is_written(url: str) -> None:
    """Headers and the query stay out, whatever they hold."""
    canary = "cAnArY-47"
    decision = allowed()
    head = replace(
        decision.head, path=f"/v1/chat?key={canary}", headers={"x-anything": canary, "cookie": canary}
    )
    async with running(url) as journal:
        journal.decided(allowed(head=head))
        journal.decided(denied(2, head=head, enforced_effect=Effect.DENY))
        journal.settled(settlement(basis=Basis.TOKENIZER))

    tables = ("decisions", "usage", "changes", "counters")
    everything = b"".join(repr(look(url, f"SELECT * FROM {table}")).encode() for table in tables)
    assert canary.encode() not in everything
    assert b"gpt-4o-mini" in everything
