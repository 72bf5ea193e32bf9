import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.model import Observation, Usage
from tests.formats.calls import JSON_ANSWER, SSE_ANSWER, observed, split_everywhere


def chunk(text: str = "", reason: str = "", *, index: int | None = None, **usage: Any) -> dict[str, Any]:
    """One answer of a stream."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    candidate |= {"finishReason": reason} if reason else {}
    candidate |= {} if index is None else {"index": index}
    answer = {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "responseId": "r-1"}
    return answer | ({"usageMetadata": usage} if usage else {})


STREAM = [
    chunk("Hé", trafficType="ON_DEMAND"),
    chunk("llo", promptTokenCount=8, totalTokenCount=8),
    chunk(" you", promptTokenCount=8, candidatesTokenCount=3, totalTokenCount=15, thoughtsTokenCount=4),
    chunk("!", "STOP", promptTokenCount=8, candidatesTokenCount=4, totalTokenCount=16, thoughtsTokenCount=4),
]


def sse(*answers: Any) -> bytes:
    return b"".join(b"data: %s\r\n\r\n" % json.dumps(answer).encode() for answer in answers)


def array(*answers: Any) -> bytes:
    return ("[" + "\n,\r\n".join(json.dumps(answer, indent=1) for answer in answers) + "\n]\n").encode()


def seen(*chunks: bytes, headers: Any = JSON_ANSWER, operation: str = "generate_content") -> Observation:
    return observed("gemini", *chunks, headers=headers, operation=operation)


def whole(body: Any, operation: str = "generate_content") -> Observation:
    return seen(json.dumps(body).encode(), operation=operation)


def usage_of(**counts: Any) -> Usage | None:
    return whole({"candidates": [{"finishReason": "STOP"}], "usageMetadata": counts}).usage


@pytest.mark.parametrize(("write", "headers"), [(sse, SSE_ANSWER), (array, JSON_ANSWER)])
def test_a_stream_is_read_as_events_or_as_an_array_however_it_is_split(write: Any, headers: Any) -> None:
    data = write(*STREAM)
    expected = seen(data, headers=headers)

    assert (expected.model, expected.response_id, expected.output_text) == (
        "gemini-2.5-flash",
        "r-1",
        "Héllo you!",
    )
    assert expected.finish_reasons == ("STOP",)
    assert (expected.finished, expected.is_legible, expected.error) == (True, True, "")
    assert expected.usage == Usage(input_tokens=8, output_tokens=8, reasoning_output_tokens=4)
    for before, after in split_everywhere(data):
        assert seen(before, after, headers=headers) == expected


@pytest.mark.parametrize(("write", "headers"), [(sse, SSE_ANSWER), (array, JSON_ANSWER)])
def test_a_cut_stream_keeps_the_usage_of_what_came_whole(write: Any, headers: Any) -> None:
    data = write(*STREAM)
    cut = seen(data[: data.rindex(b"STOP")], headers=headers)

    assert not cut.finished
    assert cut.output_text == "Héllo you"
    assert cut.usage == Usage(input_tokens=8, output_tokens=7, reasoning_output_tokens=4)


def test_nothing_generated_so_far_is_not_zero() -> None:
    cut = seen(sse(*STREAM[:2]), headers=SSE_ANSWER)

    assert cut.usage == Usage(input_tokens=8, output_tokens=None)


def test_counts_are_never_added_up() -> None:
    answers = [chunk("a", promptTokenCount=5, candidatesTokenCount=n, totalTokenCount=5 + n) for n in (1, 2)]
    answers.append(chunk("b", "STOP"))

    assert seen(sse(*answers), headers=SSE_ANSWER).usage == Usage(input_tokens=5, output_tokens=2)


def test_a_stream_ends_when_every_candidate_has() -> None:
    first = chunk("a", "STOP", index=0, promptTokenCount=5, candidatesTokenCount=1, totalTokenCount=6)
    second = chunk("b", index=1)

    assert seen(sse(first), headers=SSE_ANSWER).finished
    assert not seen(sse(first, second), headers=SSE_ANSWER).finished
    both = seen(sse(first, second, chunk("c", "MAX_TOKENS", index=1)), headers=SSE_ANSWER)
    assert (both.finished, both.finish_reasons, both.output_text) == (True, ("STOP", "MAX_TOKENS"), "a\nbc")


@pytest.mark.parametrize(("write", "headers"), [(sse, SSE_ANSWER), (array, JSON_ANSWER)])
def test_a_blocked_prompt_costs_its_input_alone(write: Any, headers: Any) -> None:
    answer = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}}
    blocked = seen(write(answer), headers=headers)

    assert (blocked.finished, blocked.finish_reasons) == (True, ("SAFETY",))
    assert blocked.usage == whole(answer).usage == Usage(input_tokens=9, output_tokens=0)


@pytest.mark.parametrize(
    ("counts", "totals"),
    [
        ({"promptTokenCount": 9, "candidatesTokenCount": 13, "thoughtsTokenCount": 302}, (9, 315)),
        ({"promptTokenCount": 9, "toolUsePromptTokenCount": 100, "candidatesTokenCount": 1}, (109, 1)),
        ({"promptTokenCount": 5, "totalTokenCount": 9, "thoughtsTokenCount": 4}, (5, 4)),
        ({"promptTokenCount": 5, "totalTokenCount": 9}, (5, 4)),
        ({"promptTokenCount": 5, "totalTokenCount": 5}, (5, 0)),
        ({"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 10}, (5, 5)),
        ({"promptTokenCount": 5, "candidatesTokenCount": 0, "totalTokenCount": 5}, (5, 0)),
        ({"promptTokenCount": 5}, (5, None)),
    ],
)
def test_counts_are_inclusive(counts: dict[str, int], totals: tuple[int, int | None]) -> None:
    found = usage_of(**counts)

    assert found is not None
    assert (found.input_tokens, found.output_tokens) == totals


def test_parts_of_the_counts_are_told_apart() -> None:
    def details(**counts: int) -> list[dict[str, Any]]:
        return [{"modality": name, "tokenCount": count} for name, count in counts.items()]

    found = usage_of(
        promptTokenCount=100,
        candidatesTokenCount=50,
        toolUsePromptTokenCount=7,
        cachedContentTokenCount=40,
        thoughtsTokenCount=5,
        totalTokenCount=162,
        promptTokensDetails=details(TEXT=10, IMAGE=60, AUDIO=30),
        candidatesTokensDetails=details(IMAGE=20, AUDIO=30),
    )

    assert found == Usage(
        input_tokens=107,
        output_tokens=55,
        cache_read_input_tokens=40,
        audio_input_tokens=30,
        image_input_tokens=60,
        tool_input_tokens=7,
        reasoning_output_tokens=5,
        audio_output_tokens=30,
        image_output_tokens=20,
    )


@pytest.mark.parametrize("count", [-1, 1.5, "8", True, None, 10**12])
def test_what_is_no_count_is_no_usage(count: Any) -> None:
    assert usage_of(promptTokenCount=count) is None


def test_all_that_was_generated_is_said() -> None:
    parts = [
        {"text": "hm", "thought": True},
        {"text": "Hi"},
        {"functionCall": {"name": "f", "args": {"a": "é"}}},
        {"functionCall": {"name": "g", "partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}]}},
        {"executableCode": {"code": "print(1)"}},
    ]

    assert whole({"candidates": [{"content": {"parts": parts}}]}).output_text == (
        'hm\nHi\nf{"a":"é"}gx\nprint(1)'
    )


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"embedding": {"values": [0.1]}}, None),
        ({"embedding": {"values": []}, "usageMetadata": {"promptTokenCount": 4}}, 4),
        ({"embeddings": [], "usageMetadata": {"totalTokenCount": 4}}, 4),
        ({"predictions": [{"embeddings": {"statistics": {"token_count": n}}} for n in (3, 4.0)]}, 7),
        ({"predictions": [{"imageEmbedding": [0.1]}]}, None),
    ],
)
def test_embeddings_cost_their_input_where_it_is_told(body: dict[str, Any], usage: int | None) -> None:
    expected = None if usage is None else Usage(input_tokens=usage, output_tokens=0)

    assert whole(body, "embeddings").usage == expected


def test_an_error_is_named_by_its_status() -> None:
    error = {"error": {"code": 429, "message": "secret", "status": "RESOURCE_EXHAUSTED"}}

    for found in (whole(error), whole([error]), seen(sse(STREAM[0], error), headers=SSE_ANSWER)):
        assert found.error == "RESOURCE_EXHAUSTED"
        assert "secret" not in repr(found)
    assert whole({"error": "x"}).error == "error"


_WORDS = st.sampled_from(
    [
        *("candidates", "content", "parts", "text", "functionCall", "args", "usageMetadata", "error"),
        *("promptTokenCount", "totalTokenCount", "promptTokensDetails", "modality", "finishReason"),
        *("predictions", "embeddings", "statistics", "token_count", "promptFeedback", "blockReason", "index"),
    ]
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(_ANY, st.sampled_from([JSON_ANSWER, SSE_ANSWER]))
def test_no_answer_raises(body: Any, headers: Any) -> None:
    text = json.dumps(body).encode()
    for data in (text, b"[" + text + b"]", b"data: " + text + b"\n\n"):
        seen(data, headers=headers)


@given(st.binary(), st.sampled_from([JSON_ANSWER, SSE_ANSWER]))
def test_no_bytes_raise(data: bytes, headers: Any) -> None:
    seen(data, headers=headers)
