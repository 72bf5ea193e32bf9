"""One tree from the gateway's ingress span to the decision and the provider's work."""

import json
import signal
import socket
from pathlib import Path
from typing import Any

import openai
import pytest

from extproc.telemetry.parents import span_id_of, trace_id_of
from tests.e2e import policies
from tests.e2e.callers import Caller, newcomer, only
from tests.e2e.otlp import OtlpReceiver, ReceivedSpan
from tests.e2e.stack import Stack
from tests.e2e.test_requests import HELLO, OPENAI

SERVER = 2  # SpanKind
ERROR = 2  # StatusCode


def of_decision(spans: list[ReceivedSpan], decision_id: str) -> list[ReceivedSpan]:
    """Every span of the trace that this decision is in."""
    ours = [s for s in spans if s.attributes.get("ai_policy.decision.id") == decision_id]
    traces = {span.trace_id for span in ours}
    return [span for span in spans if span.trace_id in traces]


def tree(receiver: OtlpReceiver, decision_id: str, count: int) -> list[ReceivedSpan]:
    return of_decision(
        receiver.wait_for(lambda spans: len(of_decision(spans, decision_id)) >= count), decision_id
    )


def logged(stack: Stack) -> list[dict[str, Any]]:
    """The sidecar's log."""
    return [json.loads(line) for line in (stack.folder / "sidecar.log").read_text().splitlines()]


def roots(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
    """Spans whose parent is none of the others."""
    known = {span.span_id for span in spans}
    return [span for span in spans if span.parent_id not in known]


@only("native-1.40.0")
def test_an_allowed_request_is_one_connected_tree_with_envoys_spans_in_it(
    caller: Caller, receiver: OtlpReceiver
) -> None:
    with caller.openai() as client:
        raw = client.chat.completions.with_raw_response.create(model=OPENAI, messages=HELLO)
    spans = tree(receiver, raw.headers["x-ai-policy-decision-id"], 5)

    (root,) = roots(spans)
    names = {span.name for span in spans}
    assert root.kind == SERVER
    assert root.service != "extproc"
    assert root.attributes["ai_policy.decision_id"] == raw.headers["x-ai-policy-decision-id"]
    assert {"ai_policy.decide", "chat gpt-4o-mini"} <= names
    assert len({span.trace_id for span in spans}) == 1
    decide = next(span for span in spans if span.name == "ai_policy.decide")
    chat = next(span for span in spans if span.name == "chat gpt-4o-mini")
    assert decide.attributes["ai_policy.decision.enforced_effect"] == "allow"
    assert decide.end_ns <= chat.end_ns
    usage = raw.parse().usage
    assert usage is not None
    assert chat.attributes["gen_ai.usage.output_tokens"] == usage.completion_tokens
    assert chat.attributes["ai_policy.usage.basis"] == "provider"


@only("native-1.40.0")
def test_a_denied_request_is_one_connected_tree_and_says_why(caller: Caller, receiver: OtlpReceiver) -> None:
    with caller.openai() as client, pytest.raises(openai.PermissionDeniedError) as denied:
        client.chat.completions.create(model="o1-pro", messages=HELLO)
    spans = tree(receiver, denied.value.response.headers["x-ai-policy-decision-id"], 3)

    (root,) = roots(spans)
    decide = next(span for span in spans if span.name == "ai_policy.decide")
    assert root.kind == SERVER
    assert root.attributes["ai_policy.policy"] == "AccessRule/no-o1-pro"
    assert decide.attributes["ai_policy.decision.determining_policy"] == "AccessRule/no-o1-pro"
    assert any(
        line.startswith("AccessRule/no-o1-pro matched deny")
        for line in decide.attributes["ai_policy.findings"]
    )
    assert decide.status == 0, "a denial is an answer, not an error"
    assert [
        event["ai_policy.policy"] for _, event in decide.events if event.get("ai_policy.effect") == "deny"
    ] == ["AccessRule/no-o1-pro"]
    (line,) = [line for line in logged(caller.stack) if line.get("span_id") == decide.span_id]
    assert (line["message"], line["trace_id"]) == ("ai_policy.decision", decide.trace_id)


@only("native-1.40.0")
@pytest.mark.parametrize("flag", ["00", "01"])
def test_the_trace_of_the_client_goes_on_whatever_its_flag_wants(
    caller: Caller, receiver: OtlpReceiver, flag: str
) -> None:
    trace_id = f"5af7651916cd43dd8448eb211c8031{flag}"
    with caller.openai(traceparent=f"00-{trace_id}-b7ad6b7169203331-{flag}") as client:
        raw = client.chat.completions.with_raw_response.create(model=OPENAI, messages=HELLO)
    spans = tree(receiver, raw.headers["x-ai-policy-decision-id"], 5)

    assert {span.trace_id for span in spans} == {trace_id}
    assert [root.parent_id for root in roots(spans)] == ["b7ad6b7169203331"]


@only("stream-1.38.3")
def test_without_envoys_tracing_a_denial_is_a_trace_of_its_own(
    caller: Caller, receiver: OtlpReceiver
) -> None:
    with caller.openai() as client, pytest.raises(openai.PermissionDeniedError) as denied:
        client.chat.completions.create(model="o1-pro", messages=HELLO)

    decision_id = denied.value.response.headers["x-ai-policy-decision-id"]
    (decide,) = tree(receiver, decision_id, 1)

    assert decide.parent_id == ""
    assert (decide.trace_id, decide.span_id) == (trace_id_of(decision_id), span_id_of(decision_id))
    assert decide.attributes["gen_ai.request.model"] == "o1-pro"


@only("stream-1.38.3")
def test_without_envoys_tracing_the_work_hangs_under_the_decision(
    caller: Caller, receiver: OtlpReceiver
) -> None:
    with caller.openai() as client:
        raw = client.chat.completions.with_raw_response.create(model=OPENAI, messages=HELLO)
    decide, chat = sorted(
        tree(receiver, raw.headers["x-ai-policy-decision-id"], 2), key=lambda span: span.start_ns
    )

    assert decide.parent_id == ""
    assert (chat.trace_id, chat.parent_id) == (decide.trace_id, decide.span_id)


@only("native-1.40.0")
def test_a_failure_of_the_provider_is_an_error_of_its_span_alone(
    caller: Caller, receiver: OtlpReceiver
) -> None:
    with (
        caller.openai(x_demo_fault="status=500") as client,
        pytest.raises(openai.InternalServerError) as failed,
    ):
        client.chat.completions.create(model=OPENAI, messages=HELLO)
    spans = tree(receiver, failed.value.response.headers["x-ai-policy-decision-id"], 5)

    decide = next(span for span in spans if span.name == "ai_policy.decide")
    chat = next(span for span in spans if span.name == "chat gpt-4o-mini")
    assert decide.status == 0
    assert chat.status == ERROR
    assert chat.attributes["error.type"]


def test_a_client_cannot_force_an_export_and_a_denial_is_exported_unsampled(
    tmp_path: Path, receiver: OtlpReceiver
) -> None:
    """Envoy 1.38 without a sampler does as the client's flag says; no version of it does so with ours."""

    def never(bootstrap: str) -> str:
        assert "numerator: 1000000, denominator: MILLION" in bootstrap
        return bootstrap.replace(
            "numerator: 1000000, denominator: MILLION", "numerator: 0, denominator: MILLION"
        )

    forced = "00-6af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    stack = Stack(
        tmp_path,
        envoy="1.38.3",
        usage="stream",
        portable=False,
        policies=policies.FILES,
        otlp_endpoint=receiver.endpoint,
        edit=never,
    )
    with stack, newcomer(stack).openai(traceparent=forced, x_client_trace_id="forced") as client:
        allowed = client.chat.completions.with_raw_response.create(model=OPENAI, messages=HELLO)
        with pytest.raises(openai.PermissionDeniedError) as denied:
            client.chat.completions.create(model="o1-pro", messages=HELLO)
        (decide,) = tree(receiver, denied.value.response.headers["x-ai-policy-decision-id"], 1)

    assert decide.trace_id == forced.split("-")[1]
    assert of_decision(receiver.spans(), allowed.headers["x-ai-policy-decision-id"]) == []


def test_a_mute_collector_costs_no_request_and_no_long_goodbye(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        stack = Stack(
            tmp_path,
            policies=policies.FILES,
            otlp_endpoint=f"http://127.0.0.1:{mute.getsockname()[1]}",
            environment={"OTEL_EXPORTER_OTLP_TIMEOUT": "0.2", "OTEL_BSP_MAX_QUEUE_SIZE": "8"},
        )
        with stack, newcomer(stack).http() as client:
            answers = [
                client.post("/v1/chat/completions", json={"model": model, "messages": HELLO}).status_code
                for model in (OPENAI, "o1-pro") * 10
            ]
            stack.kill_sidecar(signal.SIGTERM)

    lines = logged(stack)
    assert answers == [200, 403] * 10
    told = [line["what"] for line in lines if line["message"] == "telemetry is not exported"]
    assert sorted(told) == ["metrics", "spans"]
    assert not [line for line in lines if line["logger"].startswith("opentelemetry")]
    assert not [line for line in lines if "stack" in line]
