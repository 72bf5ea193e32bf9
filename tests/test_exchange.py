"""One stream's waiting: order of writes, answers that come late, streams that end at any point."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as ThreadEvent
from threading import get_ident
from typing import Any

import pytest

from extproc import edge
from extproc.decision import Charge, ChargeOutcome
from extproc.edge import Edge
from extproc.errors import ProtocolViolation, StoreUnavailable
from extproc.exchange import Exchange
from extproc.measure.learned import LearnedOutputs
from extproc.measure.tokens import Tokenizer
from extproc.model import AIRequest, TokenEstimate
from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb
from extproc.pb.ai_policy.v1.token_usage_pb2 import TokenUsage
from extproc.policy import policyset
from extproc.policy.policyset import PolicySet
from extproc.session.admission import SessionSettings
from extproc.session.events import ResponseBody
from extproc.session.session import Session
from extproc.session.transitions import State
from extproc.settings import INLINE_ANSWER_BYTES, INLINE_BODY_BYTES
from extproc.store.memory import MemoryStore
from extproc.telemetry import Metrics, Tracing, parent_of
from extproc.wire import USAGE_NAMESPACE

POLICIES = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: defaults}
spec: {access: allow}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: tokens}
spec: {limit: {UNIT: BURST, per: 24h, burst: BURST}, onError: ON_ERROR}
"""
AT_NS = 1_790_000_000_000_000_000
END = object()
BROKEN = RuntimeError("the stream broke")


class List:
    """A stream that is a list: reads what `send` put in, notes what was written.

    Writes wait while `may_write` is clear, and fail from the one numbered `breaks_at`.
    """

    def __init__(self, *messages: object) -> None:
        self._messages: asyncio.Queue[object] = asyncio.Queue()
        self.written: list[str] = []
        self.writing = asyncio.Event()
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.breaks_at = -1
        self.send(*messages)

    def send(self, *messages: object) -> None:
        for message in messages:
            self._messages.put_nowait(message)

    async def read(self) -> Any:
        return await self._messages.get()

    async def write(self, message: bytes) -> None:
        self.writing.set()
        await self.may_write.wait()
        if len(self.written) == self.breaks_at:
            raise BROKEN
        kind = pb.ProcessingResponse.FromString(message).WhichOneof("response")
        self.written.append(kind or "nothing")


class Noted(MemoryStore):
    """A memory store that notes its calls in order, and answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.settled: list[dict[str, int]] = []
        self.effective = 0  # settlements that changed anything
        self.reserving, self.settling = asyncio.Event(), asyncio.Event()
        self.may_reserve, self.may_settle = asyncio.Event(), asyncio.Event()
        self.may_reserve.set()
        self.may_settle.set()
        self.error: Exception | None = None
        self.settle_error: Exception | None = None

    async def reserve(
        self, decision_id: str, charges: tuple[Charge, ...], at_us: int
    ) -> tuple[ChargeOutcome, ...]:
        self.calls.append("reserve")
        self.reserving.set()
        await self.may_reserve.wait()
        if self.error is not None:
            raise self.error
        return await super().reserve(decision_id, charges, at_us)

    async def settle(self, decision_id: str, amounts: Mapping[str, int], at_us: int) -> bool:
        self.calls.append("settle")
        self.settling.set()
        await self.may_settle.wait()
        if self.settle_error is not None:
            raise self.settle_error
        self.settled.append(dict(amounts))
        has_settled = await super().settle(decision_id, amounts, at_us)
        self.effective += has_settled
        return has_settled

    def forget(self) -> int:
        """Drop the reservations that nobody settled, and say how many there were."""
        left = len(self._open)
        self._open.clear()
        return left


@dataclass
class Run:
    """One exchange and everything around it."""

    edge: Edge
    store: Noted
    session: Session
    stream: List
    exchange: Exchange
    task: asyncio.Task[None] = field(init=False)

    def begin(self) -> "Run":
        self.task = asyncio.get_running_loop().create_task(self.exchange.run(self.stream))
        return self

    async def cancel(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def quiet(self) -> None:
        """Everything in the background is done."""
        while self.edge.background:
            await asyncio.wait(self.edge.background)

    async def written(self, count: int) -> list[str]:
        async with asyncio.timeout(30):
            while len(self.stream.written) < count:  # noqa: ASYNC110  a list sends no event
                await asyncio.sleep(0.001)
        return self.stream.written


Make = Callable[..., Run]


def policies(tmp_path: Path, on_error: str, unit: str, burst: int) -> PolicySet:
    folder = tmp_path / f"{on_error}-{unit}-{burst}"
    folder.mkdir(exist_ok=True)
    text = POLICIES.replace("ON_ERROR", on_error).replace("UNIT", unit).replace("BURST", str(burst))
    (folder / "all.yaml").write_text(text)
    return policyset.load(folder)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Run] = []

    def make_one(
        *messages: object,
        immediate: bool = False,
        deadline_s: float = 30.0,
        on_error: str = "allow",
        native: bool = False,
        unit: str = "tokens",
        burst: int = 1_000_000,
    ) -> Run:
        store = Noted()
        store.is_immediate = immediate
        edge = Edge(
            store=store,
            tokenizer=Tokenizer({}),
            learned=LearnedOutputs(),
            tracing=Tracing(instance_id="test", version="0"),
            metrics=Metrics(version="0"),
            pool=ThreadPoolExecutor(1),
            clock_ns=lambda: AT_NS,
            deadline_s=deadline_s,
        )
        settings = SessionSettings(native_usage=native)
        session = Session(policies(tmp_path, on_error, unit, burst), decision_id="d-1", settings=settings)
        run = Run(edge, store, session, List(*messages), Exchange(session, edge, parent_of({}, {})))
        made.append(run)
        return run

    yield make_one
    for run in made:
        await run.quiet()
        assert run.store.forget() == 0, "a reservation was forgotten"
        assert run.store.effective <= 1, "settled twice"
        run.edge.pool.shutdown()
        run.edge.metrics.close()


def header_map(**headers: str) -> pb.HttpHeaders:
    pairs = [
        pb.HeaderValue(key=name.replace("__", ":").replace("_", "-"), raw_value=value.encode())
        for name, value in headers.items()
    ]
    return pb.HttpHeaders(headers=pb.HeaderMap(headers=pairs))


def chunk_of(body: bytes, *, end: bool) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(response_body=pb.HttpBody(body=body, end_of_stream=end))


def body_of(text: str, **changes: Any) -> pb.ProcessingRequest:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "max_tokens": 10}
    body |= changes
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=json.dumps(body).encode(), end_of_stream=True))


HEADERS = pb.ProcessingRequest(
    request_headers=header_map(__method="POST", __path="/v1/chat/completions", __authority="gateway")
)
BODY_TEXT, LARGE_TEXT = "hi", "word " * INLINE_BODY_BYTES
BODY = body_of(BODY_TEXT)
LARGE = body_of(LARGE_TEXT)
REQUEST_TRAILERS = pb.ProcessingRequest(request_trailers=pb.HttpTrailers())
ANSWER_HEADERS = pb.ProcessingRequest(
    response_headers=header_map(__status="200", content_type="application/json")
)


def answer_of(*finish_reasons: str, output_tokens: int = 3, text: str = "hello") -> pb.ProcessingRequest:
    choices = [
        {"index": number, "finish_reason": reason, "message": {"content": text}}
        for number, reason in enumerate(finish_reasons)
    ]
    usage = {
        "prompt_tokens": 8,
        "completion_tokens": output_tokens,
        "total_tokens": 8 + output_tokens,
        "completion_tokens_details": {"reasoning_tokens": output_tokens // 2},
    }
    answer = {"object": "chat.completion", "model": "gpt-4o-mini", "choices": choices, "usage": usage}
    return chunk_of(json.dumps(answer).encode(), end=True)


def native_trailers(output_tokens: int) -> pb.ProcessingRequest:
    record = TokenUsage(extraction_status=TokenUsage.COMPLETE)
    record.input_tokens.value, record.output_tokens.value = 8, output_tokens
    message = pb.ProcessingRequest(response_trailers=pb.HttpTrailers())
    message.metadata_context.typed_filter_metadata[USAGE_NAMESPACE].value = record.SerializeToString()
    return message


ANSWER = answer_of("stop")
ENVOYS_TIMEOUT = pb.ProcessingRequest(
    response_headers=header_map(__status="504", content_type="application/json")
)
WHOLE = (HEADERS, BODY, ANSWER_HEADERS, ANSWER)
WRITTEN = ["request_headers", "request_body", "response_headers", "response_body"]


# --- the plain way


@pytest.mark.parametrize("immediate", [True, False])
async def test_a_whole_exchange_is_answered_in_order_and_settled_once(make: Make, immediate: bool) -> None:  # noqa: FBT001
    run = make(*WHOLE, END, immediate=immediate).begin()

    await run.task
    await run.quiet()

    assert run.stream.written == WRITTEN
    assert run.store.calls == ["reserve", "settle"]
    assert [list(amounts.values()) for amounts in run.store.settled] == [[11]]


@pytest.mark.parametrize("immediate", [True, False])
@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
async def test_each_part_of_the_work_is_measured_once_wherever_it_is_done(
    make: Make,
    immediate: bool,  # noqa: FBT001  pytest's
    body: pb.ProcessingRequest,
) -> None:
    run = make(HEADERS, body, ANSWER_HEADERS, ANSWER, END, immediate=immediate).begin()

    await run.task
    await run.quiet()

    cells = run.edge.metrics.stage_duration.cells
    counts = {stage: sum(cell.counts) for (stage,), cell in cells.items()}
    assert counts == {"evaluate": 3, "understand": 1, "reserve": 1, "settle": 1}


@pytest.mark.parametrize("end", range(len(WHOLE) + 1))
@pytest.mark.parametrize("immediate", [True, False])
@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
async def test_a_stream_may_end_after_any_message(
    make: Make,
    end: int,
    immediate: bool,  # noqa: FBT001
    body: pb.ProcessingRequest,
) -> None:
    messages = [HEADERS, body, ANSWER_HEADERS, ANSWER][:end]
    run = make(immediate=immediate).begin()
    for number, message in enumerate(messages, 1):
        run.stream.send(message)
        await run.written(number)
    run.stream.send(END)

    await run.task
    await run.quiet()

    assert run.stream.written == WRITTEN[:end]
    assert len(run.store.settled) == (end >= 2)
    assert run.session.is_over


@pytest.mark.parametrize("end", range(len(WHOLE)))
@pytest.mark.parametrize("immediate", [True, False])
async def test_a_write_that_fails_ends_the_stream_and_nothing_is_done_twice(
    make: Make,
    end: int,
    immediate: bool,  # noqa: FBT001
) -> None:
    run = make(*WHOLE, END, immediate=immediate)
    run.stream.breaks_at = end
    run.begin()

    with pytest.raises(RuntimeError, match="the stream broke"):
        await run.task
    await run.quiet()

    assert run.stream.written == WRITTEN[:end]
    assert run.store.calls == ([] if end == 0 else ["reserve", "settle"])
    assert run.session.is_over


async def test_a_failed_last_write_still_settles_what_was_reported(make: Make) -> None:
    run = make(*WHOLE)
    run.stream.breaks_at = 3
    run.begin()

    with pytest.raises(RuntimeError):
        await run.task
    await run.quiet()

    assert [list(amounts.values()) for amounts in run.store.settled] == [[11]]


# --- cancelled


@pytest.mark.parametrize("end", range(len(WHOLE)))
async def test_a_task_cancelled_in_the_middle_of_a_write_still_settles(make: Make, end: int) -> None:
    run = make().begin()
    for number, message in enumerate(WHOLE[:end], 1):
        run.stream.send(message)
        await run.written(number)
    run.stream.may_write.clear()
    run.stream.writing.clear()
    run.stream.send(WHOLE[end])
    await run.stream.writing.wait()

    await run.cancel()
    await run.quiet()

    assert run.stream.written == WRITTEN[:end]
    assert len(run.store.settled) == (end >= 1)
    assert run.session.is_over


async def test_a_task_cancelled_while_the_store_reserves_gives_back_what_it_took(make: Make) -> None:
    run = make(HEADERS, BODY)
    run.store.may_reserve.clear()
    run.begin()
    await run.store.reserving.wait()

    await run.cancel()
    run.store.may_reserve.set()
    await run.quiet()

    assert run.session.state is State.ABANDONED
    assert [list(amounts.values()) for amounts in run.store.settled] == [[]]


async def test_a_task_cancelled_while_the_store_settles_lets_it_end(make: Make) -> None:
    """Envoy closes the stream as soon as it has our last answer, in the middle of the settlement."""
    run = make(*WHOLE)
    run.store.may_settle.clear()
    run.begin()
    await run.store.settling.wait()

    await run.cancel()
    run.store.may_settle.set()
    await run.quiet()

    assert [list(amounts.values()) for amounts in run.store.settled] == [[11]]


async def test_a_cancelled_task_still_reports_what_was_decided_and_settled(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(*WHOLE)
    told: list[str] = []
    monkeypatch.setattr(run.edge.metrics, "decided", lambda _: told.append("decided"))
    monkeypatch.setattr(run.edge.metrics, "settled", lambda *_: told.append("settled"))
    run.store.may_settle.clear()
    run.begin()
    await run.store.settling.wait()

    await run.cancel()
    run.store.may_settle.set()
    await run.quiet()

    assert told == ["decided", "settled"]


# --- late


async def test_the_deadline_passes_once_and_the_late_answer_is_given_back(make: Make) -> None:
    run = make(HEADERS, BODY, deadline_s=0.01, on_error="deny")
    run.store.may_reserve.clear()
    run.begin()

    written = list(await run.written(2))
    run.store.may_reserve.set()
    await run.quiet()
    run.stream.send(END)
    await run.task

    assert written == ["request_headers", "immediate_response"]
    assert run.stream.written == written
    assert run.store.calls == ["reserve", "settle"]
    assert [list(amounts.values()) for amounts in run.store.settled] == [[]]


async def test_an_answer_that_comes_late_keeps_out_of_a_write_that_is_under_way(make: Make) -> None:
    """The deadline's denial waits for a slow connection while the store answers after all."""
    run = make(HEADERS, BODY, deadline_s=0.01, on_error="deny")
    run.store.may_reserve.clear()
    run.begin()
    await run.written(1)
    run.stream.may_write.clear()
    run.stream.writing.clear()
    await run.stream.writing.wait()

    run.store.may_reserve.set()
    await run.quiet()
    run.stream.may_write.set()
    await run.written(2)
    run.stream.send(END)
    await run.task
    await run.quiet()

    assert run.stream.written == ["request_headers", "immediate_response"]
    assert [list(amounts.values()) for amounts in run.store.settled] == [[]]


async def test_a_request_allowed_without_its_store_is_charged_what_it_spent_once_the_store_answers(
    make: Make,
) -> None:
    run = make(HEADERS, BODY, deadline_s=0.01)
    run.store.may_reserve.clear()
    run.begin()
    await run.written(2)
    run.stream.send(ANSWER_HEADERS, ANSWER)
    await run.written(4)
    run.stream.send(END)
    await run.task

    run.store.may_reserve.set()
    async with asyncio.timeout(30):
        await run.quiet()

    assert run.stream.written == WRITTEN
    # The first found nothing to settle yet; the second replaced what was reserved after it.
    assert run.store.calls == ["reserve", "settle", "settle"]
    assert run.store.effective == 1
    assert [list(amounts.values()) for amounts in run.store.settled] == [[11], [11]]


async def test_understanding_and_reserving_share_one_deadline(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with a deadline of its own, together they would outlast Envoy's message_timeout."""
    run = make(HEADERS, LARGE)
    due: list[float] = []
    plain = run.exchange._answer_before

    async def noted(reading: asyncio.Task[Any]) -> Any:
        due.append(run.exchange._due_s)
        return await plain(reading)

    monkeypatch.setattr(run.exchange, "_answer_before", noted)
    run.begin()
    await run.written(2)
    run.stream.send(END)
    await run.task

    waits_for_understanding, waits_for_store = due[:2]
    assert waits_for_understanding == waits_for_store


async def test_a_body_that_takes_too_long_to_understand_is_denied_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(HEADERS, LARGE, deadline_s=0.01)
    may_understand = ThreadEvent()
    plain = run.exchange._errands._understood

    def slow(action: Any) -> Any:
        may_understand.wait(30)
        return plain(action)

    monkeypatch.setattr(run.exchange._errands, "_understood", slow)
    run.begin()
    written = list(await run.written(2))
    may_understand.set()
    await run.quiet()
    run.stream.send(END)
    await run.task

    assert written == ["request_headers", "immediate_response"]
    assert run.stream.written == written
    assert run.store.calls == []


@pytest.mark.parametrize(
    ("headers", "body", "is_inline"),
    [
        ({}, BODY, True),
        ({}, LARGE, False),
        # A small compressed body may be a large one.
        ({"content_encoding": "gzip"}, BODY, False),
    ],
)
async def test_only_a_body_known_to_be_small_is_understood_on_the_event_loop(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    body: pb.ProcessingRequest,
    is_inline: bool,  # noqa: FBT001  pytest's
) -> None:
    head = header_map(__method="POST", __path="/v1/chat/completions", **headers)
    run = make(pb.ProcessingRequest(request_headers=head), body)
    threads: list[int] = []
    plain = run.exchange._errands._understood

    def noted(action: Any) -> Any:
        threads.append(get_ident())
        return plain(action)

    monkeypatch.setattr(run.exchange._errands, "_understood", noted)
    run.begin()
    await run.written(2)
    run.stream.send(END)
    await run.task

    assert [thread == get_ident() for thread in threads] == [is_inline]


LARGE_ANSWER = answer_of("stop", text="x" * INLINE_ANSWER_BYTES)


def hold_reading(run: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], ThreadEvent, ThreadEvent]:
    """Note which thread reads the answer's body; it waits for the first event and sets the second."""
    threads: list[int] = []
    may_read, has_begun = ThreadEvent(), ThreadEvent()
    plain = run.session.receive

    def noted(event: Any) -> Any:
        if isinstance(event, ResponseBody):
            threads.append(get_ident())
            has_begun.set()
            may_read.wait(timeout=30)
        return plain(event)

    monkeypatch.setattr(run.session, "receive", noted)
    return threads, may_read, has_begun


@pytest.mark.parametrize(("answer", "is_inline"), [(ANSWER, True), (LARGE_ANSWER, False)])
async def test_a_large_answer_is_read_off_the_event_loop(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    answer: pb.ProcessingRequest,
    is_inline: bool,  # noqa: FBT001  pytest's
) -> None:
    run = make(HEADERS, BODY, ANSWER_HEADERS, answer, END)
    threads, may_read, _ = hold_reading(run, monkeypatch)
    may_read.set()

    await run.begin().task

    assert [thread == get_ident() for thread in threads] == [is_inline]
    assert [list(amounts.values()) for amounts in run.store.settled] == [[11]]


async def test_a_task_cancelled_while_a_large_answer_is_read_settles_what_it_said(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(HEADERS, BODY, ANSWER_HEADERS, LARGE_ANSWER)
    _, may_read, has_begun = hold_reading(run, monkeypatch)
    run.begin()
    await run.written(3)
    await asyncio.to_thread(has_begun.wait, 30)

    await run.cancel()
    may_read.set()
    await run.quiet()

    assert [list(amounts.values()) for amounts in run.store.settled] == [[11]]
    assert run.session.is_over


async def test_a_reading_that_fails_aborts_the_stream_and_settles(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(HEADERS, BODY, ANSWER_HEADERS, LARGE_ANSWER)
    plain = run.session.receive

    def failing(event: Any) -> Any:
        if isinstance(event, ResponseBody):
            raise BROKEN
        return plain(event)

    monkeypatch.setattr(run.session, "receive", failing)

    with pytest.raises(RuntimeError):
        await run.begin().task
    await run.quiet()

    assert run.session.is_over
    assert len(run.store.settled) == 1


async def test_a_reading_that_fails_after_its_client_left_is_on_record_and_settles(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make(HEADERS, BODY, ANSWER_HEADERS, LARGE_ANSWER)
    plain = run.session.receive
    may_read, has_begun = ThreadEvent(), ThreadEvent()

    def failing(event: Any) -> Any:
        if isinstance(event, ResponseBody):
            has_begun.set()
            may_read.wait(timeout=30)
            raise BROKEN
        return plain(event)

    monkeypatch.setattr(run.session, "receive", failing)
    run.begin()
    await asyncio.to_thread(has_begun.wait, 30)
    await run.cancel()
    may_read.set()
    await run.quiet()

    assert "reading an answer failed" in {record.message for record in caplog.records}
    assert run.session.is_over
    assert len(run.store.settled) == 1


async def test_a_pool_that_is_shut_down_aborts_the_stream_and_settles(make: Make) -> None:
    run = make(HEADERS, BODY, ANSWER_HEADERS)
    run.begin()
    await run.written(3)
    run.edge.pool.shutdown()
    run.stream.send(LARGE_ANSWER)

    with pytest.raises(RuntimeError):
        await run.task
    await run.quiet()

    assert run.session.is_over
    assert len(run.store.settled) == 1


# --- what answers hold


async def test_a_large_answer_that_is_too_much_for_all_passes_and_is_charged_as_reserved(make: Make) -> None:
    part = b" " * (INLINE_ANSWER_BYTES // 2)
    chunks = [chunk_of(part, end=False)] * 3
    run = make(HEADERS, BODY, ANSWER_HEADERS, *chunks, chunk_of(ANSWER.response_body.body, end=True), END)
    run.edge.held.max_bytes = 2 * len(part)

    await run.begin().task

    assert run.stream.written[-4:] == ["response_body"] * 4
    (reserved,) = run.session.decision.outcomes if run.session.decision else ()
    assert [list(amounts.values()) for amounts in run.store.settled] == [[reserved.reserved]]
    assert (
        'ai_policy_failures_total{error_type="answer_not_held"} 1.0' in run.edge.metrics.exposition().decode()
    )
    assert run.edge.held.size_bytes == 0


async def test_a_small_answer_is_held_whatever_the_others_hold(make: Make) -> None:
    run = make(HEADERS, BODY, ANSWER_HEADERS, ANSWER, END)
    run.edge.held.size_bytes = 10 * run.edge.held.max_bytes

    await run.begin().task

    assert [list(amounts.values()) for amounts in run.store.settled] == [[11]]


@pytest.mark.parametrize("is_cut", [True, False])
async def test_what_an_answer_held_is_given_back_at_its_end(make: Make, is_cut: bool) -> None:  # noqa: FBT001  pytest's
    whole = ANSWER.response_body.body
    begin, rest = chunk_of(whole[:50], end=False), chunk_of(whole[50:], end=True)
    run = make(HEADERS, BODY, ANSWER_HEADERS, begin)
    run.begin()
    await run.written(4)
    async with asyncio.timeout(30):
        while run.edge.held.size_bytes != 50:  # noqa: ASYNC110  an account sends no event
            await asyncio.sleep(0.001)

    run.stream.send(*([] if is_cut else [rest]), END)
    await run.task
    await run.quiet()

    assert run.edge.held.size_bytes == 0


@pytest.mark.parametrize("client_leaves", [True, False])
async def test_a_queued_body_that_nobody_waits_for_is_never_understood(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    client_leaves: bool,  # noqa: FBT001  pytest's
) -> None:
    """A few bodies that take long must not hold up everybody else after their requests are over."""
    run = make(HEADERS, LARGE, deadline_s=30 if client_leaves else 0.01)
    pool_is_free = ThreadEvent()
    understood: list[Any] = []
    monkeypatch.setattr(run.exchange._errands, "_understood", understood.append)
    run.edge.pool.submit(pool_is_free.wait, 30)
    run.begin()
    await run.written(1)
    if client_leaves:
        run.stream.send(END)
        await run.task
    else:
        await run.written(2)
    await run.quiet()
    await asyncio.sleep(0)  # a cancelled future tells its executor in the next turn
    pool_is_free.set()
    run.edge.pool.shutdown()
    run.stream.send(END)
    await run.task

    assert understood == []


# --- two messages while an answer is pending


async def test_trailers_that_come_while_the_store_thinks_are_answered_after_the_body(make: Make) -> None:
    run = make(HEADERS, BODY, REQUEST_TRAILERS)
    run.store.may_reserve.clear()
    run.begin()
    await run.store.reserving.wait()
    async with asyncio.timeout(30):
        while not run.session._owes_trailers:  # noqa: ASYNC110  the session sends no event
            await asyncio.sleep(0.001)
    early = list(run.stream.written)

    run.store.may_reserve.set()
    await run.written(3)
    run.stream.send(ANSWER_HEADERS, ANSWER, END)
    await run.task

    assert early == ["request_headers"]
    assert run.stream.written == [*WRITTEN[:2], "request_trailers", *WRITTEN[2:]]


async def test_envoys_own_answer_overtakes_ours_and_what_was_taken_is_given_back(make: Make) -> None:
    run = make(HEADERS, BODY, REQUEST_TRAILERS, ENVOYS_TIMEOUT)
    run.store.may_reserve.clear()
    run.begin()
    await run.written(2)

    run.store.may_reserve.set()
    run.stream.send(END)
    await run.task
    await run.quiet()

    assert run.stream.written == ["request_headers", "response_headers"]
    assert [list(amounts.values()) for amounts in run.store.settled] == [[]]


async def test_a_second_body_while_the_first_is_pending_aborts_and_gives_back(make: Make) -> None:
    run = make(HEADERS, BODY, BODY)
    run.store.may_reserve.clear()
    run.begin()

    with pytest.raises(ProtocolViolation, match="RequestBody in state reserving"):
        await run.task
    run.store.may_reserve.set()
    await run.quiet()

    assert run.stream.written == ["request_headers"]
    assert [list(amounts.values()) for amounts in run.store.settled] == [[]]


# --- failures


async def test_a_store_that_breaks_aborts_the_stream_and_leaves_nothing_running(make: Make) -> None:
    run = make(HEADERS, BODY)
    run.store.error = ValueError("a bug")
    run.begin()

    with pytest.raises(ValueError, match="a bug"):
        await run.task
    await run.quiet()

    assert run.stream.written == ["request_headers"]


async def test_a_store_that_breaks_after_its_caller_left_is_on_record(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    run = make(HEADERS, BODY)
    run.store.may_reserve.clear()
    run.store.error = ValueError("a bug")
    run.begin()
    await run.store.reserving.wait()
    await run.cancel()

    with caplog.at_level(logging.ERROR, logger=edge.__name__):
        run.store.may_reserve.set()
        await run.quiet()

    assert [record.getMessage() for record in caplog.records] == ["background work failed"]
    assert b'ai_policy_failures_total{error_type="internal"} 1.0' in run.edge.metrics.exposition()


async def test_a_settlement_that_fails_is_counted_and_the_answer_stays_whole(make: Make) -> None:
    run = make(*WHOLE, END)
    run.store.settle_error = StoreUnavailable("connection refused")
    run.begin()

    await run.task
    await run.quiet()

    assert run.stream.written == WRITTEN
    assert b'ai_policy_failures_total{error_type="settlement_failed"} 1.0' in run.edge.metrics.exposition()
    # Too much is held until the reservation expires; nothing is given away.
    assert run.store.forget() == 1


async def test_what_is_no_message_of_the_protocol_aborts(make: Make) -> None:
    run = make(pb.ProcessingRequest()).begin()

    with pytest.raises(ProtocolViolation):
        await run.task
    await run.quiet()

    assert run.stream.written == []


async def test_waiting_keeps_one_read_at_a_time(make: Make) -> None:
    """A second read beside one that waits would swallow a message."""
    run = make(HEADERS, LARGE)
    reads: list[int] = []
    plain: Callable[[], Awaitable[Any]] = run.stream.read
    open_reads = 0

    async def counted() -> Any:
        nonlocal open_reads
        open_reads += 1
        reads.append(open_reads)
        try:
            return await plain()
        finally:
            open_reads -= 1

    run.stream.read = counted  # type: ignore[method-assign]  # the stream is this test's own
    run.begin()
    await run.written(2)
    run.stream.send(ANSWER_HEADERS, ANSWER, END)
    await run.task

    assert set(reads) == {1}
    assert run.stream.written == WRITTEN


# --- what is learned


async def learns_from(run: Run) -> bool:
    """Whether the exchange is the twentieth answer, the first that makes a percentile."""
    for _ in range(19):
        run.edge.learned.observe("openai", "gpt-4o-mini", 500)
    run.begin()
    await run.task
    await run.quiet()
    assert run.store.effective == 1
    return run.edge.learned.percentile_95("openai", "gpt-4o-mini") is not None


@pytest.mark.parametrize(
    ("finish_reasons", "is_learned"),
    [
        (("stop",), True),
        (("tool_calls",), True),
        (("length",), False),
        (("max_tokens",), False),
        (("stop", "length"), False),
    ],
)
async def test_an_answer_that_its_callers_ceiling_cut_teaches_nothing(
    make: Make,
    finish_reasons: tuple[str, ...],
    is_learned: bool,  # noqa: FBT001  parametrized
) -> None:
    """Otherwise one caller's `max_tokens: 1` would shrink what is reserved for everybody."""
    run = make(HEADERS, BODY, ANSWER_HEADERS, answer_of(*finish_reasons), END)

    assert await learns_from(run) is is_learned


@pytest.mark.parametrize(
    ("changes", "output_tokens", "is_learned"),
    [
        ({}, 9, True),
        ({}, 10, False),
        ({}, 11, False),
        # One of the two may have been cut.
        ({"n": 2}, 10, False),
        ({"max_tokens": None}, 10, True),
    ],
)
async def test_an_answer_read_by_envoy_teaches_nothing_once_it_reaches_the_ceiling(
    make: Make,
    changes: dict[str, Any],
    output_tokens: int,
    is_learned: bool,  # noqa: FBT001  parametrized
) -> None:
    """Envoy's record has no finish reason."""
    body = body_of("hi", **changes)
    run = make(HEADERS, body, ANSWER_HEADERS, native_trailers(output_tokens), END, native=True)

    assert await learns_from(run) is is_learned


async def test_what_the_provider_reports_as_input_corrects_the_next_estimate(make: Make) -> None:
    run = make(HEADERS, BODY, ANSWER_HEADERS, ANSWER, END).begin()
    await run.task
    await run.quiet()

    (row,) = run.edge.calibration.dump()

    assert row[:5] == ["openai", "gpt-4o-mini", "chat", False, "bytes"]


@pytest.mark.parametrize(
    "messages",
    [
        (HEADERS, BODY, ANSWER_HEADERS, chunk_of(b"{}", end=True), END),
        (HEADERS, BODY, ANSWER_HEADERS, END),
        (HEADERS, BODY, ENVOYS_TIMEOUT, ANSWER, END),
        (HEADERS, body_of("hi", tools=[{"type": "web_search"}]), ANSWER_HEADERS, ANSWER, END),
    ],
    ids=["no usage", "cut", "timeout", "built-in tool"],
)
async def test_an_answer_that_does_not_tell_the_input_of_this_text_corrects_nothing(
    make: Make, messages: tuple[object, ...]
) -> None:
    run = make(*messages)
    run.begin()
    await run.task
    await run.quiet()

    assert len(run.edge.calibration) == 0


@pytest.mark.parametrize(("burst", "is_forgotten"), [(5_000, True), (5, False), (20_000, False)])
async def test_a_correction_that_refuses_whoever_comes_is_forgotten(
    make: Make,
    burst: int,
    is_forgotten: bool,  # noqa: FBT001  parametrized
) -> None:
    """Refused requests teach nothing, so nobody would ever correct it; others say nothing against it."""
    run = make(HEADERS, BODY, END, burst=burst)
    request = AIRequest(
        api="openai_chat", provider="openai", operation="chat", model="gpt-4o-mini", modalities=("text",)
    )
    learned = TokenEstimate(uncalibrated=8, estimator="bytes")
    for _ in range(3):
        run.edge.calibration.teach(learned, request, 9_000)
    for _ in range(9):
        run.edge.calibration.doubt(learned, request)

    await run.begin().task

    assert (len(run.edge.calibration) == 0) is is_forgotten


@pytest.mark.parametrize(
    ("unit", "counted"), [("tokens", [BODY_TEXT, LARGE_TEXT]), ("requests", [BODY_TEXT])]
)
async def test_a_large_body_is_counted_only_where_somebody_asks(
    make: Make, unit: str, counted: list[str]
) -> None:
    asked: list[str] = []

    class Noting:
        name = "o200k_base"

        def encode_ordinary(self, text: str) -> list[int]:
            asked.append(text)
            return [0]

    for body in (BODY, LARGE):
        run = make(HEADERS, body, ANSWER_HEADERS, ANSWER, END, unit=unit)
        run.edge.tokenizer = Tokenizer({"o200k_base": Noting()})  # type: ignore[dict-item]  # only encodes
        run.begin()
        await run.task
        await run.quiet()

    assert asked == counted


async def test_a_caller_who_leaves_a_model_that_thinks_pays_for_what_it_usually_thinks(make: Make) -> None:
    """Reasoning is reported with the usage alone, and the usage comes last."""
    first = make(HEADERS, BODY, ANSWER_HEADERS, answer_of("stop", output_tokens=8), END)
    await first.begin().task
    await first.quiet()
    headers = pb.ProcessingRequest(
        response_headers=header_map(__status="200", content_type="text/event-stream")
    )
    begun = b'data: {"id":"c","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
    cut = make(HEADERS, body_of("hi", stream=True), headers, chunk_of(begun, end=False), END)
    cut.edge.reasoning = first.edge.reasoning

    await cut.begin().task
    await cut.quiet()

    given = cut.session.decision.tokens.input if cut.session.decision else 0
    assert [list(amounts.values()) for amounts in cut.store.settled] == [[given + 4]]
