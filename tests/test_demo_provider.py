"""The demo provider, through the SDKs that real callers use and over plain sockets."""

import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from demo.faults import Faults, parse
from demo.generation import _WORDS
from demo.provider import listen
from extproc.errors import VocabularyMissing
from extproc.formats import FORMATS
from extproc.measure.tokens import Tokenizer
from extproc.measure.vocab import default_directory, load
from tests.formats.calls import claimed

ROOT = Path(__file__).parent.parent
KEY = "sk-provider-demo"
HELLO: Any = [{"role": "user", "content": "Say hello to the world."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["c", "f"]},
                "days": {"type": "integer"},
            },
        },
    },
}
ANTHROPIC_TOOL: Any = {"name": "get_weather", "input_schema": TOOL["function"]["parameters"]}


@dataclass(frozen=True)
class Running:
    """A provider in its own process."""

    port: int
    clients: ExitStack

    def request(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection.request(
            method, path, data, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        response = connection.getresponse()
        try:
            return response, response.read()
        finally:
            connection.close()

    def chat(self, body: Any = None, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        content = {"model": "gpt-4o-mini", "messages": HELLO} if body is None else body
        return self.request("POST", "/v1/chat/completions", content, authorization=f"Bearer {KEY}", **headers)

    def books(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.request("GET", "/books")[1])
        return found

    def entry(self) -> dict[str, Any]:
        """The newest entry, once its answer has ended."""
        return until(lambda: self.books()["entries"][-1], lambda entry: not entry["open"])

    def openai(self, **headers: str) -> openai.OpenAI:
        client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1",
            api_key=KEY,
            max_retries=0,
            default_headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        return self.clients.enter_context(client)

    def anthropic(self, **headers: str) -> anthropic.Anthropic:
        client = anthropic.Anthropic(
            base_url=f"http://127.0.0.1:{self.port}",
            api_key=KEY,
            max_retries=0,
            default_headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        return self.clients.enter_context(client)


def until(look: Callable[[], dict[str, Any]], holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while not holds(found := look()):
        assert time.monotonic() < deadline, f"never came true; last seen: {found}"
        time.sleep(0.01)
    return found


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "demo.provider", "--port", "0", "--print-ready", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ready_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    word, _, port = process.stdout.readline().strip().partition(" ")
    assert word == "ready"
    return int(port)


@contextmanager
def running(**environment: str) -> Iterator[tuple[Running, subprocess.Popen[str]]]:
    """A provider of its own for one test; clients are closed with it."""
    with start(**environment) as process, ExitStack() as clients:
        yield Running(ready_port(process), clients), process
        process.terminate()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running() as (started, _):
        yield started.port


@pytest.fixture
def provider(port: int) -> Iterator[Running]:
    with ExitStack() as clients:
        started = Running(port, clients)
        started.request("DELETE", "/books")
        yield started


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    try:
        return Tokenizer(load(default_directory(os.environ)))
    except VocabularyMissing as missing:
        pytest.skip(str(missing))


def estimated_input(tokenizer: Tokenizer, api: str, path: str, body: dict[str, Any]) -> int:
    """What the sidecar expects this request to cost."""
    wire_format = FORMATS[api]
    call = claimed(path)
    assert call is not None
    assert call.api == api
    prompt = wire_format.parse_request(body, call).prompt
    model = body["model"]
    estimate = tokenizer.estimate(prompt, provider=call.provider, model=model, declared_max_output=None)
    return estimate.input


# --- OpenAI ---


def test_a_chat_answer_is_what_the_sdk_expects(provider: Running) -> None:
    answer = provider.openai(x_demo_output_tokens="12").chat.completions.create(
        model="gpt-4o-mini",
        messages=HELLO,
    )

    assert answer.id.startswith("chatcmpl-")
    assert answer.choices[0].finish_reason == "stop"
    assert len((answer.choices[0].message.content or "").split()) == 12
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_the_same_request_has_the_same_answer_under_another_id(provider: Running) -> None:
    first, second = (json.loads(provider.chat()[1]) for _ in range(2))

    assert first["choices"] == second["choices"]
    assert first["id"] != second["id"]


def test_prompt_tokens_are_what_the_sidecar_estimates(provider: Running, tokenizer: Tokenizer) -> None:
    body = {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "You are terse."},
            {
                "role": "user",
                "name": "ann",
                "content": [{"type": "text", "text": "Wörter und <|endoftext|>"}],
            },
        ],
    }

    usage = json.loads(provider.chat(body)[1])["usage"]

    expected = estimated_input(tokenizer, "openai_chat", "/v1/chat/completions", body)
    assert usage["prompt_tokens"] == expected


def test_message_tokens_are_what_the_sidecar_estimates(provider: Running, tokenizer: Tokenizer) -> None:
    body = {"model": "claude-sonnet-4-6", "max_tokens": 9, "system": "Be brief.", "messages": HELLO}

    answer = provider.request("POST", "/v1/messages", body, x_api_key=KEY, anthropic_version="2023-06-01")[1]

    expected = estimated_input(tokenizer, "anthropic_messages", "/v1/messages", body)
    assert json.loads(answer)["usage"]["input_tokens"] == expected


def test_generated_text_has_as_many_tokens_as_it_says(tokenizer: Tokenizer) -> None:
    for model in ("gpt-4o", "gpt-4"):
        counts = {word: tokenizer.count(" " + word, provider="openai", model=model) for word in _WORDS}
        first = {word: tokenizer.count(word, provider="openai", model=model) for word in _WORDS}

        assert set(counts.values()) == {1}
        assert set(first.values()) == {1}


def test_a_stream_has_a_chunk_a_token_and_no_usage_unless_asked(provider: Running) -> None:
    _, data = provider.chat({"model": "gpt-4o", "messages": HELLO, "stream": True}, x_demo_output_tokens="7")
    events = data.decode().split("\n\n")

    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert len(chunks) == 1 + 7 + 1
    assert not any("usage" in chunk for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_asked_for_usage_comes_in_a_chunk_of_its_own(provider: Running) -> None:
    body = {"model": "gpt-4o", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}

    _, data = provider.chat(body, x_demo_output_tokens="3")

    events = data.decode().strip().split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 5
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 3


def test_stream_options_without_a_stream_are_refused(provider: Running) -> None:
    body = {"model": "gpt-4o", "messages": HELLO, "stream_options": {"include_usage": True}}

    assert provider.chat(body)[0].status == 400


def test_the_sdk_reads_a_stream_of_several_choices(provider: Running) -> None:
    texts = {0: "", 1: ""}
    stream = provider.openai(x_demo_output_tokens="5").chat.completions.create(
        model="gpt-4o",
        messages=HELLO,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )

    usage = None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""

    assert [len(text.split()) for text in texts.values()] == [5, 5]
    assert texts[0] != texts[1]
    assert usage is not None
    assert usage.completion_tokens == 10


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_ceiling_cuts_an_answer_and_says_so(provider: Running, field: str) -> None:
    answer = json.loads(provider.chat({"model": "gpt-4o", "messages": HELLO, field: 5})[1])

    assert answer["usage"]["completion_tokens"] == 5
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_ceiling_that_is_just_enough_cuts_nothing(provider: Running) -> None:
    body = {"model": "gpt-4o", "messages": HELLO, "max_tokens": 5}

    answer = json.loads(provider.chat(body, x_demo_output_tokens="5")[1])

    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_required_tool_is_called_with_arguments_of_its_schema(provider: Running) -> None:
    answer = provider.openai().chat.completions.create(
        model="gpt-4o",
        messages=HELLO,
        tools=[TOOL],
        tool_choice="required",
    )

    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert (arguments["unit"], arguments["days"]) == ("c", 7)
    assert answer.choices[0].finish_reason == "tool_calls"


def test_tool_arguments_are_streamed_in_pieces(provider: Running) -> None:
    stream = provider.openai(x_demo_tool="get_weather").chat.completions.create(
        model="gpt-4o",
        messages=HELLO,
        tools=[TOOL],
        stream=True,
    )

    pieces = [
        call.function.arguments or ""
        for chunk in stream
        for choice in chunk.choices
        for call in choice.delta.tool_calls or []
        if call.function
    ]

    assert len(pieces) > 5
    assert json.loads("".join(pieces))["unit"] == "c"
    entry = provider.entry()
    assert entry["output_tokens"] == entry["chunks_sent"] == len(pieces)


def test_tools_that_nobody_asked_to_call_are_left_alone(provider: Running) -> None:
    answer = json.loads(provider.chat({"model": "gpt-4o", "messages": HELLO, "tools": [TOOL]})[1])

    assert answer["choices"][0]["finish_reason"] == "stop"


def test_images_are_accepted_and_counted(provider: Running) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": [image]}]}

    usage = json.loads(provider.chat(body)[1])["usage"]

    assert usage["prompt_tokens"] > 85


def test_the_model_list_is_in_the_dialect_that_is_asked_for(provider: Running) -> None:
    theirs = [model.id for model in provider.openai().models.list()]
    others = [model.id for model in provider.anthropic().models.list()]

    assert "gpt-4o-mini" in theirs
    assert "claude-sonnet-4-6" in others
    assert provider.openai().models.retrieve("gpt-4o").id == "gpt-4o"
    with pytest.raises(openai.NotFoundError):
        provider.openai().models.retrieve("gpt-none")


def test_a_large_body_is_answered(provider: Running) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 400_000}]}

    response, data = provider.chat(body)

    assert response.status == 200
    assert json.loads(data)["usage"]["prompt_tokens"] > 100_000
    assert provider.entry()["body_bytes"] > 2_000_000


def test_a_compressed_request_is_read(provider: Running) -> None:
    body = gzip.compress(json.dumps({"model": "gpt-4o", "messages": HELLO}).encode())

    assert provider.chat(body, content_encoding="gzip")[0].status == 200
    assert provider.chat(body, content_encoding="br")[0].status == 415
    assert provider.chat(b"not gzip", content_encoding="gzip")[0].status == 400


# --- Anthropic ---


def test_a_message_is_what_the_sdk_expects(provider: Running) -> None:
    answer = provider.anthropic(x_demo_output_tokens="12").messages.create(
        model="claude-sonnet-4-6",
        max_tokens=100,
        messages=HELLO,
    )

    assert answer.id.startswith("msg_")
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens == 12
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


def test_a_message_is_cut_at_its_ceiling(provider: Running) -> None:
    answer = provider.anthropic().messages.create(
        model="claude-sonnet-4-6",
        max_tokens=3,
        messages=HELLO,
    )

    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 3


def test_a_streamed_message_adds_up_to_the_whole_one(provider: Running) -> None:
    client = provider.anthropic(x_demo_output_tokens="9")

    with client.messages.stream(
        model="claude-sonnet-4-6",
        max_tokens=50,
        messages=HELLO,
    ) as stream:
        events = [event.type for event in stream]
        message = stream.get_final_message()

    assert events[0] == "message_start"
    assert events[-1] == "message_stop"
    assert message.usage.output_tokens == 9
    assert message.usage.input_tokens > 0
    assert provider.entry()["chunks_sent"] == 9


def test_thinking_comes_before_the_text_and_counts(provider: Running) -> None:
    client = provider.anthropic(x_demo_output_tokens="20")
    asked: dict[str, Any] = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 2000,
        "messages": HELLO,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }

    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()

    for message in (whole, streamed):
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert message.usage.output_tokens == 20


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_tool_is_used_when_asked_for(provider: Running, is_streamed: bool) -> None:  # noqa: FBT001 - a parameter of cases
    asked: dict[str, Any] = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 200,
        "messages": HELLO,
        "tools": [ANTHROPIC_TOOL],
        "tool_choice": {"type": "tool", "name": "get_weather"},
    }
    client = provider.anthropic()

    if is_streamed:
        with client.messages.stream(**asked) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(**asked)

    [block] = message.content
    assert block.type == "tool_use"
    assert block.input["days"] == 7
    assert message.stop_reason == "tool_use"


def test_counting_tokens_generates_nothing(provider: Running) -> None:
    counted = provider.anthropic().messages.count_tokens(
        model="claude-sonnet-4-6",
        messages=HELLO,
    )

    assert counted.input_tokens > 0
    assert provider.entry()["output_tokens"] == 0


@pytest.mark.parametrize(
    "change", [{"max_tokens": None}, {"messages": []}, {"model": 4}, {"stream": "yes"}, {"max_tokens": 0}]
)
def test_a_wrong_body_is_an_error_of_its_dialect(provider: Running, change: dict[str, Any]) -> None:
    body = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": HELLO} | change

    response, data = provider.request(
        "POST", "/v1/messages", body, x_api_key=KEY, anthropic_version="2023-06-01"
    )

    assert response.status == 400
    assert json.loads(data)["error"]["type"] == "invalid_request_error"


def test_the_version_header_is_needed(provider: Running) -> None:
    body = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": HELLO}

    assert provider.request("POST", "/v1/messages", body, x_api_key=KEY)[0].status == 400


# --- credentials ---


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer sk-demo"},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY}x"},
        {"x_api_key": KEY},
    ],
)
def test_chat_takes_only_its_own_key(provider: Running, headers: dict[str, str]) -> None:
    body = {"model": "gpt-4o", "messages": HELLO}

    response, data = provider.request("POST", "/v1/chat/completions", body, **headers)

    assert response.status == 401
    assert "error" in json.loads(data)
    assert provider.entry()["status"] == 401


def test_messages_take_only_their_own_key() -> None:
    with running(DEMO_PROVIDER_KEY="sk-another") as (provider, _):
        client = provider.anthropic()
        with pytest.raises(anthropic.AuthenticationError):
            client.messages.create(model="claude-sonnet-4-6", max_tokens=5, messages=HELLO)
        with pytest.raises(openai.AuthenticationError):
            provider.openai().models.list()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x_api_key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"x_api_key": KEY, "authorization": "Bearer sk-demo"}, 200),
        ({"x_api_key": "sk-demo", "authorization": f"Bearer {KEY}"}, 401),
        ({"x_api_key": ""}, 401),
        ({"authorization": "Bearer sk-demo"}, 401),
        ({"authorization": KEY}, 401),
        ({}, 401),
    ],
)
def test_messages_take_the_key_in_either_header(
    provider: Running, headers: dict[str, str], status: int
) -> None:
    body = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": HELLO}

    response, _ = provider.request("POST", "/v1/messages", body, anthropic_version="2023-06-01", **headers)

    assert response.status == status


def test_a_gateways_key_that_arrives_is_remembered_by_its_header(provider: Running) -> None:
    provider.chat(x_api_key="sk-demo")

    entry = provider.entry()

    assert entry["credential_header_names"] == ["authorization", "x-api-key"]
    assert entry["foreign_credential_names"] == ["x-api-key"]
    assert "sk-" not in json.dumps(provider.books())


# --- faults ---


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_an_asked_for_error_is_the_sdks_own(
    provider: Running, status: int, error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as raised:
        provider.openai(x_demo_fault=f"status={status}").chat.completions.create(
            model="gpt-4o",
            messages=HELLO,
            stream=True,
        )

    assert raised.value.response.headers.get("retry-after") == ("1" if status in {429, 503} else None)
    entry = provider.entry()
    assert (entry["status"], entry["input_tokens"], entry["output_tokens"]) == (status, 0, 0)


def test_an_overloaded_error_is_the_sdks_own(provider: Running) -> None:
    with pytest.raises(anthropic.APIStatusError) as raised:
        provider.anthropic(x_demo_fault="status=529,retry-after=7").messages.create(
            model="claude-sonnet-4-6",
            max_tokens=5,
            messages=HELLO,
        )

    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.response.json()["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize("chunks", [0, 1, 3, 20, 32])
def test_a_cut_stream_books_what_was_generated(provider: Running, chunks: int) -> None:
    body = {"model": "gpt-4o", "messages": HELLO, "stream": True}

    with pytest.raises(http.client.IncompleteRead) as raised:
        provider.chat(body, x_demo_fault=f"after={chunks}")

    assert raised.value.partial.count(b'"content":" ') == max(0, chunks - 1)
    entry = provider.entry()
    assert (entry["completed"], entry["output_tokens"], entry["chunks_sent"]) == (False, chunks, chunks)


def test_a_stream_shorter_than_its_cut_ends_well(provider: Running) -> None:
    body = {"model": "gpt-4o", "messages": HELLO, "stream": True}

    _, data = provider.chat(body, x_demo_fault="after=33")

    assert data.endswith(b"[DONE]\n\n")
    assert provider.entry()["completed"]


def test_a_cut_json_answer_is_shorter_than_announced(provider: Running) -> None:
    with pytest.raises(http.client.IncompleteRead):
        provider.chat(x_demo_fault="after=1")

    entry = provider.entry()
    assert (entry["completed"], entry["output_tokens"]) == (False, 32)


def test_an_error_inside_a_stream_is_the_sdks_own(provider: Running) -> None:
    stream = provider.openai(x_demo_fault="error-after=2").chat.completions.create(
        model="gpt-4o",
        messages=HELLO,
        stream=True,
    )

    with pytest.raises(openai.APIError):
        list(stream)

    entry = provider.entry()
    assert (entry["completed"], entry["output_tokens"]) == (False, 2)


def test_an_error_inside_a_streamed_message_is_the_sdks_own(provider: Running) -> None:
    client = provider.anthropic(x_demo_fault="error-after=2")

    with (
        pytest.raises(anthropic.APIStatusError),
        client.messages.stream(
            model="claude-sonnet-4-6",
            max_tokens=50,
            messages=HELLO,
        ) as stream,
    ):
        stream.until_done()

    assert provider.entry()["output_tokens"] == 2


@pytest.mark.parametrize(
    ("fault", "usage"),
    [("no-usage", "absent"), ("usage=null", None), ("usage=zero", 0)],
)
def test_usage_can_be_withheld_or_wrong(provider: Running, fault: str, usage: object) -> None:
    answer = json.loads(provider.chat(x_demo_fault=fault)[1])

    told = answer.get("usage", "absent")
    assert (told["completion_tokens"] if isinstance(told, dict) else told) == usage
    assert provider.entry()["output_tokens"] == 32


def test_a_stream_can_withhold_the_usage_it_was_asked_for(provider: Running) -> None:
    body = {"model": "gpt-4o", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}

    assert b"usage" not in provider.chat(body, x_demo_fault="no-usage")[1]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_can_be_compressed_unasked(provider: Running, stream: bool) -> None:  # noqa: FBT001 - a parameter of cases
    body = {"model": "gpt-4o", "messages": HELLO, "stream": stream}

    response, data = provider.chat(body, x_demo_fault="gzip")

    assert response.getheader("content-encoding") == "gzip"
    assert b"chatcmpl-" in gzip.decompress(data)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_can_be_garbage(provider: Running, stream: bool) -> None:  # noqa: FBT001 - a parameter of cases
    response, data = provider.chat(
        {"model": "gpt-4o", "messages": HELLO, "stream": stream}, x_demo_fault="garbage"
    )

    assert response.status == 200
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(data.removeprefix(b"data: "))
    assert provider.entry()["output_tokens"] == 32


def test_an_answer_can_hang_before_its_headers(provider: Running) -> None:
    client = provider.openai(x_demo_fault="hang=30").with_options(timeout=0.3)

    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="gpt-4o", messages=HELLO)

    assert provider.entry()["completed"] is False


def test_slow_json_arrives_whole(provider: Running) -> None:
    assert json.loads(provider.chat(x_demo_fault="slow=2")[1])["object"] == "chat.completion"


@pytest.mark.parametrize(
    "header", ["nonsense", "status=200", "status=x", "after=-1", "usage=full", "gzip=1", "after"]
)
def test_a_fault_that_does_not_exist_is_refused(provider: Running, header: str) -> None:
    response, data = provider.chat(x_demo_fault=header)

    assert response.status == 400
    assert "x-demo-fault" in json.loads(data)["error"]["message"]


def test_faults_can_be_joined() -> None:
    assert parse(" status=503 , retry-after=9,") == Faults(status=503, retry_after=9)
    assert parse("") == Faults()


# --- books ---


def test_a_client_that_leaves_is_booked_for_what_was_generated(provider: Running) -> None:
    client = provider.openai(x_demo_output_tokens="100000", x_demo_interval_ms="5")

    with client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True) as stream:
        for _ in range(4):
            next(stream)

    entry = provider.entry()
    assert entry["completed"] is False
    assert 3 <= entry["output_tokens"] == entry["chunks_sent"] < 100_000


def test_books_tell_the_request_without_its_secrets(provider: Running) -> None:
    provider.chat(x_ai_policy_decision_id="d-1", x_other="shown", user_agent="hidden")

    entry = provider.entry()

    assert entry["api"] == "openai_chat"
    assert entry["model"] == "gpt-4o-mini"
    assert entry["id"].startswith("req_")
    assert entry["decision_headers"] == {"x-ai-policy-decision-id": "d-1"}
    assert entry["request_headers"]["x-other"] == "shown"
    assert entry["request_headers"]["user-agent"] is None
    assert entry["request_headers"]["authorization"] is None
    assert len(entry["body_sha256"]) == 64


def test_totals_are_the_sums_of_the_entries(provider: Running) -> None:
    provider.chat()
    provider.chat({"model": "gpt-4o", "messages": HELLO, "stream": True})
    provider.chat(x_demo_fault="status=500")
    provider.entry()

    books = provider.books()

    entries, totals = books["entries"], books["totals"]
    assert totals["requests"] == len(entries) == 3
    assert totals["completed"] == sum(entry["completed"] for entry in entries)
    for figure in ("input_tokens", "output_tokens", "chunks_sent"):
        assert totals[figure] == sum(entry[figure] for entry in entries)
    assert totals["output_tokens"] == 64


def test_books_can_be_emptied(provider: Running) -> None:
    provider.chat()

    assert provider.request("DELETE", "/books")[0].status == 204
    assert provider.books()["entries"] == []
    assert provider.books()["totals"]["output_tokens"] == 0


# --- the process ---


def test_connections_are_kept(provider: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", provider.port, timeout=10)
    sockets = set()
    for _ in range(3):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b'{"status":"ok"}'
        sockets.add(connection.sock)
    connection.close()

    assert len(sockets) == 1


def test_sigterm_lets_an_answer_end() -> None:
    with running() as (provider, process):
        client = provider.openai(x_demo_output_tokens="20", x_demo_interval_ms="10")
        with client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True) as stream:
            next(stream)

            process.send_signal(signal.SIGTERM)

            *_, last = stream

    assert last.choices[0].finish_reason == "stop"
    assert process.returncode == 0


def test_small_writes_are_not_held_back() -> None:
    with (
        listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use_is_a_clear_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with start("--port", str(port)) as process:
            _, problem = process.communicate(timeout=30)

    assert process.returncode == 2
    assert problem == f"Cannot listen on 127.0.0.1:{port}: another program listens there.\n"


def test_without_vocabularies_it_says_so_and_answers(tmp_path: Path) -> None:
    with running(EXTPROC_VOCAB=str(tmp_path)) as (provider, process):
        assert provider.chat()[0].status == 200
        process.terminate()
        _, problem = process.communicate(timeout=30)

    assert "extproc vocab" in problem
