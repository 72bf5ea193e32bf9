import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import ParsedRequest
from extproc.formats.strict_json import parse_json
from extproc.model import Observation, PromptImage, PromptMedia, Usage
from tests.formats.calls import claimed, observed, parsed, split_everywhere
from tests.formats.frames import EVENT_STREAM_ANSWER, event, exception

FIXTURES = Path(__file__).parent.parent / "fixtures" / "bedrock_converse"
PATH = "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
PROFILE = (
    "arn:aws:bedrock:us-east-1:012345678901:inference-profile/us.anthropic.claude-3-7-sonnet-20250219-v1:0"
)
FOUNDATION = "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0"
OPAQUE = "arn:aws:bedrock:eu-west-1:012345678901:application-inference-profile/a1b2c3d4e5f6"
STORED = "arn:aws:bedrock:us-east-1:012345678901:prompt/ABCDEFGHIJ:1"
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def encoded(model: str) -> str:
    return model.replace(":", "%3A").replace("/", "%2F")


def parse(body: dict[str, Any], path: str = PATH) -> ParsedRequest:
    return parsed(path, body)


def recorded() -> ParsedRequest:
    return parse(parse_json((FIXTURES / "request.json").read_bytes()))


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("converse", ("chat", False)), ("converse-stream", ("chat", True)), ("count-tokens", ("control", None))],
)
def test_an_operation_of_a_model_is_claimed(operation: str, expected: tuple[str, bool | None]) -> None:
    for host in ("bedrock-runtime.us-east-1.amazonaws.com", "gateway.example"):
        call = claimed(f"/model/amazon.nova-lite-v1%3A0/{operation}", host=host)
        assert call is not None
        assert (call.api, call.provider) == ("bedrock_converse", "aws.bedrock")
        assert (call.operation, call.stream) == expected
        assert call.model == "amazon.nova-lite-v1:0"


@pytest.mark.parametrize(
    "host",
    [
        "bedrock-runtime.us-east-1.amazonaws.com",
        "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
        "bedrock-runtime.cn-north-1.amazonaws.com.cn",
        "bedrock-runtime.us-east-1.api.aws",
        "vpce-1a-2b.bedrock-runtime.us-east-1.vpce.amazonaws.com",
    ],
)
def test_openais_api_at_bedrock_is_bedrocks(host: str) -> None:
    call = claimed("/openai/v1/chat/completions", host=host)

    assert call is not None
    assert (call.api, call.provider) == ("openai_chat", "aws.bedrock")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PATH),
        ("POST", "/model/converse"),
        ("POST", "/model/a/b/converse"),
        ("POST", "/models/a/converse"),
        ("POST", "/model/a/Converse"),
        ("POST", "/model/a/converse/more"),
        ("POST", "/model/%20a/converse"),
        ("POST", "/model/%C3%A4/converse"),
        ("POST", f"/model/{'a' * 257}/converse"),
        ("POST", "/model/a/invoke-with-bidirectional-stream"),
    ],
)
def test_other_lines_are_nobodys(method: str, path: str) -> None:
    assert claimed(path, method=method, host="bedrock-runtime.us-east-1.amazonaws.com") is None


@pytest.mark.parametrize(
    ("model", "models"),
    [
        ("Anthropic.Claude-V2", ("anthropic.claude-v2",)),
        ("us.anthropic.claude-3-haiku", ("us.anthropic.claude-3-haiku",)),
        (PROFILE, (PROFILE, "us.anthropic.claude-3-7-sonnet-20250219-v1:0")),
        (FOUNDATION, (FOUNDATION, "anthropic.claude-3-haiku-20240307-v1:0")),
        (OPAQUE, (OPAQUE,)),
    ],
)
def test_an_arn_that_ends_in_a_name_goes_by_that_too(model: str, models: tuple[str, ...]) -> None:
    request = parse(HELLO, f"/model/{encoded(model)}/converse").request

    assert (request.model, request.models) == (models[0], models)
    assert not request.has_state


def test_a_full_body_is_read_in_the_words_of_policies() -> None:
    request = recorded().request

    assert (request.api, request.provider, request.operation) == ("bedrock_converse", "aws.bedrock", "chat")
    assert (request.stream, request.wants_usage_chunk, request.choices) == (False, True, 1)
    assert (request.message_count, request.temperature) == (3, 0.5)
    assert request.tools == ("look_up", "nova_grounding", "computer")
    assert request.modalities == ("file", "image", "text", "video")
    assert request.end_user == "user-7"


def test_the_larger_of_two_ceilings_counts() -> None:
    """The vendor's own fields go past Bedrock's unread, and which of them wins is the vendor's affair."""
    assert recorded().request.max_output_tokens == 4096
    assert parse(HELLO | {"inferenceConfig": {"maxTokens": 7}}).request.max_output_tokens == 7
    assert parse(HELLO).request.max_output_tokens is None
    for extra in ({"maxTokenCount": 9}, {"inferenceConfig": {"max_new_tokens": 9}}):
        body = HELLO | {"inferenceConfig": {"maxTokens": 7}, "additionalModelRequestFields": extra}
        assert parse(body).request.max_output_tokens == 9


def test_a_model_or_a_number_of_answers_in_the_vendors_fields_counts() -> None:
    request = parse(HELLO | {"additionalModelRequestFields": {"model": "Other", "n": 3}}).request

    assert request.models[1:] == ("other",)
    assert request.choices == 3


def test_the_prompt_holds_everything_the_model_reads() -> None:
    prompt = recorded().prompt

    assert [(message.role, message.text) for message in prompt.messages] == [
        ("system", "Be brief."),
        ("user", "What is in these?\nNotes\nBuy milk.\nPaper\nMind this."),
        ("assistant", 'I should look.\nlook_up\n{"term":"milk"}'),
        ("user", '{"colour":"white"}\nLiquid.'),
    ]
    assert prompt.images == (PromptImage(width_px=640, height_px=480),)
    assert prompt.media == (PromptMedia(modality="file", size_bytes=9), PromptMedia(modality="video"))
    assert len(prompt.tools) == 3
    assert json.loads(prompt.tools[0])["toolSpec"]["name"] == "look_up"


def test_a_block_of_unknown_kind_is_counted_as_text() -> None:
    body = {"messages": [{"role": "user", "content": [{"hologram": {"aura": "boo"}}]}]}

    assert "boo" in parse(body).prompt.messages[0].text


def test_results_citations_and_guarded_images_are_read() -> None:
    found = {"source": "s", "title": "t", "content": [{"text": "found"}], "citations": {"enabled": True}}
    cited = {"content": [{"text": "said"}], "citations": [{"title": "book"}]}
    image = {"format": "gif", "source": {"bytes": "R0lGODlhgALgAQAAACw="}}
    blocks = [{"searchResult": found}, {"citationsContent": cited}, {"guardContent": {"image": image}}]
    blocks.append({"audio": {"format": "mp3", "source": {"bytes": "AAAA"}}})
    read = parse({"messages": [{"role": "user", "content": blocks}]})

    assert read.prompt.messages[0].text == 's\nt\nfound\nsaid\n[{"title":"book"}]'
    assert read.request.modalities == ("audio", "image", "text")
    assert read.prompt.media == (PromptMedia(modality="audio", size_bytes=3),)


def test_an_output_schema_is_part_of_the_prompt() -> None:
    schema = {"name": "answer", "schema": '{"type":"object"}'}
    wanted = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    message = parse(HELLO | {"outputConfig": {"textFormat": wanted}}).prompt.messages[-1]

    assert (message.role, message.text) == ("response_format", 'answer\n{"type":"object"}')


def test_a_stored_prompt_needs_no_messages() -> None:
    """What it says and which model it asks AWS alone knows."""
    body = {"promptVariables": {"city": {"text": "Bern"}}}
    read = parse(body, f"/model/{encoded(STORED)}/converse")

    assert read.request.has_state
    assert read.prompt.messages[0].text == "Bern"


@pytest.mark.parametrize("body", [{}, {"messages": None}, {"prompt": "hi", "max_tokens": 5}])
def test_a_body_without_messages_is_not_this_call(body: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match=r"^/messages is required") as caught:
        parse(body)

    assert (caught.value.status, caught.value.code) == (400, Reason.UNCLASSIFIED)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"messages": [5]}, "/messages/0 "),
        ({"messages": "hi"}, "/messages "),
        ({"messages": [{"content": []}]}, "/messages/0/role "),
        ({"messages": [{"role": "user", "content": "hi"}]}, "/messages/0/content "),
        ({"messages": [{"role": "user", "content": [{"text": 5}]}]}, "/messages/0/content/0/text "),
        ({"messages": [{"role": "user", "content": [{"Text": "hi"}]}]}, "/messages/0/content/0 "),
        ({"messages": [{"role": "user", "content": [{"tooluse": {}}]}]}, "/messages/0/content/0 "),
        ({"messages": [{"role": "user", "content": [{"image": "x"}]}]}, "/messages/0/content/0/image "),
        (
            {"messages": [{"role": "user", "content": [{"image": {"source": {"bytes": 5}}}]}]},
            "/messages/0/content/0/image/source/bytes ",
        ),
        (
            {"messages": [{"role": "user", "content": [{"toolResult": {"content": [{"text": 5}]}}]}]},
            "/messages/0/content/0/toolResult/content/0/text ",
        ),
        ({"messages": [{"Role": "user"}]}, "/messages/0 "),
        ({"system": "Be brief."}, "/system "),
        ({"inferenceConfig": {"maxTokens": "5"}}, "/inferenceConfig/maxTokens "),
        ({"inferenceConfig": {"maxTokens": 0}}, "/inferenceConfig/maxTokens "),
        ({"inferenceConfig": {"maxtokens": 5}}, "/inferenceConfig "),
        ({"inferenceConfig": {"temperature": "0"}}, "/inferenceConfig/temperature "),
        ({"toolConfig": {"tools": [{"toolSpec": {"name": 5}}]}}, "/toolConfig/tools/0/toolSpec/name "),
        ({"toolConfig": []}, "/toolConfig "),
        ({"promptVariables": {"city": "Bern"}}, "/promptVariables "),
        ({"promptVariables": {"city": {"text": 5}}}, "/promptVariables/text "),
        ({"requestMetadata": []}, "/requestMetadata "),
        ({"additionalModelRequestFields": {"max_tokens": 1.5}}, "/additionalModelRequestFields/max_tokens "),
        ({"additionalModelRequestFields": {"model": 5}}, "/additionalModelRequestFields/model "),
        ({"additionalModelRequestFields": {"Tools": []}}, "/additionalModelRequestFields "),
    ],
)
def test_a_wrong_type_is_400_and_names_its_place(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(HELLO | change)

    assert (caught.value.status, caught.value.code) == (400, Reason.BODY_MALFORMED)
    assert caught.value.message.startswith(pointer)


@pytest.mark.parametrize("key", ["InferenceConfig", "inferenceconfig", "TOOLCONFIG", "Messages"])
def test_a_field_in_another_case_is_refused(key: str) -> None:
    with pytest.raises(RequestRefused, match="only in case"):
        parse_json(json.dumps({key: {}}).encode())


def test_counting_tokens_is_control() -> None:
    path = "/model/anthropic.claude-v2/count-tokens"
    converse = parse({"input": {"converse": HELLO}}, path).request
    invoke = parse({"input": {"invokeModel": {"body": "e30="}}}, path).request

    for request in (converse, invoke):
        assert (request.operation, request.model) == ("control", "anthropic.claude-v2")
    assert converse.message_count == 1


@pytest.mark.parametrize("body", [{}, {"input": {}}, HELLO, {"input": {"converse": {}, "invokeModel": {}}}])
def test_counting_something_else_is_not_this_call(body: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match=r"^/input is required"):
        parse(body, "/model/anthropic.claude-v2/count-tokens")


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            (
                *("messages", "system", "inferenceConfig", "toolConfig", "requestMetadata", "input"),
                *("additionalModelRequestFields", "promptVariables", "outputConfig"),
            ),
            ANY_JSON,
        ),
    ),
    st.sampled_from([PATH, f"/model/{encoded(STORED)}/converse", "/model/a/count-tokens"]),
)
def test_any_body_is_read_or_refused(body: dict[str, Any], path: str) -> None:
    with suppress(RequestRefused):
        parse(body, path)


def test_nothing_is_added_to_a_signed_body() -> None:
    call = claimed("/model/anthropic.claude-v2/converse-stream")
    assert call is not None

    assert FORMATS["bedrock_converse"].ask_for_usage(HELLO, call) is None


STREAM = b"".join(
    [
        event("messageStart", {"role": "assistant", "p": "abc"}),
        event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm."}}}),
        event(
            "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "x"}}}
        ),
        event("contentBlockStop", {"contentBlockIndex": 0}),
        event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Grüße "}}),
        event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "🌍"}}),
        event("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"name": "look_up"}}}),
        event("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"te'}}}),
        event("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": 'rm":1}'}}}),
        event("messageStop", {"stopReason": "tool_use"}),
        event(
            "metadata",
            {
                "usage": {
                    "inputTokens": 10,
                    "outputTokens": 48,
                    "totalTokens": 3258,
                    "cacheReadInputTokens": 3000,
                    "cacheWriteInputTokens": 200,
                    "cacheDetails": [{"ttl": "1h", "inputTokens": 150}, {"ttl": "5m", "inputTokens": 50}],
                },
                "trace": {"promptRouter": {"invokedModelId": "amazon.nova-pro-v1:0"}},
            },
        ),
    ]
)
USAGE = Usage(
    input_tokens=3210,
    output_tokens=48,
    cache_read_input_tokens=3000,
    cache_creation_input_tokens=200,
    cache_creation_1h_input_tokens=150,
)
SEEN = Observation(
    usage=USAGE,
    finished=True,
    is_legible=True,
    model="amazon.nova-pro-v1:0",
    finish_reasons=("tool_use",),
    output_text='Hm.\nGrüße 🌍\nlook_up{"term":1}',
)


def observe(*chunks: bytes) -> Observation:
    return observed("bedrock_converse", *chunks, headers=EVENT_STREAM_ANSWER)


def test_a_stream_is_observed_alike_whole_and_split_at_every_byte() -> None:
    assert observe(STREAM) == SEEN
    assert all(observe(*parts) == SEEN for parts in split_everywhere(STREAM))
    assert observe(*(bytes([byte]) for byte in STREAM)) == SEEN


def test_a_stream_is_finished_by_its_usage_alone() -> None:
    for place in range(len(STREAM)):
        seen = observe(STREAM[:place])
        assert not seen.finished
        assert seen.usage is None
        assert SEEN.output_text.startswith(seen.output_text)


def test_a_whole_answer_is_observed_as_its_stream() -> None:
    blocks = [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "x"}}},
        {"text": "Grüße 🌍"},
        {"toolUse": {"toolUseId": "t", "name": "look_up", "input": {"term": 1}}},
        {"citationsContent": {"content": [{"text": "cited"}]}},
    ]
    usage = {
        "inputTokens": 10,
        "outputTokens": 48,
        "cacheReadInputTokens": 3000,
        "cacheWriteInputTokens": 200,
    }
    body = {"output": {"message": {"role": "assistant", "content": blocks}}, "stopReason": "end_turn"}
    seen = observed("bedrock_converse", json.dumps(body | {"usage": usage}).encode())

    assert seen.usage == Usage(
        input_tokens=3210, output_tokens=48, cache_read_input_tokens=3000, cache_creation_input_tokens=200
    )
    assert (seen.finished, seen.finish_reasons) == (True, ("end_turn",))
    assert seen.output_text == 'Hm.\nGrüße 🌍\nlook_up{"term":1}\ncited'


def test_an_exception_in_a_stream_is_an_error() -> None:
    seen = observe(
        event("contentBlockDelta", {"delta": {"text": "Half an"}}) + exception("throttlingException")
    )

    assert (seen.error, seen.finished, seen.output_text) == ("throttlingException", False, "Half an")
    assert seen.usage is None


def test_a_damaged_stream_is_incomplete() -> None:
    damaged = bytearray(STREAM)
    damaged[-10] ^= 1
    seen = observe(bytes(damaged))

    assert (seen.is_incomplete, seen.finished, seen.usage) == (True, False, None)
    assert seen.output_text == SEEN.output_text


def test_an_error_body_is_an_error() -> None:
    seen = observed("bedrock_converse", b'{"message":"The provided model identifier is invalid."}')

    assert (seen.error, seen.usage, seen.output_text) == ("error", None, "")


NAMES = st.sampled_from(
    ["messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata", "exception", ""]
)


@given(st.lists(st.tuples(NAMES, ANY_JSON), max_size=4), ANY_JSON)
def test_no_answer_raises(events: list[tuple[str, Any]], body: Any) -> None:
    observe(b"".join(event(*each) for each in events))
    observed("bedrock_converse", json.dumps(body).encode())
    observed("bedrock_converse", json.dumps({"output": {"message": body}, "usage": body}).encode())
