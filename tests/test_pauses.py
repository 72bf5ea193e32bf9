"""Full collections that take long set aside what they walked."""

import pytest

from extproc.pauses import LONGEST_S, Pauses


@pytest.mark.parametrize(
    ("generation", "took_s", "frozen"),
    [(2, LONGEST_S * 2, 1), (2, LONGEST_S / 2, 0), (1, LONGEST_S * 2, 0)],
)
def test_only_a_long_full_collection_sets_aside(generation: int, took_s: float, frozen: int) -> None:
    times = iter((10.0, 10.0 + took_s))
    freezes: list[None] = []
    pauses = Pauses(clock_s=lambda: next(times), freeze=lambda: freezes.append(None))

    pauses("start", {"generation": generation})
    pauses("stop", {"generation": generation})

    assert len(freezes) == frozen
