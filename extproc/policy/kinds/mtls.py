"""Identity's source `mtls`: the URI in a client certificate that Envoy's listener has verified.

Floor 1, pure. Which authorities count is the listener's validation_context; without one any
certificate would do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from extproc.model import Identity as Caller
from extproc.model import Source
from extproc.policy.objects import Block, rejected

_ANY: Final = "*"


def _pattern(value: Any) -> str:
    scheme, *segments = value.split("/") if isinstance(value, str) else ("",)
    stars = [segment for segment in segments if _ANY in segment]
    if not scheme or _ANY in scheme or any(star != _ANY for star in stars):
        raise rejected(
            "a principal is a URI in which * stands for one whole segment, such as spiffe://x/ns/*/sa/app"
        )
    return str(value)


class Principal(Block):
    """Who shows a certificate with this URI."""

    principal: Annotated[
        str,
        PlainValidator(_pattern),
        WithJsonSchema({"type": "string", "examples": ["spiffe://cluster.local/ns/*/sa/chatbot"]}),
    ]
    """The URI of the certificate; * stands for one whole segment."""
    user: str = ""
    """identity.user."""
    team: str = ""
    """identity.team."""
    org: str = ""
    """identity.org."""
    groups: tuple[str, ...] = ()
    """identity.groups."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """identity.labels."""

    def means(self, principal: str) -> bool:
        """Whether the pattern, segment by segment, is this principal."""
        if _ANY not in self.principal:
            return principal == self.principal
        wanted, shown = self.principal.split("/"), principal.split("/")
        return len(wanted) == len(shown) and all(
            want == got or (want == _ANY and got != "") for want, got in zip(wanted, shown, strict=True)
        )


class MtlsSource(Block):
    """The principals that count, and who each of them is; the first that fits decides."""

    principals: tuple[Principal, ...] = Field(min_length=1)
    """Whose certificates count, and who each of them is; the first that fits decides."""

    @model_validator(mode="after")
    def _each_once(self) -> MtlsSource:
        if len({each.principal for each in self.principals}) < len(self.principals):
            raise rejected("a principal is there twice; the second could never matter")
        return self

    def caller(self, source: Source) -> Caller | None:
        """Who the certificate's owner is; None where there is no certificate, or nobody's here."""
        if not source.principal:
            return None
        found = next((each for each in self.principals if each.means(source.principal)), None)
        if found is None:
            return None
        return Caller(
            id=source.principal,
            user=found.user,
            team=found.team,
            org=found.org,
            groups=found.groups,
            labels=found.labels,
            authenticated=True,
        )
