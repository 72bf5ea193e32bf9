"""The GenAI metrics of OpenTelemetry: the pinned ones, and those that are about to replace them.

Floor 3. Names, units and bounds are of v1.41.0. With `gen_ai_latest_experimental` in
`OTEL_SEMCONV_STABILITY_OPT_IN` the newest go out beside them: dashboards hold on to the old ones. Only
what a provider reported is told here; estimates have `ai_policy.tokens`. Sources: semantic-conventions
v1.41.0, docs/gen-ai/gen-ai-metrics.md; semantic-conventions-genai, pull requests 374, 440 and 521.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from itertools import accumulate, repeat
from operator import mul
from typing import Final

from opentelemetry.metrics import Meter

from extproc.decision import Decision, Settlement
from extproc.model import AIRequest, Basis, Usage
from extproc.telemetry.instruments import Distribution, Tally
from extproc.telemetry.names import Named

OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
LATEST: Final = "gen_ai_latest_experimental"

SECONDS: Final = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
    *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
TOKENS: Final = tuple(accumulate(repeat(4, 13), mul, initial=1))  # 1, 4, 16 ... 67108864

_LABELS: Final = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")
_ANSWERED: Final = "gen_ai.response.model"
_STATUSES: Final = frozenset(map(int, HTTPStatus))
_FIRST_ERROR_STATUS: Final = 400
_UNKNOWN: Final = "unknown"


def wants_latest(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody asked for GenAI names newer than v1.41.0; words for others are not ours to judge."""
    return LATEST in (word.strip() for word in environ.get(OPT_IN, "").split(","))


class Inference:
    """What a client of providers is expected to measure."""

    def __init__(self, meter: Meter) -> None:
        is_latest = wants_latest()
        self.operation_duration = Distribution(
            name="gen_ai.client.operation.duration",
            unit="s",
            description="From the verdict to the end of the answer.",
            labels=(*_LABELS, _ANSWERED, "error.type"),
            bounds=SECONDS,
            aliases=("gen_ai.client.inference.duration",) if is_latest else (),
        )
        self.time_to_first_chunk = Distribution(
            name="gen_ai.client.operation.time_to_first_chunk",
            unit="s",
            description="From the verdict to the beginning of a streamed answer.",
            labels=(*_LABELS, _ANSWERED),
            bounds=SECONDS,
            aliases=("gen_ai.client.inference.time_to_first_chunk",) if is_latest else (),
        )
        self.token_usage = Distribution(
            name="gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of one request, as the provider reported them.",
            labels=(*_LABELS, _ANSWERED, "gen_ai.token.type"),
            bounds=TOKENS,
        )
        self._latest = _Latest(meter) if is_latest else None

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        """Every histogram."""
        latest = self._latest.distributions if self._latest else ()
        return (self.operation_duration, self.time_to_first_chunk, self.token_usage, *latest)

    def settled(self, decision: Decision, settlement: Settlement, request: AIRequest, named: Named) -> None:
        """Measure one answer."""
        labels = (request.operation, named.provider, named.requested)
        duration_s = max(0, settlement.ended_at_ns - decision.decided_at_ns) / 1e9
        self.operation_duration.record(duration_s, *labels, named.answered, _error_type(settlement))
        if request.stream and settlement.first_byte_at_ns and not settlement.error_type:
            first_s = max(0, settlement.first_byte_at_ns - decision.decided_at_ns) / 1e9
            self.time_to_first_chunk.record(first_s, *labels, named.answered)
        usage = settlement.usage if settlement.basis is Basis.PROVIDER else None
        if usage is not None:
            for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                if count is not None:
                    self.token_usage.record(count, *labels, named.answered, kind)
        if self._latest is not None and (usage is not None or settlement.error_type):
            self._latest.settled(usage or Usage(), request, labels)


def _error_type(settlement: Settlement) -> str:
    """A bounded word for what went wrong; the provider's own words are for the span."""
    if not settlement.error_type:
        return ""
    if settlement.status < _FIRST_ERROR_STATUS:
        return "_OTHER"
    return str(settlement.status) if settlement.status in _STATUSES else f"{settlement.status // 100}xx"


class _Latest:
    """Counters of every token by modality, and histograms that are not for totals or cost."""

    def __init__(self, meter: Meter) -> None:
        def counter(kind: str) -> Tally:
            name = f"gen_ai.client.inference.usage.{kind}"
            return Tally(meter, name, "{token}", "Tokens as the provider reported them.")

        self._input = counter("input_tokens")
        self._output = counter("output_tokens")
        self._parts = {
            "cache_read_input_tokens": counter("cache_read.input_tokens"),
            "cache_creation_input_tokens": counter("cache_write.input_tokens"),
            "reasoning_output_tokens": counter("reasoning.output_tokens"),
        }
        self._sizes = {
            kind: Distribution(
                name=f"gen_ai.client.inference.operation.{kind}",
                unit="{token}",
                description="Tokens of one request; not for totals or cost.",
                labels=_LABELS,
                bounds=TOKENS,
            )
            for kind in ("input_tokens", "output_tokens")
        }

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        return tuple(self._sizes.values())

    def settled(self, usage: Usage, request: AIRequest, labels: tuple[str, ...]) -> None:
        """Count; a call that failed counts nothing, of a modality nobody knows."""
        named = dict(zip(_LABELS, labels, strict=True))
        for tally, total, audio, image in (
            (self._input, usage.input_tokens, usage.audio_input_tokens, usage.image_input_tokens),
            (self._output, usage.output_tokens, usage.audio_output_tokens, usage.image_output_tokens),
        ):
            rest = _rest(request, has_parts=audio is not None or image is not None)
            for modality, count in _by_modality(total, audio, image, rest):
                tally.add(count, **named, **{"gen_ai.token.modality": modality})
        for part, tally in self._parts.items():
            count = getattr(usage, part)
            if count:
                tally.add(count, **named, **{"gen_ai.token.modality": _UNKNOWN})
        for kind, distribution in self._sizes.items():
            count = getattr(usage, kind)
            if count is not None:
                distribution.record(count, *labels)


def _rest(request: AIRequest, *, has_parts: bool) -> str:
    """What tokens are that are neither sound nor picture."""
    return "text" if has_parts or request.modalities == ("text",) else _UNKNOWN


def _by_modality(
    total: int | None, audio: int | None, image: int | None, rest: str
) -> Iterator[tuple[str, int]]:
    """The total by modality, each token once."""
    if total is None:
        yield _UNKNOWN, 0
        return
    heard = min(audio or 0, total)
    seen = min(image or 0, total - heard)
    parts = (("audio", heard), ("image", seen), (rest, total - heard - seen))
    yield from ((modality, count) for modality, count in parts if count)
