"""API keys that nobody knows, shown all the same: another secret stands in for each.

Floor 3, pure. The folder's Identity does the looking, so that a key that is disabled, expired or gone is
refused as it would be.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from urllib.parse import quote_plus

from extproc.decision import Mode
from extproc.model import RequestHead
from extproc.policy.kinds.api_key import ApiKey
from extproc.policy.kinds.identity import ApiKeySource
from extproc.policy.objects import PolicyObject, Spec
from extproc.policy.policyset import PolicySet


def shows_key(policies: PolicySet) -> bool:
    """Whether the folder's Identity looks for API keys at all."""
    return _source(policies) is not None


def with_stand_ins(policies: PolicySet) -> PolicySet:
    """The same policies, where every ApiKey is known by the secret that stands in for it."""
    return replace(policies, objects=tuple(_known_by_stand_in(item) for item in policies.objects))


def showing(policies: PolicySet, head: RequestHead, name: str) -> RequestHead:
    """The head with what stands in for ApiKey `name`, where the folder's Identity looks first."""
    source = _source(policies)
    if source is None:
        return head
    if source.query:
        sign = "&" if "?" in head.path else "?"
        return replace(head, path=f"{head.path}{sign}{quote_plus(source.query)}={_stand_in(name)}")
    header, scheme = source.headers[0]
    value = f"{scheme.capitalize()} {_stand_in(name)}" if scheme else _stand_in(name)
    return replace(head, headers={**head.headers, header: value})


def standing_in(policies: PolicySet, head: RequestHead, name: str) -> tuple[PolicySet, RequestHead]:
    """Policies and head with which the request shows ApiKey `name`."""
    return with_stand_ins(policies), showing(policies, head, name)


def _stand_in(name: str) -> str:
    return f"stands-in-for-{name}"


def _known_by_stand_in(item: PolicyObject[Spec]) -> PolicyObject[Spec]:
    if not isinstance(item.spec, ApiKey):
        return item
    digest = hashlib.sha256(_stand_in(item.ref.name).encode()).digest()
    return replace(item, spec=item.spec.model_copy(update={"sha256": digest}))


def _source(policies: PolicySet) -> ApiKeySource | None:
    identity = policies.identity
    if identity is None or identity.mode is Mode.DISABLED:
        return None
    return next((source.api_key for source in identity.spec.sources if source.api_key), None)
