"""How answers end, in every wire format: what is charged, on which basis, once and never for nothing."""

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import brotli  # type: ignore[import-untyped]  # its wheel has no types
import pytest
import zstandard

from extproc.decision import Settlement
from extproc.formats import FORMATS
from extproc.formats.base import CONTROL
from extproc.formats.body import MAX_ANSWER_BYTES
from extproc.formats.sse import MAX_EVENT_BYTES
from extproc.model import Basis, RequestHead
from extproc.policy.policyset import PolicySet
from tests.formats.calls import claimed
from tests.fuzz.lines import FILE, LINES
from tests.session.answers import ANSWERS
from tests.session.playbook import Playbook, load

JSON, SSE = "application/json", "text/event-stream"
TOKENS = """
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: tokens}
spec: {limit: {tokens: 10000000, per: 24h, burst: 10000000}}
"""

EVERY = pytest.mark.parametrize("api", FORMATS)
STREAMED = pytest.mark.parametrize("api", [api for api, answers in ANSWERS.items() if answers.events])

# What stands where a count should be, and is none.
NO_COUNTS: dict[str, Callable[[Any], Any]] = {
    "missing": lambda _: ...,
    "null": lambda _: None,
    "negative": lambda _: -5,
    "huge": lambda _: 10**12,
    "beyond any float": lambda _: 10**400,
    "infinite": lambda _: math.inf,
    "half a token": lambda _: 1.5,
    "text": lambda _: "7",
    "true": lambda _: True,
    "a list": lambda _: [7],
}
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> PolicySet:
    return load(tmp_path_factory.mktemp("policies") / "limited", TOKENS)


@cache
def asked(api: str) -> tuple[RequestHead, bytes]:
    """The first call of this format that spends, or that its answers are for."""
    for host, path, body in LINES:
        # Forms are no JSON.
        if FILE in body.values() or "sdp" in body:
            continue
        call = claimed(path, host=host)
        if call is None or call.api != api or call.operation == CONTROL:
            continue
        if ANSWERS[api].operation in {"", call.operation}:
            headers = {"content-type": JSON}
            return RequestHead(method="POST", host=host, path=path, headers=headers), json.dumps(
                body
            ).encode()
    raise AssertionError(api)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """What an answer came to."""

    basis: Basis
    tokens: int
    reserved: int
    estimated: int  # of the input
    settlement: Settlement

    @property
    def is_whole_reservation(self) -> bool:
        return self.basis in {Basis.RESERVED, Basis.TOKENIZER} and self.tokens == self.reserved

    @property
    def is_free(self) -> bool:
        return self.reserved > 0 and self.tokens == 0


def charged(
    policies: PolicySet,
    api: str,
    chunks: Iterable[bytes],
    *,
    kind: str = JSON,
    coding: str = "",
    is_cut: bool = False,
) -> Charged:
    """Play an answer; its end is told twice, and the settlement must still be one."""
    head, body = asked(api)
    book = Playbook(policies)
    book.request(head, body)
    assert book.decision.denial is None, book.decision.denial
    book.answer_headers(headers={"content-type": kind} | ({"content-encoding": coding} if coding else {}))
    for chunk in chunks:
        book.answer_body(chunk, end=False)
    if not is_cut:
        book.answer_body(b"")
        book.answer_body(b"")
    book.close()
    return Charged(
        basis=book.settlement.basis,
        tokens=sum(book.settlement.amounts.values()),
        reserved=sum(outcome.reserved for outcome in book.decision.outcomes),
        estimated=book.decision.tokens.input,
        settlement=book.settlement,
    )


def test_every_format_is_here() -> None:
    assert set(ANSWERS) == set(FORMATS)


@EVERY
def test_what_is_reported_is_charged_as_reported(policies: PolicySet, api: str) -> None:
    answers = ANSWERS[api]
    ends = [charged(policies, api, [answers.body()])]
    if answers.events:
        ends.append(charged(policies, api, answers.stream(), kind=answers.framing.content_type))

    for end in ends:
        if answers.spent is None:
            assert end.basis in {Basis.RESERVED, Basis.TOKENIZER}
            assert not end.is_free
        else:
            assert (end.basis, end.tokens) == (Basis.PROVIDER, answers.spent)


@EVERY
def test_a_reported_zero_is_believed(policies: PolicySet, api: str) -> None:
    answers = ANSWERS[api]
    if answers.spent is None:
        return

    end = charged(policies, api, [answers.body(lambda _: 0)])

    assert (end.basis, end.tokens) == (Basis.PROVIDER, 0)


@EVERY
@pytest.mark.parametrize("change", NO_COUNTS.values(), ids=NO_COUNTS)
def test_what_is_no_count_leaves_the_answer_to_be_counted_or_its_reservation(
    policies: PolicySet, api: str, change: Callable[[Any], Any]
) -> None:
    answers = ANSWERS[api]
    ends = [charged(policies, api, [answers.body(change)])]
    if answers.events:
        ends.append(charged(policies, api, answers.stream(change), kind=answers.framing.content_type))

    for end in ends:
        assert end.basis in {Basis.TOKENIZER, Basis.RESERVED}
        assert end.tokens >= min(end.estimated, end.reserved)
        assert not end.is_free


@STREAMED
def test_a_stream_that_is_cut_is_charged_for_what_was_seen_or_as_reserved(
    policies: PolicySet, api: str
) -> None:
    """Between two events, in the middle of one, and inside a character."""
    answers = ANSWERS[api]
    stream = answers.stream()
    data = b"".join(stream)
    places = {data.find("ü".encode()) + 1} if "ü".encode() in data else set()
    for count, event in enumerate(stream[:-1]):
        begin = sum(map(len, stream[:count]))
        places |= {begin, begin + len(event) // 2}

    for place in places:
        end = charged(policies, api, [data[:place]], kind=answers.framing.content_type, is_cut=True)
        assert not end.is_free, place
        assert end.basis is not Basis.PROVIDER or end.tokens == answers.spent, place
    nothing = charged(policies, api, [], kind=answers.framing.content_type, is_cut=True)
    assert (nothing.basis, nothing.tokens) == (Basis.RESERVED, nothing.reserved)


@EVERY
@pytest.mark.parametrize(
    "body", [b"", b"null", b"{}", b"[]", b"[1]", b'"text"', b"<html>", b'{"any": "text"}']
)
def test_an_answer_that_says_nothing_is_no_empty_answer(policies: PolicySet, api: str, body: bytes) -> None:
    """Nobody knows what it cost, so what was reserved stands: the input alone where nothing is generated."""
    for kind in (JSON, SSE, "application/x-ndjson", "text/html", ""):
        assert charged(policies, api, [body], kind=kind).is_whole_reservation, kind


@STREAMED
def test_an_answer_by_another_content_type_is_charged_as_reserved(policies: PolicySet, api: str) -> None:
    answers = ANSWERS[api]

    assert charged(policies, api, [answers.body()], kind=SSE).is_whole_reservation
    as_json = charged(policies, api, answers.stream())
    assert as_json.is_whole_reservation or as_json.tokens == answers.spent


@EVERY
def test_an_error_in_place_of_an_answer_is_charged_its_input(policies: PolicySet, api: str) -> None:
    end = charged(policies, api, [b'{"error": {"type": "overloaded", "code": 529, "message": "no"}}'])

    assert end.settlement.error_type
    if api != "replicate":  # a prediction without a status may be running
        assert (end.basis, end.tokens) == (Basis.TOKENIZER, min(end.estimated, end.reserved))


@EVERY
@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_answer_is_charged_like_a_plain_one(policies: PolicySet, api: str, coding: str) -> None:
    answers, compress = ANSWERS[api], CODINGS[coding]
    plain, packed = charged(policies, api, [answers.body()]), compress(answers.body())
    half = len(packed) // 2

    end = charged(policies, api, [packed[:half], packed[half:]], coding=coding)
    assert (end.basis, end.tokens) == (plain.basis, plain.tokens)
    if answers.events:
        kind = answers.framing.content_type
        plain = charged(policies, api, answers.stream(), kind=kind)
        end = charged(policies, api, [compress(b"".join(answers.stream()))], kind=kind, coding=coding)
        assert (end.basis, end.tokens) == (plain.basis, plain.tokens)


@EVERY
@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_answer_that_is_damaged_is_not_free(policies: PolicySet, api: str, coding: str) -> None:
    packed = CODINGS[coding](ANSWERS[api].body())
    half = len(packed) // 2
    flipped = packed[:half] + bytes(byte ^ 0xFF for byte in packed[half:])

    assert charged(policies, api, [packed[:half]], coding=coding).is_whole_reservation
    end = charged(policies, api, [flipped], coding=coding)
    assert end.tokens >= min(end.estimated, end.reserved)
    assert charged(policies, api, [b"no such coding"], coding="snappy").is_whole_reservation


@pytest.mark.parametrize(
    ("api", "kind", "before", "size"),
    [
        ("openai_chat", JSON, b"", MAX_ANSWER_BYTES),
        ("gemini", JSON, b"[", MAX_EVENT_BYTES),
        ("openai_chat", SSE, b"data: ", MAX_EVENT_BYTES),
        ("ollama", "application/x-ndjson", b"", MAX_EVENT_BYTES),
        ("bedrock_converse", "application/vnd.amazon.eventstream", b"\x7f\xff\xff\xff", 12),
    ],
)
def test_an_answer_beyond_every_bound_is_charged_as_reserved(
    policies: PolicySet, api: str, kind: str, before: bytes, size: int
) -> None:
    chunk = b'{"x":"' + b"x" * (1 << 20)
    chunks = [before, chunk, *[b"x" * (1 << 20)] * (size >> 20), b'"}\n\n]']

    end = charged(policies, api, chunks, kind=kind)

    assert (end.basis, end.tokens) == (Basis.RESERVED, end.reserved)
