"""What policies see of one request: `Facts`, built once a stage.

Floor 1, pure. Never prompt text, never a credential: the headers that carry one are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate
from extproc.pb.ai_policy.v1 import facts_pb2

CREDENTIAL_HEADERS = frozenset(
    {"api-key", "authorization", "cookie", "proxy-authorization", "x-api-key", "x-goog-api-key"}
)

_INT64_MAX = 2**63 - 1


def build(
    head: RequestHead,
    identity: Identity,
    request: AIRequest | None,
    tokens: TokenEstimate,
    at_ns: int,
    *,
    withheld: Collection[str] = (),
    estimated_usd: float | None = None,
) -> facts_pb2.Facts:
    """The facts of a request; `request` is None before its body was read or where none was understood.

    `withheld` names further headers (lower case) that carry a credential; `estimated_usd` is what the
    request may cost, None where no price is known or nobody asks.
    """
    facts = facts_pb2.Facts(
        request=_request(head, request, withheld),
        identity=_identity(identity),
        tokens=facts_pb2.TokenFacts(
            input=_int64(tokens.input),
            input_upper_bound=_int64(tokens.input_upper_bound),
            max_output=_int64(tokens.max_output),
            exact=tokens.exact,
        ),
        source=facts_pb2.SourceFacts(
            address=_text(head.source.address),
            principal=_text(head.source.principal),
            route=_text(head.source.route),
        ),
    )
    if request is not None:
        facts.target.model = _text(request.model)
        facts.target.provider = _text(request.provider)
    if estimated_usd is not None:
        facts.cost.estimated_usd.value = estimated_usd
    facts.now.FromNanoseconds(at_ns)
    return facts


def without_credentials(head: RequestHead, withheld: Collection[str] = ()) -> RequestHead:
    """The head as a decision may keep it: no credential header, no query, no token's payload."""
    headers = {
        name: value
        for name, value in head.headers.items()
        if name not in CREDENTIAL_HEADERS and name not in withheld
    }
    source = replace(head.source, jwt_payloads={}) if head.source.jwt_payloads else head.source
    return replace(head, headers=headers, path=head.path_only, source=source)


def about_model(facts: facts_pb2.Facts, model: str, *, estimated_usd: float | None = None) -> facts_pb2.Facts:
    """The same facts as if the request and its target named only `model`, which has a price of its own."""
    other = facts_pb2.Facts()
    other.CopyFrom(facts)
    other.request.model = other.target.model = _text(model)
    other.ClearField("cost")
    if estimated_usd is not None:
        other.cost.estimated_usd.value = estimated_usd
    return other


def _request(
    head: RequestHead, request: AIRequest | None, withheld: Collection[str]
) -> facts_pb2.RequestFacts:
    facts = facts_pb2.RequestFacts(
        method=_text(head.method),
        host=_text(head.host),
        path=_text(head.path_only),
        headers={
            _text(name): _text(value)
            for name, value in head.headers.items()
            if name not in CREDENTIAL_HEADERS and name not in withheld
        },
    )
    if request is None:
        return facts
    facts.api = _text(request.api)
    facts.provider = _text(request.provider)
    facts.operation = _text(request.operation)
    facts.model = _text(request.model)
    facts.models.extend(_texts(request.models))
    facts.stream = request.stream
    facts.choices = _int64(request.choices)
    facts.message_count = _int64(request.message_count)
    facts.tools.extend(_texts(request.tools))
    facts.modalities.extend(_texts(request.modalities))
    facts.end_user = _text(request.end_user)
    if request.temperature is not None:
        facts.temperature = request.temperature
    facts.has_state = request.has_state
    facts.body_bytes = _int64(request.body_bytes)
    return facts


def _identity(identity: Identity) -> facts_pb2.IdentityFacts:
    return facts_pb2.IdentityFacts(
        id=_text(identity.id),
        user=_text(identity.user),
        team=_text(identity.team),
        org=_text(identity.org),
        groups=_texts(identity.groups),
        labels={_text(name): _text(value) for name, value in identity.labels.items()},
        claims={_text(name): _text(value) for name, value in identity.claims.items()},
        key=_text(identity.key),
        authenticated=identity.authenticated,
    )


def _text(value: str) -> str:
    """The text as protobuf takes it: header bytes that are not UTF-8 become question marks."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def _texts(values: Iterable[str]) -> list[str]:
    return [_text(value) for value in values]


def _int64(value: int) -> int:
    return min(value, _INT64_MAX)
