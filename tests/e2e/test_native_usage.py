"""What Envoy 1.40's ai_protocol_manager does with the session, shape by shape; see envoy/envoy.yaml.

These pin what surprised us: each failed in some other placement of the filter.
"""

import json
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.e2e import policies
from tests.e2e.scripted import USAGE, Scene, Script, ScriptedProvider, chat, events, whole
from tests.e2e.stack import Stack
from tests.e2e.test_requests import HELLO, OPENAI

NATIVE = pytest.mark.parametrize("scene", ["native-1.40.0"], indirect=True, scope="session")

CHUNK = {
    "id": "c",
    "object": "chat.completion.chunk",
    "model": OPENAI,
    "choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": None}],
}
STREAM = events(CHUNK, CHUNK | {"choices": [], "usage": USAGE})


def ask(scene: Scene, script: Script, **changes: Any) -> tuple[int, str, httpx.Response]:
    """What one chat costs that is answered so, on which basis, and its answer."""
    body = {"model": OPENAI, "messages": HELLO} | changes
    return scene.charged(script, lambda client: client.post("/v1/chat/completions", json=body))


def chat_with(**changes: Any) -> Script:
    """A chat completion that says more than usual."""
    return whole(json.loads(chat(USAGE).pieces[0]) | changes)


@NATIVE
def test_json_with_content_length_in_one_packet_keeps_its_trailers_message(scene: Scene) -> None:
    """From the listener's chain this message gets lost every time."""
    assert ask(scene, chat(USAGE))[:2] == (11, "provider")


@NATIVE
def test_a_stream_on_the_native_path_ends_and_is_reported(scene: Scene) -> None:
    cost, basis, answer = ask(scene, STREAM, stream=True, stream_options={"include_usage": True})

    assert (cost, basis) == (11, "provider")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert '"usage"' in answer.text


@NATIVE
def test_a_stream_read_by_override_ends_too(scene: Scene) -> None:
    """From the listener's chain the client would hang."""
    cost, basis, answer = ask(scene, STREAM, stream=True)

    assert (cost, basis) == (11, "provider")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert '"usage"' not in answer.text


@NATIVE
def test_an_answer_without_usage_is_charged_by_its_size(scene: Scene) -> None:
    # 10 tokens of input, and what 210 bytes hold beside the members that any chat has: a word or two.
    assert ask(scene, chat_with(usage=None), max_tokens=100)[:2] == (16, "bytes")


@NATIVE
def test_a_429_of_the_provider_passes_and_returns_the_tokens(scene: Scene) -> None:
    error = {"error": {"message": "slow down", "type": "tokens"}}
    headers = {"content-type": "application/json", "retry-after": "7"}

    cost, basis, answer = ask(scene, whole(error, status=429, headers=headers))

    assert (cost, basis) == (0, "upstream_error")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json() == error


@NATIVE
def test_an_answer_of_five_megabytes_passes_and_is_reported(scene: Scene) -> None:
    cost, basis, answer = ask(scene, chat_with(padding="x" * 5_000_000))

    assert (cost, basis) == (11, "provider")
    assert len(answer.content) > 5_000_000


@pytest.mark.parametrize("version", ["1.38.3", "1.40.0"])
def test_an_answer_over_the_buffer_limit_passes_where_the_session_reads_it(
    tmp_path: Path, provider: ScriptedProvider, version: str
) -> None:
    """Asked for BUFFERED, it would be a 500."""
    with Stack(
        tmp_path, envoy=version, usage="stream", policies=policies.FILES, provider_port=provider.port
    ) as stack:
        cost, basis, answer = ask(Scene(stack=stack, provider=provider), chat_with(padding="x" * 12_000_000))

    assert (cost, basis, answer.status_code) == (11, "provider", 200)
    assert len(answer.content) > 12_000_000


@NATIVE
def test_nesting_beyond_envoys_sixteen_levels_is_charged_by_its_size(scene: Scene) -> None:
    deep: Any = 1
    for _ in range(17):
        deep = {"deeper": deep}

    cost, basis, _ = ask(scene, chat_with(extra=deep), max_tokens=100)

    assert basis == "bytes"
    assert 11 < cost < 110


@NATIVE
def test_reasoning_that_is_only_in_the_total_is_charged(scene: Scene) -> None:
    """XAI counts 12 + 1 + 228 of reasoning = 241."""
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": 1,
        "total_tokens": 241,
        "completion_tokens_details": {"reasoning_tokens": 228},
    }

    assert ask(scene, chat_with(usage=usage))[:2] == (241, "provider")


@NATIVE
def test_null_cache_fields_of_anthropic_are_no_failure(scene: Scene) -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 8,
            "output_tokens": 3,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": None,
        },
    }
    body = {"model": "claude-sonnet-4-5", "max_tokens": 16, "messages": HELLO}

    cost, basis, answer = scene.charged(whole(message), lambda client: client.post("/v1/messages", json=body))

    assert (cost, basis, answer.status_code) == (11, "partial", 200)
