import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import ParsedRequest
from extproc.model import Observation, Usage
from tests.formats.calls import claimed, observed, parsed, split_everywhere
from tests.formats.frames import EVENT_STREAM_ANSWER, chunk, event, exception

CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
OPAQUE = "arn:aws:bedrock:eu-west-1:012345678901:application-inference-profile/a1b2c3d4e5f6"
IMPORTED = "arn:aws:bedrock:us-east-1:012345678901:imported-model/a1b2c3d4e5f6"
CUSTOM = "arn:aws:bedrock:us-east-1:012345678901:custom-model/amazon.titan-text-lite-v1:0:4k/a1b2c3d4e5f6"
GIF = "R0lGODlhgALgAQAAACw="
TEXT = [{"role": "user", "content": "hi"}]
BLOCKS = [{"role": "user", "content": [{"text": "hi"}]}]

CLAUDE_BODY: dict[str, Any] = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": TEXT}
NOVA_BODY: dict[str, Any] = {"messages": BLOCKS, "inferenceConfig": {"max_new_tokens": 50}}
LLAMA_BODY: dict[str, Any] = {"prompt": "hi", "max_gen_len": 50}
TITAN_BODY: dict[str, Any] = {"inputText": "hi", "textGenerationConfig": {"maxTokenCount": 50}}
JURASSIC_BODY: dict[str, Any] = {"prompt": "hi", "maxTokens": 50, "numResults": 3}
OPENAI_BODY: dict[str, Any] = {"messages": TEXT, "max_completion_tokens": 50, "n": 3}
PROMPT_BODY: dict[str, Any] = {"prompt": "hi", "max_tokens": 50}
COMMAND_BODY: dict[str, Any] = PROMPT_BODY | {"num_generations": 3}
OLD_CLAUDE_BODY: dict[str, Any] = {"prompt": "\n\nHuman: hi", "max_tokens_to_sample": 50}
STABILITY_BODY: dict[str, Any] = {"prompt": "a cow", "aspect_ratio": "1:1"}
CANVAS_BODY: dict[str, Any] = {
    "taskType": "TEXT_IMAGE",
    "textToImageParams": {"text": "a cow", "negativeText": "grass", "conditionImage": GIF},
    "imageGenerationConfig": {"numberOfImages": 3},
}
CHAT, COMPLETION, EMBEDDINGS, IMAGES = "chat", "text_completion", "embeddings", "image_generation"


def path_of(model: str, operation: str = "invoke") -> str:
    return f"/model/{model.replace(':', '%3A').replace('/', '%2F')}/{operation}"


def parse(model: str, body: dict[str, Any], operation: str = "invoke") -> ParsedRequest:
    return parsed(path_of(model, operation), body)


@pytest.mark.parametrize(("operation", "stream"), [("invoke", False), ("invoke-with-response-stream", True)])
def test_a_model_is_invoked_streamed_or_not_as_the_path_says(operation: str, *, stream: bool) -> None:
    call = claimed(path_of(CLAUDE, operation))
    assert call is not None
    assert (call.api, call.provider, call.operation) == ("bedrock_invoke", "aws.bedrock", "chat")
    assert (call.model, call.stream) == (CLAUDE, stream)

    request = parse(CLAUDE, CLAUDE_BODY | {"stream": not stream}, operation).request
    assert request.stream is stream
    assert request.wants_usage_chunk


@pytest.mark.parametrize(
    ("model", "operation"),
    [
        ("amazon.titan-embed-text-v2:0", EMBEDDINGS),
        ("cohere.rerank-v3-5:0", "rerank"),
        ("stability.sd3-5-large-v1:0", IMAGES),
        ("meta.llama3-8b-instruct-v1:0", COMPLETION),
        (OPAQUE, CHAT),
    ],
)
def test_an_id_that_tells_the_operation_is_claimed_for_it(model: str, operation: str) -> None:
    call = claimed(path_of(model))

    assert call is not None
    assert call.operation == operation


@pytest.mark.parametrize(
    ("model", "body", "operation", "ceiling", "choices"),
    [
        (CLAUDE, CLAUDE_BODY, CHAT, 50, 1),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", CLAUDE_BODY, CHAT, 50, 1),
        ("anthropic.claude-v2:1", OLD_CLAUDE_BODY, COMPLETION, 50, 1),
        ("amazon.nova-lite-v1:0", NOVA_BODY, CHAT, 50, 1),
        ("us-gov.amazon.nova-lite-v1:0", {"messages": BLOCKS}, CHAT, None, 1),
        ("amazon.titan-text-express-v1", TITAN_BODY, COMPLETION, 50, 1),
        ("amazon.titan-tg1-large", {"inputText": "hi"}, COMPLETION, None, 1),
        (CUSTOM, TITAN_BODY, COMPLETION, 50, 1),
        ("meta.llama3-1-70b-instruct-v1:0", LLAMA_BODY, COMPLETION, 50, 1),
        ("us.meta.llama3-2-11b-instruct-v1:0", {"prompt": "hi", "images": [GIF]}, COMPLETION, None, 1),
        ("mistral.mistral-7b-instruct-v0:2", PROMPT_BODY, COMPLETION, 50, 1),
        ("mistral.pixtral-large-2502-v1:0", OPENAI_BODY, CHAT, 50, 3),
        ("cohere.command-text-v14", COMMAND_BODY, COMPLETION, 50, 3),
        ("ai21.j2-mid-v1", JURASSIC_BODY, COMPLETION, 50, 3),
        ("ai21.jamba-1-5-large-v1:0", {"messages": TEXT, "max_tokens": 50, "n": 3}, CHAT, 50, 3),
        ("deepseek.r1-v1:0", PROMPT_BODY, COMPLETION, 50, 1),
        ("deepseek.v3.2", OPENAI_BODY, CHAT, 50, 3),
        ("qwen.qwen3-32b-v1:0", OPENAI_BODY, CHAT, 50, 3),
        ("openai.gpt-oss-120b-1:0", OPENAI_BODY, CHAT, 50, 3),
        ("stability.sd3-5-large-v1:0", STABILITY_BODY, IMAGES, None, 1),
        ("stability.stable-image-remove-background-v1:0", {"image": GIF}, IMAGES, None, 1),
        (
            "stability.stable-diffusion-xl-v1",
            {"text_prompts": [{"text": "a"}], "samples": 3},
            IMAGES,
            None,
            3,
        ),
        ("amazon.nova-canvas-v1:0", CANVAS_BODY, IMAGES, None, 3),
        ("amazon.titan-image-generator-v2:0", CANVAS_BODY, IMAGES, None, 3),
        ("amazon.titan-embed-text-v2:0", {"inputText": "hi"}, EMBEDDINGS, None, 1),
        ("amazon.titan-embed-image-v1", {"inputImage": GIF}, EMBEDDINGS, None, 1),
        ("amazon.titan-embed-image-v1", {"inputImage": GIF, "inputText": "hi"}, EMBEDDINGS, None, 1),
        # Whose these are only their bodies say.
        (OPAQUE, CLAUDE_BODY, CHAT, 50, 1),
        (OPAQUE, NOVA_BODY, CHAT, 50, 1),
        (OPAQUE, LLAMA_BODY, COMPLETION, 50, 1),
        (OPAQUE, TITAN_BODY, COMPLETION, 50, 1),
        (OPAQUE, OLD_CLAUDE_BODY, COMPLETION, 50, 1),
        (OPAQUE, JURASSIC_BODY, COMPLETION, 50, 3),
        (OPAQUE, COMMAND_BODY, COMPLETION, 50, 3),
        (OPAQUE, STABILITY_BODY, IMAGES, None, 1),
        (OPAQUE, {"inputText": "hi", "dimensions": 256}, EMBEDDINGS, None, 1),
        (IMPORTED, PROMPT_BODY | {"n": 3}, COMPLETION, 50, 3),
        (IMPORTED, OPENAI_BODY, CHAT, 50, 3),
        ("newcomer.model-v1:0", OPENAI_BODY, CHAT, 50, 3),
    ],
)
def test_model_and_body_together_say_what_is_asked(
    model: str, body: dict[str, Any], operation: str, ceiling: int | None, choices: int
) -> None:
    request = parse(model, body).request

    assert (request.api, request.provider) == ("bedrock_invoke", "aws.bedrock")
    assert (request.model, request.models[0]) == (model, model)
    assert (request.operation, request.max_output_tokens, request.choices) == (operation, ceiling, choices)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (CLAUDE, TITAN_BODY),
        (CLAUDE, NOVA_BODY),
        (CLAUDE, {"messages": TEXT, "max_tokens": 5}),
        (CLAUDE, CLAUDE_BODY | OLD_CLAUDE_BODY),
        (CLAUDE, CLAUDE_BODY | {"max_gen_len": 5}),
        ("amazon.nova-lite-v1:0", CLAUDE_BODY),
        ("amazon.nova-lite-v1:0", NOVA_BODY | {"max_tokens": 5}),
        ("amazon.titan-text-express-v1", PROMPT_BODY),
        ("amazon.titan-embed-text-v2:0", {}),
        ("meta.llama3-1-70b-instruct-v1:0", PROMPT_BODY),
        ("mistral.mistral-7b-instruct-v0:2", PROMPT_BODY | OPENAI_BODY),
        ("cohere.command-r-v1:0", PROMPT_BODY),
        ("cohere.rerank-v3-5:0", {"query": "q"}),
        ("openai.gpt-oss-120b-1:0", PROMPT_BODY),
        # One vendor's alone, or nobody's.
        (OPAQUE, {}),
        (OPAQUE, {"prompt": "hi"}),
        (OPAQUE, {"inputText": "hi"}),
        (OPAQUE, {"messages": TEXT}),
        (OPAQUE, LLAMA_BODY | {"max_tokens": 5}),
        (OPAQUE, NOVA_BODY | {"max_tokens": 5}),
        (OPAQUE, TITAN_BODY | {"prompt": "hi"}),
        ("does-not-exist", {"anything": 1}),
    ],
)
def test_a_body_of_another_vendor_is_not_this_call(model: str, body: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(model, body)

    assert (caught.value.status, caught.value.code) == (400, Reason.UNCLASSIFIED)


def test_a_refusal_says_what_the_model_takes() -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(CLAUDE, TITAN_BODY)

    assert caught.value.message == (
        "This model takes /anthropic_version and /messages; or /prompt and /max_tokens_to_sample,"
        " and no fields of other vendors."
    )


def test_a_model_named_in_the_body_too_must_be_allowed_too() -> None:
    assert parse("openai.gpt-oss-20b-1:0", OPENAI_BODY | {"model": "Other"}).request.models == (
        "openai.gpt-oss-20b-1:0",
        "other",
    )


def test_cohere_chats_are_read_with_all_that_comes_along() -> None:
    body = {
        "message": "And?",
        "chat_history": [{"role": "USER", "message": "hi"}, {"role": "CHATBOT", "message": "Hello."}],
        "preamble": "Be brief.",
        "documents": [{"title": "Cows"}],
        "tools": [{"name": "look_up", "description": "Looks up.", "parameter_definitions": {}}],
        "max_tokens": 50,
        "temperature": 0.3,
    }
    read = parse("cohere.command-r-plus-v1:0", body)

    assert (read.request.message_count, read.request.tools) == (3, ("look_up",))
    assert (read.request.max_output_tokens, read.request.temperature) == (50, 0.3)
    assert [(message.role, message.text) for message in read.prompt.messages] == [
        ("system", "Be brief."),
        ("user", "hi"),
        ("chatbot", "Hello."),
        ("user", 'And?\n{"title":"Cows"}'),
    ]
    assert len(read.prompt.tools) == 1


def test_inputs_of_embeddings_and_rankings_are_counted() -> None:
    mixed = [{"content": [{"type": "text", "text": "c"}, {"type": "image_url", "image_url": {"url": "x"}}]}]
    texts = parse("cohere.embed-english-v3", {"texts": ["a", "b"], "input_type": "search_query"})
    inputs = parse("cohere.embed-v4:0", {"inputs": mixed, "input_type": "search_document"})
    ranked = parse("amazon.rerank-v1:0", {"query": "q", "documents": ["a", {"text": "b"}]})
    single = {"text": {"value": "hi"}, "image": {"source": {"bytes": GIF}}, "video": {"source": {}}}
    nova = parse(
        "amazon.nova-2-multimodal-embeddings-v1:0",
        {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": single},
    )

    assert [(each.request.operation, each.request.message_count) for each in (texts, inputs, ranked)] == [
        ("embeddings", 2),
        ("embeddings", 1),
        ("rerank", 2),
    ]
    assert inputs.request.modalities == ("image", "text")
    assert [message.text for message in ranked.prompt.messages] == ["q", "a", '{"text":"b"}']
    assert nova.request.modalities == ("image", "text", "video")


def test_prompts_and_images_of_image_models_are_read() -> None:
    canvas = parse("amazon.nova-canvas-v1:0", CANVAS_BODY)
    edited = parse("stability.sd3-5-large-v1:0", STABILITY_BODY | {"image": GIF, "mode": "image-to-image"})

    assert canvas.prompt.messages[0].text == "a cow\ngrass"
    for each in (canvas, edited):
        assert each.request.modalities == ("image", "text")
        assert (each.prompt.images[0].width_px, each.prompt.images[0].height_px) == (640, 480)


@pytest.mark.parametrize(
    ("model", "body", "pointer"),
    [
        (CLAUDE, CLAUDE_BODY | {"max_tokens": "5"}, "/max_tokens "),
        ("meta.llama3-8b-instruct-v1:0", {"prompt": ["hi"]}, "/prompt "),
        ("meta.llama3-8b-instruct-v1:0", {"prompt": "hi", "images": [5]}, "/images/0 "),
        ("meta.llama3-8b-instruct-v1:0", {"prompt": "hi", "images": "x"}, "/images "),
        ("amazon.titan-text-lite-v1", {"inputText": 5}, "/inputText "),
        (
            "amazon.titan-text-lite-v1",
            {"inputText": "hi", "textGenerationConfig": 5},
            "/textGenerationConfig ",
        ),
        (
            "amazon.titan-text-lite-v1",
            {"inputText": "hi", "textGenerationConfig": {"maxtokencount": 5}},
            "/textGenerationConfig ",
        ),
        ("amazon.nova-lite-v1:0", {"messages": TEXT}, "/messages/0/content "),
        ("cohere.command-r-v1:0", {"message": "hi", "chat_history": ["x"]}, "/chat_history/0 "),
        ("cohere.rerank-v3-5:0", {"query": "q", "documents": "x"}, "/documents "),
        ("cohere.command-text-v14", COMMAND_BODY | {"num_generations": "2"}, "/num_generations "),
    ],
)
def test_a_wrong_type_is_400_and_names_its_place(model: str, body: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(model, body)

    assert (caught.value.status, caught.value.code) == (400, Reason.BODY_MALFORMED)
    assert caught.value.message.startswith(pointer)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BODIES = (CLAUDE_BODY, NOVA_BODY, TITAN_BODY, COMMAND_BODY, CANVAS_BODY, STABILITY_BODY, OPENAI_BODY)
MODELS = (CLAUDE, OPAQUE, "amazon.nova-lite-v1:0", "amazon.titan-text-lite-v1", "cohere.command-r-v1:0")


@given(
    st.sampled_from(MODELS),
    st.sampled_from(BODIES),
    st.dictionaries(
        st.sampled_from(
            [
                *("messages", "system", "tools", "prompt", "message", "chat_history", "documents", "query"),
                *("inputText", "textGenerationConfig", "inferenceConfig", "toolConfig", "images", "inputs"),
                *("texts", "input_type", "textToImageParams", "imageGenerationConfig", "max_tokens"),
            ]
        ),
        ANY_JSON,
        max_size=3,
    ),
)
def test_any_body_is_read_or_refused(model: str, body: dict[str, Any], change: dict[str, Any]) -> None:
    with suppress(RequestRefused):
        parse(model, body | change)


COUNTS = {
    "content-type": "application/json",
    "x-amzn-bedrock-input-token-count": "10",
    "x-amzn-bedrock-output-token-count": "20",
    "x-amzn-bedrock-cache-read-input-token-count": "300",
    "x-amzn-bedrock-cache-write-input-token-count": "4",
}
FROM_HEADERS = Usage(
    input_tokens=314, output_tokens=20, cache_read_input_tokens=300, cache_creation_input_tokens=4
)


def observe(body: Any, headers: dict[str, str] | None = None, operation: str = "chat") -> Observation:
    given_headers = headers or {"content-type": "application/json"}
    return observed("bedrock_invoke", json.dumps(body).encode(), headers=given_headers, operation=operation)


@pytest.mark.parametrize(
    ("body", "usage", "text", "reasons"),
    [
        (
            {
                "type": "message",
                "model": "claude",
                "content": [{"type": "text", "text": "Hello."}],
                "usage": {"input_tokens": 1, "output_tokens": 2},
                "stop_reason": "end_turn",
            },
            Usage(input_tokens=1, output_tokens=2),
            "Hello.",
            ("end_turn",),
        ),
        ({"type": "completion", "completion": "Hello.", "stop_reason": "stop"}, None, "Hello.", ("stop",)),
        (
            {
                "inputTextTokenCount": 1.0,
                "results": [
                    {"tokenCount": 2.0, "outputText": "One", "completionReason": "FINISH"},
                    {"tokenCount": 3, "outputText": "Two", "completionReason": "LENGTH"},
                ],
            },
            Usage(input_tokens=1, output_tokens=5),
            "One\nTwo",
            ("FINISH", "LENGTH"),
        ),
        (
            {
                "generation": "Hello.",
                "prompt_token_count": 1,
                "generation_token_count": 0,
                "stop_reason": "stop",
            },
            Usage(input_tokens=1, output_tokens=0),
            "Hello.",
            ("stop",),
        ),
        ({"outputs": [{"text": "Hello.", "stop_reason": "length"}]}, None, "Hello.", ("length",)),
        ({"generations": [{"text": "Hello.", "finish_reason": "COMPLETE"}]}, None, "Hello.", ("COMPLETE",)),
        (
            {
                "text": "Hello.",
                "finish_reason": "COMPLETE",
                "tool_calls": [{"name": "f", "parameters": {"a": 1}}],
            },
            None,
            'Hello.\nf{"a":1}',
            ("COMPLETE",),
        ),
        (
            {"completions": [{"data": {"text": "Hello."}, "finishReason": {"reason": "endoftext"}}]},
            None,
            "Hello.",
            ("endoftext",),
        ),
        (
            {
                "output": {"message": {"content": [{"text": "Hello."}]}},
                "usage": {"inputTokens": 1, "outputTokens": 2, "cacheReadInputTokenCount": 5},
                "stopReason": "end_turn",
            },
            Usage(input_tokens=6, output_tokens=2, cache_read_input_tokens=5),
            "Hello.",
            ("end_turn",),
        ),
        (
            {
                "choices": [{"index": 0, "message": {"content": "Hello."}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
            },
            Usage(input_tokens=1, output_tokens=2),
            "Hello.",
            ("stop",),
        ),
        ({"images": ["x"]}, None, "", ()),
    ],
)
def test_each_vendors_answer_is_read(
    body: dict[str, Any], usage: Usage | None, text: str, reasons: tuple[str, ...]
) -> None:
    seen = observe(body)

    assert (seen.usage, seen.output_text, seen.finish_reasons) == (usage, text, reasons)
    assert (seen.finished, seen.error) == (True, "")


def test_headers_tell_what_a_vendor_does_not() -> None:
    assert observe({"outputs": [{"text": "Hello."}]}, COUNTS).usage == FROM_HEADERS


def test_the_vendors_counts_come_first() -> None:
    body = {"generation": "Hello.", "prompt_token_count": 7, "generation_token_count": 8}
    usage = observe(body, COUNTS).usage

    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (7, 8)


def test_an_output_count_may_be_in_the_header_alone() -> None:
    """As where a guardrail rewrote what Nova said."""
    body = {"output": {"message": {"content": [{"text": "{NAME}"}]}}, "usage": {"inputTokens": 30}}
    headers = COUNTS | {"x-amzn-bedrock-cache-read-input-token-count": "0"}
    usage = observe(body, headers).usage

    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (30, 20)


@pytest.mark.parametrize("value", ["", "-1", "1.5", "x", "٣", "9" * 5000, "1, 2"])
def test_a_header_that_is_no_count_is_none(value: str) -> None:
    headers = {name: value for name in COUNTS if name != "content-type"}

    assert observe({"outputs": []}, headers).usage is None


def test_embeddings_generate_nothing() -> None:
    headers = {"content-type": "application/json", "x-amzn-bedrock-input-token-count": "5"}
    nothing = Usage(input_tokens=5, output_tokens=0)

    assert observe({"embeddings": [[0.1]]}, headers, "embeddings").usage == nothing
    assert observe({"embedding": [0.1], "inputTextTokenCount": 5}, None, "embeddings").usage == nothing
    assert observe({"results": [{"index": 0, "relevanceScore": 1}]}, headers, "rerank").usage == nothing


def stream(*chunks: bytes) -> Observation:
    return observed("bedrock_invoke", *chunks, headers=EVENT_STREAM_ANSWER)


METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 10, "outputTokenCount": 20}}
STREAMS: dict[str, tuple[list[dict[str, Any]], Usage, str]] = {
    "claude": (
        [
            {
                "type": "message_start",
                "message": {"id": "m", "usage": {"input_tokens": 10, "output_tokens": 1}},
            },
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Grüße"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 33}},
            {"type": "message_stop"} | METRICS,
        ],
        # The vendor says 33 where Bedrock says 20.
        Usage(input_tokens=10, output_tokens=33),
        "Grüße",
    ),
    "nova": (
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "Grüße"}, "contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": {"inputTokens": 10, "outputTokens": 33}}} | METRICS,
        ],
        Usage(input_tokens=10, output_tokens=33),
        "Grüße",
    ),
    "titan": (
        [
            {"outputText": "Grü", "index": 0, "totalOutputTextTokenCount": None, "inputTextTokenCount": 10},
            {"outputText": "ße", "index": 0, "totalOutputTextTokenCount": 33, "completionReason": "FINISH"}
            | METRICS,
        ],
        Usage(input_tokens=10, output_tokens=33),
        "Grüße",
    ),
    "llama": (
        [
            {"generation": "Grü", "prompt_token_count": 10, "generation_token_count": 1},
            {"generation": "ße", "prompt_token_count": None, "generation_token_count": 33},
            {"generation": "", "generation_token_count": 33, "stop_reason": "stop"} | METRICS,
        ],
        Usage(input_tokens=10, output_tokens=33),
        "Grüße",
    ),
    "mistral": (
        [{"outputs": [{"text": "Grü"}]}, {"outputs": [{"text": "ße", "stop_reason": "stop"}]} | METRICS],
        Usage(input_tokens=10, output_tokens=20),
        "Grüße",
    ),
    "cohere": (
        [
            {"text": "Grü", "is_finished": False, "event_type": "text-generation"},
            {"text": "ße", "is_finished": False, "event_type": "text-generation"},
            {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE"} | METRICS,
        ],
        Usage(input_tokens=10, output_tokens=20),
        "Grüße",
    ),
    "openai": (
        [
            {"choices": [{"index": 0, "delta": {"content": "Grüße"}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]} | METRICS,
        ],
        Usage(input_tokens=10, output_tokens=20),
        "Grüße",
    ),
}


@pytest.mark.parametrize("vendor", STREAMS)
def test_each_vendors_stream_is_read_alike_however_it_is_cut(vendor: str) -> None:
    events, usage, text = STREAMS[vendor]
    data = b"".join(map(chunk, events))
    whole = stream(data)

    assert (whole.usage, whole.output_text, whole.finished) == (usage, text, True)
    assert len(whole.finish_reasons) == 1
    assert all(stream(*parts) == whole for parts in split_everywhere(data))
    assert not stream(data[:-1]).finished


def test_an_exception_ends_a_stream_in_an_error() -> None:
    events = STREAMS["claude"][0]
    seen = stream(*map(chunk, events[:2]), exception("modelStreamErrorException"))

    assert (seen.error, seen.finished, seen.output_text) == ("modelStreamErrorException", False, "Grüße")
    assert seen.usage == Usage(input_tokens=10, output_tokens=1)


@pytest.mark.parametrize(
    "payload", [{}, {"bytes": 5}, {"bytes": "%%"}, {"bytes": "e"}, [], "x", {"bytes": ""}]
)
def test_a_frame_without_an_event_says_nothing(payload: Any) -> None:
    seen = stream(event("chunk", payload))

    assert (seen.usage, seen.output_text, seen.finished, seen.error) == (None, "", False, "")


@given(
    st.lists(
        ANY_JSON | st.sampled_from([each for known in STREAMS.values() for each in known[0]]), max_size=4
    )
)
def test_no_answer_raises(events: list[Any]) -> None:
    stream(*map(chunk, events))
    for each in events:
        observe(each)
        observe({"amazon-bedrock-invocationMetrics": each, "usage": each, "results": each, "choices": each})


def test_bytes_that_are_no_json_say_nothing() -> None:
    raw = base64.b64encode(b"\xff not JSON").decode()

    assert stream(event("chunk", {"bytes": raw})).usage is None


def test_nothing_is_added_to_a_signed_body() -> None:
    call = claimed(path_of("openai.gpt-oss-20b-1:0", "invoke-with-response-stream"))
    assert call is not None

    assert FORMATS["bedrock_invoke"].ask_for_usage(OPENAI_BODY | {"stream": True}, call) is None
