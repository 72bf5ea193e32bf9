"""What cannot be said of a recorded decision, and why: a record holds no headers and no body.

Floor 3, pure. Whatever is doubtful is no verdict; how a decision is made again is `again`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from extproc.decision import Decision, Effect, Mode, PolicyRef, Reason
from extproc.formats import providers
from extproc.ledger.records import SILENT
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.policy import facts
from extproc.policy.cel import Expression
from extproc.policy.index import Index
from extproc.policy.kinds.identity import Identity
from extproc.policy.limited import LimitSpec
from extproc.policy.needs import Need
from extproc.policy.objects import PolicyObject, Spec
from extproc.policy.policyset import PolicySet
from extproc.rehearsal.recorded import Recording

HEADERS: Final = frozenset({"request", "request.headers"})
# What was judged before a cap lowered the output.
UNCLAMPED: Final = frozenset({"tokens", "tokens.max_output", "cost", "cost.estimated_usd"})
_HARMLESS: Final = frozenset({SILENT, "attributes"})
_OURS: Final = frozenset({Reason.STORE_UNAVAILABLE, Reason.AUDIT_UNAVAILABLE, Reason.DEADLINE_EXCEEDED})
_CREDENTIAL: Final = frozenset(
    {
        Reason.CREDENTIAL_MISSING,
        Reason.CREDENTIAL_INVALID,
        Reason.CREDENTIAL_EXPIRED,
        Reason.CREDENTIAL_DISABLED,
    }
)
# What the request line and the headers decide; everything else a body or its limits do.
_BY_HEAD: Final = frozenset({Reason.UNCLASSIFIED, Reason.ACCESS_DENIED, Reason.ACCESS_NOT_GRANTED})
_BEFORE_LIMITS: Final = frozenset({"Identity", "AccessRule", "RequestCap", "Defaults"})

NO_BODY: Final = "it was decided before its body was read"
OTHER_FORMAT: Final = "the folder reads its body in another way"
NOT_COUNTED: Final = "nobody counted its input then, and this folder would"
UNCHANGEABLE: Final = "whether its body can be changed is not on record"
NO_COUNTER: Final = "what was used of the cap that led to the other model is not on record"
_SHED: Final = "its record was too large to be kept whole"
_FAILED: Final = "it was decided by a failure ({})"
_REFUSED: Final = "its body was refused ({})"
_NO_CALLER: Final = "the credential that it showed is not on record"
_NOT_LOOKED: Final = "nobody looked who called then"
_NO_SOURCE: Final = "no source of this folder's Identity recognises such a caller"
_NOT_RECOGNISED: Final = "what its format was recognised by is not on record"
_OUTPUT: Final = "what output it asked for is not on record, only what a cap left of it"
_READS_HEADERS: Final = "{} reads headers, which are not on record"


class Doubt(Exception):
    """There is no telling; the message says why."""


def before(recording: Recording, policies: PolicySet) -> None:
    """Raise `Doubt` for what nobody needs to try."""
    decision = recording.decision
    if not _HARMLESS.issuperset(recording.shed):
        raise Doubt(_SHED)
    if decision.error_type in _OURS:
        raise Doubt(_FAILED.format(decision.error_type))
    if decision.reason in _CREDENTIAL:
        raise Doubt(_NO_CALLER)
    if is_refused(decision):
        raise Doubt(_REFUSED.format(decision.reason))
    _identity(decision, policies)


def is_refused(decision: Decision) -> bool:
    """Whether its bytes were refused before anybody knew what it asks for."""
    was_denied = decision.enforced_effect is Effect.DENY
    return was_denied and decision.request is None and decision.reason not in _BY_HEAD | _CREDENTIAL


def _identity(decision: Decision, policies: PolicySet) -> None:
    identity = policies.identity
    if identity is None or identity.mode is Mode.DISABLED:
        return
    said = [finding for finding in decision.findings if finding.policy.kind == Identity.__name__]
    if not any(finding.effect is not None for finding in said):
        raise Doubt(_NOT_LOOKED)
    if any(finding.effect is Effect.DENY for finding in said):
        raise Doubt(_NO_CALLER)
    caller = decision.identity
    by_key = [source for source in identity.spec.sources if source.api_key]
    if caller.authenticated and len(by_key) == (0 if caller.key else len(identity.spec.sources)):
        raise Doubt(_NO_SOURCE)


def after(recording: Recording, found: Decision, policies: PolicySet, doubtful: Index[Reader]) -> None:
    """Raise `Doubt` where what was found rests on what is not on record."""
    then = recording.decision
    if found.determining is not None and found.determining.kind == Identity.__name__:
        return
    _classification(then, found, policies)
    readers = doubtful.candidates(_facts(found))
    if readers:
        raise Doubt(_READS_HEADERS.format(min(reader.ref for reader in readers)))
    if clamped_to(then) is not None:
        _output(then, found, policies)


def _classification(then: Decision, found: Decision, policies: PolicySet) -> None:
    if then.request is None or found.request is not None:
        return
    if is_refused(found) and found.reason is not Reason.BODY_TOO_LARGE:
        raise Doubt(_NOT_RECOGNISED)
    if found.reason is Reason.UNCLASSIFIED:
        own = {provider.name for provider in policies.providers}
        if then.request.provider in providers.NAMES | own:
            raise Doubt(_NOT_RECOGNISED)


def clamped_to(decision: Decision) -> int | None:
    """The ceiling that a cap left of what the request had asked for; None: all of it."""
    request = decision.request
    return request.max_output_tokens if decision.is_clamped and request is not None else None


def _output(then: Decision, found: Decision, policies: PolicySet) -> None:
    """Of a clamped request it is known only that it asked for more than what was left."""
    for item in policies.objects:
        if item.mode is not Mode.DISABLED and _asks_before_clamping(item):
            raise Doubt(_OUTPUT)
    ceiling, most = clamped_to(found), clamped_to(then)
    is_lowered = ceiling is not None and most is not None and ceiling <= most
    is_denied = found.enforced_effect is Effect.DENY
    is_early = found.determining is not None and found.determining.kind in _BEFORE_LIMITS
    if not is_lowered and not (is_denied and is_early):
        raise Doubt(_OUTPUT)


def _asks_before_clamping(item: PolicyObject[Spec]) -> bool:
    # Limits are asked afterwards, and what it may cost is not estimated again for them.
    asked = UNCLAMPED - {"tokens", "tokens.max_output"} if isinstance(item.spec, LimitSpec) else UNCLAMPED
    return any(not asked.isdisjoint(expression.reads) for expression in expressions(item.spec))


# --- what a policy reads


Reader = PolicyObject[Spec]


def expressions(spec: Spec) -> Iterable[Expression]:
    """Everything that a policy evaluates."""
    match = getattr(spec, "match", None)
    return (*((match,) if match is not None else ()), *getattr(spec, "key", ()))


def readers_of_headers(policies: PolicySet) -> Index[Reader]:
    """The active policies that read headers, by what else they need."""
    return Index(
        (item, _other_needs(item.spec))
        for item in policies.objects
        if item.mode is not Mode.DISABLED
        and any(not HEADERS.isdisjoint(expression.reads) for expression in expressions(item.spec))
    )


def _other_needs(spec: Spec) -> tuple[Need, ...]:
    needs: tuple[Need, ...] = getattr(spec, "match").needs  # noqa: B009  every kind that evaluates has one
    return tuple(need for need in needs if need.fact.path not in HEADERS)


def _facts(decision: Decision) -> facts_pb2.Facts:
    return facts.build(
        decision.head, decision.identity, decision.request, decision.tokens, decision.decided_at_ns
    )


def denies(decision: Decision, policy: PolicyRef | None) -> bool:
    """Whether this policy, enforced, says deny."""
    return any(
        finding.policy == policy and finding.effect is Effect.DENY and finding.mode is Mode.ENFORCE
        for finding in decision.spoken
    )
