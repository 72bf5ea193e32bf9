import json
from typing import Any

import pytest

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.base import ParsedRequest
from extproc.model import Usage
from tests.formats.calls import claimed, observed, parsed

BODY: dict[str, Any] = {"model": "Rerank-2", "query": "which?", "documents": ["one", "two", "three"]}


def parse(body: dict[str, Any], path: str = "/v1/rerank") -> ParsedRequest:
    return parsed(path, body)


def texts(found: ParsedRequest) -> list[str]:
    return sorted(message.text for message in found.prompt.messages)


def test_every_document_is_counted_together_with_the_query() -> None:
    found = parse(BODY)
    request = found.request

    assert (request.api, request.operation, request.model) == ("rerank", "rerank", "rerank-2")
    assert (request.message_count, request.modalities) == (3, ("text",))
    assert texts(found) == ["one", "three", "two", "which?", "which?", "which?"]


@pytest.mark.parametrize(
    ("documents", "read"),
    [
        ([{"text": "one"}], "one"),
        ([{"title": "t", "text": "one"}], '{"title":"t","text":"one"}'),
        ([{"content": [{"type": "text", "text": "one"}]}], "one"),
        ({"content": [{"type": "text", "text": "one"}]}, "one"),
        ("one", "one"),
    ],
)
def test_a_document_may_be_an_object(documents: Any, read: str) -> None:
    found = parse(BODY | {"documents": documents})

    assert texts(found) == sorted([read, "which?"])
    assert found.request.message_count == 1


def test_a_document_may_be_an_image() -> None:
    assert parse(BODY | {"documents": [{"image": "aGk="}]}).request.modalities == ("image", "text")


@pytest.mark.parametrize("keys", [("queries", "documents"), ("data_1", "data_2"), ("text_1", "text_2")])
def test_scores_are_read_alike(keys: tuple[str, str]) -> None:
    found = parse({"model": "m", keys[0]: "which?", keys[1]: ["one", "two"]}, "/v1/score")

    assert texts(found) == ["one", "two", "which?", "which?"]


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"query": None}, "/query ", Reason.UNCLASSIFIED),
        ({"documents": None}, "/query ", Reason.UNCLASSIFIED),
        ({"model": None}, "/model ", Reason.BODY_MALFORMED),
        ({"query": 5}, "/query", Reason.BODY_MALFORMED),
        ({"documents": ["one", 5]}, "/documents/1 ", Reason.BODY_MALFORMED),
        ({"queries": "what?"}, "/queries ", Reason.BODY_MALFORMED),
        ({"documents": [{"text": "one", "TEXT": "two"}]}, "/documents/0 ", Reason.BODY_MALFORMED),
    ],
)
def test_what_cannot_be_read_is_400_and_names_its_place(
    change: dict[str, Any], pointer: str, code: Reason
) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(BODY | change)

    assert caught.value.code == code
    assert caught.value.message.startswith(pointer)


@pytest.mark.parametrize(
    ("path", "host", "provider"),
    [
        ("/v1/rerank", "api.voyageai.com", "voyage_ai"),
        ("/v1/rerank", "api.jina.ai", "jina"),
        ("/v1/rerank", "gateway.example", "vllm"),
        ("/v1/score", "gateway.example", "vllm"),
    ],
)
def test_vendors_are_told_apart(path: str, host: str, provider: str) -> None:
    call = claimed(path, host=host)

    assert call is not None
    assert (call.api, call.provider) == ("rerank", provider)


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ({"usage": {"total_tokens": 56}}, Usage(input_tokens=56, output_tokens=0)),
        ({"usage": {"prompt_tokens": 56, "total_tokens": 56}}, Usage(input_tokens=56, output_tokens=0)),
        ({"meta": {"tokens": {"input_tokens": 40}}}, Usage(input_tokens=40, output_tokens=0)),
        (
            {"meta": {"billed_units": {"input_tokens": 9}, "tokens": {"input_tokens": 40}}},
            Usage(input_tokens=9, output_tokens=0),
        ),
        ({"meta": {"billed_units": {"search_units": 1}}}, None),
        ([{"index": 0, "score": 0.9}], None),
    ],
)
def test_usage_is_input_alone(answer: Any, read: Usage | None) -> None:
    seen = observed("rerank", json.dumps(answer).encode())

    assert (seen.usage, seen.finished) == (read, True)


def test_a_long_query_is_not_written_out_for_every_document() -> None:
    # Written out, this would be ten gigabytes of text to count.
    found = parse({"model": "m", "query": "é" * 100_000, "documents": [""] * 50_000})

    assert len(found.prompt.messages) == 50_001
    assert found.prompt.tokens == 49_999 * 50_000
