"""What a test of policies may say, as its YAML has it. Floor 3, pure."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from extproc.decision import Effect, PolicyRef, Reason
from extproc.model import Identity
from extproc.policy.instants import instant_ns
from extproc.policy.objects import Block, HeaderName, rejected


def _ref(value: Any) -> PolicyRef:
    kind, slash, name = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not (kind and slash and name):
        raise rejected("a policy is named Kind/name, such as UsageCap/team-month")
    return PolicyRef(kind, name)


# Windows begin before a time and end after it, and a calendar has a first and a last year.
_TIMES: Final = range(instant_ns("9999-01-01T00:00:00Z"))


def _time_ns(value: Any) -> int:
    found = instant_ns(value)
    if found not in _TIMES:
        raise rejected("a test takes place between the years 1970 and 9998")
    return found


Instant = Annotated[int, PlainValidator(_time_ns), WithJsonSchema({"type": "string"})]
Named = Annotated[PolicyRef, PlainValidator(_ref), WithJsonSchema({"type": "string"})]


class Caller(Block):
    """`given.identity`: who calls, as if the folder's Identity had found it out."""

    id: str = ""  # left out: the user, or else the team
    user: str = ""
    team: str = ""
    org: str = ""
    groups: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    claims: dict[str, str] = Field(default_factory=dict)
    key: str = ""
    authenticated: bool = True

    @property
    def identity(self) -> Identity:
        """The same as policies see it."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return Identity(**{**fields, "id": self.id or self.user or self.team})


class Peer(Block):
    """`given.source`: where the request comes from, as Envoy says."""

    address: str = ""
    principal: str = ""
    route: str = ""


class World(Block):
    """`given`: the world that the request comes into."""

    identity: Caller | None = None
    key: str | None = None  # name of an ApiKey, shown where the folder's Identity looks for one
    source: Peer = Peer()
    # Kind/name -> unit -> amount, by this request's key.
    used: dict[str, dict[str, Any]] = Field(default_factory=dict)
    now: Instant | None = None  # left out: when the tests run

    @model_validator(mode="after")
    def _one_caller(self) -> World:
        if self.identity is not None and self.key is not None:
            raise rejected("identity or key says who calls, not both")
        return self


class Request(Block):
    """`request`: what the client sends; a body that is no text is sent as JSON."""

    path: Annotated[str, Field(pattern="^/", description="It begins with /, and has the query.")]
    # Left out: POST with a body, else GET.
    method: str | None = Field(default=None, pattern="^[A-Z]+$", description="It is in upper case.")
    host: str = "gateway"
    headers: dict[HeaderName, str] = Field(default_factory=dict)
    body: Any = None


class Expect(Block):
    """`expect`: what must come of it; a field left out is not looked at."""

    effect: Effect | None = None  # what policy says, shadow policies too
    enforced_effect: Effect | None = None  # what is done
    by: Named | None = None
    reason: Reason | None = None
    status: int | None = None  # of the denial
    message: str | None = None  # a part of what the denied caller is told
    retry_after_ms: int | None = None
    would_deny: tuple[Named, ...] | None = None  # every shadow policy that would
    model: str | None = None  # that the request goes upstream with
    max_output_tokens: int | None = None  # of one choice, that the request goes upstream with
    warnings: tuple[str, ...] | None = None  # a part of each, in order

    @model_validator(mode="after")
    def _something(self) -> Expect:
        if not self.model_fields_set:
            fields = (field.alias or name for name, field in Expect.model_fields.items())
            raise rejected(f"nothing is expected; name at least one of {', '.join(fields)}")
        return self


class PolicyTest(Block):
    """One test as it is written."""

    name: Annotated[str, Field(min_length=1)]
    given: World = World()
    request: Request
    expect: Expect
