"""Readers for answers that are no JSON: text that is the answer itself, and bytes that tell nothing.

Floor 1, pure.
"""

from __future__ import annotations

import codecs

from extproc.formats.answers import JSON, Tally
from extproc.formats.sse import SSEEvent
from extproc.model import Observation


class TextAnswer:
    """An answer whose whole body is generated text."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._is_over = False
        self._tally = Tally()

    def feed(self, data: bytes) -> None:
        """Take the next bytes; ignored after `finish`."""
        if data and not self._is_over:
            self._tally.is_legible = True
            self._tally.say("text", self._decoder.decode(data))

    def finish(self) -> None:
        """The text ended. Idempotent."""
        if not self._is_over:
            self._is_over = True
            self._tally.say("text", self._decoder.decode(b"", final=True))
            self._tally.finished = self._tally.is_legible

    def observation(self) -> Observation:
        """What was seen so far."""
        return self._tally.observation()

    def pending_bytes(self, *, is_last: bool) -> int:  # noqa: ARG002  text is read as it comes
        """Nothing."""
        return 0


class UnreadAnswer:
    """An answer that says nothing of its cost, such as sound: what was reserved for it stands."""

    def feed(self, data: bytes) -> None:
        """Ignore it."""

    def finish(self) -> None:
        """Nothing to do."""

    def observation(self) -> Observation:
        """Nothing was seen."""
        return Observation()

    def pending_bytes(self, *, is_last: bool) -> int:  # noqa: ARG002  nothing is read
        """Nothing."""
        return 0


class Receipts:
    """Answers that say what was accepted, not what it will cost: only an error in them is read."""

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take the receipt, or the error in its place."""
        tally.name(response_id=body.get("id"))
        if body.get("error"):
            tally.fail(body["error"])
        else:
            # As if unread: otherwise no output would be counted as none generated.
            tally.is_legible = tally.finished = False

    def read_event(self, _event: SSEEvent, tally: Tally) -> None:
        """No receipt comes in events."""
        tally.is_legible = False
