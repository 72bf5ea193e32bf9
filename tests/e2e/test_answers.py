"""What providers answer, byte for byte, through the real Envoy: passed on as it is, read, and charged.

Envoy 1.40 reads some answers by itself and the session the others; both must come to the same.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import replace

import brotli  # type: ignore[import-untyped]  # ships none
import httpx2 as httpx
import pytest
import zstandard

from tests.e2e.callers import newcomer
from tests.e2e.samples import SAMPLES, STREAMS, Sample, Stream
from tests.e2e.scripted import Scene, Script
from tests.e2e.stack import Stack
from tests.e2e.test_requests import wait_until

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


def ask(sample: Sample, **headers: str) -> Callable[[httpx.Client], httpx.Response]:
    return lambda client: client.post(sample.path, json=sample.body, headers=headers)


def chunks_read(stack: Stack, answer: httpx.Response) -> int:
    """How many pieces of this answer Envoy sent to the sidecar."""
    decision_id = answer.headers["x-ai-policy-decision-id"]

    def mine() -> list[dict[str, object]]:
        return [entry for entry in stack.access_log() if entry["decision_id"] == decision_id]

    wait_until(lambda: bool(mine()), "an entry of the access log")
    timings = mine()[0]["ai_policy"]
    assert isinstance(timings, dict)
    return int(timings.get("response_body_call_count", 0))


@pytest.mark.parametrize("name", SAMPLES)
def test_an_answer_passes_as_it_is_and_costs_what_it_reports(scene: Scene, name: str) -> None:
    sample = SAMPLES[name]
    cost, basis, answer = scene.charged(sample.script, ask(sample))

    assert (answer.status_code, answer.content) == (200, b"".join(sample.script.pieces))
    assert (cost, basis) == (sample.tokens, "provider")
    is_native = scene.stack.usage == "native" and sample.is_native
    assert (chunks_read(scene.stack, answer) == 0) is is_native


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("name", ["openai_chat", "gemini, streamed"])
def test_a_compressed_answer_that_nobody_asked_for_costs_what_it_reports(
    scene: Scene, name: str, coding: str
) -> None:
    sample = SAMPLES[name]
    compressed = CODINGS[coding](b"".join(sample.script.pieces))
    headers = sample.script.headers | {"content-encoding": coding}
    script = replace(sample.script, pieces=(compressed[:20], compressed[20:]), headers=headers)
    passed: list[bytes] = []

    def ask_raw(client: httpx.Client) -> httpx.Response:
        with client.stream("POST", sample.path, json=sample.body) as answer:
            passed.extend(answer.iter_raw())
        return answer

    cost, basis, answer = scene.charged(script, ask_raw)

    assert b"".join(passed) == compressed
    assert answer.headers["content-encoding"] == coding
    assert "accept-encoding" not in scene.provider.headers
    assert (cost, basis) == (sample.tokens, "provider")


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("name", ["openai_chat", "gemini"])
def test_a_compressed_request_is_understood_and_passes_as_it_came(
    scene: Scene, name: str, coding: str
) -> None:
    sample = SAMPLES[name]
    body = CODINGS[coding](json.dumps(sample.body).encode())
    headers = {"content-encoding": coding, "content-type": "application/json"}

    cost, basis, _ = scene.charged(
        sample.script, lambda client: client.post(sample.path, content=body, headers=headers)
    )

    assert (scene.provider.headers["content-encoding"], scene.provider.body) == (coding, body)
    assert (cost, basis) == (sample.tokens, "provider")


def test_a_compressed_request_that_must_change_goes_upstream_as_plain_json(scene: Scene) -> None:
    body = SAMPLES["openai_chat, streamed"].body | {"stream_options": None}
    data = zstandard.compress(json.dumps(body).encode())

    cost, _, answer = scene.charged(
        SAMPLES["openai_chat, streamed"].script,
        lambda client: client.post(
            "/v1/chat/completions", content=data, headers={"content-encoding": "zstd"}
        ),
    )

    assert "content-encoding" not in scene.provider.headers
    assert json.loads(scene.provider.body)["stream_options"] == {"include_usage": True}
    assert b'"usage"' not in answer.content
    assert cost == 11


@pytest.mark.parametrize("coding", ["gzip, br", "br, br", "compress", "dcb", "gzip;q=1"])
def test_a_request_in_codings_that_nobody_reads_is_415(scene: Scene, coding: str) -> None:
    body = brotli.compress(json.dumps(SAMPLES["openai_chat"].body).encode())
    with newcomer(scene.stack).http(**{"content-encoding": coding}) as client:
        answer = client.post("/v1/chat/completions", content=body)

    assert answer.status_code == 415
    assert "content-encoding" in answer.json()["error"]["message"]


# --- answers that end in other ways


def cut(stream: Stream) -> Script:
    """The connection ends between two messages."""
    script = stream.make(stream.usage)
    return replace(
        script, pieces=script.pieces[:2] if len(script.pieces) > 2 else script.pieces[:1], is_cut=True
    )


def torn(stream: Stream) -> Script:
    """The connection ends within the message that has the usage."""
    script = stream.make(stream.usage)
    *before, last = script.pieces
    return replace(script, pieces=(*before, last[: len(last) // 2]), is_cut=True)


def failed(stream: Stream) -> Script:
    """An error comes where the last message should, and the answer ends as if all was well."""
    script = stream.make(stream.usage)
    return replace(script, pieces=(*script.pieces[:-1], stream.error))


# What ends it, and on which basis it is settled by a session that reads it, and by Envoy 1.40.
ENDINGS: dict[str, tuple[Callable[[Stream], Script], str, str]] = {
    "cut": (cut, "tokenizer", "bytes"),
    "torn": (torn, "tokenizer", "bytes"),
    "an error after 200": (failed, "tokenizer", "bytes"),
    "no usage": (lambda stream: stream.make({}), "tokenizer", "bytes"),
    "a usage of null": (lambda stream: stream.make(stream.null), "tokenizer", "bytes"),
    "a usage of zero": (lambda stream: stream.make(stream.zero), "provider", "provider"),
}
# Where every message tells the usage so far. Envoy calls what it has read complete, whatever came after.
TOLD_BEFORE = {
    "cut": ("partial", "bytes"),
    "torn": ("partial", "bytes"),
    "an error after 200": ("partial", "provider"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_ends_badly_is_charged_for_what_was_seen_and_never_nothing(
    scene: Scene, name: str, ending: str
) -> None:
    sample = SAMPLES[f"{name}, streamed"]
    spoil, read_by_us, read_by_envoy = ENDINGS[ending]

    script = spoil(STREAMS[name])
    size = sum(map(len, script.pieces))

    def ask_suffering(client: httpx.Client) -> httpx.Response:
        got = 0
        with (
            client.stream("POST", sample.path, json=sample.body) as answer,
            contextlib.suppress(httpx.HTTPError),
        ):
            for chunk in answer.iter_raw():
                got += len(chunk)
                if got == size:
                    scene.provider.has_arrived.set()
        assert got == size
        return answer

    cost, basis, _ = scene.charged(script, ask_suffering)

    is_native = scene.stack.usage == "native" and sample.is_native
    if STREAMS[name].tells_throughout:
        read_by_us, read_by_envoy = TOLD_BEFORE.get(ending, (read_by_us, read_by_envoy))
    assert basis == (read_by_envoy if is_native else read_by_us)
    assert (cost == 0) is (ending == "a usage of zero")
