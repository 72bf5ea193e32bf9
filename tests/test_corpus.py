"""Real traffic, recorded by others: everything is recognised, every usage is found, counts are near."""

import os
from statistics import median

import pytest

from extproc.errors import VocabularyMissing
from extproc.measure import vocab
from tests.corpus import exchanges, report

pytestmark = pytest.mark.skipif(
    not exchanges.IS_HERE, reason="the recorded exchanges (../shared/corpus) are not on this machine"
)


@pytest.fixture(autouse=True, scope="module")
def _vocabularies() -> None:
    try:
        vocab.load(vocab.default_directory(os.environ))
    except VocabularyMissing as missing:
        pytest.skip(str(missing))


def test_at_most_one_percent_of_recorded_requests_are_not_understood() -> None:
    wrong = {each.exchange.id: each.wrong for each in report.classified() if each.wrong}

    assert len(report.classified()) == 981
    assert len(wrong) <= 9, wrong


def test_nothing_that_is_not_understood_passes_in_silence() -> None:
    """It is refused, or no format claims it, which the Defaults deny unless told otherwise."""
    for each in report.classified():
        if each.wrong:
            assert each.request is None, (each.exchange.id, each.wrong)


def test_every_recorded_usage_is_found_whole_and_in_chunks() -> None:
    different = {
        each.exchange.id: (each.expected, each.whole, each.chunked)
        for each in report.settled()
        if each.expected is not None and not each.expected == each.whole == each.chunked
    }

    assert different == {}


def test_no_usage_is_invented() -> None:
    invented = {
        each.exchange.id: each.whole for each in report.settled() if each.expected is None and each.whole
    }

    assert invented == {}


def test_plain_text_for_openai_is_counted_within_one_token() -> None:
    found = [each for each in report.counted() if report.is_plain_openai(each)]
    near = sum(abs(each.error) <= 1 for each in found)

    assert len(found) > 240
    assert near / len(found) >= 0.95


def test_text_for_other_vendors_is_estimated_within_five_percent() -> None:
    by_family: dict[str, list[float]] = {}
    for each in report.counted():
        if each.kind == "text" and not report.is_plain_openai(each):
            by_family.setdefault(report.family(each.request.model), []).append(
                abs(each.error) / each.reported
            )
    errors = {name: median(found) for name, found in by_family.items() if len(found) >= 5}

    assert median(share for found in by_family.values() for share in found) <= 0.05
    assert {name: error for name, error in errors.items() if error > 0.05} == {}
