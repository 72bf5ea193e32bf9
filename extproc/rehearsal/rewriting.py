"""Recorded requests before a policy changed them, and whether another may, although no body is on record.

Floor 3, pure. What only the body could say is a `Doubt`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from extproc.decision import Decision, Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import CONTROL, NO_OUTPUT, BodyKind
from extproc.measure.ceilings import call_ceiling
from extproc.model import AIRequest, TokenEstimate
from extproc.rehearsal import doubts
from extproc.rehearsal.doubts import Doubt
from extproc.session.actions import Rewrite
from extproc.session.events import Rewritten

# Whoever sends them a budget of thinking is answered 400.
_WITHOUT_BUDGETS: Final = frozenset({"openai", "azure.ai.openai"})


def rewritten(action: Rewrite, then: Decision) -> Rewritten:
    """Whether the body could be changed so; what it would say nobody needs to know."""
    request, call = then.request, action.call
    done = Rewritten(at_ns=then.decided_at_ns)
    known, most = doubts.clamped_to(then), action.max_output_tokens
    if request is None:
        raise Doubt(doubts.NO_BODY)
    if then.target_model if most is None else known is not None and most >= known:
        return done
    if call.body is not BodyKind.JSON or request.operation == CONTROL:
        return _refused(action, then)
    if request.provider.startswith("aws."):
        raise Doubt(doubts.UNCHANGEABLE)
    if most is None:
        if call.model:
            return _refused(action, then)
        if {*request.models} - {request.model}:
            raise Doubt(doubts.UNCHANGEABLE)
        return done
    _doubt_ceiling(action, request)
    return done


def _doubt_ceiling(action: Rewrite, request: AIRequest) -> None:
    """Whether a body has a field for a lower ceiling, and no budget of thinking above it, the body says."""
    try:
        ceiling = FORMATS[action.call.api].output_ceiling({}, action.call)
    except RequestRefused:
        raise Doubt(doubts.UNCHANGEABLE) from None
    if ceiling is None or (not ceiling.added and request.max_output_tokens is None):
        raise Doubt(doubts.UNCHANGEABLE)
    if ceiling.below and request.provider not in _WITHOUT_BUDGETS:
        raise Doubt(doubts.UNCHANGEABLE)


def _refused(action: Rewrite, then: Decision) -> Rewritten:
    if action.max_output_tokens is None:
        refused = RequestRefused(
            status=429,
            code=Reason.CAP_REACHED,
            message="This request must go to another model, and cannot.",
        )
    else:
        refused = RequestRefused(
            status=413,
            code=Reason.REQUEST_EXCEEDS_LIMIT,
            message="The output of this request must be limited, and cannot be.",
        )
    return Rewritten(at_ns=then.decided_at_ns, refused=refused)


def as_it_came(then: Decision, request: AIRequest) -> tuple[AIRequest, TokenEstimate]:
    """The request and its estimate before a cap lowered its output or led to another model."""
    tokens, ceiling = then.tokens, doubts.clamped_to(then)
    if ceiling is not None:
        # At least so much; what rests on how much more is a doubt.
        more = ceiling + 1
        return replace(request, max_output_tokens=more), replace(tokens, max_output=more)
    if then.target_model and request.max_output_tokens is None:
        generates = request.operation not in NO_OUTPUT
        most = call_ceiling(request.provider, request.model, request.operation) if generates else 0
        return request, replace(tokens, max_output=most)
    return request, tokens
