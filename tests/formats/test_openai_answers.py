"""What servers that imitate OpenAI's chat add to its answers, and what no answer can do to a reader."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.model import Usage
from tests.formats.calls import JSON_ANSWER, SSE_ANSWER, observed

APIS = (
    "openai_chat",
    "openai_completions",
    "openai_responses",
    "openai_embeddings",
    "openai_moderations",
    "openai_assistants",
    "rerank",
)


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {
                    "cached_tokens": 40,
                    "cache_write_tokens": 10,
                    "audio_tokens": 7,
                    "image_tokens": 20,
                },
                "completion_tokens_details": {"audio_tokens": 30, "image_tokens": 5, "reasoning_tokens": 3},
            },
            Usage(
                input_tokens=100,
                output_tokens=50,
                cache_read_input_tokens=40,
                cache_creation_input_tokens=10,
                audio_input_tokens=7,
                image_input_tokens=20,
                audio_output_tokens=30,
                image_output_tokens=5,
                reasoning_output_tokens=3,
            ),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 8, "cached_tokens": 4, "reasoning_tokens": 6},
            Usage(input_tokens=9, output_tokens=8, cache_read_input_tokens=4, reasoning_output_tokens=6),
        ),
        (
            {
                "prompt_tokens": 33,
                "completion_tokens": 7163,
                "total_tokens": 7196,
                "citation_tokens": 20016,
                "num_search_queries": 18,
                "reasoning_tokens": 73997,
            },
            Usage(
                input_tokens=20049,
                output_tokens=81160,
                tool_input_tokens=20016,
                reasoning_output_tokens=73997,
            ),
        ),
    ],
    ids=["openai", "top_level", "perplexity"],
)
def test_every_count_is_read_where_its_vendor_puts_it(usage: dict[str, Any], read: Usage) -> None:
    answer = {"choices": [], "usage": usage}

    assert observed("openai_chat", json.dumps(answer).encode()).usage == read


def test_blank_lines_that_keep_a_connection_alive_are_no_answer() -> None:
    """DeepSeek sends them until it has one."""
    answer = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    whole = observed("openai_chat", b"\n\n", b"\n", answer, headers=JSON_ANSWER)
    stream = observed(
        "openai_chat",
        b": keep-alive\n\n\n\n",
        b"data: " + answer + b"\n\ndata: [DONE]\n\n",
        headers=SSE_ANSWER,
    )

    assert whole.usage == stream.usage == Usage(input_tokens=1, output_tokens=2)
    assert whole.finished
    assert stream.finished


def test_an_error_inside_a_stream_is_noticed() -> None:
    """OpenRouter tells of it after 200 has been said, in a chunk of its own."""
    chunk = {
        "id": "gen-1",
        "error": {"code": "server_error", "message": "the prompt was"},
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
    }
    seen = observed("openai_chat", b"data: " + json.dumps(chunk).encode() + b"\n\n", headers=SSE_ANSWER)

    assert (seen.error, seen.finish_reasons, seen.finished) == ("server_error", ("error",), False)


KEYS = st.sampled_from(
    [
        *("type", "error", "code", "usage", "model", "id", "object", "choices", "delta", "index", "text"),
        *(
            "finish_reason",
            "message",
            "content",
            "response",
            "status",
            "background",
            "output",
            "item",
            "name",
        ),
        *("summary", "arguments", "action", "output_index", "content_index", "incomplete_details", "reason"),
        *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "citation_tokens", "meta"),
        *("billed_units", "tokens", "last_error", "step_details", "tool_calls", "function", "value"),
    ]
)
WORDS = st.sampled_from(
    [
        *("response.created", "response.output_text.delta", "response.output_item.added", "error"),
        *("response.completed", "thread.run", "thread.run.step", "thread.message.delta"),
        *("thread.run.step.delta", "queued", "completed"),
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)


@given(values)
def test_no_shape_raises(value: Any) -> None:
    data = json.dumps(value).encode()
    for api in APIS:
        observed(api, data, headers=JSON_ANSWER)
        observed(api, b"data: " + data + b"\n\n", headers=SSE_ANSWER)
