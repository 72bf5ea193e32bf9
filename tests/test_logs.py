"""Log lines: what is logged, in which shape, and how little of a flood."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.model import Identity, Trace
from extproc.telemetry import logs
from extproc.telemetry.logs import Bounded, JSONFormatter, Kind
from extproc.telemetry.parents import span_id_of
from tests.verdicts import decision, denied, shadow_denied

S = 1_000_000_000
KIND = Kind("RateLimit/team-tokens", "rate_limited", "demo")


def test_denials_and_shadow_denials_are_logged_and_allowed_requests_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for told in (decision(), denied(), shadow_denied()):
        logs.decided(told, Bounded())

    hard, shadow = caplog.records
    assert hard.levelno == logging.WARNING
    assert vars(hard)["policy"] == "RateLimit/team-tokens"
    assert vars(shadow)["would_deny"] == ["AccessRule/new"]


def test_what_passes_unread_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    logs.decided(decision(request=None, reason=Reason.UNCLASSIFIED), Bounded())

    (record,) = caplog.records
    assert vars(record)["reason_code"] == "unclassified"


def test_a_name_is_in_the_log_as_it_is_and_does_nothing_to_a_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = "Zoë \x9b31m\x7f\u202e\u2028\x1b]0;x\x07\ud800\U000e0041"
    logs.decided(denied(identity=Identity(id=name)), Bounded())
    line = JSONFormatter().format(caplog.records[0])

    assert line.isprintable()
    assert "Zoë" in line
    assert json.loads(line)["identity"] == name


def test_a_line_names_its_trace_and_the_decisions_span(caplog: pytest.LogCaptureFixture) -> None:
    logs.decided(denied(trace=Trace("a" * 32, "b" * 16)), Bounded())
    logs.decided(denied(), Bounded())

    traced, untraced = (json.loads(JSONFormatter().format(record)) for record in caplog.records)
    assert (traced["trace_id"], traced["span_id"]) == ("a" * 32, span_id_of("d-1"))
    assert not {"trace_id", "span_id"} & untraced.keys()


def test_a_log_line_is_json_and_an_exception_is_its_type_without_its_text() -> None:
    try:
        int("prompt-canary")
    except ValueError:
        record = logging.makeLogRecord(
            {"msg": "stream failed", "exc_info": sys.exc_info(), "decision_id": "d"}
        )

    line = JSONFormatter().format(record)

    fields = json.loads(line)
    assert fields["exception"] == "ValueError"
    assert fields["decision_id"] == "d"
    assert fields["stack"]
    assert "prompt-canary" not in line


# --- floods


def written(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records]


def test_a_flood_of_one_kind_is_a_few_lines_and_a_count_of_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    bounded = Bounded(of_a_kind=5)
    for number in range(100):
        logs.decided(denied(decided_at_ns=S + number), bounded)
    logs.decided(denied(decided_at_ns=2 * S), bounded)

    *few, summary, next_second = written(caplog)
    assert len(few) == 5
    assert summary["message"] == "ai_policy.decisions suppressed"
    assert (summary["suppressed"], summary["policy"], summary["identity"]) == (95, *KIND[::2])
    assert next_second["message"] == "ai_policy.decision"
    assert bounded.suppressed == 95


def test_another_caller_of_the_same_policy_is_still_heard(caplog: pytest.LogCaptureFixture) -> None:
    bounded = Bounded(of_a_kind=1)
    for name in ("demo", "demo", "quiet"):
        logs.decided(denied(identity=Identity(id=name)), bounded)

    assert [line["identity"] for line in written(caplog)] == ["demo", "quiet"]


def test_many_callers_are_bounded_together_and_summarised_together(caplog: pytest.LogCaptureFixture) -> None:
    bounded = Bounded(of_a_kind=5, in_all=50, summaries=10)
    for number in range(1000):
        logs.decided(denied(identity=Identity(id=f"caller {number}")), bounded)
    bounded.summarise()

    lines = written(caplog)
    summaries = [line for line in lines if "suppressed" in line]
    assert len(lines) - len(summaries) == 50
    assert len(summaries) == 11
    assert sum(line["suppressed"] for line in summaries) == 950 == bounded.suppressed


async def test_the_last_flood_is_summarised_although_nobody_is_denied_after_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    later: list[Any] = []
    monkeypatch.setattr(
        asyncio.get_running_loop(), "call_later", lambda delay_s, call: later.append((delay_s, call))
    )
    bounded = Bounded(of_a_kind=1)
    for number in range(3):
        bounded.admits(KIND, number)
    ((delay_s, call),) = later
    call()

    assert delay_s == 1.0
    assert [line["suppressed"] for line in written(caplog)] == [2]


@given(st.lists(st.tuples(st.integers(0, 5 * S), st.integers(0, 20)), max_size=300))
def test_no_line_is_lost_without_being_counted(told: list[tuple[int, int]]) -> None:
    """However the clock jumps."""
    bounded = Bounded(of_a_kind=2, in_all=10, summaries=3)
    admitted = [bounded.admits(Kind("p", "r", str(caller)), at_ns) for at_ns, caller in told]

    assert admitted.count(False) == bounded.suppressed
    assert sum(admitted) + bounded.suppressed == len(told)
