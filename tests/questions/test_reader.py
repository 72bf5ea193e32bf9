"""Questions to the ledger on both databases: stories, pages, and who waits for whom."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Effect, Finding, Mode, Outcome, PolicyRef, Reason
from extproc.errors import LedgerUnavailable, QuestionInvalid, SettingsInvalid
from extproc.ledger.book import LedgerChanged, QuestionTooLong, Reading
from extproc.ledger.opening import open_book
from extproc.ledger.sqlite import SqliteBook
from extproc.model import Identity
from extproc.pb.ai_policy.v1 import records_pb2 as pb
from extproc.questions import queries
from extproc.questions.base import MOST_LINES, DecisionFilter, DecisionLine, UsageQuery
from extproc.questions.callers import Callers
from extproc.questions.reader import LedgerReader
from extproc.session.inquiry import Inquiry
from tests.ledger.conftest import postgres, url
from tests.ledger.running import look, running, until, verdict, written
from tests.ledger.samples import SECOND_NS, allowed, denied, settlement

__all__ = ["postgres", "url"]
WORDS = {"RateLimit/team-tokens": "limit: {tokens: 1000, per: 1m}\n", "AccessRule/chat": "match: 'a\\0'\n"}


@asynccontextmanager
async def asking(url: str, **settings: Any) -> AsyncIterator[LedgerReader]:
    reader = LedgerReader(open_book(url), **settings)
    try:
        yield reader
    finally:
        reader.close()


def made_at(at_ms: int) -> str:
    """A UUIDv7."""
    return str(uuid.UUID(int=at_ms << 80 | 7 << 76 | 2 << 62 | 1))


async def names(reader: LedgerReader, **only: Any) -> list[str]:
    page = await reader.decisions(DecisionFilter(**only))
    return [line.decision_id.removeprefix("decision-00000") for line in page.lines]


# --- one decision


async def test_a_story_has_the_decision_its_ends_and_the_words_of_then(url: str) -> None:
    async with running(url, instance="sidecar-7") as journal:
        journal.activated("5f2a", 900 * SECOND_NS, WORDS)
        journal.activated("other", 901 * SECOND_NS, {"RateLimit/team-tokens": "of another time"})
        journal.decided(allowed())
        journal.settled(settlement())
    async with asking(url) as reader:
        story = await reader.story("decision-000001")
        assert await reader.story("decision-000002") is None
        assert await reader.story("no\0name") is None

    assert story is not None
    assert (story.decision, story.instance, story.shed) == (allowed(), "sidecar-7", ())
    assert [(end.kind, end.usage.input_tokens) for end in story.endings] == [(pb.SETTLE, 90)]
    assert story.wording == WORDS


async def test_every_end_is_told_in_order(url: str) -> None:
    async with running(url) as journal:
        journal.decided(allowed())
    async with running(url, at_s=9000) as journal:
        await written(journal)
        journal.settled(settlement())
    async with asking(url) as reader:
        story = await reader.story("decision-000001")

    assert story is not None
    assert [(end.sequence, end.kind) for end in story.endings] == [(1, pb.EXPIRE), (2, pb.ADJUST)]
    assert story.wording == {}


async def test_what_a_record_had_no_room_for_is_said(url: str) -> None:
    plain = allowed()
    assert plain.request is not None
    request = replace(plain.request, tools=tuple(f"tool-{number}" * 5 for number in range(400)))
    async with running(url) as journal:
        journal.decided(allowed(request=request))
    async with asking(url) as reader:
        story = await reader.story("decision-000001")

    assert story is not None
    assert story.shed == ("tools",)
    assert story.decision.request == replace(request, tools=())


@pytest.mark.parametrize("words", ["{spoiled", "[1]"])
async def test_words_of_policies_that_nobody_understands_are_said(url: str, words: str) -> None:
    async with running(url) as journal:
        journal.activated("5f2a", 900 * SECOND_NS, WORDS)
        await journal.committed(replace(allowed(), revision="5f2a"))
    look(url, "UPDATE revisions SET wording = ?", words)
    async with asking(url) as reader:
        with pytest.raises(LedgerUnavailable, match="not one that this release understands"):
            await reader.story("decision-000001")


async def test_a_record_of_a_newer_release_is_said(url: str) -> None:
    async with running(url) as journal:
        await journal.committed(allowed())
    record = verdict(url, "decision-000001")
    record.verdict.reason = "a reason of next year"
    look(url, "UPDATE decisions SET record = ?", record.SerializeToString())
    async with asking(url) as reader:
        with pytest.raises(LedgerUnavailable, match="not one that this release understands"):
            await reader.story("decision-000001")


# --- asked right after the answer


async def test_what_this_process_decided_is_there_at_once(url: str) -> None:
    async with running(url) as journal, asking(url, flushed=journal.flushed) as reader:
        for number in range(3):
            journal.decided(allowed(number))
            journal.settled(settlement(number))
            story = await reader.story(f"decision-{number:06}")

            assert story is not None
            assert len(story.endings) == 1
        assert (await reader.usage(UsageQuery())).total.requests == 3


async def test_who_waits_for_a_commit_of_nothing_does_not_wait(url: str) -> None:
    async with running(url) as journal:
        journal.flushed(60).close()
        with pytest.raises(StopIteration):
            journal.flushed(60).send(None)


async def test_who_watches_a_commit_does_not_hurry_it_and_is_not_told_of_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extproc.ledger.sqlite._BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "ledger.sqlite"
    async with running(f"sqlite:{path}") as journal:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            journal.decided(allowed(1))
            await journal.flushed(60)

            assert not journal.status.is_writing
            await journal.flushed(60)  # while nothing can be written nobody waits
            other.execute("ROLLBACK")
        journal.decided(allowed(2))
        await written(journal)


async def test_a_commit_that_takes_its_time_is_waited_for_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    async with running(f"sqlite:{path}") as journal:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            journal.decided(allowed(1))
            await journal.flushed(0.05)

            assert journal.status.pending == 1
            other.execute("ROLLBACK")


async def test_what_another_process_decided_just_now_is_looked_for_again(url: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    young = made_at(now_ms)
    pauses: list[float] = []

    async with running(url) as journal:

        async def pause(seconds: float) -> None:
            """The other process writes the decision before the first look, the end before the second."""
            pauses.append(seconds)
            if len(pauses) == 1:
                await journal.committed(replace(allowed(), id=young))
            else:
                journal.settled(replace(settlement(), decision_id=young))
                await written(journal)

        async with asking(url, clock_ns=lambda: now_ms * 1_000_000, pause=pause) as reader:
            story = await reader.story(young)
            assert story is not None
            assert (len(pauses), len(story.endings)) == (2, 1)

            for name in (young, made_at(now_ms - 3_000), "decision-000007", "", made_at(now_ms + 3_000)):
                await reader.story(name)
            assert len(pauses) == 2


async def test_a_denied_decision_is_not_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = time.time_ns() // 1_000_000
    async with running(url) as journal:
        journal.decided(replace(denied(), id=made_at(now_ms)))
    async with asking(url, clock_ns=lambda: now_ms * 1_000_000) as reader:
        monkeypatch.setattr("extproc.questions.reader._LOOK_AGAIN_S", (1e9,))
        assert await reader.story(made_at(now_ms)) is not None


async def test_callers_who_make_up_young_ids_keep_nobody_waiting(url: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    gate = asyncio.Event()

    async def pause(_: float) -> None:
        await gate.wait()

    async with running(url), asking(url, clock_ns=lambda: now_ms * 1_000_000, pause=pause) as reader:
        callers = Callers(reader, lambda: now_ms * 1_000_000)
        guess = Inquiry(decision_id=made_at(now_ms))
        guessing = [
            asyncio.ensure_future(callers.answer(guess, Identity(id=f"user-{number}"))) for number in range(8)
        ]
        asked = asyncio.wait_for(callers.answer(Inquiry(), Identity(id="ada")), timeout=10)
        assert (await asked).status == 200
        assert not any(each.done() for each in guessing)

        gate.set()
        assert {reply.status for reply in await asyncio.gather(*guessing)} == {404}


# --- lists


async def test_a_line_says_what_a_decision_came_to(url: str) -> None:
    async with running(url) as journal:
        journal.decided(allowed(1))
        journal.settled(settlement(1))
        journal.decided(allowed(2, at_s=1001))
        journal.decided(denied(3, decided_at_ns=1002 * SECOND_NS))
    async with asking(url) as reader:
        page = await reader.decisions(DecisionFilter())

    blocked, pending, settled = page.lines
    assert settled == DecisionLine(
        decision_id="decision-000001", at_us=10**9, effect="allow", enforced_effect="allow", would_deny=False,
        reason="allowed", policy="", identity="demo", team="demo", user="ada", key="demo-key",
        provider="openai", model="gpt-4o-mini", operation="chat", is_open=False, basis="provider",
        is_provisional=False, input_tokens=90, output_tokens=0, nano_usd=1200,
    )  # fmt: skip
    assert (pending.is_open, pending.basis, pending.input_tokens, pending.nano_usd) == (True, "", None, None)
    assert (blocked.enforced_effect, blocked.policy) == ("deny", "RateLimit/team-tokens")
    assert page.next == ""


async def test_an_end_that_nobody_reported_is_provisional(url: str) -> None:
    async with running(url) as journal:
        journal.decided(allowed(1))
        journal.decided(allowed(2))
    async with running(url, at_s=9000) as journal:
        await written(journal)
        journal.settled(settlement(1))
    async with asking(url) as reader:
        page = await reader.decisions(DecisionFilter())

    assert [(line.basis, line.is_provisional) for line in page.lines] == [
        ("expired", True),
        ("provider", False),
    ]


async def test_decisions_are_found_by_everything_that_a_filter_names(url: str) -> None:
    shadow = Finding(
        policy=PolicyRef("RateLimit", "trial"), outcome=Outcome.MATCHED, mode=Mode.SHADOW, effect=Effect.DENY
    )
    plain = allowed()
    assert plain.request is not None
    async with running(url) as journal:
        journal.decided(allowed(1))
        journal.decided(denied(2, decided_at_ns=1001 * SECOND_NS))
        journal.decided(allowed(3, at_s=1002, findings=(shadow,)))
        other = Identity(id="bob", user="bob@x", team="ops", key="bobs-key")
        journal.decided(allowed(4, at_s=1003, identity=other))
        request = replace(plain.request, provider="anthropic", model="claude", operation="messages")
        journal.decided(allowed(5, at_s=1004, request=request))
    async with asking(url) as reader:
        assert await names(reader) == ["5", "4", "3", "2", "1"]
        assert await names(reader, since_us=1001 * 10**6, until_us=1003 * 10**6) == ["3", "2"]
        assert await names(reader, since_us=-(2**80), until_us=2**80) == ["5", "4", "3", "2", "1"]
        assert await names(reader, enforced_effect="deny") == ["2"]
        assert await names(reader, enforced_effect="allow", would_deny=False) == ["5", "4", "1"]
        assert await names(reader, would_deny=True) == ["3"]
        assert await names(reader, reason=Reason.RATE_LIMITED) == ["2"]
        assert await names(reader, policy="RateLimit/team-tokens") == ["2"]
        assert await names(reader, team="ops") == await names(reader, user="bob@x") == ["4"]
        assert await names(reader, key="bobs-key") == await names(reader, identity="bob") == ["4"]
        assert await names(reader, provider="anthropic") == await names(reader, model="Claude") == ["5"]
        assert await names(reader, operation="messages") == ["5"]
        assert await names(reader, identity="demo", team="ops") == []
        assert await names(reader, team="' OR 1 = 1 --\0") == []


@pytest.mark.parametrize(
    "question",
    [
        lambda reader: reader.decisions(DecisionFilter(enforced_effect="maybe")),
        lambda reader: reader.decisions(DecisionFilter(reason="nope")),
        lambda reader: reader.decisions(DecisionFilter(), limit=0),
        lambda reader: reader.decisions(DecisionFilter(), after="nonsense"),
        lambda reader: reader.decisions(DecisionFilter(), after="MTp4=="),
        lambda reader: reader.usage(UsageQuery(by=("team", "team"))),
        lambda reader: reader.usage(UsageQuery(by=("colour",))),
        lambda reader: reader.usage(UsageQuery(zone="Mars/Olympus")),
        lambda reader: reader.usage(UsageQuery(only=DecisionFilter(enforced_effect="maybe"))),
    ],
)
async def test_a_question_without_an_answer_is_refused_and_the_next_one_answered(
    tmp_path: Path, question: Any
) -> None:
    async with running(f"sqlite:{tmp_path / 'ledger.sqlite'}") as journal:
        await journal.committed(allowed())
        async with asking(f"sqlite:{tmp_path / 'ledger.sqlite'}") as reader:
            with pytest.raises(QuestionInvalid):
                await question(reader)
            assert await names(reader) == ["1"]


@given(
    st.text()
    | st.binary().map(lambda data: data.hex())
    | st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True)
)
def test_no_cursor_but_our_own_is_taken_and_none_is_an_accident(text: str) -> None:
    try:
        at_us, name = queries._read_cursor(text)
    except QuestionInvalid:
        return
    assert queries.FIRST_US <= at_us <= queries.LAST_US
    assert "\0" not in name


async def test_pages_skip_and_repeat_nothing_while_decisions_come(url: str) -> None:
    """Many of them in one microsecond, others of an earlier time but committed late."""
    async with running(url) as journal:
        for number in range(25):
            journal.decided(allowed(100 + number, at_s=1000 + number // 10))
        await written(journal)
        before = {f"decision-{100 + number:06}" for number in range(25)}
        found: list[str] = []
        async with asking(url) as reader:
            after, number = "", 500
            while True:
                page = await reader.decisions(DecisionFilter(team="demo"), limit=4, after=after)
                found += [line.decision_id for line in page.lines]
                assert len(page.lines) <= 4
                if not page.next:
                    break
                after, number = page.next, number + 1
                journal.decided(allowed(number, at_s=2000))
                await journal.committed(allowed(200 + number, at_s=1001))

            assert len((await reader.decisions(DecisionFilter(), limit=10**9)).lines) <= MOST_LINES
    assert len(found) == len(set(found))
    assert before <= set(found)


@pytest.mark.parametrize(
    ("only", "index"),
    [
        (DecisionFilter(), "decisions_by_time (occurred_at_us"),
        (DecisionFilter(since_us=5), "decisions_by_time (occurred_at_us"),
        (DecisionFilter(enforced_effect="deny"), "decisions_denied (occurred_at_us"),
        (DecisionFilter(would_deny=True, since_us=5), "decisions_would_deny (occurred_at_us"),
        (DecisionFilter(team="a", since_us=5), "decisions_by_team (team=? AND occurred_at_us"),
        (DecisionFilter(identity="a"), "decisions_by_identity (identity=? AND occurred_at_us"),
    ],
)
def test_no_page_reads_the_whole_ledger(tmp_path: Path, only: DecisionFilter, index: str) -> None:
    """Each of these has an index with the newest last."""
    plans: list[str] = []
    ledger = f"sqlite:{tmp_path / 'ledger.sqlite'}"

    class Planned:
        def rows(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
            plans.extend(row[3] for row in look(ledger, f"EXPLAIN QUERY PLAN {statement}", *parameters))
            return []

    queries.decisions(Planned(), only, limit=50, after=queries._cursor(10**15, "x"))

    assert f"SEARCH d USING INDEX {index}" in plans[0]
    assert plans[-1] == "USE TEMP B-TREE FOR RIGHT PART OF ORDER BY"


# --- revisions


async def test_the_words_of_a_revision_are_written_once_and_go_with_its_decisions(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extproc.ledger.journal._UPKEEP_S", 0.0)
    day_s = 86_400

    async def live(at_s: int, *revisions: str) -> list[str]:
        async with running(url, at_s=at_s) as journal:
            for revision in revisions:
                journal.activated(revision, at_s * SECOND_NS, {"Defaults/main": f"of day {at_s // day_s}"})
            await journal.committed(denied(decided_at_ns=at_s * SECOND_NS))
            await journal.committed(denied(2, decided_at_ns=at_s * SECOND_NS))
        return sorted(name for (name,) in look(url, "SELECT revision FROM revisions"))

    assert await live(day_s, "a", "b", "a") == ["a", "b"]
    assert await live(2 * day_s, "c") == ["a", "b", "c"]
    assert await live(30 * day_s, "a") == ["a", "b", "c"]
    # b was in force on the first day alone, c on the second; a is again.
    assert await live(40 * day_s, "a") == ["a", "c"]
    assert [
        json.loads(words) for (words,) in look(url, "SELECT wording FROM revisions WHERE revision = 'a'")
    ] == [{"Defaults/main": "of day 1"}]


async def test_a_large_folder_is_written_beside_the_requests(tmp_path: Path) -> None:
    words = {f"RateLimit/limit-{number}": "x" * 1000 for number in range(1000)}
    async with running(f"sqlite:{tmp_path / 'ledger.sqlite'}", capacity_bytes=3_000_000) as journal:
        journal.activated("a", SECOND_NS, words)
        journal.activated("b", SECOND_NS, words)
        journal.activated("c", SECOND_NS, words)
        await written(journal)

        assert (journal.status.written, journal.status.dropped) == (2, 1)


# --- bounds


class Gate:
    """A book whose looks wait."""

    def __init__(self, path: Path) -> None:
        self.book = SqliteBook(path)
        self.opened = threading.Event()
        self.looks = 0

    def transaction(self, *, is_durable: bool = False) -> Any:
        return self.book.transaction(is_durable=is_durable)

    def reading(self, *, timeout_s: float) -> Any:
        self.looks += 1
        self.opened.wait()
        return self.book.reading(timeout_s=timeout_s)

    def close(self) -> None:
        self.book.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    look(f"sqlite:{tmp_path / 'ledger.sqlite'}", "SELECT 1")
    gate = Gate(tmp_path / "ledger.sqlite")
    yield gate
    gate.opened.set()


async def test_so_many_questions_wait_and_no_more(gate: Gate) -> None:
    with closing(LedgerReader(gate)) as reader:
        asked = [asyncio.ensure_future(reader.story("x")) for _ in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(LedgerUnavailable, match="too many questions"):
            await reader.story("x")
        gate.opened.set()

        assert await asyncio.gather(*asked) == [None] * 8
        assert await reader.story("x") is None


async def test_nobody_works_for_those_who_left(gate: Gate) -> None:
    with closing(LedgerReader(gate)) as reader:
        asked = [asyncio.ensure_future(reader.story("x")) for _ in range(8)]
        await until(lambda: gate.looks > 0)
        for question in asked:
            question.cancel()
        await asyncio.wait(asked)
        gate.opened.set()
        while True:
            try:
                assert await reader.story("x") is None
                break
            except LedgerUnavailable:
                await asyncio.sleep(0.001)

        assert gate.looks == 2


async def test_waiting_counts_towards_the_time_of_a_question(gate: Gate) -> None:
    with closing(LedgerReader(gate, timeout_s=0.05)) as reader:
        asked = [asyncio.ensure_future(reader.story("x")) for _ in range(2)]
        await asyncio.sleep(0.1)
        gate.opened.set()

        assert isinstance((await asyncio.gather(*asked, return_exceptions=True))[1], QuestionTooLong)


async def test_a_file_that_is_opened_during_a_look_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.sqlite"
    async with running(f"sqlite:{path}") as journal:
        await journal.committed(allowed())
    find, looks = queries.story, []

    def slowly(reading: Reading, decision_id: str) -> Any:
        looks.append(decision_id)
        if len(looks) == 1:
            look(f"sqlite:{path}", "UPDATE decisions SET instance = 'another'")
        return find(reading, decision_id)

    monkeypatch.setattr(queries, "story", slowly)
    async with asking(f"sqlite:{path}") as reader:
        story = await reader.story("decision-000001")

    assert story is not None
    assert (story.instance, len(looks)) == ("another", 2)


async def test_a_file_that_is_never_left_alone_is_said(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.opened.set()

    def never(_: Reading, **__: Any) -> None:
        raise LedgerChanged("again")

    monkeypatch.setattr(queries, "story", never)
    with closing(LedgerReader(gate)) as reader:
        for _ in range(10):
            with pytest.raises(LedgerUnavailable, match="all the time"):
                await reader.story("x")


async def test_a_ledger_that_is_not_there_is_said_until_it_is(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'ledger.sqlite'}"
    async with asking(url) as reader:
        with pytest.raises(SettingsInvalid, match="cannot be read"):
            await reader.usage(UsageQuery())
        async with running(url) as journal:
            await journal.committed(allowed())
            assert (await reader.usage(UsageQuery())).total.requests == 1
