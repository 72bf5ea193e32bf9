"""What each source wrote down of the thousand requests, read where it wrote it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx2 as httpx
from prometheus_client.parser import text_string_to_metric_families

from extproc.pb.ai_policy.v1 import facts_pb2, records_pb2
from tests.e2e.agreement import (
    Accounts,
    Amounts,
    Answered,
    Booked,
    Decided,
    Ended,
    Logged,
    Recorded,
    Worked,
)
from tests.e2e.ledgers import Written, counter
from tests.e2e.mixed import NUMBER, TEAMS, UNITS, Run
from tests.e2e.otlp import ReceivedSpan
from tests.e2e.test_requests import wait_until

_ID = "ai_policy.decision.id"
_METRICS = {
    "ai_policy_decisions_total": ("decisions", "effect", "enforced_effect", "reason_code"),
    "ai_policy_denials_total": ("denials", "policy", "reason_code"),
    "ai_policy_policy_divergence_total": ("divergence", "policy"),
    "ai_policy_settlements_total": ("settlements", "basis", "provider"),
    "ai_policy_tokens_total": ("tokens", "basis", "provider", "kind"),
    "ai_policy_cost_nano_usd_total": ("cost", "basis", "provider"),
}


def read(run: Run) -> Accounts:
    """Everybody's account, once everything is settled, exported and written."""
    ledger = Written(run.stack.folder / "state" / "ledger.sqlite")
    count = len(run.asked)
    wait_until(lambda: ledger.verdicts().total() == count, "everything is on record")
    wait_until(lambda: ledger.open_decisions() == 0, "everything is settled")
    allowed = ledger.verdicts()["allow"]
    spans = run.receiver.wait_for(lambda got: sum(_ours(got).values()) >= count + allowed)
    books = run.stack.books()
    totals = books["totals"]
    return Accounts(
        clients=tuple(_answered(run, books["entries"])),
        access_log=tuple(_logged(line) for line in run.stack.access_log(count)),
        decide_spans=tuple(_decided(span) for span in spans if _kind(span) == "decide"),
        work_spans=tuple(_worked(span) for span in spans if _kind(span) == "work"),
        decisions=tuple(map(_recorded, ledger.records())),
        endings=tuple(map(_ended, ledger.usages())),
        books=tuple(map(_booked, books["entries"])),
        books_totals=(totals["requests"], totals["input_tokens"], totals["output_tokens"]),
        metrics=_measured(httpx.get(f"{run.stack.admin_url}/metrics").text),
        counters={team: _used(run, team) for team in TEAMS},
    )


def _answered(run: Run, entries: list[Mapping[str, Any]]) -> Iterator[Answered]:
    """Who left before the answer is known by the number that reached the provider."""
    reached = {entry["request_headers"][NUMBER]: _id(entry) for entry in entries}
    for ask, seen in zip(run.asked, run.answered, strict=True):
        yield replace(seen, decision_id=seen.decision_id or reached.get(str(ask.number), ""))


def _logged(line: Mapping[str, Any]) -> Logged:
    return Logged(
        decision_id=line["decision_id"] or "",
        status=line["status"],
        flags=line["flags"],
        enforced_effect=line["enforced_effect"] or "",
        policy=line["policy"] or "",
        team=line["team"] or "",
        model=line["model"] or "",
        input_tokens=int(line["input_tokens"] or 0),
        output_tokens=int(line["output_tokens"] or 0),
        nano_usd=None if line["cost_nano_usd"] is None else int(line["cost_nano_usd"]),
    )


def _kind(span: ReceivedSpan) -> str:
    if span.service != "extproc":
        return "envoy"
    return "decide" if span.name == "ai_policy.decide" else "work"


def _ours(spans: list[ReceivedSpan]) -> Counter[str]:
    kinds = Counter(map(_kind, spans))
    del kinds["envoy"]
    return kinds


def _decided(span: ReceivedSpan) -> Decided:
    said = span.attributes
    return Decided(
        decision_id=said[_ID],
        trace_id=span.trace_id,
        effect=said["ai_policy.decision.effect"],
        enforced_effect=said["ai_policy.decision.enforced_effect"],
        reason=said["ai_policy.decision.reason_code"],
        policy=said.get("ai_policy.decision.determining_policy", ""),
        team=said.get("ai_policy.identity.team", ""),
        provider=said.get("gen_ai.provider.name", ""),
        input_estimate=said.get("ai_policy.tokens.estimated_input", 0),
    )


def _worked(span: ReceivedSpan) -> Worked:
    said = span.attributes
    # What nobody reported is not OpenTelemetry's to show.
    place = "gen_ai" if "gen_ai.usage.input_tokens" in said else "ai_policy"
    return Worked(
        decision_id=said[_ID],
        trace_id=span.trace_id,
        basis=said["ai_policy.usage.basis"],
        status=said.get("http.response.status_code", 0),
        input_tokens=said.get(f"{place}.usage.input_tokens", 0),
        output_tokens=said.get(f"{place}.usage.output_tokens", 0),
        nano_usd=said.get("ai_policy.cost.nano_usd"),
    )


def _recorded(record: records_pb2.DecisionRecord) -> Recorded:
    facts, verdict = facts_pb2.Facts.FromString(record.facts), record.verdict
    shadow = (f.policy for f in record.findings if f.mode == "shadow" and f.effect == "deny")
    return Recorded(
        decision_id=record.decision_id,
        trace_id=record.trace_id,
        effect=verdict.effect,
        enforced_effect=verdict.enforced_effect,
        reason=verdict.reason,
        policy=verdict.determining,
        team=facts.identity.team,
        provider=facts.request.provider,
        model=record.target_model or facts.request.model,
        input_estimate=facts.tokens.input,
        denied_with=verdict.status,
        would_deny=tuple(dict.fromkeys(shadow)),
    )


def _ended(record: records_pb2.UsageRecord) -> Ended:
    usage = record.usage
    charged = Counter({each.counter.partition("|")[0]: each.amount for each in record.amounts})
    requests, tokens, given, made, cost = (charged[f"UsageCap/{name}"] for name in UNITS)
    return Ended(
        decision_id=record.decision_id,
        basis=record.basis,
        status=record.status,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        nano_usd=record.nano_usd if record.HasField("nano_usd") else None,
        charged=(requests, tokens, given, made, cost),
    )


def _id(entry: Mapping[str, Any]) -> str:
    return str(entry["request_headers"]["x-ai-policy-decision-id"])


def _booked(entry: Mapping[str, Any]) -> Booked:
    fault = entry["request_headers"].get("x-demo-fault", "")
    return Booked(
        decision_id=_id(entry),
        status=0 if fault.startswith("hang") else entry["status"],
        model=entry["model"],
        input_tokens=entry["input_tokens"],
        output_tokens=entry["output_tokens"],
        tells_zero=fault == "usage=zero",
    )


def _measured(text: str) -> Counter[tuple[str, ...]]:
    """The counters of ours that have a counterpart, by the labels that have one."""
    sums: Counter[tuple[str, ...]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in _METRICS:
                name, *labels = _METRICS[sample.name]
                sums[name, *(sample.labels[label] for label in labels)] += int(sample.value)
    return +sums


def _used(run: Run, team: str) -> Amounts:
    used = [counter(run.stack, f"UsageCap/{name}", team)["used"] for name in UNITS]
    requests, tokens, given, made = (int(each) for each in used[:-1])
    return requests, tokens, given, made, int(Decimal(used[-1]) * 10**9)
