"""Recorded exchanges with the Gemini API and Vertex AI: every request is read, every usage found.

Expected figures are Google's own usage objects; the arithmetic to inclusive counts is done here a
second time.
"""

from typing import Any

import pytest

from tests.formats.corpus import CORPUS, MISSING, Exchange, call_of, exchanges, observations, request_of

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason=MISSING)

APIS = {"gemini": ("gemini", "gcp.gemini"), "vertex": ("vertex", "gcp.vertex_ai")}


def recorded() -> list[Exchange]:
    return [each for each in exchanges() if each["provider"] in APIS]


def totals(usage: dict[str, Any] | None) -> tuple[int, int, int | None] | None:
    if usage is None:
        return None
    thoughts = usage.get("thoughtsTokenCount")
    return usage["promptTokenCount"], usage.get("candidatesTokenCount", 0) + (thoughts or 0), thoughts


def test_every_request_is_claimed_and_read() -> None:
    assert len(recorded()) == 27

    for each in recorded():
        call, request = call_of(each), request_of(each).request
        assert (call.api, call.provider) == APIS[each["provider"]], each["id"]
        assert (request.api, request.provider) == (call.api, call.provider), each["id"]
        assert request.operation == "generate_content", each["id"]
        assert request.model == each["expected"]["model_request"], each["id"]
        assert request.models == (request.model,), each["id"]
        assert request.stream is each["expected"]["stream"], each["id"]


def test_every_usage_is_found_however_the_answer_is_cut() -> None:
    with_usage = 0
    for each in recorded():
        expected = totals(each["expected"]["usage"])
        api = APIS[each["provider"]][0]
        whole, pieces = observations(api, "generate_content", each)
        assert whole == pieces, each["id"]
        found = whole.usage and (
            whole.usage.input_tokens,
            whole.usage.output_tokens,
            whole.usage.reasoning_output_tokens,
        )
        assert found == expected, each["id"]
        assert whole.finished, each["id"]
        assert whole.model == (each["expected"]["model_response"] or ""), each["id"]
        assert bool(whole.error) is (each["status"] >= 400), each["id"]
        with_usage += expected is not None

    assert with_usage == 24


def test_enums_as_numbers_are_the_words_they_stand_for() -> None:
    (each,) = (each for each in recorded() if "test_generate_content_with_files" in each["id"])
    seen, _ = observations("vertex", "generate_content", each)

    assert seen.finish_reasons == ("STOP",)
    assert seen.usage is not None
    assert (seen.usage.image_input_tokens, seen.usage.audio_input_tokens) == (516, None)


def test_errors_are_named_by_their_status() -> None:
    named = {observations("vertex", "generate_content", each)[0].error for each in recorded()}

    assert named == {"", "INVALID_ARGUMENT", "NOT_FOUND"}
