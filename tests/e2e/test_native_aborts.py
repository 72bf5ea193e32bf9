"""Answers whose usage Envoy 1.40 could not hand over: charged by the bytes its access log tells of.

The bounds are those of the demo provider's events, which hold one token each: never below what the
provider's books say, and what else a dialect's events may hold above it (extproc/measure/bytes_per_token.py).
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.e2e import policies
from tests.e2e.callers import Caller, call, newcomer, settlements
from tests.e2e.conftest import close_soon
from tests.e2e.stack import Stack
from tests.e2e.test_requests import HELLO, OPENAI, wait_until

CLAUDE = "claude-sonnet-4-5"
CEILING = 400
VERSION = {"anthropic-version": "2023-06-01"}
LONG = {"x-demo-output-tokens": "300", "x-demo-interval-ms": "5"}
CUT = {"x-demo-fault": "after=40"}
NO_USAGE = {"x-demo-fault": "no-usage"}
HUNDRED = {"x-demo-output-tokens": "100", "x-demo-interval-ms": "0"}
# A caller that does not ask for the usage gets none: then the session reads the stream itself.
STREAMED: dict[bool, dict[str, Any]] = {
    True: {"stream": True, "stream_options": {"include_usage": True}},
    False: {"stream": False},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A call that Envoy reads; `most` is how much above the truth its estimate may be."""

    path: str
    body: dict[str, Any]
    most: float
    streams: bool = True

    def asked(self) -> dict[str, Any]:
        """The body; Gemini's path says whether the answer is a stream."""
        return self.body if "contents" in self.body else self.body | STREAMED[self.streams]


DIALECTS = {
    "openai_chat": Dialect(
        path="/v1/chat/completions",
        body={
            "model": OPENAI,
            "messages": HELLO,
            "max_tokens": CEILING,
        },
        most=2,
    ),
    "openai_responses": Dialect(
        path="/v1/responses",
        body={"model": OPENAI, "input": "hello", "max_output_tokens": CEILING},
        most=2,
    ),
    "anthropic_messages": Dialect(
        path="/v1/messages",
        body={"model": CLAUDE, "messages": HELLO, "max_tokens": CEILING},
        most=10,
    ),
    "gemini": Dialect(
        path="/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        body={
            "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
            "generationConfig": {"maxOutputTokens": CEILING},
        },
        most=20,
    ),
}
EVERY = pytest.mark.parametrize("name", DIALECTS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("native")
    with Stack(folder, usage="native", policies=policies.FILES, edit=sample_all) as started:
        yield started


@pytest.fixture
def caller(stack: Stack) -> Caller:
    return call(stack)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """What one answer came to, and what the provider's books say of it."""

    basis: str
    tokens: int
    given: int
    made: int

    @property
    def output_tokens(self) -> int:
        return self.tokens - self.given


def charged(
    caller: Caller, dialect: Dialect, headers: dict[str, str], *, leave_after: int | None = None
) -> Charged:
    """Ask for a stream, read it or leave after so many chunks, and wait for its one settlement."""
    stack = caller.stack
    before = unread(stack)
    stack.clear_books()
    with (
        caller.http(**VERSION, **headers) as client,
        client.stream("POST", dialect.path, json=dialect.asked()) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        try:
            for number, _ in enumerate(answer.iter_raw(), 1):
                if number == leave_after:
                    break
        except httpx.HTTPError:
            assert leave_after is None
    wait_until(lambda: unread(stack) != before, "settled")
    (basis,) = (unread(stack) - before).elements()
    wait_until(lambda: not stack.books()["entries"][0]["open"], "the provider has noticed")
    (entry,) = stack.books()["entries"]
    return Charged(
        basis=basis, tokens=caller.tokens_used(), given=entry["input_tokens"], made=entry["output_tokens"]
    )


def unread(stack: Stack) -> Counter[str]:
    """Settlements of answers whose usage nobody read; those that ask what is left are not among them."""
    return Counter({basis: count for basis, count in settlements(stack).items() if basis != "provider"})


@pytest.mark.parametrize("name", ["openai_chat", "anthropic_messages"])
def test_a_client_that_leaves_is_charged_for_what_was_sent(caller: Caller, name: str) -> None:
    dialect = DIALECTS[name]

    answer = charged(caller, dialect, LONG, leave_after=20)

    assert answer.basis == "bytes"
    assert answer.made < 300
    # What the provider sends while the news of the client's leaving travels is lost on everybody.
    assert answer.made - 5 <= answer.output_tokens <= min(dialect.most * answer.made, CEILING)


@EVERY
def test_a_stream_that_its_provider_cuts_is_charged_for_what_was_sent(caller: Caller, name: str) -> None:
    dialect = DIALECTS[name]

    answer = charged(caller, dialect, LONG | CUT)

    assert answer.basis == "bytes"
    assert answer.made <= answer.output_tokens <= min(dialect.most * answer.made, CEILING)


def test_a_whole_stream_without_usage_is_charged_for_what_was_sent(caller: Caller) -> None:
    answer = charged(caller, DIALECTS["openai_chat"], HUNDRED | NO_USAGE)

    assert (answer.basis, answer.made) == ("bytes", 100)
    assert answer.made <= answer.output_tokens <= 2 * answer.made


def test_an_answer_in_one_piece_without_usage_is_charged_for_what_was_sent(caller: Caller) -> None:
    dialect = replace(DIALECTS["openai_chat"], streams=False)

    answer = charged(caller, dialect, HUNDRED | NO_USAGE)

    assert (answer.basis, answer.made) == ("bytes", 100)
    assert answer.made <= answer.output_tokens <= 2 * answer.made


def test_no_estimate_exceeds_what_was_asked_for(caller: Caller) -> None:
    """Some 40 events of Anthropic's, a token each, look like 280 tokens."""
    dialect = DIALECTS["anthropic_messages"]
    small = replace(dialect, body=dialect.body | {"max_tokens": 50})

    answer = charged(caller, small, LONG | CUT)

    assert answer.basis == "bytes"
    assert answer.made <= answer.output_tokens == 50


def test_answers_read_by_envoy_teach_what_tokens_take(stack: Stack, caller: Caller) -> None:
    dialect = DIALECTS["anthropic_messages"]
    other = replace(dialect, body=dialect.body | {"model": "claude-haiku-4-5"})
    with newcomer(stack).http(**VERSION, **HUNDRED) as client:
        for _ in range(5):
            client.post(other.path, json=other.asked()).raise_for_status()

    # Their entries are sent before that of a later answer.
    answer = charged(caller, other, LONG | CUT)

    assert answer.basis == "bytes"
    assert answer.made <= answer.output_tokens <= 1.5 * answer.made


def test_without_the_access_log_an_answer_is_charged_as_reserved(tmp_path: Path) -> None:
    with Stack(tmp_path, usage="native", policies=policies.FILES, edit=mute) as stack:
        dialect = DIALECTS["openai_chat"]
        answer = charged(call(stack), dialect, LONG | CUT)

    assert (answer.basis, answer.output_tokens) == ("reserved", CEILING)


def sample_all(bootstrap: str) -> str:
    """Every answer teaches."""
    assert "percent_sampled: {numerator: 1," in bootstrap
    return close_soon(
        bootstrap.replace("percent_sampled: {numerator: 1,", "percent_sampled: {numerator: 100,")
    )


def mute(bootstrap: str) -> str:
    """The access log goes where nobody understands it."""
    to_us = r"(transport_api_version: V3\n *grpc_service: {envoy_grpc: {cluster_name: )ai_policy"
    changed, count = re.subn(to_us, r"\1provider_other", bootstrap)
    assert count == 1
    return close_soon(changed)
