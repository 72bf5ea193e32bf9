"""Denials in AWS's dialect, and what its own SDK and Hugging Face's clients make of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session  # type: ignore[import-untyped]  # it has no types
import pytest
from botocore.config import Config  # type: ignore[import-untyped]  # it has no types
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # it has no types

from extproc.decision import Denial, Reason
from extproc.formats import FORMATS
from extproc.formats.classify import dialect
from tests.formats.calls import head
from tests.formats.test_denials import ID, denial, serving

BEDROCK, TGI = FORMATS["bedrock_converse"], FORMATS["tgi"]
RATE = denial(429, Reason.RATE_LIMITED, message="Please try again in 45.19s.", retry_after_ms=45_190)


@contextmanager
def client(service: str, address: str, attempts: int) -> Iterator[Any]:
    session = botocore.session.Session()
    session.set_credentials("AKIDEXAMPLE", "secret")
    config = Config(retries={"total_max_attempts": attempts, "mode": "standard"}, proxies={})
    made = session.create_client(service, region_name="us-east-1", endpoint_url=address, config=config)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("path", "headers", "name"),
    [
        ("/model/a/b", {}, "bedrock_converse"),
        ("/endpoints/a/invocations", {}, "tgi"),
        ("/endpoints/a/async-invocations", {}, "tgi"),
        ("/guardrail/a/version/1/apply", {"x-amz-date": "20260921T141320Z"}, "bedrock_converse"),
        ("/endpoints/a", {}, "openai_chat"),
    ],
)
def test_who_calls_as_aws_is_answered_as_aws(path: str, headers: dict[str, str], name: str) -> None:
    assert dialect(head(path, headers=headers)).name == name


def test_a_rate_denial_is_exact() -> None:
    reply = BEDROCK.render_denial(RATE)

    assert reply.status == 429
    assert reply.headers == {
        "content-type": "application/json",
        "x-ai-policy-decision-id": ID,
        "x-amzn-errortype": "ThrottlingException",
        "x-amzn-requestid": ID,
        "retry-after": "46",
        "retry-after-ms": "45190",
    }
    assert json.loads(reply.body) == {
        "message": f"Please try again in 45.19s. (decision {ID})",
        "reason": "rate_limited",
        "decision_id": ID,
        "retry_after": 46,
    }
    assert FORMATS["bedrock_invoke"].render_denial(RATE) == reply


DENIALS = [
    (denial(400, Reason.BODY_MALFORMED), "ValidationException", "validation"),
    (denial(401, Reason.CREDENTIAL_MISSING), "AccessDeniedException", "validation"),
    (denial(403, Reason.ACCESS_DENIED), "AccessDeniedException", "validation"),
    (denial(404, Reason.UNCLASSIFIED), "ResourceNotFoundException", "validation"),
    (denial(413, Reason.BODY_TOO_LARGE), "ValidationException", "validation"),
    (denial(415, Reason.ENCODING_UNSUPPORTED), "ValidationException", "validation"),
    (denial(429, Reason.RATE_LIMITED, retry_after_ms=60_000), "ThrottlingException", "overloaded"),
    (denial(429, Reason.RATE_LIMITED, retry_after_ms=60_001), "ServiceQuotaExceededException", "overloaded"),
    (denial(429, Reason.REQUEST_EXCEEDS_LIMIT), "ServiceQuotaExceededException", "overloaded"),
    (denial(500, Reason.POLICY_ERROR), "InternalServerException", "generation"),
    (denial(503, Reason.STORE_UNAVAILABLE), "ServiceUnavailableException", "generation"),
    (denial(504, Reason.DEADLINE_EXCEEDED), "InternalServerException", "generation"),
]


@pytest.mark.parametrize(("told", "exception", "_error_type"), DENIALS)
def test_botocore_raises_the_exception_of_each_status(told: Denial, exception: str, _error_type: str) -> None:
    with (
        serving(BEDROCK.render_denial(told)) as (address, asked),
        client("bedrock-runtime", address, attempts=1) as bedrock,
        pytest.raises(ClientError) as caught,
    ):
        bedrock.converse(
            modelId="anthropic.claude-v2", messages=[{"role": "user", "content": [{"text": "hi"}]}]
        )

    error = caught.value.response["Error"]
    assert (error["Code"], error["Message"]) == (exception, f"No. (decision {ID})")
    assert type(caught.value).__name__ == exception
    assert caught.value.response["ResponseMetadata"]["RequestId"] == ID
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == told.status
    assert asked == ["/model/anthropic.claude-v2/converse"]


@pytest.mark.parametrize(
    "operation", ["converse_stream", "invoke_model", "invoke_model_with_response_stream"]
)
def test_botocore_raises_on_every_operation(operation: str) -> None:
    content: dict[str, Any] = {"messages": []} if operation == "converse_stream" else {"body": b"{}"}
    with (
        serving(BEDROCK.render_denial(RATE)) as (address, _),
        client("bedrock-runtime", address, attempts=1) as bedrock,
        pytest.raises(ClientError) as caught,
    ):
        getattr(bedrock, operation)(modelId="anthropic.claude-v2", **content)

    assert caught.value.response["Error"]["Code"] == "ThrottlingException"


@pytest.mark.parametrize(
    ("told", "requests"),
    [
        (RATE, 2),
        (denial(429, Reason.RATE_LIMITED, retry_after_ms=3_600_000), 1),
        (denial(429, Reason.REQUEST_EXCEEDS_LIMIT), 1),
        (denial(403, Reason.ACCESS_DENIED), 1),
    ],
)
def test_botocore_retries_what_throttles_and_nothing_else(told: Denial, requests: int) -> None:
    with (
        serving(BEDROCK.render_denial(told)) as (address, asked),
        client("bedrock-runtime", address, attempts=2) as bedrock,
        pytest.raises(ClientError),
    ):
        bedrock.invoke_model(modelId="anthropic.claude-v2", body=b"{}")

    assert len(asked) == requests


def test_botocore_raises_on_a_sagemaker_endpoint_too() -> None:
    with (
        serving(TGI.render_denial(RATE, "aws.sagemaker")) as (address, asked),
        client("sagemaker-runtime", address, attempts=1) as sagemaker,
        pytest.raises(ClientError) as caught,
    ):
        sagemaker.invoke_endpoint(EndpointName="my-llama2", Body=b"{}")

    assert caught.value.response["Error"]["Code"] == "ThrottlingException"
    assert asked == ["/endpoints/my-llama2/invocations"]


@pytest.mark.parametrize(("told", "_exception", "error_type"), DENIALS)
def test_tgi_errors_are_a_sentence_and_a_type(told: Denial, _exception: str, error_type: str) -> None:
    body = json.loads(TGI.render_denial(told).body)

    assert (body["error"], body["error_type"]) == (f"No. (decision {ID})", error_type)
    assert body["reason"] == str(told.reason)
