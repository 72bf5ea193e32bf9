"""Requests that go upstream as something else than they came: clamped, or with another model."""

import json
from pathlib import Path
from typing import Any

import pytest

from extproc.decision import Effect, PolicyRef, Reason
from extproc.errors import ProtocolViolation
from extproc.model import Source
from extproc.session.actions import Continue, RespondImmediately, Rewrite
from extproc.session.events import DeadlinePassed
from extproc.session.transitions import State
from tests.session.playbook import Playbook, chat_body, chat_head, load

CLAMP = """
apiVersion: ai-policy/v1
kind: RequestCap
metadata: {name: short-answers}
spec: {outputTokens: 100, onExceed: clamp}
"""
OUTPUT = """
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: output}
spec: {limit: {outputTokens: 1000, per: 1m}, reserve: declared}
"""
CHEAPER = """
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {name: big-model}
spec: {limit: {requests: 1}, period: month, onExceed: {useModel: gpt-4o-mini}}
"""
BY_TARGET = """
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: by-target}
spec: {key: [target.model], limit: {requests: 100, per: 1m}}
"""
NO_MINI = """
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: no-mini}
spec: {effect: deny, match: 'request.model == "gpt-4o-mini"'}
"""
BIG = chat_body(model="gpt-4o")
MARCH = PolicyRef("UsageCap", "big-model")


def forwarded(book: Playbook) -> dict[str, Any]:
    """The body that goes upstream."""
    said = book.said[-1]
    assert isinstance(said, Continue)
    assert said.body is not None
    assert said.set_headers["content-length"] == str(len(said.body))
    value: dict[str, Any] = json.loads(said.body)
    return value


def used_up(tmp_path: Path, *objects: str, **changes: Any) -> Playbook:
    """A second request with the big model, of which one a month is allowed."""
    first = Playbook(load(tmp_path / "policies", CHEAPER, *objects), decision_id="first")
    first.request(body=BIG)
    assert isinstance(first.said[-1], Continue)
    return Playbook(first.policies, store=first.store, decision_id="second", **changes)


# --- clamped


def test_a_ceiling_above_a_cap_goes_upstream_as_the_cap_and_is_reserved_as_that(tmp_path: Path) -> None:
    book = Playbook(load(tmp_path / "policies", CLAMP, OUTPUT))
    body = chat_body(max_tokens=5000)

    book.request(body=body)

    assert forwarded(book) == json.loads(body) | {"max_tokens": 100}
    assert [outcome.reserved for outcome in book.decision.outcomes] == [100]
    assert (book.decision.reason, book.decision.enforced_effect) == (Reason.CLAMPED, Effect.ALLOW)


def test_an_answer_without_a_ceiling_gets_one(tmp_path: Path) -> None:
    book = Playbook(load(tmp_path / "policies", CLAMP))

    book.request()

    assert forwarded(book)["max_completion_tokens"] == 100


def test_a_stream_is_asked_for_usage_and_clamped_in_one_body(tmp_path: Path) -> None:
    book = Playbook(load(tmp_path / "policies", CLAMP))

    book.request(body=chat_body(stream=True, max_tokens=5000))

    assert forwarded(book)["stream_options"] == {"include_usage": True}
    assert forwarded(book)["max_tokens"] == 100


def test_a_ceiling_within_a_cap_passes_byte_for_byte(tmp_path: Path) -> None:
    book = Playbook(load(tmp_path / "policies", CLAMP))

    book.request(body=chat_body(max_tokens=100))

    said = book.said[-1]
    assert isinstance(said, Continue)
    assert said.body is None


def test_what_cannot_be_clamped_is_denied_and_takes_nothing(tmp_path: Path) -> None:
    book = Playbook(load(tmp_path / "policies", CLAMP, OUTPUT))
    head = chat_head(
        host="bedrock-runtime.us-east-1.amazonaws.com",
        path="/model/amazon.nova-lite-v1:0/converse",
        headers={"content-type": "application/json", "authorization": "AWS4-HMAC-SHA256 Credential=x"},
        source=Source(address="10.0.0.1"),
    )
    body = {
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        "inferenceConfig": {"maxTokens": 500},
    }

    book.request(head, json.dumps(body).encode())

    (said,) = book.said[-1:]
    assert isinstance(said, RespondImmediately)
    assert said.status == 413
    assert book.decision.determining == PolicyRef("RequestCap", "short-answers")
    assert book.decision.denial is not None
    assert "signed" in book.decision.denial.message
    assert book.decision.outcomes == ()


def test_input_above_a_cap_is_denied_before_any_limit(tmp_path: Path) -> None:
    cap = CLAMP.replace("outputTokens: 100, onExceed: clamp", "inputTokens: 1")
    book = Playbook(load(tmp_path / "policies", cap, OUTPUT))

    book.request()

    (said,) = book.said[-1:]
    assert isinstance(said, RespondImmediately)
    assert said.status == 413
    assert book.decision.denial is not None
    assert "RequestCap/short-answers" in book.decision.denial.message
    assert book.decision.outcomes == ()


# --- another model


def test_a_cap_that_is_used_up_hands_the_request_to_the_model_it_names(tmp_path: Path) -> None:
    book = used_up(tmp_path, BY_TARGET)

    book.request(body=BIG)

    assert forwarded(book) == json.loads(BIG) | {"model": "gpt-4o-mini"}
    decision = book.decision
    assert (decision.reason, decision.enforced_effect) == (Reason.MODEL_SUBSTITUTED, Effect.ALLOW)
    assert decision.request is not None
    assert (decision.request.model, decision.target_model) == ("gpt-4o", "gpt-4o-mini")
    # Limits count the model that works; the cap itself is full.
    assert [(str(o.charge.policy), o.charge.key, o.reserved) for o in decision.outcomes] == [
        ("RateLimit/by-target", ("gpt-4o-mini",), 1),
        ("UsageCap/big-model", (), 0),
    ]


def test_a_decision_has_the_ceiling_of_the_model_that_answers(tmp_path: Path) -> None:
    first = Playbook(load(tmp_path / "policies", CHEAPER), decision_id="first")
    first.request(body=chat_body(model="gpt-4"))
    second = Playbook(first.policies, store=first.store, decision_id="second")

    second.request(body=chat_body(model="gpt-4"))

    assert second.decision.target_model == "gpt-4o-mini"
    assert (first.decision.tokens.max_output, second.decision.tokens.max_output) == (8_192, 16_384)


def test_who_gets_another_model_is_told(tmp_path: Path) -> None:
    book = used_up(tmp_path)
    book.request(body=BIG)

    (said,) = book.answer_headers()

    assert isinstance(said, Continue)
    warning = said.set_headers["x-ai-policy-warning"]
    assert warning == "UsageCap/big-model is used up: gpt-4o-mini answers"


def test_the_second_try_is_settled_and_the_first_is_not(tmp_path: Path) -> None:
    book = used_up(tmp_path, BY_TARGET)
    book.request(body=BIG)
    book.answer_headers()
    book.answer_body(b'{"object":"chat.completion","model":"gpt-4o-mini","choices":[],'
                     b'"usage":{"prompt_tokens":8,"completion_tokens":3,"total_tokens":11}}')  # fmt: skip

    assert sorted(book.settlement.amounts.values()) == [1, 1]
    assert book.session.state is State.SETTLED


def test_a_rule_that_forbids_the_other_model_leaves_the_denial(tmp_path: Path) -> None:
    book = used_up(tmp_path, NO_MINI)

    book.request(body=BIG)

    (said,) = book.said[-1:]
    assert isinstance(said, RespondImmediately)
    assert (said.status, book.decision.determining) == (429, MARCH)
    assert (book.decision.reason, book.decision.target_model) == (Reason.CAP_REACHED, "")


def test_a_request_that_cannot_name_another_model_is_denied_by_the_cap(tmp_path: Path) -> None:
    path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
    first = Playbook(load(tmp_path / "policies", CHEAPER), decision_id="first")
    first.request(chat_head(path=path))
    book = Playbook(first.policies, store=first.store, decision_id="second")

    book.request(chat_head(path=path))

    (said,) = book.said[-1:]
    assert isinstance(said, RespondImmediately)
    assert (said.status, book.decision.determining) == (429, MARCH)
    assert book.decision.denial is not None
    assert "another model" in book.decision.denial.message


def test_naming_the_other_model_before_the_big_one_is_no_way_around_a_cap(tmp_path: Path) -> None:
    """The provider falls back to the second model where the first one fails, and callers can make it fail."""
    book = used_up(tmp_path)

    book.request(body=chat_body(model="gpt-4o-mini", models=["gpt-4o"]))

    (said,) = book.said[-1:]
    assert isinstance(said, RespondImmediately)
    assert (said.status, book.decision.determining) == (429, MARCH)


def test_a_limit_on_the_other_model_still_denies(tmp_path: Path) -> None:
    full = BY_TARGET.replace("requests: 100", "requests: 1").replace(
        "spec: {", "spec: {match: 'target.model == \"gpt-4o-mini\"', "
    )
    book = used_up(tmp_path, full)
    other = Playbook(book.policies, store=book.store, decision_id="other")
    other.request(body=chat_body(model="gpt-4o-mini"))

    book.request(body=BIG)

    (said,) = book.said[-1:]
    assert isinstance(said, RespondImmediately)
    assert (said.status, book.decision.determining) == (429, PolicyRef("RateLimit", "by-target"))


def test_the_deadline_may_pass_while_a_body_is_changed(tmp_path: Path) -> None:
    book = Playbook(load(tmp_path / "policies", CLAMP), holds=(Rewrite,))
    book.request(body=chat_body(max_tokens=5000))

    (said,) = book.play(DeadlinePassed(at_ns=book.now_ns))
    (rewrite,) = book.held
    book.do(rewrite)

    assert isinstance(said, RespondImmediately)
    assert said.status == 503
    assert book.session.state is State.DENIED


def test_an_answer_before_the_changed_body_is_there_is_no_verdict(tmp_path: Path) -> None:
    book = Playbook(load(tmp_path / "policies", CLAMP), holds=(Rewrite,))
    book.request(body=chat_body(max_tokens=5000))

    with pytest.raises(ProtocolViolation):
        book.answer_body(b"{}")
