"""Answers that Envoy read without finding their usage: settled once, by what its access log says was sent."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.measure.bytes_per_token import AnswerForm
from extproc.model import Basis, Usage
from extproc.policy.policyset import PolicySet
from extproc.session.actions import AwaitBytes, Continue
from extproc.session.events import BytesSent, ResponseTrailers
from extproc.session.transitions import State
from tests.session.playbook import SECOND_NS, Playbook, chat_body, chat_head, load

CEILING = 50
STREAM = {"content-type": "text/event-stream"}
TOKENS = """
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: tokens}
spec: {limit: {tokens: 1000000, per: 1h, burst: 1000000}}
"""


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> PolicySet:
    return load(tmp_path_factory.mktemp("policies") / "limited", TOKENS)


def asked(policies: PolicySet, *, native: bool = True, **changes: Any) -> Playbook:
    """A stream whose answer has begun; nobody has said yet how much of it was sent."""
    book = Playbook(policies, native_usage=native, holds=(AwaitBytes,))
    body: dict[str, Any] = {"max_tokens": CEILING, "stream": True, "stream_options": {"include_usage": True}}
    book.request(body=chat_body(**(body | changes)))
    return book


def told(book: Playbook, output_tokens: int | None, body_bytes: int | None = 1000) -> None:
    book.play(BytesSent(at_ns=book.now_ns, body_bytes=body_bytes, output_tokens=output_tokens))


def test_what_ends_without_usage_waits_to_be_told_how_much_was_sent(policies: PolicySet) -> None:
    book = asked(policies)
    book.answer_headers(headers=STREAM)

    book.close()

    assert book.session.state is State.AWAITING_BYTES
    assert not book.session.is_over
    assert book.settled == []
    form = AnswerForm(api="openai_chat", provider="openai", model="gpt-4o-mini", is_stream=True)
    assert book.held == [AwaitBytes(decision_id=book.decision.id, answer=form)]


def test_it_is_settled_by_what_was_sent(policies: PolicySet) -> None:
    book = asked(policies)
    book.answer_headers(headers=STREAM)
    book.close()
    ended_at_ns = book.now_ns
    book.now_ns += SECOND_NS

    told(book, 30)

    assert book.settlement.basis is Basis.BYTES
    assert book.settlement.usage == Usage(input_tokens=book.decision.tokens.input, output_tokens=30)
    assert set(book.settlement.amounts.values()) == {book.decision.tokens.input + 30}
    # However long it took to be known.
    assert book.settlement.ended_at_ns == ended_at_ns
    assert book.session.state is State.SETTLED


def test_nobody_knowing_leaves_the_reservation(policies: PolicySet) -> None:
    for body_bytes in (None, 0, 700):
        book = asked(policies)
        book.answer_headers(headers=STREAM)
        book.close()

        told(book, None, body_bytes)

        assert book.settlement.basis is Basis.RESERVED
        assert set(book.settlement.amounts.values()) == {book.decision.tokens.input + CEILING}


@pytest.fixture(scope="session")
def shared_policies(tmp_path_factory: pytest.TempPathFactory) -> PolicySet:
    return load(tmp_path_factory.mktemp("policies") / "limited", TOKENS)


@given(st.integers(0, 10**9), st.integers(1, 4))
def test_no_size_costs_more_than_was_asked_for(shared_policies: PolicySet, tokens: int, choices: int) -> None:
    book = asked(shared_policies, n=choices)
    book.answer_headers(headers=STREAM)
    book.close()

    told(book, tokens)

    assert book.settlement.usage.output_tokens == min(tokens, choices * CEILING)
    assert max(book.settlement.amounts.values()) <= sum(
        outcome.reserved for outcome in book.decision.outcomes
    )


def test_trailers_without_usage_pass_before_anybody_waits(policies: PolicySet) -> None:
    """Envoy could not read the answer: it ends for the client at once."""
    book = asked(policies)
    book.answer_headers(headers=STREAM)

    said = book.play(ResponseTrailers(at_ns=book.now_ns))

    assert len(said) == 1
    assert book.session.state is State.AWAITING_BYTES
    book.close()
    assert book.settled == []
    told(book, 7)
    assert (book.settlement.basis, book.settlement.usage.output_tokens) == (Basis.BYTES, 7)


def test_usage_that_envoy_found_is_not_waited_for(policies: PolicySet) -> None:
    for usage in (Usage(input_tokens=9, output_tokens=3), Usage(input_tokens=0, output_tokens=0)):
        book = asked(policies)
        book.answer_headers(headers=STREAM)
        book.play(ResponseTrailers(at_ns=book.now_ns, usage=usage))
        book.close()

        assert book.held == []
        assert (book.settlement.basis, book.settlement.usage) == (Basis.PROVIDER, usage)


@pytest.mark.parametrize(("by_size", "made"), [(30, 30), (1, 2), (900, CEILING), (None, CEILING)])
def test_an_answer_that_ends_after_its_first_usage_costs_what_was_sent(
    policies: PolicySet, by_size: int | None, made: int
) -> None:
    """A Claude that fails in the middle of a stream has reported the output of its first word alone."""
    book = Playbook(policies, native_usage=True, holds=(AwaitBytes,))
    body = {"model": "claude-sonnet-4-5", "max_tokens": CEILING, "stream": True}
    messages = [{"role": "user", "content": "Say hello."}]
    head = replace(chat_head(), path="/v1/messages")
    book.request(head, json.dumps(body | {"messages": messages}).encode())
    book.answer_headers(headers=STREAM)
    usage = Usage(input_tokens=12, output_tokens=2)

    (said,) = book.play(ResponseTrailers(at_ns=book.now_ns, usage=usage, usage_is_partial=True))
    book.close()

    # Envoy's access log tells of answers whose output was not said.
    assert isinstance(said, Continue)
    assert "output_tokens" not in (said.metadata or {})
    told(book, by_size)
    assert book.settlement.basis is Basis.PARTIAL
    assert book.settlement.usage == Usage(input_tokens=12, output_tokens=made)


def test_part_of_the_usage_is_all_where_it_is_told_throughout(policies: PolicySet) -> None:
    book = asked(policies)
    book.answer_headers(headers=STREAM)
    usage = Usage(input_tokens=9, output_tokens=3)
    book.play(ResponseTrailers(at_ns=book.now_ns, usage=usage, usage_is_partial=True))

    assert book.held == []
    assert (book.settlement.basis, book.settlement.usage) == (Basis.PARTIAL, usage)


@pytest.mark.parametrize(
    ("status", "answer", "basis"),
    [
        (429, {}, Basis.UPSTREAM_ERROR),
        (302, {}, Basis.UPSTREAM_ERROR),
        (503, {"is_local_reply": True, "reached_upstream": False}, Basis.LOCAL_REPLY),
        (504, {"is_local_reply": True, "timed_out": True}, Basis.RESERVED),
        (200, {"end_of_stream": True}, Basis.RESERVED),
    ],
)
def test_what_is_no_answer_is_not_waited_for(
    policies: PolicySet, status: int, answer: dict[str, Any], basis: Basis
) -> None:
    book = asked(policies)
    book.answer_headers(status, **answer)
    book.close()

    assert book.held == []
    assert book.settlement.basis is basis


def test_who_leaves_before_the_answer_begins_is_not_waited_for(policies: PolicySet) -> None:
    book = asked(policies)
    book.close()

    assert book.held == []
    assert book.settlement.basis is Basis.RESERVED


@pytest.mark.parametrize(
    ("native", "headers", "changes"),
    [
        (False, STREAM, {}),
        (True, STREAM | {"content-encoding": "gzip"}, {}),
        (True, STREAM, {"stream_options": None}),
    ],
)
def test_what_is_read_here_is_not_waited_for(
    policies: PolicySet, *, native: bool, headers: dict[str, str], changes: dict[str, Any]
) -> None:
    book = asked(policies, native=native, **changes)
    book.answer_headers(headers=headers)
    book.close()

    assert book.held == []
    assert book.settlement.basis is Basis.RESERVED


def test_an_answer_read_whole_says_how_many_bytes_it_had(tmp_path: Path) -> None:
    body = json.dumps(
        {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        }
    ).encode()
    book = Playbook(load(tmp_path / "policies", TOKENS))
    book.request()
    book.answer_headers()
    book.answer_body(body[:20], end=False)
    book.answer_body(body[20:])

    assert (book.settlement.basis, book.settlement.body_bytes) == (Basis.PROVIDER, len(body))
