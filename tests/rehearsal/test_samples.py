"""The sample policies come to what their tests say."""

import asyncio
import time
from pathlib import Path

import pytest

from extproc.measure.prices import Prices
from extproc.policy import policyset
from extproc.rehearsal import cases, trial
from extproc.rehearsal.cases import Case
from extproc.rehearsal.stage import Instruments

FOLDER = Path(__file__).parents[2] / "policies"
POLICIES = policyset.load(FOLDER)
CASES = cases.read(FOLDER, POLICIES, time.time_ns())
INSTRUMENTS = Instruments(prices=Prices.bundled())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_samples_come_to_what_their_tests_say(case: Case) -> None:
    tried = asyncio.run(trial.run(case, INSTRUMENTS))

    assert tried.mismatches == ()


def test_every_sample_policy_is_heard_in_a_test() -> None:
    trials = [asyncio.run(trial.run(case, INSTRUMENTS)) for case in CASES]

    assert trial.unheard(POLICIES, trials) == ()
