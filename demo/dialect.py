"""What a dialect of the demo provider must know; `endpoints` lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from demo.answers import Part
from demo.asked import Asked
from demo.generation import Choice


class Dialect(Protocol):
    """One wire format, spoken from the provider's side. Modules of this folder are such."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a module's constant
        """The wire format, in the sidecar's word."""

    @property
    def PROVIDER(self) -> str:  # noqa: N802 - a module's constant
        """Whose tokens are counted."""

    def request_id(self) -> str:
        """A new request id."""

    def headers(self, request_id: str) -> dict[str, str]:
        """What every answer carries."""

    def credential(self, headers: Mapping[str, str]) -> str:
        """The key a caller presents; empty where there is none."""

    def error(self, status: int, message: str, *, param: str | None, request_id: str) -> dict[str, Any]:
        """An error's body."""

    def error_headers(self, status: int) -> dict[str, str]:
        """What an answer with an error carries besides."""

    def error_event(self, request_id: str) -> bytes:
        """An error in the middle of a stream."""

    def read(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:
        """What a body asks for; what path and query name is put among it. Raises `Refused` (400)."""

    def whole(
        self, asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str
    ) -> dict[str, Any]:
        """A JSON answer; `usage_mode` is `true`, `zero`, `null` or `absent`."""

    def events(
        self, asked: Asked, choices: tuple[Choice, ...], input_tokens: int, usage_mode: str
    ) -> Iterator[Part]:
        """A streamed answer, a chunk a token."""

    def garbage(self) -> bytes:
        """The beginning of an answer, and no more."""


class Catalogue(Dialect, Protocol):
    """A dialect that lists models too."""

    @property
    def MODELS(self) -> tuple[str, ...]:  # noqa: N802 - a module's constant
        """What the list of models shows; others are answered too."""

    def models(self) -> dict[str, Any]:
        """The list of models."""

    def model(self, name: str) -> dict[str, Any]:
        """One model."""
