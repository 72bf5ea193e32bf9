"""Identity: who is calling. The first source that holds a credential decides.

Floor 1, pure. The credential itself leaves this room only as the names of what must be removed.
What Envoy has verified itself is read in `jwt` and `mtls`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import unquote_plus

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from extproc.decision import Effect, Reason
from extproc.model import Identity as Caller
from extproc.model import RequestHead, Source
from extproc.policy.kinds.api_key import KeyRing, holder, refusal
from extproc.policy.kinds.jwt import JwtSource
from extproc.policy.kinds.mtls import MtlsSource
from extproc.policy.objects import Block, HeaderName, PolicySpec, one_or_more, rejected

# Where the SDKs of the known providers put their key: (header, scheme).
WELL_KNOWN = (("authorization", "bearer"), ("x-api-key", ""), ("api-key", ""), ("x-goog-api-key", ""))

# What a caller is told who shows none of them.
_WANTED: Mapping[str, str] = MappingProxyType(
    {
        "api_key": "an API key of this gateway",
        "jwt": "a token (JWT) that Envoy verified",
        "mtls": "a client certificate that it knows",
        "headers": "identity headers from a peer that it trusts",
    }
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(value: Any) -> Network:
    try:
        return ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError:
        raise rejected(
            "an address is a network in CIDR notation without host bits, such as 10.0.0.0/8"
        ) from None


class ApiKeySource(Block):
    """A key in one header or one query parameter; empty means the usual headers of the SDKs."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {"required": ["header", "query"]},
            "dependentRequired": {"scheme": ["header"]},
        }
    )

    header: HeaderName | None = None
    """The header that holds the key; left out with query: the usual ones of the SDKs."""
    scheme: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9-]*$")
    """What comes before the key in that header, such as Bearer."""
    query: str | None = Field(default=None, min_length=1)
    """The query parameter that holds the key."""

    @model_validator(mode="after")
    def _one_place(self) -> ApiKeySource:
        if self.header and self.query:
            raise rejected("a source reads a header or a query parameter, not both; write two sources")
        if self.scheme and not self.header:
            raise rejected(
                "scheme goes with header, such as {header: authorization, scheme: Bearer}", at=("scheme",)
            )
        return self

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The (header, scheme) pairs this source reads; the scheme in lower case, empty for none."""
        if self.query:
            return ()
        if not self.header:
            return WELL_KNOWN
        usual = "bearer" if self.header == "authorization" else ""
        return ((self.header, self.scheme.lower() if self.scheme else usual),)


class Trusted(Block):
    """Peers whose identity headers count; where both are given, both must hold."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"minItems": 1}}}
                for name in ("addresses", "principals")
            ]
        }
    )

    addresses: tuple[
        Annotated[
            Network, PlainValidator(_network), WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8"]})
        ],
        ...,
    ] = ()
    """Networks in CIDR notation that the peer is in."""
    principals: tuple[str, ...] = ()
    """URIs of client certificates, one of which the peer shows."""

    @model_validator(mode="after")
    def _somebody(self) -> Trusted:
        if not self.addresses and not self.principals:
            raise rejected("addresses, principals or both must be given: a client must not choose who it is")
        return self

    def vouches_for(self, source: Source) -> bool:
        """Whether this peer may say who is calling."""
        if self.principals and source.principal not in self.principals:
            return False
        return not self.addresses or self._is_inside(source.address)

    def _is_inside(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.addresses)


class HeaderSource(Block):
    """Identity headers set by a trusted peer; each field names the header that holds it."""

    model_config = ConfigDict(json_schema_extra=one_or_more("id", "user", "team"))

    trusted_from: Trusted
    """The peers whose headers count; a client must not choose who it is."""
    id: HeaderName | None = None
    """The header that says identity.id."""
    user: HeaderName | None = None
    """The header that says identity.user."""
    team: HeaderName | None = None
    """The header that says identity.team."""
    org: HeaderName | None = None
    """The header that says identity.org."""
    groups: HeaderName | None = None
    """The header that says identity.groups, separated by commas."""

    @model_validator(mode="after")
    def _somebody(self) -> HeaderSource:
        if not (self.id or self.user or self.team):
            raise rejected("one of id, user, team must name a header")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Every header this source reads."""
        return tuple(name for name in (self.id, self.user, self.team, self.org, self.groups) if name)


class IdentitySource(Block):
    """One place to look."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    api_key: ApiKeySource | None = None
    """A key of an ApiKey object."""
    jwt: JwtSource | None = None
    """A token that Envoy's jwt_authn verified."""
    mtls: MtlsSource | None = None
    """A client certificate that Envoy's listener verified."""
    headers: HeaderSource | None = None
    """Headers set by a peer that is trusted."""

    @model_validator(mode="after")
    def _one(self) -> IdentitySource:
        if len(self._given) != 1:
            raise rejected("a source is exactly one of apiKey, jwt, mtls, headers")
        return self

    @property
    def _given(self) -> tuple[str, ...]:
        return tuple(name for name in _WANTED if getattr(self, name) is not None)

    @property
    def wanted(self) -> str:
        """What this source looks for, in the words of a denial."""
        return _WANTED[self._given[0]]


class Identity(PolicySpec):
    """Where to look for the caller, in order, and what becomes of one who shows nothing."""

    sources: tuple[IdentitySource, ...] = ()
    """Where to look for the caller; the first that holds a credential decides."""
    anonymous: Effect = Effect.DENY
    """What becomes of a caller who shows nothing."""

    @cached_property
    def wanted(self) -> str:
        """Everything that would do, in the words of a denial."""
        *others, last = dict.fromkeys(source.wanted for source in self.sources) or ("a credential",)
        return f"{', '.join(others)} or {last}" if others else last


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """What one look at a request's head gave; `consumed_*` name what must not go upstream."""

    caller: Caller = Caller()  # noqa: RUF009  a frozen value
    refused: Reason | None = None
    consumed_headers: tuple[str, ...] = ()
    consumed_query: str = ""


def recognise(spec: Identity, keys: KeyRing, head: RequestHead, at_ns: int) -> Recognition:
    """Who is calling, or why that is not known."""
    for source in spec.sources:
        found = _look(source, keys, head, at_ns)
        if found is not None:
            return found
    return Recognition(refused=Reason.CREDENTIAL_MISSING if spec.anonymous is Effect.DENY else None)


def _look(source: IdentitySource, keys: KeyRing, head: RequestHead, at_ns: int) -> Recognition | None:
    if source.api_key:
        return _by_key(source.api_key, keys, head, at_ns)
    if source.jwt:
        return _verified(source.jwt.caller(head.source), head, source.jwt.header)
    if source.mtls:
        return _verified(source.mtls.caller(head.source), head)
    return _by_headers(source.headers, head) if source.headers else None


def path_without(path: str, parameter: str) -> str:
    """The path with every occurrence of one query parameter left out, the rest byte for byte."""
    bare, _, query = path.partition("?")
    kept = [pair for pair in query.split("&") if unquote_plus(pair.partition("=")[0]) != parameter]
    return f"{bare}?{'&'.join(kept)}" if kept else bare


def _verified(caller: Caller | None, head: RequestHead, *credentials: str) -> Recognition | None:
    """A caller Envoy vouches for; `credentials` are the headers that held what it verified."""
    if caller is None:
        return None
    return Recognition(
        caller=caller, consumed_headers=tuple(name for name in credentials if name in head.headers)
    )


def _by_key(source: ApiKeySource, keys: KeyRing, head: RequestHead, at_ns: int) -> Recognition | None:
    shown = tuple(_shown_in_headers(source, head))
    credentials = tuple(credential for _, credential in shown)
    in_query = tuple(_shown_in_query(source.query, head)) if source.query else ()
    # A parameter that is there twice means different keys to different readers.
    credentials += in_query if len(in_query) == 1 else ("",) * len(in_query)
    if not credentials:
        return None
    found = [key for key in map(keys.find, credentials) if key]
    refused = refusal(found[0], at_ns) if found else Reason.CREDENTIAL_INVALID
    return Recognition(
        caller=holder(found[0]) if refused is None else Caller(),
        refused=refused,
        consumed_headers=tuple(name for name, _ in shown),
        consumed_query=source.query or "" if in_query else "",
    )


def _shown_in_headers(source: ApiKeySource, head: RequestHead) -> Iterator[tuple[str, str]]:
    """Each (header, credential) that this source finds."""
    for name, scheme in source.headers:
        value = head.headers.get(name, "").strip()
        if scheme:
            given, _, credential = value.partition(" ")
            value = credential.strip() if given.lower() == scheme else ""
        if value:
            yield name, value


def _shown_in_query(parameter: str, head: RequestHead) -> Iterator[str]:
    for pair in head.query.split("&"):
        name, _, value = pair.partition("=")
        if unquote_plus(name) == parameter:
            yield unquote_plus(value)


def _by_headers(source: HeaderSource, head: RequestHead) -> Recognition | None:
    if not source.trusted_from.vouches_for(head.source):
        return None

    def value(name: str | None) -> str:
        return head.headers.get(name, "").strip() if name else ""

    user, team = value(source.user), value(source.team)
    if not (value(source.id) or user or team):
        return None
    groups = tuple(group.strip() for group in value(source.groups).split(",") if group.strip())
    return Recognition(
        caller=Caller(
            id=value(source.id) or user or team,
            user=user,
            team=team,
            org=value(source.org),
            groups=groups,
            authenticated=True,
        ),
        consumed_headers=tuple(name for name in source.names if name in head.headers),
    )
