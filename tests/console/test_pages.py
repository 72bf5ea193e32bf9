"""The console's pages: what they say, where they lead, and that nothing recorded does anything on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.testclient import TestClient

from extproc.admin import AdminServer
from extproc.console import Console, forms, pages, templates
from extproc.questions.base import DecisionFilter, DecisionLine, DecisionPage, UsageRow, UsageTable
from extproc.questions.explanation import explain
from extproc.questions.said import said
from extproc.questions.screen import clean
from extproc.questions.sections import sections
from extproc.reload import PolicyFolder
from extproc.settings import Settings
from tests.console.screen import Seen
from tests.questions.shelf import Shelf
from tests.questions.stories import STORIES, TRACE, told

NOW_US = 1_790_000_000_000_000
DAY_US = 86_400_000_000
TOKEN = "token-of-the-tests"
POLICIES = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec: {access: allow, description: Everything passes.}
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: trial}
spec: {effect: deny, match: request.stream, mode: shadow, description: "What if <b>nobody</b> streamed?"}
"""
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=y>\u202e\x1b[31m&amp;\n{{ 7*7 }}"


@pytest.fixture
def folder(tmp_path: Path) -> PolicyFolder:
    path = tmp_path / "policies"
    path.mkdir()
    (path / "all.yaml").write_text(POLICIES)
    return PolicyFolder(path)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(stories=(told("access_denied", tmp_path),))


def console(folder: PolicyFolder, ledger: Shelf | None, **changes: Any) -> Console:
    values: dict[str, Any] = {
        "folder": folder,
        "ledger": ledger,
        "notices": list,
        "is_ready": lambda: True,
        "clock_ns": lambda: NOW_US * 1000,
    }
    return Console(**(values | changes))


Open = Callable[..., TestClient]


@pytest.fixture
def browse(folder: PolicyFolder, shelf: Shelf) -> Open:
    """A browser of a console with these changes."""

    def opened(**changes: Any) -> TestClient:
        values: dict[str, Any] = {"ledger": shelf} | changes
        routes = console(folder, **values).routes()
        return TestClient(Starlette(routes=routes), follow_redirects=False)

    return opened


def asked(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query))


# --- the overview


def test_the_overview_says_what_readyz_says(browse: Open, folder: PolicyFolder) -> None:
    notice = "the ledger is not written: disk <full>; 3 records wait"

    def overview(*, is_ready: bool) -> Seen:
        return Seen(browse(is_ready=lambda: is_ready, notices=lambda: [notice]).get("/").text)

    ready, late = overview(is_ready=True), overview(is_ready=False)

    assert "Ready Policies at revision" in ready.text
    assert "Not ready: no request should come here" in late.text
    assert folder.current.revision in ready.text
    assert "The ledger is not written: disk <full>; 3 records wait." in ready.text


async def test_a_folder_that_does_not_load_is_told_with_the_revision_that_stays(
    browse: Open, folder: PolicyFolder, tmp_path: Path
) -> None:
    (tmp_path / "policies" / "all.yaml").write_text("kind: Nonsense")
    await folder.look()
    seen = Seen(browse().get("/").text)

    assert f"does not load; revision {folder.current.revision} stays in force" in seen.text
    for problem in folder.status.problems:
        assert problem in seen.text


def test_policies_are_listed_by_kind_with_mode_description_and_place(browse: Open) -> None:
    text = Seen(browse().get("/").text).text

    assert "AccessRule 1 trial shadow What if <b>nobody</b> streamed? all.yaml:7" in text
    assert "Defaults 1 main Everything passes. all.yaml:2" in text


def test_warnings_of_the_folder_are_told(browse: Open, folder: PolicyFolder, tmp_path: Path) -> None:
    path = tmp_path / "policies" / "all.yaml"
    path.write_text(POLICIES.replace("request.stream", 'request.model == "gpt-4o-mimi"'))
    asyncio.run(folder.look())
    (warning,) = folder.current.warnings(NOW_US * 1000)

    assert str(warning) in Seen(browse().get("/").text).text


def test_the_overview_leads_to_denials_and_to_the_usage_of_a_day(browse: Open, shelf: Shelf) -> None:
    (story,) = shelf.stories
    seen = Seen(browse().get("/").text)

    assert seen.links["denied: access_denied"] == f"/console/decisions/{story.decision.id}"
    assert asked(seen.links["Usage of the last 24 hours by model"]) == {"by": "model", "since": "24h"}
    assert shelf.listed == [(DecisionFilter(enforced_effect="deny"), 10, "")]
    assert [query.by for query in shelf.summed] == [("team",), ("model",)]
    assert {query.only.since_us for query in shelf.summed} == {NOW_US - DAY_US}


def test_a_ledger_that_is_away_or_none_is_told_and_the_rest_is_there(browse: Open, shelf: Shelf) -> None:
    shelf.is_away = True
    away, none = (Seen(browse(**each).get("/").text).text for each in ({}, {"ledger": None}))

    assert "The ledger does not answer: the disk is full." in away
    assert "There is no ledger; set --ledger or --state." in none
    for text in (away, none):
        assert "Ready" in text
        assert "Everything passes." in text


def test_a_ledger_that_takes_too_long_does_not_hold_up_the_overview(
    browse: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Shelf):
        async def decisions(self, *_: Any, **__: Any) -> DecisionPage:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(pages, "_GLANCE_S", 0.01)
    answer = browse(ledger=Slow()).get("/")

    assert answer.status_code == 200
    assert "The ledger does not answer within 0.01 seconds." in Seen(answer.text).text


def test_one_of_several_workers_says_which_one_it_is(browse: Open) -> None:
    assert "This is worker-1" in Seen(browse(worker="worker-1").get("/").text).text
    assert "This is" not in Seen(browse().get("/").text).text


# --- one decision


@pytest.mark.parametrize("name", STORIES)
def test_a_decision_says_on_the_web_what_it_says_on_a_terminal(
    browse: Open, tmp_path: Path, name: str
) -> None:
    story = told(name, tmp_path / "told")
    explained = explain(story)
    path = f"/console/decisions/{story.decision.id}"
    text = Seen(browse(ledger=Shelf(stories=(story,))).get(path).text).text

    assert text.index(explained.verdict.sentence) < text.index("What was asked")
    for section in sections(explained):
        assert section.title in text
        if section.name != "policies":
            for line in section.lines:
                assert " ".join(line.text.removeprefix("- ").split()) in text
    for each in said(explained.policies):
        assert each.policies in text
        for sentence in (each.line.line, *(line.text for line in each.details), *each.spec):
            assert " ".join(sentence.split()) in text


def test_the_bar_of_a_limit_is_its_arithmetic(browse: Open, tmp_path: Path) -> None:
    """892 of 1,000 tokens were used, and 208 were asked for."""
    story = told("rate_limited", tmp_path)
    answer = browse(ledger=Shelf(stories=(story,))).get(f"/console/decisions/{story.decision.id}")

    assert Seen(answer.text).bars == ["89.2%", "20.8%"]


def test_a_trace_is_linked_where_its_place_is_known(browse: Open, shelf: Shelf) -> None:
    path = f"/console/decisions/{shelf.stories[0].decision.id}"
    place = "http://127.0.0.1:16686/trace/{trace_id}"
    links = Seen(browse(trace_url=place).get(path).text).links.values()

    assert f"http://127.0.0.1:16686/trace/{TRACE.trace_id}" in links
    assert "16686" not in browse().get(path).text


def test_a_decision_that_is_not_there_is_404_and_one_that_cannot_be_read_503(
    browse: Open, shelf: Shelf
) -> None:
    unknown = browse().get("/console/decisions/nothing")
    shelf.is_away = True
    away = browse().get("/console/decisions/nothing")

    assert (unknown.status_code, away.status_code) == (404, 503)
    assert "There is no such decision, or not any more." in Seen(unknown.text).text
    assert "The ledger does not answer: the disk is full." in Seen(away.text).text


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        (" 0199-abc ", "/console/decisions/0199-abc"),
        ("../../policies?x", "/console/decisions/..%2F..%2Fpolicies%3Fx"),
        ("", "/console/decisions"),
    ],
)
def test_an_id_that_somebody_types_leads_to_its_page(browse: Open, typed: str, path: str) -> None:
    answer = browse().get("/console/find", params={"id": typed})

    assert (answer.status_code, answer.headers["location"]) == (303, path)


# --- lists


def test_a_list_is_filtered_by_its_form_which_keeps_what_was_asked(browse: Open, shelf: Shelf) -> None:
    question = "team=core&user=&model=&policy=&reason=rate_limited&enforced_effect=deny&would_deny=&since=1d"
    seen = Seen(browse().get(f"/console/decisions?{question}&identity=ada&limit=7").text)

    only = DecisionFilter(
        team="core", reason="rate_limited", enforced_effect="deny", since_us=NOW_US - DAY_US, identity="ada"
    )
    assert shelf.listed == [(only, 7, "")]
    assert seen.filled == dict(parse_qsl(f"{question}&identity=ada&limit=7", keep_blank_values=True))


def test_a_list_goes_on_with_the_same_question(browse: Open, shelf: Shelf) -> None:
    first = Seen(browse().get("/console/decisions?team=a%26b").text)
    second = Seen(browse().get(first.links["Older"]).text)

    assert [after for _, _, after in shelf.listed] == ["", "more"]
    assert {only.team for only, _, _ in shelf.listed} == {"a&b"}
    assert "Newest" not in first.links
    assert asked(second.links["Newest"]) == {"team": "a&b"}
    assert "after" not in second.filled, "another filter begins with the newest"


def test_usage_is_of_lately_by_team_unless_somebody_asks_otherwise(browse: Open, shelf: Shelf) -> None:
    browser = browse()
    for question in ("", "?by=&since=&zone=", "?by=team,model&until=today"):
        browser.get(f"/console/usage{question}")

    assert [query.by for query in shelf.summed] == [("team",), (), ("team", "model")]
    assert [query.only.since_us for query in shelf.summed] == [NOW_US - DAY_US, None, None]


def test_a_row_of_usage_leads_to_its_decisions_where_they_can_be_asked_for(browse: Open) -> None:
    browser = browse()
    lines = [Seen(browser.get(f"/console/usage?by={by}&user=ada").text).links for by in ("model", "day")]

    assert asked(lines[0]["=cmd"]) == {"model": "=cmd", "user": "ada", "since": "24h", "zone": "UTC"}
    assert "=cmd" not in lines[1]


@pytest.mark.parametrize(
    ("rows", "bars", "what"),
    [
        ([{"nano_usd": 200, "input_tokens": 1}, {"nano_usd": 50}], ["100.0%", "25.0%"], "by cost"),
        ([{"input_tokens": 3, "output_tokens": 1}, {"output_tokens": 1}], ["100.0%", "25.0%"], "by tokens"),
        ([{}, {}], ["100.0%", "50.0%"], "by requests"),
    ],
)
def test_bars_compare_what_rows_have(browse: Open, rows: Any, bars: list[str], what: str) -> None:
    class Summed(Shelf):
        async def usage(self, query: Any) -> UsageTable:
            found = [UsageRow(group=(f"t{n}",), requests=2 - n, **row) for n, row in enumerate(rows)]
            return UsageTable(query=query, rows=tuple(found), total=found[0])

    seen = Seen(browse(ledger=Summed()).get("/console/usage").text)

    assert seen.bars == bars
    assert what in seen.text


def test_as_many_names_as_callers_make_up_make_no_longer_page(browse: Open) -> None:
    class Long(Shelf):
        async def usage(self, query: Any) -> UsageTable:
            rows = tuple(UsageRow(group=(f"model-{n}",), requests=1) for n in range(1_002))
            return UsageTable(query=query, rows=rows, total=UsageRow(requests=1_002))

    browser = browse(ledger=Long())
    overview, usage = (Seen(browser.get(path).text) for path in ("/", "/console/usage?by=model"))

    assert "model-9 " in overview.text
    assert "model-10 " not in overview.text
    assert "992 rows more; the total is of all of them." in overview.text
    assert "model-999 " in usage.text
    assert "2 rows more" in usage.text
    assert "Total 1,002" in usage.text


@pytest.mark.parametrize(
    "path",
    [
        "/console/decisions?would_deny=perhaps",
        "/console/decisions?colour=red",
        "/console/decisions?team=a&team=b",
        "/console/usage?by=colour",
        "/console/usage?zone=Mars/Olympus",
        "/console/usage?since=whenever",
    ],
)
def test_what_cannot_be_asked_is_400_and_the_form_is_there_to_ask_again(browse: Open, path: str) -> None:
    answer = browse().get(path)

    assert answer.status_code == 400
    assert "Show" in Seen(answer.text).text
    assert 'class="note problem"' in answer.text


def test_lists_without_a_ledger_say_so(browse: Open, shelf: Shelf) -> None:
    shelf.is_away = True
    for path in ("/console/decisions", "/console/usage"):
        away, none = (browse(**each).get(path) for each in ({}, {"ledger": None}))
        assert (away.status_code, none.status_code) == (503, 404)
        assert "--ledger" in Seen(none.text).text


# --- harmless


EVERYTHING = (
    *("/", "/console/decisions", "/console/decisions/decision-1", "/console/decisions/nothing"),
    *("/console/usage", "/console/find", "/console/console.css", "/console/decisions?colour=red"),
)


@pytest.mark.parametrize("path", EVERYTHING)
def test_every_answer_forbids_what_it_does_not_need_and_needs_none_of_it(browse: Open, path: str) -> None:
    answer = browse().get(path)
    seen = Seen(answer.text)

    assert answer.headers["content-security-policy"] == (
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not seen.tags & {"script", "style", "img", "iframe", "base", "object"}
    assert not seen.attributes & {"style", "src", "onerror", "onload", "onclick"}


def hostile(shelf: Shelf) -> Shelf:
    """The same ledger, of callers who chose every name."""

    class Hostile(Shelf):
        async def decisions(self, only: DecisionFilter, *, limit: int = 50, after: str = "") -> DecisionPage:
            (line, *_) = (await shelf.decisions(only, limit=limit, after=after)).lines
            names = ("decision_id", "reason", "policy", "team", "user", "identity", "provider", "model")
            chosen: dict[str, Any] = dict.fromkeys(names, HOSTILE)
            changed: DecisionLine = replace(line, **chosen)
            return DecisionPage(lines=(changed,), next=HOSTILE)

        async def usage(self, query: Any) -> UsageTable:
            row = UsageRow(group=(HOSTILE,) * len(query.by), requests=1)
            return UsageTable(query=query, rows=(row,), total=row)

    (story,) = shelf.stories
    decision = story.decision
    assert decision.denial is not None
    names: dict[str, Any] = {"user": HOSTILE, "team": HOSTILE, "org": HOSTILE}
    changed = replace(
        decision,
        identity=replace(decision.identity, **names),
        denial=replace(decision.denial, message=HOSTILE),
        findings=tuple(replace(each, message=HOSTILE, warning=HOSTILE) for each in decision.findings),
    )
    return Hostile(stories=(replace(story, decision=changed, wording={}),))


@pytest.mark.parametrize("path", EVERYTHING[:5])
def test_a_hostile_name_is_only_read(browse: Open, shelf: Shelf, path: str) -> None:
    answer = browse(ledger=hostile(shelf), notices=lambda: [HOSTILE], worker=HOSTILE).get(path)
    seen = Seen(answer.text)

    assert not seen.tags & {"script", "img"}
    assert "onerror" not in seen.attributes
    assert "\u202e" not in answer.text
    assert "\x1b" not in answer.text
    assert path.endswith("nothing") or clean(HOSTILE) in seen.text
    assert all(link.startswith("/") for link in seen.links.values())


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_form_holds_exactly_what_was_asked(text: str) -> None:
    form = forms.decisions("/console/decisions", {"team": text, "identity": text, "reason": text}, [text])
    values = {"told": pages.Told(problem="x"), "form": form, "given": {}, "revision": "r"}
    filled = Seen(bytes(templates.html("decisions", **values).body).decode()).filled

    assert (filled["team"], filled["identity"], filled["reason"]) == (text, text, text)


def test_pages_are_for_those_whom_the_guard_lets_in(
    folder: PolicyFolder, shelf: Shelf, tmp_path: Path
) -> None:
    settings = Settings(policies=tmp_path, admin_host="0.0.0.0", admin_token=TOKEN)
    browser = TestClient(AdminServer(settings, console(folder, shelf).routes()).app)

    for path in EVERYTHING:
        assert browser.get(path).status_code == 401
    assert browser.get("/", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert browser.post("/", headers={"authorization": f"Bearer {TOKEN}"}).status_code in (405, 415)
