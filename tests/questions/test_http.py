"""The ledger by HTTP: for its owners on the admin port, for a command that asks there, for callers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from extproc import admin
from extproc.admin import AdminServer
from extproc.errors import LedgerUnavailable, QuestionInvalid, SettingsInvalid
from extproc.formats.base import Reply
from extproc.model import Identity
from extproc.questions.base import DecisionFilter, DecisionPage, UsageQuery, UsageTable
from extproc.questions.callers import Callers
from extproc.questions.explained import Explanation
from extproc.questions.explanation import explain
from extproc.questions.http import Questions
from extproc.questions.remote import RemoteLedger
from extproc.questions.shapes import read
from extproc.session.inquiry import Inquiry
from extproc.settings import Settings
from tests.questions.shelf import Shelf
from tests.questions.stories import told

NOW_US = 1_790_000_000_000_000
DAY_US = 86_400_000_000
TOKEN = "token-of-the-tests"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(stories=(told("access_denied", tmp_path),))


@pytest.fixture
def client(shelf: Shelf) -> TestClient:
    questions = Questions(ledger=shelf, clock_ns=lambda: NOW_US * 1000)
    return TestClient(Starlette(routes=questions.routes()))


# --- the admin port


def test_a_decision_is_told_as_values_and_as_a_page(client: TestClient, shelf: Shelf) -> None:
    path = f"/decisions/{shelf.stories[0].decision.id}"

    assert read(Explanation, client.get(path).content) == explain(shelf.stories[0])
    page = client.get(path, headers={"accept": "text/plain;q=0.9, */*"})
    assert page.headers["content-type"].startswith("text/plain")
    assert "AccessRule/no-o1-pro" in page.text


def test_a_decision_that_is_not_there_is_404_and_says_so(client: TestClient) -> None:
    answer = client.get("/decisions/nothing")

    assert (answer.status_code, list(answer.json())) == (404, ["error"])


def test_lists_are_filtered_by_what_the_parameters_say(client: TestClient, shelf: Shelf) -> None:
    asked = "team=core&enforced_effect=deny&would_deny=false&limit=7&after=here"
    asked += f"&since=1d&until_us={NOW_US + 5}"
    answer = client.get(f"/decisions?{asked}")

    assert answer.status_code == 200
    only = DecisionFilter(
        team="core", enforced_effect="deny", would_deny=False, since_us=NOW_US - DAY_US, until_us=NOW_US + 5
    )
    assert shelf.listed == [(only, 7, "here")]
    assert answer.json()["next"] == "more"


def test_sums_are_grouped_in_a_zone(client: TestClient, shelf: Shelf) -> None:
    client.get("/usage?by=team,%20day&zone=Europe/Berlin&since=2026-09-21")

    (query,) = shelf.summed
    assert (query.by, query.zone) == (("team", "day"), "Europe/Berlin")
    assert query.only.since_us == 1_789_941_600_000_000, "midnight in Berlin"


@pytest.mark.parametrize("path", ["/decisions", "/usage?by=model"])
def test_lists_are_csv_and_tables_too(client: TestClient, path: str) -> None:
    csv, text = (client.get(path, headers={"accept": each}) for each in ("text/csv", "text/plain"))

    assert csv.headers["content-type"].startswith("text/csv")
    assert not any(line.startswith("=") for line in csv.text.splitlines()), "no formula"
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text.count("\n") >= 2


@pytest.mark.parametrize(
    "asked",
    [
        "/decisions?colour=red",
        "/decisions?limit=0x7",
        "/decisions?limit=100000",
        "/decisions?team=a&team=b",
        "/decisions?would_deny=perhaps",
        "/decisions?since=whenever",
        "/decisions?since_us=-1",
        "/decisions?since_us=2&until_us=1",
        "/usage?since=7d&until=30d",
        "/usage?by=colour",
        "/usage?zone=Mars/Olympus",
        "/usage?limit=3",
    ],
)
def test_what_cannot_be_asked_is_400_and_says_what_can(client: TestClient, asked: str) -> None:
    answer = client.get(asked)

    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 20


def test_a_ledger_that_is_away_and_one_that_is_none_are_told_apart(client: TestClient, shelf: Shelf) -> None:
    shelf.is_away = True
    none = TestClient(Starlette(routes=Questions(ledger=None, clock_ns=lambda: 0).routes()))

    for path in ("/decisions", "/decisions/x", "/usage"):
        assert client.get(path).status_code == 503
        assert none.get(path).status_code == 404
        assert "--ledger" in none.get(path).json()["error"]


# --- asked from elsewhere


@pytest.fixture
async def remote(shelf: Shelf, tmp_path: Path) -> AsyncIterator[RemoteLedger]:
    """A command's view of an admin port that wants its token."""
    settings = Settings(policies=tmp_path, admin_host="0.0.0.0", admin_port=0, admin_token=TOKEN)
    listener = admin.listen(settings)
    server = AdminServer(settings, Questions(ledger=shelf, clock_ns=lambda: NOW_US * 1000).routes())
    serving = asyncio.ensure_future(server.serve(listener))
    yield RemoteLedger(f"http://127.0.0.1:{listener.getsockname()[1]}", TOKEN)
    server.stop()
    await serving


async def test_what_a_sidecar_tells_is_what_its_ledger_says(remote: RemoteLedger, shelf: Shelf) -> None:
    only = DecisionFilter(team="a&b", would_deny=True, since_us=1, until_us=NOW_US)
    query = UsageQuery(by=("model", "day"), only=only, zone="Asia/Tokyo")
    (story,) = shelf.stories

    assert await remote.explain(story.decision.id) == explain(story)
    assert await remote.explain("no/such?id") is None
    assert await remote.decisions(only, limit=3, after="x&y") == await shelf.decisions(only, limit=3)
    assert await remote.usage(query) == await shelf.usage(query)
    assert shelf.listed[0] == (only, 3, "x&y")
    assert shelf.summed[0] == query


async def test_who_asks_a_sidecar_is_told_what_is_wrong(remote: RemoteLedger, shelf: Shelf) -> None:
    with pytest.raises(QuestionInvalid, match="grouped by"):
        await remote.usage(UsageQuery(by=("colour",)))
    shelf.is_away = True
    with pytest.raises(LedgerUnavailable, match="the disk is full"):
        await remote.usage(UsageQuery())
    remote._headers = {}
    with pytest.raises(LedgerUnavailable, match="EXTPROC_ADMIN_TOKEN"):
        await remote.usage(UsageQuery())


async def test_a_sidecar_that_is_not_there_is_named_with_the_way_around_it() -> None:
    with pytest.raises(LedgerUnavailable, match=r"127\.0\.0\.1:9 .*--ledger"):
        await RemoteLedger("http://127.0.0.1:9").usage(UsageQuery())
    for url in ("sqlite:/tmp/x", "http://:80", "http://host:port", "http://host:99999", ""):
        with pytest.raises(SettingsInvalid, match="--admin"):
            RemoteLedger(url)


# --- callers

ADA = Identity(id="ada", user="ada", team="demo", authenticated=True)


def ask(ledger: Shelf | None, caller: Identity = ADA, **asked: Any) -> Reply:
    return asyncio.run(Callers(ledger, lambda: NOW_US * 1000).answer(Inquiry(**asked), caller))


def said(reply: Reply) -> Any:
    return json.loads(reply.body)


def test_a_caller_is_told_of_its_own_decision_what_concerns_it(shelf: Shelf) -> None:
    (story,) = shelf.stories
    reply = ask(shelf, story.decision.identity, decision_id=story.decision.id)

    assert reply.status == 200
    assert read(Explanation, reply.body) == explain(story).for_caller()


@pytest.mark.parametrize("change", [{"id": "eve"}, {"team": "other"}, {"id": ""}])
def test_the_decision_of_another_caller_is_one_that_is_not_there(shelf: Shelf, change: Any) -> None:
    (story,) = shelf.stories
    other = replace(story.decision.identity, **change)

    assert ask(shelf, other, decision_id=story.decision.id) == ask(shelf, other, decision_id="none")
    assert ask(shelf, other, decision_id="none").status == 404


def test_a_caller_sums_up_its_own_usage_alone(shelf: Shelf) -> None:
    reply = ask(shelf, parameters={"by": "model,day", "since": "7d", "model": "gpt-4o-mini"})

    (query,) = shelf.summed
    assert query.only == DecisionFilter(
        identity="ada", team="demo", model="gpt-4o-mini", since_us=NOW_US - 7 * DAY_US
    )
    assert read(UsageTable, reply.body).rows


@pytest.mark.parametrize(
    "parameters", [{"team": "other"}, {"identity": "eve"}, {"by": "team"}, {"by": "user"}, {"since": "x"}]
)
def test_a_caller_cannot_ask_about_anybody_else(shelf: Shelf, parameters: dict[str, str]) -> None:
    reply = ask(shelf, parameters=parameters)

    assert (reply.status, said(reply)["error"]["code"]) == (400, "question_invalid")
    assert shelf.summed == []


def test_callers_learn_of_a_ledger_that_is_away_without_its_reasons(shelf: Shelf) -> None:
    shelf.is_away = True

    assert ask(shelf).status == 503
    assert b"disk" not in ask(shelf).body
    assert ask(None).status == 404


async def test_more_questions_than_can_wait_are_turned_away() -> None:
    gate = asyncio.Event()

    class Slow(Shelf):
        async def usage(self, query: UsageQuery) -> UsageTable:
            await gate.wait()
            return await super().usage(query)

    callers = Callers(Slow(), lambda: 0)
    everybody = [replace(ADA, id=f"user-{number}") for number in range(40)]
    asked = [asyncio.ensure_future(callers.answer(Inquiry(), each)) for each in everybody]
    await asyncio.sleep(0)
    gate.set()
    statuses = [reply.status for reply in await asyncio.gather(*asked)]

    assert statuses.count(429) == 8
    assert statuses.count(200) == 32


async def test_a_caller_asks_one_question_at_a_time(tmp_path: Path) -> None:
    story = told("access_denied", tmp_path)
    caller, inquiry = story.decision.identity, Inquiry(decision_id=story.decision.id)
    callers = Callers(Shelf((story,)), lambda: 0)

    first, second = await asyncio.gather(callers.answer(inquiry, caller), callers.answer(inquiry, caller))

    assert (first.status, second.status) == (200, 429)
    assert (await callers.answer(inquiry, caller)).status == 200


def test_a_page_that_is_no_page_is_an_error_and_not_repeated() -> None:
    with pytest.raises(LedgerUnavailable, match="DecisionPage") as raised:
        read(DecisionPage, b'{"lines": "canary"}')

    assert "canary" not in str(raised.value)
