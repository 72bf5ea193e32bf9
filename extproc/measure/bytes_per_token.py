"""How many bytes of an answer one of its tokens takes, by provider and model: what a cut answer held.

Floor 1. Bounded: clients choose model names. No clock: the newest answers count.

Source of `_MEASURED`: the recorded answers of the dialects that Envoy reads; `python -m
tests.measure.cut_answers` prints the figures. Each stream was cut at 40 places and its text before the
cut counted with the model's tokenizer. Where that was 32 tokens or more, the defaults alone estimate
fewer at one cut in a hundred of Anthropic's streams and never elsewhere. Half of the estimates are at
most 1.4 times the truth, of Anthropic's streams 3.1 times: its events hold between one token and ten.
Taught by whole answers of the same models, half are at most 1.4 times it there too, and none is below.
Answers in one piece matter where nobody reports usage, so they were measured without theirs: of 32
tokens or more none is below, and half are at most 1.2 to 2.6 times the truth, short ones more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from extproc.measure.learned import LONGEST_NAME, Newest

# Below this an answer says more of its envelope than of its tokens.
FEWEST_TOKENS = 32
_REMEMBERED = 128  # answers a model
_PERCENTILE = 5
_FEWEST = 5  # below this only what is less than measured is believed: it charges more
_MODELS = 1024  # callers choose model names, so the least recently used one is forgotten
# Bytes of a thousand tokens; nothing that was measured is near either end.
_PLAUSIBLE = range(100, 100_000_001)
_LARGEST_BODY_BYTES = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """What decides how large an answer's tokens are; `model` is the one that worked for the request."""

    api: str
    provider: str
    model: str
    is_stream: bool  # as it was asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """Bytes of a thousand visible tokens: about the lowest 5th percentile of what was measured."""

    lowest: int
    envelope_bytes: int  # the least before the first token of a stream, or around a whole answer
    bare_bytes: int = 0  # the least around a whole answer that does not say its usage
    highest: int | None = None  # the 95th, where an answer repeats its request, which makes few tokens large


def _whole(*, lowest: int, envelope_bytes: int, bare_bytes: int) -> _Measured:
    """Of answers in one piece; `bare_bytes` are the members that the dialect requires, with short ids.

    They are estimated where they say no usage, and taught by those that do: the usage makes tokens look
    large, so what they teach is believed only where it charges more.
    """
    return _Measured(lowest=lowest, envelope_bytes=envelope_bytes, bare_bytes=bare_bytes, highest=lowest)


_GOOGLE = _Measured(lowest=8_000, envelope_bytes=490)
_GOOGLE_WHOLE = _whole(lowest=4_000, envelope_bytes=460, bare_bytes=80)

# By API, and whether the answer is streamed. A whole answer's tokens cost no envelope each.
_MEASURED: Mapping[tuple[str, bool], _Measured] = MappingProxyType(
    {
        ("openai_chat", True): _Measured(lowest=220_000, envelope_bytes=410),
        ("openai_chat", False): _whole(lowest=4_000, envelope_bytes=290, bare_bytes=170),
        ("openai_responses", True): _Measured(lowest=270_000, envelope_bytes=0, highest=370_000),
        ("openai_responses", False): _whole(lowest=4_800, envelope_bytes=1_270, bare_bytes=380),
        ("anthropic_messages", True): _Measured(lowest=18_000, envelope_bytes=560),
        ("anthropic_messages", False): _whole(lowest=3_000, envelope_bytes=220, bare_bytes=160),
        ("gemini", True): _GOOGLE,
        ("gemini", False): _GOOGLE_WHOLE,
        ("vertex", True): _GOOGLE,
        ("vertex", False): _GOOGLE_WHOLE,
    }
)


class BytesPerToken:
    """The last 128 answers of each of the 1,024 models used last, streams apart; one thread adds."""

    def __init__(self) -> None:
        self._learned: OrderedDict[tuple[str, str, bool], Newest] = OrderedDict()
        self.changes = 0

    def observe(self, answer: AnswerForm, body_bytes: int, visible_tokens: int) -> None:
        """Remember what a whole answer came to; short ones, and what no answer can be, teach nothing."""
        measured = _measured(answer)
        if measured is None or visible_tokens < FEWEST_TOKENS or len(answer.model) > LONGEST_NAME:
            return
        per_thousand = (body_bytes - measured.envelope_bytes) * 1000 // visible_tokens
        if body_bytes in range(_LARGEST_BODY_BYTES) and per_thousand in _PLAUSIBLE:
            self._add((answer.provider, answer.model, answer.is_stream), per_thousand)

    def _add(self, key: tuple[str, str, bool], per_thousand: int) -> None:
        self.changes += 1
        self._learned.setdefault(key, Newest(_REMEMBERED)).add(per_thousand)
        self._learned.move_to_end(key)
        if len(self._learned) > _MODELS:
            self._learned.popitem(last=False)

    def tokens(self, answer: AnswerForm, body_bytes: int) -> int | None:
        """How many visible tokens so many bytes hold: rather too many; None where nothing was measured."""
        measured = _measured(answer)
        if measured is None or body_bytes not in range(1, _LARGEST_BODY_BYTES):
            return None
        # What a cut stream began with counts as tokens: nobody knows how much of it came.
        text_bytes = body_bytes - measured.bare_bytes
        return max(1, -(-text_bytes * 1000 // self._per_thousand(answer, measured)))

    def _per_thousand(self, answer: AnswerForm, measured: _Measured) -> int:
        learned = self._learned.get((answer.provider, answer.model, answer.is_stream))
        if learned is None:
            return measured.lowest
        low = learned.percentile(_PERCENTILE)
        most = measured.highest if len(learned) >= _FEWEST else measured.lowest
        return low if most is None else min(low, most)

    def dump(self) -> list[list[Any]]:
        """Everything remembered as JSON-safe values, the model used least recently first; on any thread."""
        return [[*key, learned.in_order()] for key, learned in list(self._learned.items())]

    def load(self, rows: Iterable[Any]) -> None:
        """Take over what another run remembered, as far as it is what `dump` gives."""
        for row in rows:
            match row:
                case [str(provider), str(model), bool(is_stream), list(values)]:
                    if max(len(provider), len(model)) > LONGEST_NAME:
                        continue
                    for value in values[-_REMEMBERED:]:
                        if type(value) is int and value in _PLAUSIBLE:
                            self._add((provider, model, is_stream), value)


def _measured(answer: AnswerForm) -> _Measured | None:
    """What its dialect was measured at; Google puts many tokens into an event of whatever dialect."""
    if answer.is_stream and answer.provider.startswith("gcp."):
        return _GOOGLE
    return _MEASURED.get((answer.api, answer.is_stream))
