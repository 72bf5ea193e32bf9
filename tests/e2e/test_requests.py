"""Requests through the real Envoy with the real SDKs: allowed, denied, streamed, large, broken off."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest

from tests.e2e.callers import Caller, only, settlements
from tests.e2e.stack import Stack

OPENAI = "gpt-4o-mini"
CLAUDE = "claude-sonnet-4-5"
HELLO = [{"role": "user", "content": "Say hello."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Settlement comes after the answer; give it a moment."""
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def entry_of(stack: Stack, headers: Mapping[str, str]) -> dict[str, Any]:
    """The provider's own entry for the request that was answered with these headers."""
    decision_id = headers["x-ai-policy-decision-id"]

    def found() -> list[dict[str, Any]]:
        return [entry for entry in stack.books()["entries"] if decision_id in json.dumps(entry)]

    wait_until(lambda: any(not entry["open"] for entry in found()), f"an entry of {decision_id}")
    return found()[0]


# --- allowed


def test_the_openai_sdk_gets_its_answer_and_is_charged_what_the_provider_reports(caller: Caller) -> None:
    with caller.openai() as client:
        raw = client.chat.completions.with_raw_response.create(model=OPENAI, messages=HELLO)
    answer = raw.parse()

    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert raw.headers["x-ai-policy-decision-id"]
    wait_until(lambda: caller.tokens_used() > 0, "a settlement")
    wait_until(lambda: caller.tokens_used() == answer.usage.total_tokens, "settled as reported")


def test_the_anthropic_sdk_gets_its_answer_and_is_charged_what_the_provider_reports(caller: Caller) -> None:
    with caller.anthropic() as client:
        raw = client.messages.with_raw_response.create(model=CLAUDE, max_tokens=64, messages=HELLO)
    answer = raw.parse()

    assert answer.content
    assert raw.headers["x-ai-policy-decision-id"]
    spent = answer.usage.input_tokens + answer.usage.output_tokens
    wait_until(lambda: caller.tokens_used() == spent, "settled as reported")


def test_a_streamed_answer_of_openai_is_whole_and_has_no_chunk_that_nobody_asked_for(caller: Caller) -> None:
    with caller.openai(x_demo_output_tokens="20") as client:
        raw = client.chat.completions.with_raw_response.create(model=OPENAI, messages=HELLO, stream=True)
        chunks = list(raw.parse())

    assert "".join(c.choices[0].delta.content or "" for c in chunks)
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)
    entry = entry_of(caller.stack, raw.headers)
    assert entry["output_tokens"] == 20
    spent = entry["input_tokens"] + 20
    wait_until(lambda: caller.tokens_used() == spent, "settled as the provider booked it")


def test_a_client_that_asks_for_the_usage_chunk_gets_it(caller: Caller) -> None:
    with caller.openai() as client:
        chunks = list(
            client.chat.completions.create(
                model=OPENAI,
                messages=HELLO,
                stream=True,
                stream_options={"include_usage": True},
            )
        )

    usage = chunks[-1].usage
    assert usage is not None
    wait_until(lambda: caller.tokens_used() == usage.total_tokens, "settled as reported")


def test_a_streamed_answer_of_anthropic_is_whole_and_settled_as_reported(caller: Caller) -> None:
    with (
        caller.anthropic() as client,
        client.messages.stream(model=CLAUDE, max_tokens=64, messages=HELLO) as stream,
    ):
        message = stream.get_final_message()

    spent = message.usage.input_tokens + message.usage.output_tokens
    wait_until(lambda: caller.tokens_used() == spent, "settled as reported")


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_pass_in_both_directions(caller: Caller, stream: bool) -> None:  # noqa: FBT001
    messages = [
        *HELLO,
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    with caller.openai(x_demo_tool="get_weather") as client:
        answer = client.chat.completions.create(
            model=OPENAI,
            messages=messages,
            tools=[TOOL],
            tool_choice="required",
            stream=stream,
        )
        if stream:
            pieces = [c.choices[0].delta.tool_calls or [] for c in answer]
            names = [p.function.name for piece in pieces for p in piece if p.function and p.function.name]
        else:
            names = [c.function.name for c in answer.choices[0].message.tool_calls]

    assert names == ["get_weather"]


def test_a_body_of_two_megabytes_passes_whole(caller: Caller) -> None:
    text = "word " * 420_000
    with caller.anthropic() as client:
        raw = client.messages.with_raw_response.create(
            model=CLAUDE, max_tokens=16, messages=[{"role": "user", "content": text}]
        )

    assert entry_of(caller.stack, raw.headers)["body_bytes"] > 2_000_000
    assert raw.parse().usage.input_tokens > 100_000


def test_a_body_that_nobody_changes_passes_byte_for_byte(caller: Caller) -> None:
    body = json.dumps({"messages": HELLO, "model": OPENAI, "temperature": 1.0}, indent=3).encode()
    with caller.http() as client:
        answer = client.post("/v1/chat/completions", content=body)

    assert answer.status_code == 200
    assert entry_of(caller.stack, answer.headers)["body_sha256"] == hashlib.sha256(body).hexdigest()


def test_the_providers_key_replaces_the_callers(caller: Caller) -> None:
    """The demo provider answers 401 to any other credential, so an answer at all is the proof."""
    with caller.openai() as client:
        raw = client.chat.completions.with_raw_response.create(model=OPENAI, messages=HELLO)

    assert entry_of(caller.stack, raw.headers)["credential_header_names"] == ["authorization"]
    assert caller.key not in json.dumps(caller.stack.books())


# --- denied


def test_a_model_that_is_not_allowed_raises_the_sdks_own_exception_and_names_the_policy(
    caller: Caller,
) -> None:
    with caller.openai() as client, pytest.raises(openai.PermissionDeniedError) as denied:
        client.chat.completions.create(model="o1-pro", messages=HELLO)
    with caller.anthropic() as client2, pytest.raises(anthropic.PermissionDeniedError) as denied2:
        client2.messages.create(model="o1-pro", max_tokens=5, messages=HELLO)

    for error in (denied.value, denied2.value):
        assert "AccessRule/no-o1-pro" in error.message
        assert "Ask the platform team for o1-pro." in error.message
        assert error.response.headers["x-ai-policy-decision-id"] in error.message
    assert caller.tokens_used() == 0


def test_a_caller_without_a_key_is_unauthenticated_in_its_dialect(caller: Caller) -> None:
    with httpx.Client(base_url=caller.stack.gateway_url) as client:
        answer = client.post("/v1/messages", json={"model": CLAUDE, "max_tokens": 5, "messages": HELLO})

    assert answer.status_code == 401
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "authentication_error"


@only("native-1.40.0", "stream-1.38.3")
def test_waiting_exactly_retry_after_passes_and_a_tenth_less_does_not(caller: Caller) -> None:
    def ask() -> Any:
        return client.chat.completions.create(model="gpt-4.1-nano", messages=HELLO)

    with caller.openai() as client:
        ask()
        with pytest.raises(openai.RateLimitError) as denied:
            ask()
        now = time.monotonic()
        wait_s = int(denied.value.response.headers["retry-after-ms"]) / 1000
        time.sleep(wait_s * 0.9 - (time.monotonic() - now))
        with pytest.raises(openai.RateLimitError):
            ask()
        time.sleep(wait_s - (time.monotonic() - now))
        assert ask().choices

    message = denied.value.message
    assert "RateLimit/one-in-five-seconds" in message
    assert "Please try again in" in message
    assert denied.value.response.headers["x-ratelimit-limit-requests"] == "1"
    assert denied.value.response.headers["retry-after"] == "5"


@only("native-1.40.0")
def test_the_sdks_own_retry_waits_as_told_and_succeeds(caller: Caller) -> None:
    with caller.openai() as once:
        once.chat.completions.create(model="gpt-4.1-nano", messages=HELLO)
    with caller.openai().with_options(max_retries=2) as patient:
        answer = patient.chat.completions.create(model="gpt-4.1-nano", messages=HELLO)

    assert answer.choices


def test_a_request_that_can_never_fit_is_413_and_says_what_would(caller: Caller) -> None:
    with caller.openai() as client, pytest.raises(openai.APIStatusError) as denied:
        client.chat.completions.create(model="gpt-4.1-mini", messages=HELLO, max_tokens=500)

    assert denied.value.status_code == 413
    assert denied.value.response.headers["x-should-retry"] == "false"
    assert "RateLimit/small-answers" in denied.value.message
    # 10 tokens of input by OpenAI's formula.
    assert "190" in denied.value.message
    assert caller.tokens_used() == 0


def test_a_shadow_rule_lets_pass_and_is_on_record(caller: Caller) -> None:
    with caller.openai() as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=HELLO)

    assert answer.choices
    metrics = httpx.get(f"{caller.stack.admin_url}/metrics").text
    assert 'ai_policy_policy_divergence_total{policy="AccessRule/shadowed-model"}' in metrics


# --- endings


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_client_that_leaves_mid_stream_is_charged_and_not_zero(caller: Caller, dialect: str) -> None:
    paced = {"x_demo_output_tokens": "200", "x_demo_interval_ms": "50"}
    if dialect == "openai":
        with caller.openai(**paced) as client:
            stream = client.chat.completions.create(model=OPENAI, messages=HELLO, stream=True)
            for _, _chunk in zip(range(5), stream, strict=False):
                pass
            stream.close()
    else:
        with caller.anthropic(**paced) as client2:
            events = client2.messages.create(model=CLAUDE, max_tokens=300, messages=HELLO, stream=True)
            for _, _event in zip(range(6), events, strict=False):
                pass
            events.close()

    left = settlements(caller.stack)
    wait_until(lambda: caller.tokens_used() > 0, "charged")
    wait_until(lambda: sum(settlements(caller.stack).values()) >= sum(left.values()), "settled")
    assert caller.tokens_used() > 0


def test_an_error_of_the_provider_returns_the_tokens(caller: Caller) -> None:
    with caller.openai(x_demo_fault="status=500") as client, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=OPENAI, messages=HELLO)

    wait_until(lambda: caller.tokens_used() == 0, "the tokens came back")
    assert settlements(caller.stack)["upstream_error"] >= 1


def test_a_provider_that_cuts_its_stream_is_a_cut_for_the_client_and_charged(caller: Caller) -> None:
    with (
        caller.openai(x_demo_fault="after=5", x_demo_output_tokens="50") as client,
        pytest.raises((openai.APIError, httpx.HTTPError)),
    ):
        list(client.chat.completions.create(model=OPENAI, messages=HELLO, stream=True))

    wait_until(lambda: caller.tokens_used() > 0, "charged")


def test_an_answer_without_usage_is_counted(caller: Caller) -> None:
    with caller.openai(x_demo_fault="no-usage") as client:
        client.chat.completions.create(model=OPENAI, messages=HELLO)

    wait_until(lambda: caller.tokens_used() > 0, "charged")


def test_usage_of_zero_is_zero(caller: Caller) -> None:
    with caller.openai(x_demo_fault="usage=zero") as client:
        client.chat.completions.create(model=OPENAI, messages=HELLO)

    wait_until(lambda: caller.tokens_used() == 0, "settled as reported")


def test_a_compressed_answer_that_nobody_asked_for_is_read_and_passes(caller: Caller) -> None:
    with caller.openai(x_demo_fault="gzip") as client:
        answer = client.chat.completions.create(model=OPENAI, messages=HELLO)

    assert answer.usage is not None
    wait_until(lambda: caller.tokens_used() == answer.usage.total_tokens, "settled as reported")


# --- bad input


BAD = {
    "not json": (b'{"model": ', {}, 400),
    "duplicate keys": (b'{"model": "gpt-4o-mini", "model": "o1-pro", "messages": []}', {}, 400),
    "case-variant keys": (b'{"model": "gpt-4o-mini", "Model": "o1-pro", "messages": []}', {}, 400),
    "a model that is no string": (b'{"model": 5, "messages": []}', {}, 400),
    "no messages": (b'{"model": "gpt-4o-mini", "input": "x"}', {}, 400),
    "an unknown encoding": (b"xx", {"content-encoding": "lzma"}, 415),
    "a body that is not gzip": (b"xx", {"content-encoding": "gzip"}, 400),
    "an empty body": (b"", {}, 400),
    "UTF-16": ('{"model": "gpt-4o-mini", "messages": []}'.encode("utf-16"), {}, 400),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_bad_input_is_a_4xx_in_the_callers_dialect_and_charges_nothing(
    caller: Caller, name: str, path: str
) -> None:
    body, headers, status = BAD[name]
    with caller.http(**headers) as client:
        answer = client.post(path, content=body)

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-ai-policy-decision-id"]
    error = answer.json()["error"]
    assert error["message"]
    assert ("type" in answer.json()) is (path == "/v1/messages")
    assert caller.tokens_used() == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_413_in_the_dialect(caller: Caller, chunked: bool) -> None:  # noqa: FBT001
    large = b" " * 9_000_000
    with caller.http() as client:
        answer = client.post(
            "/v1/chat/completions",
            content=iter([large[i : i + 65536] for i in range(0, len(large), 65536)]) if chunked else large,
        )

    assert answer.status_code == 413
    assert "8388608" in answer.json()["error"]["message"]
    assert answer.headers["x-ai-policy-decision-id"]


def test_a_path_that_nobody_can_classify_is_refused(caller: Caller) -> None:
    with caller.http() as client:
        answer = client.post("/v1/unheard-of", json={"model": OPENAI, "messages": HELLO})

    assert answer.status_code == 403
    assert answer.json()["error"]["message"]


def test_spoofed_headers_of_ours_do_not_reach_the_provider(caller: Caller) -> None:
    with caller.openai(x_ai_policy_team="boss", x_ai_policy_decision_id="mine") as client:
        raw = client.chat.completions.with_raw_response.create(model=OPENAI, messages=HELLO)

    entry = entry_of(caller.stack, raw.headers)
    assert "x-ai-policy-team" not in entry["request_headers"]
    assert raw.headers["x-ai-policy-decision-id"] != "mine"
    assert "mine" not in json.dumps(entry)


def test_a_websocket_on_an_ai_path_does_not_hang(caller: Caller) -> None:
    with caller.http() as client:
        answer = client.get(
            "/v1/chat/completions",
            headers={
                "connection": "upgrade",
                "upgrade": "websocket",
                "sec-websocket-version": "13",
                "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
            },
        )

    assert answer.status_code >= 400


def test_the_access_log_names_the_decision_and_the_policy(caller: Caller) -> None:
    with caller.openai() as client, pytest.raises(openai.PermissionDeniedError) as denied:
        client.chat.completions.create(model="o1-pro", messages=HELLO)
    decision_id = denied.value.response.headers["x-ai-policy-decision-id"]

    def entry() -> list[dict[str, object]]:
        return [e for e in caller.stack.access_log() if e["decision_id"] == decision_id]

    wait_until(lambda: bool(entry()), "an entry of the access log")
    assert entry()[0]["policy"] == "AccessRule/no-o1-pro"
    assert entry()[0]["details"] == "ai_policy_denied[AccessRule/no-o1-pro]"
