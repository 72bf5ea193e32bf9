"""What was learned of models, kept in a file across restarts: names and figures, never a text.

Floor 3. Nothing here is needed to decide: whatever is wrong with the file or its folder is said, and
the sidecar goes on with what it has in memory. Several processes may share a folder; the last to
write wins, and a reader never sees half a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from extproc.measure.bytes_per_token import BytesPerToken
from extproc.measure.calibration import Calibration
from extproc.measure.learned import LearnedOutputs

log = logging.getLogger(__name__)

FILE_NAME = "learned.json"
_SCHEMA = "extproc/learned/v1"
# A thousand models with all they can hold come to three megabytes, with the longest names to five.
_LARGEST_FILE_BYTES = 16 * 1024 * 1024
_PARTS = ("outputs", "reasoning", "estimates", "bytes_per_token")
_PERIOD_S = 60.0
# Writing takes milliseconds: what is unfinished after an hour was left by a process that was killed.
_ABANDONED_S = 3600.0


class LearnedFile:
    """One file for all that is learned; call `load` once before anything is learned."""

    def __init__(
        self,
        folder: Path,
        outputs: LearnedOutputs,
        reasoning: LearnedOutputs,
        calibration: Calibration,
        *,
        bytes_per_token: BytesPerToken,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = folder / FILE_NAME
        self._outputs = outputs
        self._reasoning = reasoning
        self._calibration = calibration
        self._bytes_per_token = bytes_per_token
        self._on_failure = on_failure
        self._saved = self._changes

    def load(self) -> None:
        """Take over what an earlier run wrote; a file that is none of ours is said and left alone."""
        try:
            content = _read(self._path)
            self._outputs.load(content["outputs"])
            self._reasoning.load(content["reasoning"])
            self._calibration.load(content["estimates"])
            self._bytes_per_token.load(content["bytes_per_token"])
        except FileNotFoundError:
            log.info("nothing learned yet", extra={"file": str(self._path)})
        except (OSError, ValueError, RecursionError) as error:
            why = str(error) or type(error).__name__
            log.warning("learned file ignored", extra={"file": str(self._path), "why": why})
        self._saved = self._changes
        _clear(self._path)

    async def keep(self, period_s: float = _PERIOD_S) -> None:
        """Save now and then what is new, until cancelled."""
        while True:
            await asyncio.sleep(period_s)
            await self.save()

    async def save(self) -> None:
        """Write the file if anything was learned since; off the event loop, and never a failure."""
        changes = self._changes
        if changes == self._saved:
            return
        try:
            await asyncio.to_thread(self._write)
        except OSError as error:
            why = error.strerror or type(error).__name__
            log.warning("what was learned is not saved", extra={"file": str(self._path), "why": why})
            self._on_failure()
        else:
            self._saved = changes

    def _write(self) -> None:
        content = {
            "schema": _SCHEMA,
            "outputs": self._outputs.dump(),
            "reasoning": self._reasoning.dump(),
            "estimates": self._calibration.dump(),
            "bytes_per_token": self._bytes_per_token.dump(),
        }
        _replace(self._path, content)

    @property
    def _changes(self) -> int:
        parts = (self._outputs, self._reasoning, self._calibration, self._bytes_per_token)
        return sum(part.changes for part in parts)


def _read(path: Path) -> dict[str, Any]:
    """The file's content. Raises `OSError`, or `ValueError` where it is not what we write."""
    with path.open("rb") as file:
        data = file.read(_LARGEST_FILE_BYTES + 1)
    if len(data) > _LARGEST_FILE_BYTES:
        raise ValueError("it is larger than anything that is learned")
    content = json.loads(data)
    if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
        raise ValueError(f"it is not of the schema {_SCHEMA}")
    # Files of versions that learned less lack a part.
    content.setdefault("bytes_per_token", [])
    if not all(isinstance(content.get(part), list) for part in _PARTS):
        raise ValueError("a part of it is missing")
    return content


def _clear(path: Path) -> None:
    """Take away what killed processes left unfinished beside the file."""
    before_s = time.time() - _ABANDONED_S
    with contextlib.suppress(OSError):
        for unfinished in path.parent.glob(_unfinished_prefix(path) + "*"):
            if unfinished.stat().st_mtime < before_s:
                unfinished.unlink()


def _unfinished_prefix(path: Path) -> str:
    return f".{path.name}-"


def _replace(path: Path, content: Any) -> None:
    """Replace the file as a whole. Raises `OSError`, and leaves nothing unfinished behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # ASCII: a name may hold half a surrogate pair, which UTF-8 has no bytes for.
    data = json.dumps(content, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=_unfinished_prefix(path), delete=False
    ) as unfinished:
        try:
            unfinished.write(data)
            unfinished.flush()
            os.fsync(unfinished.fileno())
            Path(unfinished.name).replace(path)
        except OSError:
            Path(unfinished.name).unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # The new name itself must outlive a crash.
        os.fsync(folder)
    finally:
        os.close(folder)
