"""Real exchanges with Bedrock, SageMaker and text-generation-inference, recorded by others.

Expected figures are the providers' own counts; the arithmetic to inclusive ones is done here a second
time, from the providers' documentation.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import Call
from extproc.formats.body import answer_decoder
from extproc.formats.strict_json import parse_json
from extproc.model import Observation
from tests.formats.calls import claimed, observed, randomly_chunked

CORPUS = Path(__file__).parent.parent.parent.parent / "shared" / "corpus"

Exchange = dict[str, Any]
Totals = tuple[int | None, int | None] | None

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="../shared/corpus is not on this machine")

APIS: Mapping[str, str] = {
    "converse": "bedrock_converse",
    "converse-stream": "bedrock_converse",
    "invoke": "bedrock_invoke",
    "invoke-stream": "bedrock_invoke",
    "sagemaker.invocations": "tgi",
    "tgi.generate": "tgi",
}
INPUTS = ("input_tokens", "inputTokens", "inputTextTokenCount", "prompt_token_count", "prompt_tokens")
INPUT_HEADER = "x-amzn-bedrock-input-token-count"
OUTPUTS = (
    *("output_tokens", "outputTokens", "totalOutputTextTokenCount", "generation_token_count"),
    *("completion_tokens", "generated_tokens"),
)
OUTPUT_HEADER = "x-amzn-bedrock-output-token-count"
CACHED = (
    *("cache_read_input_tokens", "cache_creation_input_tokens"),
    *("cacheReadInputTokens", "cacheWriteInputTokens"),
)


@cache
def exchanges() -> tuple[Exchange, ...]:
    found = (
        json.loads(line)
        for path in sorted(CORPUS.glob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    )
    return tuple(each for each in found if each["operation"] in APIS)


def call_of(each: Exchange) -> Call:
    url = urlsplit(each["url"])
    call = claimed(url.path, method=each["method"], host=url.netloc, headers=each["request_headers"])
    assert call is not None, each["id"]
    return call


def first(usage: Mapping[str, Any], *names: str) -> int | None:
    return next((int(usage[name]) for name in names if name in usage), None)


def totals(each: Exchange) -> Totals:
    """Inclusive counts of the recorded usage; what the body leaves out is in the headers."""
    usage, headers = each["expected"]["usage"], each["response_headers"]
    if usage is None:
        return None
    uncached = first(usage, *INPUTS, INPUT_HEADER) or first(headers, "x-prompt-tokens")
    output = sum(int(result["tokenCount"]) for result in usage.get("results", ())) or first(usage, *OUTPUTS)
    if output is None:
        output = first(usage, OUTPUT_HEADER) or first(headers, OUTPUT_HEADER)
    cached = sum(usage.get(name) or 0 for name in CACHED)
    return (None if uncached is None else uncached + cached), output


def observations(each: Exchange) -> list[Observation]:
    """The answer observed whole and in pieces of random size."""
    data = base64.b64decode(each["response_body_b64"])
    headers = each["response_headers"]
    seen: list[Observation] = []
    for pieces in ([data], randomly_chunked(data, each["id"])):
        decoder = answer_decoder(headers.get("content-encoding", ""))
        assert decoder is not None, each["id"]
        decoded = [decoder.feed(piece) for piece in pieces]
        seen.append(observed(APIS[each["operation"]], *decoded, headers=headers))
    return seen


def test_every_request_is_understood() -> None:
    assert len(exchanges()) == 109

    for each in exchanges():
        call = call_of(each)
        assert call.api == APIS[each["operation"]], each["id"]
        if not each["request_body_b64"]:
            continue
        body = parse_json(base64.b64decode(each["request_body_b64"]))
        request = FORMATS[call.api].parse_request(body, call).request
        model = each["expected"]["model_request"]
        assert request.stream is each["expected"]["stream"], each["id"]
        assert model is None or request.model == model.lower(), each["id"]
        assert request.model == "" or request.model in request.models, each["id"]
        assert request.operation in {"chat", "text_completion"}, each["id"]
        assert request.modalities == ("text",), each["id"]


def test_requests_without_a_body_are_recorded_refusals() -> None:
    """A model that does not exist was asked nothing at all, and Bedrock said 400."""
    without = [each for each in exchanges() if not each["request_body_b64"]]

    assert [each["status"] for each in without] == [400, 400]
    with pytest.raises(RequestRefused, match="needs a request body"):
        parse_json(b"")


def test_declared_ceilings_are_found() -> None:
    """Whatever a vendor calls it, a recorded ceiling stands somewhere in the body by itself."""
    names = (
        "max_tokens",
        "maxTokens",
        "max_new_tokens",
        "maxTokenCount",
        "max_gen_len",
        "max_tokens_to_sample",
    )
    found = 0
    for each in exchanges():
        body = json.loads(base64.b64decode(each["request_body_b64"]) or b"{}")
        inner = (body, *(value for value in body.values() if isinstance(value, dict)))
        declared = [holder[name] for holder in inner for name in names if name in holder]
        if not declared:
            continue
        call = call_of(each)
        request = FORMATS[call.api].parse_request(body, call).request
        assert [request.max_output_tokens] == declared, each["id"]
        found += 1

    assert found == 81


def test_every_usage_is_found() -> None:
    with_usage = 0
    for each in exchanges():
        expected = totals(each)
        whole, pieces = observations(each)
        assert whole == pieces, each["id"]
        seen = None if whole.usage is None else (whole.usage.input_tokens, whole.usage.output_tokens)
        assert seen == expected, each["id"]
        assert whole.model == (each["expected"]["model_response"] or ""), each["id"]
        assert whole.finished is ("stream_no_terminal_event" not in each["flags"]), each["id"]
        assert bool(whole.error) is (each["status"] >= 400), each["id"]
        assert bool(whole.output_text) is (each["status"] < 400), each["id"]
        with_usage += expected is not None

    assert with_usage == 104
