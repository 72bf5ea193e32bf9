"""One tree from the gateway's ingress span to the decision and the provider's work."""

import httpx2 as httpx
import openai
import pytest

from tests.e2e.callers import Caller, only
from tests.e2e.otlp import OtlpReceiver, ReceivedSpan
from tests.e2e.test_requests import HELLO, OPENAI

SERVER = 2  # SpanKind
CANARY = "canary-4b1d-prompt-text"


def of_decision(spans: list[ReceivedSpan], decision_id: str) -> list[ReceivedSpan]:
    """Every span of the trace that this decision is in."""
    ours = [s for s in spans if s.attributes.get("ai_policy.decision.id") == decision_id]
    traces = {span.trace_id for span in ours}
    return [span for span in spans if span.trace_id in traces]


def tree(receiver: OtlpReceiver, decision_id: str, count: int) -> list[ReceivedSpan]:
    return of_decision(
        receiver.wait_for(lambda spans: len(of_decision(spans, decision_id)) >= count), decision_id
    )


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


@only("native-1.40.0")
def test_the_trace_of_the_client_goes_on(caller: Caller, receiver: OtlpReceiver) -> None:
    trace_id = "5af7651916cd43dd8448eb211c80319c"
    with caller.openai(traceparent=f"00-{trace_id}-b7ad6b7169203331-01") as client:
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

    (decide,) = tree(receiver, denied.value.response.headers["x-ai-policy-decision-id"], 1)

    assert decide.parent_id == ""
    assert decide.attributes["gen_ai.request.model"] == "o1-pro"


@only("native-1.40.0")
def test_no_prompt_and_no_key_is_in_any_span_log_or_metric(caller: Caller, receiver: OtlpReceiver) -> None:
    stack = caller.stack
    with caller.openai() as client:
        raw = client.chat.completions.with_raw_response.create(
            model=OPENAI, messages=[{"role": "user", "content": CANARY}]
        )
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="o1-pro", messages=[{"role": "user", "content": CANARY}])
    with caller.http() as http:
        http.post("/v1/chat/completions", content=b'{"' + CANARY.encode() + b'": 1, "model": 5}')
        http.post("/v1/chat/completions", content=CANARY.encode())
    tree(receiver, raw.headers["x-ai-policy-decision-id"], 5)

    channels = {
        "spans": repr(receiver.spans()),
        "logs": stack.logs(),
        "access log": repr(stack.access_log()),
        "metrics": httpx.get(f"{stack.admin_url}/metrics").text,
    }
    assert {name for name, text in channels.items() if CANARY in text} == set()
    assert {name for name, text in channels.items() if caller.key in text} == set()
