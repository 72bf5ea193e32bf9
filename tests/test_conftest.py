"""On CI a test that cannot run is a failure; what is only lent to a checkout stays a skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
import pytest

def test_it_needs_something() -> None:
    pytest.skip("{reason}")
"""
MODULE = "import pytest\npytest.skip('{reason}', allow_module_level=True)\n"


@pytest.mark.parametrize(
    ("ci", "reason", "code"),
    [
        ("true", "needs root", 1),
        ("", "needs root", 0),
        ("false", "needs root", 0),
        ("true", "../shared/corpus is not here", 0),
    ],
)
@pytest.mark.parametrize("source", [SOURCE, MODULE])
def test_a_skip_fails_on_ci_only(ci: str, reason: str, code: int, source: str, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    (tmp_path / "test_sample.py").write_text(source.format(reason=reason))
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ],
        cwd=tmp_path,
        env=os.environ | {"CI": ci},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    # Pytest says 5 where a module was skipped and nothing was left to run, 2 where collecting failed.
    assert ran.returncode in ({1, 2} if code else {0, 5}), ran.stdout
    assert (reason in ran.stdout) == bool(code)
