import json
from typing import Any

import pytest

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.base import ParsedRequest
from extproc.model import PromptImage, Usage
from tests.formats.calls import claimed, observed, parsed

PIXELS = "iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAYAAAA10dzk"  # a PNG's beginning, 640 by 480


def parse(body: dict[str, Any], path: str = "/v1/embeddings") -> ParsedRequest:
    return parsed(path, {"model": "Text-Embedding-3-Small"} | body)


def test_a_body_is_read_in_the_words_of_policies() -> None:
    found = parse({"input": ["one", "two"], "dimensions": 256, "user": "hash-of-user-7"})
    request = found.request

    assert (request.api, request.operation) == ("openai_embeddings", "embeddings")
    assert (request.model, request.models) == ("text-embedding-3-small", ("text-embedding-3-small",))
    assert (request.message_count, request.choices, request.stream) == (2, 1, False)
    assert (request.end_user, request.modalities) == ("hash-of-user-7", ("text",))
    assert [(message.role, message.text) for message in found.prompt.messages] == [("", "one"), ("", "two")]


@pytest.mark.parametrize(
    ("body", "count", "ids", "modalities"),
    [
        ({"input": "one"}, 1, 0, ("text",)),
        ({"input": [1, 2, 3]}, 1, 3, ("text",)),
        ({"input": [[1, 2], [3]]}, 2, 3, ("text",)),
        ({"input": [{"text": "one"}, {"image": PIXELS}]}, 2, 0, ("image", "text")),
        ({"input": [{"type": "text", "text": "one"}]}, 1, 0, ("text",)),
        ({"input": [{"unheard": "of"}]}, 1, 0, ("text",)),
        ({"messages": [{"role": "user", "content": "one"}]}, 1, 0, ("text",)),
        ({"inputs": [["one", "two"], ["three"]]}, 2, 0, ("text",)),
        (
            {
                "inputs": [
                    {
                        "content": [
                            {"type": "text", "text": "one"},
                            {"type": "image_base64", "image_base64": PIXELS},
                        ]
                    }
                ]
            },
            1,
            0,
            ("image", "text"),
        ),
    ],
)
def test_inputs_of_every_kind_are_read(
    body: dict[str, Any], count: int, ids: int, modalities: tuple[str, ...]
) -> None:
    found = parse(body)

    assert (found.request.message_count, found.prompt.tokens) == (count, ids)
    assert found.request.modalities == modalities
    if "image" in modalities:
        assert found.prompt.images == (PromptImage(width_px=640, height_px=480),)


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/input ", Reason.UNCLASSIFIED),
        ({"input": 5}, "/input ", Reason.BODY_MALFORMED),
        ({"input": "one", "inputs": "two"}, "/inputs ", Reason.BODY_MALFORMED),
        ({"input": ["one", 2]}, "/input/1 ", Reason.BODY_MALFORMED),
        ({"input": [{"image": 5}]}, "/input/0/image ", Reason.BODY_MALFORMED),
        ({"input": [{"text": "one", "Text": "two"}]}, "/input/0 ", Reason.BODY_MALFORMED),
        ({"input": "one", "model": 5}, "/model ", Reason.BODY_MALFORMED),
    ],
)
def test_what_cannot_be_read_is_400_and_names_its_place(
    body: dict[str, Any], pointer: str, code: Reason
) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(body)

    assert (caught.value.status, caught.value.code) == (400, code)
    assert caught.value.message.startswith(pointer)


@pytest.mark.parametrize(
    ("path", "host", "provider"),
    [
        ("/v1/embeddings", "api.openai.com", "openai"),
        ("/v1/embeddings", "api.voyageai.com", "voyage_ai"),
        ("/v1/multimodalembeddings", "api.voyageai.com", "voyage_ai"),
        ("/v1/contextualizedembeddings", "api.voyageai.com", "voyage_ai"),
        ("/v1/embeddings", "api.jina.ai", "jina"),
        ("/openai/deployments/dep/embeddings", "x.openai.azure.com", "azure.ai.openai"),
    ],
)
def test_vendors_are_told_apart(path: str, host: str, provider: str) -> None:
    call = claimed(path, host=host)

    assert call is not None
    assert (call.api, call.operation, call.provider) == ("openai_embeddings", "embeddings", provider)


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(input_tokens=8, output_tokens=0)),
        ({"total_tokens": 8}, Usage(input_tokens=8, output_tokens=0)),
        ({"prompt_tokens": 0, "total_tokens": 0}, Usage(input_tokens=0, output_tokens=0)),
        (None, None),
        ({"text_tokens": "8"}, None),
    ],
)
def test_usage_is_input_alone(usage: Any, read: Usage | None) -> None:
    body = b'{"object":"list","model":"text-embedding-3-small","data":[{"embedding":[0.1]}],"usage":%s}'
    seen = observed("openai_embeddings", body % json.dumps(usage).encode())

    assert (seen.usage, seen.finished, seen.model) == (read, True, "text-embedding-3-small")
    assert not seen.output_text
