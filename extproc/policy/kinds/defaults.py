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

    access: Effect = Effect.DENY  # when no AccessRule speaks
    unclassified: Effect = Effect.DENY  # an AI route whose request is no format we know
    # Anthropic accepts 32 MiB; Envoy's buffer limit is rendered from the same number.
    max_body_bytes: int = Field(default=32 * MIB, ge=1, le=1024 * MIB)
    reserve: Literal["expected", "declared"] | None = None  # overrides each kind's own default
    usage_chunk: Literal["strip", "visible", "off"] = "strip"
    response_headers: bool = True
    # required: no request goes upstream before its decision is on disk; best_effort: written just after.
    audit: Literal["required", "best_effort"] = "best_effort"
