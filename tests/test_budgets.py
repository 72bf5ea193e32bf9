"""Counters over the admin port: read, reset, overridden, and every change a record."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from extproc.budgets import Budgets
from extproc.decision import Charge, Decision, Settlement
from extproc.errors import StoreUnavailable
from extproc.ledger.base import Change, LedgerStatus
from extproc.policy import policyset
from extproc.policy.limited import charge
from extproc.policy.policyset import PolicySet
from extproc.policy.spending import Taken
from extproc.store.memory import MemoryStore

NOW_NS = 1_795_262_400_000_000_000  # 2026-11-21T12:00:00Z
POLICIES = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec: {access: allow}
---
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {name: team-month}
spec: {key: [identity.team, target.model], limit: {costUsd: "12.50"}, period: month}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: everybody}
spec: {limit: {tokens: 100, per: 1m}}
"""
CAP = {"policy": "UsageCap/team-month", "key": ["red", "gpt-4o"]}
RED = "?policy=UsageCap/team-month&key=red&key=gpt-4o"
FRESH = {
    **CAP,
    "unit": "cost_usd",
    "limit": "12.50",
    "used": "0.00",
    "remaining": "12.50",
    "extra": "0.00",
    "reset_at": None,
}


@dataclass
class Notes:
    """A ledger that keeps what it was told."""

    changes: list[Change] = field(default_factory=list)
    status = LedgerStatus(is_writing=True)

    def decided(self, decision: Decision) -> None:
        raise AssertionError(decision)

    async def committed(self, decision: Decision) -> None:
        raise AssertionError(decision)

    def settled(self, settlement: Settlement) -> None:
        raise AssertionError(settlement)

    def changed(self, change: Change) -> None:
        self.changes.append(change)

    def activated(self, revision: str, at_ns: int, wording: Mapping[str, str]) -> None:
        raise AssertionError(revision, at_ns, wording)


@dataclass
class Desk:
    policies: PolicySet
    store: MemoryStore
    notes: Notes
    client: TestClient

    async def spend(self, nano_usd: int) -> None:
        """Use so much of red's month with gpt-4o."""
        taken = Taken(nano_usd, nano_usd)
        limits = {item.ref.name: item for item in self.policies.limits}
        used: Charge = charge(limits["team-month"], ("red", "gpt-4o"), taken, NOW_NS // 1000)
        (outcome,) = await self.store.reserve("d", (used,), NOW_NS // 1000)
        assert outcome.granted
        await self.store.settle("d", {used.counter: nano_usd}, NOW_NS // 1000)

    def read(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get(f"/counters{RED}").json()
        return answer


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    (tmp_path / "all.yaml").write_text(POLICIES)
    policies, store, notes = policyset.load(tmp_path), MemoryStore(), Notes()
    budgets = Budgets(
        policies=lambda: policies,
        store=store,
        ledger=notes,
        clock_ns=lambda: NOW_NS,
        new_id=lambda at_ns: f"change-{at_ns}",
    )
    with TestClient(Starlette(routes=budgets.routes())) as client:
        yield Desk(policies, store, notes, client)


async def test_a_counter_nobody_used_is_all_there(desk: Desk) -> None:
    assert desk.read() == FRESH


async def test_a_counter_says_what_is_used_and_when_it_is_whole_again(desk: Desk) -> None:
    await desk.spend(2_000_000_000)

    assert desk.read() == FRESH | {
        "used": "2.00",
        "remaining": "10.50",
        "reset_at": "2026-12-01T00:00:00Z",
    }
    assert desk.notes.changes == []


async def test_a_store_with_a_clock_of_its_own_shifts_no_period(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.spend(2_000_000_000)
    read = desk.store.read
    monkeypatch.setattr(desk.store, "read", lambda charges, at_us: read(charges, at_us + 507))

    assert desk.read()["reset_at"] == "2026-12-01T00:00:00Z"


async def test_a_reset_forgives_what_was_used_and_is_a_record(desk: Desk) -> None:
    await desk.spend(2_000_000_000)

    answer = desk.client.post("/counters/reset", json=CAP)

    assert (answer.status_code, answer.json()) == (200, FRESH)
    (change,) = desk.notes.changes
    assert (change.action, change.subject, change.key) == (
        "counter_reset",
        "UsageCap/team-month",
        ("red", "gpt-4o"),
    )
    assert change.details == {"used": "2.00"}


def test_a_change_is_logged_with_whose_counter_it_was(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.client.post("/counters/reset", json=CAP)

    (said,) = [each for each in caplog.records if each.message == "ai_policy.change"]
    assert (vars(said)["policy"], vars(said)["key"]) == (CAP["policy"], CAP["key"])


async def test_an_override_adds_for_a_while_and_is_a_record(desk: Desk) -> None:
    wanted = {**CAP, "extra": "5.00", "until": "2026-11-22T00:00:00+01:00"}

    answer = desk.client.post("/counters/override", json=wanted)

    assert answer.json() == FRESH | {"limit": "17.50", "remaining": "17.50", "extra": "5.00"}
    (change,) = desk.notes.changes
    assert (change.action, change.details) == (
        "override_granted",
        {"extra": "5.00", "until": "2026-11-21T23:00:00Z"},
    )
    assert desk.client.post("/counters/override", json={**CAP, "extra": 0}).json() == FRESH
    assert [each.action for each in desk.notes.changes] == ["override_granted", "override_removed"]


async def test_tokens_are_whole_numbers(desk: Desk) -> None:
    wanted = {"policy": "RateLimit/everybody", "extra": 50, "until": "2027-01-01T00:00:00Z"}

    answer = desk.client.post("/counters/override", json=wanted)

    assert (answer.json()["limit"], answer.json()["key"]) == (150, [])


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"policy": "UsageCap/nobody"}, 404, "UsageCap/team-month"),
        ({}, 404, "RateLimit/everybody"),
        ({"policy": ["x"]}, 404, "names a limit"),
        ({**CAP, "key": ["red"]}, 400, "identity.team, target.model"),
        ({**CAP, "key": "red"}, 400, "as strings"),
        ({**CAP, "extra": -1, "until": "2027-01-01T00:00:00Z"}, 400, "dollars"),
        ({**CAP, "extra": True, "until": "2027-01-01T00:00:00Z"}, 400, "dollars"),
        ({**CAP, "extra": "5000000", "until": "2027-01-01T00:00:00Z"}, 400, "dollars"),
        ({**CAP}, 400, "extra"),
        ({**CAP, "extra": 1}, 400, "until"),
        ({**CAP, "extra": 1, "until": "2027-01-01T00:00:00"}, 400, "its zone"),
        ({**CAP, "extra": 1, "until": "2026-11-21T12:00:00Z"}, 400, "over already"),
        ({**CAP, "extra": 1, "until": "9999-12-31T23:59:59-23:59"}, 400, "its zone"),
        ({**CAP, "key": ["red", "\ud800"]}, 400, "as strings"),
        ({**CAP, "amount": 1}, 400, "extra, key, policy, until"),
        ([], 400, "JSON object"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    desk: Desk, body: Any, status: int, told: str
) -> None:
    answer = desk.client.post("/counters/override", content=json.dumps(body))

    assert (answer.status_code, told in answer.json()["error"]) == (status, True)
    assert desk.notes.changes == []
    assert desk.read() == FRESH


async def test_a_body_without_end_is_refused(desk: Desk) -> None:
    assert desk.client.post("/counters/reset", content=b" " * 100_000).status_code == 413
    assert desk.client.post("/counters/reset", content=b"[" * 60_000).status_code == 400


@pytest.mark.parametrize(
    ("change", "wanted", "details"),
    [
        ("reset", CAP, {"used": "0.00"}),
        (
            "override",
            {**CAP, "extra": "5.00", "until": "2026-11-22T00:00:00Z"},
            {"extra": "5.00", "until": "2026-11-22T00:00:00Z"},
        ),
    ],
)
async def test_a_change_that_a_store_did_not_answer_is_on_record_as_that(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, change: str, wanted: Any, details: dict[str, str]
) -> None:
    """A call that timed out may be done all the same."""

    async def away(*_: object) -> None:
        raise StoreUnavailable("redis://somebody:secret@host")

    monkeypatch.setattr(desk.store, change, away)

    answer = desk.client.post(f"/counters/{change}", json=wanted)

    assert (answer.status_code, answer.json()) == (503, {"error": "the counter store does not answer"})
    (noted,) = desk.notes.changes
    assert noted.details == {**details, "outcome": "unknown"}


async def test_a_store_that_cannot_be_read_is_said_and_nothing_is_changed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("redis://somebody:secret@host")

    monkeypatch.setattr(desk.store, "read", away)

    assert desk.client.post("/counters/reset", json=CAP).status_code == 503
    assert desk.notes.changes == []


async def test_a_counter_that_is_whole_after_the_end_of_time_is_read(desk: Desk) -> None:
    """A client's debt may be any number of times what comes back in a year."""
    (limit,) = [item for item in desk.policies.limits if item.ref.name == "everybody"]
    used = charge(limit, (), Taken(1, 1), NOW_NS // 1000)
    await desk.store.reserve("d", (used,), NOW_NS // 1000)
    await desk.store.settle("d", {used.counter: 10**12}, NOW_NS // 1000)

    answer = desk.client.get("/counters?policy=RateLimit/everybody")

    assert (answer.status_code, answer.json()["reset_at"]) == (200, "9999-12-31T23:59:59.999999Z")
