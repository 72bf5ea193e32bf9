"""Spans of decisions as a collector receives them: which, in which trace, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.sdk.trace.sampling import Decision as Sampled
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from extproc.decision import Decision, Effect
from extproc.envoy_config import EnvoySettings, render_bootstrap
from extproc.errors import SettingsInvalid
from extproc.model import AIRequest, Trace
from extproc.server import new_decision_id
from extproc.telemetry.parents import Parent, parent_of, span_id_of, trace_id_of
from extproc.telemetry.tracing import Tracing
from tests.e2e.otlp import OtlpReceiver, ReceivedSpan, read_spans
from tests.verdicts import decision, denied, settlement, shadow_denied

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = parent_of({"traceparent": f"00-{TRACE}-{SPAN}-01"}, {})
UNSAMPLED = parent_of({"traceparent": f"00-{TRACE}-{SPAN}-00"}, {})
ALONE = Parent()
ERROR = 2

Tell = Callable[..., dict[str, ReceivedSpan]]


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as started:
        yield started


@pytest.fixture(autouse=True)
def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine that runs the tests."""
    for name in (
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_LOGS_EXPORTER",
        "EXTPROC_SPAN_EVENTS",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tell(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Tell a new tracer of one decision, maybe settled; returns the spans that were exported, by name."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)

    def told(
        decided: Decision,
        parent: Parent = ALONE,
        *,
        answer: dict[str, Any] | None = None,
    ) -> dict[str, ReceivedSpan]:
        before = len(receiver.spans())
        tracing = Tracing(instance_id="host:1", version="0")
        tracing.decided(decided, parent)
        if answer is not None:
            tracing.settled(decided, settlement(**answer), parent)
        tracing.close()
        spans = receiver.spans()[before:]
        assert len({span.name for span in spans}) == len(spans)
        return {span.name: span for span in spans}

    return told


# --- one tree


def test_envoys_span_is_above_both_spans_and_both_are_in_its_trace(tell: Tell) -> None:
    spans = tell(decision(), SAMPLED, answer={})

    assert spans.keys() == {"ai_policy.decide", "chat gpt-4o-mini"}
    assert {span.trace_id for span in spans.values()} == {TRACE}
    assert {span.parent_id for span in spans.values()} == {SPAN}
    assert spans["ai_policy.decide"].end_ns == 2_000_000 == spans["chat gpt-4o-mini"].start_ns


def test_without_envoys_span_the_decision_is_the_root_of_one_trace_that_the_record_names(
    tell: Tell,
) -> None:
    spans = tell(decision(id="d-7"), answer={})

    decide, chat = spans["ai_policy.decide"], spans["chat gpt-4o-mini"]
    assert (decide.trace_id, decide.span_id) == (trace_id_of("d-7"), span_id_of("d-7"))
    assert decide.parent_id == ""
    assert (chat.trace_id, chat.parent_id) == (decide.trace_id, decide.span_id)


def test_the_trace_to_record_is_the_one_that_is_exported(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    tracing = Tracing(instance_id="i", version="0")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    silent = Tracing(instance_id="i", version="0")

    assert tracing.trace_of("d-7", Parent()) == Trace(trace_id_of("d-7"))
    assert tracing.trace_of("d-7", SAMPLED) == silent.trace_of("d-7", SAMPLED) == Trace(TRACE, SPAN)
    assert silent.trace_of("d-7", Parent()) == Trace()
    tracing.close()


def test_the_clients_header_names_the_trace_where_envoy_has_none(tell: Tell) -> None:
    spans = tell(decision(), parent_of({}, {"traceparent": f"00-{TRACE}-{SPAN}-00"}), answer={})

    assert {(span.trace_id, span.parent_id) for span in spans.values()} == {(TRACE, SPAN)}


def test_a_client_in_another_trace_is_linked_and_said_to_be_mismatched(tell: Tell) -> None:
    client = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    (decide,) = tell(denied(), parent_of({"traceparent": f"00-{TRACE}-{SPAN}-01"}, client)).values()

    assert decide.links == ("1" * 32,)
    assert decide.attributes["ai_policy.client_trace"] == "mismatched"


def test_the_work_is_linked_to_the_decision_that_let_it_through(tell: Tell) -> None:
    spans = tell(decision(), SAMPLED, answer={})

    assert spans["chat gpt-4o-mini"].links == (spans["ai_policy.decide"].trace_id,)


# --- what is kept


@pytest.mark.parametrize(
    "decided",
    [denied(), shadow_denied(), decision(error_type="deadline_exceeded"), shadow_denied(effect=Effect.DENY)],
)
@pytest.mark.parametrize("parent", [UNSAMPLED, Parent()])
def test_what_somebody_will_ask_about_is_always_kept(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, decided: Decision, parent: Parent
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")

    assert "ai_policy.decide" in tell(decided, parent)


@pytest.mark.parametrize(
    ("sampler", "parent", "is_kept"),
    [
        ("parentbased_always_on", UNSAMPLED, False),
        ("parentbased_always_on", SAMPLED, True),
        ("parentbased_always_off", SAMPLED, True),
        ("parentbased_always_off", Parent(), False),
        ("always_off", SAMPLED, False),
        ("always_on", UNSAMPLED, True),
        # A client's flag is worth nothing in either direction.
        ("parentbased_always_off", parent_of({}, {"traceparent": f"00-{TRACE}-{SPAN}-01"}), False),
        ("parentbased_always_on", parent_of({}, {"traceparent": f"00-{TRACE}-{SPAN}-00"}), True),
    ],
)
def test_the_users_sampler_decides_about_what_was_allowed(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, sampler: str, parent: Parent, *, is_kept: bool
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)

    assert bool(tell(decision(), parent, answer={})) is is_kept


def test_nothing_is_built_for_what_is_not_kept(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    tracing = Tracing(instance_id="i", version="0")
    built: list[Decision] = []
    monkeypatch.setattr("extproc.telemetry.tracing.decision_attributes", built.append)

    tracing.decided(decision(), UNSAMPLED)
    tracing.settled(decision(), settlement(), UNSAMPLED)
    tracing.close()

    assert built == []


def test_a_ratio_is_met_by_the_traces_of_our_own() -> None:
    """The sampler by ratio compares the lower half of an id; of a UUIDv7 that half begins alike in all."""
    sampler, ids = TraceIdRatioBased(0.1), [new_decision_id(at_ns) for at_ns in range(5000)]

    kept = [sampler.should_sample(None, int(trace_id_of(each), 16), "") for each in ids]

    share = sum(result.decision is Sampled.RECORD_AND_SAMPLE for result in kept) / len(ids)
    assert 0.07 < share < 0.13


def test_a_failure_upstream_is_kept_with_the_decision_that_led_to_it(tell: Tell) -> None:
    spans = tell(decision(), UNSAMPLED, answer={"status": 529, "error_type": "overloaded_error"})

    assert spans.keys() == {"ai_policy.decide", "chat gpt-4o-mini"}
    chat = spans["chat gpt-4o-mini"]
    assert chat.status == ERROR
    assert chat.attributes["error.type"] == "overloaded_error"
    assert spans["ai_policy.decide"].status == 0


def test_a_call_that_spends_nothing_has_no_span_of_work(tell: Tell) -> None:
    control = AIRequest(api="openai_models", provider="openai", operation="control")

    assert tell(decision(request=control), SAMPLED, answer={}).keys() == {"ai_policy.decide"}


# --- what they say


def test_a_denial_is_an_answer_and_not_an_error(tell: Tell) -> None:
    (decide,) = tell(denied()).values()

    assert decide.status == 0
    assert "error.type" not in decide.attributes


def test_only_our_own_failure_is_an_error(tell: Tell) -> None:
    (decide,) = tell(denied(error_type="store_unavailable")).values()

    assert decide.status == ERROR
    assert decide.attributes["error.type"] == "store_unavailable"


def test_a_denials_timeline_has_an_event_a_finding_that_spoke(tell: Tell) -> None:
    (decide,) = tell(denied()).values()

    assert decide.events == (
        (
            "ai_policy.finding",
            {
                "ai_policy.policy": "RateLimit/team-tokens",
                "ai_policy.outcome": "matched",
                "ai_policy.effect": "deny",
                "ai_policy.arithmetic": "used 900 of 1000 tokens, requested 200",
            },
        ),
    )


def test_allowed_decisions_have_no_events_and_denials_none_where_they_are_switched_off(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = denied().findings
    (allowed,) = tell(decision(findings=findings), SAMPLED).values()
    monkeypatch.setenv("EXTPROC_SPAN_EVENTS", "none")
    (silent,) = tell(denied()).values()

    assert allowed.events == silent.events == ()


def test_the_sender_is_named_by_service_and_process(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "team-gateway")
    (decide,) = tell(denied()).values()

    assert decide.service == "team-gateway"


# --- how they go


def test_spans_go_by_http_with_the_headers_of_the_standard_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got: list[tuple[str, str | None, list[ReceivedSpan]]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
            got.append((self.path, self.headers["x-tenant"], list(read_spans(request))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
        tracing = Tracing(instance_id="i", version="0")
        tracing.decided(denied(), Parent())
        tracing.close()
        server.shutdown()

    ((path, tenant, spans),) = got
    assert (path, tenant) == ("/v1/traces", "blue")
    assert [span.name for span in spans] == ["ai_policy.decide"]


def test_a_protocol_that_nobody_speaks_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "thrift")

    with pytest.raises(SettingsInvalid, match="OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=thrift"):
        Tracing(instance_id="i", version="0")


def test_without_an_endpoint_nothing_happens() -> None:
    tracing = Tracing(instance_id="i", version="0")

    tracing.decided(denied(), SAMPLED)
    tracing.settled(decision(), settlement(error_type="x"), SAMPLED)
    tracing.close()

    assert list(tracing.figures()) == []


# --- log records


def test_noteworthy_decisions_and_settlements_are_log_records_of_the_decisions_span(
    receiver: OtlpReceiver, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp")
    tell(decision(id="d-8"), SAMPLED, answer={})
    tell(denied(id="d-9"))

    settled, decided = receiver.logs()
    assert (settled.event_name, settled.severity) == ("ai_policy.usage.settled", "INFO")
    assert (settled.trace_id, settled.span_id) == (TRACE, span_id_of("d-8"))
    assert settled.attributes["gen_ai.usage.output_tokens"] == 3
    assert (decided.event_name, decided.severity) == ("ai_policy.decision", "WARN")
    assert (decided.trace_id, decided.span_id) == (trace_id_of("d-9"), span_id_of("d-9"))
    assert decided.attributes["ai_policy.decision.determining_policy"] == "RateLimit/team-tokens"
    assert decided.body["findings"][0].startswith("RateLimit/team-tokens matched deny used 900 of 1000")


def test_an_endpoint_alone_asks_for_no_log_records(receiver: OtlpReceiver, tell: Tell) -> None:
    before = len(receiver.logs())
    tell(denied())

    assert len(receiver.logs()) == before


# --- Envoy's part


def test_envoy_samples_by_trace_id_and_never_by_the_callers_flag() -> None:
    settings = EnvoySettings(otlp_endpoint="http://127.0.0.1:4317", trace_sampling_percent=0.25)
    bootstrap = render_bootstrap(settings)

    assert "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based" in bootstrap
    assert "sampling_percentage: {numerator: 2500, denominator: MILLION}" in bootstrap
