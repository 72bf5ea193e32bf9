"""A replay says what another folder would have changed, and nothing that it does not know."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from extproc.cli import app
from extproc.cli.printing import print_json
from extproc.decision import Effect, Reason
from extproc.ledger import tables
from extproc.ledger.opening import open_book
from extproc.ledger.pages import Pages, Place
from extproc.rehearsal import recorded, report
from extproc.rehearsal.again import Again
from extproc.rehearsal.recorded import Recording, recordings
from extproc.rehearsal.replay import Change, ChangedVerdict, Replayed, replay
from extproc.rehearsal.stage import Instruments
from tests.rehearsal.streams import STREAMS, TIGHT, Sent, folder, policy, replayed, run

QUICK = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
OPEN = tuple(
    text.replace("tokens: 900", "tokens: 90000000")
    .replace("burst: 1200", "burst: 90000000")
    .replace("requests: 6", "requests: 6000")
    .replace("outputTokens: 400", "outputTokens: 4000000")
    .replace("inputTokens: 80", "inputTokens: 8000000")
    .replace("{tokens: 1000}", "{tokens: 30000000}")
    .replace("outputTokens: 5000", "outputTokens: 50000000")
    .replace("max: 3", "max: 3000")
    .replace("costUsd: 3", "costUsd: 3000")
    for text in TIGHT
    if "AccessRule" not in text and "RequestCap" not in text
)


@QUICK
@given(sent=STREAMS, cut=st.sampled_from([0, 0, 1, 3, 8]))
def test_the_same_folder_changes_nothing_from_any_time_on(tmp_path: Path, sent: list[Sent], cut: int) -> None:
    policies = folder(tmp_path, *TIGHT)

    found = replayed(policies, run(policies, sent)[cut:])

    assert (found.changed, dict(found.doubts)) == ([], {})
    assert found.replayed == found.unchanged == max(0, len(sent) - cut)


@QUICK
@given(sent=STREAMS)
def test_what_all_passed_is_decided_as_if_the_other_folder_had_been_there(
    tmp_path: Path, sent: list[Sent]
) -> None:
    """With every ending on record, a replay and a run of the other folder say the same."""
    lenient, strict = folder(tmp_path / "lenient", *OPEN), folder(tmp_path / "strict", *TIGHT)
    expected = run(strict, sent)

    again = Again(strict, Instruments())

    async def decided() -> list[tuple[str, str]]:
        found = [await again.decide(recording) for recording in run_lenient]
        return [(each.enforced_effect, each.upstream_model) for each in found]

    run_lenient = run(lenient, sent)
    assert asyncio.run(decided()) == [
        (each.decision.enforced_effect, each.decision.upstream_model) for each in expected
    ]


# --- what it says


def test_a_changed_verdict_says_what_was_and_what_would_be_and_why(tmp_path: Path) -> None:
    then, now = folder(tmp_path / "then"), folder(tmp_path / "now", TIGHT[-1])

    found = replayed(now, run(then, [Sent(0, 0, model="o1"), Sent(0, 0)]))

    (verdict,) = found.changed
    assert (verdict.change, verdict.was, verdict.would_be) == ("newly_denied", "allowed", "403 access_denied")
    assert (verdict.decision_id, verdict.team, verdict.model) == ("decision-000", "demo", "o1")
    assert verdict.policy == "AccessRule/no-o1"
    assert "o1" in verdict.why
    assert (found.replayed, found.unchanged) == (2, 1)
    assert found.by_policy == {("AccessRule/no-o1", Change.NEWLY_DENIED): 1}


def test_what_a_policy_denied_would_pass_without_it(tmp_path: Path) -> None:
    then, now = folder(tmp_path / "then", TIGHT[-1]), folder(tmp_path / "now")

    found = replayed(now, run(then, [Sent(0, 0, model="o1")]))

    # Nobody read its body: what it asked for is known, for a rule on models is asked after it.
    (verdict,) = found.changed
    assert (verdict.change, verdict.policy) == ("newly_allowed", "AccessRule/no-o1")
    assert found.estimated == 1


def test_shadow_and_other_models_are_changes_too(tmp_path: Path) -> None:
    strict = policy("RateLimit", "trial", "limit: {outputTokens: 5, per: 1m}, mode: shadow")
    other = TIGHT[4].replace("tokens: 1000", "tokens: 1")
    then, now = folder(tmp_path / "then"), folder(tmp_path / "now", strict, other)

    found = replayed(now, run(then, [Sent(0, 0), Sent(0, 0, model="gpt-5")]))
    back = replayed(then, run(now, [Sent(0, 0), Sent(0, 0, model="gpt-5")]))

    assert [(each.change, each.policy) for each in found.changed] == [
        (Change.WOULD_DENY, "RateLimit/trial"),
        (Change.OTHER_MODEL, "UsageCap/hour"),
    ]
    assert [each.change for each in back.changed] == [Change.WOULD_NOT_DENY, Change.OTHER_MODEL]


def test_only_as_many_changed_verdicts_are_kept_as_are_wanted(tmp_path: Path) -> None:
    then, now = folder(tmp_path / "then"), folder(tmp_path / "now", TIGHT[-1])
    sent = run(then, [Sent(0, 0, model="o1")] * 3)

    found = asyncio.run(replay(sent, Again(now, Instruments()), most=2))

    assert (len(found.changed), found.changes[Change.NEWLY_DENIED]) == (2, 3)


def test_a_smaller_limit_counts_what_is_on_record_and_a_new_one_begins_at_nothing(tmp_path: Path) -> None:
    wide = policy("UsageCap", "team", "key: [identity.team], limit: {requests: 100}, period: day")
    narrow = wide.replace("100", "5")
    new = policy("RateLimit", "new", "limit: {requests: 1000, per: 1d}")
    then, now = folder(tmp_path / "then", wide), folder(tmp_path / "now", narrow, new)

    found = replayed(now, run(then, [Sent(0, 0)] * 8)[4:])

    # Four were used before the replay begins: one passes still.
    assert found.changes == {Change.NEWLY_DENIED: 3}
    assert [str(ref) for ref in found.begun] == ["RateLimit/new"]
    assert "Used 5" in found.changed[0].why


# --- what it does not know


def without_key(recording: Recording) -> Recording:
    identity = replace(recording.decision.identity, key="")
    return replace(recording, decision=replace(recording.decision, identity=identity))


READS_A_HEADER = """request.headers[?'x'].orValue('')"""


@pytest.mark.parametrize(
    "candidate",
    [
        policy("AccessRule", "h", f"effect: deny, match: \"{READS_A_HEADER} == '1'\""),
        policy("RateLimit", "h", f'key: ["{READS_A_HEADER}"], limit: {{requests: 9, per: 1m}}'),
    ],
)
def test_a_rule_on_headers_is_no_verdict(tmp_path: Path, candidate: str) -> None:
    then, now = folder(tmp_path / "then"), folder(tmp_path / "now", candidate)

    found = replayed(now, run(then, [Sent(0, 0)]))

    assert (found.replayed, found.doubts.total()) == (0, 1)
    assert "/h reads headers" in str(found.doubts)


def test_a_rule_on_headers_of_other_requests_does_not_matter(tmp_path: Path) -> None:
    rule = policy("AccessRule", "h", 'effect: deny, match: request.model == "o3" && "x" in request.headers')
    then, now = folder(tmp_path / "then"), folder(tmp_path / "now", rule)

    assert replayed(now, run(then, [Sent(0, 0)])).unchanged == 1


def test_what_nothing_can_be_said_of_is_counted_as_it_was(tmp_path: Path) -> None:
    wide = policy("UsageCap", "all", "limit: {requests: 100}, period: day")
    rule = policy(
        "AccessRule", "h", 'effect: deny, match: request.model == "gpt-5" && "x" in request.headers'
    )
    then, now = folder(tmp_path / "then", wide), folder(tmp_path / "now", wide.replace("100", "2"), rule)

    found = replayed(now, run(then, [Sent(0, 0, model="gpt-5"), Sent(0, 0, model="gpt-5"), Sent(0, 0)]))

    assert (found.doubts.total(), found.changes) == (2, {Change.NEWLY_DENIED: 1})


def test_of_a_key_that_is_gone_the_caller_is_nobody_any_more(tmp_path: Path) -> None:
    then, now = folder(tmp_path / "then"), folder(tmp_path / "now")
    without = replace(now, objects=tuple(item for item in now.objects if item.ref.kind != "ApiKey"))

    found = replayed(without, run(then, [Sent(0, 0), Sent(0, 0, is_named=False)]))

    (verdict,) = found.changed
    assert (verdict.would_be, verdict.policy) == ("403 credential_invalid", "Identity/callers")
    assert found.unchanged == 1


def test_who_called_by_other_means_than_this_folder_has_is_not_known(tmp_path: Path) -> None:
    then = folder(tmp_path / "then")

    found = replayed(then, [without_key(each) for each in run(then, [Sent(0, 0)])])

    assert found.doubts.total() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"shed": ("tools",)},
        {"error_type": "store_unavailable"},
        {"reason": Reason.CREDENTIAL_INVALID, "enforced_effect": Effect.DENY},
        {"reason": Reason.BODY_MALFORMED, "enforced_effect": Effect.DENY, "request": None},
        {"request": None},
    ],
)
def test_what_the_record_does_not_say_is_no_verdict(tmp_path: Path, change: dict[str, object]) -> None:
    policies = folder(tmp_path)
    (recording,) = run(policies, [Sent(0, 0)])
    shed = change.pop("shed", ())
    assert isinstance(shed, tuple)
    recording = replace(recording, shed=shed, decision=replace(recording.decision, **change))  # type: ignore[arg-type]  # one field each

    found = replayed(policies, [recording])

    assert (found.replayed, found.doubts.total()) == (0, 1)


def test_what_a_cap_lowered_is_known_only_up_to_what_it_left(tmp_path: Path) -> None:
    then = folder(tmp_path / "then", TIGHT[7])
    lower = folder(tmp_path / "lower", TIGHT[7].replace("700", "300"))
    higher = folder(tmp_path / "higher", TIGHT[7].replace("700", "800"))
    deny = folder(tmp_path / "deny", TIGHT[7].replace("clamp", "deny"))
    sent = run(then, [Sent(0, 0, max_tokens=900)])

    assert sent[0].decision.reason is Reason.CLAMPED
    assert replayed(lower, sent).unchanged == 1
    assert replayed(deny, sent).changes == {Change.NEWLY_DENIED: 1}
    assert replayed(higher, sent).doubts.total() == 1


# --- from a ledger


def written(path: Path, found: Sequence[Recording]) -> str:
    """A ledger of these, as its URL."""
    place = Place(instance="one", scope="one", deadline_us=3_600_000_000)
    pages = Pages()
    for recording in found:
        assert recording.settlement is not None
        pages.add([recording.decision, recording.settlement], place, 0)
    url = f"sqlite:{path / 'ledger.sqlite'}"
    book = open_book(url)
    with book.transaction() as transaction:
        tables.write(transaction, pages, place, 0)
    book.close()
    return url


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ledger of more requests than a page has."""
    monkeypatch.setattr(recorded, "_PAGE", 20)
    return written(tmp_path, run(folder(tmp_path / "then"), [Sent(1, 0, model="o1"), *[Sent(1, 0)] * 44]))


def test_a_ledger_is_read_page_by_page_in_the_order_of_time(ledger: str) -> None:
    book = open_book(ledger)
    found = list(filter(None, recordings(book)))
    since_us = found[25].decision.decided_at_ns // 1000
    later = list(recordings(book, since_us=since_us))
    earlier = list(recordings(book, until_us=since_us))
    book.close()

    times = [each.decision.decided_at_ns for each in found]
    assert times == sorted(times)
    assert (len(found), len(later), len(earlier)) == (45, 20, 25)
    assert all(each.settlement is not None and each.instance == "one" for each in found)


def test_records_that_this_release_does_not_understand_are_counted_apart(ledger: str, tmp_path: Path) -> None:
    book = open_book(ledger)
    with book.transaction() as transaction:
        transaction.run("UPDATE decisions SET record = ? WHERE id = ?", [(b"\xff", "decision-001")])
        transaction.run("UPDATE decisions SET record = ? WHERE id = ?", [(b"", "decision-002")])
        transaction.run("UPDATE usage SET record = ? WHERE decision_id = ?", [(b"\xff", "decision-003")])
    book.close()

    arguments = ["replay", "--policies", str(tmp_path / "then"), "--ledger", ledger, "--json"]
    said = json.loads(CliRunner().invoke(app, arguments).stdout)

    assert said["replayed"] == 42
    assert said["unknown"] == {"its record is not one that this release understands": 3}


def test_the_command_prints_who_would_be_denied(ledger: str, tmp_path: Path) -> None:
    folder(tmp_path / "now", TIGHT[-1])
    arguments = ["replay", "--policies", str(tmp_path / "now"), "--ledger", ledger]

    plain = CliRunner().invoke(app, arguments)
    as_json = CliRunner().invoke(app, [*arguments, "--json", "--model", "O1"])

    assert plain.exit_code == as_json.exit_code == 0
    assert "allowed -> 403 access_denied, by AccessRule/no-o1: " in plain.stdout
    assert "45 decisions replayed, 44 unchanged, 1 changed" in plain.stdout
    assert json.loads(as_json.stdout)["changes"]["newly_denied"] == 1
    assert json.loads(as_json.stdout)["replayed"] == 1


def test_times_are_told_as_lists_tell_them_and_fit_any_json_reader(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = Replayed(first_at_us=1_767_268_800_000_000, last_at_us=1_767_268_800_000_000)
    found.changed.append(
        ChangedVerdict(
            decision_id="d", at_us=1_767_268_800_000_000, team="", user="", model="",
            change=Change.NEWLY_DENIED, was="allowed", would_be="403", policy="", why="",
        )
    )  # fmt: skip

    print_json(report.as_json(found))

    assert json.loads(capsys.readouterr().out)["changed"][0]["at_us"] < 2**53
    assert report.as_csv(found).splitlines()[1].startswith("d,2026-01-01T12:00:00.000Z,")
    assert next(report.lines(found)).startswith("2026-01-01T12:00:00.000Z  d  ")


def test_the_command_chooses_by_the_model_that_went_upstream_as_lists_do(tmp_path: Path) -> None:
    then = folder(tmp_path / "then", TIGHT[4])
    found = run(then, [Sent(1, 0, model="gpt-5", output_tokens=100)] * 15)
    led = [each for each in found if each.decision.target_model]
    arguments = ["replay", "--policies", str(tmp_path / "then"), "--ledger", written(tmp_path, found)]

    result = CliRunner().invoke(app, [*arguments, "--json", "--model", "GPT-4o-mini"])

    assert 0 < len(led) < len(found)
    assert json.loads(result.stdout)["replayed"] == len(led)


def test_no_name_that_a_caller_chose_is_a_formula_or_steers_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    then, now = folder(tmp_path / "then"), folder(tmp_path / "now", TIGHT[-1].replace('== "o1"', '!= ""'))
    found = replayed(now, run(then, [Sent(0, 0, model="=1+1")]))

    (verdict,) = found.changed
    found.changed = [replace(verdict, user="\x1b[2J\x9b2J", team=" =1+1")]
    print_json(report.as_json(found))
    as_csv, as_json = report.as_csv(found), capsys.readouterr().out

    assert "decision-000" in as_csv
    assert ",'=1+1," in as_csv
    assert ",' =1+1," in as_csv
    assert not set("\x1b\x9b").intersection(as_csv + as_json + "".join(report.lines(found)))


def test_without_a_ledger_there_is_nothing_to_replay(tmp_path: Path) -> None:
    folder(tmp_path / "now")

    result = CliRunner().invoke(
        app, ["replay", "--policies", str(tmp_path / "now")], env={"EXTPROC_STATE": ""}
    )

    assert result.exit_code == 2
    assert "--ledger" in result.stderr
