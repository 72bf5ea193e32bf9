"""Defaults: what holds where no policy speaks. Exactly one a folder.

Floor 1, pure.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from extproc.decision import Effect
from extproc.policy.objects import Spec

MIB = 1024 * 1024


class Defaults(Spec):
    """The folder's settings; each is safe when left out."""

    access: Effect = Effect.DENY
    """What becomes of a request that no AccessRule speaks of."""
    unclassified: Effect = Effect.DENY
    """What becomes of a request on an AI route that is no format we know."""
    # Anthropic accepts 32 MiB; Envoy's buffer limit is rendered from the same number.
    max_body_bytes: int = Field(default=32 * MIB, ge=1, le=1024 * MIB)
    """The largest body that is read; Envoy's buffer limit is rendered from it."""
    reserve: Literal["expected", "declared"] | None = None
    """How much output limits set aside before the answer; left out: each kind's own default."""
    usage_chunk: Literal["strip", "visible", "off"] = "strip"
    """What callers see of the usage chunk that we ask streams for."""
    response_headers: bool = True
    """Whether answers carry x-ratelimit-* in the caller's dialect."""
    # required: no request goes upstream before its decision is on disk; best_effort: written just after.
    audit: Literal["required", "best_effort"] = "best_effort"
    """required: no request goes upstream before its decision is on disk; best_effort: written just after."""
