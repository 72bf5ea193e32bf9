"""The demo provider's other dialects, through the SDKs that real callers use and over plain sockets."""

import http.client
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import botocore.eventstream  # type: ignore[import-untyped]  # botocore has no types
import botocore.exceptions  # type: ignore[import-untyped]
import botocore.session  # type: ignore[import-untyped]
import openai
import pytest
from botocore.config import Config  # type: ignore[import-untyped]
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from extproc.errors import VocabularyMissing
from extproc.formats import FORMATS
from extproc.measure.tokens import Tokenizer
from extproc.measure.vocab import default_directory, load
from tests.formats.calls import claimed, observed
from tests.test_demo_provider import HELLO, KEY, TOOL, Running, running

PARAMETERS = TOOL["function"]["parameters"]
CONVERSE: Any = [{"role": "user", "content": [{"text": "Say hello."}]}]


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


def booked(provider: Running, *names: str) -> tuple[Any, ...]:
    """These figures of the newest entry."""
    entry = provider.entry()
    return tuple(entry[name] for name in names)


def headers_of(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def gemini(provider: Running, **headers: str) -> genai.Client:
    options = genai_types.HttpOptions(
        base_url=f"http://127.0.0.1:{provider.port}", headers=headers_of(headers)
    )
    return provider.clients.enter_context(closing(genai.Client(api_key=KEY, http_options=options)))


@contextmanager
def bedrock(provider: Running, **headers: str) -> Iterator[Any]:
    client = botocore.session.Session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{provider.port}",
        aws_access_key_id=KEY,
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}),
    )

    def add(request: Any, **_: Any) -> None:
        for name, value in headers_of(headers).items():
            request.headers[name] = value

    client.meta.events.register("before-sign.bedrock-runtime.*", add)
    with closing(client):
        yield client


# --- OpenAI Responses ---


def test_a_response_is_what_the_sdk_expects(provider: Running) -> None:
    answer = provider.openai(x_demo_output_tokens="12").responses.create(
        model="gpt-5", input="Say hello.", instructions="Be brief."
    )

    assert answer.status == "completed"
    assert len(answer.output_text.split()) == 12
    assert answer.usage is not None
    assert answer.usage.output_tokens == 12
    assert booked(provider, "api", "model", "output_tokens") == ("openai_responses", "gpt-5", 12)
    assert booked(provider, "input_tokens") == (answer.usage.input_tokens,)


def test_a_streamed_response_adds_up_to_the_whole_one(provider: Running) -> None:
    with provider.openai(x_demo_output_tokens="9").responses.stream(model="gpt-5", input=HELLO) as stream:
        events = list(stream)
        final = stream.get_final_response()

    assert [event.sequence_number for event in events if event.type != "response.output_text.delta"]
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert final.output_text == text
    assert final.usage is not None
    assert final.usage.output_tokens == 9
    assert booked(provider, "stream", "output_tokens", "chunks_sent") == (True, 9, 9)


def test_a_response_reasons_calls_tools_and_is_cut(provider: Running) -> None:
    client = provider.openai()
    tool: Any = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}

    called = client.responses.create(
        model="gpt-5", input="Weather?", tools=[tool], tool_choice="required", reasoning={"effort": "low"}
    )
    with client.responses.stream(
        model="gpt-5", input="Weather?", tools=[tool], tool_choice="required"
    ) as stream:
        streamed = stream.get_final_response()
    cut = client.responses.create(
        model="gpt-5", input="Say hello.", max_output_tokens=16, reasoning={"effort": "low"}
    )

    for response in (called, streamed):
        (call,) = (item for item in response.output if item.type == "function_call")
        assert json.loads(call.arguments)["days"] == 7
    assert cut.status == "incomplete"
    assert cut.usage is not None
    assert cut.usage.output_tokens_details.reasoning_tokens == 4
    assert [item.type for item in cut.output] == ["reasoning", "message"]


def test_an_error_inside_a_streamed_response_is_the_sdks_own(provider: Running) -> None:
    client = provider.openai(x_demo_fault="error-after=2")

    with pytest.raises(openai.APIError), client.responses.stream(model="gpt-5", input="Hi.") as stream:
        stream.until_done()

    assert booked(provider, "completed", "output_tokens") == (False, 2)


# --- OpenAI completions and embeddings ---


def test_a_completion_answers_every_prompt(provider: Running) -> None:
    answer = provider.openai(x_demo_output_tokens="4").completions.create(
        model="gpt-3.5-turbo-instruct", prompt=["One.", "Two."], n=2
    )

    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16
    assert booked(provider, "api", "output_tokens") == ("openai_completions", 16)


def test_a_streamed_completion_says_its_usage_when_asked(provider: Running) -> None:
    stream = provider.openai(x_demo_output_tokens="5").completions.create(
        model="gpt-3.5-turbo-instruct", prompt="One.", stream=True, stream_options={"include_usage": True}
    )

    chunks = list(stream)

    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert len(text.split()) == 5
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5


def test_token_ids_are_a_prompt(provider: Running) -> None:
    answer = provider.openai().completions.create(model="davinci-002", prompt=[1, 2, 3], max_tokens=2)

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 2)


def test_embeddings_are_the_same_for_the_same_text_and_generate_nothing(provider: Running) -> None:
    client = provider.openai()

    found = client.embeddings.create(
        model="text-embedding-3-small", input=["one", "two", "one"], dimensions=64
    )
    plain = client.embeddings.create(
        model="text-embedding-3-small", input="one", dimensions=64, encoding_format="float"
    )

    first, second, third = (each.embedding for each in found.data)
    assert len(first) == 64
    assert first == third
    assert first != second
    assert plain.data[0].embedding == pytest.approx(first)
    assert booked(provider, "api", "output_tokens", "completed") == ("openai_embeddings", 0, True)
    assert booked(provider, "input_tokens") == (plain.usage.prompt_tokens,)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"model": "gpt-5"}),
        ("/v1/responses", {"model": "gpt-5", "input": 4}),
        ("/v1/completions", {"model": "davinci-002"}),
        ("/v1/completions", {"model": "davinci-002", "prompt": [[]]}),
        ("/v1/embeddings", {"model": "e", "input": []}),
        ("/v1/embeddings", {"model": "e", "input": "a", "dimensions": 100_000}),
        ("/v2/chat", {"model": "command-a", "messages": []}),
        ("/api/chat", {"messages": HELLO}),
        ("/model/nova/converse", {"messages": []}),
        ("/v1beta/models/gemini-2.5-flash:generateContent", {"messages": HELLO}),
    ],
)
def test_a_wrong_body_is_an_error(provider: Running, path: str, body: dict[str, Any]) -> None:
    assert provider.request("POST", path, body, authorization=f"Bearer {KEY}")[0].status == 400


# --- Gemini ---


def test_gemini_answers_what_the_sdk_expects(provider: Running) -> None:
    config = genai_types.GenerateContentConfig(system_instruction="Be brief.", max_output_tokens=6)

    answer = gemini(provider).models.generate_content(
        model="gemini-2.5-flash", contents="Say hello.", config=config
    )

    assert answer.text is not None
    assert len(answer.text.split()) == 6
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == genai_types.FinishReason.MAX_TOKENS
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.candidates_token_count == 6
    assert booked(provider, "api", "model", "output_tokens") == ("gemini", "gemini-2.5-flash", 6)
    assert booked(provider, "input_tokens") == (answer.usage_metadata.prompt_token_count,)


def test_geminis_thoughts_are_beside_its_candidates(provider: Running) -> None:
    thinking = genai_types.ThinkingConfig(include_thoughts=True)

    chunks = list(
        gemini(provider, x_demo_output_tokens="8").models.generate_content_stream(
            model="gemini-2.5-flash",
            contents="Say hello.",
            config=genai_types.GenerateContentConfig(thinking_config=thinking),
        )
    )

    last = chunks[-1].usage_metadata
    assert last is not None
    assert (last.thoughts_token_count, last.candidates_token_count) == (2, 6)
    assert last.total_token_count == (last.prompt_token_count or 0) + 8
    assert booked(provider, "stream", "output_tokens", "chunks_sent") == (True, 8, 8)


def test_gemini_calls_a_function(provider: Running) -> None:
    declared = genai_types.FunctionDeclaration(name="get_weather", parameters_json_schema=PARAMETERS)
    mode = genai_types.FunctionCallingConfigMode.ANY
    config = genai_types.GenerateContentConfig(
        tools=[genai_types.Tool(function_declarations=[declared])],
        tool_config=genai_types.ToolConfig(
            function_calling_config=genai_types.FunctionCallingConfig(mode=mode)
        ),
    )

    answer = gemini(provider).models.generate_content(
        model="gemini-2.5-flash", contents="Weather?", config=config
    )

    (call,) = answer.function_calls or []
    assert call.name == "get_weather"
    assert call.args is not None
    assert call.args["days"] == 7


def test_without_alt_a_gemini_stream_is_one_json_array(provider: Running) -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}
    path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
    asked = {"x_goog_api_key": KEY, "x_demo_output_tokens": "3"}

    response, data = provider.request("POST", path, body, **asked)
    _, events = provider.request("POST", path + "?alt=sse", body, **asked)

    chunks = json.loads(data)
    assert response.getheader("content-type", "").startswith("application/json")
    assert [chunk["usageMetadata"]["candidatesTokenCount"] for chunk in chunks] == [1, 2, 3, 3]
    streamed = [json.loads(event.removeprefix(b"data: ")) for event in events.split(b"\r\n\r\n")[:-1]]
    assert [chunk["candidates"] for chunk in streamed] == [chunk["candidates"] for chunk in chunks]


def test_an_error_ends_the_array_and_a_cut_leaves_it_open(provider: Running) -> None:
    body = {"contents": [{"parts": [{"text": "Say hello."}]}]}
    path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"

    _, data = provider.request("POST", path, body, x_goog_api_key=KEY, x_demo_fault="error-after=2")
    with pytest.raises(http.client.IncompleteRead) as cut:
        provider.request("POST", path, body, x_goog_api_key=KEY, x_demo_fault="after=2")

    assert json.loads(data)[-1]["error"]["status"] == "UNAVAILABLE"
    assert len(json.loads(data)) == 3
    assert len(json.loads(cut.value.partial + b"]")) == 2


def test_geminis_errors_are_the_sdks_own(provider: Running) -> None:
    with pytest.raises(genai_errors.ClientError) as raised:
        gemini(provider, x_demo_fault="status=429").models.generate_content(
            model="gemini-2.5-flash", contents="Hi."
        )
    assert raised.value.status == "RESOURCE_EXHAUSTED"

    with pytest.raises(genai_errors.ClientError) as missing:
        gemini(provider).models.count_tokens(model="gemini-2.5-flash", contents="Hi.")
    assert missing.value.code == 404


# --- Bedrock ---


def test_converse_answers_what_the_sdk_expects(provider: Running) -> None:
    arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0"
    with bedrock(provider) as client:
        answer = client.converse(
            modelId=arn,
            messages=CONVERSE,
            system=[{"text": "Be brief."}],
            inferenceConfig={"maxTokens": 7},
        )

    (block,) = answer["output"]["message"]["content"]
    assert len(block["text"].split()) == answer["usage"]["outputTokens"] == 7
    assert answer["stopReason"] == "max_tokens"
    assert booked(provider, "api", "model", "output_tokens") == ("bedrock_converse", arn, 7)
    assert booked(provider, "input_tokens") == (answer["usage"]["inputTokens"],)
    assert booked(provider, "foreign_credential_names") == ([],)


def test_a_converse_stream_is_real_frames(provider: Running) -> None:
    with bedrock(provider, x_demo_output_tokens="8") as client:
        answer = client.converse_stream(
            modelId="amazon.nova-lite-v1:0",
            messages=CONVERSE,
            additionalModelRequestFields={"thinking": {"type": "enabled"}},
        )
        events = list(answer["stream"])

    kinds = [next(iter(event)) for event in events]
    assert (kinds[0], kinds[-2], kinds[-1]) == ("messageStart", "messageStop", "metadata")
    assert kinds.count("contentBlockDelta") == 8 + 1
    assert events[-1]["metadata"]["usage"]["outputTokens"] == 8
    assert booked(provider, "stream", "output_tokens", "chunks_sent") == (True, 8, 8)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_converse_uses_a_tool(provider: Running, is_streamed: bool) -> None:  # noqa: FBT001 - a parameter of cases
    spec = {"toolSpec": {"name": "get_weather", "inputSchema": {"json": PARAMETERS}}}
    asked: dict[str, Any] = {
        "modelId": "amazon.nova-lite-v1:0",
        "messages": CONVERSE,
        "toolConfig": {"tools": [spec], "toolChoice": {"any": {}}},
    }

    with bedrock(provider) as client:
        if is_streamed:
            deltas = [
                event["contentBlockDelta"]["delta"]["toolUse"]["input"]
                for event in client.converse_stream(**asked)["stream"]
                if "contentBlockDelta" in event
            ]
            arguments = json.loads("".join(deltas))
        else:
            (block,) = client.converse(**asked)["output"]["message"]["content"]
            arguments = block["toolUse"]["input"]

    assert arguments["days"] == 7


def test_bedrocks_errors_are_the_sdks_own(provider: Running) -> None:
    with (
        bedrock(provider, x_demo_fault="status=429") as client,
        pytest.raises(client.exceptions.ThrottlingException),
    ):
        client.converse(modelId="amazon.nova-lite-v1:0", messages=CONVERSE)

    with bedrock(provider, x_demo_fault="error-after=2") as client:
        stream = client.converse_stream(modelId="amazon.nova-lite-v1:0", messages=CONVERSE)["stream"]
        with (
            closing(stream),
            pytest.raises(botocore.exceptions.EventStreamError, match="internalServerException"),
        ):
            list(stream)
    assert booked(provider, "completed", "output_tokens") == (False, 2)


def test_frames_that_are_garbage_are_noticed(provider: Running) -> None:
    path = "/model/amazon.nova-lite-v1:0/converse-stream"

    _, data = send(provider, path, {"messages": CONVERSE}, x_demo_fault="garbage")

    frames = botocore.eventstream.EventStreamBuffer()
    frames.add_data(data)
    with pytest.raises(botocore.eventstream.ParserError):
        list(frames)


# --- Ollama and Cohere ---


def ollama(provider: Running, body: dict[str, Any], **headers: str) -> bytes:
    said = {"model": "llama3", "messages": HELLO} | body
    return provider.request("POST", "/api/chat", said, authorization=f"Bearer {KEY}", **headers)[1]


def test_ollama_streams_lines_unless_told_otherwise(provider: Running) -> None:
    lines = [json.loads(line) for line in ollama(provider, {}, x_demo_output_tokens="5").splitlines()]
    whole = json.loads(ollama(provider, {"stream": False}, x_demo_output_tokens="5"))

    assert [line["done"] for line in lines] == [False] * 5 + [True]
    assert lines[-1]["eval_count"] == whole["eval_count"] == 5
    assert len(whole["message"]["content"].split()) == 5
    assert booked(provider, "api", "input_tokens") == ("ollama", whole["prompt_eval_count"])


def test_ollama_thinks_calls_tools_and_is_cut(provider: Running) -> None:
    thought = json.loads(ollama(provider, {"stream": False, "think": True}))
    called = ollama(provider, {"tools": [TOOL]}, x_demo_tool="get_weather").splitlines()
    cut = json.loads(ollama(provider, {"stream": False, "options": {"num_predict": 3}}))
    unbounded = json.loads(ollama(provider, {"stream": False, "options": {"num_predict": -1}}))

    assert len(thought["message"]["thinking"].split()) == 8
    (call,) = json.loads(called[0])["message"]["tool_calls"]
    assert call["function"]["arguments"]["days"] == 7
    assert (cut["done_reason"], cut["eval_count"]) == ("length", 3)
    assert (unbounded["done_reason"], unbounded["eval_count"]) == ("stop", 32)


def cohere(provider: Running, body: dict[str, Any], **headers: str) -> bytes:
    said = {"model": "command-a-03-2025", "messages": HELLO} | body
    return provider.request("POST", "/v2/chat", said, authorization=f"Bearer {KEY}", **headers)[1]


def test_cohere_bills_less_than_it_reads(provider: Running) -> None:
    answer = json.loads(cohere(provider, {"max_tokens": 6}))
    (entry,) = provider.books()["entries"]

    usage = answer["usage"]
    assert answer["finish_reason"] == "MAX_TOKENS"
    assert usage["billed_units"] == {"input_tokens": entry["input_tokens"], "output_tokens": 6}
    assert usage["tokens"]["input_tokens"] > usage["billed_units"]["input_tokens"]


def test_a_cohere_stream_adds_up_to_its_answer(provider: Running) -> None:
    asked = {"thinking": {"type": "enabled"}}

    whole = json.loads(cohere(provider, asked, x_demo_output_tokens="8"))
    data = cohere(provider, asked | {"stream": True}, x_demo_output_tokens="8")

    *events, done = [event.partition(b"data: ")[2] for event in data.split(b"\n\n")[:-1]]
    said = [json.loads(event) for event in events]
    assert done == b"[DONE]"
    assert [said[0]["type"], said[-1]["type"]] == ["message-start", "message-end"]
    assert said[-1]["delta"]["usage"]["billed_units"]["output_tokens"] == 8
    assert [block["type"] for block in whole["message"]["content"]] == ["thinking", "text"]
    assert booked(provider, "stream", "chunks_sent") == (True, 8)


def test_cohere_calls_a_required_tool(provider: Running) -> None:
    asked = {"tools": [TOOL], "tool_choice": "REQUIRED"}

    answer = json.loads(cohere(provider, asked))
    streamed = cohere(provider, asked | {"stream": True})

    (call,) = answer["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"])["days"] == 7
    assert answer["finish_reason"] == "TOOL_CALL"
    assert b"tool-call-delta" in streamed


# --- what all of them have in common ---

CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/responses", {"model": "gpt-5", "input": "Hi."}),
    ("/v1/completions", {"model": "davinci-002", "prompt": "Hi."}),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "Hi."}),
    ("/v1beta/models/gemini-2.5-flash:generateContent", {"contents": [{"parts": [{"text": "Hi."}]}]}),
    ("/model/amazon.nova-lite-v1:0/converse", {"messages": CONVERSE}),
    ("/api/chat", {"model": "llama3", "messages": HELLO, "stream": False}),
    ("/v2/chat", {"model": "command-a-03-2025", "messages": HELLO}),
)
STREAMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/responses", {"model": "gpt-5", "input": "Hi.", "stream": True}),
    (
        "/v1/completions",
        {
            "model": "davinci-002",
            "prompt": "Hi.",
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    (
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        {"contents": [{"parts": [{"text": "Hi."}]}]},
    ),
    ("/model/amazon.nova-lite-v1:0/converse-stream", {"messages": CONVERSE}),
    ("/api/chat", {"model": "llama3", "messages": HELLO}),
    ("/v2/chat", {"model": "command-a-03-2025", "messages": HELLO, "stream": True}),
)


def send(provider: Running, path: str, body: dict[str, Any], **headers: str) -> tuple[Any, bytes]:
    return provider.request("POST", path, body, authorization=f"Bearer {KEY}", **headers)


def without_time(data: bytes) -> object:
    answer = json.loads(data)
    unstable = ("id", "created", "created_at", "responseId", "output", "message")
    return {name: value for name, value in answer.items() if name not in unstable}


def counts(value: Any) -> list[int]:
    """Every figure that a body calls tokens, or the like."""
    if isinstance(value, list):
        return [count for item in value for count in counts(item)]
    if not isinstance(value, dict):
        return []
    own = [item for name, item in value.items() if re.search("(?i)tokens?|eval_count", name)]
    return [item for item in own if isinstance(item, int)] + counts(list(value.values()))


@pytest.mark.parametrize(("path", "body"), CALLS)
def test_every_dialect_needs_the_key_and_answers_the_same_again(
    provider: Running, path: str, body: dict[str, Any]
) -> None:
    refused, _ = provider.request("POST", path, body)
    (first, one), (_, two) = send(provider, path, body), send(provider, path, body)

    assert (refused.status, first.status) == (401, 200)
    assert without_time(one) == without_time(two)
    assert booked(provider, "completed", "foreign_credential_names") == (True, [])


@pytest.mark.parametrize(("path", "body"), CALLS)
@pytest.mark.parametrize("fault", ["no-usage", "usage=null", "usage=zero"])
def test_every_dialect_can_withhold_its_usage(
    provider: Running, path: str, body: dict[str, Any], fault: str
) -> None:
    _, honest = send(provider, path, body)
    response, data = send(provider, path, body, x_demo_fault=fault)

    assert response.status == 200
    assert any(counts(json.loads(honest)))
    assert not any(counts(json.loads(data)))
    assert bool(counts(json.loads(data))) is (fault == "usage=zero")
    assert provider.entry()["input_tokens"] > 0


@pytest.mark.parametrize(("path", "body"), CALLS)
@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_every_dialect_fails_as_asked(
    provider: Running, path: str, body: dict[str, Any], status: int
) -> None:
    response, data = send(provider, path, body, x_demo_fault=f"status={status}")

    assert response.status == status
    assert "asked for by x-demo-fault" in json.dumps(json.loads(data))
    assert booked(provider, "status", "input_tokens") == (status, 0)


@pytest.mark.parametrize(("path", "body"), STREAMS)
@pytest.mark.parametrize("chunks", [0, 1, 5])
def test_every_cut_stream_books_what_was_generated(
    provider: Running, path: str, body: dict[str, Any], chunks: int
) -> None:
    with pytest.raises(http.client.IncompleteRead):
        send(provider, path, body, x_demo_fault=f"after={chunks}")

    assert booked(provider, "completed", "chunks_sent", "output_tokens") == (False, chunks, chunks)


@pytest.mark.parametrize(("path", "body"), STREAMS)
def test_every_stream_can_be_garbage(provider: Running, path: str, body: dict[str, Any]) -> None:
    response, data = send(provider, path, body, x_demo_fault="garbage")

    assert response.status == 200
    assert data.endswith(b"\n")
    assert booked(provider, "output_tokens") == (32,)


# --- what the sidecar makes of them ---


@pytest.mark.parametrize(("path", "body"), [*CALLS, *STREAMS])
def test_the_sidecar_reads_what_the_books_say(provider: Running, path: str, body: dict[str, Any]) -> None:
    call = claimed(path)
    assert call is not None

    response, data = send(provider, path, body)

    entry = provider.entry()
    headers = {"content-type": response.getheader("content-type")}
    seen = observed(call.api, data, headers=headers, operation=call.operation)
    assert entry["api"] == call.api
    assert seen.usage is not None
    assert (seen.usage.input_tokens, seen.usage.output_tokens or 0) == (
        entry["input_tokens"],
        entry["output_tokens"],
    )
    assert seen.finished


@pytest.mark.parametrize(("path", "body"), CALLS)
def test_the_sidecar_expects_the_input_that_is_booked(
    provider: Running, tokenizer: Tokenizer, path: str, body: dict[str, Any]
) -> None:
    call = claimed(path)
    assert call is not None
    parsed = FORMATS[call.api].parse_request(body, call)

    send(provider, path, body)

    estimate = tokenizer.estimate(
        parsed.prompt, provider=call.provider, model=parsed.request.model, declared_max_output=None
    )
    assert booked(provider, "input_tokens") == (estimate.input,)
