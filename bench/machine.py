"""Where and with what a benchmark ran: figures mean nothing without it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

from demo.child import envoy_binary


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine and the versions of what matters."""

    cores: int
    cpu: str
    kernel: str
    envoy: str
    python: str
    grpcio: str

    @classmethod
    def read(cls) -> Self:
        """Look at this machine."""
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        told = subprocess.run([envoy_binary(), "--version"], capture_output=True, text=True, check=True)
        envoy = re.search(r"\d+\.\d+\.\d+", told.stdout)
        return cls(
            cores=len(os.sched_getaffinity(0)),
            cpu=found[1] if found else platform.machine(),
            kernel=platform.release(),
            envoy=envoy[0] if envoy else "unknown",
            python=platform.python_version(),
            grpcio=version("grpcio"),
        )


def load_average() -> float:
    """Processes that ran or wanted to, over the last minute."""
    return os.getloadavg()[0]
