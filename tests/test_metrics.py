"""Counters and histograms of decisions and answers: names, figures, bounds, and what is never a label."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.metrics.v1 import metrics_pb2
from prometheus_client.parser import text_string_to_metric_families

from extproc.decision import (
    Charge,
    ChargeOutcome,
    Cost,
    Decision,
    Effect,
    Finding,
    Leases,
    Mode,
    Outcome,
    PolicyRef,
    Reason,
    Settlement,
    Unit,
)
from extproc.measure.prices import Prices
from extproc.model import AIRequest, Basis, Usage
from extproc.telemetry import Figure, Metrics, Names
from extproc.telemetry.inference import LATEST, OPT_IN, SECONDS, TOKENS
from extproc.telemetry.instruments import MOST_SERIES, Distribution
from extproc.telemetry.metrics import FAILURES
from tests.verdicts import decision, settlement

S = 1_000_000_000
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def asked(model: str = "gpt-4o-mini", **changes: Any) -> AIRequest:
    values: dict[str, Any] = {
        "api": "openai_chat",
        "provider": "openai",
        "operation": "chat",
        "modalities": ("text",),
    }
    return AIRequest(model=model, **(values | changes))


def decided(**changes: Any) -> Decision:
    return decision(**({"started_at_ns": S, "decided_at_ns": S + 3_000_000, "request": asked()} | changes))


def denied(mode: Mode = Mode.ENFORCE) -> Decision:
    ref = PolicyRef("RateLimit", "team-tokens")
    finding = Finding(policy=ref, outcome=Outcome.MATCHED, mode=mode, effect=Effect.DENY)
    if mode is Mode.SHADOW:
        return decided(findings=(finding,))
    return decided(
        effect=Effect.DENY,
        enforced_effect=Effect.DENY,
        reason=Reason.RATE_LIMITED,
        determining=ref,
        findings=(finding,),
    )


def settled(**changes: Any) -> Settlement:
    return settlement(**({"ended_at_ns": 3 * S} | changes))


@pytest.fixture(scope="session")
def published() -> Prices:
    return Prices.bundled()


@pytest.fixture
def metrics(published: Prices) -> Iterator[Metrics]:
    made = Metrics(version="1.2.3", names=Names(published))
    yield made
    made.close()


def series(metrics: Metrics) -> Series:
    """Every sample by name and labels."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """What one series says; None where there is none with exactly these labels."""
    return series(metrics).get((name, frozenset(labels.items())))


def names(metrics: Metrics) -> set[str]:
    return {name for name, _ in series(metrics)}


# --- verdicts


def test_a_verdict_is_counted_with_its_policy_its_reason_and_its_time(metrics: Metrics) -> None:
    metrics.decided(denied())
    metrics.decided(decided())
    verdict = {"effect": "deny", "enforced_effect": "deny", "reason_code": "rate_limited"}
    policy = "RateLimit/team-tokens"

    assert value(metrics, "ai_policy_decisions_total", **verdict) == 1
    assert value(metrics, "ai_policy_denials_total", policy=policy, reason_code="rate_limited") == 1
    assert value(metrics, "ai_policy_decision_duration_seconds_sum", enforced_effect="deny") == 0.003
    evaluated = {"policy": policy, "outcome": "matched", "mode": "enforce"}
    assert value(metrics, "ai_policy_policy_evaluations_total", **evaluated) == 1


def test_a_shadow_policy_that_would_have_denied_diverges(metrics: Metrics) -> None:
    metrics.decided(denied(Mode.SHADOW))

    assert value(metrics, "ai_policy_policy_divergence_total", policy="RateLimit/team-tokens") == 1
    assert "ai_policy_denials_total" not in names(metrics)


def test_what_passed_although_a_policy_failed_is_counted_as_failed_open(metrics: Metrics) -> None:
    failed = {"error_type": "store_unavailable"}
    metrics.decided(decided(**failed))
    metrics.decided(decided(**failed, effect=Effect.DENY, enforced_effect=Effect.DENY))

    assert value(metrics, "ai_policy_failures_total", **failed) == 2
    assert value(metrics, "ai_policy_failed_open_total", **failed) == 1


def test_what_alerts_watch_is_there_before_its_first_time(metrics: Metrics) -> None:
    for error_type in FAILURES:
        assert value(metrics, "ai_policy_failures_total", error_type=error_type) == 0
    assert value(metrics, "ai_policy_failed_open_total", error_type="store_unavailable") == 0
    assert value(metrics, "ai_policy_reload_failures_total") == 0
    assert value(metrics, "ai_policy_abandoned_total") == 0
    assert value(metrics, "ai_policy_telemetry_metrics_dropped_total") == 0


def test_every_failure_that_is_counted_by_name_is_one_that_alerts_know() -> None:
    sources = (Path(__file__).parent.parent / "extproc").rglob("*.py")
    counted = {
        name
        for source in sources
        for name in re.findall(r'failures\.add\(\s*1,\s*error_type="(\w+)"', source.read_text())
    }

    assert len(counted) > 5
    assert counted <= set(FAILURES)


def test_a_reservation_is_open_from_its_verdict_to_its_settlement(metrics: Metrics) -> None:
    charge = Charge(
        policy=PolicyRef("RateLimit", "r"),
        counter="c",
        unit=Unit.REQUESTS,
        amount=1,
        minimum=1,
        window=Leases(1, 1),
    )
    taken = ChargeOutcome(
        charge=charge, granted=True, reserved=1, used=0, remaining=0, wait_us=0, reset_us=0, limit=1
    )
    holding = decided(outcomes=(taken,))
    metrics.decided(holding)
    metrics.decided(holding)
    metrics.decided(decided())
    metrics.settled(holding, settled())

    assert value(metrics, "ai_policy_reservations_open") == 1


# --- answers


def test_tokens_and_money_are_counted_by_the_model_that_was_priced(metrics: Metrics) -> None:
    cost = Cost(nano_usd=1500, revision="r")
    metrics.settled(decided(), settled(cost=cost, model="gpt-4o-mini-2024-07-18"))
    metrics.settled(decided(request=asked("gpt-4o-mini-2024-07-18")), settled(cost=cost))
    where = {"basis": "provider", "provider": "openai", "model": "gpt-4o-mini"}

    assert value(metrics, "ai_policy_tokens_total", kind="input", **where) == 16
    assert value(metrics, "ai_policy_cost_nano_usd_total", **where) == 3000
    assert value(metrics, "ai_policy_settlements_total", **where) == 2


def test_a_deployment_with_any_name_is_counted_as_the_model_that_answered(metrics: Metrics) -> None:
    request = asked("our-deployment-7", provider="azure.ai.openai")
    metrics.settled(decided(request=request), settled(model="gpt-4o-mini-2024-07-18"))
    where = {"basis": "provider", "provider": "azure.ai.openai", "model": "gpt-4o-mini"}

    assert value(metrics, "ai_policy_settlements_total", **where) == 1


def test_what_has_no_price_is_counted_apart(metrics: Metrics) -> None:
    metrics.settled(decided(), settled(basis=Basis.TOKENIZER))

    assert value(metrics, "ai_policy_unpriced_total", basis="tokenizer", provider="openai") == 1
    assert "ai_policy_cost_nano_usd_total" not in names(metrics)


def test_estimates_are_held_against_what_the_provider_reported(metrics: Metrics) -> None:
    metrics.settled(decided(), settled())
    metrics.settled(decided(), settled(basis=Basis.TOKENIZER))
    metrics.settled(decided(request=asked(has_state=True)), settled())
    where = {"provider": "openai", "model": "gpt-4o-mini", "estimator": "tiktoken:o200k_base"}

    assert value(metrics, "ai_policy_tokens_estimate_ratio_count", **where) == 1
    assert value(metrics, "ai_policy_tokens_estimate_ratio_bucket", le="1.0", **where) == 1
    assert value(metrics, "ai_policy_tokens_estimate_ratio_bucket", le="0.99", **where) == 0


GEN_AI = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "gpt-4o-mini",
}


def test_token_usage_is_what_was_reported_and_nothing_else(metrics: Metrics) -> None:
    for basis in Basis:
        metrics.settled(decided(), settled(basis=basis))

    for kind, count in (("input", 8), ("output", 3)):
        labels = {**GEN_AI, "gen_ai_token_type": kind}
        assert value(metrics, "gen_ai_client_token_usage_sum", **labels) == count
        assert value(metrics, "gen_ai_client_token_usage_count", **labels) == 1
    assert {
        dict(labels)["gen_ai_token_type"]
        for name, labels in series(metrics)
        if name == "gen_ai_client_token_usage_count"
    } == {"input", "output"}


def test_zero_tokens_are_a_measurement_and_absent_ones_are_none(metrics: Metrics) -> None:
    metrics.settled(decided(), settled(usage=Usage(input_tokens=0)))

    assert value(metrics, "gen_ai_client_token_usage_count", **GEN_AI, gen_ai_token_type="input") == 1
    assert value(metrics, "gen_ai_client_token_usage_count", **GEN_AI, gen_ai_token_type="output") is None


@pytest.mark.parametrize(
    ("status", "said", "label"),
    [
        (200, "", None),
        (429, "rate_limit_error", "429"),
        (503, "503", "503"),
        (200, "overloaded_error", "_OTHER"),
        (599, "made up", "5xx"),
    ],
)
def test_an_answer_that_failed_says_how_in_a_bounded_word(
    metrics: Metrics, status: int, said: str, label: str | None
) -> None:
    metrics.settled(decided(), settled(status=status, error_type=said))
    labels = GEN_AI if label is None else {**GEN_AI, "error_type": label}

    assert value(metrics, "gen_ai_client_operation_duration_seconds_count", **labels) == 1
    assert value(metrics, "gen_ai_client_operation_duration_seconds_sum", **labels) == pytest.approx(1.997)


def test_the_first_chunk_is_timed_where_an_answer_is_streamed(metrics: Metrics) -> None:
    metrics.settled(decided(), settled(first_byte_at_ns=2 * S))
    streaming = decided(request=asked(stream=True))
    metrics.settled(streaming, settled(first_byte_at_ns=2 * S))
    metrics.settled(streaming, settled(first_byte_at_ns=2 * S, status=500, error_type="500"))
    timed = "gen_ai_client_operation_time_to_first_chunk_seconds"

    assert value(metrics, f"{timed}_count", **GEN_AI) == 1
    assert value(metrics, f"{timed}_sum", **GEN_AI) == pytest.approx(0.997)


def test_calls_that_spend_nothing_are_no_operations(metrics: Metrics) -> None:
    metrics.settled(decided(request=asked("", operation="control")), settled())

    assert not {name for name in names(metrics) if name.startswith("gen_ai")}


def test_buckets_are_those_that_dashboards_expect() -> None:
    """As in semantic-conventions v1.41.0, docs/gen-ai/gen-ai-metrics.md."""
    assert (
        *(1, 4, 16, 64, 256, 1024, 4096, 16384),
        *(65536, 262144, 1048576, 4194304, 16777216, 67108864),
    ) == TOKENS
    assert (
        *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
        *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    ) == SECONDS


# --- the newest conventions


@pytest.fixture
def latest(published: Prices, monkeypatch: pytest.MonkeyPatch) -> Iterator[Metrics]:
    monkeypatch.setenv(OPT_IN, f"http,{LATEST}")
    made = Metrics(version="1.2.3", names=Names(published))
    yield made
    made.close()


def usage_of(metrics: Metrics, kind: str) -> dict[str, float]:
    """Tokens by modality."""
    return {
        dict(labels)["gen_ai_token_modality"]: count
        for (name, labels), count in series(metrics).items()
        if name == f"gen_ai_client_inference_usage_{kind}_total"
    }


def test_without_a_word_only_the_pinned_names_go_out(metrics: Metrics) -> None:
    metrics.settled(decided(), settled())

    assert not {name for name in names(metrics) if name.startswith("gen_ai_client_inference")}


def test_the_newest_names_go_out_beside_the_pinned_ones(latest: Metrics) -> None:
    usage = Usage(
        input_tokens=10,
        output_tokens=7,
        audio_input_tokens=4,
        cache_read_input_tokens=2,
        reasoning_output_tokens=5,
    )
    latest.settled(decided(), settled(usage=usage))
    latest.settled(decided(request=asked(modalities=())), settled())

    assert usage_of(latest, "input_tokens") == {"audio": 4, "text": 6, "unknown": 8}
    assert usage_of(latest, "output_tokens") == {"text": 7, "unknown": 3}
    assert usage_of(latest, "cache_read_input_tokens") == {"unknown": 2}
    assert usage_of(latest, "reasoning_output_tokens") == {"unknown": 5}
    assert value(latest, "gen_ai_client_inference_operation_input_tokens_sum", **GEN_AI) == 18
    old, new = (
        "gen_ai_client_operation_duration_seconds_count",
        "gen_ai_client_inference_duration_seconds_count",
    )
    assert value(latest, old, **GEN_AI) == value(latest, new, **GEN_AI) == 2
    assert "gen_ai_client_token_usage_sum" in names(latest)


def test_a_call_that_failed_is_a_zero_of_a_modality_nobody_knows(latest: Metrics) -> None:
    failed = settled(
        basis=Basis.UPSTREAM_ERROR,
        usage=Usage(input_tokens=0, output_tokens=0),
        status=500,
        error_type="500",
    )
    latest.settled(decided(), failed)

    assert usage_of(latest, "input_tokens") == {"unknown": 0}
    assert "gen_ai_client_token_usage_sum" not in names(latest)


@given(
    total=st.integers(0, 10**6),
    audio=st.none() | st.integers(0, 10**6),
    image=st.none() | st.integers(0, 10**6),
)
@settings(max_examples=30)
def test_modalities_add_up_to_the_total_whatever_was_reported(
    total: int, audio: int | None, image: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(OPT_IN, LATEST)
        metrics = Metrics(version="1")
    usage = Usage(input_tokens=total, audio_input_tokens=audio, image_input_tokens=image)
    metrics.settled(decided(), settled(usage=usage))
    counted = usage_of(metrics, "input_tokens")
    metrics.close()

    assert sum(counted.values()) == total
    assert all(count > 0 for count in counted.values())


# --- bounds


def test_hostile_callers_add_no_series_beyond_the_first_few(published: Prices) -> None:
    """Thousands of made-up models, of every listed one, and of providers that nobody configured."""
    metrics = Metrics(version="1", names=Names(published, places=5))
    listed = [model.id for provider in published._providers for model in provider.models]

    def attack(number: int) -> None:
        request = asked(f"made-up-{number}", provider=f"provider-{number}", stream=True)
        answer = {"model": f"answered-{number}", "status": number % 1000, "error_type": f"error-{number}"}
        metrics.settled(decided(request=request), settled(**answer))
        real = asked(listed[number % len(listed)])
        metrics.settled(decided(request=real), settled(model=f"answered-{number}"))

    for number in range(1000):
        attack(number)
    first = len(series(metrics))
    for number in range(1000, 2500):
        attack(number)
    later = series(metrics)
    metrics.close()

    models = {dict(labels)["model"] for name, labels in later if name == "ai_policy_tokens_total"}
    assert len(models) <= 6
    assert "other" in models
    assert len(later) == first
    assert not [labels for _, labels in later if "made-up" in str(labels) or "answered" in str(labels)]


def test_no_more_series_than_agreed_whatever_is_recorded() -> None:
    distribution = Distribution(name="d", unit="1", description="", labels=("who",), bounds=(1.0,))
    metrics = Metrics(version="1")
    for number in range(MOST_SERIES + 50):
        distribution.record(0.5, str(number))
        metrics.denials.add(1, policy=f"Kind/{number}", reason_code="rate_limited")
    counted = [(labels, count) for (name, labels), count in series(metrics).items() if "denials" in name]
    metrics.close()

    assert len(distribution.cells) == MOST_SERIES + 1
    assert distribution.cells[()].counts == [50, 0]
    assert len(counted) == MOST_SERIES + 1
    assert sum(count for _, count in counted) == MOST_SERIES + 50


# --- distributions and figures


@given(st.lists(st.floats(0, 100), min_size=1))
@settings(max_examples=50)
def test_a_value_belongs_to_the_first_bucket_whose_bound_it_does_not_exceed(values: list[float]) -> None:
    distribution = Distribution(name="d", unit="1", description="", bounds=SECONDS)
    for each in values:
        distribution.record(each)

    (cell,) = distribution.cells.values()
    for index, bound in enumerate(SECONDS):
        assert sum(cell.counts[: index + 1]) == sum(each <= bound for each in values)
    assert sum(cell.counts) == len(values)
    assert cell.total == pytest.approx(sum(values))


def test_figures_are_read_when_somebody_collects(metrics: Metrics) -> None:
    revisions, counts = ["a"], [1]
    metrics.watch(
        Figure(
            "ai_policy.policy.revision_info",
            "",
            "What is in force.",
            lambda: 1,
            labels=lambda: {"revision": revisions[-1]},
        ),
        Figure("ai_policy.kept", "{thing}", "Kept.", lambda: counts[-1], only_rises=True),
    )
    revisions.append("b")
    counts.append(2)

    assert value(metrics, "ai_policy_policy_revision_info", revision="b") == 1
    assert value(metrics, "ai_policy_policy_revision_info", revision="a") is None
    assert value(metrics, "ai_policy_kept_total") == 2


def test_the_build_says_its_version(metrics: Metrics) -> None:
    (labels,) = [dict(labels) for name, labels in series(metrics) if name == "ai_policy_build_info"]

    assert labels["version"] == "1.2.3"


# --- by OTLP


class Collector(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Takes metrics by gRPC and by HTTP, and keeps them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.received: list[metrics_pb2.ResourceMetrics] = []
        self.is_failing = False
        self._grpc = grpc.server(ThreadPoolExecutor(1))
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(self, self._grpc)  # type: ignore[no-untyped-call]  # generated
        grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._http = HTTPServer(("127.0.0.1", 0), self._handler())
        self.endpoints = {
            "grpc": f"http://127.0.0.1:{grpc_port}",
            "http/protobuf": f"http://127.0.0.1:{self._http.server_port}",
        }

    def start(self) -> None:
        self._grpc.start()
        Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._grpc.stop(None).wait()
        self._http.shutdown()
        self._http.server_close()

    def keep(self, request: service.ExportMetricsServiceRequest) -> None:
        with self._lock:
            self.received.extend(request.resource_metrics)

    def Export(  # noqa: N802  gRPC's name
        self, request: service.ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> service.ExportMetricsServiceResponse:
        if self.is_failing:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no metrics here")
        self.keep(request)
        return service.ExportMetricsServiceResponse()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/metrics"
                collector.keep(service.ExportMetricsServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        return Handler

    def metric(self, name: str) -> list[metrics_pb2.Metric]:
        """One for each export that had it."""
        return [
            metric
            for resource in self.received
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    made.start()
    yield made
    made.stop()


def pushing(
    monkeypatch: pytest.MonkeyPatch, collector: Collector, protocol: str = "grpc", temporality: str = ""
) -> Metrics:
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        collector.endpoints[protocol] + ("/v1/metrics" if protocol != "grpc" else ""),
    )
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", temporality or "cumulative")
    return Metrics(version="1", instance_id="host:worker-0")


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_gets_what_prometheus_gets(
    monkeypatch: pytest.MonkeyPatch, collector: Collector, protocol: str
) -> None:
    metrics = pushing(monkeypatch, collector, protocol)
    metrics.decided(denied())
    metrics.settled(decided(), settled())
    scraped = {name.removesuffix("_bucket") for name in names(metrics) if name.endswith("_bucket")}
    metrics.close()

    (resource,) = collector.received
    (duration,) = collector.metric("gen_ai.client.operation.duration")
    (point,) = duration.histogram.data_points
    (verdicts,) = collector.metric("ai_policy.decisions")
    assert {each.key: each.value.string_value for each in resource.resource.attributes}[
        "service.instance.id"
    ] == "host:worker-0"
    assert duration.unit == "s"
    assert list(point.explicit_bounds) == list(SECONDS)
    assert (point.count, sum(point.bucket_counts)) == (1, 1)
    assert point.sum == pytest.approx(1.997)
    assert not point.HasField("min")
    assert 0 < point.start_time_unix_nano <= point.time_unix_nano
    assert {each.as_int for each in verdicts.sum.data_points} == {0, 1}
    histograms = {
        metric.name.replace(".", "_")
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.WhichOneof("data") == "histogram"
    }
    assert {name.removesuffix("_seconds") for name in scraped} == histograms


@pytest.mark.parametrize(("temporality", "counts"), [("delta", [2, 1]), ("cumulative", [2, 3])])
def test_a_collector_that_wants_differences_gets_them(
    monkeypatch: pytest.MonkeyPatch, collector: Collector, temporality: str, counts: list[int]
) -> None:
    metrics = pushing(monkeypatch, collector, temporality=temporality)
    for times in (2, 1):
        for _ in range(times):
            metrics.decided(decided())
        metrics.flush()
    metrics.close()
    durations = collector.metric("ai_policy.decision.duration")
    verdicts = collector.metric("ai_policy.decisions")

    assert [sum(point.count for point in each.histogram.data_points) for each in durations][:2] == counts
    assert [sum(point.as_int for point in each.sum.data_points) for each in verdicts][:2] == counts


def test_exports_that_fail_are_counted_and_told_once_and_scraping_goes_on(
    monkeypatch: pytest.MonkeyPatch, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.is_failing = True
    metrics = pushing(monkeypatch, collector)
    metrics.decided(decided())
    metrics.flush()
    metrics.flush()
    dropped = value(metrics, "ai_policy_telemetry_metrics_dropped_total")
    collector.is_failing = False
    metrics.close()

    assert dropped == 2
    told = [record.getMessage() for record in caplog.records]
    assert told == ["telemetry is not exported", "telemetry is exported again"]


def test_who_is_switched_off_counts_nothing_and_fails_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    metrics = Metrics(version="1")
    metrics.decided(decided())
    metrics.settled(decided(), settled())
    metrics.flush()
    exposed = names(metrics)
    metrics.close()

    assert exposed <= {"target_info"}
