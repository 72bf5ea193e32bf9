"""What a test reads of a sidecar: its ledger, straight from the tables; its counters, by the admin port."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psycopg

from extproc.pb.ai_policy.v1 import records_pb2
from tests.e2e.stack import Stack

TOKEN = "token-of-the-tests"


@dataclass(frozen=True, slots=True)
class Written:
    """A ledger's tables, read as often as asked; a file of SQLite, or the URL of a Postgres."""

    where: Path | str

    def verdicts(self) -> Counter[str]:
        """How many decisions were allowed and denied."""
        return Counter(row[0] for row in self._rows("SELECT enforced_effect FROM decisions"))

    def open_decisions(self) -> int:
        """How many decisions wait for their settlement."""
        (count,) = self._rows("SELECT count(*) FROM decisions WHERE is_open")
        return int(count[0])

    def usages(self) -> list[records_pb2.UsageRecord]:
        """What every decision came to, in the end: of several records of one, the last."""
        rows = self._rows("SELECT decision_id, record FROM usage ORDER BY sequence")
        return [records_pb2.UsageRecord.FromString(record) for record in dict(rows).values()]

    def decisions(self) -> list[records_pb2.DecisionRecord]:
        """Every decision that was allowed."""
        return [each for each in self.records() if each.verdict.enforced_effect == "allow"]

    def records(self) -> list[records_pb2.DecisionRecord]:
        """Every decision."""
        rows = self._rows("SELECT record FROM decisions")
        return [records_pb2.DecisionRecord.FromString(record) for (record,) in rows]

    def spent(self) -> tuple[int, int, int, int]:
        """What people are told who sum it up: input, output, nano-dollars; and how many have no price."""
        sums = "SUM(input_tokens), SUM(output_tokens), SUM(nano_usd), COUNT(*) - COUNT(nano_usd)"
        ((given, made, cost, unpriced),) = self._rows(f"SELECT {sums} FROM spend")
        return given, made, cost, unpriced

    def charged(self, counter_prefix: str) -> int:
        """What all settlements took from the counters whose names begin like this."""
        return sum(
            amount.amount
            for usage in self.usages()
            for amount in usage.amounts
            if amount.counter.startswith(counter_prefix)
        )

    def counters(self, counter_prefix: str, key: str) -> int:
        """What windows of such counters have used, as last written down, where the key has this part."""
        rows = self._rows("SELECT counter, state FROM counters")
        return sum(
            sum(json.loads(state)["slots"].values())
            for name, state in rows
            if name.startswith(counter_prefix) and json.dumps(key) in name
        )

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        if isinstance(self.where, str):
            with psycopg.connect(self.where) as connection:
                return connection.execute(query.encode()).fetchall()
        with closing(sqlite3.connect(f"file:{self.where}?mode=ro", uri=True, timeout=10)) as file:
            return file.execute(query).fetchall()


def counter(stack: Stack, policy: str, *key: str) -> Mapping[str, Any]:
    """A counter as the admin port tells it."""
    answer = httpx.get(f"{stack.admin_url}/counters", params={"policy": policy, "key": list(key)}, timeout=30)
    assert answer.status_code == 200, answer.text
    described: Mapping[str, Any] = answer.json()
    return described


def change(stack: Stack, what: str, **wanted: Any) -> Mapping[str, Any]:
    """Reset or override a counter."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(f"{stack.admin_url}/counters/{what}", json=wanted, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    described: Mapping[str, Any] = answer.json()
    return described
