"""What one line of Envoy's configuration means for the sidecar."""

import re
from pathlib import Path

import httpx2 as httpx

from tests.e2e import policies
from tests.e2e.callers import call
from tests.e2e.stack import Stack
from tests.e2e.test_requests import HELLO, OPENAI, wait_until

QUIET_STREAM = {
    "model": OPENAI,
    "messages": HELLO,
    "stream": True,
    "stream_options": {"include_usage": True},
}


def ping_every_second(bootstrap: str) -> str:
    changed, count = re.subn(
        r"connection_keepalive: \{interval: \d+s", "connection_keepalive: {interval: 1s", bootstrap
    )
    assert count == 1
    return changed


def test_envoys_keepalive_pings_do_not_cut_an_answer_that_streams_past_us_in_silence(tmp_path: Path) -> None:
    """With gRPC's defaults the third ping without data is abuse, and every open answer is cut."""
    with Stack(tmp_path, policies=policies.FILES, edit=ping_every_second) as stack:
        caller = call(stack)
        with caller.http(**{"x-demo-output-tokens": "6", "x-demo-interval-ms": "1000"}) as client:
            answer = client.post("/v1/chat/completions", json=QUIET_STREAM)
        connections = stack.envoy_stats("cluster.ai_policy.upstream_cx_total")

    assert answer.text.endswith("data: [DONE]\n\n")
    assert connections == {"cluster.ai_policy.upstream_cx_total": 1}


def stream_the_request_body(bootstrap: str) -> str:
    assert "request_body_mode: BUFFERED" in bootstrap
    return bootstrap.replace("request_body_mode: BUFFERED", "request_body_mode: STREAMED")


def test_a_mode_that_cannot_be_protected_is_refused_and_envoys_log_says_what_to_set(tmp_path: Path) -> None:
    with Stack(tmp_path, policies=policies.FILES, edit=stream_the_request_body) as stack:
        answer = httpx.post(
            f"{stack.gateway_url}/v1/chat/completions", json={"model": OPENAI, "messages": HELLO}
        )
        wait_until(lambda: bool(stack.access_log()), "an entry of the access log")
        details = stack.access_log()[0]["details"]
        metrics = httpx.get(f"{stack.admin_url}/metrics").text
        reached = stack.books()["entries"]

    assert answer.status_code == 503
    assert "request_body_mode_is_STREAMED" in str(details)
    assert "set_BUFFERED" in str(details)
    assert 'ai_policy_failures_total{error_type="unsupported_protocol_config"} 1.0' in metrics
    assert reached == []
