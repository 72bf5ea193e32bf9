"""Each API by its own SDK, or by plain HTTP, through the real Envoy: allowed, settled, denied."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import botocore.session  # type: ignore[import-untyped]  # AWS ships no types
import httpx2 as httpx
import openai
import pytest
from botocore import UNSIGNED
from botocore.config import Config  # type: ignore[import-untyped]  # as above
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # as above
from google import genai
from google.genai import errors, types

from tests.e2e.callers import Caller, only, settlements
from tests.e2e.test_requests import HELLO, OPENAI, wait_until

DENIED = "o1-pro"
TEXT = "Say hello."
CONTENT = [{"role": "user", "content": [{"text": TEXT}]}]
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": TEXT}]}]}
GENERATE = "/v1beta/models/gemini-2.5-flash:generateContent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What an SDK's own exception says of a refusal."""

    status: int
    kind: str  # the vendor's word for it
    message: str
    headers: Any


# --- one function an API: what was said, or `Refusal`


class Refusal(Exception):
    """The SDK raised its own exception, and this is what it held."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed)
        self.failed = failed


def by_openai(call: Callable[[openai.OpenAI], str]) -> Callable[[Caller], str]:
    def ask(caller: Caller) -> str:
        with caller.openai() as client:
            try:
                return call(client)
            except openai.APIStatusError as error:
                raise Refusal(
                    Failed(
                        status=error.status_code,
                        kind=type(error).__name__,
                        message=error.message,
                        headers=error.response.headers,
                    )
                ) from None

    return ask


def responses(model: str) -> Callable[[Caller], str]:
    return by_openai(lambda client: client.responses.create(model=model, input=TEXT).output_text)


def streamed_responses(model: str) -> Callable[[Caller], str]:
    def call(client: openai.OpenAI) -> str:
        with client.responses.stream(model=model, input=TEXT) as stream:
            return stream.get_final_response().output_text

    return by_openai(call)


def completions(model: str) -> Callable[[Caller], str]:
    return by_openai(lambda client: client.completions.create(model=model, prompt=TEXT).choices[0].text)


def streamed_completions(model: str) -> Callable[[Caller], str]:
    def call(client: openai.OpenAI) -> str:
        chunks = client.completions.create(model=model, prompt=TEXT, stream=True)
        return "".join(chunk.choices[0].text for chunk in chunks)

    return by_openai(call)


def embeddings(model: str) -> Callable[[Caller], str]:
    return by_openai(
        lambda client: str(client.embeddings.create(model=model, input=[TEXT, TEXT]).data[1].embedding[0])
    )


def by_google(call: Callable[[Any], str]) -> Callable[[Caller], str]:
    def ask(caller: Caller) -> str:
        options = types.HttpOptions(base_url=caller.stack.gateway_url)
        with genai.Client(api_key=caller.key, http_options=options) as client:
            try:
                return call(client.models)
            except errors.APIError as error:
                raise Refusal(
                    Failed(
                        status=error.code,
                        kind=str(error.status),
                        message=str(error.message),
                        headers=error.response.headers,
                    )
                ) from None

    return ask


def generate_content(model: str) -> Callable[[Caller], str]:
    return by_google(lambda models: str(models.generate_content(model=model, contents=TEXT).text))


def streamed_generate_content(model: str) -> Callable[[Caller], str]:
    return by_google(
        lambda models: "".join(
            chunk.text or "" for chunk in models.generate_content_stream(model=model, contents=TEXT)
        )
    )


def by_aws(call: Callable[[Any], str]) -> Callable[[Caller], str]:
    """The gateway's key takes the place of an API key for Bedrock, which the SDK shows by TLS alone."""

    def ask(caller: Caller) -> str:
        client = bedrock(caller, "authorization", f"Bearer {caller.key}", signature_version=UNSIGNED)
        try:
            return call(client)
        except ClientError as error:
            answer = error.response["ResponseMetadata"]
            raise Refusal(
                Failed(
                    status=answer["HTTPStatusCode"],
                    kind=error.response["Error"]["Code"],
                    message=error.response["Error"]["Message"],
                    headers=answer["HTTPHeaders"],
                )
            ) from None

    return ask


def bedrock(caller: Caller, header: str, value: str, **settings: Any) -> Any:
    """A client that sends one more header and does not try again."""
    client = botocore.session.Session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=caller.stack.gateway_url,
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, **settings),
    )
    client.meta.events.register(
        "before-call.bedrock-runtime", lambda params, **_: params["headers"].update({header: value})
    )
    return client


def converse(model: str) -> Callable[[Caller], str]:
    def call(client: Any) -> str:
        answer = client.converse(modelId=model, messages=CONTENT)
        return str(answer["output"]["message"]["content"][0]["text"])

    return by_aws(call)


def converse_stream(model: str) -> Callable[[Caller], str]:
    def call(client: Any) -> str:
        stream = client.converse_stream(modelId=model, messages=CONTENT)["stream"]
        deltas = [event["contentBlockDelta"]["delta"] for event in stream if "contentBlockDelta" in event]
        return "".join(delta["text"] for delta in deltas)

    return by_aws(call)


def by_http(path: str, body: dict[str, Any], read: Callable[[str], str]) -> Callable[[Caller], str]:
    def ask(caller: Caller) -> str:
        with caller.http() as client:
            answer = client.post(path, json=body)
        if answer.is_success:
            return read(answer.text)
        told = answer.json()
        raise Refusal(
            Failed(
                status=answer.status_code,
                kind="message" if "message" in told else "error",
                message=told.get("message") or told["error"],
                headers=answer.headers,
            )
        )

    return ask


def ollama(model: str) -> Callable[[Caller], str]:
    body = {"model": model, "messages": HELLO, "stream": False}
    return by_http("/api/chat", body, lambda text: str(json.loads(text)["message"]["content"]))


def streamed_ollama(model: str) -> Callable[[Caller], str]:
    def read(text: str) -> str:
        return "".join(json.loads(line)["message"]["content"] for line in text.splitlines())

    return by_http("/api/chat", {"model": model, "messages": HELLO}, read)


def cohere(model: str) -> Callable[[Caller], str]:
    body = {"model": model, "messages": HELLO}
    return by_http("/v2/chat", body, lambda text: str(json.loads(text)["message"]["content"][0]["text"]))


def streamed_cohere(model: str) -> Callable[[Caller], str]:
    def read(text: str) -> str:
        events = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data: {")]
        deltas = [
            event["delta"]["message"]["content"] for event in events if event["type"] == "content-delta"
        ]
        return "".join(delta["text"] for delta in deltas)

    return by_http("/v2/chat", body={"model": model, "messages": HELLO, "stream": True}, read=read)


@dataclass(frozen=True, slots=True, kw_only=True)
class API:
    """One way to ask."""

    ask: Callable[[str], Callable[[Caller], str]]  # by model
    model: str  # allowed
    scarce: str  # allowed once a minute
    forbidden: str  # what a 403 is to this API's clients
    limited: str  # and a 429
    generates: bool = True


RESPONSES = API(
    ask=responses,
    model=OPENAI,
    scarce="gpt-4.1",
    forbidden="PermissionDeniedError",
    limited="RateLimitError",
)
EMBEDDINGS = replace(
    RESPONSES,
    ask=embeddings,
    model="text-embedding-3-small",
    scarce="text-embedding-3-large",
    generates=False,
)
GEMINI = API(
    ask=generate_content,
    model="gemini-2.5-flash",
    scarce="gemini-2.5-pro",
    forbidden="PERMISSION_DENIED",
    limited="RESOURCE_EXHAUSTED",
)
CONVERSE = API(
    ask=converse,
    model="us.amazon.nova-micro-v1:0",
    scarce="us.amazon.nova-pro-v1:0",
    forbidden="AccessDeniedException",
    limited="ThrottlingException",
)
OLLAMA = API(ask=ollama, model="llama3.2", scarce="llama3.1", forbidden="error", limited="error")
COHERE = API(
    ask=cohere,
    model="command-r-08-2024",
    scarce="command-a-03-2025",
    forbidden="message",
    limited="message",
)

APIS: dict[str, API] = {
    "responses": RESPONSES,
    "responses, streamed": replace(RESPONSES, ask=streamed_responses),
    "completions": replace(RESPONSES, ask=completions),
    "completions, streamed": replace(RESPONSES, ask=streamed_completions),
    "embeddings": EMBEDDINGS,
    "gemini": GEMINI,
    "gemini, streamed": replace(GEMINI, ask=streamed_generate_content),
    "converse": CONVERSE,
    "converse, streamed": replace(CONVERSE, ask=converse_stream),
    "ollama": OLLAMA,
    "ollama, streamed": replace(OLLAMA, ask=streamed_ollama),
    "cohere": COHERE,
    "cohere, streamed": replace(COHERE, ask=streamed_cohere),
}

# Policies are the same whatever Envoy it is; who reads the usage is not.
BOTH = only("native-1.40.0", "stream-1.38.3")
ONE = only("native-1.40.0")


@BOTH
@pytest.mark.parametrize("name", APIS)
def test_an_answer_arrives_and_costs_what_the_provider_booked(caller: Caller, name: str) -> None:
    api = APIS[name]

    said = api.ask(api.model)(caller)

    (entry,) = caller.stack.books()["entries"][-1:]
    assert said
    assert (entry["model"], entry["stream"]) == (api.model, "streamed" in name)
    assert (entry["output_tokens"] > 0) is api.generates
    assert entry["foreign_credential_names"] == []
    spent = entry["input_tokens"] + entry["output_tokens"]
    wait_until(lambda: caller.tokens_used() == spent, f"{spent} tokens are settled")


@ONE
@pytest.mark.parametrize("name", APIS)
def test_a_model_that_is_not_offered_is_the_sdks_own_exception(caller: Caller, name: str) -> None:
    api = APIS[name]

    with pytest.raises(Refusal) as refused:
        api.ask(DENIED)(caller)

    failed = refused.value.failed
    assert (failed.status, failed.kind) == (403, api.forbidden)
    assert "AccessRule/no-o1-pro" in failed.message
    assert failed.headers["x-ai-policy-decision-id"] in failed.message
    assert failed.headers["content-type"].startswith("application/json")
    assert caller.tokens_used() == 0


@ONE
@pytest.mark.parametrize("name", APIS)
def test_a_limit_that_is_used_up_is_the_sdks_own_exception_and_says_when(caller: Caller, name: str) -> None:
    api = APIS[name]
    api.ask(api.scarce)(caller)

    with pytest.raises(Refusal) as refused:
        api.ask(api.scarce)(caller)

    failed = refused.value.failed
    assert (failed.status, failed.kind) == (429, api.limited)
    assert "RateLimit/one-a-minute" in failed.message
    exact_s = int(failed.headers["retry-after-ms"]) / 1000
    assert 30 < exact_s <= int(failed.headers["retry-after"]) <= 60
    assert f"Please try again in {exact_s:g}s" in failed.message


@ONE
def test_gemini_is_told_when_to_come_back_in_its_own_words(caller: Caller) -> None:
    with caller.http() as client:
        path = "/v1beta/models/gemini-2.5-pro:generateContent"
        client.post(path, json=CONTENTS)
        denied = client.post(path, json=CONTENTS)

    details = {each["@type"].rpartition(".")[2]: each for each in denied.json()["error"]["details"]}
    assert details["RetryInfo"]["retryDelay"] == denied.headers["retry-after"] + "s"
    assert details["QuotaFailure"]["violations"][0]["quotaId"] == "RequestsPerMinute"


# --- callers who leave


LEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "responses": ("/v1/responses", {"model": OPENAI, "input": TEXT, "stream": True}),
    "gemini": ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", CONTENTS),
    "converse": ("/model/us.amazon.nova-micro-v1:0/converse-stream", {"messages": CONTENT}),
    "ollama": ("/api/chat", {"model": "llama3.2", "messages": HELLO}),
}


@BOTH
@pytest.mark.parametrize("name", LEFT)
def test_a_client_that_leaves_mid_stream_is_charged_and_not_zero(caller: Caller, name: str) -> None:
    path, body = LEFT[name]
    paced = {"x-demo-output-tokens": "200", "x-demo-interval-ms": "50"}
    before = settlements(caller.stack)
    with caller.http(**paced) as client, client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        next(answer.iter_bytes())

    wait_until(lambda: settlements(caller.stack) != before, "settled")
    (basis,) = settlements(caller.stack) - before
    assert basis in {"bytes", "tokenizer", "partial", "reserved"}
    assert caller.tokens_used() > 0


# --- where a key may travel


@BOTH
@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key", "x-goog-api-key", "?key="])
def test_a_key_is_found_where_the_vendors_put_it_and_goes_no_further(caller: Caller, header: str) -> None:
    is_query = header == "?key="
    value = f"Bearer {caller.key}" if header == "authorization" else caller.key
    answer = httpx.post(
        caller.stack.gateway_url + GENERATE,
        params={"key": caller.key} if is_query else {},
        headers={} if is_query else {header: value},
        json=CONTENTS,
    )

    (entry,) = caller.stack.books()["entries"][-1:]
    assert answer.status_code == 200, answer.text
    assert (entry["credential_header_names"], entry["foreign_credential_names"]) == (["x-goog-api-key"], [])
    assert entry["query_names"] == []
    wait_until(lambda: caller.tokens_used() > 0, "the team's budget pays")


@ONE
def test_a_request_that_aws_signed_is_of_whoever_shows_a_key_beside(caller: Caller) -> None:
    """A signature is of a key that the gateway does not have; the provider's own goes upstream."""
    client = bedrock(caller, "x-api-key", caller.key)

    answer = client.converse(modelId="us.amazon.nova-micro-v1:0", messages=CONTENT)

    (entry,) = caller.stack.books()["entries"][-1:]
    assert answer["usage"]["totalTokens"] == entry["input_tokens"] + entry["output_tokens"]
    assert entry["foreign_credential_names"] == []


@ONE
def test_an_arn_is_a_models_name_all_the_way(caller: Caller) -> None:
    arn = "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0"

    assert converse(arn)(caller)

    (entry,) = caller.stack.books()["entries"][-1:]
    assert entry["model"] == arn


@ONE
def test_azures_sdk_reaches_a_deployment(caller: Caller) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=caller.stack.gateway_url,
        azure_deployment=OPENAI,
        api_key=caller.key,
        api_version="2024-10-21",
        max_retries=0,
    ) as client:
        answer = client.chat.completions.create(model=OPENAI, messages=HELLO)  # type: ignore[arg-type]  # plain dictionaries

    assert answer.usage is not None
    spent = answer.usage.total_tokens
    wait_until(lambda: caller.tokens_used() == spent, "settled as reported")
