"""Our counts against what providers reported, on recorded exchanges (see the corpus's own README)."""

from collections import defaultdict
from statistics import median

import pytest

from extproc.measure.calibration import Calibration
from extproc.measure.tokens import Tokenizer
from tests.corpus import exchanges, report
from tests.corpus.report import Counted

pytestmark = pytest.mark.skipif(
    not exchanges.IS_HERE, reason="the recorded exchanges of shared/corpus are not beside this repository"
)
# The recorded request was edited: its answer reports eighteen thousand tokens for five words.
EDITED = "test_prompt_cache.yaml"


@pytest.fixture(autouse=True)
def _vocabularies(tokenizer: Tokenizer) -> None:
    """Without them there is nothing to compare."""


def texts() -> list[Counted]:
    return [each for each in report.counted() if EDITED not in each.exchange.id]


@pytest.mark.parametrize(
    ("api", "fewest"),
    [("openai_chat", 130), ("openai_responses", 45), ("openai_completions", 30), ("openai_embeddings", 25)],
)
def test_a_count_that_says_it_is_exact_is(api: str, fewest: int) -> None:
    found = [each for each in texts() if each.exact and each.request.api == api]

    assert len(found) >= fewest
    assert sum(each.error == 0 for each in found) / len(found) >= 0.99


def test_the_upper_bound_holds() -> None:
    bounds = {each.exchange.id: each.tokens.input_upper_bound for each in report.classified()}

    too_low = [
        each.exchange.id
        for each in texts()
        if bounds[each.exchange.id] < each.reported
        # What the provider's own tools read was never in the prompt.
        and "search" not in "".join(each.request.tools)
        and each.kind != "schema"
    ]

    assert too_low == []


def test_openais_tools_are_within_a_tenth() -> None:
    found = [
        each for each in texts() if each.kind == "tools" and report.family(each.request.model) == "OpenAI"
    ]

    near = [each for each in found if abs(each.error) <= max(5, 0.1 * each.reported)]

    assert len(found) > 80
    assert len(near) / len(found) >= 0.9


def replayed() -> list[tuple[Counted, int]]:
    """Every estimate as earlier answers corrected it, in the order of the recordings."""
    tokens = {each.exchange.id: each.tokens for each in report.classified()}
    calibration = Calibration()
    corrected = []
    for each in texts():
        estimate = tokens[each.exchange.id]
        corrected.append((each, calibration.corrected(estimate, each.request).input))
        calibration.teach(estimate, each.request, each.reported)
    return corrected


def test_what_is_learned_makes_the_estimates_to_come_better() -> None:
    inexact = [(each, learned) for each, learned in replayed() if not each.exact and each.kind != "images"]

    before = [abs(each.error) / each.reported for each, _ in inexact]
    after = [abs(learned - each.reported) / each.reported for each, learned in inexact]

    assert len(inexact) > 300
    assert median(after) <= median(before)
    assert sum(after) < sum(before)


def test_what_is_learned_spoils_no_family_of_some_size() -> None:
    errors = defaultdict(list)
    for each, learned in replayed():
        if not each.exact and each.kind in ("text", "tools"):
            shares = (abs(each.error) / each.reported, abs(learned - each.reported) / each.reported)
            errors[report.family(each.request.model), each.kind].append(shares)

    spoiled = {
        name: found
        for name, found in errors.items()
        if len(found) >= 20
        and median(after for _, after in found) > median(before for before, _ in found) + 0.05
    }

    assert spoiled == {}
