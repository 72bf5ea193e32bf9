"""Calendar periods: their edges, where clocks are changed and where they are not."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.policy import calendar
from extproc.policy.calendar import PERIODS, Calendar, edges_us

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US

# Zones with summer time, without, with parts of an hour, with days that begin at one o'clock or that
# never were, and with a midnight that comes twice.
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Asia/Kathmandu",
    "Pacific/Chatham", "America/Sao_Paulo", "Africa/Cairo", "Pacific/Apia", "America/St_Johns",
    "America/Havana", "Asia/Tehran", "Pacific/Kiritimati", "Etc/GMT+12",
)  # fmt: skip
zones = st.sampled_from(ZONES).map(ZoneInfo)
periods = st.sampled_from(PERIODS)
# From 1970 to 2106.
instants = st.integers(0, 2**32 * SECOND_US)


def at_us(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * SECOND_US)


def shown(at: int, zone: ZoneInfo) -> str:
    return calendar.moment(at, zone)


def begins(period: str, zone: str, at: str) -> list[str]:
    """The period's beginning and its end by the clock of its zone."""
    _, begin, end, _ = edges_us(period, ZoneInfo(zone), at_us(at))
    return [shown(edge, ZoneInfo(zone)) for edge in (begin, end)]


@given(periods, zones, instants)
@example("day", ZoneInfo("Pacific/Apia"), at_us("2011-12-29T23:00:00-10:00"))
@example("day", ZoneInfo("Pacific/Apia"), at_us("2011-12-31T01:00:00+14:00"))
@example("day", ZoneInfo("America/St_Johns"), at_us("2010-11-07T23:30:00-03:30"))
@example("day", ZoneInfo("America/St_Johns"), at_us("2010-11-06T23:30:00-03:30"))
@example("hour", ZoneInfo("Australia/Lord_Howe"), at_us("2026-04-05T01:45:00+10:30"))
def test_periods_cover_all_time_without_gap_or_overlap(period: str, zone: ZoneInfo, at: int) -> None:
    edges = before, begin, end, after = edges_us(period, zone, at)

    assert before < begin <= at < end < after
    # Whoever asks from the period before or after is told of the same edges.
    assert edges_us(period, zone, begin) == edges_us(period, zone, end - 1) == edges
    assert edges_us(period, zone, end)[:3] == (begin, end, after)
    assert edges_us(period, zone, begin - 1)[1:] == (before, begin, end)


@given(periods, zones, instants)
def test_a_period_is_about_as_long_as_its_name_says(period: str, zone: ZoneInfo, at: int) -> None:
    _, begin, end, _ = edges_us(period, zone, at)
    hours = (end - begin) / HOUR_US
    shortest, longest = {
        "hour": (1, 1), "day": (23, 25), "week": (6 * 24, 169), "month": (27 * 24, 745),
        "year": (364 * 24, 8785),
    }[period]  # fmt: skip

    assert shortest <= hours <= longest


@given(zones, instants)
def test_a_day_begins_with_its_first_instant(zone: ZoneInfo, at: int) -> None:
    _, begin, end, _ = edges_us("day", zone, at)
    first = datetime.fromtimestamp(begin // SECOND_US, zone)
    just_before = datetime.fromtimestamp(begin // SECOND_US - 1, zone)

    assert just_before.date() < first.date() < datetime.fromtimestamp(end // SECOND_US, zone).date()


@given(zones, instants, st.sampled_from(PERIODS[1:]))
def test_longer_periods_begin_with_a_day(zone: ZoneInfo, at: int, period: str) -> None:
    for edge in edges_us(period, zone, at):
        assert edges_us("day", zone, edge)[1] == edge


@pytest.mark.parametrize(
    ("period", "zone", "at", "begin", "end"),
    [
        ("hour", "UTC", "2026-11-21T18:59:59.999999+00:00", "2026-11-21T18:00:00Z", "2026-11-21T19:00:00Z"),
        ("day", "UTC", "2026-11-21T18:00:00+00:00", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"),
        # Weeks begin on Monday, also when the year does not.
        ("week", "UTC", "2026-11-22T23:59:59+00:00", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
        ("week", "UTC", "2027-01-01T00:00:00+00:00", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z"),
        ("month", "UTC", "2026-12-31T23:59:59+00:00", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("month", "UTC", "2027-02-28T12:00:00+00:00", "2027-02-01T00:00:00Z", "2027-03-01T00:00:00Z"),
        # A leap day, and a year without one that could be.
        ("month", "UTC", "2028-02-29T12:00:00+00:00", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
        ("day", "UTC", "2028-02-29T12:00:00+00:00", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"),
        ("day", "UTC", "2100-02-28T12:00:00+00:00", "2100-02-28T00:00:00Z", "2100-03-01T00:00:00Z"),
        ("year", "UTC", "2026-12-31T23:59:59+00:00", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        # It is another day elsewhere.
        (
            "day", "Asia/Kathmandu", "2026-11-21T18:15:00+00:00",
            "2026-11-22T00:00:00+05:45", "2026-11-23T00:00:00+05:45",
        ),
        (
            "month", "Europe/Berlin", "2026-10-31T23:30:00+00:00",
            "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00",
        ),
        # Hours of zones with parts of an hour begin when their clocks show a full one.
        (
            "hour", "Asia/Kolkata", "2026-11-21T18:45:00+00:00",
            "2026-11-22T00:00:00+05:30", "2026-11-22T01:00:00+05:30",
        ),
        (
            "hour", "Pacific/Chatham", "2026-11-21T18:45:00+00:00",
            "2026-11-22T08:00:00+13:45", "2026-11-22T09:00:00+13:45",
        ),
        # Clocks go forward: a day of 23 hours, and no hour is lost that nobody had.
        (
            "day", "Europe/Berlin", "2026-03-29T12:00:00+02:00",
            "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00",
        ),
        (
            "hour", "Europe/Berlin", "2026-03-29T01:30:00+01:00",
            "2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00",
        ),
        # Clocks go back: a day of 25 hours, and both hours of one name are hours.
        (
            "day", "Europe/Berlin", "2026-10-25T12:00:00+01:00",
            "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00",
        ),
        (
            "hour", "Europe/Berlin", "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00",
        ),
        (
            "hour", "Europe/Berlin", "2026-10-25T02:30:00+01:00",
            "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00",
        ),
        # Days that begin at one o'clock, because there was no midnight.
        (
            "day", "America/Sao_Paulo", "2018-11-04T12:00:00-02:00",
            "2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00",
        ),
        (
            "day", "Africa/Cairo", "2026-04-24T12:00:00+03:00",
            "2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00",
        ),
        # The gap began before midnight.
        (
            "day", "America/Toronto", "1919-03-31T12:00:00-04:00",
            "1919-03-31T00:30:00-04:00", "1919-04-01T00:00:00-04:00",
        ),
        # Midnight came twice, the first time counts.
        (
            "day", "America/Havana", "2026-11-01T12:00:00-05:00",
            "2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00",
        ),
        # There was no 30 December 2011.
        (
            "day", "Pacific/Apia", "2011-12-29T12:00:00-10:00",
            "2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00",
        ),
    ],
)  # fmt: skip
def test_a_period_begins_and_ends_by_the_clock_of_its_zone(
    period: str, zone: str, at: str, begin: str, end: str
) -> None:
    assert begins(period, zone, at) == [begin, end]


def test_days_are_as_long_as_their_clocks_make_them() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    lengths = [
        (end - begin) // HOUR_US
        for day in ("2026-03-28", "2026-03-29", "2026-10-25", "2026-10-26")
        for _, begin, end, _ in [edges_us("day", berlin, at_us(f"{day}T12:00:00+00:00"))]
    ]

    assert lengths == [24, 23, 25, 24]


@given(periods, zones, st.lists(instants, min_size=1, max_size=6))
def test_what_is_remembered_is_what_is_worked_out(period: str, zone: ZoneInfo, asked: list[int]) -> None:
    """Whatever was asked before: clocks are set back, and requests are decided out of order."""
    remembering = Calendar(period, zone)
    near = [at + step for at in asked for step in (0, HOUR_US, -HOUR_US)]

    assert [remembering.edges_us(at) for at in near] == [edges_us(period, zone, at) for at in near]


@pytest.mark.parametrize("name", ["Europe/Berlin", "UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_zones_have_the_names_of_iana(name: str) -> None:
    assert str(calendar.zone(name)) == name


@pytest.mark.parametrize(
    "name",
    ["", "Europe", "Mars/Olympus", "europe/berlin", "localtime", "right/UTC", "../etc/passwd",
     "/etc/localtime", "CET ", "Europe/Berlin/", "A" * 5000, "Europe/\x00"],
)  # fmt: skip
def test_what_is_no_zone_everywhere_is_none(name: str) -> None:
    assert calendar.zone(name) is None


@given(instants, zones)
def test_a_moment_is_never_before_its_time(at: int, zone: ZoneInfo) -> None:
    text = shown(at, zone)

    assert (
        timedelta(0)
        <= datetime.fromisoformat(text) - (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at))
        < timedelta(seconds=1)
    )
