"""Questions as a person types them: `explain`, `decisions` and `usage`, to a ledger and to a sidecar."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from extproc import admin, cli
from extproc.admin import AdminServer
from extproc.questions.base import DecisionFilter, DecisionPage, UsageQuery, UsageTable
from extproc.questions.explained import Explanation
from extproc.questions.explanation import explain
from extproc.questions.http import Questions
from extproc.questions.page import page
from extproc.questions.screen import Screen
from extproc.questions.shapes import read
from extproc.settings import Settings
from tests.ledger.running import running, written
from tests.ledger.samples import allowed, denied, settlement
from tests.questions.shelf import Shelf
from tests.questions.stories import told

ALLOWED, DENIED = "decision-000001", "decision-000002"
DAY = "1970-01-01"
TOKEN = "token-of-the-tests"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ledger of one decision that was allowed and settled, and one that was denied."""
    url = f"sqlite:{tmp_path_factory.mktemp('state') / 'ledger.sqlite'}"

    async def write() -> None:
        async with running(url) as journal:
            journal.decided(allowed())
            journal.settled(settlement())
            journal.decided(replace(denied(2), identity=replace(denied().identity, team="=cmd")))
            await written(journal)

    asyncio.run(write())
    return url


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EXTPROC_LEDGER", "EXTPROC_STATE", "EXTPROC_ADMIN_PORT", "EXTPROC_ADMIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), env=environment)


# --- a ledger


def test_a_decision_is_explained_from_the_ledger(ledger: str) -> None:
    said = run("explain", DENIED, "--ledger", ledger)

    assert (said.exit_code, said.stderr) == (0, "")
    assert said.stdout.startswith("Denied with HTTP 429 by RateLimit/team-tokens:")
    assert "\x1b" not in said.stdout


def test_json_is_the_whole_explanation(ledger: str) -> None:
    said = run("explain", ALLOWED, "--ledger", ledger, "--json")

    explanation = read(Explanation, said.stdout.encode())
    assert explanation.decision_id == ALLOWED
    assert [ending.usage.input_tokens for ending in explanation.endings] == [90]


def test_an_id_that_nobody_knows_is_1_and_says_where_to_look(ledger: str) -> None:
    said = run("explain", "\x1b[31mnone", "--ledger", ledger)

    assert (said.exit_code, said.stdout) == (1, "")
    assert said.stderr.startswith(r"extproc: there is no decision \x1b[31mnone here.")
    assert "is this the ledger" in said.stderr


def test_the_state_folder_names_its_ledger(ledger: str) -> None:
    folder = str(Path(ledger.removeprefix("sqlite:")).parent)

    assert run("explain", DENIED, "--state", folder).stdout.startswith("Denied")
    assert run("explain", DENIED, EXTPROC_STATE=folder).stdout.startswith("Denied")
    assert run("explain", DENIED, EXTPROC_LEDGER=ledger).stdout.startswith("Denied")


@pytest.mark.parametrize("command", [("explain", DENIED), ("decisions",), ("usage",)])
def test_a_ledger_that_is_not_there_is_2_and_is_not_made(command: tuple[str, ...], tmp_path: Path) -> None:
    said = run(*command, "--ledger", f"sqlite:{tmp_path / 'none.sqlite'}")

    assert (said.exit_code, said.stdout) == (2, "")
    assert said.stderr.startswith("extproc: ")
    assert list(tmp_path.iterdir()) == []


def test_decisions_are_listed_newest_first(ledger: str) -> None:
    listed = read(DecisionPage, run("decisions", "--ledger", ledger, "--json").stdout.encode())

    assert [line.decision_id for line in listed.lines] == [DENIED, ALLOWED]


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (("--denied",), {DENIED}),
        (("--would-deny",), set()),
        (("--team", "demo"), {ALLOWED}),
        (("--user", "ada"), {ALLOWED, DENIED}),
        (("--key", "demo-key", "--identity", "demo"), {ALLOWED, DENIED}),
        (("--model", "GPT-4o-mini", "--provider", "openai", "--operation", "chat"), {ALLOWED, DENIED}),
        (("--policy", "RateLimit/team-tokens"), {DENIED}),
        (("--reason", "rate_limited"), {DENIED}),
        (("--since", DAY, "--until", "now"), {ALLOWED, DENIED}),
        (("--since", "today"), set()),
        (("--until", DAY), set()),
        (("--limit", "1"), {DENIED}),
    ],
)
def test_a_list_has_what_was_asked_for(ledger: str, flags: tuple[str, ...], found: set[str]) -> None:
    said = run("decisions", "--ledger", ledger, "--json", *flags)

    assert said.exit_code == 0, said.stderr
    assert {line["decision_id"] for line in json.loads(said.stdout)["lines"]} == found


def test_a_list_goes_on_where_it_ended(ledger: str) -> None:
    first = json.loads(run("decisions", "--ledger", ledger, "--json", "--limit", "1").stdout)

    second = run("decisions", "--ledger", ledger, "--after", first["next"])

    assert ALLOWED in second.stdout
    assert DENIED not in second.stdout


def test_usage_is_grouped_and_harmless_in_a_spreadsheet(ledger: str) -> None:
    said = run("usage", "--ledger", ledger, "--by", "team, model", "--since", DAY, "--csv")

    rows = {row["team"]: row for row in csv.DictReader(io.StringIO(said.stdout, newline=""))}
    assert set(rows) == {"demo", "'=cmd"}
    assert (rows["demo"]["input_tokens"], rows["demo"]["usd"]) == ("90", "0.0000012")
    assert "\r\n" in said.stdout_bytes.decode()


def test_usage_has_a_total_for_people_and_rows_for_programs(ledger: str) -> None:
    shown = run("usage", "--ledger", ledger, "--by", "team")
    table = read(UsageTable, run("usage", "--ledger", ledger, "--by", "team", "--json").stdout.encode())

    assert shown.stdout.splitlines()[-1].startswith("TOTAL")
    assert (table.total.requests, table.total.denied, table.total.nano_usd) == (2, 1, 1200)


# --- what cannot be asked


@pytest.mark.parametrize(
    ("command", "told_"),
    [
        (("decisions", "--since", "tomorrow"), "'tomorrow' is no time; write"),
        (("usage", "--until", "7"), "'7' is no time; write"),
        (("usage", "--zone", "Nowhere/City"), "there is no time zone 'Nowhere/City'"),
        (("usage", "--by", "mood"), "by"),
        (("decisions", "--after", "xx"), "after"),
        (("decisions", "--denied", "--would-deny"), "ask for one of them"),
        (("decisions", "--json", "--csv"), "one form"),
        (("usage", "--json", "--csv"), "one form"),
    ],
)
def test_a_question_without_an_answer_is_2_and_says_what_is_one(
    ledger: str, command: tuple[str, ...], told_: str
) -> None:
    said = run(*command, "--ledger", ledger)

    assert (said.exit_code, said.stdout) == (2, "")
    assert said.stderr.startswith("extproc: ")
    assert told_ in said.stderr
    assert said.stderr.count("\n") == 1


def test_a_password_in_a_ledgers_url_is_never_said() -> None:
    said = run("explain", DENIED, "--ledger", "postgresql://me:canary-7@127.0.0.1:1/none")

    assert said.exit_code == 2
    assert "canary-7" not in said.output


@pytest.mark.parametrize("command", ["decisions", "usage"])
def test_times_in_the_wrong_order_are_refused_and_not_summed_up_to_nothing(command: str, ledger: str) -> None:
    said = run(command, "--ledger", ledger, "--since", "7d", "--until", "30d")

    assert (said.exit_code, said.stdout) == (2, "")
    assert "--since is after --until" in said.stderr


@pytest.mark.parametrize(
    ("environment", "is_bold"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),  # as if it was not there, says no-color.org
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_has_color_unless_it_cannot_or_nobody_wants_it(
    environment: dict[str, str], *, is_bold: bool, ledger: str
) -> None:
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "extproc", "usage", "--ledger", ledger]
    others = {name: value for name, value in os.environ.items() if name not in {"TERM", "NO_COLOR"}}
    subprocess.run(command, stdout=side, env=others | environment, check=True)
    os.close(side)
    said = os.read(terminal, 10_000)
    os.close(terminal)

    assert b"REQUESTS" in said
    assert (b"\x1b[1m" in said) is is_bold


# --- a sidecar


async def test_a_sidecar_is_asked_where_no_ledger_is_named(tmp_path: Path) -> None:
    shelf = Shelf(stories=(told("access_denied", tmp_path),))
    settings = Settings(policies=tmp_path, admin_port=0, admin_token=TOKEN)
    listener = admin.listen(settings)
    server = AdminServer(settings, Questions(ledger=shelf, clock_ns=lambda: 1).routes())
    serving = asyncio.ensure_future(server.serve(listener))
    known = {"EXTPROC_ADMIN_PORT": str(listener.getsockname()[1]), "EXTPROC_ADMIN_TOKEN": TOKEN}

    explained = await asyncio.to_thread(run, "explain", shelf.stories[0].decision.id, **known)
    missing = await asyncio.to_thread(run, "explain", "none", **known)
    listed = await asyncio.to_thread(run, "decisions", "--denied", "--limit", "7", **known)
    summed = await asyncio.to_thread(run, "usage", "--by", "day", "--zone", "Asia/Tokyo", **known)
    server.stop()
    await serving

    assert explained.stdout == page(explain(shelf.stories[0]), Screen(width=1_000_000))
    assert missing.exit_code == 1
    assert listed.exit_code == summed.exit_code == 0
    assert shelf.listed == [(DecisionFilter(enforced_effect="deny"), 7, "")]
    assert shelf.summed == [UsageQuery(by=("day",), zone="Asia/Tokyo")]


def test_nobody_at_the_admin_port_is_2_and_says_what_else_to_ask() -> None:
    said = run("decisions", "--admin", "http://127.0.0.1:1")

    assert (said.exit_code, said.stdout) == (2, "")
    assert "no sidecar answers at 127.0.0.1:1" in said.stderr


async def test_a_sidecar_without_a_ledger_says_so_whatever_is_asked(tmp_path: Path) -> None:
    settings = Settings(policies=tmp_path, admin_port=0)
    listener = admin.listen(settings)
    server = AdminServer(settings, Questions(ledger=None, clock_ns=lambda: 1).routes())
    serving = asyncio.ensure_future(server.serve(listener))
    port = str(listener.getsockname()[1])

    answers = [
        await asyncio.to_thread(run, *command, EXTPROC_ADMIN_PORT=port)
        for command in (("explain", DENIED), ("decisions",), ("usage",))
    ]
    server.stop()
    await serving

    assert {answer.exit_code for answer in answers} == {2}
    assert {answer.stderr for answer in answers} == {
        f"extproc: the sidecar at 127.0.0.1:{port} says: there is no ledger; set --ledger or --state\n"
    }


async def test_another_server_is_not_taken_for_a_sidecar_without_the_decision(tmp_path: Path) -> None:
    settings = Settings(policies=tmp_path, admin_port=0)
    listener = admin.listen(settings)
    server = AdminServer(settings, [])  # it answers 404 to all of these
    serving = asyncio.ensure_future(server.serve(listener))
    port = str(listener.getsockname()[1])

    answers = [
        await asyncio.to_thread(run, *command, EXTPROC_ADMIN_PORT=port)
        for command in (("explain", DENIED), ("decisions",), ("usage",))
    ]
    server.stop()
    await serving

    assert {answer.exit_code for answer in answers} == {2}
    assert {"is no admin port of a sidecar" in answer.stderr for answer in answers} == {True}


def test_the_variable_names_the_admin_port() -> None:
    assert "127.0.0.1:1 " in run("usage", EXTPROC_ADMIN_PORT="1").stderr
    assert run("usage", EXTPROC_ADMIN_PORT="no").stderr.startswith("extproc: EXTPROC_ADMIN_PORT is 'no'")


def test_what_is_typed_beats_the_environment(ledger: str) -> None:
    said = run("usage", "--admin", "http://127.0.0.1:1", EXTPROC_LEDGER=ledger)

    assert "no sidecar answers" in said.stderr
