"""Provider: a server that speaks a known dialect somewhere else; data, no code.

Floor 1, pure.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from extproc.formats import FORMATS, providers
from extproc.policy.objects import Spec, rejected, whole
from extproc.policy.suggest import did_you_mean

# Host names, IPv4 addresses, and one `*` for any beginning.
_HOST = re.compile(r"(\*|\*?[a-z0-9.-]*[a-z0-9])")
_BASE_PATH = re.compile(r"(/([A-Za-z0-9._~-]+|\*|\{model\}))*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def _matching(pattern: re.Pattern[str], message: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise rejected(message)
        return value

    return AfterValidator(check)


def _schema(pattern: re.Pattern[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": whole(pattern)})


def _known(name: str) -> str:
    if name not in FORMATS:
        formats = ", ".join(sorted(FORMATS))
        raise rejected(f"there is no such format; the formats are {formats}{did_you_mean(name, FORMATS)}")
    return name


ProviderName = Annotated[
    str,
    _matching(_NAME, "a provider is lower case, such as openai, aws.bedrock or my_llms"),
    _schema(_NAME),
]
Host = Annotated[
    str, _matching(_HOST, "a host is lower case, without port; it may begin with *"), _schema(_HOST)
]
BasePath = Annotated[
    str,
    _matching(
        _BASE_PATH,
        "a base path is empty or begins with a slash; a segment may be * or {model}; no slash ends it",
    ),
    _schema(_BASE_PATH),
]
Format = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": sorted(FORMATS)})]


class Provider(Spec):
    """Where a provider listens and which of the known formats it speaks there."""

    provider: ProviderName
    """Its name in request.provider, prices and spans."""
    hosts: tuple[Host, ...] = ()
    """Lower-case host names without port, which may begin with *; left out: any host."""
    base_path: BasePath = ""
    """What comes before the format's own path, such as /v1; a segment may be * or {model}."""
    formats: tuple[Format, ...] = Field(min_length=1)
    """The wire formats it speaks there."""

    @cached_property
    def site(self) -> providers.Provider:
        """The same as `classify` wants it."""
        return providers.Provider(
            name=self.provider, hosts=self.hosts, base_path=self.base_path, formats=self.formats
        )
