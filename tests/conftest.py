"""What every test shares: on CI a test that cannot run is a failure, and how processes share the tests."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

# Machines are shared, and a fresh checkout draws its first text from a table that it builds meanwhile.
settings.register_profile(
    "shared machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")

# The tests serve gRPC and start processes: without this the child of a fork aborts inside gRPC's own
# fork handlers, before it becomes another program.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# Recorded traffic that is lent to a checkout and never part of it: its absence stays a skip everywhere.
LENT = "shared/corpus"


# The shared stacks of tests/e2e/conftest.py, as they stand in a test's id.
STACK = re.compile(r"\[.*?((?:native|stream)-[\d.]+)")
# Tests of these folders start servers of their own; the others take moments and fill the gaps at the end.
SLOW = ("tests", "tests/e2e")


class Sharing(LoadScopeScheduling):  # type: ignore[misc]  # untyped
    """How processes share the tests: a file is one's, and so is a stack that several files use."""

    def _split_scope(self, nodeid: str) -> str:
        return shared_with(nodeid)


def shared_with(nodeid: str) -> str:
    """What one process takes as a whole: tests with the same word here."""
    path, _, name = nodeid.partition("::")
    stack = STACK.search(name) if path.startswith("tests/e2e/") else None
    return stack[1] if stack else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return Sharing(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes long comes first, where several processes share the tests."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.nodeid.partition("::")[0].rpartition("/")[0] not in SLOW)


def must_run(report: pytest.TestReport | pytest.CollectReport) -> bool:
    """Whether this skip counts as a failure here."""
    expected_failure = hasattr(report, "wasxfail")
    on_ci = os.environ.get("CI", "").lower() in ("true", "1")
    return on_ci and report.skipped and not expected_failure and LENT not in str(report.longrepr)


def fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"must not be skipped where CI is set: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if must_run(report):
        fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, pytest.CollectReport]:
    report: pytest.CollectReport = yield
    if must_run(report):
        fail(report)
    return report
