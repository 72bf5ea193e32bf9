"""What real servers of tests have in common: a port, a folder, a log, and patience until they answer."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.gateway import free_ports

_LOOKS_EVERY_S = 0.01


class ServerProcess(ABC):
    """One server on loopback; a context manager that starts it and leaves nothing behind."""

    patience_s: float  # until it answers, on a busy machine

    def __init__(self, name: str) -> None:
        self.port = free_ports(1)[0]
        self._folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @abstractmethod
    def start(self) -> None:
        """Start it, with what is on disk, and wait until it answers."""

    @abstractmethod
    def kill(self) -> None:
        """Kill it with SIGKILL, paused or not."""

    @abstractmethod
    def _answers(self) -> bool: ...

    def _run(self, command: Sequence[str | Path], **options: Any) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        end = time.monotonic() + self.patience_s
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(_LOOKS_EVERY_S)
