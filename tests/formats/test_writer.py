import json
from typing import Any

import pytest

from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.model import Usage
from tests.formats.calls import SSE_ANSWER, claimed, observed, parsed, split_everywhere

HOST = "api.writer.com"
CHAT: dict[str, Any] = {"model": "Palmyra-X5", "messages": [{"role": "user", "content": "hi"}], "n": 2}


@pytest.mark.parametrize(
    ("method", "path", "host", "expected"),
    [
        ("POST", "/v1/chat", HOST, ("writer", "chat")),
        ("POST", "/v1/completions", HOST, ("writer", "text_completion")),
        ("GET", "/v1/models", HOST, ("openai_chat", "control")),
        ("GET", "/v1/chat", HOST, None),
        ("POST", "/v1/chat", "gateway.example", ("cohere_v1", "chat")),
    ],
)
def test_its_paths_are_its_own_only_at_its_host(
    method: str, path: str, host: str, expected: tuple[str, str] | None
) -> None:
    call = claimed(path, method=method, host=host)

    assert (call and (call.api, call.operation)) == expected


def test_its_bodies_are_openai_s() -> None:
    request = parsed("/v1/chat", CHAT, host=HOST).request

    assert (request.api, request.provider, request.model) == ("writer", "writer", "palmyra-x5")
    assert (request.choices, request.message_count) == (2, 1)
    assert parsed("/v1/completions", {"model": "m", "prompt": "p"}, host=HOST).prompt.messages[0].text == "p"
    with pytest.raises(RequestRefused, match=r"^/messages"):
        parsed("/v1/chat", {"model": "m", "message": "hi"}, host=HOST)


def test_a_streamed_chat_is_asked_for_usage_and_a_completion_is_not() -> None:
    for path, asked in (("/v1/chat", {"include_usage": True}), ("/v1/completions", None)):
        call = claimed(path, host=HOST)
        assert call is not None
        body = FORMATS["writer"].ask_for_usage(CHAT | {"stream": True, "prompt": "p"}, call)
        assert (body and body["stream_options"]) == asked


def test_only_the_chunk_we_asked_for_may_be_stripped() -> None:
    assert FORMATS["writer"].is_usage_chunk(b'{"choices":[],"usage":{"prompt_tokens":1}}')
    assert not FORMATS["writer"].is_usage_chunk(b'{"value":"x"}')


def test_values_of_a_streamed_completion_are_text_to_count() -> None:
    values = ("Sure", ", ", "here 🌍")
    data = b"".join(b"data: " + json.dumps({"value": value}).encode() + b"\n\n" for value in values)

    for chunks in split_everywhere(data):
        seen = observed("writer", *chunks, headers=SSE_ANSWER, operation="text_completion")
        assert (seen.output_text, seen.usage, seen.finished) == ("Sure, here 🌍", None, False)


def test_usage_of_a_streamed_chat_is_found() -> None:
    chunks = [
        {"id": "c", "model": "palmyra-x5", "choices": [{"index": 0, "delta": {"content": "Hi"}}]},
        {"choices": [{"index": 0, "finish_reason": "stop", "delta": {}}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}},
    ]
    data = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    seen = observed("writer", data, headers=SSE_ANSWER)

    assert seen.usage == Usage(input_tokens=3, output_tokens=1)
    assert (seen.output_text, seen.finished) == ("Hi", True)
