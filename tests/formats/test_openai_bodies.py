"""Whatever JSON it is, the readers of OpenAI's bodies take it or refuse it."""

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.model import AIRequest
from tests.formats.calls import claimed

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/conversations",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/assistants",
    "/v1/threads/thread_1/runs",
)
KEYS = st.sampled_from(
    [
        *("model", "models", "messages", "prompt", "input", "inputs", "items", "query", "documents", "tools"),
        *("functions", "type", "function", "custom", "name", "role", "content", "text", "image_url", "url"),
        *("image", "input_audio", "file", "file_data", "output", "encrypted_content", "summary", "variables"),
        *("id", "instructions", "assistant_id", "tool_outputs", "thread", "plugins", "search_parameters"),
        *("data_sources", "response_format", "json_schema", "format", "stream", "stream_options", "n"),
        *("max_tokens", "suffix", "tool_calls", "container", "environment", "svg", "moderation", "result"),
    ]
)
WORDS = st.sampled_from(
    [
        *("gpt-5", "user", "text", "image_url", "input_image", "input_audio", "file", "function", "custom"),
        *("mcp", "namespace", "image_generation", "message", "function_call", "function_call_output"),
        *("reasoning", "compaction", "item_reference", "image_generation_call", "additional_tools"),
        *("computer_call_output", "data:image/png;base64,iVBORw0KGgo=", "m:online", "@preset/p"),
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)
bodies = st.dictionaries(KEYS, values, max_size=10)
COMPLETE: dict[str, Any] = {"model": "gpt-5"}


@given(bodies)
def test_a_body_is_taken_or_refused(body: dict[str, Any]) -> None:
    for path in PATHS:
        call = claimed(path)
        assert call is not None
        wire_format = FORMATS[call.api]
        for each in (body, COMPLETE | body):
            with suppress(RequestRefused):
                request = wire_format.parse_request(each, call).request
                assert isinstance(request, AIRequest)
                assert all(name == name.lower() for name in (request.model, *request.models))
                wire_format.ask_for_usage(each, call)
