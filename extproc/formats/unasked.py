"""What formats share whose answers report usage without being asked; most have no headers for limits.

Floor 1, pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from extproc.decision import LimitState
from extproc.formats.base import JSON, Call, OutputCeiling


class Unasked:
    """The part of a `WireFormat` that is the same for all of them."""

    model_field = "model"

    def output_ceiling(self, _body: JSON, _call: Call) -> OutputCeiling | None:
        """None: unless a format says more, nothing is generated or nothing can be said of it."""
        return None

    def ask_for_usage(self, _body: JSON, _call: Call) -> JSON | None:
        """None: whatever an answer reports, it reports unasked."""
        return None

    def is_usage_chunk(self, _event_data: bytes) -> bool:
        """False: no event is there only for its usage."""
        return False

    def limit_headers(
        self, _limits: tuple[LimitState, ...], _now_s: float, _provider: str = ""
    ) -> Mapping[str, str]:
        """None: the vendors document no headers for limits."""
        return {}
