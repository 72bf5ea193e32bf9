"""ApiKey: a caller known by the digest of its key. The key itself is in no file, log, span or record.

Floor 1, pure.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, WithJsonSchema

from extproc.decision import Reason
from extproc.model import Identity
from extproc.policy.instants import instant_ns
from extproc.policy.objects import PolicyObject, Spec, rejected, whole

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NO_DIGEST: Final = bytes(32)


def _digest(value: Any) -> bytes:
    if isinstance(value, int | float):
        raise rejected("this sha256 is all digits, which YAML takes for a number; put it in quotes")
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise rejected(
            "sha256 is 64 lower-case hexadecimal digits, the digest of the key and never the key itself"
        )
    if value == hashlib.sha256(b"").hexdigest():
        raise rejected("this is the SHA-256 of nothing; hash the key")
    return bytes.fromhex(value)


class ApiKey(Spec):
    """Who holds the key with this digest, and until when (`expires`, Unix nanoseconds once loaded)."""

    sha256: Annotated[
        bytes, PlainValidator(_digest), WithJsonSchema({"type": "string", "pattern": whole(_SHA256)})
    ]
    """The digest of the key, never the key itself: printf %s "$KEY" | sha256sum."""
    user: str = ""
    """Who holds it: identity.user."""
    team: str = ""
    """identity.team."""
    org: str = ""
    """identity.org."""
    groups: tuple[str, ...] = ()
    """identity.groups."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """identity.labels."""
    expires: Annotated[
        int | None,
        PlainValidator(instant_ns),
        WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2027-01-31T00:00:00Z"]}),
    ] = None
    """From this RFC 3339 time on it is refused."""
    disabled: bool = False
    """Refuses it now."""


class KeyRing:
    """Every ApiKey of a folder, found by credential.

    The table is keyed by digest: timing a look-up tells about digests, which nobody can steer
    towards a stored one. The final comparison takes the same time wherever it differs.
    """

    def __init__(self, keys: Iterable[PolicyObject[ApiKey]]) -> None:
        self._by_digest = MappingProxyType({key.spec.sha256: key for key in keys})

    def find(self, credential: str) -> PolicyObject[ApiKey] | None:
        """The key object this credential belongs to, whatever its state."""
        digest = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()
        key = self._by_digest.get(digest)
        stored = key.spec.sha256 if key else _NO_DIGEST
        return key if hmac.compare_digest(stored, digest) else None


def refusal(key: PolicyObject[ApiKey], at_ns: int) -> Reason | None:
    """Why this key does not count now."""
    if key.spec.disabled:
        return Reason.CREDENTIAL_DISABLED
    if key.spec.expires is not None and at_ns >= key.spec.expires:
        return Reason.CREDENTIAL_EXPIRED
    return None


def holder(key: PolicyObject[ApiKey]) -> Identity:
    """Who is calling with this key."""
    spec = key.spec
    return Identity(
        id=spec.user or key.ref.name,
        user=spec.user,
        team=spec.team,
        org=spec.org,
        groups=spec.groups,
        labels=spec.labels,
        key=key.ref.name,
        authenticated=True,
    )
