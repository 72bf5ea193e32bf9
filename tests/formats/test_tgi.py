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
from extproc.model import Observation, PromptImage, Usage
from tests.formats.calls import JSON_ANSWER, SSE_ANSWER, claimed, observed, parsed, split_everywhere
from tests.formats.frames import EVENT_STREAM_ANSWER, exception, frame

HUGGING_FACE = "w8qtunpthvh1r7a0.us-east-1.aws.endpoints.huggingface.cloud"
SAGEMAKER = "runtime.sagemaker.us-east-1.amazonaws.com"
INVOCATIONS = "/endpoints/My-Llama2/invocations"
HELLO: dict[str, Any] = {"inputs": "hi", "parameters": {"max_new_tokens": 50}}
DIALOG = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


def parse(body: dict[str, Any], path: str = "/generate") -> ParsedRequest:
    return parsed(path, body)


@pytest.mark.parametrize(
    ("path", "host", "provider", "model", "stream"),
    [
        ("/", HUGGING_FACE, "hugging_face", "", None),
        ("/generate", "gateway.example", "hugging_face", "", False),
        ("/generate_stream", "gateway.example", "hugging_face", "", True),
        (INVOCATIONS, SAGEMAKER, "aws.sagemaker", "my-llama2", None),
        (INVOCATIONS, "gateway.example", "aws.sagemaker", "my-llama2", None),
        (f"{INVOCATIONS}-response-stream", SAGEMAKER, "aws.sagemaker", "my-llama2", True),
    ],
)
def test_generation_is_claimed(
    path: str, host: str, provider: str, model: str, *, stream: bool | None
) -> None:
    call = claimed(path, host=host)

    assert call is not None
    assert (call.api, call.operation) == ("tgi", "text_completion")
    assert (call.provider, call.model, call.stream) == (provider, model, stream)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/generate"),
        ("POST", "/"),  # anything may listen there
        ("POST", "/generate/more"),
        ("POST", "/endpoints/a/async-invocations"),
        ("POST", "/endpoints/a_b/invocations"),
        ("POST", "/endpoints/a/b/invocations"),
        ("POST", "/endpoints/invocations"),
    ],
)
def test_other_lines_are_nobodys(method: str, path: str) -> None:
    assert claimed(path, method=method) is None


def test_a_full_body_is_read_in_the_words_of_policies() -> None:
    parameters = {"max_new_tokens": 50, "best_of": 3, "temperature": 0.2, "adapter_id": "Team/Lora"}
    request = parse({"inputs": "hi", "parameters": parameters, "stream": True}, INVOCATIONS).request

    assert (request.model, request.models) == ("my-llama2", ("my-llama2", "team/lora"))
    assert (request.stream, request.choices, request.message_count) == (True, 3, 1)
    assert (request.max_output_tokens, request.temperature) == (50, 0.2)
    assert request.modalities == ("text",)


def test_the_path_decides_about_a_stream_before_the_body_does() -> None:
    assert not parse(HELLO | {"stream": True}).request.stream
    assert parse(HELLO | {"stream": False}, "/generate_stream").request.stream


@pytest.mark.parametrize(
    ("inputs", "messages", "count"),
    [
        ("hi", [("user", "hi")], 1),
        (["a", "b"], [("user", "a"), ("user", "b")], 2),
        ([DIALOG], [("system", "Be brief."), ("user", "hi")], 1),
        ([DIALOG, DIALOG[1:]], [("system", "Be brief."), ("user", "hi"), ("user", "hi")], 2),
    ],
)
def test_each_input_is_answered(inputs: Any, messages: list[tuple[str, str]], count: int) -> None:
    read = parse(HELLO | {"inputs": inputs}, INVOCATIONS)

    assert [(message.role, message.text) for message in read.prompt.messages] == messages
    assert (read.request.message_count, read.request.choices) == (count, count)


def test_an_image_in_the_text_is_an_image_and_text() -> None:
    """Models that do not see take it for text, all of it."""
    text = "What is this? ![](data:image/gif;base64,R0lGODlhgALgAQAAACw=)"
    read = parse(HELLO | {"inputs": text})

    assert read.request.modalities == ("image", "text")
    assert read.prompt.images == (PromptImage(width_px=640, height_px=480),)
    assert read.prompt.messages[0].text == text


@pytest.mark.parametrize("body", [{}, {"inputs": None}, {"messages": DIALOG}, {"query": "{ me }"}])
def test_a_body_without_inputs_is_not_this_call(body: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match=r"^/inputs is required") as caught:
        parse(body)

    assert (caught.value.status, caught.value.code) == (400, Reason.UNCLASSIFIED)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"inputs": 5}, "/inputs "),
        ({"inputs": []}, "/inputs "),
        ({"inputs": {"text": "hi"}}, "/inputs "),
        ({"inputs": [5]}, "/inputs/0 "),
        ({"inputs": [["hi"]]}, "/inputs/0/0 "),
        ({"inputs": ["hi", [{"role": "user", "content": 5}]]}, "/inputs/1/0/content "),
        ({"inputs": [[{"content": "hi"}]]}, "/inputs/0/0/role "),
        ({"inputs": [[{"Role": "user"}]]}, "/inputs/0/0 "),
        ({"parameters": []}, "/parameters "),
        ({"parameters": {"max_new_tokens": "5"}}, "/parameters/max_new_tokens "),
        ({"parameters": {"Max_New_Tokens": 5}}, "/parameters "),
        ({"parameters": {"best_of": 0}}, "/parameters/best_of "),
        ({"parameters": {"adapter_id": 5}}, "/parameters/adapter_id "),
        ({"stream": "yes"}, "/stream "),
    ],
)
def test_a_wrong_type_is_400_and_names_its_place(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(HELLO | change)

    assert (caught.value.status, caught.value.code) == (400, Reason.BODY_MALFORMED)
    assert caught.value.message.startswith(pointer)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(ANY_JSON, ANY_JSON, ANY_JSON)
def test_any_body_is_read_or_refused(inputs: Any, parameters: Any, stream: Any) -> None:
    with suppress(RequestRefused):
        parse({"inputs": inputs, "parameters": parameters, "stream": stream}, INVOCATIONS)


def observe(body: Any, headers: dict[str, str] = JSON_ANSWER) -> Observation:
    return observed("tgi", json.dumps(body).encode(), headers=headers)


DETAILS = {"finish_reason": "length", "generated_tokens": 7}


@pytest.mark.parametrize("is_list", [True, False])
def test_an_answer_is_read_with_and_without_a_list_around_it(*, is_list: bool) -> None:
    answer = {"generated_text": "Hello.", "details": DETAILS}
    seen = observe([answer] if is_list else answer)

    assert seen.usage == Usage(output_tokens=7)
    assert (seen.output_text, seen.finish_reasons, seen.finished) == ("Hello.", ("length",), True)


def test_several_answers_add_up() -> None:
    best = DETAILS | {"best_of_sequences": [{"generated_text": "Hi.", "generated_tokens": 5}]}
    seen = observe(
        [{"generated_text": "One", "details": DETAILS}, {"generated_text": "Two", "details": best}]
    )

    assert seen.usage == Usage(output_tokens=19)
    assert seen.output_text == "One\nTwo"


def test_an_answer_without_counts_is_counted_by_its_text() -> None:
    seen = observe([{"generated_text": "Hello."}])
    dialog = observe([{"generation": {"role": "assistant", "content": "Hello."}}])

    assert (seen.usage, seen.output_text, seen.finished) == (None, "Hello.", True)
    assert (dialog.usage, dialog.output_text, dialog.finished) == (None, "Hello.", True)


def test_headers_tell_what_the_body_does_not() -> None:
    headers = JSON_ANSWER | {"x-prompt-tokens": "16", "x-generated-tokens": "9"}

    assert observe({"generated_text": "Hello."}, headers).usage == Usage(input_tokens=16, output_tokens=9)
    assert observe({"generated_text": "Hello.", "details": DETAILS}, headers).usage == Usage(
        input_tokens=16, output_tokens=7
    )


STREAM = b"".join(
    b"data:" + json.dumps(each, ensure_ascii=False).encode() + b"\n\n"
    for each in (
        {"index": 1, "token": {"id": 1, "text": "Grüße", "special": False}, "generated_text": None},
        {"index": 2, "token": {"id": 2, "text": " 🌍", "special": False}, "generated_text": None},
        {
            "index": 3,
            "token": {"id": 3, "text": "</s>", "special": True},
            "generated_text": "Grüße 🌍",
            "details": {"finish_reason": "eos_token", "generated_tokens": 3, "input_length": 5},
        },
    )
)
SEEN = Observation(
    usage=Usage(input_tokens=5, output_tokens=3),
    finished=True,
    is_legible=True,
    finish_reasons=("eos_token",),
    output_text="Grüße 🌍",
)


def test_a_stream_is_observed_alike_whole_and_split_at_every_byte() -> None:
    for parts in split_everywhere(STREAM):
        assert observed("tgi", *parts, headers=SSE_ANSWER) == SEEN


def test_a_stream_is_finished_by_its_last_token_alone() -> None:
    seen = observed("tgi", STREAM[: STREAM.rindex(b"data:")], headers=SSE_ANSWER)

    assert (seen.finished, seen.usage, seen.output_text) == (False, None, "Grüße 🌍")


def part(data: bytes) -> bytes:
    kinds = {":event-type": "PayloadPart", ":message-type": "event"}
    return frame({name: (7, value) for name, value in kinds.items()}, data)


def test_sagemaker_frames_any_pieces_of_the_stream() -> None:
    for pieces in split_everywhere(STREAM):
        data = b"".join(map(part, pieces))
        assert observed("tgi", data, headers=EVENT_STREAM_ANSWER) == SEEN


def test_errors_are_noted_by_their_type() -> None:
    refused = observe({"error": "Input validation error: `inputs` ...", "error_type": "validation"})
    failed = observed("tgi", b'data:{"error":"CUDA ...","error_type":"generation"}\n\n', headers=SSE_ANSWER)
    aws = observed("tgi", part(b"") + exception("ModelStreamError"), headers=EVENT_STREAM_ANSWER)

    assert [each.error for each in (refused, failed, aws)] == ["validation", "generation", "ModelStreamError"]
    assert not failed.finished


@given(st.lists(ANY_JSON, max_size=3))
def test_no_answer_raises(events: list[Any]) -> None:
    for each in events:
        for body in (each, {"details": each, "token": each, "generated_text": ""}, [each]):
            observe(body)
            data = b"data:" + json.dumps(body).encode() + b"\n\n"
            observed("tgi", data, headers=SSE_ANSWER)
            observed("tgi", part(data), headers=EVENT_STREAM_ANSWER)


def test_an_image_that_never_ends_is_text_and_takes_no_time() -> None:
    # Half a megabyte: looking for an end from every beginning would take minutes.
    found = parse({"inputs": "![](a.png)" + "![](" * 125_000})

    assert len(found.prompt.images) == 1


@pytest.mark.parametrize("key", ["messages", "prompt", "input", "text", "input_ids"])
def test_what_other_servers_would_read_is_refused_beside_inputs(key: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse({**HELLO, key: "write a novel", "max_tokens": 100_000})

    assert caught.value.message == f"/{key} must not be given beside /inputs: some servers read it alone."


@pytest.mark.parametrize(
    "header",
    [
        "x-amzn-sagemaker-target-model",
        "x-amzn-sagemaker-inference-component",
        "x-amzn-sagemaker-target-container-hostname",
        "x-amzn-sagemaker-target-variant",
    ],
)
def test_a_model_that_a_header_names_is_one_of_the_request(header: str) -> None:
    call = claimed(INVOCATIONS, headers={header: "Huge.tar.gz"})
    assert call is not None

    assert FORMATS["tgi"].parse_request(HELLO, call).request.models == ("my-llama2", "huge.tar.gz")


def test_no_parameter_of_the_url_passes_for_such_a_header() -> None:
    call = claimed(f"{INVOCATIONS}?x-amzn-sagemaker-target-model=small", headers={})
    assert call is not None

    assert FORMATS["tgi"].parse_request(HELLO, call).request.models == ("my-llama2",)
