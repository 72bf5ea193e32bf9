"""Identity's source `jwt`: the claims of a token that Envoy's jwt_authn filter has verified.

Floor 1, pure. The token itself is not read here: anybody can write one. Issuer, audience, signature
and times are jwt_authn's business; a payload is there only where it found them right.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Final

from pydantic import Field

from extproc.model import Identity as Caller
from extproc.model import Source
from extproc.policy.objects import Block, HeaderName

# As many claims as a policy sees, and as long; tokens with whole directories in them exist.
MAX_CLAIMS: Final = 64
MAX_CLAIM_CHARACTERS: Final = 1024

NonEmpty = Annotated[str, Field(min_length=1)]


class Claims(Block):
    """Which claim says what: its name, or dots that lead into nested objects."""

    id: NonEmpty = "sub"
    """The claim that says identity.id; dots lead into nested objects."""
    user: NonEmpty | None = None
    """The claim that says identity.user."""
    team: NonEmpty | None = None
    """The claim that says identity.team."""
    org: NonEmpty | None = None
    """The claim that says identity.org."""
    groups: NonEmpty | None = None
    """The claim that says identity.groups: a list of strings, or one string."""


class JwtSource(Block):
    """A verified payload; `payload` is what the provider's payload_in_metadata says in Envoy."""

    payload: NonEmpty = "jwt_payload"
    """What jwt_authn's payload_in_metadata says in Envoy."""
    issuers: tuple[NonEmpty, ...] = Field(default=(), min_length=1)
    """The iss claims that count; left out: any that Envoy accepts."""
    claims: Claims = Claims()
    """Which claim says what."""
    header: HeaderName = "authorization"
    """The header that held the token; it does not go upstream."""

    def caller(self, source: Source) -> Caller | None:
        """Who the payload says is calling; None where there is none, or it names nobody."""
        payload = source.jwt_payloads.get(self.payload)
        if payload is None or (self.issuers and payload.get("iss") not in self.issuers):
            return None
        claims = self.claims
        user, team = _text(payload, claims.user), _text(payload, claims.team)
        name = _text(payload, claims.id) or user or team
        if not name:
            return None
        return Caller(
            id=name,
            user=user,
            team=team,
            org=_text(payload, claims.org),
            groups=_texts(payload, claims.groups),
            claims=_text_claims(payload),
            authenticated=True,
        )


def _claim(payload: Mapping[str, Any], path: str | None) -> Any:
    """What the path leads to; a claim whose own name has dots, as URLs have, comes first."""
    if path is None:
        return None
    if path in payload:
        return payload[path]
    value: Any = payload
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _text(payload: Mapping[str, Any], path: str | None) -> str:
    value = _claim(payload, path)
    return value if _is_text(value) else ""


def _texts(payload: Mapping[str, Any], path: str | None) -> tuple[str, ...]:
    value = _claim(payload, path)
    values = value if isinstance(value, list) else [value]
    return tuple(values) if all(map(_is_text, values)) else ()


def _text_claims(payload: Mapping[str, Any]) -> dict[str, str]:
    """The claims that are strings; too long ones are left out, not cut: half a value could equal another."""
    texts = ((name, value) for name, value in sorted(payload.items()) if _is_text(name) and _is_text(value))
    return dict(islice(texts, MAX_CLAIMS))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_CLAIM_CHARACTERS
