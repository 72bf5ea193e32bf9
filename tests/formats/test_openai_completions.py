from pathlib import Path
from typing import Any

import pytest

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import Call, ParsedRequest
from extproc.model import PromptMessage, Usage
from tests.formats.calls import JSON_ANSWER, SSE_ANSWER, claimed, observed, parsed, split_everywhere

FIXTURES = Path(__file__).parent.parent / "fixtures" / "openai_completions"
COMPLETIONS = FORMATS["openai_completions"]
ONCE: dict[str, Any] = {"model": "Babbage-002", "prompt": "Once upon a time"}


def parse(body: dict[str, Any]) -> ParsedRequest:
    return parsed("/v1/completions", body)


def test_a_full_body_is_read_in_the_words_of_policies() -> None:
    more = {
        "suffix": "The end.",
        "max_tokens": 25,
        "n": 2,
        "best_of": 3,
        "temperature": 0.5,
        "user": "hash-of-user-7",
        "stream": True,
        "logprobs": 3,
        "echo": True,
    }
    found = parse(ONCE | {"prompt": ["Once", "Twice"]} | more)
    request = found.request

    assert (request.api, request.provider, request.operation) == (
        "openai_completions",
        "openai",
        "text_completion",
    )
    assert (request.model, request.models) == ("babbage-002", ("babbage-002",))
    assert (request.stream, request.wants_usage_chunk) == (True, False)
    assert (request.choices, request.message_count, request.max_output_tokens) == (6, 2, 25)
    assert (request.end_user, request.temperature, request.modalities) == ("hash-of-user-7", 0.5, ("text",))
    assert found.prompt.messages == (
        PromptMessage(role="", text="Once"),
        PromptMessage(role="", text="Twice"),
        PromptMessage(role="", text="The end."),
    )


@pytest.mark.parametrize(
    ("prompt", "count", "ids", "texts"),
    [
        ("", 1, 0, [""]),
        ("hi", 1, 0, ["hi"]),
        ([], 0, 0, []),
        (["hi", "ho"], 2, 0, ["hi", "ho"]),
        ([755, 16178], 1, 2, []),
        ([[755, 16178], [1]], 2, 3, ["", ""]),
        (["hi", [755]], 2, 1, ["hi", ""]),
    ],
)
def test_a_prompt_is_text_or_token_ids_one_or_many(
    prompt: Any, count: int, ids: int, texts: list[str]
) -> None:
    found = parse(ONCE | {"prompt": prompt, "n": 3})

    assert (found.request.message_count, found.request.choices) == (count, 3 * max(1, count))
    assert found.prompt.tokens == ids
    assert [message.text for message in found.prompt.messages] == texts


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"model": None}, "/model "),
        ({"prompt": None}, "/prompt "),
        ({"prompt": 5}, "/prompt "),
        ({"prompt": {"text": "hi"}}, "/prompt "),
        ({"prompt": [1, "hi"]}, "/prompt/0 "),
        ({"prompt": ["hi", 1.5]}, "/prompt/1 "),
        ({"prompt": ["hi", [1, True]]}, "/prompt/1 "),
        ({"prompt": [{"text": "hi"}]}, "/prompt/0 "),
        ({"prompt": [["hi"]]}, "/prompt/0 "),
        ({"max_tokens": -1}, "/max_tokens "),
        ({"max_tokens": False}, "/max_tokens "),
        ({"n": 0}, "/n "),
        ({"best_of": "3"}, "/best_of "),
        ({"suffix": 5}, "/suffix "),
        ({"stream": "true"}, "/stream "),
        ({"models": "gpt"}, "/models "),
    ],
)
def test_a_wrong_type_is_400_and_names_its_place(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(ONCE | change)

    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)
    is_missing = change == {"prompt": None}
    assert caught.value.code == (Reason.UNCLASSIFIED if is_missing else Reason.BODY_MALFORMED)


def test_no_output_may_be_asked_for() -> None:
    """With `echo`, the log probabilities of the prompt are the answer."""
    assert parse(ONCE | {"max_tokens": 0, "echo": True}).request.max_output_tokens == 0


def test_choices_never_exceed_what_counters_hold() -> None:
    assert parse(ONCE | {"prompt": ["a"] * 10, "n": 2**31 - 1}).request.choices == 2**31 - 1


def test_a_stream_is_made_to_report_usage() -> None:
    call = claimed("/v1/completions")
    assert call is not None
    body = ONCE | {"stream": True}

    assert COMPLETIONS.ask_for_usage(body, call) == body | {"stream_options": {"include_usage": True}}
    assert COMPLETIONS.ask_for_usage(ONCE, call) is None


def test_mistral_reports_unasked_and_fills_in_the_middle() -> None:
    call = claimed("/v1/fim/completions", host="codestral.mistral.ai")
    assert call is not None

    assert (call.api, call.provider) == ("openai_completions", "mistral_ai")
    body = {"model": "codestral-2508", "prompt": "def f(", "suffix": "return x", "stream": True}
    assert COMPLETIONS.ask_for_usage(body, call) is None
    found = COMPLETIONS.parse_request(body, call)
    assert found.request.wants_usage_chunk
    assert [message.text for message in found.prompt.messages] == ["def f(", "return x"]


@pytest.mark.parametrize("line", [("GET", "/v1/completions"), ("POST", "/v1/completions/x")])
def test_only_the_path_itself_is_a_completion(line: tuple[str, str]) -> None:
    assert claimed(line[1], method=line[0]) is None


def test_a_stream_is_observed_alike_wherever_it_is_cut() -> None:
    data = (FIXTURES / "stream.sse").read_bytes()
    whole = observed("openai_completions", data, headers=SSE_ANSWER)

    assert whole.usage == Usage(input_tokens=31, output_tokens=25)
    assert (whole.finished, whole.finish_reasons) == (True, ("length", "stop"))
    assert whole.output_text == " Grüße 🌍\n One"
    for pieces in split_everywhere(data):
        assert observed("openai_completions", *pieces, headers=SSE_ANSWER) == whole


def test_its_usage_chunk_can_be_told_from_all_others() -> None:
    blocks = (FIXTURES / "stream.sse").read_bytes().split(b"\n\n")
    are_usage = [COMPLETIONS.is_usage_chunk(block.removeprefix(b"data: ")) for block in blocks if block]

    assert are_usage == [False] * 5 + [True, False]


def test_a_filled_in_middle_comes_as_a_message() -> None:
    answer = b'{"choices":[{"message":{"content":"x):"}}],"usage":{"prompt_tokens":8,"completion_tokens":4}}'
    seen = observed("openai_completions", answer, headers=JSON_ANSWER)

    assert (seen.output_text, seen.usage) == ("x):", Usage(input_tokens=8, output_tokens=4))


def test_a_deployment_names_the_model() -> None:
    call = claimed("/openai/deployments/My-Dep/completions?api-version=2024-10-21")
    assert call == Call(
        api="openai_completions",
        operation="text_completion",
        provider="azure.ai.openai",
        model="my-dep",
        query={"api-version": "2024-10-21"},
    )
    request = COMPLETIONS.parse_request({"prompt": "hi"}, call).request
    assert (request.model, request.models) == ("my-dep", ("my-dep",))
