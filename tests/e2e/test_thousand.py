"""A thousand mixed requests: clients, log, spans, metrics, ledger and the provider's books agree."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from typer.testing import CliRunner

from extproc import cli
from tests.e2e import accounts, mixed
from tests.e2e.agreement import Accounts, disagreements
from tests.e2e.mixed import DENIED, EMBEDDING, LARGE, OF_LARGE, SMALL, Run

UNDISTURBED = [team for team in mixed.TEAMS if team != "drill"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with mixed.run(tmp_path_factory.mktemp("thousand")) as done:
        yield done


@pytest.fixture(scope="module")
def told(run: Run) -> Accounts:
    return accounts.read(run)


def extproc(run: Run, *arguments: str) -> Any:
    """What a command says of the run's ledger."""
    ledger = f"sqlite:{run.stack.folder / 'state' / 'ledger.sqlite'}"
    said = CliRunner().invoke(cli.app, [*arguments, "--ledger", ledger, "--json"])
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


def test_everybody_says_the_same_to_the_token_and_the_nano_dollar(told: Accounts) -> None:
    assert disagreements(told) == []


def test_everything_that_can_happen_to_a_request_is_among_them(run: Run, told: Accounts) -> None:
    assert len(run.asked) == len(told.decisions) == 1000
    assert {each.basis for each in told.endings} >= {
        *("provider", "tokenizer", "bytes", "reserved", "upstream_error")
    }
    assert Counter(each.reason for each in told.decisions if each.denied_with) == {
        "access_denied": 20,
        "rate_limited": 15,
        "credential_missing": 5,
    }
    assert {each.reason for each in told.decisions} > {"allowed", "clamped", "model_substituted"}
    assert {policy for each in told.decisions for policy in each.would_deny} == {
        "RateLimit/trial",
        "AccessRule/no-streams-trial",
    }
    # Some left before the answer, some in the middle of it, and some saw it break off.
    assert {each.status for each in told.clients if not each.is_whole} == {0, 200}


def test_what_undisturbed_teams_used_is_the_same_in_every_run(run: Run, told: Accounts) -> None:
    asked = dict(zip((each.decision_id for each in told.clients), run.asked, strict=True))
    expected: Counter[tuple[str, str]] = Counter()
    given = defaultdict(set)
    for ended in told.endings:
        ask = asked[ended.decision_id]
        if ask.team in UNDISTURBED:
            assert ended.basis == "provider"
            expected[ask.team, ask.way] += 0 if ask.model == EMBEDDING else ask.output
            given[ask.way, ask.model].add(ended.input_tokens)
    made: Counter[tuple[str, str]] = Counter()
    for ended in told.endings:
        ask = asked[ended.decision_id]
        if ask.team in UNDISTURBED:
            made[ask.team, ask.way] += ended.output_tokens

    assert made == expected
    assert {way: len(counts) for way, counts in given.items()} == dict.fromkeys(given, 1)
    upstream = Counter(each.model for each in told.decisions if asked[each.decision_id].model == LARGE)
    assert upstream == {LARGE: OF_LARGE, SMALL: 10}


def test_the_usage_table_is_the_sum_of_what_each_request_came_to(run: Run, told: Accounts) -> None:
    teams = {each.decision_id: each.team for each in told.decisions}
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for each in told.decisions:
        sums[each.team] += Counter(requests=1, denied=int(bool(each.denied_with)))
    for ended in told.endings:
        sums[teams[ended.decision_id]] += Counter(
            input_tokens=ended.input_tokens,
            output_tokens=ended.output_tokens,
            nano_usd=ended.nano_usd or 0,
        )

    said = extproc(run, "usage", "--by", "team")

    shown = {row["group"][0]: row for row in said["rows"]}
    assert shown.keys() == sums.keys()
    for team, row in shown.items():
        assert {name: row[name] for name in sums[team]} == sums[team]


def test_one_denial_has_one_id_wherever_it_is_told(run: Run, told: Accounts) -> None:
    place = next(number for number, ask in enumerate(run.asked) if ask.model == DENIED)
    seen = run.answered[place]
    (name,) = seen.body_ids

    assert seen.status == 403
    assert name == seen.decision_id
    sources: tuple[Sequence[Any], ...] = (told.access_log, told.decide_spans, told.decisions)
    for source in sources:
        assert [each.policy for each in source if each.decision_id == name] == ["AccessRule/not-offered"]
    forwarded: tuple[Sequence[Any], ...] = (told.work_spans, told.endings, told.books)
    assert not [each for source in forwarded for each in source if each.decision_id == name]
    explained = extproc(run, "explain", name)
    assert explained["decision_id"] == name
    assert explained["verdict"]["determining"] == "AccessRule/not-offered"
