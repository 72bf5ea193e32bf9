"""What decisions and settlements teach: how far estimates are off, and how long answers really are.

Floor 1, pure but for what it teaches.
"""

from __future__ import annotations

from extproc.decision import Decision, Reason, Settlement
from extproc.measure.bytes_per_token import AnswerForm, BytesPerToken
from extproc.measure.calibration import Calibration
from extproc.measure.learned import LearnedOutputs
from extproc.model import AIRequest, Basis

# Every dialect's words for an answer that reached its output ceiling, in lower case.
_CUT = frozenset({"length", "max_output_tokens", "max_tokens", "error_limit", "token_limit"})


def decided(decision: Decision, calibration: Calibration) -> None:
    """Doubt a correction that alone made a request too large for its limit."""
    if decision.request is not None and _is_too_large_as_corrected(decision):
        calibration.doubt(decision.tokens, decision.request)


def settled(
    decision: Decision,
    settlement: Settlement,
    outputs: LearnedOutputs,
    reasoning: LearnedOutputs,
    calibration: Calibration,
    *,
    bytes_per_token: BytesPerToken,
) -> None:
    """Remember what a whole answer came to: input, reasoning, size, and length if it ended by itself."""
    request = decision.request
    if decision.target_model:
        # Counted as one model's, and answered by another: it says little of either.
        return
    if request is None or request.operation == "control" or settlement.basis is not Basis.PROVIDER:
        return
    calibration.teach(decision.tokens, request, settlement.usage.input_tokens or 0)
    output_tokens = settlement.usage.output_tokens
    if output_tokens is not None and not _is_cut(request, settlement):
        outputs.observe(request.provider, request.model, output_tokens // max(1, request.choices))
    thought = settlement.usage.reasoning_output_tokens or 0
    if thought:
        reasoning.observe(request.provider, request.model, thought // max(1, request.choices))
    if settlement.body_bytes:
        form = AnswerForm(
            api=request.api,
            provider=request.provider,
            model=decision.upstream_model,
            is_stream=request.stream,
        )
        bytes_per_token.observe(form, settlement.body_bytes, (output_tokens or 0) - thought)


def _is_too_large_as_corrected(decision: Decision) -> bool:
    """Whether the request would have fitted its limit but for what was learned of its model."""
    added = decision.tokens.input - decision.tokens.uncalibrated
    excess = (
        outcome.charge.minimum - outcome.limit
        for outcome in decision.outcomes
        if outcome.charge.enforced and outcome.wait_us is None
    )
    return decision.reason is Reason.REQUEST_EXCEEDS_LIMIT and any(0 < each <= added for each in excess)


def _is_cut(request: AIRequest, settlement: Settlement) -> bool:
    """Whether the caller's own ceiling may have ended the answer: it says nothing of anybody else's."""
    if settlement.finish_reasons:
        return not _CUT.isdisjoint(reason.lower() for reason in settlement.finish_reasons)
    # Envoy's usage comes without finish reasons. A cut choice alone reaches the ceiling of one.
    ceiling, output_tokens = request.max_output_tokens, settlement.usage.output_tokens
    return ceiling is not None and output_tokens is not None and output_tokens >= ceiling
