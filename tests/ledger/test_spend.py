"""The view that people sum: what each decision came to in the end, once."""

from __future__ import annotations

from extproc.model import Usage
from tests.ledger.running import look, running, written
from tests.ledger.samples import allowed, denied, settlement

SUMS = """
    SELECT team, COUNT(*), SUM(input_tokens), SUM(output_tokens), SUM(nano_usd), COUNT(*) - COUNT(nano_usd)
    FROM spend GROUP BY team ORDER BY team
"""


async def test_each_settled_decision_counts_once(url: str) -> None:
    """What is denied came to nothing; what is open has not come to anything yet."""
    async with running(url) as journal:
        for number in (1, 2):
            journal.decided(allowed(number))
            journal.settled(settlement(number, usage=Usage(input_tokens=90, output_tokens=7)))
        journal.decided(denied(3))
        journal.decided(allowed(4))

    assert look(url, SUMS) == [("demo", 2, 180, 14, 2400, 0)]


async def test_a_correction_takes_the_place_of_what_expired(url: str) -> None:
    async with running(url) as journal:
        journal.decided(allowed(1))
        journal.decided(allowed(2))
    async with running(url, at_s=9000) as journal:
        assert look(url, SUMS) == [("demo", 2, 200, 1000, None, 2)]
        journal.settled(settlement(1))
        await written(journal)

    assert look(url, "SELECT COUNT(*) FROM usage") == [(3,)]
    assert look(url, SUMS) == [("demo", 2, 190, 500, 1200, 1)]
    rows = look(url, "SELECT basis, is_provisional, occurred_at_us FROM spend ORDER BY decision_id")
    assert [tuple(row) for row in rows] == [("provider", False, 10**9), ("expired", True, 10**9)]


async def test_an_end_whose_decision_was_lost_still_counts(url: str) -> None:
    async with running(url) as journal:
        journal.settled(settlement(at_s=1010))

    assert look(url, SUMS) == [(None, 1, 90, 0, 1200, 0)]
    assert look(url, "SELECT occurred_at_us FROM spend") == [(1010 * 10**6,)]
