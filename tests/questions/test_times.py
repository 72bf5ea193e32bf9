"""Times as people type them."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.errors import QuestionInvalid
from extproc.questions import times

NOW = "2026-11-21T18:30:15+00:00"


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1_000_000)


def moment(text: str, zone: str = "UTC") -> int:
    return times.moment_us(text, now_us=us(NOW), zone=times.zone(zone))


@pytest.mark.parametrize(
    ("text", "zone", "meant"),
    [
        ("now", "UTC", NOW),
        ("90m", "UTC", "2026-11-21T17:00:15+00:00"),
        ("24h", "UTC", "2026-11-20T18:30:15+00:00"),
        ("7d", "Asia/Kathmandu", "2026-11-14T18:30:15+00:00"),
        ("1d12h", "UTC", "2026-11-20T06:30:15+00:00"),
        ("2w", "UTC", "2026-11-07T18:30:15+00:00"),
        ("today", "UTC", "2026-11-21T00:00:00+00:00"),
        ("TODAY ", "Asia/Tokyo", "2026-11-22T00:00:00+09:00"),
        ("yesterday", "Europe/Berlin", "2026-11-20T00:00:00+01:00"),
        ("this-hour", "Asia/Kathmandu", "2026-11-22T00:00:00+05:45"),
        ("this-week", "UTC", "2026-11-16T00:00:00+00:00"),
        ("last-week", "UTC", "2026-11-09T00:00:00+00:00"),
        ("this-month", "Europe/Berlin", "2026-11-01T00:00:00+01:00"),
        ("last-month", "Europe/Berlin", "2026-10-01T00:00:00+02:00"),
        ("this-year", "UTC", "2026-01-01T00:00:00+00:00"),
        ("2026-11-01", "Europe/Berlin", "2026-11-01T00:00:00+01:00"),
        ("2026-11-01T09:30", "Europe/Berlin", "2026-11-01T09:30:00+01:00"),
        ("2026-11-01 09:30:15", "UTC", "2026-11-01T09:30:15+00:00"),
        ("2026-11-01T09:30:00Z", "Europe/Berlin", "2026-11-01T09:30:00+00:00"),
        ("2026-11-01T09:30:00.25-05:00", "UTC", "2026-11-01T09:30:00.25-05:00"),
        ("1960-01-01T00:00:00.5", "UTC", "1960-01-01T00:00:00.5+00:00"),
    ],
)
def test_a_time_is_what_its_writer_means(text: str, zone: str, meant: str) -> None:
    assert moment(text, zone) == us(meant)


def test_a_day_without_a_midnight_begins_where_it_begins() -> None:
    # Clocks went from 23:59:59 to 01:00:00.
    assert moment("2018-11-04", "America/Sao_Paulo") == us("2018-11-04T01:00:00-02:00")


@pytest.mark.parametrize(
    "text",
    ["", " ", "7", "d", "-7d", "7 d", "7y", "next-week", "2026-13-01", "2026-02-30", "0001-01-01",
     "9999-12-31", "99999999999d", "\u0667d", "2026-11-01T25:00", "\x1b[31m"],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(QuestionInvalid, match="is no time; write how long ago") as caught:
        moment(text)

    assert "\x1b" not in str(caught.value)


@given(st.text(alphabet="0123456789smhdwT:-+Z. nowtda", max_size=24))
def test_anything_typed_is_a_time_or_refused(text: str) -> None:
    with suppress(QuestionInvalid):
        assert isinstance(moment(text), int)


@pytest.mark.parametrize("name", ["", "Nowhere/City", "../etc/passwd", "Europe", "localtime"])
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(QuestionInvalid, match="there is no time zone"):
        times.zone(name)
