"""Real exchanges, recorded by others: every request is understood, every usage found.

Expected figures are the provider's own usage objects; the arithmetic to inclusive counts is done
here a second time, from the providers' documentation.
"""

import base64
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import BodyKind, Call
from extproc.formats.body import answer_decoder
from extproc.formats.strict_json import parse_json
from extproc.model import AIRequest, Observation
from tests.formats.calls import claimed, observed, randomly_chunked

ROOT = Path(__file__).parent.parent.parent
CORPUS = ROOT.parent / "shared" / "corpus"

Exchange = dict[str, Any]
Totals = tuple[int, int] | None

pytestmark = pytest.mark.skipif(
    not CORPUS.is_dir(), reason="the recorded exchanges of ../shared/corpus are not on this machine"
)

# The recorded requests whose body is itself the fault: max_tokens is -1, and OpenAI said 400.
FAULTY = ("chat-bad-request.yaml#0", "completion-bad-request.yaml#0")
# Their dialects are their own, whatever the operation is called.
OTHER_DIALECTS = ("api.writer.com", "api.aleph-alpha.com")
EVERYBODY = ("openai", "azure", "groq", "deepseek", "openrouter", "mistral", "other")


def by_prompt(usage: dict[str, Any]) -> Totals:
    return usage["prompt_tokens"], usage["total_tokens"] - usage["prompt_tokens"]


def by_input(usage: dict[str, Any]) -> Totals:
    return usage["input_tokens"], usage["output_tokens"]


def by_total(usage: dict[str, Any]) -> Totals:
    """Nothing is generated, so that all of it is input."""
    return usage["total_tokens"], 0


def with_cache(usage: dict[str, Any]) -> Totals:
    cached = (usage.get("cache_creation_input_tokens"), usage.get("cache_read_input_tokens"))
    return usage["input_tokens"] + sum(filter(None, cached)), usage["output_tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operation of some providers, and what it must be taken for."""

    recorded: str  # the operation as the recordings name it
    api: str
    operation: str
    count: int
    with_usage: int = 0
    totals: Callable[[dict[str, Any]], Totals] = by_prompt
    providers: tuple[str, ...] = EVERYBODY

    def exchanges(self) -> list[Exchange]:
        found = [
            each
            for each in exchanges()
            if (each["operation"], each["provider"] in self.providers) == (self.recorded, True)
            and urlsplit(each["url"]).netloc not in OTHER_DIALECTS
            and not each["id"].endswith(FAULTY)
        ]
        assert len(found) == self.count
        return found


SPENDING = (
    Row(recorded="chat", api="openai_chat", operation="chat", count=412, with_usage=316),
    Row(
        recorded="completions", api="openai_completions", operation="text_completion", count=67, with_usage=46
    ),
    Row(
        recorded="responses",
        api="openai_responses",
        operation="chat",
        count=85,
        with_usage=84,
        totals=by_input,
    ),
    Row(
        recorded="embeddings",
        api="openai_embeddings",
        operation="embeddings",
        count=44,
        with_usage=39,
        totals=by_total,
    ),
    Row(recorded="rerank", api="rerank", operation="rerank", count=2, with_usage=2, totals=by_total),
    Row(recorded="threads.runs", api="openai_assistants", operation="invoke_agent", count=17, with_usage=6),
    Row(
        recorded="messages",
        api="anthropic_messages",
        operation="chat",
        count=43,
        with_usage=43,
        totals=with_cache,
        providers=("anthropic",),
    ),
)
CONTROL = (
    Row(recorded="assistants", api="openai_assistants", operation="control", count=20),
    Row(recorded="threads", api="openai_assistants", operation="control", count=16),
    Row(recorded="threads.messages", api="openai_assistants", operation="control", count=27),
    Row(recorded="threads.runs.object", api="openai_assistants", operation="control", count=22),
)
spending = pytest.mark.parametrize("row", SPENDING, ids=lambda row: row.recorded)
every_row = pytest.mark.parametrize("row", [*SPENDING, *CONTROL], ids=lambda row: row.recorded)


@cache
def exchanges() -> tuple[Exchange, ...]:
    return tuple(
        json.loads(line)
        for path in sorted(CORPUS.glob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    )


def call_of(each: Exchange) -> Call:
    url = urlsplit(each["url"])
    path = f"{url.path}?{url.query}" if url.query else url.path
    call = claimed(path, method=each["method"], host=url.netloc, headers=each["request_headers"])
    assert call is not None, each["id"]
    return call


def request_of(each: Exchange) -> AIRequest | None:
    """What the body asks for; None for a call without one."""
    call, data = call_of(each), base64.b64decode(each["request_body_b64"] or "")
    if call.body is BodyKind.NONE:
        assert not data, each["id"]
        return None
    return FORMATS[call.api].parse_request(parse_json(data), call).request


def observations(api: str, each: Exchange) -> tuple[Observation, Observation]:
    """The answer observed whole and in pieces of random size."""
    data = base64.b64decode(each["response_body_b64"])
    return _observed(api, each, [data]), _observed(api, each, randomly_chunked(data, each["id"]))


def _observed(api: str, each: Exchange, pieces: list[bytes]) -> Observation:
    decoder = answer_decoder(each["response_headers"].get("content-encoding", ""))
    assert decoder is not None, each["id"]
    decoded = [decoder.feed(piece) for piece in pieces]
    assert not decoder.is_broken, each["id"]
    return observed(api, *decoded, headers=each["response_headers"])


def seen_totals(seen: Observation) -> Totals:
    if seen.usage is None:
        return None
    assert seen.usage.input_tokens is not None
    assert seen.usage.output_tokens is not None
    return seen.usage.input_tokens, seen.usage.output_tokens


@every_row
def test_every_request_is_understood(row: Row) -> None:
    for each in row.exchanges():
        call = call_of(each)
        assert (call.api, call.operation) == (row.api, row.operation), each["id"]
        if request := request_of(each):
            assert request.stream is each["expected"]["stream"], each["id"]
            assert request.model == (each["expected"]["model_request"] or "").lower(), each["id"]


@spending
def test_every_usage_is_found_however_the_answer_is_cut(row: Row) -> None:
    with_usage = 0
    for each in row.exchanges():
        usage = each["expected"]["usage"]
        whole, pieces = observations(row.api, each)
        assert whole == pieces, each["id"]
        assert seen_totals(whole) == (row.totals(usage) if usage else None), each["id"]
        assert whole.model == (each["expected"]["model_response"] or ""), each["id"]
        assert bool(whole.error) is (each["status"] >= 400), each["id"]
        with_usage += usage is not None

    assert with_usage == row.with_usage


@spending
def test_every_answer_is_finished_but_those_of_runs_that_go_on(row: Row) -> None:
    for each in row.exchanges():
        goes_on = row.recorded == "threads.runs" and not each["expected"]["stream"]
        seen, _ = observations(row.api, each)
        assert (seen.finished, seen.is_legible) == (not goes_on, not goes_on), each["id"]


@pytest.mark.parametrize("row", SPENDING[:3], ids=lambda row: row.recorded)
def test_text_is_there_to_be_counted_where_usage_is_missing(row: Row) -> None:
    for each in row.exchanges():
        if each["status"] == 200 and each["expected"]["usage"] is None:
            assert observations(row.api, each)[0].output_text, each["id"]


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_request_is_refused_as_openai_did(name: str) -> None:
    (each,) = (each for each in exchanges() if each["id"].endswith(name))

    with pytest.raises(RequestRefused, match="/max_tokens"):
        request_of(each)
    assert each["status"] == 400


def test_a_deployment_of_azure_is_its_model_and_the_body_may_name_another() -> None:
    azure = [each for each in exchanges() if each["provider"] == "azure"]
    assert len(azure) == 56

    for each in azure:
        request = request_of(each)
        assert request is not None
        assert request.provider == "azure.ai.openai"
        deployment = urlsplit(each["url"]).path.split("/")[3]
        assert request.model == deployment, each["id"]
        named = json.loads(base64.b64decode(each["request_body_b64"])).get("model")
        assert set(request.models) == {deployment, named} - {None}, each["id"]
