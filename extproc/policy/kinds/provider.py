"""Provider: a server that speaks a known dialect somewhere else; data, no code.

Floor 1, pure.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, Field

from extproc.formats import FORMATS, providers
from extproc.policy.objects import Spec, rejected

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


def _known(name: str) -> str:
    if name not in FORMATS:
        raise rejected(f"there is no such format; the formats are {', '.join(sorted(FORMATS))}")
    return name


class Provider(Spec):
    """Where a provider listens and which of the known formats it speaks there."""

    provider: Annotated[
        str, _matching(_NAME, "a provider is lower case, such as openai, aws.bedrock or my_llms")
    ]
    hosts: tuple[
        Annotated[str, _matching(_HOST, "a host is lower case, without port; it may begin with *")], ...
    ] = ()
    base_path: Annotated[
        str,
        _matching(
            _BASE_PATH,
            "a base path is empty or begins with a slash; a segment may be * or {model}; no slash ends it",
        ),
    ] = ""
    formats: tuple[Annotated[str, AfterValidator(_known)], ...] = Field(min_length=1)

    @cached_property
    def site(self) -> providers.Provider:
        """The same as `classify` wants it."""
        return providers.Provider(
            name=self.provider, hosts=self.hosts, base_path=self.base_path, formats=self.formats
        )
