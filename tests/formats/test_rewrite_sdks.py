"""What official SDKs send, told to ask for less on its way: the provider takes it, and cuts its answer."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest
from google import genai
from google.genai import types as genai_types

from extproc.formats import FORMATS
from extproc.formats.rewrite import rewrite
from extproc.formats.strict_json import parse_json
from tests.formats.calls import claimed, head
from tests.test_demo_provider import ANTHROPIC_TOOL, HELLO, KEY, TOOL, Running, running

CEILING = 3
MAX_BYTES = 1 << 20
SCHEMA: Any = {"type": "object", "properties": {"answer": {"type": "string"}}}


class Between(httpx.BaseTransport):
    """Stands between an SDK and the provider, as the gateway does, and lowers every ceiling."""

    def __init__(self, provider: Running) -> None:
        self._upstream = httpx.HTTPTransport()
        self._port = provider.port
        self.sent: dict[str, Any] = {}
        self.passed: dict[str, Any] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        headers = dict(request.headers)
        call = claimed(path, headers=headers)
        assert call is not None
        body = rewrite(
            call,
            head(path, headers=headers),
            request.read(),
            is_decoded=False,
            max_body_bytes=MAX_BYTES,
            max_output_tokens=CEILING,
        )
        self.sent, self.passed = parse_json(request.content), parse_json(body)
        assert FORMATS[call.api].parse_request(self.passed, call).request.max_output_tokens == CEILING
        kept = {name: value for name, value in headers.items() if name != "content-length"}
        target = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        return self._upstream.handle_request(
            httpx.Request(request.method, target, headers=kept, content=body)
        )

    def close(self) -> None:
        self._upstream.close()


@pytest.fixture(scope="module")
def provider() -> Iterator[Running]:
    with running() as (started, _):
        yield started


@pytest.fixture
def between(provider: Running) -> Iterator[Between]:
    with ExitStack() as clients:
        transport = Between(provider)
        clients.callback(transport.close)
        yield transport


def openai_client(between: Between) -> Any:
    """Untyped, because its overloads refuse plain dictionaries."""
    client = httpx.Client(transport=between)
    return openai.OpenAI(base_url="http://gateway.example/v1", api_key=KEY, http_client=client, max_retries=0)


def anthropic_client(between: Between) -> Any:
    client = httpx.Client(transport=between)
    return anthropic.Anthropic(
        base_url="http://gateway.example", api_key=KEY, http_client=client, max_retries=0
    )


def genai_client(between: Between) -> genai.Client:
    options = genai_types.HttpOptions(
        base_url="http://gateway.example", httpx_client=httpx.Client(transport=between)
    )
    return genai.Client(api_key=KEY, http_options=options)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"max_tokens": 900},
        {"max_completion_tokens": 900, "temperature": 0.25},
        {"tools": [TOOL], "n": 2, "seed": 7},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
    ],
)
def test_a_chat_of_openai_s_sdk_is_cut_where_the_ceiling_is(between: Between, asked: dict[str, Any]) -> None:
    answer = openai_client(between).chat.completions.create(model="gpt-4o-mini", messages=HELLO, **asked)

    assert [choice.finish_reason for choice in answer.choices] == ["length"] * asked.get("n", 1)
    assert answer.usage.completion_tokens == CEILING * asked.get("n", 1)
    field = "max_tokens" if "max_tokens" in asked else "max_completion_tokens"
    assert between.passed == between.sent | {field: CEILING}


def test_a_stream_of_openai_s_sdk_is_cut_where_the_ceiling_is(between: Between) -> None:
    stream = openai_client(between).chat.completions.create(
        model="gpt-4o-mini", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )

    assert [chunk.usage.completion_tokens for chunk in stream if chunk.usage] == [CEILING]


def test_a_response_of_openai_s_sdk_is_incomplete_where_the_ceiling_is(between: Between) -> None:
    answer = openai_client(between).responses.create(model="gpt-4o-mini", input="Say hello to the world.")

    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert between.passed == between.sent | {"max_output_tokens": CEILING}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]},
        {"tools": [ANTHROPIC_TOOL], "metadata": {"user_id": "u"}},
    ],
)
def test_a_message_of_anthropic_s_sdk_is_cut_where_the_ceiling_is(
    between: Between, asked: dict[str, Any]
) -> None:
    answer = anthropic_client(between).messages.create(
        model="claude-sonnet-4-5", max_tokens=900, messages=HELLO, **asked
    )

    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", CEILING)
    assert between.passed == between.sent | {"max_tokens": CEILING}


def test_a_stream_of_anthropic_s_sdk_is_cut_where_the_ceiling_is(between: Between) -> None:
    messages = anthropic_client(between).messages
    with messages.stream(model="claude-sonnet-4-5", max_tokens=900, messages=HELLO) as stream:
        assert stream.get_final_message().usage.output_tokens == CEILING


@pytest.mark.parametrize(
    "config",
    [
        None,
        genai_types.GenerateContentConfig(max_output_tokens=900, temperature=0.5),
        genai_types.GenerateContentConfig(system_instruction="Be kind.", response_schema=SCHEMA),
    ],
)
def test_content_of_google_s_sdk_is_cut_where_the_ceiling_is(
    between: Between, config: genai_types.GenerateContentConfig | None
) -> None:
    answer = genai_client(between).models.generate_content(
        model="gemini-2.5-flash", contents="Say hello to the world.", config=config
    )

    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == genai_types.FinishReason.MAX_TOKENS
    wanted = between.sent.get("generationConfig", {}) | {"maxOutputTokens": CEILING}
    assert between.passed == between.sent | {"generationConfig": wanted}


def test_bytes_of_an_sdk_change_only_where_they_must(between: Between) -> None:
    """Keys keep their order: caches of prompts are keyed by the bytes before what changed."""
    openai_client(between).chat.completions.create(
        model="gpt-4o-mini", messages=HELLO, max_tokens=900, user="u"
    )

    assert list(between.passed) == list(between.sent)
    assert json.dumps(between.passed) == json.dumps(between.sent).replace("900", str(CEILING))
