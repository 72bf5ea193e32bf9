"""Every order of messages that Envoy can produce, played as conversations."""

import gzip
import json
from pathlib import Path

import pytest

from extproc.decision import Effect, Reason
from extproc.errors import ProtocolViolation
from extproc.model import Basis, Usage
from extproc.policy import policyset
from extproc.policy.policyset import PolicySet
from extproc.session.actions import (
    Continue,
    CountOutput,
    Record,
    Reserve,
    RespondImmediately,
    Settle,
    Understand,
)
from extproc.session.events import (
    ChargesReserved,
    DeadlinePassed,
    Recorded,
    RecordFailed,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StoreFailed,
    StreamClosed,
    Understood,
)
from extproc.session.transitions import TRANSITIONS, State, diagram
from tests.fuzz.lines import CLAUDE, GEMINI
from tests.session.playbook import Playbook, chat_body, chat_head, load

REQUESTS = """
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: two-requests}
spec: {limit: {requests: 2, per: 1m, burst: 2}}
"""
TOKENS = """
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: tokens}
spec: {limit: {tokens: 100000, per: 1m, burst: 100000}}
"""
CLOSED_STORE = """
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: must-count}
spec: {limit: {requests: 2, per: 1m, burst: 2}, onError: deny}
"""
NO_BIG_MODEL = """
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: no-o1}
spec: {effect: deny, match: request.model == "o1-pro", message: Use a smaller model.}
"""

USAGE = {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}
        ],
        "usage": USAGE,
    }
).encode()


def sse(*events: object) -> bytes:
    return b"".join(
        b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n" for e in events
    )


def delta(content: str, finish: str | None = None) -> dict[str, object]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}],
        "usage": None,
    }


USAGE_CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [],
    "usage": USAGE,
}
STREAM_HEADERS = {"content-type": "text/event-stream"}


@pytest.fixture
def open_policies(tmp_path: Path) -> PolicySet:
    return load(tmp_path / "open")


@pytest.fixture
def limited(tmp_path: Path) -> PolicySet:
    return load(tmp_path / "limited", REQUESTS, TOKENS, NO_BIG_MODEL)


# --- allowed


def test_an_allowed_request_continues_twice_and_its_headers_are_cleaned(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    head = chat_head(
        headers={
            "content-type": "application/json",
            "accept-encoding": "gzip",
            "x-ai-policy-decision-id": "spoofed",
            "x-ai-policy-team": "spoofed",
        }
    )

    first, second = book.request(head)

    assert first == Continue(phase=RequestHeaders)
    assert isinstance(second, Continue)
    assert second.phase is RequestBody
    assert second.body is None
    assert second.set_headers == {"x-ai-policy-decision-id": "decision-1"}
    assert set(second.remove_headers) == {"accept-encoding", "x-ai-policy-team"}
    assert second.metadata["decision_id"] == "decision-1"
    assert book.decision.enforced_effect is Effect.ALLOW


def test_a_decision_keeps_no_credential(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    headers = {"authorization": "Bearer sk-canary", "x-api-key": "sk-canary", "cookie": "sk-canary"}

    book.request(chat_head(path="/v1/chat/completions?key=sk-canary", headers=headers))

    assert "sk-canary" not in repr(book.decision)


def test_a_json_answer_is_settled_by_what_the_provider_reports(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request()

    (headers,) = book.answer_headers()
    book.answer_body(ANSWER)
    book.close()

    assert isinstance(headers, Continue)
    assert headers.read_response_body == "STREAMED"
    assert headers.set_headers["x-ai-policy-decision-id"] == "decision-1"
    assert book.settlement.basis is Basis.PROVIDER
    assert (book.settlement.usage.input_tokens, book.settlement.usage.output_tokens) == (8, 3)
    assert book.settlement.model == "gpt-4o-mini-2024-07-18"
    assert sorted(book.settlement.amounts.values()) == [1, 11]


def test_the_last_chunks_answer_carries_the_usage_for_envoys_access_log(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    book.request()
    book.answer_headers()

    (end,) = book.answer_body(ANSWER)

    assert isinstance(end, Continue)
    assert end.metadata == {"input_tokens": 8, "output_tokens": 3}


def test_the_limits_of_an_answer_are_in_its_headers(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request()

    (headers,) = book.answer_headers()

    assert isinstance(headers, Continue)
    assert headers.set_headers["x-ratelimit-limit-requests"] == "2"
    assert headers.set_headers["x-ratelimit-remaining-requests"] == "1"


def test_a_shadow_limit_is_not_in_the_headers_of_an_answer(tmp_path: Path) -> None:
    shadow = REQUESTS.replace("spec: {", "spec: {mode: shadow, ")
    book = Playbook(load(tmp_path / "shadow", shadow))
    book.request()

    (headers,) = book.answer_headers()

    assert isinstance(headers, Continue)
    assert set(headers.set_headers) == {"x-ai-policy-decision-id"}


def test_a_chunk_is_answered_before_it_is_read(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    body = chat_body(stream=True, stream_options={"include_usage": True})
    book.request(body=body)
    book.answer_headers(headers=STREAM_HEADERS)

    actions = book.session.receive(ResponseBody(at_ns=book.now_ns, body=sse(delta("a")), end_of_stream=False))

    assert actions[0] == Continue(phase=ResponseBody)
    assert type(actions[1]).__name__ == "Defer"


# --- streams: usage asked for and stripped


def stream_of(book: Playbook, pieces: list[bytes]) -> bytes:
    """What the client of these chunks gets."""
    out = b""
    for number, piece in enumerate(pieces):
        (said,) = book.answer_body(piece, end=number == len(pieces) - 1)
        assert isinstance(said, Continue)
        out += piece if said.body is None else said.body
    return out


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_usage_is_asked_for_and_the_extra_chunk_is_stripped_where_nobody_asked(
    open_policies: PolicySet, size: int
) -> None:
    book = Playbook(open_policies)
    _, forward = book.request(body=chat_body(stream=True))
    (headers,) = book.answer_headers(headers=STREAM_HEADERS)
    whole = sse(delta("he"), delta("llo", "stop"), USAGE_CHUNK, b"[DONE]")

    seen = stream_of(book, [whole[i : i + size] for i in range(0, len(whole), size)])

    assert isinstance(forward, Continue)
    assert forward.body is not None
    assert json.loads(forward.body)["stream_options"] == {"include_usage": True}
    assert forward.set_headers["content-length"] == str(len(forward.body))
    assert isinstance(headers, Continue)
    assert headers.remove_headers == ("content-length",)
    assert seen == sse(delta("he"), delta("llo", "stop"), b"[DONE]")
    assert book.settlement.basis is Basis.PROVIDER
    assert book.settlement.usage.output_tokens == 3


def test_a_client_that_asked_for_usage_gets_every_byte(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    _, forward = book.request(body=chat_body(stream=True, stream_options={"include_usage": True}))
    book.answer_headers(headers=STREAM_HEADERS)
    whole = sse(delta("hi", "stop"), USAGE_CHUNK, b"[DONE]")

    assert stream_of(book, [whole]) == whole
    assert isinstance(forward, Continue)
    assert forward.body is None


def test_visible_usage_chunks_are_not_stripped(tmp_path: Path) -> None:
    visible = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: defaults}
spec: {access: allow, usageChunk: visible}
"""
    folder = tmp_path / "visible"
    folder.mkdir()
    (folder / "defaults.yaml").write_text(visible)
    book = Playbook(policyset.load(folder), native_usage=True)
    book.request(body=chat_body(stream=True))

    (headers,) = book.answer_headers(headers=STREAM_HEADERS)

    assert isinstance(headers, Continue)
    assert headers.read_response_body == ""


def test_a_compressed_answer_is_read_and_passes_byte_for_byte(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    book.request()
    book.answer_headers(headers={"content-type": "application/json", "content-encoding": "gzip"})

    (said,) = book.answer_body(gzip.compress(ANSWER))

    assert isinstance(said, Continue)
    assert said.body is None
    assert book.settlement.basis is Basis.PROVIDER


def test_an_answer_that_turns_corrupt_is_charged_what_was_reserved(limited: PolicySet) -> None:
    """What could not be read may have held any amount of output."""
    book = Playbook(limited)
    book.request(body=chat_body(max_tokens=40, stream=True))
    book.answer_headers(headers=STREAM_HEADERS | {"content-encoding": "gzip"})
    sound = gzip.compress(sse(delta("hi")))

    book.answer_body(sound[:-8] + b"\xff" * 16)

    assert book.settlement.basis is Basis.RESERVED
    assert book.settlement.usage.output_tokens == 40


def test_usage_is_not_asked_for_where_the_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(
        "{apiVersion: ai-policy/v1, kind: Defaults, metadata: {name: defaults},"
        " spec: {access: allow, usageChunk: 'off'}}"
    )
    book = Playbook(policyset.load(tmp_path))

    *_, forward = book.request(body=chat_body(stream=True))

    assert isinstance(forward, Continue)
    assert forward.body is None


def test_json_by_another_name_goes_upstream_as_json(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    head = chat_head(headers={"content-type": "application/x-www-form-urlencoded"})

    *_, forward = book.request(head=head)

    assert isinstance(forward, Continue)
    assert forward.body is None
    assert forward.set_headers["content-type"] == "application/json"


# --- upgrades


def test_a_plain_call_cannot_become_another_protocol(open_policies: PolicySet) -> None:
    """Its body would pass unread."""
    book = Playbook(open_policies)
    head = chat_head(headers={"connection": "upgrade", "upgrade": "websocket"})

    (said,) = book.play(RequestHeaders(at_ns=book.now_ns, head=head))

    assert isinstance(said, RespondImmediately)
    assert (said.status, book.decision.reason) == (400, Reason.UNCLASSIFIED)


def test_a_realtime_connection_is_judged_by_its_request_line_and_charged_as_reserved(
    limited: PolicySet,
) -> None:
    book = Playbook(limited)
    head = chat_head(
        method="GET",
        path="/v1/realtime?model=gpt-4o-realtime-preview",
        headers={"connection": "upgrade", "upgrade": "websocket"},
    )

    (forward,) = book.play(RequestHeaders(at_ns=book.now_ns, head=head))
    book.answer_headers(status=101, headers={})
    book.close()

    assert isinstance(forward, Continue)
    assert forward.skip_request_body
    assert book.decision.request is not None
    assert book.decision.request.model == "gpt-4o-realtime-preview"
    assert book.settlement.basis is Basis.RESERVED
    assert sorted(book.settlement.amounts.values()) == [1, 4096]


# --- native usage


def test_with_native_usage_no_body_is_asked_for_and_the_trailers_settle(limited: PolicySet) -> None:
    book = Playbook(limited, native_usage=True)
    book.request()
    (headers,) = book.answer_headers()

    (trailers,) = book.play(
        ResponseTrailers(at_ns=book.now_ns, usage=Usage(input_tokens=8, output_tokens=3), model="gpt-4o-mini")
    )
    book.close()

    assert isinstance(headers, Continue)
    assert headers.read_response_body == ""
    assert isinstance(trailers, Continue)
    assert trailers.metadata == {"input_tokens": 8, "output_tokens": 3}
    assert book.settlement.basis is Basis.PROVIDER
    assert sorted(book.settlement.amounts.values()) == [1, 11]


def test_native_usage_reads_the_stream_whose_extra_chunk_must_go(open_policies: PolicySet) -> None:
    book = Playbook(open_policies, native_usage=True)
    book.request(body=chat_body(stream=True))

    (headers,) = book.answer_headers(headers=STREAM_HEADERS)
    seen = stream_of(book, [sse(delta("hi", "stop"), USAGE_CHUNK, b"[DONE]")])
    book.play(ResponseTrailers(at_ns=book.now_ns, usage=Usage(input_tokens=8, output_tokens=3)))

    assert isinstance(headers, Continue)
    assert headers.read_response_body == "STREAMED"
    assert seen == sse(delta("hi", "stop"), b"[DONE]")
    assert book.settlement.usage.output_tokens == 3


def test_native_usage_loses_no_end_of_a_stream_that_lacks_its_blank_line(open_policies: PolicySet) -> None:
    """Trailers end it, and nothing can be said after them."""
    book = Playbook(open_policies, native_usage=True)
    book.request(body=chat_body(stream=True))
    book.answer_headers(headers=STREAM_HEADERS)

    said = book.answer_body(sse(delta("hi", "stop"), USAGE_CHUNK) + b"data: [DONE]\n", end=False)
    book.play(ResponseTrailers(at_ns=book.now_ns))

    assert [action.body for action in said] == [sse(delta("hi", "stop")) + b"data: [DONE]\n"]


@pytest.mark.parametrize(
    ("path", "body", "is_read"),
    [
        ("/v1beta/models/gemini-2.5-flash:generateContent", GEMINI, False),
        ("/v1beta/models/gemini-embedding-001:embedContent", {"content": {"parts": [{"text": "a"}]}}, True),
        ("/v1beta/models/imagen-4.0:predict", {"instances": [{"prompt": "a"}]}, True),
        ("/v1beta/models/gemini-2.5-flash:countTokens", GEMINI, False),
        ("/v1/messages", {**CLAUDE, "model": "claude-sonnet-4-5"}, False),
        ("/v1/responses", {"model": "gpt-4o-mini", "input": "a"}, False),
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a"}, True),
        ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "a"}, True),
        ("/api/chat", {"model": "llama3.2", "messages": [{"role": "user", "content": "a"}]}, True),
    ],
)
def test_with_native_usage_an_answer_that_envoy_cannot_read_is_read_here(
    open_policies: PolicySet, path: str, body: dict[str, object], *, is_read: bool
) -> None:
    book = Playbook(open_policies, native_usage=True)
    book.request(chat_head(path=path), json.dumps(body).encode())

    (headers,) = book.answer_headers()

    assert isinstance(headers, Continue)
    assert (headers.read_response_body != "") is is_read


def test_an_aborted_native_answer_is_charged_as_reserved_and_not_zero(limited: PolicySet) -> None:
    book = Playbook(limited, native_usage=True)
    book.request(body=chat_body(max_tokens=50))
    book.answer_headers()

    book.close()

    assert book.settlement.basis is Basis.RESERVED
    tokens = max(book.settlement.amounts.values())
    assert tokens == book.decision.tokens.input + 50


def test_a_partial_native_record_is_completed_by_the_estimate(open_policies: PolicySet) -> None:
    book = Playbook(open_policies, native_usage=True)
    book.request()
    book.answer_headers()

    book.play(ResponseTrailers(at_ns=book.now_ns, usage=Usage(output_tokens=3), usage_is_partial=True))

    assert book.settlement.basis is Basis.PARTIAL
    assert book.settlement.usage == Usage(input_tokens=book.decision.tokens.input, output_tokens=3)


# --- endings


def test_a_client_that_leaves_mid_stream_is_charged_for_what_it_saw(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request(body=chat_body(stream=True))
    book.answer_headers(headers=STREAM_HEADERS)
    book.answer_body(sse(delta("hello "), delta("world")), end=False)

    book.close()

    assert book.settlement.basis is Basis.TOKENIZER
    # The playbook's tokenizer counts characters.
    assert book.settlement.usage.output_tokens == len("hello world")
    assert book.settlement.usage.input_tokens == book.decision.tokens.input


def test_a_client_that_leaves_before_the_answer_is_charged_as_reserved(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request()

    book.close()

    assert book.settlement.basis is Basis.RESERVED


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json"},
        {"content-type": "text/plain"},
        {"content-type": "text/event-stream"},
        {"content-type": "application/json", "content-encoding": "br"},
    ],
)
@pytest.mark.parametrize("is_whole", [True, False])
def test_an_answer_that_cannot_be_read_is_charged_as_reserved_and_not_as_empty(
    limited: PolicySet, headers: dict[str, str], *, is_whole: bool
) -> None:
    """Hanging up before the last byte of a JSON answer, or an odd encoding, must not be a discount."""
    book = Playbook(limited)
    book.request(body=chat_body(max_tokens=50))
    book.answer_headers(headers=headers)
    book.answer_body(ANSWER[:-1], end=is_whole)
    book.close()

    assert book.settlement.basis is Basis.RESERVED
    assert book.settlement.usage.output_tokens == 50


def test_a_content_type_is_read_whatever_its_case(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request(body=chat_body(stream=True))
    book.answer_headers(headers={"content-type": "Text/Event-Stream; charset=UTF-8"})

    seen = stream_of(book, [sse(delta("hi", "stop"), USAGE_CHUNK, b"[DONE]")])

    assert seen == sse(delta("hi", "stop"), b"[DONE]")
    assert book.settlement.basis is Basis.PROVIDER


def test_an_error_of_the_provider_returns_the_tokens_and_keeps_the_request(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request()

    (headers,) = book.answer_headers(status=500)
    book.answer_body(b'{"error": {}}')

    assert isinstance(headers, Continue)
    assert headers.read_response_body == ""
    book.close()
    assert book.settlement.basis is Basis.UPSTREAM_ERROR
    assert sorted(book.settlement.amounts.values()) == [0, 1]


def test_an_answer_that_envoy_made_before_the_upstream_costs_nothing(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request()

    book.answer_headers(status=503, is_local_reply=True, reached_upstream=False)
    book.close()

    assert book.settlement.basis is Basis.LOCAL_REPLY
    assert not any(book.settlement.amounts.values())


def test_a_provider_that_timed_out_is_charged_as_reserved(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request()

    book.answer_headers(status=504, is_local_reply=True, timed_out=True)
    book.close()

    assert book.settlement.basis is Basis.RESERVED


def test_an_answer_without_a_body_settles_at_its_headers(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request()

    book.answer_headers(status=500, end_of_stream=True)

    assert book.settlement.basis is Basis.UPSTREAM_ERROR


def test_an_error_inside_a_stream_settles_on_what_was_seen(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request(body=chat_body(stream=True))
    book.answer_headers(headers=STREAM_HEADERS)

    book.answer_body(sse(delta("hello"), {"error": {"type": "server_error", "message": "x"}}))

    assert book.settlement.basis is Basis.TOKENIZER
    assert book.settlement.usage.output_tokens == len("hello")
    assert book.settlement.error_type == "server_error"


def test_envoy_may_repeat_the_end_of_a_body(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    book.request()
    book.answer_headers()
    book.answer_body(ANSWER)

    (again,) = book.answer_body(b"")

    assert again == Continue(phase=ResponseBody)
    assert len(book.settled) == 1


def test_the_chunked_end_without_bytes_settles(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    book.request()
    book.answer_headers()
    book.answer_body(ANSWER, end=False)

    book.answer_body(b"")

    assert book.settlement.basis is Basis.PROVIDER


def test_a_client_that_hangs_up_at_the_last_byte_is_charged_what_was_reported(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request()
    book.answer_headers()
    book.answer_body(ANSWER, end=False)

    book.close()

    assert book.settlement.basis is Basis.PROVIDER
    assert sorted(book.settlement.amounts.values()) == [1, 11]


def test_an_answer_cut_before_its_last_byte_is_charged_as_reserved(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request()
    book.answer_headers()
    book.answer_body(ANSWER[:-1], end=False)

    book.close()

    assert book.settlement.basis is Basis.RESERVED


def test_trailers_without_usage_leave_the_text_to_be_counted(limited: PolicySet) -> None:
    book = Playbook(limited)
    book.request(body=chat_body(stream=True))
    book.answer_headers(headers=STREAM_HEADERS)
    book.answer_body(sse(delta("hello")), end=False)

    book.play(ResponseTrailers(at_ns=book.now_ns))

    assert book.settlement.basis is Basis.TOKENIZER
    assert book.settlement.usage.output_tokens == len("hello")


def test_trailers_after_a_read_body_settle_once(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    book.request()
    book.answer_headers()
    book.answer_body(ANSWER, end=False)

    book.play(ResponseTrailers(at_ns=book.now_ns))
    book.close()

    assert book.settlement.basis is Basis.PROVIDER


# --- denials


def test_a_denied_request_charges_nobody(limited: PolicySet) -> None:
    book = Playbook(limited)

    _, reply = book.request(body=chat_body(model="o1-pro"))

    assert isinstance(reply, RespondImmediately)
    assert reply.status == 403
    assert reply.details == "ai_policy_denied[AccessRule/no-o1]"
    error = json.loads(reply.body)["error"]
    assert "AccessRule/no-o1" in error["message"]
    assert "Use a smaller model." in error["message"]
    assert book.settled == []
    assert [report.settlement for report in book.reports] == [None]


def test_the_limit_that_denies_says_what_was_used_and_when_to_come_back(limited: PolicySet) -> None:
    first = Playbook(limited)
    for number in range(2):
        Playbook(limited, store=first.store, decision_id=f"earlier-{number}").request()

    _, reply = first.request()

    assert isinstance(reply, RespondImmediately)
    assert reply.status == 429
    assert reply.headers["retry-after-ms"] == "30000"
    assert reply.headers["retry-after"] == "30"
    message = json.loads(reply.body)["error"]["message"]
    assert "RateLimit/two-requests" in message
    assert "Please try again in 30s." in message


def test_waiting_exactly_as_told_passes_and_a_tenth_less_does_not(limited: PolicySet) -> None:
    earlier = Playbook(limited)
    earlier.request()
    Playbook(limited, store=earlier.store, decision_id="second").request()
    denied = Playbook(limited, store=earlier.store, decision_id="third")
    _, reply = denied.request()
    assert isinstance(reply, RespondImmediately)
    wait_ns = int(reply.headers["retry-after-ms"]) * 1_000_000

    early = Playbook(
        limited, store=earlier.store, decision_id="early", now_ns=denied.now_ns + wait_ns * 9 // 10
    )
    exact = Playbook(limited, store=earlier.store, decision_id="exact", now_ns=denied.now_ns + wait_ns)

    assert isinstance(early.request()[-1], RespondImmediately)
    assert isinstance(exact.request()[-1], Continue)


def test_garbage_is_refused_in_the_callers_dialect_and_charges_nothing(limited: PolicySet) -> None:
    book = Playbook(limited)
    head = chat_head(path="/v1/messages", headers={"anthropic-version": "2023-06-01"})

    _, reply = book.request(head, body=b'{"model": ')

    assert isinstance(reply, RespondImmediately)
    assert reply.status == 400
    assert json.loads(reply.body)["type"] == "error"
    assert book.decision.reason is Reason.BODY_MALFORMED
    assert book.settled == []


def test_a_post_without_a_body_is_refused_at_its_headers(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)

    (reply,) = book.headers(chat_head(has_body=False))

    assert isinstance(reply, RespondImmediately)
    assert reply.status == 400


def test_a_path_nobody_claims_is_refused_before_its_body_is_buffered(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)

    (reply,) = book.headers(chat_head(path="/v1/unheard-of"))

    assert isinstance(reply, RespondImmediately)
    assert book.decision.reason is Reason.UNCLASSIFIED


UNCLASSIFIED = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: defaults}
spec: {access: allow, unclassified: allow, maxBodyBytes: 10}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: two-requests}
spec: {limit: {requests: 2, per: 1m, burst: 2}}
"""


def uninspected(tmp_path: Path) -> Playbook:
    (tmp_path / "all.yaml").write_text(UNCLASSIFIED)
    return Playbook(policyset.load(tmp_path))


def test_a_request_that_no_format_reads_passes_with_its_body_where_that_is_allowed(tmp_path: Path) -> None:
    book = uninspected(tmp_path)

    said = book.request(chat_head(path="/v1/nobodys"), b"0123456789")

    assert [type(action) for action in said] == [Continue, Continue]
    book.answer_headers()
    book.close()
    assert sorted(book.settlement.amounts.values()) == [1]


def test_a_body_that_no_format_reads_has_the_same_limit_to_the_byte(tmp_path: Path) -> None:
    book = uninspected(tmp_path)

    _, denied = book.request(chat_head(path="/v1/nobodys"), b"0123456789a")

    assert isinstance(denied, RespondImmediately)
    assert denied.status == 413
    book.close()
    assert book.settled == []


def test_a_body_announced_too_large_is_refused_before_it_is_buffered(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)

    (reply,) = book.headers(chat_head(headers={"content-length": "1000001"}))

    assert isinstance(reply, RespondImmediately)
    assert reply.status == 413


def test_envoys_own_413_is_said_in_the_callers_dialect(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    book.headers()

    (reply,) = book.answer_headers(status=413, is_local_reply=True, reached_upstream=False)

    assert isinstance(reply, RespondImmediately)
    assert reply.status == 413
    assert json.loads(reply.body)["error"]["message"]
    assert book.decision.reason is Reason.BODY_TOO_LARGE


def test_another_answer_of_envoys_passes_with_the_decision_id(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    book.headers()

    (reply,) = book.answer_headers(status=408, is_local_reply=True, reached_upstream=False)

    assert isinstance(reply, Continue)
    assert reply.set_headers == {"x-ai-policy-decision-id": "decision-1"}


def test_a_list_of_models_needs_no_body_and_takes_a_request_but_no_tokens(limited: PolicySet) -> None:
    book = Playbook(limited)

    (said,) = book.headers(chat_head(method="GET", path="/v1/models", has_body=False))
    (headers,) = book.answer_headers()
    book.close()

    assert isinstance(said, Continue)
    assert said.phase is RequestHeaders
    assert isinstance(headers, Continue)
    assert headers.read_response_body == ""
    assert book.decision.request is not None
    assert book.decision.request.operation == "control"
    assert {o.charge.unit for o in book.decision.outcomes} == {"requests"}


# --- things that overtake each other


def test_a_client_that_leaves_while_we_count_charges_nothing(limited: PolicySet) -> None:
    book = Playbook(limited, holds=(Understand,))
    book.request()

    book.close()
    said = book.play(Understood(at_ns=book.now_ns))

    assert said == []
    assert book.session.state is State.ABANDONED
    assert book.settled == []


def test_a_client_that_leaves_while_we_reserve_gets_everything_back(limited: PolicySet) -> None:
    book = Playbook(limited, holds=(Reserve,))
    book.request()
    (reserve,) = book.held

    book.close()
    book.do(reserve)

    assert book.session.state is State.ABANDONED
    assert not any(book.settlement.amounts.values())
    after = Playbook(limited, store=book.store, decision_id="next")
    after.request()
    assert all(o.used == 0 for o in after.decision.outcomes)


def test_our_deadline_while_counting_denies(open_policies: PolicySet) -> None:
    book = Playbook(open_policies, holds=(Understand,))
    book.request()

    (reply,) = book.play(DeadlinePassed(at_ns=book.now_ns))

    assert isinstance(reply, RespondImmediately)
    assert reply.status == 503
    assert book.decision.error_type == "deadline_exceeded"


@pytest.mark.parametrize("failure", [StoreFailed, DeadlinePassed])
def test_a_silent_store_means_what_each_limit_says(tmp_path: Path, failure: type) -> None:
    lenient = Playbook(load(tmp_path / "lenient", REQUESTS), holds=(Reserve,))
    strict = Playbook(load(tmp_path / "strict", REQUESTS, CLOSED_STORE), holds=(Reserve,))
    lenient.request()
    strict.request()

    (allowed,) = lenient.play(failure(at_ns=lenient.now_ns))
    (denied,) = strict.play(failure(at_ns=strict.now_ns))

    assert isinstance(allowed, Continue)
    assert isinstance(denied, RespondImmediately)
    assert denied.status == 503
    assert denied.details == "ai_policy_denied[RateLimit/must-count]"


def test_what_a_late_store_took_for_a_denied_request_is_given_back(tmp_path: Path) -> None:
    book = Playbook(load(tmp_path / "late", CLOSED_STORE), holds=(Reserve,))
    book.request()
    book.play(DeadlinePassed(at_ns=book.now_ns))
    (reserve,) = book.held

    book.do(reserve)

    assert not any(book.settlement.amounts.values())


@pytest.mark.parametrize("ending", [StreamClosed, DeadlinePassed])
def test_what_a_store_may_have_taken_before_it_failed_late_is_given_back(
    tmp_path: Path, ending: type
) -> None:
    """Who got no answer cannot know: a call that timed out may be done all the same."""
    book = Playbook(load(tmp_path / "late", CLOSED_STORE), holds=(Reserve,))
    book.request()
    book.play(ending(at_ns=book.now_ns))
    assert book.settled == []

    book.play(StoreFailed(at_ns=book.now_ns))

    assert not any(book.settlement.amounts.values())


def test_what_a_late_store_took_for_a_forwarded_request_is_settled_with_its_answer(tmp_path: Path) -> None:
    book = Playbook(load(tmp_path / "late", REQUESTS), holds=(Reserve,))
    book.request()
    book.play(DeadlinePassed(at_ns=book.now_ns))
    (reserve,) = book.held

    book.do(reserve)
    assert book.settled == []
    book.answer_headers()
    book.answer_body(ANSWER)

    assert list(book.settlement.amounts.values()) == [1]


def test_what_a_store_takes_after_the_answer_is_settled_as_the_answer_was(tmp_path: Path) -> None:
    book = Playbook(load(tmp_path / "late", REQUESTS), holds=(Reserve,))
    book.request()
    book.play(DeadlinePassed(at_ns=book.now_ns))
    book.answer_headers()
    book.answer_body(ANSWER)
    (reserve,) = book.held

    book.do(reserve)

    assert [list(settled.amounts.values()) for settled in book.settled] == [[1], [1]]


@pytest.mark.parametrize("answer", [Recorded, RecordFailed, DeadlinePassed])
def test_nothing_is_forwarded_before_its_decision_is_on_disk(
    tmp_path: Path, answer: type[Recorded | RecordFailed | DeadlinePassed]
) -> None:
    book = Playbook(load(tmp_path / "audited", REQUESTS, audit="required"), holds=(Record,))

    assert book.request() == [book.said[0]]
    (record,) = book.held
    assert isinstance(record, Record)
    assert (record.waits, book.reports) == (True, [])

    (said,) = book.play(answer(at_ns=book.now_ns))

    if answer is Recorded:
        assert isinstance(said, Continue)
        assert len(book.held) == 1
        return
    assert isinstance(said, RespondImmediately)
    assert said.status == 503
    assert (book.decision.reason, book.decision.error_type) == ("audit_unavailable", "audit_unavailable")
    assert not any(book.settlement.amounts.values())


def test_who_leaves_while_the_decision_is_written_gets_everything_back_and_a_settlement(
    tmp_path: Path,
) -> None:
    book = Playbook(load(tmp_path / "audited", REQUESTS, audit="required"), holds=(Record,))
    book.request()

    book.close()

    assert not any(book.settlement.amounts.values())
    assert [report.settlement is None for report in book.reports] == [True, False]
    assert book.play(Recorded(at_ns=book.now_ns)) == []


def test_envoys_answer_overtakes_ours_while_we_count(open_policies: PolicySet) -> None:
    book = Playbook(open_policies, holds=(Understand,))
    book.request()

    (reply,) = book.answer_headers(status=504, is_local_reply=True, reached_upstream=False)

    assert isinstance(reply, Continue)
    assert book.session.state is State.ABANDONED


def test_request_trailers_are_answered_after_the_body(open_policies: PolicySet) -> None:
    book = Playbook(open_policies, holds=(Understand,))
    book.request()
    (understand,) = book.held

    assert book.play(RequestTrailers(at_ns=book.now_ns)) == []
    before = len(book.said)
    book.do(understand)

    assert [said.phase for said in book.said[before:] if isinstance(said, Continue)] == [
        RequestBody,
        RequestTrailers,
    ]


def test_the_output_of_an_aborted_answer_is_counted_after_everything_was_said(limited: PolicySet) -> None:
    book = Playbook(limited, holds=(CountOutput,))
    book.request(body=chat_body(stream=True))
    book.answer_headers(headers=STREAM_HEADERS)
    book.answer_body(sse(delta("hello")), end=True)
    (count,) = book.held
    assert book.settled == []

    book.close()
    book.do(count)

    assert book.settlement.usage.output_tokens == len("hello")


# --- the table itself


def test_a_message_out_of_order_is_a_violation_and_changes_nothing(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)

    with pytest.raises(ProtocolViolation):
        book.play(ResponseTrailers(at_ns=book.now_ns))

    assert book.session.state is State.START
    assert isinstance(book.headers()[0], Continue)


def test_the_answer_of_a_filter_before_ours_passes(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)

    (said,) = book.answer_headers(401, is_local_reply=True)

    assert said == Continue(phase=ResponseHeaders, set_headers={"x-ai-policy-decision-id": book.decision_id})
    book.answer_body(b"no")
    book.close()
    assert book.reports == []


def test_the_answer_of_an_upstream_that_got_a_request_past_us_is_a_violation(
    open_policies: PolicySet,
) -> None:
    with pytest.raises(ProtocolViolation):
        Playbook(open_policies).answer_headers(200)


def test_an_answer_to_a_request_that_was_never_inspected_is_a_violation(open_policies: PolicySet) -> None:
    """A body that skips us (request_body_mode NONE) must not be let through."""
    book = Playbook(open_policies)
    book.headers()

    with pytest.raises(ProtocolViolation):
        book.answer_body(ANSWER)


def test_every_state_is_reachable_and_every_handler_exists(open_policies: PolicySet) -> None:
    book = Playbook(open_policies)
    targets = {target for _, ends in TRANSITIONS.values() for target in ends}

    assert targets | {State.START} == set(State)
    assert all(hasattr(book.session, f"_{handler}") for handler, _ in TRANSITIONS.values())


def test_the_stream_may_close_in_every_state() -> None:
    assert all((state, StreamClosed) in TRANSITIONS for state in State)


@pytest.mark.parametrize(
    ("answer", "in_time"), [(ChargesReserved, "on_charges_reserved"), (StoreFailed, "on_store_failed")]
)
def test_a_late_reservation_is_given_back_in_every_state_but_the_one_that_waits_for_it(
    answer: type, in_time: str
) -> None:
    handlers = {state: TRANSITIONS[state, answer][0] for state in State}

    assert handlers.pop(State.RESERVING) == in_time
    assert set(handlers.values()) == {"on_late_reservation"}


def test_the_diagram_names_every_state() -> None:
    text = diagram()

    assert all(state.value in text for state in State)


def test_an_upstream_success_before_any_verdict_is_never_passed(open_policies: PolicySet) -> None:
    """Nothing was forwarded, so a 200 here means that Envoy sent the request around us."""
    book = Playbook(open_policies)
    book.headers()

    with pytest.raises(ProtocolViolation):
        book.play(ResponseHeaders(at_ns=book.now_ns, status=200))


def test_settling_comes_after_the_answer(open_policies: PolicySet) -> None:
    """A slow store must not delay the last byte."""
    book = Playbook(open_policies)
    book.request()
    book.answer_headers()

    actions = book.session.receive(ResponseBody(at_ns=book.now_ns, body=ANSWER, end_of_stream=True))

    kinds = [type(action) for action in actions]
    assert kinds.index(Continue) < kinds.index(Settle)
