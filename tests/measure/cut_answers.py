"""What the bytes of recorded answers say of their tokens: `python -m tests.measure.cut_answers`.

Every streamed answer is cut at 40 places, and what was visible before the cut is counted; a whole one
counts as it would be without usage, and without a space too many. Prints a Markdown table for each
dialect that Envoy reads.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from extproc.formats.body import answer_decoder
from extproc.measure.bytes_per_token import FEWEST_TOKENS, AnswerForm, BytesPerToken
from extproc.measure.tokens import Tokenizer
from extproc.measure.vocab import default_directory, load
from extproc.model import AIRequest
from extproc.session.answer import NATIVE
from tests.corpus.exchanges import Exchange, exchanges, totals
from tests.formats.calls import observed
from tests.readme.markdown import code, table

_PLACES = 40
_USAGE = ("usage", "usageMetadata")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One place in one answer: what was sent up to there, and what is visible of it."""

    form: AnswerForm
    body_bytes: int
    visible_tokens: int


def cuts(tokenizer: Tokenizer, places: int = _PLACES) -> Iterator[Cut]:
    """Places in every recorded answer that Envoy reads, each answer once."""
    seen: set[bytes] = set()
    for each in exchanges():
        request = each.understood(tokenizer).request
        is_success = 200 <= each.status < 300
        if request is None or not is_success or NATIVE.get(request.api) != request.operation:
            continue
        decoder = answer_decoder(each.answer_headers.get("content-encoding", ""))
        assert decoder is not None, each.id
        data = decoder.feed(each.answer)
        if data not in seen:
            seen.add(data)
            if request.stream:
                yield from _cuts(each, request, data, tokenizer, places)
            else:
                yield from _cuts(each, request, _bare(data), tokenizer, 1)


def _cuts(
    each: Exchange, request: AIRequest, data: bytes, tokenizer: Tokenizer, places: int
) -> Iterator[Cut]:
    headers = {name: value for name, value in each.answer_headers.items() if name != "content-encoding"}

    def visible(size: int) -> int:
        seen = observed(
            request.api, data[:size], headers=headers, model=request.model, operation=request.operation
        )
        return tokenizer.count(seen.output_text, provider=request.provider, model=request.model)

    for size in (len(data) * place // places for place in range(1, places + 1)):
        yield Cut(form=_form(request), body_bytes=size, visible_tokens=visible(size))


def _bare(data: bytes) -> bytes:
    """A whole answer whose provider leaves out what was used: it is a good deal shorter."""
    members = {name: value for name, value in json.loads(data).items() if name not in _USAGE}
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


def _form(request: AIRequest) -> AnswerForm:
    return AnswerForm(
        api=request.api, provider=request.provider, model=request.model, is_stream=request.stream
    )


def taught(tokenizer: Tokenizer) -> BytesPerToken:
    """What the recorded answers that say their usage teach; most of the corpus is one model's."""
    learned = BytesPerToken()
    for cut in whole(tokenizer):
        learned.observe(cut.form, cut.body_bytes, cut.visible_tokens)
    return learned


def whole(tokenizer: Tokenizer) -> Iterator[Cut]:
    """Every whole answer with the usage that its provider reports, without what was thought unseen."""
    for each in exchanges():
        found, request = totals(each), each.understood(tokenizer).request
        if found is None or request is None or NATIVE.get(request.api) != request.operation:
            continue
        decoder = answer_decoder(each.answer_headers.get("content-encoding", ""))
        assert decoder is not None, each.id
        usage = each.seen(request).usage
        thought = (usage and usage.reasoning_output_tokens) or 0
        yield Cut(
            form=_form(request),
            body_bytes=len(decoder.feed(each.answer)),
            visible_tokens=(found[1] or 0) - thought,
        )


def ratios(found: list[Cut], learned: BytesPerToken) -> list[float]:
    """Estimate by truth, sorted; the shortest are left out."""
    return sorted(
        (learned.tokens(cut.form, cut.body_bytes) or 0) / cut.visible_tokens
        for cut in found
        if cut.visible_tokens >= FEWEST_TOKENS
    )


def main() -> None:
    """Measure and print."""
    tokenizer = Tokenizer(load(default_directory(os.environ)))
    groups: dict[tuple[str, bool], list[Cut]] = defaultdict(list)
    for cut in cuts(tokenizer):
        groups[cut.form.api, cut.form.is_stream].append(cut)
    rows = [
        (code(api), "stream" if is_stream else "whole", *_row(found, taught(tokenizer)))
        for (api, is_stream), found in sorted(groups.items())
    ]
    head = (
        "API",
        "",
        "cuts",
        "bytes a token: 5 %, 50 %, 95 %",
        "by defaults: below, 5 %, 50 %, 95 %",
        "learned",
    )
    sys.stdout.write(table(head, rows) + "\n")


def _row(found: list[Cut], learned: BytesPerToken) -> tuple[str, ...]:
    sizes = sorted(
        cut.body_bytes / cut.visible_tokens for cut in found if cut.visible_tokens >= FEWEST_TOKENS
    )
    columns = [str(len(sizes)), _percentiles(sizes, "{:.1f}".format)]
    for each in (BytesPerToken(), learned):
        by_truth = ratios(found, each)
        below = sum(ratio < 1 for ratio in by_truth) / max(1, len(by_truth))
        columns.append(f"{below:.1%}, {_percentiles(by_truth, '{:.2f}'.format)}")
    return tuple(columns)


def _percentiles(values: list[float], show: Callable[[float], str]) -> str:
    at = [values[min(len(values) - 1, len(values) * percent // 100)] for percent in (5, 50, 95) if values]
    return ", ".join(show(value) for value in at)


if __name__ == "__main__":
    main()
