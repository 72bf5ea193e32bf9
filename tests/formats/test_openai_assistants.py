from pathlib import Path
from typing import Any

import pytest

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.base import BodyKind, ParsedRequest
from extproc.model import Observation, Usage
from tests.formats.calls import JSON_ANSWER, SSE_ANSWER, claimed, observed, parsed, split_everywhere

STREAM = (Path(__file__).parent.parent / "fixtures" / "openai_assistants" / "stream.sse").read_bytes()
RUN: dict[str, Any] = {"assistant_id": "asst_1"}


def parse(body: dict[str, Any], path: str = "/v1/threads/thread_1/runs") -> ParsedRequest:
    return parsed(path, body)


def observe(*chunks: bytes) -> Observation:
    return observed("openai_assistants", *chunks, headers=SSE_ANSWER, operation="invoke_agent")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/threads/runs", ("invoke_agent", BodyKind.JSON)),
        ("POST", "/threads/thread_1/runs", ("invoke_agent", BodyKind.JSON)),
        ("POST", "/threads/runs/runs", ("invoke_agent", BodyKind.JSON)),
        ("POST", "/threads/thread_1/runs/run_1/submit_tool_outputs", ("invoke_agent", BodyKind.JSON)),
        ("POST", "/threads/thread_1/runs/run_1", ("control", BodyKind.JSON)),
        ("POST", "/threads/thread_1/runs/run_1/cancel", ("control", BodyKind.OPAQUE)),
        ("GET", "/threads/thread_1/runs/run_1", ("control", BodyKind.NONE)),
        ("GET", "/threads/thread_1/runs/run_1/steps/step_1", ("control", BodyKind.NONE)),
        ("POST", "/threads", ("control", BodyKind.JSON)),
        ("POST", "/threads/thread_1", ("control", BodyKind.JSON)),
        ("DELETE", "/threads/thread_1", ("control", BodyKind.NONE)),
        ("POST", "/threads/thread_1/messages", ("control", BodyKind.JSON)),
        ("GET", "/threads/thread_1/messages", ("control", BodyKind.NONE)),
        ("POST", "/assistants", ("control", BodyKind.JSON)),
        ("POST", "/assistants/asst_1", ("control", BodyKind.JSON)),
        ("GET", "/assistants", ("control", BodyKind.NONE)),
        ("POST", "/vector_stores", ("control", BodyKind.OPAQUE)),
        ("POST", "/vector_stores/vs_1/search", ("control", BodyKind.OPAQUE)),
        ("POST", "/vector_stores/vs_1/file_batches/b_1/cancel", ("control", BodyKind.OPAQUE)),
        ("DELETE", "/vector_stores/vs_1/files/file-1", ("control", BodyKind.NONE)),
        ("POST", "/threads/thread_1/runs/run_1/resume", None),
        ("POST", "/threads/thread_1%2Fruns", None),
        ("GET", "/threads/thread_1%2Fruns", None),
        ("PUT", "/threads/thread_1", None),
        ("POST", "/assistants/asst_1/runs", None),
    ],
)
def test_only_runs_spend(method: str, path: str, expected: tuple[str, BodyKind] | None) -> None:
    call = claimed("/v1" + path, method=method)

    assert (call and (call.operation, call.body)) == expected
    if call:
        assert call.api == "openai_assistants"


def test_a_run_uses_what_its_assistant_says_unless_it_says_more() -> None:
    bare = parse(RUN).request
    full = parse(
        RUN
        | {
            "model": "GPT-4o",
            "instructions": "Be brief.",
            "additional_instructions": "And kind.",
            "additional_messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "tools": [{"type": "code_interpreter"}, {"type": "function", "function": {"name": "find"}}],
            "max_completion_tokens": 400,
            "max_prompt_tokens": 4000,
            "temperature": 0,
            "stream": True,
        }
    )

    assert (bare.model, bare.models, bare.has_state) == ("", (), True)
    assert (bare.stream, bare.max_output_tokens, bare.operation) == (False, None, "invoke_agent")
    request = full.request
    assert (request.model, request.models, request.has_state) == ("gpt-4o", ("gpt-4o",), True)
    assert request.tools == ("code_interpreter", "find")
    assert (request.stream, request.max_output_tokens, request.message_count) == (True, 400, 1)
    assert [(message.role, message.text) for message in full.prompt.messages] == [
        ("system", "Be brief."),
        ("system", "And kind."),
        ("user", "hi"),
    ]


def test_a_thread_may_come_with_its_run() -> None:
    content = [{"type": "text", "text": "hi"}, {"type": "image_file", "image_file": {"file_id": "file-1"}}]
    request = parse(
        RUN | {"thread": {"messages": [{"role": "user", "content": content}]}}, "/v1/threads/runs"
    ).request

    assert (request.message_count, request.modalities) == (1, ("image", "text"))


def test_what_tools_answered_is_input() -> None:
    path = "/v1/threads/thread_1/runs/run_1/submit_tool_outputs"
    found = parse({"tool_outputs": [{"tool_call_id": "call_1", "output": "13,960,000"}]}, path)

    assert [(message.role, message.text) for message in found.prompt.messages] == [("tool", "13,960,000")]
    assert (found.request.model, found.request.has_state) == ("", True)


def test_control_calls_name_their_model_and_what_they_hold() -> None:
    assistant = parse({"model": "GPT-4o", "tools": [{"type": "file_search"}]}, "/v1/assistants").request
    message = parse({"role": "user", "content": "hi"}, "/v1/threads/thread_1/messages").request

    assert (assistant.operation, assistant.models, assistant.tools) == (
        "control",
        ("gpt-4o",),
        ("file_search",),
    )
    assert (message.operation, message.message_count, message.modalities) == ("control", 1, ("text",))


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/assistant_id ", Reason.UNCLASSIFIED),
        (RUN | {"model": 5}, "/model ", Reason.BODY_MALFORMED),
        (RUN | {"max_completion_tokens": 0}, "/max_completion_tokens ", Reason.BODY_MALFORMED),
        (RUN | {"thread": {"messages": "hi"}}, "/thread/messages ", Reason.BODY_MALFORMED),
        (RUN | {"tool_outputs": [{"output": 5}]}, "/tool_outputs/0/output ", Reason.BODY_MALFORMED),
        (RUN | {"instructions": 5}, "/instructions ", Reason.BODY_MALFORMED),
    ],
)
def test_what_cannot_be_read_is_400_and_names_its_place(
    body: dict[str, Any], pointer: str, code: Reason
) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(body)

    assert caught.value.code == code
    assert caught.value.message.startswith(pointer)


def test_a_stream_is_observed_alike_wherever_it_is_cut() -> None:
    whole = observe(STREAM)

    assert whole == Observation(
        is_legible=True,
        finished=True,
        usage=Usage(input_tokens=381, output_tokens=89, cache_read_input_tokens=0, reasoning_output_tokens=0),
        model="gpt-4o-mini",
        response_id="run_1",
        finish_reasons=("completed",),
        output_text="1+1\nGrüße 🌍",
    )
    for pieces in split_everywhere(STREAM):
        assert observe(*pieces) == whole


def test_the_steps_of_a_run_stand_in_for_it_until_it_reports_itself() -> None:
    cut = observe(STREAM.partition(b"event: thread.run.completed")[0])

    assert cut.usage == Usage(input_tokens=381, output_tokens=89)
    assert not cut.finished


def test_a_run_that_goes_on_behind_its_answer_says_nothing_of_its_cost() -> None:
    for status in ("queued", "in_progress", "requires_action"):
        answer = b'{"id":"run_1","object":"thread.run","model":"gpt-4o","status":"%s","usage":null}'
        seen = observed("openai_assistants", answer % status.encode(), headers=JSON_ANSWER)
        assert seen == Observation(
            model="gpt-4o",
            response_id="run_1",
            finish_reasons=("requires_action",) if status == "requires_action" else (),
        )


def test_a_failed_run_tells_of_its_error_by_type_alone() -> None:
    failed = (
        b'event: thread.run.failed\ndata: {"object":"thread.run","status":"failed",'
        b'"last_error":{"code":"rate_limit_exceeded","message":"the prompt was"}}\n\n'
    )
    broken = b'event: error\ndata: {"error":{"type":"server_error","message":"the prompt was"}}\n\n'

    assert observe(failed).error == "rate_limit_exceeded"
    assert observe(broken).error == "server_error"
