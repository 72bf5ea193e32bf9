from typing import Any

import pytest

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.base import ParsedRequest
from tests.formats.calls import observed, parsed


def parse(body: dict[str, Any]) -> ParsedRequest:
    return parsed("/v1/moderations", body)


@pytest.mark.parametrize(
    ("given", "count", "modalities"),
    [
        ("one", 1, ("text",)),
        (["one", "two"], 2, ("text",)),
        (
            [
                {"type": "text", "text": "one"},
                {"type": "image_url", "image_url": {"url": "https://image.example/a.png"}},
            ],
            2,
            ("image", "text"),
        ),
    ],
)
def test_texts_and_parts_are_judged(given: Any, count: int, modalities: tuple[str, ...]) -> None:
    request = parse({"model": "Omni-Moderation-Latest", "input": given}).request

    assert (request.api, request.operation) == ("openai_moderations", "moderation")
    assert (request.model, request.message_count) == ("omni-moderation-latest", count)
    assert request.modalities == modalities


def test_the_model_may_be_left_to_the_api() -> None:
    request = parse({"input": "one"}).request

    assert (request.model, request.models) == ("", ())


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/input ", Reason.UNCLASSIFIED),
        ({"input": 5}, "/input ", Reason.BODY_MALFORMED),
        ({"input": [{"type": "text", "text": 5}]}, "/input/0/text ", Reason.BODY_MALFORMED),
    ],
)
def test_what_cannot_be_read_is_400_and_names_its_place(
    body: dict[str, Any], pointer: str, code: Reason
) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(body)

    assert caught.value.code == code
    assert caught.value.message.startswith(pointer)


def test_a_verdict_costs_what_the_provider_says_or_nobody_knows() -> None:
    verdict = observed("openai_moderations", b'{"id":"modr-1","model":"omni-moderation-latest","results":[]}')

    assert (verdict.finished, verdict.usage) == (True, None)
    assert (verdict.model, verdict.response_id) == ("omni-moderation-latest", "modr-1")
