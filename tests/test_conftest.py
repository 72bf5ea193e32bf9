"""On CI a test that cannot run is a failure; what is only lent to a checkout stays a skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import shared_with

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
    (tmp_path / "test_sample.py").write_text(source.format(reason=reason))
    ran = run(tmp_path, ci=ci)

    # Pytest says 5 where a module was skipped and nothing was left to run, 2 where collecting failed.
    assert ran.returncode in ({1, 2} if code else {0, 5}), ran.stdout
    assert (reason in ran.stdout) == bool(code)


def test_a_skip_fails_on_ci_where_processes_share_the_tests_too(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text(SOURCE.format(reason="needs root"))
    (tmp_path / "test_other.py").write_text("def test_it_runs() -> None:\n    pass\n")
    ran = run(tmp_path, "-n", "2", "--dist", "loadscope", ci="true")

    assert ran.returncode == 1, ran.stdout
    assert "1 failed, 1 passed" in ran.stdout


@pytest.mark.parametrize(
    ("test", "unit"),
    [
        ("tests/e2e/test_formats.py::test_it[gemini-native-1.40.0]", "native-1.40.0"),
        ("tests/e2e/test_bodies.py::test_it[stream-1.38.3-large]", "stream-1.38.3"),
        ("tests/e2e/test_hostile.py::test_its_own_stack", "tests/e2e/test_hostile.py"),
        ("tests/test_up.py::test_it[native-1.40.0]", "tests/test_up.py"),
    ],
)
def test_a_stack_that_files_share_is_one_processs_and_so_is_a_file(test: str, unit: str) -> None:
    assert shared_with(test) == unit


def run(folder: Path, *options: str, ci: str) -> subprocess.CompletedProcess[str]:
    """The tests of a folder, with this one's conftest."""
    shutil.copy(Path(__file__).parent / "conftest.py", folder)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    return subprocess.run(
        [*command, *options, str(folder)],
        cwd=folder,
        env={name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")} | {"CI": ci},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
