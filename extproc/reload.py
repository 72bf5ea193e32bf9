"""The policy folder, followed: the last good revision stays until a better one loads.

Floor 3. A request keeps the set it started with; `current` is read once a request.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from watchfiles import awatch

from extproc.errors import PolicyFolderInvalid
from extproc.policy import policyset
from extproc.policy.difference import Difference, diff
from extproc.policy.policyset import PolicySet

log = logging.getLogger(__name__)

# Editors and ConfigMap updates write several files; one load after they are quiet. An edit takes
# effect within a second.
_QUIET_MS = 100
# Not every file system sends events (NFS, some mounts): look again now and then.
_LOOK_AGAIN_MS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadStatus:
    """How the last load went."""

    at_ns: int
    ok: bool
    problems: tuple[str, ...] = ()


class PolicyFolder:
    """One folder and the revision in force. Raises `PolicyFolderInvalid` if it does not load at first.

    `on_change` is told of each revision that comes into force after the first.
    """

    def __init__(
        self,
        folder: Path,
        *,
        on_failure: Callable[[], None] = lambda: None,
        on_change: Callable[[PolicySet, Difference], None] = lambda _loaded, _change: None,
    ) -> None:
        self._folder = folder
        self._on_failure = on_failure
        self.on_change = on_change
        self._seen = _fingerprint(folder)
        self.current: PolicySet = policyset.load(folder)
        self.status = ReloadStatus(at_ns=time.time_ns(), ok=True)
        self.loaded_at_ns = self.status.at_ns  # Unix time of the last load that succeeded

    async def follow(self) -> None:
        """Load again after every change, until cancelled."""
        is_told = False
        while True:
            try:
                async for _ in awatch(
                    self._folder,
                    debounce=_QUIET_MS * 2,
                    step=_QUIET_MS,
                    rust_timeout=_LOOK_AGAIN_MS,
                    yield_on_timeout=True,
                    recursive=False,
                ):
                    await self.look()
            except (OSError, RuntimeError) as error:
                # The folder itself is gone, or the system has no watch left to give (a full
                # fs.inotify.max_user_instances). Looking still works.
                if not is_told:
                    log.warning("policy folder cannot be watched; looking now and then", exc_info=error)
                is_told = True
                await self.look()
                await asyncio.sleep(_LOOK_AGAIN_MS / 1000)

    async def look(self) -> None:
        """Load if the folder's content differs from what was last tried; off the event loop."""
        seen = await asyncio.to_thread(_fingerprint, self._folder)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            loaded = await asyncio.to_thread(policyset.load, self._folder)
        except PolicyFolderInvalid as invalid:
            self._failed(tuple(str(problem) for problem in invalid.problems))
        except Exception as error:
            # Whatever a folder does to the loader, the revision in force stays in force.
            log.exception("policy loader failed")
            self._failed((f"{self._folder}:0:0: the loader failed: {type(error).__name__}",))
        else:
            change = diff(self.current, loaded)
            self.current = loaded
            self.status = ReloadStatus(at_ns=time.time_ns(), ok=True)
            self.loaded_at_ns = self.status.at_ns
            log.info("policies loaded", extra={"revision": loaded.revision, "change": change})
            self.on_change(loaded, change)

    def _failed(self, problems: tuple[str, ...]) -> None:
        self.status = ReloadStatus(at_ns=time.time_ns(), ok=False, problems=problems)
        log.error(
            "policy reload failed; the last good revision stays",
            extra={"revision": self.current.revision, "problems": list(problems)},
        )
        self._on_failure()


def _fingerprint(folder: Path) -> str:
    """The folder's names and bytes, whatever they are; equal means there is nothing to load."""
    digest = hashlib.sha256()
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return "unreadable"
    for path in paths:
        try:
            content = path.read_bytes() if path.is_file() else b""
        except OSError:
            content = b"unreadable"
        digest.update(
            path.name.encode("utf-8", "surrogateescape") + b"\0" + str(len(content)).encode() + b"\0"
        )
        digest.update(content)
    return digest.hexdigest()
