"""How long answers and their reasoning really are, by provider and model.

The first is what `reserve: expected` sets aside, the second what an answer cost that was cut.

Bounded: clients choose model names. No clock: the newest answers count.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any

_REMEMBERED = 256  # answers a model; enough for a stable tail, few enough to follow a change of use
_FEWEST = 20  # below this a 95th percentile is the maximum by another name
# No model has a longer name, or longer answers.
LONGEST_NAME = 256
_LONGEST_OUTPUT = 100_000_000
_MODELS = 1024  # callers choose model names, so the least recently used one is forgotten


class Newest:
    """The newest values of one model, in order of arrival and in order of size."""

    __slots__ = ("_arrived", "_kept", "_sorted")

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._arrived: deque[int] = deque()
        self._sorted: list[int] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: int) -> None:
        """Take in one more, in place of the oldest where all places are taken."""
        if len(self._arrived) == self._kept:
            del self._sorted[bisect_left(self._sorted, self._arrived.popleft())]
        self._arrived.append(value)
        insort(self._sorted, value)

    def in_order(self) -> list[int]:
        """A copy, the oldest first."""
        return list(self._arrived)

    def percentile(self, percent: int) -> int:
        """The smallest value that `percent` of them do not exceed: nearest rank, in whole numbers."""
        return self._sorted[max(0, (percent * len(self._sorted) + 99) // 100 - 1)]


class LearnedOutputs:
    """The last 256 outputs of each of the 1,024 models used last; one thread adds.

    Under `fewest` of them nothing is said of a model.
    """

    def __init__(self, *, fewest: int = _FEWEST) -> None:
        self._fewest = fewest
        self._outputs: OrderedDict[tuple[str, str], Newest] = OrderedDict()
        self.changes = 0

    def observe(self, provider: str, model: str, output_tokens: int) -> None:
        """Remember what one choice of an answer came to."""
        if len(model) > LONGEST_NAME:
            return
        self.changes += 1
        outputs = self._outputs.setdefault((provider, model), Newest(_REMEMBERED))
        outputs.add(output_tokens)
        self._outputs.move_to_end((provider, model))
        if len(self._outputs) > _MODELS:
            self._outputs.popitem(last=False)

    def percentile_95(self, provider: str, model: str) -> int | None:
        """What 95 % of the remembered outputs did not exceed; None under `fewest` of them."""
        outputs = self._outputs.get((provider, model))
        return outputs.percentile(95) if outputs and len(outputs) >= self._fewest else None

    def dump(self) -> list[list[Any]]:
        """Everything remembered as JSON-safe values, the model used least recently first; on any thread.

        Copies of a list are made in one step, so one that is being added to lacks an answer at worst.
        """
        return [[*key, outputs.in_order()] for key, outputs in list(self._outputs.items())]

    def load(self, rows: Iterable[Any]) -> None:
        """Take over what another run remembered, as far as it is what `dump` gives."""
        for row in rows:
            if not isinstance(row, list) or len(row) != 3:  # noqa: PLR2004  provider, model, outputs
                continue
            provider, model, outputs = row
            names = (provider, model)
            if not all(isinstance(name, str) and len(name) <= LONGEST_NAME for name in names):
                continue
            for tokens in outputs[-_REMEMBERED:] if isinstance(outputs, list) else ():
                if type(tokens) is int and 0 <= tokens <= _LONGEST_OUTPUT:
                    self.observe(provider, model, tokens)


def learned_reasoning() -> LearnedOutputs:
    """What answers thought unseen; a single one says more than the nothing that is seen of a cut one."""
    return LearnedOutputs(fewest=1)
