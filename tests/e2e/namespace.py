"""A network and a file system of one's own, where any name resolves to this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run_inside(module: str, *arguments: Path) -> Any:
    """Run `python -m module` as root in new namespaces; returns the JSON it prints, or skips the test."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a network and mounts of its own")
    ran = subprocess.run(
        ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    if ran.stderr.startswith("unshare:"):
        pytest.skip(f"no namespaces here: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


# --- to be called inside


def loopback_up() -> None:
    """Bring up the new network's only interface."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def mount(*arguments: str) -> None:
    """Mount in this namespace."""
    subprocess.run(["mount", *arguments], check=True)


def write_hosts(path: Path, names: Iterable[str]) -> None:
    """A hosts file that resolves every name to loopback."""
    path.unlink(missing_ok=True)
    path.write_text(f"127.0.0.1 localhost {' '.join(names)}\n")
