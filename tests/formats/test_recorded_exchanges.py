"""Real exchanges, recorded by others: every request is understood, every usage found.

Expected figures are the provider's own usage objects; the arithmetic to inclusive counts is done
here a second time, from the providers' documentation.
"""

import base64
import gzip
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import WireFormat
from extproc.formats.body import answer_decoder
from extproc.formats.strict_json import parse_json
from extproc.model import Observation
from tests.formats.calls import claimed, observed, randomly_chunked

ROOT = Path(__file__).parent.parent.parent
CORPUS = ROOT.parent / "shared" / "corpus"

Exchange = dict[str, Any]
Totals = tuple[int, int] | None

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the recorded exchanges are not on this machine")

# The one recorded request whose body is itself the fault: max_tokens is -1, and OpenAI said 400.
FAULTY = "chat-bad-request.yaml#0"
# Cohere's dialect is its own, whatever the operation is called.
OPENAI_LIKE = ("openai", "azure", "groq", "deepseek", "mistral", "other")


@cache
def exchanges() -> tuple[Exchange, ...]:
    return tuple(
        json.loads(line)
        for path in sorted(CORPUS.glob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    )


def recorded(providers: tuple[str, ...], operation: str) -> Iterator[Exchange]:
    return (each for each in exchanges() if each["provider"] in providers and each["operation"] == operation)


def openai_chats() -> list[Exchange]:
    return list(recorded(("openai",), "chat"))


def messages() -> list[Exchange]:
    return list(recorded(("anthropic",), "messages"))


def openai_totals(usage: dict[str, Any] | None) -> Totals:
    return (usage["prompt_tokens"], usage["total_tokens"] - usage["prompt_tokens"]) if usage else None


def anthropic_totals(usage: dict[str, Any] | None) -> Totals:
    if not usage:
        return None
    cached = (usage.get("cache_creation_input_tokens"), usage.get("cache_read_input_tokens"))
    return usage["input_tokens"] + sum(filter(None, cached)), usage["output_tokens"]


def seen_totals(seen: Observation) -> Totals:
    if seen.usage is None:
        return None
    assert seen.usage.input_tokens is not None
    assert seen.usage.output_tokens is not None
    return seen.usage.input_tokens, seen.usage.output_tokens


def observations(wire_format: WireFormat, each: Exchange) -> list[Observation]:
    """The answer observed whole and in pieces of random size."""
    data = base64.b64decode(each["response_body_b64"])
    headers = each["response_headers"]
    seen: list[Observation] = []
    for pieces in ([data], randomly_chunked(data, each["id"])):
        decoder = answer_decoder(headers.get("content-encoding", ""))
        assert decoder is not None, each["id"]
        decoded = [decoder.feed(piece) for piece in pieces]
        assert not decoder.is_broken, each["id"]
        seen.append(observed(wire_format.name, *decoded, headers=headers))
    return seen


def check_request(each: Exchange, api: str) -> None:
    url = urlsplit(each["url"])
    path = f"{url.path}?{url.query}" if url.query else url.path
    call = claimed(path, method=each["method"], host=url.netloc, headers=each["request_headers"])
    assert call is not None, each["id"]
    assert (call.api, call.operation) == (api, "chat"), each["id"]
    request = FORMATS[api].parse_request(parse_json(base64.b64decode(each["request_body_b64"])), call).request
    assert request.stream is each["expected"]["stream"], each["id"]
    assert request.model == each["expected"]["model_request"].lower(), each["id"]


def test_every_openai_chat_request_is_understood() -> None:
    sound = [each for each in openai_chats() if not each["id"].endswith(FAULTY)]
    assert len(sound) == 324

    for each in sound:
        check_request(each, "openai_chat")


def test_the_faulty_openai_request_is_refused_as_openai_did() -> None:
    (each,) = (each for each in openai_chats() if each["id"].endswith(FAULTY))

    with pytest.raises(RequestRefused, match="/max_tokens"):
        check_request(each, "openai_chat")
    assert each["status"] == 400


def test_every_anthropic_request_is_understood() -> None:
    assert len(messages()) == 43

    for each in messages():
        check_request(each, "anthropic_messages")


def test_every_usage_of_openai_chats_and_their_likes_is_found() -> None:
    with_usage = 0
    for each in recorded(OPENAI_LIKE, "chat"):
        expected = openai_totals(each["expected"]["usage"])
        for seen in observations(FORMATS["openai_chat"], each):
            assert seen_totals(seen) == expected, each["id"]
            assert seen.model == (each["expected"]["model_response"] or ""), each["id"]
            assert seen.finished, each["id"]
            assert bool(seen.error) is (each["status"] >= 400), each["id"]
        with_usage += expected is not None

    assert with_usage == 324


def test_every_usage_of_anthropic_messages_is_found() -> None:
    with_usage = 0
    for each in messages():
        expected = anthropic_totals(each["expected"]["usage"])
        for seen in observations(FORMATS["anthropic_messages"], each):
            assert seen_totals(seen) == expected, each["id"]
            assert seen.model == each["expected"]["model_response"], each["id"]
            assert seen.finished, each["id"]
            assert seen.output_text, each["id"]
        with_usage += expected is not None

    assert with_usage == 43


def test_chunks_of_recorded_answers_do_not_matter() -> None:
    for name, found in (("openai_chat", openai_chats()), ("anthropic_messages", messages())):
        for each in found:
            whole, pieces = observations(FORMATS[name], each)
            assert whole == pieces, each["id"]


def test_bodies_of_compatible_servers_are_read_alike() -> None:
    call = claimed("/v1/chat/completions")
    assert call is not None
    likes = [each for each in recorded(OPENAI_LIKE[1:], "chat") if each["request_body_b64"]]
    assert len(likes) == 96

    for each in likes:
        body = parse_json(base64.b64decode(each["request_body_b64"]))
        request = FORMATS["openai_chat"].parse_request(body, call).request
        assert request.stream is each["expected"]["stream"], each["id"]
        assert request.model == str(body["model"]).lower(), each["id"]
