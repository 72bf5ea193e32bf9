"""The kinds a folder may hold: one file each, one line here each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from extproc.policy.kinds.access_rule import AccessRule
from extproc.policy.kinds.api_key import ApiKey
from extproc.policy.kinds.concurrency_limit import ConcurrencyLimit
from extproc.policy.kinds.defaults import Defaults
from extproc.policy.kinds.identity import Identity
from extproc.policy.kinds.price import Price
from extproc.policy.kinds.provider import Provider
from extproc.policy.kinds.rate_limit import RateLimit
from extproc.policy.kinds.request_cap import RequestCap
from extproc.policy.kinds.usage_cap import UsageCap
from extproc.policy.objects import Spec

_ALL: tuple[type[Spec], ...] = (
    AccessRule,
    ApiKey,
    ConcurrencyLimit,
    Defaults,
    Identity,
    Price,
    Provider,
    RateLimit,
    RequestCap,
    UsageCap,
)

KINDS: Mapping[str, type[Spec]] = MappingProxyType({kind.__name__: kind for kind in _ALL})
