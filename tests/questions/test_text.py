"""Answers as text: what a terminal, a spreadsheet and a program get."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from extproc.questions import figures, text
from extproc.questions.base import (
    DecisionFilter,
    DecisionLine,
    DecisionPage,
    UsageQuery,
    UsageRow,
    UsageTable,
)
from extproc.questions.explained import Explanation
from extproc.questions.explanation import explain
from extproc.questions.page import page
from extproc.questions.screen import Line, Screen, clean, lines
from extproc.questions.shapes import read
from tests.ledger.samples import allowed
from tests.questions.stories import STORIES, story, told

AT_US = 1_790_000_000_123_456
DECISION = "0199f6a1-7c1e-7aaa-8bbb-000000000001"
WIDE = Screen(width=1_000)
# Red, a clipboard, a bell, backspaces, the same in one byte of C1, text that runs backwards, a new line.
HOSTILE = "\x1b[31mred\x1b]52;c;aGk=\x07\b\b\x9b2J\u202egpj.exe\u2028\r\nx\x00\x7f"
FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1d1"]


def line(**changes: Any) -> DecisionLine:
    values: dict[str, Any] = {
        "decision_id": DECISION, "at_us": AT_US, "effect": "allow", "enforced_effect": "allow",
        "would_deny": False, "reason": "allowed", "policy": "AccessRule/chat", "identity": "ada",
        "team": "demo", "user": "ada", "key": "demo-key", "provider": "openai", "model": "gpt-4o-mini",
        "operation": "chat", "is_open": False, "basis": "provider", "input_tokens": 1_200,
        "output_tokens": 34, "nano_usd": 1_234_500_000,
    }  # fmt: skip
    return DecisionLine(**(values | changes))


DENIED = line(enforced_effect="deny", effect="deny", reason="rate_limited", policy="RateLimit/r",
              input_tokens=None, output_tokens=None, nano_usd=None, basis="")  # fmt: skip
PAGE = DecisionPage(
    lines=(
        line(would_deny=True),
        DENIED,
        line(is_open=True, input_tokens=None, output_tokens=None, nano_usd=None),
        line(nano_usd=None, is_provisional=True, reason="clamped"),
    ),
    next="cursor-1",
)
TOTAL = UsageRow(requests=12, denied=2, is_open=1, provisional=3, unpriced=1, input_tokens=12_000,
                 output_tokens=900, cache_read_input_tokens=8_000, reasoning_output_tokens=100,
                 nano_usd=2_500_000_001)  # fmt: skip
USAGE = UsageTable(
    query=UsageQuery(by=("team", "model"), only=DecisionFilter()),
    rows=(replace(TOTAL, group=("demo", "gpt-4o-mini")), UsageRow(group=("", "o1"), requests=1)),
    total=TOTAL,
)


def is_harmless(shown: str) -> bool:
    """Whether a terminal prints it and does nothing else."""
    return all(letter == "\n" or unicodedata.category(letter)[0] != "C" for letter in shown)


# --- terminals


@given(st.text())
def test_cleaned_text_moves_no_cursor(value: str) -> None:
    shown = clean(value)

    assert is_harmless(shown)
    assert "\n" not in shown
    assert clean(shown) == shown


def test_what_is_written_out_can_be_told() -> None:
    assert clean("a\x1b[31m\x9b\u202eb") == r"a\x1b[31m\x9b\u202eb"
    assert clean("Grüße 🌍 日本") == "Grüße 🌍 日本"
    assert clean("Grüße", Screen(is_ascii=True)) == r"Gr\xfc\xdfe"


@pytest.mark.parametrize("screen", [Screen(), WIDE, Screen(width=45, is_ascii=True)])
def test_hostile_names_do_nothing_on_a_page(screen: Screen, tmp_path: Path) -> None:
    decision = allowed()
    assert decision.request is not None
    request = replace(decision.request, model=HOSTILE, models=(HOSTILE,), end_user=HOSTILE)
    identity = replace(decision.identity, user=HOSTILE, team=HOSTILE, id=HOSTILE)
    hostile = replace(decision, request=request, identity=identity, target_model=HOSTILE, error_type=HOSTILE)
    explanation = explain(replace(told("open", tmp_path), decision=hostile, shed=(HOSTILE,)))

    shown = page(explanation, screen)

    assert is_harmless(shown)
    assert r"\x1b[31mred" in page(explanation, WIDE)


def test_hostile_names_do_nothing_in_tables_and_json() -> None:
    hostile = replace(PAGE, lines=(line(model=HOSTILE, team=HOSTILE),), next=HOSTILE)
    sums = replace(USAGE, rows=(UsageRow(group=(HOSTILE, "m")),))

    shown = [text.decisions(hostile, screen) for screen in (Screen(), WIDE)]
    shown += [text.usage(sums, WIDE), text.as_json(hostile), text.as_json(sums)]

    assert all(is_harmless(each) for each in shown)
    assert json.loads(text.as_json(hostile))["lines"][0]["model"] == HOSTILE


@pytest.mark.parametrize("name", ["rate_limited", "shadow_would_deny", "access_not_granted"])
@pytest.mark.parametrize("width", [10, 40, 72, 100])
def test_no_line_of_a_page_is_wider_than_the_screen(name: str, width: int, tmp_path: Path) -> None:
    shown = page(explain(told(name, tmp_path)), Screen(width=width))

    assert max(map(len, shown.splitlines())) <= max(width, 40)


def test_wide_letters_are_folded_by_the_room_they_take() -> None:
    shown = lines([Line("日本" * 40, indent=2, hang=2)], Screen(width=50))

    assert all(cell_len(each) <= 50 for each in shown.splitlines())
    assert "".join(shown.split()) == "日本" * 40


def test_color_is_there_only_where_it_is_wanted(tmp_path: Path) -> None:
    explanation = explain(told("rate_limited", tmp_path))

    plain, colored = page(explanation, WIDE), page(explanation, replace(WIDE, has_color=True))

    assert "\x1b[" not in plain
    assert colored.startswith("\x1b[1;31mDenied")


@pytest.mark.parametrize("name", STORIES)
def test_a_page_in_ascii_is_ascii(name: str, tmp_path: Path) -> None:
    assert page(explain(told(name, tmp_path)), Screen(is_ascii=True)).isascii()


# --- lists


def test_a_wide_list_has_a_line_for_each_decision() -> None:
    titles, allowed_, denied, running, estimated, more = text.decisions(PAGE, WIDE).splitlines()

    assert titles.split() == [column.title for column in text._DECISIONS]
    assert "allowed (shadow would deny)" in allowed_
    assert allowed_.split()[-3:] == ["1,200", "34", "$1.2345"]
    assert "denied: rate_limited" in denied
    assert running.split()[-2:] == ["open", "open"]
    assert estimated.endswith("unpriced, as reserved")
    assert more == "More: --after cursor-1"


def test_an_id_can_be_copied_from_a_narrow_list() -> None:
    shown = text.decisions(PAGE, Screen(width=80)).splitlines()

    assert sum(DECISION in each for each in shown) == len(PAGE.lines)
    assert max(map(len, shown)) <= 80


def test_nothing_found_is_said() -> None:
    assert text.decisions(DecisionPage(lines=()), WIDE) == "No decisions.\n"


def test_usage_has_its_total_and_says_what_it_lacks() -> None:
    titles, demo, nobody, total, *notes = text.usage(USAGE, WIDE).splitlines()

    assert titles.split()[:3] == ["TEAM", "MODEL", "REQUESTS"]
    assert demo.split()[0] == "demo"
    assert nobody.split()[:2] == ["-", "o1"]
    assert total.split() == ["TOTAL", "12", "2", "1", "12,000", "8,000", "900", "100", "$2.500000001"]
    assert [note.split()[0] for note in notes] == ["1", "3", "1"]


def test_usage_without_groups_is_one_line() -> None:
    shown = text.usage(UsageTable(query=UsageQuery(), rows=(TOTAL,), total=TOTAL), WIDE)

    assert shown.count("TOTAL") == 1
    assert shown.splitlines()[1].startswith("TOTAL")


# --- CSV


def parsed(content: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content, newline="")))


def test_csv_has_every_field_and_exact_money() -> None:
    rows = parsed(text.decisions_csv(PAGE))

    names = {each.name for each in fields(DecisionLine)}
    assert set(rows[0]) == names - {"at_us", "nano_usd"} | {"at", "usd"}
    assert (rows[0]["at"], rows[0]["usd"]) == ("2026-09-21T14:13:20.123Z", "1.2345")
    assert (rows[0]["would_deny"], rows[1]["would_deny"]) == ("true", "false")
    assert (rows[1]["usd"], rows[1]["input_tokens"]) == ("", "")
    assert text.decisions_csv(PAGE).count("\r\n") == 5


def test_usage_as_csv_has_its_groups_and_sums() -> None:
    first, second = parsed(text.usage_csv(USAGE))

    assert (first["team"], first["model"], first["requests"]) == ("demo", "gpt-4o-mini", "12")
    assert (first["usd"], second["usd"]) == ("2.500000001", "0.00")
    names = {each.name for each in fields(UsageRow)} - {"group", "nano_usd"}
    assert set(first) == names | {"team", "model", "usd"}


@pytest.mark.parametrize("value", FORMULAS)
def test_a_spreadsheet_takes_no_name_for_a_formula(value: str) -> None:
    (row,) = parsed(text.decisions_csv(DecisionPage(lines=(line(model=value),))))
    (group, *_) = parsed(text.usage_csv(replace(USAGE, rows=(UsageRow(group=(value, "m")),))))

    assert row["model"].startswith("'")
    assert group["team"].startswith("'")


@given(st.text())
def test_any_name_is_one_cell_of_one_line(value: str) -> None:
    content = text.decisions_csv(DecisionPage(lines=(line(team=value),)))

    (row,) = parsed(content)
    assert row["team"] in {clean(value), f"'{clean(value)}"}
    assert row["decision_id"] == DECISION


# --- JSON


def test_json_is_what_is_sent_by_http(tmp_path: Path) -> None:
    explanation = explain(told("streamed", tmp_path))

    assert read(Explanation, text.as_json(explanation).encode()) == explanation
    assert read(DecisionPage, text.as_json(PAGE).encode()) == PAGE
    assert read(UsageTable, text.as_json(USAGE).encode()) == USAGE
    assert text.as_json(replace(PAGE, next="ü\x7f")).isascii()
    assert story(allowed(), told_policies(tmp_path)).instance


def told_policies(folder: Path) -> Any:
    return STORIES["open"](folder / "policies")[0].policies


# --- figures


@pytest.mark.parametrize(
    ("nano_usd", "shown"),
    [(0, "$0.00"), (15_000, "$0.000015"), (1_234_500_000_000, "$1,234.50"), (-1, "-$0.000000001")],
)
def test_money_is_exact(nano_usd: int, shown: str) -> None:
    assert figures.dollars(nano_usd) == shown


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (-5, "0 ms"), (0, "0 ms"), (999, "999 ms"), (1_000, "1 s"), (1_001, "1.1 s"), (59_999, "60 s"),
        (60_000, "1 min"), (61_001, "1 min 2 s"), (3_599_001, "60 min"), (3_600_000, "1 h"),
        (90_000_000, "1 d 1 h"), (86_400_000 * 31, "31 d"),
    ],
)  # fmt: skip
def test_who_waits_as_long_as_it_says_is_not_early(ms: int, shown: str) -> None:
    assert figures.span(ms) == shown


def test_a_time_that_no_calendar_has_is_said_to_be_one() -> None:
    assert figures.time(2**63) == figures.instant(2**63) == figures.NO_CALENDAR
