"""Several expositions as one: what is added up, what is not, and what outlives a process."""

from __future__ import annotations

import platform

from hypothesis import given
from hypothesis import strategies as st

from extproc.telemetry import Metrics, merged

COUNTS = st.integers(0, 10**9)


def exposition(*, allowed: int, denied: int, quick: int, slow: int, active: int) -> bytes:
    """What one worker would say."""
    return f"""# HELP ai_policy_decisions_total Verdicts given.
# TYPE ai_policy_decisions_total counter
ai_policy_decisions_total{{effect="allow"}} {allowed}.0
ai_policy_decisions_total{{effect="deny"}} {denied}.0
# HELP ai_policy_decision_duration_seconds From header to verdict.
# TYPE ai_policy_decision_duration_seconds histogram
ai_policy_decision_duration_seconds_bucket{{le="0.1"}} {quick}.0
ai_policy_decision_duration_seconds_bucket{{le="+Inf"}} {quick + slow}.0
ai_policy_decision_duration_seconds_count {quick + slow}.0
ai_policy_decision_duration_seconds_sum {slow}.0
# HELP ai_policy_streams_active Open now.
# TYPE ai_policy_streams_active gauge
ai_policy_streams_active {active}.0
# HELP target_info Target metadata
# TYPE target_info gauge
target_info{{service_name="extproc"}} 1.0
""".encode()


SAID = st.builds(exposition, allowed=COUNTS, denied=COUNTS, quick=COUNTS, slow=COUNTS, active=COUNTS)


def values(families: merged.Families) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(f"{name}={text}" for name, text in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def together(*said: bytes, ended: merged.Families = ()) -> merged.Families:
    """All of these running at once, by the text that a reader gets."""
    workers = {str(number): merged.read(each) for number, each in enumerate(said)}
    return merged.read(merged.written(merged.merged(workers, ended)))


def test_counters_and_histograms_are_added_up_and_gauges_name_their_worker() -> None:
    one = exposition(allowed=1, denied=2, quick=3, slow=4, active=5)
    two = exposition(allowed=10, denied=20, quick=30, slow=40, active=50)

    assert values(together(one, two)) == {
        ("ai_policy_decisions_total", "effect=allow"): 11,
        ("ai_policy_decisions_total", "effect=deny"): 22,
        ("ai_policy_decision_duration_seconds_bucket", "le=0.1"): 33,
        ("ai_policy_decision_duration_seconds_bucket", "le=+Inf"): 77,
        ("ai_policy_decision_duration_seconds_count",): 77,
        ("ai_policy_decision_duration_seconds_sum",): 44,
        ("ai_policy_streams_active", "worker=0"): 5,
        ("ai_policy_streams_active", "worker=1"): 50,
        ("target_info", "service_name=extproc"): 1,
    }


@given(SAID)
def test_one_worker_alone_loses_nothing(said: bytes) -> None:
    alone = {key: value for key, value in values(together(said)).items() if "active" not in key[0]}
    before = {key: value for key, value in values(merged.read(said)).items() if "active" not in key[0]}

    assert alone == before


@given(st.lists(SAID, min_size=1, max_size=4), SAID)
def test_no_sum_falls_when_a_worker_ends(before: list[bytes], running: bytes) -> None:
    """One after another they end in one place; the worker beside them goes on."""
    ended: merged.Families = ()
    seen: dict[tuple[str, ...], float] = {}

    def is_no_lower(families: merged.Families) -> bool:
        now = {key: value for key, value in values(families).items() if "active" not in key[0]}
        rose = all(now[key] >= value for key, value in seen.items())
        seen.update(now)
        return rose

    for said in before:
        assert is_no_lower(together(said, running, ended=ended))
        ended = merged.counted(ended, merged.read(said))
        assert is_no_lower(together(running, ended=ended))


def test_what_is_no_sum_ends_with_its_process() -> None:
    ended = merged.counted(merged.read(exposition(allowed=1, denied=0, quick=0, slow=0, active=9)))

    assert ("ai_policy_decisions_total", "effect=allow") in values(ended)
    assert not any(name in key[0] for key in values(ended) for name in ("active", "target_info"))


def test_who_runs_something_else_says_so_and_those_who_agree_say_it_once() -> None:
    name = "ai_policy_policy_revision_info"
    said = [
        f'# TYPE {name} gauge\n{name}{{revision="{revision}"}} 1.0\n' for revision in ("old", "new", "new")
    ]

    assert values(together(*(each.encode() for each in said))) == {
        (name, "revision=old"): 1,
        (name, "revision=new"): 1,
    }


def test_what_real_workers_say_together_loses_nothing() -> None:
    """Every instrument there is, from two processes' worth of requests, through the merged text."""
    workers = [Metrics(version="1", instance_id=f"host:worker-{number}") for number in range(2)]
    for number, metrics in enumerate(workers, start=1):
        for _ in range(number):
            metrics.stage_duration.record(0.001, "reserve")
            metrics.failures.add(1, error_type="internal")
            metrics.streams_active.add(1)
    seen = values(together(*(metrics.exposition() for metrics in workers)))
    for metrics in workers:
        metrics.close()

    assert seen["ai_policy_stage_duration_seconds_count", "stage=reserve"] == 3
    assert seen["ai_policy_stage_duration_seconds_bucket", "le=0.001", "stage=reserve"] == 3
    assert seen["ai_policy_failures_total", "error_type=internal"] == 3
    assert seen["ai_policy_streams_active", "worker=1"] == 2
    assert [key for key in seen if key[0] == "ai_policy_build_info"] == [
        ("ai_policy_build_info", f"python_version={platform.python_version()}", "version=1")
    ]


def test_nothing_said_is_nothing_to_say() -> None:
    assert merged.written(merged.merged({"0": merged.read(b"")}, ())) == b""
