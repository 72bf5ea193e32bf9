"""What providers report against what was estimated, by model: corrects the estimates to come.

Floor 1. Clients choose model names and prompts, so everything here is bounded: how many models are
remembered, how far one answer moves a correction, how far a correction can go.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

from extproc.measure.learned import LONGEST_NAME
from extproc.measure.tools import has_built_in
from extproc.model import AIRequest, TokenEstimate

# The least recently taught one is forgotten for the next.
MODELS = 1024
# The last fifty answers or so count.
_FORGETTING = 0.98
# How far a family's constants are off before anything is learned, as variances: a fifth of the slope,
# thirty tokens of framing.
_SLOPE_VARIANCE = 0.2**2
_INTERCEPT_VARIANCE = 30.0**2
# Rounding must not make a variance zero or less.
_LEAST_VARIANCE = 1e-12
# How far one answer is off its model's line: three tokens and three hundredths.
_NOISE_TOKENS, _NOISE_SHARE = 3.0, 0.03
# Vendors' tokenizers are no further apart than this.
_SLOPES = (0.7, 2.5)
# A hidden prompt has a few thousand tokens at most; a frame that we count too high, a few hundred.
_INTERCEPTS = (-1_000.0, 10_000.0)
# A residual beyond this share of the estimate belongs to something that is not in the prompt.
_USUAL_SHARE, _LARGEST_SHARE = 0.1, 0.6
_SMALL_PROMPT = 50
# So many alike, one after another, are the model's habit.
_HABIT = 3
# So many requests that a correction alone made too large for a limit, and nobody learns any more from.
_DOUBTS = 10

# Provider, model, operation (a completion has no frame, a chat of the same model has), whether there are
# tools, estimator.
Key = tuple[str, str, str, bool, str]
_TEXT = frozenset({"text"})


@dataclass(frozen=True, slots=True)
class Line:
    """Reported = slope * estimated + intercept, with what is known of both; a Kalman filter's state."""

    slope: float = 1.0
    intercept: float = 0.0
    slope_variance: float = _SLOPE_VARIANCE
    covariance: float = 0.0
    intercept_variance: float = _INTERCEPT_VARIANCE
    spread: float = _LARGEST_SHARE / 5  # moving mean of the residuals' share
    odd: float = 0.0  # the last residual that was not believed
    odds: int = 0  # how many like it came in a row

    def at(self, estimated: int) -> float:
        """What would be reported."""
        return self.slope * estimated + self.intercept

    def taught(self, estimated: int, reported: int) -> Line:
        """The line after one more answer; one that is far off it changes nothing before its third time."""
        residual = reported - self.at(estimated)
        size = estimated + _SMALL_PROMPT
        share = abs(residual) / size
        usual = min(_LARGEST_SHARE, max(_USUAL_SHARE, 5 * self.spread))
        if share <= usual:
            return self.moved(estimated, residual, spread=0.9 * self.spread + 0.1 * share)
        may_be_slope = share <= _LARGEST_SHARE and residual * self.odd > 0
        odds = self.odds + 1 if may_be_slope or abs(residual - self.odd) <= size * usual else 1
        if odds < _HABIT:
            return replace(self, odd=residual, odds=odds)
        if may_be_slope:
            fresh = Line(slope=self.slope, intercept=self.intercept)
            return fresh.moved(estimated, residual, spread=fresh.spread)
        return Line(slope=self.slope, intercept=_clamped(self.intercept + residual, _INTERCEPTS))

    def moved(self, estimated: int, residual: float, *, spread: float) -> Line:
        """One step of recursive least squares with forgetting."""
        grown = min(
            1 / _FORGETTING,
            _SLOPE_VARIANCE / self.slope_variance,
            _INTERCEPT_VARIANCE / self.intercept_variance,
        )
        aa, ab, bb = (
            max(1.0, grown) * value
            for value in (self.slope_variance, self.covariance, self.intercept_variance)
        )
        of_slope, of_intercept = aa * estimated + ab, ab * estimated + bb
        noise = _NOISE_TOKENS**2 + (_NOISE_SHARE * estimated) ** 2
        total = estimated * of_slope + of_intercept + noise
        slope = self.slope + of_slope / total * residual
        intercept = self.intercept + of_intercept / total * residual
        return Line(
            slope=_clamped(slope, _SLOPES),
            intercept=_clamped(intercept, _INTERCEPTS),
            slope_variance=max(_LEAST_VARIANCE, aa - of_slope * of_slope / total),
            covariance=ab - of_slope * of_intercept / total,
            intercept_variance=max(_LEAST_VARIANCE, bb - of_intercept * of_intercept / total),
            spread=spread,
        )


class Calibration:
    """A line for each of the models taught last; taught on one thread, read on any."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Key, Line] = OrderedDict()
        self._doubts: dict[Key, int] = {}  # of lines, since they were last taught
        self.changes = 0

    def __len__(self) -> int:
        return len(self._lines)

    def corrected(self, tokens: TokenEstimate, request: AIRequest) -> TokenEstimate:
        """The estimate as this model's earlier answers suggest it; an exact count stays as it is.

        The bound stays one of the text's bytes, but for what the provider is known to add itself.
        """
        if tokens.exact or not is_comparable(request):
            return tokens
        line = self._lines.get(_key(tokens, request))
        if line is None:
            return tokens
        bound = tokens.input_upper_bound + max(0, math.ceil(line.intercept))
        return replace(
            tokens,
            input=min(bound, max(1, round(line.at(tokens.uncalibrated)))),
            input_upper_bound=bound,
            estimator=f"{tokens.estimator}+learned",
        )

    def teach(self, tokens: TokenEstimate, request: AIRequest, reported: int) -> None:
        """Take what the provider reported as input of a whole answer, cached input included."""
        is_useful = not tokens.exact and tokens.uncalibrated > 0 and reported > 0
        if not is_useful or not is_comparable(request) or len(request.model) > LONGEST_NAME:
            return
        key = _key(tokens, request)
        self.changes += 1
        self._doubts.pop(key, None)
        self._lines[key] = self._lines.get(key, _UNTAUGHT).taught(tokens.uncalibrated, reported)
        self._lines.move_to_end(key)
        if len(self._lines) > MODELS:
            forgotten, _ = self._lines.popitem(last=False)
            self._doubts.pop(forgotten, None)

    def doubt(self, tokens: TokenEstimate, request: AIRequest) -> None:
        """Note that a request was refused for its correction alone; the tenth in a row forgets the line.

        What is refused teaches nothing: a line that became wrong would stay so.
        """
        key = _key(tokens, request)
        if key not in self._lines:
            return
        doubts = self._doubts.pop(key, 0) + 1
        if doubts < _DOUBTS:
            self._doubts[key] = doubts
            return
        self.changes += 1
        del self._lines[key]

    def dump(self) -> list[list[Any]]:
        """Everything learned as JSON-safe values, the oldest first; on any thread."""
        return [[*key, *_figures(line)] for key, line in list(self._lines.items())]

    def load(self, rows: Iterable[Any]) -> None:
        """Take over what another run learned, as far as it is what `dump` gives."""
        for key, line in _rows(rows):
            self._lines[key] = line
            if len(self._lines) > MODELS:
                self._lines.popitem(last=False)


_UNTAUGHT = Line()
# Of a file: nothing we write comes near it.
_LARGEST = 1e12
_ROUNDING = 1 + 1e-6
_NAMES = 5
_FIELDS = tuple(field.name for field in fields(Line))
_figures = attrgetter(*_FIELDS)
_NUMBERS = len(_FIELDS)


def is_comparable(request: AIRequest) -> bool:
    """Whether the text of a request is all that its provider counts as input."""
    return (
        not request.has_state
        and _TEXT.issuperset(request.modalities)
        and not any(map(has_built_in, request.tools))
    )


def _key(tokens: TokenEstimate, request: AIRequest) -> Key:
    estimator = tokens.estimator.removesuffix("+learned")
    return request.provider, request.model, request.operation, bool(request.tools), estimator


def _rows(rows: Iterable[Any]) -> Iterator[tuple[Key, Line]]:
    for row in rows:
        if not isinstance(row, list) or len(row) != _NAMES + _NUMBERS:
            continue
        provider, model, operation, has_tools, estimator, *numbers = row
        names = (provider, model, operation, estimator)
        if not all(isinstance(name, str) and len(name) <= LONGEST_NAME for name in names):
            continue
        if not isinstance(has_tools, bool) or not all(map(_is_number, numbers)):
            continue
        line = Line(*numbers)
        if _is_possible(line):
            yield (provider, model, operation, has_tools, estimator), line


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_possible(line: Line) -> bool:
    return (
        _SLOPES[0] <= line.slope <= _SLOPES[1]
        and _INTERCEPTS[0] <= line.intercept <= _INTERCEPTS[1]
        and 0 < line.slope_variance <= _SLOPE_VARIANCE
        and 0 < line.intercept_variance <= _INTERCEPT_VARIANCE
        and line.covariance**2 <= _ROUNDING * line.slope_variance * line.intercept_variance
        and line.spread >= 0
        and 0 <= line.odds < _HABIT
    )


def _clamped(value: float, bounds: tuple[float, float]) -> float:
    return min(bounds[1], max(bounds[0], value))
